"""What an OpenAI-compatible endpoint answers, as far as anybody here looks at it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: the answer.
        finish_reason: `stop`, `length`, ...; empty where the endpoint gave none.
        tokens: completion tokens as the endpoint counts them; 0 where it does not say.
    """

    text: str
    finish_reason: str
    tokens: int


@dataclass(frozen=True)
class StreamedAnswer:
    """A streamed answer and its times.

    Attributes:
        answer: put together from the pieces.
        first_seconds: from the request to the first piece of text.
        total_seconds: from the request to the last.
        pieces: events that carried text.
        gaps: seconds between each of them and the next.
    """

    answer: Answer
    first_seconds: float
    total_seconds: float
    pieces: int
    gaps: tuple[float, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens over the whole time of the request, as its client lives it; 0 where it is not known.

        Not the rate after the first piece: on a busy machine all pieces can arrive in one burst.
        """
        return self.answer.tokens / self.total_seconds if self.total_seconds > 0 else 0.0


@dataclass(frozen=True)
class OfferedModel:
    """A model that an endpoint offers.

    Attributes:
        name: to ask for it.
        max_model_len: longest request in tokens; None where the endpoint does not say.
    """

    name: str
    max_model_len: int | None


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wants made: the tool's name, and its arguments as JSON text."""

    name: str
    arguments: str

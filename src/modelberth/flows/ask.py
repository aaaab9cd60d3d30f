"""The same prompts to every variant: answers side by side, times, and how many answers quantisation left alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from modelberth.adapters.openai_answers import StreamedAnswer
from modelberth.adapters.openai_api import Endpoint
from modelberth.base.text import printable

DEFAULT_PROMPTS = (
    "What is new in Red Hat OpenShift AI 3.0?",
    "Explain Kubernetes GPU scheduling in 3 sentences.",
)


@dataclass(frozen=True)
class PromptAnswer:
    """A prompt and what one service answered."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Interview:
    """All answers of one service, and its median times.

    Attributes:
        answers: in prompt order.
        first_token_seconds: median from request to first text.
        tokens_per_second: median over the answers; 0 where the endpoint counts no tokens.
    """

    answers: tuple[PromptAnswer, ...]
    first_token_seconds: float
    tokens_per_second: float


def ask(endpoint: Endpoint, served_name: str, prompts: Sequence[str], max_tokens: int) -> Interview:
    """Ask one service all prompts, one after the other, streamed, at temperature 0."""
    streamed = [endpoint.stream_chat(served_name, prompt, max_tokens) for prompt in prompts]
    return Interview(
        tuple(_answer(prompt, item) for prompt, item in zip(prompts, streamed, strict=True)),
        median(item.first_seconds for item in streamed),
        median(item.tokens_per_second for item in streamed),
    )


def _answer(prompt: str, streamed: StreamedAnswer) -> PromptAnswer:
    return PromptAnswer(prompt, printable(streamed.answer.text).strip())


def recovery(pairs: Iterable[tuple[Interview, Interview]]) -> float | None:
    """The share of answers that are the same, character by character; None without pairs.

    Args:
        pairs: an unquantised and a quantised variant of the same model, asked the same prompts.
    """
    alike = [
        ours.text == theirs.text
        for reference, other in pairs
        for ours, theirs in zip(reference.answers, other.answers, strict=True)
    ]
    return sum(alike) / len(alike) if alike else None

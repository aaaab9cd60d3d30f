"""`berth chat`: one conversation with each of several variants, every one with its own history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Thread

from modelberth.adapters.kubernetes_api import Target, connect
from modelberth.adapters.openai_answers import StreamedAnswer
from modelberth.adapters.openai_api import Endpoint, Message
from modelberth.base.errors import BerthError, IntegrityError
from modelberth.base.text import printable
from modelberth.flows.cluster.verify_service import reached


@dataclass
class Partner:
    """One variant that is talked to.

    Attributes:
        name: of the service, or the URL.
        endpoint: that answers.
        model: name that is asked for.
        history: of this conversation.
    """

    name: str
    endpoint: Endpoint
    model: str
    history: list[Message] = field(default_factory=list)

    def say(self, text: str, max_tokens: int, on_text: Callable[[str], None]) -> StreamedAnswer:
        """Say something, after all that was said before.

        Raises:
            IntegrityError, NotReady, AuthError, RemoteUnavailable: no sound answer came.
        """
        return self.endpoint.stream_chat(
            self.model, text, max_tokens, history=tuple(self.history), on_text=lambda piece: on_text(printable(piece))
        )

    def remember(self, text: str, answer: str) -> None:
        """Keep a question and its answer for what follows."""
        self.history += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


@dataclass(frozen=True)
class Piece:
    """What came next of one answer.

    Attributes:
        partner: whose answer it is, by number.
        text: that came; empty at its end.
        ended: whether that was all.
        answer: the whole, at its end; None where there is none.
        error: why there is none.
    """

    partner: int
    text: str = ""
    ended: bool = False
    answer: StreamedAnswer | None = None
    error: BerthError | None = None


class _Stopped(Exception):
    """Whoever asked wants no more of this answer."""


class Round:
    """One question to every partner at once; the answers come in pieces, in the order in which they come.

    An answer that is stopped stays out of the history, and so does its question.
    """

    def __init__(self, found: Sequence[Partner], text: str, max_tokens: int) -> None:
        self._found, self._text = found, text
        self._came: SimpleQueue[Piece] = SimpleQueue()
        self._stop = Event()
        self._left = len(found)
        for number, partner in enumerate(found):
            Thread(target=self._ask, args=(number, partner, text, max_tokens), name="chat", daemon=True).start()

    def _ask(self, number: int, partner: Partner, text: str, max_tokens: int) -> None:
        def take(piece: str) -> None:
            if self._stop.is_set():
                raise _Stopped
            self._came.put(Piece(number, piece))

        try:
            self._came.put(Piece(number, ended=True, answer=partner.say(text, max_tokens, take)))
        except _Stopped:
            return
        except BerthError as error:
            self._came.put(Piece(number, ended=True, error=error))

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Want no more; nothing is waited for. Each request ends when its endpoint says something again."""
        self._stop.set()

    def next(self) -> Piece | None:
        """The next piece; None when all have ended, or somebody has stopped it."""
        if not self._left or self._stop.is_set():
            return None
        piece = self._came.get()
        if piece.ended:
            self._left -= 1
        if piece.answer:
            self._found[piece.partner].remember(self._text, piece.answer.answer.text)
        return piece


@contextmanager
def partners(targets: Sequence[str], target: Target, model: str | None = None) -> Iterator[list[Partner]]:
    """Those who are talked to: URLs as they are, services through tunnels to their pods.

    Args:
        targets: names of services, or URLs.
        target: the cluster; not asked when all are URLs.
        model: to ask for; None for the only one that each offers.

    Raises:
        NotReady: a service is not ready.
        IntegrityError: an endpoint offers no such model, or several and none was named.
    """
    with ExitStack() as held:
        cluster = None
        found = []
        for each in targets:
            if "://" in each:
                endpoint = Endpoint(each.rstrip("/").removesuffix("/v1"))
            else:
                cluster = cluster or held.enter_context(connect(target))
                way = held.enter_context(reached(cluster, cluster.namespace, each))
                endpoint = Endpoint(way.url, unverified=way.unverified)
            held.callback(endpoint.close)
            found.append(Partner(each, endpoint, _model(endpoint, model)))
        yield found


def _model(endpoint: Endpoint, wanted: str | None) -> str:
    offered = endpoint.models()
    if wanted in offered or (wanted is None and len(offered) == 1):
        return wanted or offered[0]
    names = printable(", ".join(offered)) or "none"
    raise IntegrityError(
        f"{endpoint.url} does not offer {wanted}" if wanted else f"{endpoint.url} offers several models",
        why=f"offered: {names}", next_step="name one: --model NAME",
    )  # fmt: skip

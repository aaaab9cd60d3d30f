"""Verification of an endpoint with real requests: what each answer must be, and what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelberth.adapters.openai_answers import Answer
from modelberth.adapters.openai_api import Endpoint
from modelberth.base.clock import Stopwatch
from modelberth.base.errors import BerthError, IntegrityError
from modelberth.base.text import printable, shorten

_SHORT = 48
"""Tokens of an answer that only has to be one."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: of it.
        passed: whether it did.
        detail: what was found.
        exit_code: of its failure; 0 if it passed.
        seconds: that it took.
    """

    name: str
    passed: bool
    detail: str
    exit_code: int = 0
    seconds: float = 0.0


def verify(endpoint: Endpoint, served_name: str, prompt: str) -> tuple[Check, ...]:
    """Ask an endpoint everything that a client will.

    Args:
        endpoint: where to ask.
        served_name: model name that it must offer.
        prompt: asked of completions and chat.
    """
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("/health", lambda: _health(endpoint)),
        ("/v1/models", lambda: _models(endpoint, served_name)),
        ("/v1/completions", lambda: _answered(endpoint.complete(served_name, prompt, _SHORT))),
        ("/v1/chat/completions", lambda: _answered(endpoint.chat(served_name, prompt, _SHORT))),
        ("/v1/chat/completions streamed", lambda: _streamed(endpoint, served_name, prompt)),
    )
    return tuple(run_check(name, check) for name, check in checks)


def run_check(name: str, check: Callable[[], str]) -> Check:
    """Make one check.

    Args:
        name: of it.
        check: says what was found, or raises a BerthError.
    """
    watch = Stopwatch()
    try:
        found = check()
    except BerthError as error:
        detail = f"{error.what}: {error.why}" if error.why else error.what
        return Check(name, passed=False, detail=detail, exit_code=error.exit_code, seconds=watch.seconds())
    return Check(name, passed=True, detail=found, seconds=watch.seconds())


def _health(endpoint: Endpoint) -> str:
    if not endpoint.is_healthy():
        raise IntegrityError("/health does not answer 200")
    return "200"


def _models(endpoint: Endpoint, served_name: str) -> str:
    offered = endpoint.models()
    if served_name not in offered:
        names = printable(", ".join(offered)) or "none"
        raise IntegrityError(f"expected the model {served_name}", why=f"offered: {names}")
    return served_name


def _answered(answer: Answer) -> str:
    if not answer.text.strip():
        raise IntegrityError(
            "the answer is empty",
            why=f"{answer.tokens} tokens, finish reason {answer.finish_reason or 'none'}",
        )
    return shorten(printable(answer.text), 60)


def _streamed(endpoint: Endpoint, served_name: str, prompt: str) -> str:
    streamed = endpoint.stream_chat(served_name, prompt, _SHORT)
    _answered(streamed.answer)
    return f"{streamed.pieces} pieces, first after {streamed.first_seconds:.2f} s"

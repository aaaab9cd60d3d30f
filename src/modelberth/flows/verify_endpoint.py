"""`berth verify`: an endpoint asked everything that its clients will ask, and how fast it answers.

health -> the model -> completions -> chat -> streamed -> more than it can hold -> a tool call, whole and streamed ->
many at once
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

from modelberth.adapters.at_once import at_once
from modelberth.adapters.openai_answers import OfferedModel, StreamedAnswer, ToolCall
from modelberth.adapters.openai_api import Endpoint
from modelberth.base.errors import BerthError, IntegrityError, NotReady, UsageError
from modelberth.base.text import printable, shorten
from modelberth.flows.token_file import read_token
from modelberth.flows.verify import Check, run_check, verify

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_TOOL_PROMPT = "What is the weather in Paris right now? Use the tool."
_DEFAULT_PROMPT = "Explain Kubernetes GPU scheduling in 3 sentences."
_TOOL_CALL = (_TOOL_PROMPT, _TOOL, 256)
"""Prompt, tool, and the most tokens of the call."""
_LONGEST_PROMPT = 4_000_000
"""Tokens; for a longer context no request is made that would not fit."""


@dataclass(frozen=True)
class VerifyRequest:
    """What `berth verify` is asked.

    Attributes:
        url: of the endpoint, with or without /v1.
        model: name that it must offer; None for the only one that it offers.
        max_model_len: longest request in tokens; None for what the endpoint says.
        tools: whether a tool call must come back.
        requests: how many are made at once, for the figures.
        max_tokens: of each of those.
        prompts: that those ask.
        token_file: file with a bearer token.
        ca: file of the authorities that sign its certificate.
        timeout: seconds without a byte after which a request is given up.
        unverified: take any certificate: through a tunnel to a pod, whose certificate is its own.
    """

    url: str
    model: str | None = None
    max_model_len: int | None = None
    tools: bool = False
    requests: int = 8
    max_tokens: int = 64
    prompts: tuple[str, ...] = (_DEFAULT_PROMPT,)
    token_file: Path | None = None
    ca: Path | None = None
    timeout: float = 120.0
    unverified: bool = False


@dataclass(frozen=True)
class Spread:
    """A figure over several requests: median, and what 95 of 100 stay below (for a rate: above)."""

    median: float
    p95: float


@dataclass(frozen=True)
class Latency:
    """How fast the endpoint answered, with all requests at once.

    Attributes:
        requests: that were made at once.
        first_token: seconds to the first text.
        between_tokens: seconds between pieces of text; None where each answer was one.
        tokens_per_second: of one answer, over its whole time.
    """

    requests: int
    first_token: Spread
    between_tokens: Spread | None
    tokens_per_second: Spread


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        url: that was asked.
        model: name that was asked for; empty where there was none.
        checks: in the order they were made.
        latency: None where the answers did not come.
    """

    url: str
    model: str
    checks: tuple[Check, ...]
    latency: Latency | None = field(default=None)

    @property
    def exit_code(self) -> int:
        """0; else 6 when it does not answer, 4 when it asks who we are, 7 when an answer is not as it should be."""
        failed = [check.exit_code for check in self.checks if not check.passed]
        return next((_EXIT.get(code, code) for code in failed), 0)


# What does not answer after a deployment is not ready; the rest stays what it is.
_EXIT = {9: 6}


def verify_endpoint(request: VerifyRequest) -> VerifyReport:
    """Verify an endpoint with real requests.

    Raises:
        UsageError: the URL is none, or the files of token and authorities cannot be used.
    """
    url = _base(request.url)
    token = read_token(request.token_file) if request.token_file else ""
    authorities = str(request.ca) if request.ca else None
    endpoint = Endpoint(url, timeout=request.timeout, token=token, ca=authorities, unverified=request.unverified)
    try:
        return _Verification(endpoint, request).report()
    finally:
        endpoint.close()


def _base(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
        raise UsageError(
            "that is no address of an endpoint", why="expected http:// or https://, without user and password",
            next_step="berth verify http://127.0.0.1:8080",
        )  # fmt: skip
    return parts._replace(path=parts.path.rstrip("/").removesuffix("/v1"), query="", fragment="").geturl()


class _Verification:
    """The checks of one endpoint, each on what the ones before have found."""

    def __init__(self, endpoint: Endpoint, request: VerifyRequest) -> None:
        self._endpoint, self._request = endpoint, request
        self._checks: list[Check] = []

    def report(self) -> VerifyReport:
        model = self._model()
        if model is None:
            return self._done("")
        self._checks += verify(self._endpoint, model.name, self._request.prompts[0])
        if not self._sound:
            return self._done(model.name)
        limit = self._request.max_model_len or model.max_model_len
        if limit is not None and limit <= _LONGEST_PROMPT:
            self._check("more than the context holds", lambda: self._too_long(model.name, limit))
        if self._request.tools:
            self._check("a tool call", lambda: _called(self._endpoint.call_tool(model.name, *_TOOL_CALL)))
            self._check(
                "a tool call, streamed", lambda: _called(self._endpoint.stream_tool_call(model.name, *_TOOL_CALL))
            )
        latency: list[Latency] = []
        if self._request.requests and self._sound:
            name = f"{self._request.requests} at once"
            self._check(name, lambda: self._many(model.name, latency))
        return self._done(model.name, latency[0] if latency else None)

    @property
    def _sound(self) -> bool:
        return all(check.passed for check in self._checks)

    def _done(self, model: str, latency: Latency | None = None) -> VerifyReport:
        return VerifyReport(self._endpoint.url, model, tuple(self._checks), latency)

    def _check(self, name: str, run: Callable[[], str]) -> None:
        self._checks.append(run_check(name, run))

    def _model(self) -> OfferedModel | None:
        """The model to ask for; where there is none, the failed check says why."""
        try:
            offered = self._endpoint.offered()
        except BerthError as error:
            detail = f"{error.what}: {error.why}" if error.why else error.what
            self._checks.append(Check("/v1/models", passed=False, detail=detail, exit_code=error.exit_code))
            return None
        wanted = self._request.model
        if wanted is not None:
            found = next((each for each in offered if each.name == wanted), None)
            return found or OfferedModel(wanted, None)
        if len(offered) == 1:
            return offered[0]
        names = printable(", ".join(each.name for each in offered)) or "none"
        why = f"offered: {shorten(names, 200)}; name one: --model"
        self._checks.append(Check("/v1/models", passed=False, detail=why, exit_code=IntegrityError.exit_code))
        return None

    def _too_long(self, model: str, limit: int) -> str:
        # Numbers with spaces: no tokenizer makes one token of two of them.
        refused = self._endpoint.refusal(model, " ".join(str(number % 10) for number in range(limit + 1)))
        if not self._endpoint.is_healthy():
            raise NotReady("it no longer answers /health after it")
        return refused

    def _many(self, model: str, latency: list[Latency]) -> str:
        request = self._request
        prompts = [request.prompts[number % len(request.prompts)] for number in range(request.requests)]
        answers = at_once(
            lambda prompt: self._endpoint.stream_chat(model, prompt, request.max_tokens), prompts, request.requests
        )
        empty = sum(1 for each in answers if not each.answer.text.strip())
        if empty:
            raise IntegrityError(f"{empty} of {len(answers)} answers are empty")
        latency.append(_latency(answers))
        return f"all answered, {sum(each.answer.tokens for each in answers)} tokens"


def _called(call: ToolCall) -> str:
    """The call, where it is the one that was asked for."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        raise IntegrityError("the call's arguments are no JSON", why=shorten(printable(call.arguments), 100)) from None
    if call.name != "get_weather" or not isinstance(arguments, dict) or "city" not in arguments:
        raise IntegrityError("expected get_weather with a city", why=f"got {shorten(printable(str(call)), 100)}")
    return f"{call.name}({shorten(printable(call.arguments), 60)})"


def _latency(answers: Sequence[StreamedAnswer]) -> Latency:
    gaps = [gap for each in answers for gap in each.gaps]
    rates = [each.tokens_per_second for each in answers]
    return Latency(
        len(answers),
        _spread([each.first_seconds for each in answers]),
        _spread(gaps) if gaps else None,
        Spread(median(rates), -_spread([-rate for rate in rates]).p95),
    )


def _spread(values: Sequence[float]) -> Spread:
    p95 = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return Spread(median(values), p95)

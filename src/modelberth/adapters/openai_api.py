"""An OpenAI-compatible endpoint: health, models, completions and chat, streamed and not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

from modelberth.adapters.openai_answers import Answer, OfferedModel, StreamedAnswer, ToolCall
from modelberth.adapters.transport import tls_context
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import AuthError, IntegrityError, NotReady, RemoteUnavailable
from modelberth.base.text import printable, shorten

_MAX_BODY = 8 << 20
_MAX_EVENT = 1 << 20
_LONGEST = 10
"""Times the patience for a silence that a whole answer may take: one that trickles for ever is given up too."""
_EXCERPT_FROM = 4096
_CONNECT_SECONDS = 5.0
_MALFORMED = (TypeError, KeyError, IndexError, AttributeError, ValueError, RecursionError)
"""What reading a document of another form than promised ends with."""


Message = Mapping[str, str]
"""One of a conversation: its role (user, assistant) and its content."""
OnText = Callable[[str], None]


class Endpoint:
    """One endpoint.

    Args:
        url: base URL without `/v1`.
        timeout: seconds without a byte after which a request is given up; a whole answer may take ten times as long.
        clock: for the times of streamed answers.
        token: sent as a bearer token, to this host alone: redirects are not followed.
        ca: file of the authorities that sign its certificate; None for the system's.
        unverified: take any certificate: for a tunnel alone, whose other end is known in another way.

    Raises:
        UsageError: the file of authorities cannot be used.
    """

    def __init__(
        self, url: str, *, timeout: float = 120.0, clock: Clock = monotonic, token: str = "", ca: str | None = None,
        unverified: bool = False,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self._clock, self._longest = clock, timeout * _LONGEST
        # No proxy of the environment: the address is the one that was given.
        self._client = httpx2.Client(
            base_url=self.url,
            timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS),
            trust_env=False,
            verify=tls_context(False if unverified else ca or True) if self.url.startswith("https:") else True,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def is_healthy(self) -> bool:
        """Whether `/health` answers 200 now; False while nothing listens."""
        try:
            return self._client.get("/health", timeout=_CONNECT_SECONDS).status_code == httpx2.codes.OK
        except httpx2.RequestError:
            return False

    def models(self) -> tuple[str, ...]:
        """The names that `/v1/models` offers."""
        return tuple(each.name for each in self.offered())

    def offered(self) -> tuple[OfferedModel, ...]:
        """What `/v1/models` offers, with the longest request where it says so, as vLLM does."""
        document = self._json("GET", "/v1/models", None)
        try:
            return tuple(OfferedModel(str(item["id"]), _count(item.get("max_model_len"))) for item in document["data"])
        except _MALFORMED as error:
            raise self._unexpected("/v1/models", "a list of models", document) from error

    def refusal(self, model: str, prompt: str) -> str:
        """How a request that cannot be served is refused: its status and words.

        Raises:
            IntegrityError: it is answered, or the refusal is a failure of the server.
        """
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        status, content = self._ask("POST", "/v1/completions", body)
        text = content.decode(errors="replace")
        if status in {401, 403}:
            raise self._refused("/v1/completions", status, text)
        if not 400 <= status < 500:
            expected = "a refusal with a status between 400 and 499"
            raise self._unexpected("/v1/completions", expected, f"status {status}: {text}")
        return f"status {status}: {_excerpt(_message_of(text))}"

    def call_tool(self, model: str, prompt: str, tool: dict[str, Any], max_tokens: int) -> ToolCall:
        """Ask for something that only a tool can do, and let the model choose.

        Raises:
            IntegrityError: text came back instead of a call.
        """
        body = _tool_body(model, prompt, tool, max_tokens)
        document = self._json("POST", "/v1/chat/completions", body)
        try:
            message = document["choices"][0]["message"]
            calls = message.get("tool_calls") or []
            if not calls:
                raise self._unexpected(
                    "/v1/chat/completions", "a tool call", _text(message.get("content")) or "nothing"
                )
            function = calls[0]["function"]
            return ToolCall(str(function["name"]), str(function["arguments"]))
        except _MALFORMED as error:
            raise self._unexpected("/v1/chat/completions", "a tool call", document) from error

    def stream_tool_call(self, model: str, prompt: str, tool: dict[str, Any], max_tokens: int) -> ToolCall:
        """As `call_tool`, but streamed: the call comes in pieces and is put together.

        Raises:
            IntegrityError: text came back instead of a call, or the stream broke off.
        """
        path = "/v1/chat/completions"
        name, arguments, text = "", "", ""
        for event in self._events(path, {**_tool_body(model, prompt, tool, max_tokens), "stream": True}):
            try:
                for choice in event.get("choices") or ():
                    delta = choice.get("delta") or {}
                    text += _text(delta.get("content"))
                    for call in delta.get("tool_calls") or ():
                        if not call.get("index"):  # of several calls the first one counts
                            function = call.get("function") or {}
                            name += _text(function.get("name"))
                            arguments += _text(function.get("arguments"))
            except _MALFORMED as error:
                raise self._unexpected(path, "an event with pieces of a tool call", event) from error
        if not name:
            raise self._unexpected(path, "a tool call in pieces", text or "nothing")
        return ToolCall(name, arguments)

    def complete(self, model: str, prompt: str, max_tokens: int) -> Answer:
        """One plain completion at temperature 0."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        document = self._json("POST", "/v1/completions", body)
        return self._answer("/v1/completions", document, lambda choice: _text(choice["text"]))

    def chat(self, model: str, prompt: str, max_tokens: int) -> Answer:
        """One chat answer at temperature 0."""
        document = self._json("POST", "/v1/chat/completions", _chat_body(model, prompt, max_tokens))
        return self._answer("/v1/chat/completions", document, lambda choice: _text(choice["message"]["content"]))

    def stream_chat(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        *,
        history: Sequence[Message] = (),
        on_text: OnText | None = None,
    ) -> StreamedAnswer:
        """One streamed chat answer at temperature 0, timed.

        Args:
            model: to ask.
            prompt: what the user says.
            max_tokens: of the answer.
            history: what was said before, oldest first.
            on_text: told each piece of text as it comes.

        Raises:
            IntegrityError: the stream ended without `[DONE]`, or an event was none.
        """
        body = {
            **_chat_body(model, prompt, max_tokens, history),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start = self._clock()
        text: list[str] = []
        first = reason = latest = None
        tokens = 0
        gaps: list[float] = []
        for event in self._events("/v1/chat/completions", body):
            try:
                tokens = _tokens(event) or tokens
                pieces = [
                    (_text((choice.get("delta") or {}).get("content")), choice.get("finish_reason"))
                    for choice in event.get("choices") or ()
                ]
            except _MALFORMED as error:
                raise self._unexpected("/v1/chat/completions", "an event with choices", event) from error
            for piece, why in pieces:
                reason = why or reason
                if piece:
                    now = self._clock()
                    gaps += [now - latest] if latest is not None else []
                    first, latest = (now - start if first is None else first), now
                    text.append(piece)
                    if on_text:
                        on_text(piece)
        total = self._clock() - start
        return StreamedAnswer(
            Answer("".join(text), str(reason or ""), tokens), total if first is None else first, total, len(text),
            tuple(gaps),
        )  # fmt: skip

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON events of a server-sent stream, until `[DONE]`."""
        with self._errors(path), self._client.stream("POST", path, json=body) as response:
            if response.status_code != httpx2.codes.OK:
                raise self._refused(path, response.status_code, self._read(path, response).decode(errors="replace"))
            for line in self._lines(path, response):
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip().decode(errors="replace")
                if data == "[DONE]":
                    return
                try:
                    event = json.loads(data)
                except _MALFORMED as error:
                    raise self._unexpected(path, "JSON events", data) from error
                if not isinstance(event, dict) or "error" in event:
                    raise self._unexpected(path, "an event with choices", event)
                yield event
        raise self._unexpected(path, "a stream that ends with [DONE]", "the stream broke off")

    def _lines(self, path: str, response: httpx2.Response) -> Iterator[bytes]:
        """The lines of a stream; one that has no end is refused before it fills the memory."""
        rest = b""
        for chunk in self._timely(path, response):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if len(rest) > _MAX_EVENT:
                raise self._unexpected(path, f"events of up to {_MAX_EVENT:,} bytes", rest[:_EXCERPT_FROM])
        if rest:
            yield rest

    def _read(self, path: str, response: httpx2.Response) -> bytes:
        """A body, as far as anybody looks at it."""
        content = bytearray()
        for chunk in self._timely(path, response):
            content += chunk
            if len(content) > _MAX_BODY:
                break
        return bytes(content[:_MAX_BODY])

    def _timely(self, path: str, response: httpx2.Response) -> Iterator[bytes]:
        """A body in pieces, until it has taken too long."""
        begun = self._clock()
        for chunk in response.iter_bytes():
            yield chunk
            if self._clock() - begun > self._longest:
                why = f"something came all the time, for {self._longest:.0f} s"
                raise NotReady("the endpoint's answer does not end", where=self.url + path, why=why)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        with self._errors(path), self._client.stream(method, path, json=body) as response:
            return response.status_code, self._read(path, response)

    def _json(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        status, content = self._ask(method, path, body)
        if status != httpx2.codes.OK:
            raise self._refused(path, status, content.decode(errors="replace"))
        try:
            return json.loads(content)
        except _MALFORMED as error:
            raise self._unexpected(path, "JSON", content[:_EXCERPT_FROM].decode(errors="replace")) from error

    def _answer(self, path: str, document: Any, text_of: Any) -> Answer:
        try:
            choice = document["choices"][0]
            return Answer(text_of(choice), str(choice.get("finish_reason") or ""), _tokens(document))
        except _MALFORMED as error:
            raise self._unexpected(path, "an answer with choices", document) from error

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException as error:
            raise NotReady("the endpoint did not answer in time", where=self.url + path) from error
        except httpx2.DecodingError as error:
            raise self._unexpected(path, "a body packed as its headers say", error) from error
        except httpx2.TransportError as error:
            why = _reason(error)
            raise RemoteUnavailable("the endpoint does not answer", where=self.url + path, why=why) from error

    def _refused(self, path: str, status: int, text: str) -> Exception:
        why = f"status {status}: {_excerpt(text)}"
        kind = AuthError if status in {401, 403} else RemoteUnavailable if status >= 500 else IntegrityError
        return kind("the endpoint refused the request", where=self.url + path, why=why)

    def _unexpected(self, path: str, expected: str, found: Any) -> IntegrityError:
        return IntegrityError(
            "the endpoint's answer is not as expected",
            where=self.url + path,
            why=f"expected {expected}, got {_excerpt(str(found))}",
        )


def _reason(error: BaseException) -> str:
    """Why there is no answer: a certificate that is not trusted lies below the client's own errors."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({below.verify_message}); give the authority that signs it: --ca FILE"
            )
        below = below.__cause__ or below.__context__
    return str(error)


def _excerpt(text: str) -> str:
    """The beginning of what an endpoint sent, safe to show: no terminal takes any of it for a command."""
    return shorten(printable(text[:_EXCERPT_FROM]), 256)


def _text(content: Any) -> str:
    """The text of an answer; null is none."""
    if content is not None and not isinstance(content, str):
        raise TypeError("an answer's content is text or null")
    return content or ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _message_of(text: str) -> str:
    """The words of an error document; the text itself where it is none."""
    try:
        document = json.loads(text)
        found = document.get("message") or document["error"]["message"]
    except _MALFORMED:
        return text
    return str(found)


def _tokens(document: dict[str, Any]) -> int:
    """Completion tokens as the endpoint counts them; 0 where it does not say."""
    usage = document.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def _tool_body(model: str, prompt: str, tool: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    return {**_chat_body(model, prompt, max_tokens), "tools": [tool], "tool_choice": "auto"}


def _chat_body(model: str, prompt: str, max_tokens: int, history: Sequence[Message] = ()) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [*history, {"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }

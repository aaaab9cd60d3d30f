"""Endpoints that fail in every way an endpoint can, and what verification says of them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from modelberth.adapters import machine
from modelberth.adapters.openai_api import Endpoint
from modelberth.base.errors import AuthError, BerthError, IntegrityError, NotReady, RemoteUnavailable
from modelberth.flows.ask import ask
from modelberth.flows.verify import verify

pytestmark = pytest.mark.integration

NAME = "harbor"
HOSTILE = "\x1b[31mred\x1b[0m \x1b]0;title\x07\u202eevil\u202c\x08"
OK = {"choices": [{"text": "four", "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
CHAT = {"choices": [{"message": {"content": "four"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
MODELS = {"data": [{"id": NAME}]}


def event(document):
    """One server-sent event."""
    return f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n"


def piece(text, reason=None):
    """An event with a piece of an answer."""
    return event({"choices": [{"delta": {"content": text}, "finish_reason": reason}]})


USAGE = event({"choices": [], "usage": {"completion_tokens": 2}})
DONE = event("[DONE]")
STREAM = piece("fo") + piece("ur", "stop") + USAGE + DONE
GOOD = {
    "/health": "", "/v1/models": MODELS, "/v1/completions": OK, "/v1/chat/completions": CHAT, "stream": STREAM,
}  # fmt: skip


@pytest.fixture
def endpoint(http_server):
    """An endpoint that answers by path: text, a document, or (status, headers, bytes, how many bytes to claim)."""
    made = []

    def make(answers, timeout=20.0):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                return

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = "stream" if b'"stream":true' in body.replace(b" ", b"") else self.path
                found = answers.get(path, (404, {}, b'{"error": "not here"}'))
                if callable(found):
                    found(self)
                    return
                status, headers, content = found if isinstance(found, tuple) else (200, {}, found)
                if isinstance(content, dict | list):
                    content = json.dumps(content)
                content = content.encode() if isinstance(content, str) else content
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = "Content-Length" in headers

            do_GET = do_POST = answer  # noqa: N815

        made.append(Endpoint(http_server(Handler).url, timeout=timeout))
        return made[-1]

    yield make
    for each in made:
        each.close()


CALLS = {
    "/v1/models": lambda endpoint: endpoint.models(),
    "/v1/completions": lambda endpoint: endpoint.complete(NAME, "two and two?", 8),
    "/v1/chat/completions": lambda endpoint: endpoint.chat(NAME, "two and two?", 8),
    "stream": lambda endpoint: endpoint.stream_chat(NAME, "two and two?", 8),
}
EVERYWHERE = pytest.mark.parametrize("path", CALLS)


def test_an_endpoint_as_it_should_be(endpoint):
    good = endpoint(GOOD)
    assert good.is_healthy()
    assert good.models() == (NAME,)
    assert good.complete(NAME, "?", 8).text == good.chat(NAME, "?", 8).text == "four"
    streamed = good.stream_chat(NAME, "?", 8)
    assert (streamed.answer.text, streamed.answer.finish_reason, streamed.answer.tokens) == ("four", "stop", 2)
    assert streamed.pieces == 2
    assert 0 < streamed.first_seconds <= streamed.total_seconds
    checks = verify(good, NAME, "?")
    assert [(check.passed, check.exit_code) for check in checks] == [(True, 0)] * 5


@EVERYWHERE
@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, IntegrityError), (400, IntegrityError), (500, RemoteUnavailable), (503, RemoteUnavailable),
     (401, AuthError), (403, AuthError), (302, IntegrityError)],
)  # fmt: skip
def test_a_status_that_is_not_200(endpoint, path, status, kind):
    with pytest.raises(kind) as caught:
        CALLS[path](endpoint({path: (status, {"Location": "/elsewhere"}, b'{"error": "the reason"}')}))
    assert f"status {status}" in caught.value.why
    assert "the reason" in caught.value.why


@EVERYWHERE
@pytest.mark.parametrize(
    "body", [b"<html>log in</html>", b"", b"{", b"\xff\xfe\x00", b"null", b"5", b"[]", b"{}", b"[" * 200_000]
)  # fmt: skip
def test_garbage_with_200(endpoint, path, body):
    with pytest.raises(IntegrityError) as caught:
        CALLS[path](endpoint({path: (200, {}, body)}))
    assert len(caught.value.why) < 400


LIES = [
    {"choices": []}, {"choices": None}, {"choices": 5}, {"choices": {}}, {"choices": ["text"]}, {"choices": [None]},
    {"choices": [[]]}, {"choices": [{}]}, {"error": {"message": "out of memory"}},
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("document", LIES, ids=str)
def test_an_answer_without_a_choice(endpoint, path, document):
    with pytest.raises(IntegrityError):
        CALLS[path](endpoint({path: document}))


@pytest.mark.parametrize(
    "usage", [[], [1], "x", 5, {"completion_tokens": None}, {"completion_tokens": "many"}], ids=str
)
def test_usage_that_is_none(endpoint, usage):
    with_usage = endpoint({
        "/v1/completions": {**OK, "usage": usage},
        "stream": piece("four") + event({"choices": [], "usage": usage}) + DONE,
    })  # fmt: skip
    for path in ("/v1/completions", "stream"):
        try:
            answer = CALLS[path](with_usage)
        except IntegrityError:
            continue
        tokens = answer.answer.tokens if path == "stream" else answer.tokens
        assert tokens == 0


@pytest.mark.parametrize("content", [None, 5, ["four"], {"text": "four"}], ids=str)
def test_text_that_is_none(endpoint, content):
    """`None` must not become the word None and count as an answer."""
    told = endpoint({
        **GOOD, "/v1/completions": {"choices": [{"text": content}]},
        "/v1/chat/completions": {"choices": [{"message": {"content": content}}]}, "stream": piece(content) + DONE,
    })  # fmt: skip
    assert [check.passed for check in verify(told, NAME, "?")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    "document", [{"data": None}, {"data": [None]}, {"data": [{}]}, {"data": 5}, {"data": "x"}], ids=str
)
def test_models_that_are_none(endpoint, document):
    with pytest.raises(IntegrityError):
        endpoint({"/v1/models": document}).models()


STREAMS = {
    "cut off": piece("fo"),
    "empty": "",
    "an error": piece("fo") + event({"error": {"message": "the engine died"}}) + DONE,
    "no JSON": event("{") + DONE,
    "no object": event("5") + DONE,
    "null": event("null") + DONE,
    "list": event([1]) + DONE,
    "choices of another kind": event({"choices": ["x"]}) + DONE,
    "choices that are a number": event({"choices": 5}) + DONE,
    "delta of another kind": event({"choices": [{"delta": "x"}]}) + DONE,
    "deep": event("[" * 200_000) + DONE,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_that_are_none(endpoint, kind):
    with pytest.raises(IntegrityError):
        CALLS["stream"](endpoint({"stream": STREAMS[kind]}))


def test_a_stream_with_comments_and_other_fields(endpoint):
    text = ": ping\n\nevent: message\nid: 4\nretry: 5\n" + STREAM.replace("data: ", "data:").replace("\n", "\r\n")
    assert CALLS["stream"](endpoint({"stream": text})).answer.text == "four"


@EVERYWHERE
def test_a_connection_that_breaks_off(endpoint, path):
    body = GOOD[path] if path == "stream" else json.dumps(GOOD[path])
    body = body.replace(DONE, "")
    with pytest.raises((RemoteUnavailable, IntegrityError)):
        CALLS[path](endpoint({path: (200, {"Content-Length": str(len(body) + 100)}, body.encode())}))


@EVERYWHERE
def test_an_endpoint_that_is_silent(endpoint, path):
    silent = endpoint({path: lambda handler: handler.rfile.read(1)}, timeout=0.2)
    with pytest.raises(NotReady) as caught:
        CALLS[path](silent)
    assert caught.value.exit_code == 6
    assert caught.value.where == silent.url + ("/v1/chat/completions" if path == "stream" else path)


@EVERYWHERE
def test_an_answer_packed_wrongly(endpoint, path):
    packed = endpoint({path: (200, {"Content-Encoding": "gzip"}, b"not gzip at all")})
    with pytest.raises((IntegrityError, RemoteUnavailable)):
        CALLS[path](packed)


@EVERYWHERE
def test_nobody_is_there(path):
    port = machine.reserve_port()
    nobody = Endpoint(f"http://127.0.0.1:{port.number}/")
    assert not nobody.is_healthy()
    with pytest.raises(RemoteUnavailable) as caught:
        CALLS[path](nobody)
    assert caught.value.exit_code == 9
    nobody.close()
    port.release()


@EVERYWHERE
def test_a_server_that_speaks_something_else(path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=20)

        def greet():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert not other.is_healthy()
        with pytest.raises(RemoteUnavailable):
            CALLS[path](other)
        thread.join()
        other.close()


@pytest.mark.parametrize("status", [404, 500, 302, 204])
def test_health_is_200_and_nothing_else(endpoint, status):
    assert not endpoint({"/health": (status, {}, b"")}).is_healthy()


def test_health_with_a_body_packed_wrongly(endpoint):
    assert not endpoint({"/health": (200, {"Content-Encoding": "gzip"}, b"not gzip")}).is_healthy()


def test_proxies_around_us_are_not_asked(endpoint, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert endpoint(GOOD).models() == (NAME,)


# --- what is said of it ------------------------------------------------------------------------------------


def shown(text):
    """Fail when a terminal would take some of a text for a command."""
    assert not set(text) & set("\x1b\x07\x08\x9b\u202e\r"), repr(text)


def test_escape_sequences_are_stripped(endpoint):
    """In answers, in names, in error bodies: an endpoint must not write to our terminal."""
    answer = {"choices": [{"text": HOSTILE, "message": {"content": HOSTILE}}]}
    hostile = endpoint({
        **GOOD, "/v1/completions": answer, "/v1/chat/completions": answer, "stream": piece(HOSTILE) + DONE,
        "/v1/models": {"data": [{"id": HOSTILE}]},
    })  # fmt: skip
    for check in verify(hostile, NAME, "?"):
        shown(check.detail)
    interview = ask(hostile, NAME, ["?"], 8)
    assert interview.answers[0].text == "red evil"


@EVERYWHERE
@pytest.mark.parametrize("status", [200, 500])
def test_escape_sequences_in_errors_are_stripped(endpoint, path, status):
    body = event(HOSTILE) if path == "stream" else HOSTILE
    with pytest.raises(BerthError) as caught:
        CALLS[path](endpoint({path: (status, {}, body.encode())}))
    shown(caught.value.why)
    assert "red" in caught.value.why


@pytest.mark.parametrize(("path", "answer", "exit_code"), [
    ("/health", (500, {}, b""), 7), ("/v1/models", {"data": [{"id": "other"}]}, 7), ("/v1/models", (500, {}, b""), 9),
    ("/v1/completions", (401, {}, b""), 4), ("/v1/chat/completions", {"choices": []}, 7),
    ("/v1/completions", {"choices": [{"text": " \n"}]}, 7), ("stream", piece("fo"), 7), ("stream", DONE, 7),
])  # fmt: skip
def test_one_failure_is_one_failed_check(endpoint, path, answer, exit_code):
    checks = verify(endpoint({**GOOD, path: answer}), NAME, "?")
    assert [check.exit_code for check in checks if not check.passed] == [exit_code]
    failed = next(check for check in checks if not check.passed)
    assert failed.name == {"stream": "/v1/chat/completions streamed"}.get(path, path)
    assert failed.detail


def test_verification_of_nobody():
    port = machine.reserve_port()
    nobody = Endpoint(f"http://127.0.0.1:{port.number}")
    assert [check.exit_code for check in verify(nobody, NAME, "?")] == [7, 9, 9, 9, 9]
    nobody.close()
    port.release()


# --- answers without an end -------------------------------------------------------------------------------


@pytest.fixture
def endless(http_server):
    """An endpoint that sends a head and then the same bytes for as long as somebody reads."""
    made = []

    def make(status, chunk, pause=0.0, timeout=20.0):
        over = threading.Event()
        made.append(over.set)

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments):
                return

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not over.wait(pause):
                        self.wfile.write(chunk)

        found = Endpoint(http_server(Handler).url, timeout=timeout)
        made.append(found.close)
        return found

    yield make
    for undo in made:
        undo()


@pytest.mark.parametrize(("status", "error"), [(500, RemoteUnavailable), (400, IntegrityError), (200, IntegrityError)])
def test_a_body_without_an_end_is_read_no_further_than_needed(endless, status, error):
    with pytest.raises(error):
        endless(status, b"x" * 65536).complete(NAME, "x", 1)


def test_an_event_without_an_end_is_refused(endless):
    with pytest.raises(IntegrityError, match="not as expected") as caught:
        endless(200, b"data: " + b"x" * 65536).stream_chat(NAME, "x", 1)
    assert "events of up to" in caught.value.why


@pytest.mark.parametrize("ask_for", [Endpoint.complete, Endpoint.stream_chat])
def test_an_answer_that_trickles_for_ever_is_given_up(endless, ask_for):
    """A byte now and then is no silence; the whole answer may take ten times as long as one."""
    with pytest.raises(NotReady, match="does not end"):
        ask_for(endless(200, b" ", pause=0.02, timeout=0.1), NAME, "x", 1)

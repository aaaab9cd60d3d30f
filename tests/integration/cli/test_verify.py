"""`berth verify` against endpoints that are as they should be, and that fail in one way each.

Real vLLM is asked in tests/e2e; here the answers are scripted, because no engine can be made to fail so.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from openai_endpoint import NAME, Behaviour, handler
from servers import make_certificates

pytestmark = pytest.mark.integration
TOKEN = "canary-token-88aa"


@pytest.fixture
def serve(http_server) -> Callable[..., str]:
    def start(**parts: object) -> str:
        return http_server(handler(type("Changed", (Behaviour,), parts))).url

    return start


def report(done) -> dict[str, bool]:
    return {each["name"]: each["passed"] for each in json.loads(done.stdout)["checks"]}


def test_an_endpoint_as_it_should_be(berth, serve):
    done = berth("verify", serve(), "--tools", "--requests", "4", "-o", "json")
    assert done.returncode == 0, done.stdout
    assert report(done) == dict.fromkeys(
        ["/health", "/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/chat/completions streamed",
         "more than the context holds", "a tool call",
         "a tool call, streamed", "4 at once"], True)  # fmt: skip
    latency = json.loads(done.stdout)["latency"]
    assert latency["requests"] == 4
    assert 0 < latency["firstTokenSeconds"]["median"] <= latency["firstTokenSeconds"]["p95"]
    assert latency["tokensPerSecond"]["p95"] <= latency["tokensPerSecond"]["median"]


def test_the_table_says_what_was_found(berth, serve):
    done = berth("verify", f"{serve()}/v1/")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["CHECK", "FOUND"]
    assert any("status 400: This model's maximum context length is 32" in line for line in lines)
    assert "7 of 7 checks passed: harbor" in lines
    assert any(line.startswith("8 AT ONCE") for line in lines)


FAULTS = {
    "another name": ({"models": ({"id": "other"},)}, ("--model", NAME), "/v1/models", 7),
    "two models and none is named": ({"models": ({"id": "a"}, {"id": "b"})}, (), "/v1/models", 7),
    "not healthy": ({"health": 503}, (), "/health", 7),
    "an answer that is empty": ({"text": ""}, (), "/v1/completions", 7),
    "too much is answered": ({"refuses": False}, (), "more than the context holds", 7),
    "too much breaks it": ({"status_too_long": 500}, (), "more than the context holds", 7),
    "text instead of a tool call": ({"calls_tools": False}, ("--tools",), "a tool call", 7),
    "text instead of a streamed call": ({"tool_pieces": ()}, ("--tools",), "a tool call, streamed", 7),
    "a streamed call that is no JSON": (
        {"tool_pieces": (("get_weather", '{"city": '),)},
        ("--tools",),
        "a tool call, streamed",
        7,
    ),
    "a streamed call of another tool": ({"tool_pieces": (("rm", "{}"),)}, ("--tools",), "a tool call, streamed", 7),
    "a stream that breaks off": ({"ends_streams": False}, (), "/v1/chat/completions streamed", 7),
    "it asks who we are": ({"token": TOKEN}, (), "/v1/models", 4),
}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_what_fails_is_named_with_what_was_expected(berth, serve, case):
    parts, arguments, name, code = case
    done = berth("verify", serve(**parts), "-o", "json", *arguments)
    assert done.returncode == code
    failed = [each for each in json.loads(done.stdout)["checks"] if not each["passed"]]
    assert failed[0]["name"] == name
    assert failed[0]["detail"]


def test_a_report_for_ci(berth, serve):
    done = berth("verify", serve(text="", token=""), "-o", "junit")
    suite = ElementTree.fromstring(done.stdout)
    assert (suite.get("name"), suite.get("failures")) == ("berth verify", "3")
    failed = next(each for each in suite if each.get("name") == "/v1/completions")
    assert failed.get("classname") == f"berth.verify.{NAME}"
    assert float(failed.get("time")) >= 0
    assert "the answer is empty" in failed.find("failure").get("message")
    assert done.returncode == 7


def test_what_does_not_answer_is_not_ready(berth):
    done = berth("verify", "http://127.0.0.1:9")
    assert done.returncode == 6
    assert "FAILED" in done.stdout


def test_a_token_and_a_private_authority(berth, serve, tmp_path, http_server):
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    done = berth("verify", serve(token=TOKEN), "--token-file", token)
    assert done.returncode == 0
    assert TOKEN not in done.stdout + done.stderr
    authority, certificate, key = make_certificates(tmp_path)
    server = http_server(handler(Behaviour))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    assert berth("verify", url, "--ca", authority).returncode == 0
    refused = berth("verify", url)
    assert (refused.returncode, "give the authority that signs it: --ca FILE" in refused.stdout) == (6, True)
    unreadable = berth("verify", url, "--ca", tmp_path / "none.pem")
    assert (unreadable.returncode, "none.pem" in unreadable.stderr) == (2, True)


@pytest.mark.parametrize("url", ["http://", "ftp://x", "http://user:canary-password-1@127.0.0.1:1"])
def test_what_is_no_address(berth, url):
    done = berth("verify", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "canary-password" not in done.stderr

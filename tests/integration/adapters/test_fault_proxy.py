"""The proxy with faults: what it passes on is what came, and each fault does what it says and nothing else."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import threading
import tracemalloc
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ResponseStreamingError

from fault_proxy import (
    Answer,
    As200,
    Callback,
    ContentLength,
    ContentRange,
    Cut,
    CutSent,
    Fault,
    FlipByte,
    FlipSentByte,
    IgnoreRange,
    LoseAnswer,
    Stall,
    StallSent,
)
from servers import s3_signer

pytestmark = pytest.mark.integration

BODY = bytes(range(256)) * 1000
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Origin(BaseHTTPRequestHandler):
    """Serves BODY, whole or a range; for a body that it is sent, says what arrived."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        return

    def do_GET(self):
        if self.path == "/chunked":
            self.say(200, {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        elif self.path == "/until-closed":
            self.say(200, {"Connection": "close"}, BODY)
        elif self.path == "/broken-off":
            self.say(200, {"Content-Length": str(len(BODY) + 1), "Connection": "close"}, BODY)
        elif wanted := self.headers.get("Range"):
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            part = BODY[first : last + 1]
            stated = {"Content-Range": f"bytes {first}-{last}/{len(BODY)}", "Content-Length": str(len(part))}
            self.say(206, stated, part)
        else:
            self.say(200, {"Content-Length": str(len(BODY))}, b"" if self.command == "HEAD" else BODY)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self):
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.arrived = body
        said = {"line": self.requestline, "headers": self.headers.items(), "sha256": hashlib.sha256(body).hexdigest()}
        content = json.dumps(said).encode()
        self.say(200, {"Content-Length": str(len(content))}, content)

    def do_POST(self):
        self.say(403, {"Content-Length": "2", "Connection": "close"}, b"no")  # without reading what is sent

    def say(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def origin(http_server):
    return http_server(Origin)


@pytest.fixture
def proxy(fault_proxy, origin):
    return fault_proxy(origin.url)


@pytest.fixture
def client(proxy):
    with closing(http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=50)) as connection:
        yield connection


def ask(client, method="GET", path="/weights", body=None, **headers):
    client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return client.getresponse()


def different(one, other):
    return [index for index, (left, right) in enumerate(zip(one, other, strict=True)) if left != right]


# --- without faults ----------------------------------------------------------------------------------------


def test_answers_come_as_they_are_over_one_connection(proxy, client):
    for path, expected in [("/weights", BODY), ("/chunked", b"hello world"), ("/weights", BODY)]:
        assert ask(client, path=path).read() == expected
        used = client.sock
        assert used is not None, "the proxy closed a connection that it should keep"
    answer = ask(client, Range="bytes=1000-1999")
    assert (answer.status, answer.getheader("Content-Range")) == (206, f"bytes 1000-1999/{len(BODY)}")
    assert answer.read() == BODY[1000:2000]
    assert client.sock is used
    assert [(each.method, each.path, each.status, each.answer_bytes) for each in proxy.requests] == [
        ("GET", "/weights", 200, len(BODY)),
        ("GET", "/chunked", 200, 11),
        ("GET", "/weights", 200, len(BODY)),
        ("GET", "/weights", 206, 1000),
    ]
    assert proxy.requests[-1].header("range") == "bytes=1000-1999"


def test_a_request_reaches_the_server_as_it_is(client):
    client.putrequest("PUT", "//a%2Fb/./c?x=%7e&y", skip_host=True, skip_accept_encoding=True)
    for name, value in [
        ("HOST", "some.example:1"),
        ("X-Odd-CASE", "a  b"),
        ("x-odd-case", "twice"),
        ("Content-Length", "3"),
    ]:
        client.putheader(name, value)
    client.endheaders(b"abc")
    said = json.loads(client.getresponse().read())
    assert said["line"] == "PUT //a%2Fb/./c?x=%7e&y HTTP/1.1"
    assert said["headers"] == [
        ["HOST", "some.example:1"], ["X-Odd-CASE", "a  b"], ["x-odd-case", "twice"], ["Content-Length", "3"],
    ]  # fmt: skip
    assert said["sha256"] == hashlib.sha256(b"abc").hexdigest()


def test_chunked_bodies_go_through_in_both_directions(proxy, client, origin):
    ask(client, "PUT", body=iter([b"one", b"two" * 50_000])).read()
    assert origin.server.arrived == b"one" + b"two" * 50_000
    assert proxy.requests[0].sent_bytes == 150_003


def test_head_and_answers_without_a_length(client):
    answer = ask(client, "HEAD")
    assert (answer.getheader("Content-Length"), answer.read()) == (str(len(BODY)), b"")
    assert ask(client, path="/until-closed").read() == BODY


def test_a_body_that_the_server_breaks_off_is_broken_off_for_the_client_too(client):
    with pytest.raises(http.client.IncompleteRead):
        ask(client, path="/broken-off").read()


def test_an_answer_that_comes_before_the_body_was_read_is_passed_on(client):
    answer = ask(client, "POST", body=os.urandom(4 << 20))
    assert (answer.status, answer.read()) == (403, b"no")


def test_a_client_that_goes_away_ends_the_request_at_the_server(fault_proxy):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(50)
        proxy = fault_proxy(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port)) as client:
            client.sendall(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
            server, _address = listener.accept()
            with server:
                server.settimeout(50)
                arrived = b""
                while not arrived.endswith(b"x" * 10):
                    arrived += server.recv(1000)
                client.close()
                assert server.recv(1000) == b""
    proxy.close()
    assert (proxy.requests[0].sent_bytes, proxy.requests[0].status) == (10, 0)


def test_closing_leaves_no_thread_even_with_clients_connected(fault_proxy):
    before = set(threading.enumerate())
    proxy = fault_proxy("http://127.0.0.1:9")
    proxy.add(Fault(Answer(200)))
    with closing(http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=50)) as client:
        assert ask(client).read() == b""
        assert len(set(threading.enumerate()) - before) == 2  # one waits for clients, one for the next request
        proxy.close()
        assert set(threading.enumerate()) <= before
        assert client.sock.recv(1) == b""


# --- matching ----------------------------------------------------------------------------------------------


def test_a_fault_strikes_the_matches_it_names_and_no_others(proxy, client):
    rule = proxy.add(Fault(Answer(500), method="GET", path=r"^/weights\?part=", range="=10-", after=1, times=2))
    asked = [
        ("GET", "/weights?part=1", "bytes=10-19"),  # passes: the first match
        ("GET", "/weights?part=1", "bytes=20-29"),
        ("GET", "/weights", "bytes=10-19"),
        ("GET", "/weights?part=1", ""),
        ("HEAD", "/weights?part=1", "bytes=10-19"),
        ("GET", "/weights?part=1", "bytes=10-19"),  # struck
        ("GET", "/weights?part=2", "bytes=10-29"),  # struck
        ("GET", "/weights?part=1", "bytes=10-19"),  # passes: two were struck
    ]
    statuses = []
    for method, path, wanted in asked:
        answer = ask(client, method, path, **({"Range": wanted} if wanted else {}))
        answer.read()
        statuses.append(answer.status)
    assert statuses == [206, 206, 206, 200, 206, 500, 500, 206]
    assert (rule.matched, rule.struck) == (4, 2)


def test_several_faults_strike_one_request_and_can_be_taken_away(proxy, client):
    proxy.add(Fault(FlipByte(3)))
    proxy.add(Fault(FlipByte(5)))
    assert different(ask(client).read(), BODY) == [3, 5]
    proxy.clear()
    assert ask(client).read() == BODY


# --- each fault --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 65_535, 65_536, 200_000, len(BODY) - 1])
def test_one_byte_of_an_answer_is_flipped(proxy, client, offset):
    proxy.add(Fault(FlipByte(offset), times=1))
    got = ask(client).read()
    assert different(got, BODY) == [offset]
    assert got[offset] == BODY[offset] ^ 0xFF
    assert ask(client).read() == BODY


@pytest.mark.parametrize("offset", [0, 100_000])
def test_one_byte_of_what_is_sent_is_flipped(proxy, client, origin, offset):
    proxy.add(Fault(FlipSentByte(offset), method="PUT"))
    ask(client, "PUT", body=BODY).read()
    assert different(origin.server.arrived, BODY) == [offset]


@pytest.mark.parametrize("after", [0, 1, 70_000])
def test_an_answer_is_cut(proxy, client, after):
    proxy.add(Fault(Cut(after), times=1))
    answer = ask(client)
    assert answer.getheader("Content-Length") == str(len(BODY))
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert cut.value.partial == BODY[:after]
    assert proxy.requests[0].answer_bytes == after
    client.close()
    assert ask(client).read() == BODY


@pytest.mark.parametrize("after", [0, 1, 70_000])
def test_what_is_sent_is_cut(proxy, client, origin, after):
    proxy.add(Fault(CutSent(after), method="PUT", times=1))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(client, "PUT", body=BODY)
    assert (proxy.requests[0].sent_bytes, proxy.requests[0].status) == (after, 0)
    client.close()
    ask(client, "PUT", body=BODY).read()
    assert origin.server.arrived == BODY


def test_an_answer_is_lost_after_the_server_did_what_was_asked(proxy, client, origin):
    proxy.add(Fault(LoseAnswer(), method="PUT", times=1))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(client, "PUT", body=BODY)
    assert origin.server.arrived == BODY


@pytest.mark.parametrize("after", [0, 70_000])
def test_an_answer_stalls_until_it_is_released(proxy, client, after):
    proxy.add(Fault(Stall(after), times=1))
    answer = ask(client)
    got = answer.read(after)
    proxy.wait_stalled()
    client.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.sock.recv(1, socket.MSG_PEEK)
    client.sock.settimeout(50)
    proxy.release()
    assert got + answer.read() == BODY


def test_what_is_sent_stalls_until_it_is_released(proxy, client, origin):
    proxy.add(Fault(StallSent(70_000), times=1))
    done = threading.Thread(target=lambda: ask(client, "PUT", body=BODY).read())
    done.start()
    proxy.wait_stalled()
    assert (proxy.requests[0].sent_bytes, hasattr(origin.server, "arrived")) == (70_000, False)
    proxy.release()
    done.join()
    assert origin.server.arrived == BODY


def test_closing_ends_what_is_stalled(proxy, client):
    proxy.add(Fault(Stall(10)))
    answer = ask(client)
    proxy.wait_stalled()
    proxy.close()
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert cut.value.partial == BODY[:10]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(503, {"Retry-After": "2", "Content-Type": "application/xml"}, SLOW_DOWN),
        Answer(500),
        Answer(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Console</title>"),
        Answer(307, {"Location": "http://elsewhere.example/"}),
    ],
    ids=lambda fault: str(fault.status),
)
def test_an_answer_is_made_up_and_the_connection_stays_usable(proxy, client, origin, fault):
    proxy.add(Fault(fault, method="PUT", times=1))
    answer = ask(client, "PUT", body=BODY)
    used = client.sock
    assert (answer.status, answer.read()) == (fault.status, fault.body_bytes)
    assert fault.headers.items() <= dict(answer.getheaders()).items()
    assert not hasattr(origin.server, "arrived")
    ask(client, "PUT", body=BODY).read()
    assert (origin.server.arrived, client.sock) == (BODY, used)


@pytest.mark.parametrize("keep", [True, False])
def test_a_partial_answer_says_200(proxy, client, keep):
    proxy.add(Fault(As200(keep_content_range=keep)))
    answer = ask(client, Range="bytes=10-19")
    assert (answer.status, answer.read()) == (200, BODY[10:20])
    assert answer.getheader("Content-Range") == (f"bytes 10-19/{len(BODY)}" if keep else None)


@pytest.mark.parametrize("value", ["bytes 0-9/256000", "nonsense", None])
def test_the_range_of_an_answer_is_wrong(proxy, client, value):
    proxy.add(Fault(ContentRange(value), range=""))
    answer = ask(client, Range="bytes=10-19")
    assert (answer.status, answer.getheader("Content-Range"), answer.read()) == (206, value, BODY[10:20])


def test_a_length_that_is_too_long_ends_in_a_closed_connection(proxy, client):
    proxy.add(Fault(ContentLength(+5)))
    answer = ask(client)
    assert answer.getheader("Content-Length") == str(len(BODY) + 5)
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert cut.value.partial == BODY


def test_a_length_that_is_too_short_hides_the_end(proxy, client):
    proxy.add(Fault(ContentLength(-5)))
    assert ask(client).read() == BODY[:-5]


def test_a_range_is_ignored(proxy, client):
    proxy.add(Fault(IgnoreRange(), range="=10-"))
    answer = ask(client, Range="bytes=10-19")
    assert (answer.status, answer.getheader("Content-Range"), answer.read()) == (200, None, BODY)


def test_a_function_is_called_before_anything_is_forwarded(proxy, client, origin):
    seen = []
    proxy.add(Fault(Callback(lambda request: seen.append((request.path, hasattr(origin.server, "arrived"))))))
    ask(client, "PUT", "/x", body=b"abc").read()
    assert seen == [("/x", False)]


def test_what_goes_wrong_in_the_proxy_is_said_when_it_ends(proxy, client):
    proxy.add(Fault(ContentLength(1), path="chunked"))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(client, path="/chunked")
    with pytest.raises(AssertionError, match="no Content-Length to lie about"):
        proxy.close()


# --- S3 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def s3_proxy(fault_proxy, s3):
    return fault_proxy(s3.server.endpoint)


@pytest.fixture
def bucket(s3_proxy, s3):
    """A new bucket of the embedded server, seen through the proxy with signed requests and no second attempts."""
    keys = s3.server.keys
    config = Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        response_checksum_validation="when_required",  # it gives the whole object's for a range
    )
    session = boto3.Session(keys.access_key, keys.secret_key, region_name="us-east-1")
    service = session.resource("s3", endpoint_url=s3_proxy.url, config=config)
    with closing(service.meta.client):
        yield service.create_bucket(Bucket=f"b-{os.urandom(6).hex()}")


def test_signatures_stay_valid_and_large_objects_stream(bucket, s3_proxy):
    content, start, length = os.urandom(24 << 20), 1 << 20, 20 << 20
    bucket.put_object(Key="a b/ü+%.bin", Body=content)
    digest = hashlib.sha256()
    tracemalloc.start()
    answer = bucket.Object("a b/ü+%.bin").get(Range=f"bytes={start}-{start + length - 1}")
    for piece in answer["Body"].iter_chunks(1 << 16):
        digest.update(piece)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(content[start : start + length]).digest()
    assert peak < 2 << 20, "a body was held in memory"
    assert (s3_proxy.requests[-2].sent_bytes, s3_proxy.requests[-1].answer_bytes) == (24 << 20, length)


def test_a_wrong_secret_is_refused_through_the_proxy_too(bucket, s3_proxy):
    other = boto3.client(
        "s3", endpoint_url=s3_proxy.url, region_name="us-east-1", aws_access_key_id="AKIAEXAMPLE00",
        aws_secret_access_key="wrong", config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    with closing(other), pytest.raises(ClientError, match="403"):
        other.head_bucket(Bucket=bucket.name)


def test_faults_strike_an_s3_server(bucket, s3_proxy):
    bucket.put_object(Key="x", Body=BODY)
    s3_proxy.add(Fault(Answer(503, {"Retry-After": "1"}, SLOW_DOWN), method="GET", times=1))
    s3_proxy.add(Fault(Cut(1000), method="GET", after=1, times=1))
    s3_proxy.add(Fault(FlipByte(7), method="GET", after=2, times=1))
    with pytest.raises(ClientError, match="SlowDown"):
        bucket.Object("x").get()
    with pytest.raises(ResponseStreamingError):
        bucket.Object("x").get()["Body"].read()
    assert different(bucket.Object("x").get()["Body"].read(), BODY) == [7]
    assert bucket.Object("x").get()["Body"].read() == BODY


def test_a_byte_flipped_on_the_way_in_is_what_is_stored(bucket, s3_proxy, s3):
    s3_proxy.add(Fault(FlipSentByte(500), method="PUT", path="/x$"))
    bucket.put_object(Key="x", Body=BODY)
    assert different((s3.data / bucket.name / "x").read_bytes(), BODY) == [500]


def test_a_signed_range_is_ignored_by_signing_anew(bucket, s3_proxy, s3):
    bucket.put_object(Key="ä b", Body=BODY)
    keys = s3.server.keys
    s3_proxy.add(Fault(IgnoreRange(s3_signer(keys.access_key, keys.secret_key)), method="GET"))
    answer = bucket.Object("ä b").get(Range="bytes=10-19")
    assert "ContentRange" not in answer
    assert answer["Body"].read() == BODY

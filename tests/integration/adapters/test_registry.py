"""Blobs and manifests to a real registry and back: resumed, checked, and through every fault on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fault_proxy import (
    Answer,
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
from modelberth.adapters.registry import RangesUnsupported
from modelberth.base.errors import AuthError, DoesNotFit, IntegrityError, NotReady, RemoteUnavailable, UsageError
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor

pytestmark = pytest.mark.integration

MIB = 1 << 20
CHUNK = 8 * MIB
UPLOADS, BLOBS = "/blobs/uploads/", "/blobs/sha256:"
PAGE = Answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Welcome</html>")


class Blob:
    """Random bytes that can be pushed; what was asked of them is remembered."""

    def __init__(self, size: int) -> None:
        self.content = os.urandom(size)
        self.descriptor = Descriptor(image.LAYER_TYPE, image.digest_of(self.content), size)
        self.asked: list[tuple[int, int]] = []

    def pieces(self, offset: int, length: int):
        self.asked.append((offset, length))
        view = memoryview(self.content)[offset : offset + length]
        while view:
            yield view[:MIB]
            view = view[MIB:]


@pytest.fixture(scope="module")
def large() -> Blob:
    return Blob(20 * MIB)


@pytest.fixture
def small() -> Blob:
    return Blob(100_000)


def push(registry, blob: Blob, **more) -> int:
    return registry.push_blob(blob.descriptor, blob.pieces, chunk_bytes=CHUNK, **more)


def stream(registry, blob: Blob) -> bytes:
    content = bytearray()
    registry.stream_blob(blob.descriptor, content.extend)
    return bytes(content)


def read(registry, blob: Blob, offset: int, length: int) -> bytes:
    content = bytearray()
    registry.read_range(blob.descriptor, offset, length, content.extend)
    return bytes(content)


def push_image(registry, blob: Blob, tag: str) -> tuple[Descriptor, bytes]:
    push(registry, blob)
    config = image.image_config((blob.descriptor,))
    descriptor = image.describe(image.CONFIG_TYPE, config)
    registry.push_blob(descriptor, lambda offset, length: iter([memoryview(config)[offset : offset + length]]))
    manifest = image.image_manifest(descriptor, (blob.descriptor,), {})
    return registry.put_manifest(tag, manifest, image.MANIFEST_TYPE), manifest


def methods(proxy, path: str) -> list[str]:
    return [each.method for each in proxy.requests if path in each.path]


def sent_bytes(proxy) -> int:
    return sum(each.sent_bytes for each in proxy.requests)


# --- there and back ----------------------------------------------------------------------------------------


def test_a_large_blob_goes_there_in_chunks_and_comes_back(registry, repository, large):
    here, told, pieces = repository(registry.url), [], []
    assert push(here, large, on_session=lambda _address, offset: told.append(offset)) == 20 * MIB
    assert told == [0, 8 * MIB, 16 * MIB, 20 * MIB]
    here.stream_blob(large.descriptor, lambda chunk: pieces.append(bytes(chunk)))
    assert b"".join(pieces) == large.content
    assert max(map(len, pieces)) <= MIB
    assert registry.blob(large.descriptor.digest).read_bytes() == large.content


def test_a_blob_that_is_there_does_not_move_again(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    push(here, large)
    before = sent_bytes(proxy)
    assert here.has(large.descriptor)
    assert push(here, large) == 0
    assert sent_bytes(proxy) == before
    assert not here.has(Descriptor(image.LAYER_TYPE, large.descriptor.digest, 5))


def test_an_empty_blob_goes_there_and_back(registry, repository):
    here, empty = repository(registry.url), Blob(0)
    assert push(here, empty) == 0
    assert here.has(empty.descriptor)
    assert here.read_blob(empty.descriptor) == b""


def test_a_range_is_these_bytes_and_no_others(registry, repository, large):
    here = repository(registry.url)
    push(here, large)
    assert read(here, large, 12_345, 3 * MIB) == large.content[12_345 : 12_345 + 3 * MIB]
    assert read(here, large, 20 * MIB - 1, 1) == large.content[-1:]
    assert read(here, large, 0, 20 * MIB) == large.content
    assert read(here, large, 5, 0) == b""


def test_an_image_is_found_by_its_tag_and_by_its_digest(registry, repository, small):
    here = repository(registry.url)
    assert here.tagged("v1") is None
    descriptor, manifest = push_image(here, small, "v1")
    assert descriptor.digest == image.digest_of(manifest)
    assert here.tagged("v1") == here.tagged(descriptor.digest) == descriptor
    assert here.read_manifest("v1") == here.read_manifest(descriptor.digest) == (descriptor, manifest)
    config, layer = image.blobs_of(manifest)
    assert json.loads(here.read_blob(config))["rootfs"]["diff_ids"] == [layer.digest]


def test_an_index_says_that_it_is_one(registry, repository, small):
    here = repository(registry.url)
    descriptor, _ = push_image(here, small, "amd64")
    platform = {"os": "linux", "architecture": "amd64"}
    index = {
        "schemaVersion": 2, "mediaType": image.INDEX_TYPE,
        "manifests": [{**descriptor.to_json(), "platform": platform}],
    }  # fmt: skip
    here.put_manifest("all", json.dumps(index).encode(), image.INDEX_TYPE)
    found, content = here.read_manifest("all")
    assert found.media_type == image.INDEX_TYPE
    assert image.platform_manifest(content, "amd64", "here").digest == descriptor.digest


def test_what_is_not_there(registry, repository, small):
    here = repository(registry.url)
    with pytest.raises(IntegrityError, match="there is no image 'v9'") as caught:
        here.read_manifest("v9")
    assert caught.value.where == here.where
    push(here, small)
    missing = Blob(10)
    with pytest.raises(IntegrityError, match="not in the registry"):
        stream(here, missing)
    with pytest.raises(IntegrityError, match="not in the registry"):
        read(here, missing, 2, 3)
    with pytest.raises(IntegrityError):
        here.put_manifest("v1", image.image_manifest(missing.descriptor, (), {}), image.MANIFEST_TYPE)


def test_a_document_has_a_largest_size(registry, repository, fault_proxy):
    here = repository(fault_proxy(registry.url).url)
    with pytest.raises(IntegrityError, match="too large"):
        here.read_blob(Descriptor(image.CONFIG_TYPE, "sha256:" + "0" * 64, 65 * MIB))


# --- manifests that are none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(200, {"Content-Type": image.MANIFEST_TYPE}, b" " * (4 * MIB + 1)), IntegrityError, "too large"),
        (Answer(200, {"Content-Type": "application/json"}, b'{"hello": 1}'), IntegrityError, "no image manifest"),
        (Answer(200, {"Content-Type": image.MANIFEST_TYPE}, b"\xff"), IntegrityError, "no image manifest"),
        (Answer(200, {}, b'{"schemaVersion": 1}'), IntegrityError, "no image manifest"),
        (PAGE, RemoteUnavailable, "does not answer as a registry"),
        (Answer(404, {"Content-Type": "text/html"}, b"<html>"), RemoteUnavailable, "does not answer as a registry"),
        (Answer(302, {"Location": "ftp://elsewhere/"}), RemoteUnavailable, "does not answer"),
        (Answer(418), UsageError, "does not take this request"),
    ],
)  # fmt: skip
def test_answers_that_are_no_manifest(registry, repository, fault_proxy, answer, error, words):
    proxy = fault_proxy(registry.url)
    proxy.add(Fault(answer, path="/manifests/"))
    with pytest.raises(error, match=words):
        repository(proxy.url).tagged("v1")


def test_a_manifest_that_is_not_that_of_its_digest(registry, repository, fault_proxy, small):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    descriptor, _ = push_image(here, small, "v1")
    proxy.add(Fault(FlipByte(300), method="GET", path="/manifests/"))
    for reference in ("v1", descriptor.digest):
        with pytest.raises(IntegrityError, match="not that of its digest"):
            here.read_manifest(reference)


def test_another_service_is_no_registry(http_server, repository, small):
    class Service(BaseHTTPRequestHandler):
        def log_message(self, *_arguments) -> None:
            return

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = answer  # noqa: N815

    here = repository(http_server(Service).url)
    with pytest.raises(RemoteUnavailable, match="does not answer as a registry"):
        here.tagged("v1")
    with pytest.raises(RemoteUnavailable, match="does not answer as a registry"):
        push(here, small)


# --- going on where another process was --------------------------------------------------------------------

_PUSHER = """\
import json, sys
from pathlib import Path
from modelberth.adapters.registry import Registry
from modelberth.delivery.image import Descriptor
from modelberth.spec.addresses import OciAddress

host, name, content, digest, journal, waits_at = sys.argv[1:]
data = memoryview(Path(content).read_bytes())

def pieces(offset, length):
    end = offset + length
    while offset < end:
        step = min(1 << 20, end - offset)
        if int(waits_at) and offset >= int(waits_at):
            print("waiting", flush=True)
            sys.stdin.read()
        yield data[offset : offset + step]
        offset += step

def told(address, offset):
    Path(journal).write_text(json.dumps([address, offset]))

registry = Registry(OciAddress(host, name, "latest", ""))
blob = Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(data))
registry.push_blob(blob, pieces, on_session=told, chunk_bytes=8 << 20)
"""


class Pusher:
    """A process that pushes a blob and keeps where it is."""

    def __init__(self, url: str, name: str, blob: Blob, folder: Path, waits_at: int = 0) -> None:
        content, self._journal = folder / "content", folder / "journal"
        content.write_bytes(blob.content)
        host = url.partition("://")[2]
        arguments = [host, name, str(content), blob.descriptor.digest, str(self._journal), str(waits_at)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PUSHER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def wait_for_word(self) -> None:
        assert self._process.stdout.readline() == b"waiting\n"

    def kill(self) -> tuple[str, int]:
        """End it at once. Returns the session and the offset that it wrote down last."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        address, offset = json.loads(self._journal.read_text())
        return address, offset


def test_after_a_kill_at_a_chunks_beginning_only_the_missing_bytes_move(
    registry, repository, fault_proxy, large, tmp_path
):
    first = fault_proxy(registry.url)
    first.add(Fault(StallSent(0), method="PATCH", after=1))
    pusher = Pusher(first.url, "tests/resumed", large, tmp_path)
    first.wait_stalled()
    session, offset = pusher.kill()
    first.close()
    assert offset == CHUNK
    assert "://" not in session
    second = fault_proxy(registry.url)
    here = repository(second.url, "tests/resumed")
    assert push(here, large, session=session) == 20 * MIB - CHUNK
    assert sent_bytes(second) == 20 * MIB - CHUNK
    assert methods(second, UPLOADS) == ["GET", "PATCH", "PATCH", "PUT"]
    assert stream(here, large) == large.content


def test_after_a_kill_within_a_chunk_dockers_registry_takes_the_blob_from_its_beginning(
    registry, repository, fault_proxy, large, tmp_path
):
    first = fault_proxy(registry.url)
    first.add(Fault(StallSent(3 * MIB), method="PATCH", after=1))
    pusher = Pusher(first.url, "tests/broken", large, tmp_path)
    first.wait_stalled()
    session, _ = pusher.kill()
    first.close()
    second = fault_proxy(registry.url)
    here = repository(second.url, "tests/broken")
    assert push(here, large, session=session) == 20 * MIB
    assert methods(second, UPLOADS) == ["GET", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
    assert stream(here, large) == large.content


class KeepingRegistry:
    """Uploads as the specification has them: what came of a broken chunk is kept, and it says how far it is."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.ranges: list[str] = []
        self.whole = b""
        self.broken = threading.Event()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments) -> None:
                return

            def say(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Location", "/v2/keeping/blobs/uploads/one")
                self.send_header("Range", f"0-{max(0, len(world.content) - 1)}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.say(200 if world.whole else 404)

            def do_GET(self) -> None:
                self.say(204)

            def do_POST(self) -> None:
                self.say(202)

            def do_PUT(self) -> None:
                world.whole = bytes(world.content)
                self.say(201)

            def do_PATCH(self) -> None:
                world.ranges.append(self.headers["Content-Range"])
                left = int(self.headers["Content-Length"])
                while left:
                    piece = self.rfile.read1(min(left, MIB))
                    if not piece:
                        self.close_connection = True
                        world.broken.set()
                        return
                    world.content += piece
                    left -= len(piece)
                self.say(202)

        return Handler


def test_after_a_kill_within_a_chunk_a_registry_that_keeps_it_gets_only_the_missing_bytes(
    http_server, repository, large, tmp_path
):
    world = KeepingRegistry()
    server = http_server(world.handler())
    pusher = Pusher(server.url, "keeping", large, tmp_path, waits_at=11 * MIB)
    pusher.wait_for_word()
    session, offset = pusher.kill()
    assert offset == CHUNK
    assert world.broken.wait(50)
    assert push(repository(server.url, "keeping"), large, session=session) == 9 * MIB
    assert world.whole == large.content
    assert world.ranges[2] == f"{11 * MIB}-{19 * MIB - 1}"


def test_a_session_that_is_gone_is_begun_anew(registry, repository, fault_proxy, small):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    session = "/v2/tests/gone/blobs/uploads/0b6e0d37-0000-4000-8000-000000000000?_state=none"
    assert push(here, small, session=session) == len(small.content)
    assert stream(here, small) == small.content


# --- wrong bytes -------------------------------------------------------------------------------------------


def test_a_byte_that_is_changed_on_the_way_there_is_refused(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    proxy.add(Fault(FlipSentByte(5 * MIB), method="PATCH", after=1))
    here = repository(proxy.url)
    with pytest.raises(IntegrityError, match="other bytes than were sent") as caught:
        push(here, large)
    assert large.descriptor.digest in caught.value.where
    assert not here.has(large.descriptor)


class Interrupted(Exception):
    pass


def test_a_wrong_byte_of_an_earlier_process_costs_one_more_upload(registry, repository, fault_proxy, large):
    proxy, kept = fault_proxy(registry.url), []
    proxy.add(Fault(FlipSentByte(17), method="PATCH", times=1))
    here = repository(proxy.url)

    def told(address: str, offset: int) -> None:
        kept.append(address)
        if offset:
            raise Interrupted

    with pytest.raises(Interrupted):
        push(here, large, on_session=told)
    assert push(here, large, session=kept[-1]) == (20 * MIB - CHUNK) + 20 * MIB
    assert stream(here, large) == large.content


def test_a_byte_that_is_changed_on_the_way_back_is_found(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    push(here, large)
    proxy.add(Fault(FlipByte(7 * MIB), method="GET", path=BLOBS))
    with pytest.raises(IntegrityError, match="not what its digest says"):
        stream(here, large)
    wrong = read(here, large, MIB, 8 * MIB)  # who reads a range has checksums of its parts
    assert [at for at, byte in enumerate(wrong) if byte != large.content[MIB + at]] == [7 * MIB]


def test_a_blob_that_changed_in_the_registry_is_found(registry, repository, flip, small):
    here = repository(registry.url)
    push(here, small)
    flip(registry.blob(small.descriptor.digest), 99)
    with pytest.raises(IntegrityError, match="not what its digest says"):
        here.read_blob(small.descriptor)


@pytest.mark.parametrize("size", [99_000, 101_000])
def test_a_source_that_changes_its_size_is_no_upload(registry, repository, size):
    here, blob = repository(registry.url), Blob(100_000)
    blob.content = os.urandom(size)
    with pytest.raises(IntegrityError, match="another size"):
        here.push_blob(blob.descriptor, lambda _offset, _length: iter([memoryview(blob.content)]))


# --- connections that break --------------------------------------------------------------------------------


def test_a_stream_that_breaks_off_goes_on_where_it_was(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    push(here, large)
    proxy.add(Fault(Cut(5 * MIB + 1), method="GET", path=BLOBS, times=2))
    assert stream(here, large) == large.content
    gets = [each for each in proxy.requests if each.method == "GET" and BLOBS in each.path]
    assert [each.header("Range") for each in gets] == [
        "", f"bytes={5 * MIB + 1}-{20 * MIB - 1}", f"bytes={10 * MIB + 2}-{20 * MIB - 1}",
    ]  # fmt: skip


def test_a_range_that_breaks_off_goes_on_where_it_was(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    push(here, large)
    proxy.add(Fault(Cut(2 * MIB), method="GET", path=BLOBS, times=1))
    assert read(here, large, 1000, 5 * MIB) == large.content[1000 : 1000 + 5 * MIB]
    gets = [each for each in proxy.requests if each.method == "GET" and BLOBS in each.path]
    assert gets[1].header("Range") == f"bytes={1000 + 2 * MIB}-{999 + 5 * MIB}"


def test_a_registry_without_ranges_says_so_and_streams_all_the_same(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    push(here, large)
    proxy.add(Fault(IgnoreRange(), method="GET", path=BLOBS))
    with pytest.raises(RangesUnsupported):
        read(here, large, 1000, 5 * MIB)
    proxy.add(Fault(Cut(5 * MIB), method="GET", path=BLOBS, times=1))
    assert stream(here, large) == large.content


@pytest.mark.parametrize("value", ["bytes 0-4999/20971520", None, "bytes 1001-6000/20971520"])
def test_another_range_than_asked_is_refused(registry, repository, fault_proxy, large, value):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    push(here, large)
    proxy.add(Fault(ContentRange(value), method="GET", path=BLOBS))
    with pytest.raises(IntegrityError, match="another range"):
        read(here, large, 1000, 5000)


def test_a_blob_of_another_size_is_refused(registry, repository, small):
    here = repository(registry.url)
    push(here, small)
    with pytest.raises(IntegrityError, match="another range"):
        here.read_blob(Descriptor(image.LAYER_TYPE, small.descriptor.digest, 99_999))


def test_a_connection_that_stalls_is_given_up_in_the_end(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    push(repository(proxy.url, "tests/stalled"), large)
    proxy.add(Fault(Stall(MIB), method="GET", path=BLOBS))
    with pytest.raises(NotReady, match="the registry stopped sending"):
        stream(repository(proxy.url, "tests/stalled", stall_seconds=0.2), large)


def test_a_connection_that_stalls_once_goes_on(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    push(repository(proxy.url, "tests/stalls-once"), large)
    proxy.add(Fault(Stall(3 * MIB), method="GET", path=BLOBS, times=1))
    assert stream(repository(proxy.url, "tests/stalls-once", stall_seconds=1.0), large) == large.content


@pytest.mark.parametrize(
    ("action", "method"),
    [(CutSent(3 * MIB), "PATCH"), (LoseAnswer(), "PATCH"), (CutSent(0), "PATCH"), (CutSent(0), "PUT")],
)
def test_an_upload_that_breaks_off_arrives_all_the_same(registry, repository, fault_proxy, large, action, method):
    proxy = fault_proxy(registry.url)
    rule = proxy.add(Fault(action, method=method, path=UPLOADS, after=1 if method == "PATCH" else 0, times=1))
    here = repository(proxy.url)
    assert push(here, large) >= 20 * MIB
    assert rule.struck == 1
    assert stream(here, large) == large.content


def test_an_upload_whose_last_answer_is_lost_does_not_move_again(registry, repository, fault_proxy, large):
    proxy = fault_proxy(registry.url)
    rule = proxy.add(Fault(LoseAnswer(), method="PUT", path=UPLOADS, times=1))
    here = repository(proxy.url)
    assert push(here, large) == 20 * MIB
    assert rule.struck == 1
    assert here.has(large.descriptor)


def test_uploads_that_the_registry_always_loses_come_to_an_end(registry, repository, fault_proxy):
    proxy, blob = fault_proxy(registry.url), Blob(2 * MIB)
    proxy.add(Fault(CutSent(MIB), method="PATCH"))
    with pytest.raises(RemoteUnavailable, match="loses its uploads"):
        push(repository(proxy.url), blob)


# --- refusals ----------------------------------------------------------------------------------------------


def test_a_registry_that_wants_fewer_requests_is_given_time(registry, repository, fault_proxy, small):
    proxy = fault_proxy(registry.url)
    here = repository(proxy.url)
    for method in ("HEAD", "POST", "PATCH", "PUT", "GET"):
        proxy.add(Fault(Answer(429, {"Retry-After": "0"}), method=method, times=1))
    push(here, small)
    assert stream(here, small) == small.content
    proxy.add(Fault(Answer(429, {"Retry-After": "0"}), method="GET"))
    with pytest.raises(RemoteUnavailable, match="fewer requests"):
        stream(here, small)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(413, {"Content-Type": "text/html"}, b"<html>Request Entity Too Large"), DoesNotFit, "no room"),
        (
            Answer(403, {}, b'{"errors":[{"code":"DENIED","message":"quota has been exceeded on namespace"}]}'),
            DoesNotFit, "no room",
        ),
        (Answer(403, {}, b'{"errors":[{"code":"DENIED","message":"read only"}]}'), AuthError, "let us push"),
        (PAGE, RemoteUnavailable, "does not answer as a registry"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_uploads_that_are_refused(registry, repository, fault_proxy, small, answer, error, words, method):
    proxy = fault_proxy(registry.url)
    proxy.add(Fault(answer, method=method))
    with pytest.raises(error, match=words):
        push(repository(proxy.url), small)


def test_a_repository_that_has_to_be_made_first(registry, repository, fault_proxy, small):
    proxy = fault_proxy(registry.url)
    body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"not known"}]}'
    proxy.add(Fault(Answer(404, {}, body), method="POST"))
    with pytest.raises(UsageError, match="no such repository"):
        push(repository(proxy.url), small)


def test_a_full_disk_of_the_registry_is_no_mystery(registry, repository, fault_proxy, small):
    proxy = fault_proxy(registry.url)
    body = b'{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Err":"no space left on device"}}]}'
    proxy.add(Fault(Answer(500, {}, body), method="PATCH"))
    with pytest.raises(DoesNotFit, match="no room"):
        push(repository(proxy.url), small)


# --- other hosts -------------------------------------------------------------------------------------------


class Elsewhere:
    """Another host that keeps a blob, takes uploads, and remembers the headers of every request."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self.seen, self.taken = blob, [], bytearray()
        self.wants_password = False

    def handler(self) -> type[BaseHTTPRequestHandler]:
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments) -> None:
                return

            def begin(self, status: int, length: int, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(length))
                self.end_headers()

            def do_GET(self) -> None:
                world.seen.append(dict(self.headers.items()))
                if world.wants_password:
                    self.begin(401, 0, WWW_Authenticate=f'Bearer realm="http://{self.headers["Host"]}/token"')
                    return
                content, found = world.blob.content, re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if not found:
                    self.begin(200, len(content))
                    self.wfile.write(content)
                    return
                first, last = int(found[1]), int(found[2])
                self.begin(206, last + 1 - first, Content_Range=f"bytes {first}-{last}/{len(content)}")
                self.wfile.write(content[first : last + 1])

            def do_PATCH(self) -> None:
                world.seen.append(dict(self.headers.items()))
                world.taken += self.rfile.read(int(self.headers["Content-Length"]))
                self.begin(202, 0)

            def do_PUT(self) -> None:
                world.seen.append(dict(self.headers.items()))
                self.begin(201, 0)

        return Handler


def known_login(home: Path, registry, host: str) -> None:
    """A file with the login of a registry, for the host of a proxy before it."""
    folder = home / ".docker"
    folder.mkdir()
    login = {"username": registry.user, "password": registry.password}
    (folder / "config.json").write_text(json.dumps({"auths": {host: login}}))


def test_a_redirect_to_another_host_takes_no_password_along(
    registry_with_password, repository, fault_proxy, http_server, no_logins, small
):
    world = Elsewhere(small)
    other = http_server(world.handler())
    proxy = fault_proxy(registry_with_password.url)
    known_login(no_logins, registry_with_password, proxy.url.partition("://")[2])
    here = repository(proxy.url)
    assert here.tagged("v1") is None
    proxy.add(Fault(Answer(307, {"Location": f"{other.url}/cdn?signature=x"}), path=BLOBS))
    assert stream(here, small) == small.content
    assert read(here, small, 10, 500) == small.content[10:510]
    assert all(each.header("Authorization").startswith("Basic ") for each in proxy.requests if BLOBS in each.path)
    assert [each.get("Authorization") for each in world.seen] == [None, None]
    world.wants_password = True
    with pytest.raises(AuthError):
        stream(here, small)
    assert [each.get("Authorization") for each in world.seen] == [None, None, None]


def test_an_upload_that_leads_to_another_host_takes_no_password_along(
    registry_with_password, repository, fault_proxy, http_server, no_logins, small
):
    world = Elsewhere(small)
    other = http_server(world.handler())
    proxy = fault_proxy(registry_with_password.url)
    known_login(no_logins, registry_with_password, proxy.url.partition("://")[2])
    here, kept = repository(proxy.url), []
    assert here.tagged("v1") is None
    proxy.add(Fault(Answer(202, {"Location": f"{other.url}/uploads/1?signature=x"}), method="POST"))
    push(here, small, on_session=lambda address, _offset: kept.append(address))
    assert bytes(world.taken) == small.content
    assert len(world.seen) == 2
    assert all("Authorization" not in each for each in world.seen)
    assert kept[-1].startswith(other.url)

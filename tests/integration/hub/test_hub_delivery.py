"""Weights from the Hub to a store, a folder or an image: pinned to a commit, checked by its SHA-256, resumed.

The Hub here answers as the real one does: a list of files with the SHA-256 of the large ones (LFS), and for those a
redirect to another host, which must not be told who we are.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docks import (
    MARK,
    OWN,
    PART,
    SHARDS,
    SIZES,
    KillBefore,
    KillDone,
    KillReceiving,
    KillSending,
    Outcome,
    Store,
    Victim,
    write_model,
)
from fault_proxy import Answer, Cut, Fault, FaultProxy, FlipByte, Request

pytestmark = pytest.mark.integration

KILLED = -9
COMMIT, NEXT_COMMIT = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"
NAME = "owner/name"
TOKEN = "hf_canary0004"
"""Of `berth`'s environment; that it is shown nowhere is looked at after every test."""
UNNEEDED = ("pytorch_model.bin", "modeling_name.py", "onnx/model.onnx", "original/consolidated.00.pth", "photo.png")


class Hub:
    """Repositories by commit, served by one server; large files by another, each behind a proxy."""

    def __init__(self, http_server, fault_proxy, folder: Path) -> None:
        self.commits = {COMMIT: folder}
        self.branches = {"main": COMMIT}
        self.declared: dict[tuple[str, str], str] = {}
        self.private = False
        self._lock = threading.Lock()
        store = http_server(self._handler(self._stored))
        self.store: FaultProxy = fault_proxy(store.url)
        hub = http_server(self._handler(self._answer))
        self.hub: FaultProxy = fault_proxy(hub.url)

    @property
    def environment(self) -> dict[str, str]:
        """What tells `berth` of it."""
        return {"HF_ENDPOINT": self.hub.url}

    def data(self, since: int = 0) -> list[Request]:
        """Requests for ranges of weights that are parts, from the `since`-th request to the store on; no headers."""
        return [each for each in self.store.requests[since:] if part_of(each) is not None]

    @staticmethod
    def _handler(answer: Callable) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                return

            def do_GET(self):
                status, headers, body = answer(urlsplit(self.path), self.headers)
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        return Handler

    def _answer(self, url, headers) -> tuple[int, dict[str, str], bytes]:
        if match := re.fullmatch(rf"/api/models/{NAME}(?:/revision/(.+))?", url.path):
            if self.private:
                return 401, {"X-Error-Message": "Invalid username or password."}, b""
            commit = self.branches.get(unquote(match[1] or "main"), unquote(match[1] or "main"))
            return (200, {"Content-Type": "application/json"}, self._listing(commit, url.query)) if (
                commit in self.commits
            ) else (404, {"X-Error-Code": "RevisionNotFound"}, b"")  # fmt: skip
        if match := re.fullmatch(rf"/{NAME}/resolve/([0-9a-f]{{40}})/(.+)", url.path):
            path = self.commits[match[1]] / unquote(match[2])
            if path.suffix != ".safetensors":
                return _range(path, headers)
            location = f"{self.store.url}/repos/{match[1]}/{match[2]}?X-Amz-Signature=canary-signature"
            return (
                302,
                {"Location": location, "X-Linked-Size": str(path.stat().st_size), "X-Repo-Commit": match[1]},
                b"",
            )
        return 404, {"X-Error-Code": "EntryNotFound"}, b""

    def _stored(self, url, headers) -> tuple[int, dict[str, str], bytes]:
        _, _, commit, path = url.path.split("/", 3)
        return _range(self.commits[commit] / unquote(path), headers)

    def _listing(self, commit: str, query: str) -> bytes:
        assert query == "blobs=true"
        folder = self.commits[commit]
        siblings = []
        with self._lock:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    name = path.relative_to(folder).as_posix()
                    item = {"rfilename": name, "size": path.stat().st_size, "blobId": "0" * 40}
                    if path.suffix in {".safetensors", ".bin", ".pth", ".onnx"}:
                        sha256 = self.declared.setdefault((commit, name), hashlib.sha256(path.read_bytes()).hexdigest())
                        item["lfs"] = {"sha256": sha256, "size": item["size"], "pointerSize": 134}
                    siblings.append(item)
        return json.dumps({"id": NAME, "sha": commit, "siblings": siblings}).encode()


def _range(path: Path, headers) -> tuple[int, dict[str, str], bytes]:
    size = path.stat().st_size
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
    first, last = (int(match[1]), min(int(match[2]), size - 1)) if match else (0, size - 1)
    if first >= size:
        return 416, {"Content-Range": f"bytes */{size}"}, b""
    with path.open("rb") as file:
        file.seek(first)
        content = file.read(last - first + 1)
    kind = {"Content-Type": "application/octet-stream"}
    return (206, {**kind, "Content-Range": f"bytes {first}-{last}/{size}"}, content) if match else (200, kind, content)


def part_of(request: Request) -> tuple[str, int] | None:
    """File and number of the part of weights that a request is for; None for anything else."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.header("Range"))
    path = request.path.partition("?")[0].rpartition("/")[2]
    if not match or path not in SHARDS:
        return None
    size = SIZES[SHARDS.index(path)]
    first, length = int(match[1]), int(match[2]) - int(match[1]) + 1
    whole = length == PART or first + length > size  # a file has its header before these bytes
    return (path, first // PART) if first % PART == 0 and whole else None


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A model in three shards, 15 MB, and much that no engine needs; nobody changes it."""
    folder = write_model(tmp_path_factory.mktemp("hub") / "name", *SIZES)
    for name in UNNEEDED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def needed(source, hashes) -> dict[str, str]:
    """SHA-256 of what a delivery takes, by path."""
    return {path: sha for path, sha in hashes(source).items() if path not in {*UNNEEDED, ".gitattributes"}}


@pytest.fixture
def own_source(source, tmp_path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(source, tmp_path / "own-source"))


@pytest.fixture
def hub_of(http_server, fault_proxy) -> Callable[[Path], Hub]:
    """Serve a folder as the repository's commit."""
    return lambda folder: Hub(http_server, fault_proxy, folder)


@pytest.fixture
def hub(hub_of, source) -> Hub:
    """A Hub with the model."""
    return hub_of(source)


class Ferry:
    """`berth` between the Hub and one bucket, each behind a proxy."""

    def __init__(self, berth, hub: Hub, store: Store, proxy: FaultProxy) -> None:
        self.berth, self.hub, self.store, self.proxy = berth, hub, store, proxy
        self.bucket = store.new_bucket()
        self.address = f"s3://{self.bucket}/m/"

    def start(self, *arguments: object, **environment: str):
        """Start a verb."""
        return self.berth.start(
            *arguments, "--part-size", "5MiB", "-o", "json",
            **{**self.store.environment(self.proxy.url), **self.hub.environment, **environment},
        )  # fmt: skip

    def end(self, started) -> Outcome:
        """Wait for its end; the address that large files were redirected to is a secret too."""
        code, stdout, talk = started.end()
        assert "canary-signature" not in stdout + talk
        return Outcome(code, json.loads(stdout) if stdout else None, talk)

    def run(self, *arguments: object, **environment: str) -> Outcome:
        """Run a verb to its end."""
        return self.end(self.start(*arguments, **environment))

    def ship(self, *options: object, revision: str = "@main", **environment: str) -> Outcome:
        """Ship the repository to the bucket."""
        return self.run("ship", f"hf://{NAME}{revision}", self.address, *options, **environment)

    def fetch(self, folder: Path, *options: object, revision: str = "", **environment: str) -> Outcome:
        """Fetch the repository into a folder."""
        return self.run("fetch", f"hf://{NAME}{revision}", folder, *options, **environment)

    def killed(self, victim: Victim, *arguments: object) -> None:
        """Run a verb that is killed."""
        assert self.end(victim.is_(self.start(*arguments))).code == KILLED

    def has_mark(self) -> bool:
        """Whether the prefix is complete."""
        return "m/" + MARK in self.store.keys(self.bucket)

    def sent(self, since: int = 0) -> list[Request]:
        """Requests that sent bytes of the model, from the `since`-th on."""
        puts = [each for each in self.proxy.requests[since:] if each.method == "PUT"]
        return [each for each in puts if each.path.startswith(f"/{self.bucket}/m/") and f"/{OWN}" not in each.path]


@pytest.fixture
def ferry(berth, hub, s3, fault_proxy) -> Ferry:
    """`berth` between the Hub and a new bucket."""
    store = Store(s3.server.endpoint, s3.server.keys.access_key, s3.server.keys.secret_key, s3.data)
    return Ferry(berth, hub, store, fault_proxy(store.url))


def size_of(hashed: dict[str, str], folder: Path) -> int:
    return sum((folder / path).stat().st_size for path in hashed)


# --- to S3 ---------------------------------------------------------------------------------------------------


def test_a_branch_is_shipped_as_the_commit_that_it_names(ferry, hub, source, needed):
    shipped = ferry.ship()
    assert shipped.code == 0, shipped.talk
    assert shipped.document["source"] == f"hf://{NAME}@{COMMIT}"
    assert ferry.store.objects(ferry.bucket) == needed
    assert {entry["path"]: entry["sha256"] for entry in shipped.document["files"]} == needed
    assert shipped.document["bytesMoved"] == size_of(needed, source)
    assert ferry.has_mark()
    resolved = [each.path for each in hub.hub.requests if "/resolve/" in each.path]
    assert resolved
    assert {re.search(r"/resolve/([^/]+)/", path)[1] for path in resolved} == {COMMIT}
    assert not [path for path in resolved if path.partition(COMMIT + "/")[2] in UNNEEDED]
    checked = ferry.run("ship", "--check", ferry.address)
    assert (checked.code, checked.document["passed"]) == (0, True)


def test_shipped_again_nothing_moves(ferry, needed):
    first = ferry.ship()
    assert first.code == 0, first.talk
    before = len(ferry.proxy.requests)
    again = ferry.ship()
    assert again.code == 0, again.talk
    assert again.document["digest"] == first.document["digest"]
    assert (again.document["changed"], again.document["bytesMoved"]) == (False, 0)
    assert {each.method for each in ferry.proxy.requests[before:]} <= {"GET", "HEAD"}
    assert ferry.has_mark()


def test_the_token_goes_to_the_hub_alone(ferry, hub):
    """It is in `berth`'s environment; that it is shown nowhere is looked at after every test."""
    assert ferry.ship().code == 0
    assert {each.header("Authorization") for each in hub.hub.requests} == {f"Bearer {TOKEN}"}
    assert {each.header("Authorization") for each in hub.store.requests} == {""}
    for each in (*hub.store.requests, *ferry.proxy.requests):
        assert TOKEN not in str(each.headers) + each.path
    for each in (*hub.hub.requests, *hub.store.requests):
        assert each.header("Accept-Encoding") == "identity"


@pytest.mark.parametrize("shard", [SHARDS[1], SHARDS[2]])
def test_a_wrong_byte_at_the_hub_becomes_no_object(berth, hub_of, own_source, flip, s3, fault_proxy, shard):
    """The Hub says another SHA-256 than its bytes have: for a file of three parts, and for one of a single part."""
    hub = hub_of(own_source)
    store = Store(s3.server.endpoint, s3.server.keys.access_key, s3.server.keys.secret_key, s3.data)
    ferry = Ferry(berth, hub, store, fault_proxy(store.url))
    hub._listing(COMMIT, "blobs=true")  # what it declares from now on
    right = hashlib.sha256((own_source / shard).read_bytes()).hexdigest()
    flip(own_source / shard, 150_000)
    shipped = ferry.ship()
    assert shipped.code == 7, shipped.talk
    assert shard in shipped.talk
    assert right in shipped.talk
    assert shard not in ferry.store.objects(ferry.bucket)
    assert not ferry.has_mark()
    assert ferry.fetch(berth.home / "back", revision="@main").code == 7
    assert not list((berth.home / "back").rglob("*.safetensors"))
    assert not (berth.home / "back" / MARK).exists()
    flip(own_source / shard, 150_000)
    again = ferry.ship()
    assert again.code == 0, again.talk
    assert ferry.store.objects(ferry.bucket)[shard] == right


def test_a_small_file_is_not_taken_when_it_is_cut_short(ferry, hub, needed):
    """Small files have no SHA-256 at the Hub; their size is known."""
    hub.hub.add(Fault(Cut(0), path=r"/resolve/.*/tokenizer\.json"))
    shipped = ferry.ship()
    assert shipped.code == 9, shipped.talk
    assert "tokenizer.json" not in ferry.store.objects(ferry.bucket)
    assert not ferry.has_mark()
    hub.hub.clear()
    assert ferry.ship().code == 0
    assert ferry.store.objects(ferry.bucket) == needed


def test_killed_in_the_middle_what_is_complete_is_not_sent_again(ferry, source, needed):
    victim = Victim()
    path = rf"/m/{SHARDS[1]}\?.*partNumber=2"
    ferry.proxy.add(Fault(KillSending(victim, 1_000_000), method="PUT", path=path, times=1))
    ferry.killed(victim, "ship", f"hf://{NAME}@main", ferry.address, "--connections", 1)
    complete = set(ferry.store.objects(ferry.bucket))
    assert {"config.json", SHARDS[0]} <= complete
    assert SHARDS[1] not in complete
    assert not ferry.has_mark()
    before = len(ferry.proxy.requests)
    again = ferry.ship()
    assert again.code == 0, again.talk
    assert ferry.store.objects(ferry.bucket) == needed
    assert ferry.has_mark()
    sent = ferry.sent(before)
    names = {each.path.partition("?")[0].removeprefix(f"/{ferry.bucket}/m/") for each in sent}
    assert not names & complete
    assert again.document["bytesMoved"] == sum(each.sent_bytes for each in sent)
    # The first part of the file that was under way had been confirmed.
    assert not [each for each in sent if SHARDS[1] in each.path and re.search(r"partNumber=1\b", each.path)]


def test_killed_when_a_part_is_there_but_not_known_to_be_the_next_run_ends_well(ferry, needed):
    """The embedded server takes no part a second time, and says no checksum of what it has."""
    victim = Victim()
    path = rf"/m/{SHARDS[1]}\?.*partNumber=2"
    ferry.proxy.add(Fault(KillDone(victim), method="PUT", path=path, times=1))
    ferry.killed(victim, "ship", f"hf://{NAME}@main", ferry.address, "--connections", 1)
    again = ferry.ship()
    assert again.code == 0, again.talk
    assert ferry.store.objects(ferry.bucket) == needed
    assert ferry.has_mark()


def test_what_a_killed_ship_left_in_the_workspace_is_gone_after_the_next(ferry, needed, tmp_path):
    """Otherwise a small disk is full after a few kills."""
    victim, workspace = Victim(), tmp_path / "workspace"
    ferry.proxy.add(Fault(KillSending(victim, 1_000_000), method="PUT", path=rf"/m/{SHARDS[1]}\?", times=1))
    ferry.killed(victim, "ship", f"hf://{NAME}@main", ferry.address, "--workspace", workspace)
    again = ferry.ship("--workspace", workspace)
    assert again.code == 0, again.talk
    assert ferry.store.objects(ferry.bucket) == needed
    assert [path for path in workspace.rglob("*") if path.is_file()] == []


def test_a_branch_that_moved_between_two_runs_is_one_commit_in_the_end(ferry, hub, own_source, hashes, flip):
    victim = Victim()
    ferry.proxy.add(Fault(KillBefore(victim), method="PUT", path=rf"/m/{SHARDS[1]}\?.*partNumber=2", times=1))
    ferry.killed(victim, "ship", f"hf://{NAME}@main", ferry.address, "--connections", 1)
    (own_source / "tokenizer.json").write_text("{ }")
    flip(own_source / SHARDS[0], 400_000)
    hub.commits[NEXT_COMMIT], hub.branches["main"] = own_source, NEXT_COMMIT
    again = ferry.ship()
    assert again.code == 0, again.talk
    assert again.document["source"] == f"hf://{NAME}@{NEXT_COMMIT}"
    kept = {path: sha for path, sha in hashes(own_source).items() if path not in {*UNNEEDED, ".gitattributes"}}
    assert ferry.store.objects(ferry.bucket) == kept


def test_a_workspace_smaller_than_the_model_is_enough(ferry, source, needed, small_disk):
    """Two parts under way take two parts of room."""
    disk = small_disk("11m")
    assert size_of(needed, source) > 15_000_000
    shipped = ferry.ship("--workspace", disk, "--connections", 2)
    assert shipped.code == 0, shipped.talk
    assert ferry.store.objects(ferry.bucket) == needed
    assert list(disk.iterdir()) == []


def test_a_workspace_smaller_than_a_part_says_so_and_marks_nothing(ferry, small_disk):
    disk = small_disk("2m")
    shipped = ferry.ship("--workspace", disk)
    assert shipped.code == 8, shipped.talk
    assert str(disk) in shipped.talk
    assert "--workspace" in shipped.talk or "--state" in shipped.talk
    assert not ferry.has_mark()
    assert list(disk.iterdir()) == []


# --- to a folder ---------------------------------------------------------------------------------------------


def test_fetched_into_a_folder(ferry, source, needed, hashes, tmp_path):
    fetched = ferry.fetch(tmp_path / "back")
    assert fetched.code == 0, fetched.talk
    assert fetched.document["source"] == f"hf://{NAME}@{COMMIT}"
    assert hashes(tmp_path / "back") == needed
    assert fetched.document["bytesMoved"] == size_of(needed, source)
    again = ferry.fetch(tmp_path / "back")
    assert again.code == 0, again.talk
    assert hashes(tmp_path / "back") == needed


def test_fetched_again_no_weights_come(ferry, hub, needed, tmp_path):
    """Small files have no SHA-256 at the Hub and are read again, or not; weights have one."""
    assert ferry.fetch(tmp_path / "back").code == 0
    before = len(hub.store.requests)
    again = ferry.fetch(tmp_path / "back")
    assert again.code == 0, again.talk
    assert hub.data(before) == []
    assert again.document["bytesMoved"] < 100_000


def test_a_fetch_that_was_killed_goes_on_with_the_parts_that_are_missing(ferry, hub, source, needed, hashes, tmp_path):
    victim, back = Victim(), tmp_path / "back"
    fault = Fault(KillReceiving(victim, 300_000), path=SHARDS[1], range=rf"^bytes={PART}-{2 * PART - 1}$", times=1)
    hub.store.add(fault)
    ferry.killed(victim, "fetch", f"hf://{NAME}", back, "--connections", 1)
    arrived = {part_of(each) for each in hub.data()[:-1]}
    assert (SHARDS[1], 0) in arrived
    assert (SHARDS[1], 1) not in arrived
    assert not (back / MARK).exists()
    assert not [path for path in back.rglob("*") if path.is_file() and path.suffix in {".safetensors", ".json"}
                and OWN.rstrip("/") not in path.parts]  # fmt: skip
    before = len(hub.store.requests)
    again = ferry.fetch(back)
    assert again.code == 0, again.talk
    assert hashes(back) == needed
    asked = [part_of(each) for each in hub.data(before)]
    assert len(asked) == len(set(asked))
    assert not arrived & set(asked)
    counts = [1 + size // PART for size in SIZES]
    every = {(name, number) for name, count in zip(SHARDS, counts, strict=True) for number in range(count)}
    assert arrived | set(asked) == every
    kept = sum(each.answer_bytes for each in hub.data()[: len(arrived)])
    assert again.document["bytesMoved"] <= size_of(needed, source) - kept


def test_a_byte_that_came_wrong_on_the_way_is_found_at_the_end(ferry, hub, needed, hashes, tmp_path):
    """Without the checksums of parts only the whole file shows it; the next run fetches what is wrong again."""
    hub.store.add(Fault(FlipByte(200), path=SHARDS[1], range=rf"^bytes={PART}-", times=1))
    fetched = ferry.fetch(tmp_path / "back")
    assert fetched.code == 7, fetched.talk
    assert SHARDS[1] in fetched.talk
    assert not (tmp_path / "back" / SHARDS[1]).exists()
    again = ferry.fetch(tmp_path / "back")
    assert again.code == 0, again.talk
    assert hashes(tmp_path / "back") == needed


def test_a_connection_that_breaks_off_goes_on_where_it_was(ferry, hub, needed, hashes, tmp_path):
    rule = hub.store.add(Fault(Cut(3_000_000), path=SHARDS[0], range=rf"^bytes=0-{PART - 1}$", times=1))
    assert ferry.fetch(tmp_path / "back").code == 0
    assert rule.struck == 1
    assert hashes(tmp_path / "back") == needed
    begins = [each.header("Range") for each in hub.store.requests if SHARDS[0] in each.path]
    assert f"bytes=3000000-{PART - 1}" in begins or len(set(begins)) > 2


def test_to_an_image_as_from_the_folder(ferry, berth, source, tmp_path):
    excluded = [option for name in UNNEEDED for option in ("--exclude", name)]
    straight = ferry.run("modelcar", "build", source, f"oci-layout:{tmp_path / 'one'}:1.0", *excluded)
    shipped = ferry.run("ship", f"hf://{NAME}", f"oci-layout:{tmp_path / 'two'}:1.0")
    assert (straight.code, shipped.code) == (0, 0), straight.talk + shipped.talk
    assert shipped.document["digest"] == straight.document["digest"]
    assert shipped.document["source"] == f"hf://{NAME}@{COMMIT}"
    assert not list((berth.state / "workspace").rglob("*.safetensors"))


# --- refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("verb", ["ship", "fetch"])
def test_a_gated_repository(ferry, hub, tmp_path, status, verb):
    """Its list of files is open to everybody; the files are not."""
    hub.hub.add(Fault(Answer(status, {"X-Error-Code": "GatedRepo"}), path="/resolve/"))
    refused = ferry.ship() if verb == "ship" else ferry.fetch(tmp_path / "back")
    assert refused.code == 4, refused.talk
    assert f"{NAME} is gated" in refused.talk
    assert f"accept its conditions at {hub.hub.url}/{NAME}" in refused.talk
    assert not (tmp_path / "back").exists()
    assert ferry.store.keys(ferry.bucket) == []
    assert len(hub.hub.requests) < 10  # asked once, not again and again


def test_a_gate_that_closes_in_the_middle(ferry, hub, tmp_path):
    hub.hub.add(Fault(Answer(403, {"X-Error-Code": "GatedRepo"}), path="/resolve/", range=rf"^bytes={PART}-"))
    refused = ferry.ship()
    assert refused.code == 4, refused.talk
    assert f"{NAME} is gated" in refused.talk
    assert not ferry.has_mark()


def test_a_token_that_is_refused(ferry, hub):
    hub.private = True
    refused = ferry.ship()
    assert refused.code == 4, refused.talk
    assert "refused the token" in refused.talk


def test_without_a_token_what_is_private_is_not_there(ferry, hub):
    hub.private = True
    refused = ferry.ship(HF_TOKEN="", HUGGING_FACE_HUB_TOKEN="")
    assert refused.code == 2, refused.talk
    assert "HF_TOKEN" in refused.talk


def test_a_revision_that_is_not_there(ferry):
    refused = ferry.ship(revision="@v9")
    assert refused.code == 2
    assert f"{NAME} has no revision 'v9'" in refused.talk


@pytest.mark.parametrize("verb", ["ship", "fetch"])
def test_offline(ferry, hub, tmp_path, verb):
    offline = {"HF_HUB_OFFLINE": "1"}
    refused = ferry.ship(**offline) if verb == "ship" else ferry.fetch(tmp_path / "back", **offline)
    assert refused.code == 9, refused.talk
    assert "offline mode is on" in refused.talk
    assert hub.hub.requests == []
    assert not (tmp_path / "back").exists()


def test_a_page_where_a_file_should_be(ferry, hub):
    page = Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")
    hub.store.add(Fault(page, range=rf"^bytes=0-{PART - 1}$"))
    refused = ferry.ship()
    assert refused.code == 9, refused.talk
    assert "HF_ENDPOINT" in refused.talk
    assert not ferry.has_mark()


def test_pickles_only(berth, hub_of, s3, fault_proxy, own_source):
    """Nothing that an engine could load without running code: refused by name, before anything moves."""
    for path in own_source.glob("*.safetensors*"):
        path.unlink()
    store = Store(s3.server.endpoint, s3.server.keys.access_key, s3.server.keys.secret_key, s3.data)
    ferry = Ferry(berth, hub_of(own_source), store, fault_proxy(store.url))
    refused = ferry.ship()
    assert refused.code == 7, refused.talk
    assert ".pth is refused" in refused.talk or ".bin is refused" in refused.talk or ".py is refused" in refused.talk
    assert ferry.store.keys(ferry.bucket) == []

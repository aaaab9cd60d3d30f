"""Processes that never outlive us: the only module that starts any.

Every long-running child runs under a keeper (`modelberth.adapters.keeper`), a small process that holds the
reading end of a pipe to us. When we end, however we end, the pipe closes and the keeper stops the child and
everything the child started. Short commands (`run`) are waited for and killed with us by their process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from modelberth.adapters import keeper
from modelberth.base.errors import PrerequisiteMissing

OnLine = Callable[[str], None]
MAX_LINE = 64 * 1024
"""Longest line handed on, bytes; the rest of a longer one is dropped from the view, not from the log file."""


class Child:
    """A child process under its keeper.

    Its output goes to `log` as it is, and line by line to `on_line` on a thread of its own.
    """

    def __init__(self, process: subprocess.Popen[bytes], lifeline: int, reader: Thread) -> None:
        self._process = process
        self._lifeline: int | None = lifeline
        self._reader = reader

    @property
    def pid(self) -> int:
        """Process id of the keeper, whose end is the end of all below it."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code once everything has ended (negative for a signal), None before."""
        code = self._process.poll()
        return None if code is None else keeper.child_code(code)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end; None when `timeout` seconds pass first."""
        try:
            return keeper.child_code(self._process.wait(timeout))
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> int:
        """Ask the child to end, then end it and everything it started; returns its exit code."""
        self.release()
        code = self._process.wait()
        self._reader.join()
        return keeper.child_code(code)

    def release(self) -> None:
        """Begin to stop, without waiting: the keeper sees the pipe close."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def start(
    command: Sequence[str],
    *,
    log: Path,
    on_line: OnLine,
    environment: Mapping[str, str] | None = None,
    scratch: Path | None = None,
    grace: float = 3.0,
) -> Child:
    """Start a child that lives no longer than we do.

    Args:
        command: program and arguments; no shell.
        log: file that takes its output, both streams.
        on_line: called with every line, on another thread.
        environment: the child's whole environment; ours when None.
        scratch: a folder that the keeper removes at the end, whoever ends first.
        grace: seconds that the child, and then all below it, has to end before it is killed.

    A program that cannot be started ends with exit code 127 and says why in its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    arguments = keeper.command(command, lifeline=reading, scratch=scratch, grace=grace)
    try:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(environment) if environment is not None else None, pass_fds=(reading,),
            start_new_session=True,  # Ctrl-C reaches us alone; we stop the children in order
        )  # fmt: skip
    except OSError:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    reader = Thread(target=_copy, args=(process, log, on_line), name=f"log of {log.name}", daemon=True)
    reader.start()
    return Child(process, writing, reader)


def _copy(process: subprocess.Popen[bytes], log: Path, on_line: OnLine) -> None:
    """Copy output to the log file and to the listener until the last writer closes it."""
    stream = process.stdout
    if stream is None:  # never: it was opened with PIPE
        return
    with stream, contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(log.open("ab", buffering=0))
        except OSError:
            file = None
        rest = b""
        while chunk := os.read(stream.fileno(), MAX_LINE):
            if file:
                try:
                    file.write(chunk)
                except OSError:
                    file = None  # a full disk must not stop the engine; the lines still reach the listener
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                on_line(line[:MAX_LINE].decode("utf-8", "replace"))
            rest = rest[:MAX_LINE]
        if rest:
            on_line(rest.decode("utf-8", "replace"))


def run(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, on_line: OnLine | None = None,
    given: str = "",
) -> tuple[int, str]:  # fmt: skip
    """Run a command to its end and return its exit code and its output, both streams together.

    An exception in between, Ctrl-C among them, ends the whole process group. `given` is what the command reads, at
    most a few KB.

    Raises:
        PrerequisiteMissing: the program is not there, or is none.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE if given else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=dict(environment) if environment is not None else None,
            start_new_session=True, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise PrerequisiteMissing(f"{command[0]} cannot be started", why=why) from error
    try:
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it does not read
                process.stdin.write(given)
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for line in process.stdout or ():
            lines.append(line)
            if on_line:
                on_line(line.rstrip("\n"))
        return process.wait(), "".join(lines)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout:
            process.stdout.close()


def python() -> str:
    """The interpreter that runs us."""
    return sys.executable


@dataclass(frozen=True)
class Outcome:
    """How a command ended. Its text form shows no output, which may hold secrets.

    Attributes:
        code: exit code; negative for a signal.
        output: its standard output.
        error: its standard error, as text.
        timed_out: whether it was killed because it took too long.
    """

    code: int
    output: bytes
    error: str
    timed_out: bool = False

    def __repr__(self) -> str:
        """Without output."""
        return f"Outcome(code={self.code}, timed_out={self.timed_out})"


def run_within(seconds: float, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a command that reads nothing and must end within `seconds`; its whole group is killed when it does not.

    Raises:
        PrerequisiteMissing: the program is not there, or is none.
    """
    try:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=dict(environment) if environment is not None else None, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise PrerequisiteMissing(f"{command[0]} cannot be started", why=why) from error
    timed_out = False
    try:
        output, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
        _kill_group(process)
        output, said = process.communicate()
    finally:
        if process.poll() is None:
            _kill_group(process)
            process.wait()
    return Outcome(process.returncode, output, said.decode(errors="replace"), timed_out)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

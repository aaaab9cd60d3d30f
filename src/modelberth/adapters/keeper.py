"""The keeper: a small process between us and a long-running child. Standard library only; it runs by file name.

It starts the child, waits for the first of two ends, and then leaves nothing behind:
- the child ends by itself: the keeper ends whatever the child left running, and passes its exit code on;
- its pipe to us closes, because we are done or were killed: SIGTERM to the child, after `grace` seconds
  SIGKILL to the child and all of its descendants.

On Linux it makes itself the reaper of orphans (PR_SET_CHILD_SUBREAPER), so grandchildren whose parent died
come to it and cannot escape, not even by starting a session of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_SIGNALLED = 128
_DRAIN_SECONDS = 3.0


def command(child: Sequence[str], *, lifeline: int, scratch: Path | None, grace: float) -> list[str]:
    """The command line that runs `child` under a keeper.

    Args:
        child: program and arguments.
        lifeline: descriptor of a pipe's reading end; when the writing end closes, the keeper stops the child.
        scratch: folder to remove at the end.
        grace: seconds from SIGTERM to SIGKILL.
    """
    # -I -S: neither the user's environment nor site-packages slow or change this start.
    keeper = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*keeper, str(lifeline), str(grace), str(scratch or ""), *child]


def child_code(code: int) -> int:
    """The child's own exit code from the keeper's: negative for a signal, as subprocess says it."""
    return _SIGNALLED - code if code > _SIGNALLED else code


def main(arguments: Sequence[str]) -> int:
    """Keep one child; returns its exit code, 128 + n for a signal."""
    lifeline, grace, scratch, *child = arguments
    _become_subreaper()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe alone says when to stop
    try:
        process = subprocess.Popen(child, start_new_session=True, preexec_fn=_default_signals)
    except OSError as error:
        os.write(1, f"{child[0]}: {error.strerror}\n".encode())  # into the child's log
        return 127
    _close_output()
    try:
        if not _wait_for_end(process, int(lifeline)):
            _terminate(process, float(grace))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        _drain(_DRAIN_SECONDS)
        _kill_descendants()
        return process.returncode if process.returncode >= 0 else _SIGNALLED - process.returncode
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _close_output() -> None:
    """Only the child holds the log pipe, so that its reader sees the end when the child's last process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _wait_for_end(process: subprocess.Popen[bytes], lifeline: int) -> bool:
    """Wait; True when the child ended, False when the pipe closed first."""
    ended = _end_descriptor(process.pid)
    poller = select.poll()
    poller.register(lifeline, select.POLLIN | select.POLLHUP)
    if ended is not None:
        poller.register(ended, select.POLLIN)
    # Without pidfd (not Linux) the child's end is looked for four times a second.
    while process.poll() is None:
        ready = {descriptor for descriptor, _ in poller.poll(None if ended is not None else 250)}
        if lifeline in ready and ended not in ready:
            return False
    return True


def _end_descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends, where the system has such a thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _terminate(process: subprocess.Popen[bytes], grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _drain(patience: float) -> None:
    """Let what is left end by itself (resource trackers remove shared memory then), reaping as it does."""
    deadline = time.monotonic() + patience
    while _children():
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        signal.sigtimedwait({signal.SIGCHLD}, remaining)
        _reap()


def _kill_descendants() -> None:
    """Kill what is still below us, in rounds: the end of a parent hands its children to us."""
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _children() -> list[int]:
    """Our direct children, zombies included, from /proc; empty where there is no /proc."""
    pid, found = os.getpid(), []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            status = entry.read_text()
        except OSError:
            continue
        # The command name stands in brackets and may hold anything, so split after the last one.
        if int(status.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry.parent.name))
    return found


def _become_subreaper() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

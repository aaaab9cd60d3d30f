"""The keeper: a small process between us and a long-running child. Standard library only; it runs by file name.

It starts the child, waits for the first of two ends, and then leaves nothing behind:
- the child ends by itself: the keeper ends whatever the child left running, and passes its exit code on;
- its pipe to us closes, because we are done or were killed: the keeper asks the child to end, then everything
  below it, then kills what is left.

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
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALLED = 128
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_SECONDS = 0.25
"""Without pidfd (not Linux) the child's end is looked for this often."""


def command(child: Sequence[str], *, lifeline: int, scratch: Path | None, grace: float) -> list[str]:
    """The command line that runs `child` under a keeper.

    Args:
        child: program and arguments.
        lifeline: descriptor of a pipe's reading end; when the writing end closes, the keeper stops the child.
        scratch: folder to remove at the end.
        grace: seconds that the child, and then everything below it, has to end after it was asked to.
    """
    # -I -S: neither the user's environment nor site-packages slow or change this start.
    keeper = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*keeper, str(lifeline), str(grace), str(scratch or ""), *child]


def child_code(code: int) -> int:
    """The child's own exit code from the keeper's: negative for a signal, as subprocess says it.

    Codes that no signal has, such as the 255 of `exit(-1)`, stay what they are.
    """
    return _SIGNALLED - code if code - _SIGNALLED in signal.valid_signals() else code


class _Keeper:
    """One child and everything below it."""

    def __init__(self, child: Sequence[str]) -> None:
        # Popen only starts it: whoever reaps orphans must reap the child as well, or lose its exit code. It is
        # kept, because a Popen that is thrown away reaps a child that has ended by then.
        self._process = subprocess.Popen(child, start_new_session=True, preexec_fn=_default_signals)
        self._pid = self._process.pid
        self.code: int | None = None

    def wait(self, lifeline: int) -> None:
        """Wait until the child has ended or the pipe has closed."""
        poller = select.poll()
        poller.register(lifeline, select.POLLIN | select.POLLHUP)
        ended = _end_descriptor(self._pid)
        if ended is not None:
            poller.register(ended, select.POLLIN)
        while self.code is None:
            ready = {descriptor for descriptor, _ in poller.poll(None if ended is not None else _LOOK_SECONDS * 1000)}
            self._reap()
            if lifeline in ready:
                return

    def stop(self, grace: float) -> None:
        """End what still runs: ask the child, ask everything, kill everything.

        Python's resource trackers are killed last of all: they see the end of the processes that they track,
        and then remove the shared memory that these left.
        """
        if self.code is None:
            _send([self._pid], signal.SIGTERM)
            self._wait_until(lambda: self.code is not None, grace)
        _send(_descendants(), signal.SIGTERM)
        self._wait_until(_nobody_left, grace)
        _send([pid for pid in _descendants() if not _is_tracker(pid)], signal.SIGKILL)
        self._wait_until(_nobody_left, grace)
        while left := _descendants():
            _send(left, signal.SIGKILL)
            self._wait_until(_nobody_left, _LOOK_SECONDS)

    def _wait_until(self, done: Callable[[], bool], patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            self._reap()
            remaining = deadline - time.monotonic()
            if remaining <= 0 or done():
                self._reap()  # whoever ended between the two looks
                return
            # Blocked since before the child was started, so none is missed between the look and the wait.
            signal.sigtimedwait({signal.SIGCHLD}, remaining)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self.code = os.waitstatus_to_exitcode(status)


def main(arguments: Sequence[str]) -> int:
    """Keep one child; returns its exit code, 128 + n for a signal."""
    lifeline, grace, scratch, *child = arguments
    _become_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)  # the pipe alone says when to stop
    try:
        try:
            keeper = _Keeper(child)
        except OSError as error:
            os.write(1, f"{child[0]}: {error.strerror}\n".encode())  # into the child's log
            return 127
        _close_output()
        keeper.wait(int(lifeline))
        keeper.stop(float(grace))
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    code = keeper.code or 0
    return code if code >= 0 else _SIGNALLED - code


def _default_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    if sys.platform == "linux":  # should the keeper itself be killed, its child is at least asked to end
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _close_output() -> None:
    """Only the child holds the log pipe: its reader sees the end when the last process below has ended."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _end_descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends, where the system has such a thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Everything that runs below us, from /proc; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            status = entry.read_text(errors="replace")
        except OSError:
            continue  # it has just ended
        # The command name stands in brackets and may hold anything, so split after the last one.
        state, parent = status.rpartition(")")[2].split()[:2]
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _nobody_left() -> bool:
    return not _descendants()


def _is_tracker(pid: int) -> bool:
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _become_subreaper() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A program on a terminal: a real pseudo-terminal, what it shows as it comes, and keys."""

from __future__ import annotations

import os
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread

PATIENCE = 50.0


class Terminal:
    """A program whose three streams are one terminal, of which it is the leader: Ctrl-C reaches it as from a keyboard.

    Attributes:
        process: the program.
    """

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        self._shown, self._changed, self._over = "", Condition(), False
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_lead,
            env={**(environment or dict(os.environ)), "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the last one who had it open has gone
            while piece := os.read(self._ours, 65536):
                with self._changed:
                    self._shown += piece.decode(errors="replace")
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait_for(self, *texts: str) -> str:
        """Wait until all of it has been shown; returns what was, and forgets it."""
        with self._changed:
            come = self._changed.wait_for(lambda: self._over or all(each in self._shown for each in texts), PATIENCE)
            assert come, f"{texts} never came: {self._shown}"
            assert all(each in self._shown for each in texts), f"it ended without {texts}: {self._shown}"
            shown, self._shown = self._shown, ""
            return shown

    def type(self, text: str) -> None:
        """Keys; `\\x03` is Ctrl-C."""
        os.write(self._ours, text.encode())

    def ends(self) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        return code

    def close(self) -> None:
        """End it, if it has not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


def _lead() -> None:
    """Make the terminal the one that signals come from."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

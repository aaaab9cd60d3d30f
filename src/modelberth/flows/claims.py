"""Who ships to an S3 prefix: one at a time, on stores that know no locks and no conditional writes.

Everybody who wants to ship writes a claim, an object of its own, and then looks at the others. Since stores show every
write that was answered, of two who want at the same time at least one sees the other: the smaller name stays, the other
withdraws. Who has looked and stayed says so (`holding`); who sees that withdraws. A claim is renewed as long as its
ship lives. One that was not renewed for a while, by the store's own clock, is dead; so is one of a process of this
machine that has ended, which is how a ship goes on at once after a kill.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import BerthError, Conflict
from modelberth.base.text import printable, shorten

CLAIM_PREFIX = ".modelberth/claim-"
_MAX_BYTES = 4096
_RENEW_SECONDS = 10.0
_DEAD_AFTER = timedelta(seconds=60)
_LOOK_SECONDS, _LOOKS = 0.5, 20


def is_beside(path: str) -> bool:
    """Whether an object below a prefix is no file of a delivery: a claim, or a folder that a console has drawn."""
    return path.startswith(CLAIM_PREFIX) or path.endswith("/") or not path


class Claim:
    """The right to ship to a prefix, held."""

    def __init__(self, store: S3Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._name = uuid.uuid4().hex
        self.key = f"{prefix}{CLAIM_PREFIX}{self._name}.json"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)

    def take(self) -> None:
        """Take the right, or leave everything as it was.

        Raises:
            Conflict: somebody else ships there.
        """
        try:
            self._write("wanting")
            for _ in range(_LOOKS):
                others = self._others()
                holder = next((said for said in others.values() if said.get("state") == "holding"), None)
                if holder is not None or any(name < self._name for name in others):
                    raise self._refused(holder or next(iter(others.values())))
                if not others:
                    break
                self._ended.wait(_LOOK_SECONDS)  # a larger name withdraws once it has seen ours
            else:
                raise self._refused(next(iter(others.values())))
            self._write("holding")
        except BaseException:
            self.release()
            raise
        self._thread.start()

    def require(self) -> None:
        """Make sure that the right was not lost on the way.

        Raises:
            Conflict: another ship took this one for dead.
        """
        if self._store.read(self.key, _MAX_BYTES) is None:
            raise Conflict(
                "another ship took over", where=self._where, why="this one had not renewed its claim for a minute",
                next_step="run it again once the other one is done",
            )  # fmt: skip

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(BerthError):  # it dies by itself
            self._store.delete(self.key)

    @property
    def _where(self) -> str:
        return f"{self._store.where} prefix {self._prefix}"

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            with suppress(BerthError):  # `require` tells when it was for too long
                if self._store.read(self.key, _MAX_BYTES) is not None:
                    self._write("holding")

    def _write(self, state: str) -> None:
        self._store.put(self.key, json.dumps({"state": state, **_myself()}).encode())

    def _others(self) -> dict[str, dict[str, Any]]:
        """Claims of others that live, by name; dead ones are removed."""
        listing = self._store.listing(f"{self._prefix}{CLAIM_PREFIX.rpartition('/')[0]}/")
        found: dict[str, dict[str, Any]] = {}
        for key in listing.sizes:
            if not key.removeprefix(self._prefix).startswith(CLAIM_PREFIX) or key == self.key:
                continue
            said = self._read(key)
            if said is None:
                continue  # withdrawn meanwhile
            if listing.now - listing.modified[key] > _DEAD_AFTER or _has_ended(said):
                self._store.delete(key)
                continue
            found[key.rpartition("/")[2].removeprefix("claim-").removesuffix(".json")] = said
        return found

    def _read(self, key: str) -> dict[str, Any] | None:
        content = self._store.read(key, _MAX_BYTES)
        if content is None:
            return None
        try:
            said = json.loads(content)
        except ValueError:
            said = {}
        return said if isinstance(said, dict) else {}

    def _refused(self, holder: dict[str, Any]) -> Conflict:
        host = shorten(printable(str(holder.get("host", "unknown"))), 80)
        return Conflict(
            "another ship to this destination is under way", where=self._where,
            why=f"by process {holder.get('pid', '?')} on {host}; nothing was changed",
            next_step="wait for it; a ship that was killed elsewhere is forgotten after a minute",
        )  # fmt: skip


@contextmanager
def claimed(store: S3Store, prefix: str) -> Iterator[Claim]:
    """Hold the right to ship to a prefix as long as the block runs.

    Raises:
        Conflict: somebody else ships there; nothing was changed.
    """
    claim = Claim(store, prefix)
    claim.take()
    try:
        yield claim
    finally:
        claim.release()


def _myself() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "start": _start_of(os.getpid()), **_machine()}


def _machine() -> dict[str, str]:
    """What tells this machine, since its last start, and this space of process ids from others."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return {"boot": boot, "space": space}


def _start_of(pid: int) -> str:
    """When a process began, in ticks since the machine started; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _has_ended(said: dict[str, Any]) -> bool:
    """Whether a claim is of a process of this machine that is not there any more."""
    here = _machine()
    if not here["boot"] or {name: said.get(name) for name in here} != here:
        return False
    pid, start = said.get("pid"), said.get("start")
    return type(pid) is int and isinstance(start, str) and _start_of(pid) != start

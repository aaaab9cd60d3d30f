"""Files on this machine, written so that a crash leaves nothing half-named: `.part`, fsync, rename, fsync.

Shared by the adapters that keep files (model folders, OCI layouts, environments), as `processes` is by those
that start any.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from modelberth.base.errors import AuthError, BerthError, Conflict, DoesNotFit, UsageError
from modelberth.base.units import MIB, format_decimal

CHUNK_BYTES = 4 * MIB
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
OnBytes = Callable[[int], None]
"""Told how many bytes have just been read or written."""


def ignore_bytes(_count: int) -> None:
    """An `OnBytes` that does nothing."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors at a path into ours: no room, no permission, not there."""
    try:
        yield
    except BrokenPipeError:
        raise  # no disk: whoever read our output went away while we told of progress
    except OSError as error:
        raise _translated(error, path) from error


def _translated(error: OSError, path: Path) -> BerthError:
    if error.errno in _NO_ROOM:
        free = _free_bytes(path)
        why = f"{format_decimal(free)} free on that disk" if free is not None else "the disk or the quota is full"
        return DoesNotFit(
            "the disk is full",
            where=str(path),
            why=why,
            next_step="free space, or choose a folder on another disk (--state, --workspace)",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return AuthError("this may not be read or written", where=str(path), why=os.strerror(error.errno or 0))
    return UsageError("this cannot be read or written", where=str(path), why=os.strerror(error.errno or 0))


def _free_bytes(path: Path) -> int | None:
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def require_room(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DoesNotFit: fewer than `needed` bytes are free where `folder` is or will be.
    """
    free = _free_bytes(folder)
    if free is not None and free < needed:
        raise DoesNotFit(
            "there is not enough room on the disk",
            where=str(folder),
            why=f"{format_decimal(needed)} needed, {format_decimal(free)} free",
            next_step="free space, or choose a folder on another disk (--state, --workspace)",
        )


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when the block ends without an error.

    Raises:
        DoesNotFit: the disk is full; nothing of the file stays.
    """
    part = path.with_name(path.name + ".part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Write a small file atomically."""
    with writing(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Let the disk have the names of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder and everything in it; nothing happens where there is none."""
    with disk_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, holder: str = "") -> Iterator[None]:
    """Hold a lock file as long as the block runs. The system frees it when the process ends, however it ends.

    Who holds it may remove it.

    Raises:
        Conflict: somebody holds it and `wait` is false.
    """
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, kind)
            except BlockingIOError:
                raise Conflict(f"another run holds {holder or path.name}", where=str(path)) from None
            if _is_at(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still is what its path names; who held its lock before may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def open_pieces(path: Path, offset: int, length: int, buffer: memoryview) -> Iterator[memoryview]:
    """A range of a file, a buffer at a time. Fewer bytes come when the file is shorter."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while length:
            count = file.readinto(buffer[: min(len(buffer), length)])
            if not count:
                return
            length -= count
            yield buffer[:count]

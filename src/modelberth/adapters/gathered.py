"""A must-gather or `oc adm inspect` folder, or a tar of one, walked file by file. Nothing is extracted.

Names in an archive are data: what leads out of it (`..`, absolute), links and special files are left out and named.
An archive that ends early is read as far as it goes. One that unpacks to more than a gathering ever holds is refused.
"""

from __future__ import annotations

import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from modelberth.base.errors import AuthError, IntegrityError, PrerequisiteMissing, UsageError
from modelberth.base.text import printable, shorten

MAX_FILES = 500_000
MAX_BYTES = 32 << 30
"""Unpacked; a must-gather of a large cluster has some GiB."""
MAX_RATIO = 300
"""Unpacked to packed, past the first GiB: logs pack 10 to 30 times, a bomb a thousand times."""
_FREE_BYTES = 1 << 30
_BLOCK = 1 << 20
_DAMAGED = (tarfile.ReadError, EOFError, zlib.error, LZMAError)


class Readable(Protocol):
    """What a file's content is read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, often fewer; b"" at the end."""


@dataclass(frozen=True)
class GatheredFile:
    """One file.

    Attributes:
        path: inside of the gathering, with slashes.
        size: bytes, as the archive or the folder says.
        content: to be read before the next file is asked for.
    """

    path: str
    size: int
    content: Readable


class Gathering:
    """The files of a folder or an archive.

    Attributes:
        notes: what was left out, and why; complete once `files` has ended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []

    def files(self) -> Iterator[GatheredFile]:
        """Every plain file, in the order of the archive, or of the names in a folder.

        Raises:
            UsageError: there is neither a folder nor an archive at the path.
            AuthError: it may not be read.
            IntegrityError: the archive is a bomb.
        """
        try:
            mode = self._path.stat().st_mode
        except OSError as error:
            raise _unreadable(self._path, error) from error
        return self._in_folder() if stat.S_ISDIR(mode) else self._in_archive()

    def _in_folder(self) -> Iterator[GatheredFile]:
        left_out = _LeftOut()
        count = 0
        for path in sorted(self._path.rglob("*")):
            inside = path.relative_to(self._path).as_posix()
            try:
                about = path.lstat()
                if stat.S_ISDIR(about.st_mode):
                    continue
                if not stat.S_ISREG(about.st_mode):
                    left_out.add(inside)
                    continue
                _check_count(count := count + 1, self._path)
                with path.open("rb") as content:
                    yield GatheredFile(inside, about.st_size, content)
            except OSError as error:
                self.notes.append(f"{shorten(printable(inside), 200)} cannot be read: {error.strerror}")
        self.notes += left_out.notes()

    def _in_archive(self) -> Iterator[GatheredFile]:
        left_out = _LeftOut()
        try:
            with self._path.open("rb") as packed, _opened(packed, self._path) as archive:
                yield from self._members(archive, packed, left_out)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        self.notes += left_out.notes()

    def _members(self, archive: tarfile.TarFile, packed: IO[bytes], left_out: _LeftOut) -> Iterator[GatheredFile]:
        count = 0
        try:
            for member in archive:
                _check_count(count := count + 1, self._path)
                content = archive.extractfile(member) if member.isfile() and _is_inside(member.name) else None
                if content is not None:
                    guarded = _Guarded(content, archive, packed, self._path)
                    yield GatheredFile(member.name.removeprefix("./"), member.size, guarded)
                    if guarded.damaged:
                        raise EOFError
                elif not member.isdir():
                    left_out.add(member.name)
                # tarfile keeps every member that it has seen; a gathering has hundreds of thousands.
                archive.members = []  # type: ignore[attr-defined]
            # A whole archive ends with two empty blocks, of which tarfile reads one.
            if not archive.fileobj.read(1):
                raise EOFError
        except _DAMAGED:
            self.notes.append(f"the archive ends early or is damaged after {count:,} entries; read up to there")


@contextmanager
def _opened(packed: IO[bytes], path: Path) -> Iterator[tarfile.TarFile]:
    try:
        archive = tarfile.open(fileobj=packed, mode="r|*", bufsize=_BLOCK)  # noqa: SIM115 - closed by the block below
    except _DAMAGED as error:
        raise UsageError(
            "that is no folder and no tar archive", where=str(path), why=shorten(printable(str(error)), 200),
            next_step="give the folder that oc adm must-gather wrote, or a .tar, .tar.gz or .tar.xz of it",
        ) from error  # fmt: skip
    except tarfile.CompressionError as error:
        raise PrerequisiteMissing("this Python cannot unpack the archive", where=str(path), why=str(error)) from error
    with archive:
        yield archive


class _LeftOut:
    """Names that are not read, counted, the first few kept."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def add(self, name: str) -> None:
        self._count += 1
        if len(self._first) < 3:
            self._first.append(shorten(printable(name), 100))

    def notes(self) -> list[str]:
        if not self._count:
            return []
        more = ", ..." if self._count > len(self._first) else ""
        return [
            f"left out {self._count:,} links, special files and names that lead out: {', '.join(self._first)}{more}"
        ]


class _Guarded:
    """The content of one member; counts what has been unpacked so far."""

    def __init__(self, content: IO[bytes], archive: tarfile.TarFile, packed: IO[bytes], path: Path) -> None:
        self._content, self._archive, self._packed, self._path = content, archive, packed, path
        self.damaged = False

    def read(self, size: int, /) -> bytes:
        """As of a file.

        Raises:
            IntegrityError: more has been unpacked than any gathering holds.
        """
        try:
            chunk = self._content.read(min(size, _BLOCK))
        except _DAMAGED:
            self.damaged = True
            return b""
        self._check()
        return chunk

    def _check(self) -> None:
        unpacked = self._archive.offset
        packed = max(1, self._packed.tell())
        if unpacked > MAX_BYTES or (unpacked > _FREE_BYTES and unpacked > MAX_RATIO * packed):
            raise IntegrityError(
                "the archive unpacks to more than any gathering holds", where=str(self._path),
                why=f"{unpacked:,} bytes out of {packed:,}", next_step="unpack it with care, and give the folder",
            )  # fmt: skip


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _check_count(count: int, path: Path) -> None:
    if count > MAX_FILES:
        raise IntegrityError(
            f"more than {MAX_FILES:,} files", where=str(path), next_step="give the folder of one namespace"
        )


def _unreadable(path: Path, error: OSError) -> UsageError | AuthError:
    if isinstance(error, PermissionError):
        return AuthError("it may not be read", where=str(path), why=error.strerror or "")
    return UsageError("it cannot be read", where=str(path), why=error.strerror or str(error))

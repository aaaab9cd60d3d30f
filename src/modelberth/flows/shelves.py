"""Shelves: the files of one model as something that lists them and reads ranges, whichever store they are in.

A folder of this machine and a prefix of an S3 bucket are here; a repository of the Hub is one as its adapter makes it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelberth.adapters.files import disk_errors
from modelberth.base.errors import BerthError, IntegrityError, UsageError
from modelberth.base.text import nearest
from modelberth.checkpoint.config import CONFIG_NAME
from modelberth.spec.addresses import S3Address

if TYPE_CHECKING:
    from modelberth.adapters.s3 import S3Store
    from modelberth.flows.origins import Origin

MAX_FILES = 10_000
"""Files below a folder or prefix beyond which it is not one model."""


class Shelf(Protocol):
    """The files of one model, wherever they are. Ranges may be read by several threads at a time."""

    @property
    def transferred(self) -> int:
        """Bytes read from a remote so far."""

    def sizes(self) -> Mapping[str, int]:
        """Sizes in bytes by path, `/` between parts. Called once, before anything is read."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Exactly these bytes of a listed file, or an IntegrityError."""


class FolderShelf:
    """A folder of this machine, or some files of one. Links are followed to files, not to folders."""

    transferred = 0

    def __init__(self, folder: Path, names: tuple[str, ...] | None = None) -> None:
        self._folder = folder
        self._names = names

    def sizes(self) -> dict[str, int]:
        """Sizes of the regular files.

        Raises:
            UsageError: more files than one model has, or an unreadable folder.
        """
        found: dict[str, int] = {}
        with disk_errors(self._folder):
            for name in self._walk() if self._names is None else self._names:
                try:
                    status = (self._folder / name).stat()
                except (FileNotFoundError, NotADirectoryError):
                    continue  # a link to nothing; where it is missed, that is said
                if stat.S_ISREG(status.st_mode):
                    found[name] = status.st_size
                if len(found) > MAX_FILES:
                    raise UsageError(
                        f"there are more than {MAX_FILES:,} files below this folder",
                        where=str(self._folder),
                        next_step="give the folder of one model",
                    )
        return found

    def _walk(self) -> Iterator[str]:
        for parent, folders, names in os.walk(self._folder, onerror=_raise):
            folders.sort()
            for name in names:
                yield (Path(parent) / name).relative_to(self._folder).as_posix()

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Exactly these bytes, or an IntegrityError."""
        file_path = self._folder / path
        with disk_errors(file_path), file_path.open("rb") as file:
            file.seek(offset)
            content = file.read(length)
        if len(content) != length:
            raise IntegrityError("the file became shorter while it was read", where=str(file_path))
        return content


class OriginShelf:
    """The files of a delivery: of an image, or of anything else that is an origin."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._lock = threading.Lock()
        self.transferred = 0

    def sizes(self) -> dict[str, int]:
        """Sizes by the manifest of files."""
        return {entry.path: entry.size for entry in self._origin.files}

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Exactly these bytes, or an IntegrityError."""
        content = bytearray()

        def take(chunk: memoryview) -> None:
            content.extend(chunk)
            with self._lock:
                self.transferred += len(chunk)

        self._origin.read(path, offset, length, take)
        return bytes(content)


def _raise(error: OSError) -> None:
    raise error


class BucketShelf:
    """A prefix of an S3 bucket."""

    def __init__(self, store: S3Store, address: S3Address) -> None:
        self._store = store
        self._address = address
        self._lock = threading.Lock()
        self.transferred = 0

    def sizes(self) -> dict[str, int]:
        """Sizes of the objects.

        Raises:
            UsageError: no such bucket, nothing below the prefix, or more than one model has.
        """
        prefix = self._address.prefix
        found = self._store.sizes(prefix, MAX_FILES)
        if not found:
            raise self._nothing()
        return {key.removeprefix(prefix): size for key, size in found.items() if not key.endswith("/")}

    def _nothing(self) -> UsageError:
        near = None
        try:
            everything = self._store.sizes("", MAX_FILES)
        except BerthError:  # we may not list more, or it is too much: then there is no hint
            everything = {}
        models = {key.removesuffix(CONFIG_NAME) for key in everything if key.endswith("/" + CONFIG_NAME)}
        if self._address.prefix.rstrip("/") in everything:  # an object, config.json perhaps
            near = self._address.prefix.rstrip("/").rpartition("/")[0] + "/"
        near = near or nearest(self._address.prefix, models)
        step = f"did you mean 's3://{self._address.bucket}/{near}'?" if near else "correct the prefix"
        return UsageError("there are no objects below this prefix", where=str(self._address), next_step=step)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Exactly these bytes, or an IntegrityError."""
        content = bytearray()

        def take(chunk: memoryview) -> None:
            content.extend(chunk)
            with self._lock:
                self.transferred += len(chunk)

        self._store.get_range(self._address.key(path), offset, length, take)
        return bytes(content)

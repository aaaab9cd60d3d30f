"""Model folders on this machine: which files they hold, what their headers say, and the hashes of all bytes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from modelberth.adapters.files import OnBytes, disk_errors, ignore_bytes, locked, write_file
from modelberth.adapters.hashing import PartHasher
from modelberth.base.errors import BerthError, IntegrityError, UsageError
from modelberth.checkpoint import safetensors
from modelberth.checkpoint.config import CONFIG_NAME
from modelberth.checkpoint.folder import Checkpoint, check_folder, is_weights, model_files
from modelberth.delivery.manifest import MANIFEST_PATH, PART_BYTES, FileEntry, FileManifest, parse_manifest

_BUFFER_BYTES = 256 << 10


def list_files(folder: Path) -> tuple[str, ...]:
    """Paths of all regular files below a folder, relative, `/` between parts, sorted.

    Links to files inside the folder count as files; a link that leads out of it is refused, except into the
    folder's own Hub cache layout (`blobs/` beside `snapshots/`).

    Raises:
        UsageError: no folder there.
        IntegrityError: a link leads out, or something is neither file nor folder.
    """
    if not folder.is_dir():
        raise UsageError(
            "there is no such folder",
            where=str(folder),
            next_step="give the folder that has config.json in it",
        )
    root = folder.resolve()
    found: list[str] = []
    with disk_errors(folder):
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]:
                path = Path(parent) / name
                _check_link(path, root)
                found.append(path.relative_to(folder).as_posix())
    return tuple(sorted(found))


def _check_link(path: Path, root: Path) -> None:
    target = Path(os.path.realpath(path))  # unlike Path.resolve, no error of its own where links go in a circle
    if path.is_symlink() and not (target.is_relative_to(root) or target.is_relative_to(root.parent.parent / "blobs")):
        raise IntegrityError(
            "a link leads out of the folder",
            where=str(path),
            why="only files inside the folder are delivered",
        )
    if not target.is_file():
        raise IntegrityError(
            "this is not a file",
            where=str(path),
            why="links to folders, sockets and devices are not delivered",
        )


def read_checkpoint(
    folder: Path, *, exclude: tuple[str, ...] = (), allow_pickle: bool = False
) -> tuple[tuple[str, ...], Checkpoint]:
    """The files to deliver of a model folder, and what its config, headers and index say.

    Only headers are read, so a 48 GB model takes milliseconds.

    Args:
        folder: of the model.
        exclude: shell patterns of paths that stay behind.
        allow_pickle: let pickles pass.

    Raises:
        UsageError: config.json does not describe a model.
        IntegrityError: refused files, a lying header or index, no config, no weights.
    """
    paths = model_files(without(list_files(folder), exclude), allow_pickle=allow_pickle)
    with disk_errors(folder):
        headers = {path: _header(folder / path, path) for path in paths if is_weights(path)}
        config = (folder / CONFIG_NAME).read_bytes() if CONFIG_NAME in paths else None
        index = (folder / safetensors.INDEX_NAME).read_bytes() if safetensors.INDEX_NAME in paths else None
    try:
        return paths, check_folder(paths, config, headers, index)
    except (IntegrityError, UsageError) as error:
        error.where = str(folder / error.where) if error.where else str(folder)
        raise


def without(paths: Iterable[str], exclude: tuple[str, ...]) -> list[str]:
    """The paths that no shell pattern matches, neither as a whole nor by their name or folder."""
    return [path for path in paths if not any(_matches(path, pattern) for pattern in exclude)]


def _matches(path: str, pattern: str) -> bool:
    name = path.rpartition("/")[2]
    return fnmatchcase(path, pattern) or fnmatchcase(name, pattern) or path.startswith(pattern.rstrip("/") + "/")


def _header(path: Path, name: str) -> safetensors.Header:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = safetensors.header_length(file.read(safetensors.LENGTH_BYTES), size, name)
            return safetensors.parse_header(file.read(length), size, name)
    except IntegrityError as error:
        error.where = str(path)
        raise


def hash_file(path: Path, relative: str, on_bytes: OnBytes = ignore_bytes, part_bytes: int = PART_BYTES) -> FileEntry:
    """Read a file once for its SHA-256 and the CRC-64/NVME of every part.

    Raises:
        IntegrityError: it changed while it was read.
    """
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with disk_errors(path), path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        hasher = PartHasher(part_bytes)
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            on_bytes(count)
            if hasher.size > before.st_size:
                break  # it grows, perhaps faster than it can be read
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise IntegrityError(
            "the file changed while it was read", where=str(path), next_step="wait for its writer to finish"
        )
    return hasher.entry(relative)


def read_manifest(folder: Path) -> FileManifest | None:
    """The manifest of a delivered folder; None where there is none, so it is not complete."""
    path = folder / MANIFEST_PATH
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse_manifest(content, str(path))


class HashCache:
    """File entries by path, size, modification time and inode, kept in one JSON file that several runs share.

    As git does, a file is trusted only if it was not modified around the time it was hashed: a change in the
    same tick of the clock would otherwise go unseen.
    """

    _SETTLED_NS = 2_000_000_000

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._load()
        self._new: dict[str, dict[str, object]] = {}
        self._lock = threading.Lock()

    def _load(self) -> dict[str, dict[str, object]]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def entry(
        self, path: Path, relative: str, on_bytes: OnBytes = ignore_bytes, part_bytes: int = PART_BYTES
    ) -> FileEntry:
        """The entry of a file, hashed now or known from before. Several threads may ask at a time."""
        with disk_errors(path):
            key, stamp = str(path.resolve()), file_stamp(path)
        known = _known_entry(self._known.get(key), stamp, relative, part_bytes)
        if known:
            on_bytes(known.size)
            return known
        entry = hash_file(path, relative, on_bytes, part_bytes)
        self.learn(path, entry, stamp, part_bytes)
        return entry

    def digest(self, path: Path, purpose: str, compute: Callable[[], str]) -> str:
        """A digest that was made from a file for a purpose, made now or known from before."""
        with disk_errors(path):
            key, stamp = f"{path.resolve()} {purpose}", file_stamp(path)
        match self._known.get(key):
            case {"stamp": found, "digest": str(digest)} if found == stamp:
                return digest
        digest = compute()
        with disk_errors(path):
            settled = time.time_ns() - path.stat().st_mtime_ns > self._SETTLED_NS and file_stamp(path) == stamp
        if settled:
            with self._lock:
                self._known[key] = self._new[key] = {"stamp": stamp, "digest": digest}
        return digest

    def learn(self, path: Path, entry: FileEntry, stamp: list[int], part_bytes: int) -> None:
        """Keep the entry of a file that had this stamp when its bytes were read, if the file has settled."""
        with disk_errors(path):
            settled = time.time_ns() - path.stat().st_mtime_ns > self._SETTLED_NS
            if not settled or file_stamp(path) != stamp:
                return
            key = str(path.resolve())
        with self._lock:
            self._known[key] = self._new[key] = {
                "stamp": stamp,
                "size": entry.size,
                "sha256": entry.sha256,
                "partBytes": part_bytes,
                "crc64nvme": list(entry.crc64nvme),
            }

    def save(self) -> None:
        """Keep what is new for the next run, beside what other runs have kept meanwhile."""
        if self._new:
            # Where nothing can be kept, a pod with a read-only root, the next run hashes again.
            with suppress(BerthError), locked(self._path.with_suffix(".lock")):
                write_file(self._path, json.dumps({**self._load(), **self._new}).encode())
            self._new = {}


def _known_entry(known: object, stamp: list[int], relative: str, part_bytes: int) -> FileEntry | None:
    """An entry of the cache, if it is one and the file has not changed since."""
    match known:
        case {
            "stamp": found, "size": int(size), "sha256": str(sha256), "partBytes": parts, "crc64nvme": [*crcs],
        } if found == stamp and parts == part_bytes:  # fmt: skip
            return FileEntry(relative, size, sha256, tuple(str(crc) for crc in crcs))
    return None


def file_stamp(path: Path) -> list[int]:
    """What changes when a file's bytes do: size, modification time, inode, time of the last change of it."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]

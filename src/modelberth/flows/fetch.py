"""Fetching: weights into a folder, every byte checked before a file has its name.

A folder is complete when it holds the manifest of files; it is written last. Until then files are called `.part`, and
a run after a kill, of this process or of the machine, fetches only the parts that are missing or wrong. No file gets
its name before all of them are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from modelberth.adapters.files import OnBytes, disk_errors, locked, require_room, write_file, writing
from modelberth.adapters.folder import HashCache, file_stamp, list_files, read_manifest
from modelberth.base.errors import BerthError, Conflict, DoesNotFit, IntegrityError
from modelberth.base.units import format_decimal
from modelberth.delivery.journal import SentPart, begun_line, part_line, read_journal
from modelberth.delivery.manifest import (
    BEGUN_PATH,
    MANIFEST_PATH,
    OWN_FOLDER,
    Begun,
    FileEntry,
    FileManifest,
    Part,
    parse_begun,
)
from modelberth.flows.arrivals import Arrival
from modelberth.flows.origins import Origin, is_known
from modelberth.flows.parallel import Task, run_parallel
from modelberth.flows.progress import OnFile, ignore_file

JOURNAL_PATH = f"{OWN_FOLDER}journal.jsonl"
LOCK_PATH = f"{OWN_FOLDER}lock"
CONNECTIONS = 4
_MARGIN = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """What fetching did.

    Attributes:
        manifest: of the files that are now there.
        changed: False when everything was there already.
        bytes_moved: bytes received.
    """

    manifest: FileManifest
    changed: bool
    bytes_moved: int


def fetch_to_folder(
    origin: Origin, folder: Path, cache: HashCache, on_bytes: OnBytes, connections: int = CONNECTIONS,
    on_file: OnFile = ignore_file,
) -> Fetched:  # fmt: skip
    """Bring all files of an origin into a folder, the manifest last.

    Args:
        origin: where they come from; closed when something fails.
        folder: made where there is none. It may hold an earlier delivery, or the beginning of this one, nothing else.
        cache: of hashes, for files that are there.
        on_bytes: told of every byte that is there or has come.
        connections: parts that are fetched at a time.
        on_file: told of every file that is complete.

    Raises:
        IntegrityError: bytes came wrong twice, or a file is not the one declared; no file has its name then.
        DoesNotFit: the disk is too small, or became full; nothing of this delivery stays then.
        Conflict: the folder holds other files, or another fetch into it is under way.
    """
    with folder_of_ours(folder):
        return _FolderFetch(origin, folder, cache, on_bytes, on_file).run(connections)


@contextmanager
def folder_of_ours(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is fetched into; what was made for it and stays empty goes with it."""
    made = not folder.exists()
    with disk_errors(folder):
        (folder / OWN_FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK_PATH, wait=False, holder="this folder: it is being fetched into"):
            try:
                yield
            finally:
                with suppress(OSError):
                    (folder / LOCK_PATH).unlink()  # only while we hold it: it may be another's
    finally:
        for place in (folder / OWN_FOLDER, folder) if made else (folder / OWN_FOLDER,):
            with suppress(OSError):  # only when nothing is in it
                place.rmdir()


class _FolderFetch:
    """One fetch into one folder, whose lock is held."""

    def __init__(self, origin: Origin, folder: Path, cache: HashCache, on_bytes: OnBytes, on_file: OnFile) -> None:
        self._origin, self._folder, self._cache = origin, folder, cache
        self._on_bytes, self._on_file = on_bytes, on_file
        self._arrivals: list[Arrival] = []
        self._there: list[FileEntry] = []
        self._moved = 0
        self._journal: BinaryIO | None = None

    def run(self, connections: int) -> Fetched:
        """Fetch what is missing."""
        ours = self._ours()
        known = FileManifest(self._origin.files, self._origin.part_bytes) if is_known(self._origin.files) else None
        if known is not None and is_complete(self._folder, known, self._cache):
            self._on_bytes(known.size)
            return Fetched(known, changed=False, bytes_moved=0)
        try:
            self._prepare(ours)
            run_parallel(self._next, min(connections, self._open_parts()), self._origin.stop)
            return self._settle()
        except DoesNotFit:
            self._remove_all()
            raise
        finally:
            for arrival in self._arrivals:
                arrival.close()
            if self._journal:
                self._journal.close()

    # --- what is there -----------------------------------------------------------------------------------

    def _ours(self) -> set[str]:
        """Paths of the folder that belong to deliveries of ours; anything else is a conflict."""
        before = read_manifest(self._folder)
        begun = self._begun()
        ours = {entry.path for entry in before.files} if before else set()
        ours |= set(begun.paths) if begun else set()
        wanted = {entry.path for entry in self._origin.files}
        strangers = [
            path
            for path in list_files(self._folder)
            if path.removesuffix(".part") not in ours and path not in ours and not path.startswith(OWN_FOLDER)
        ]
        if strangers:
            raise Conflict(
                "the folder holds other files", where=str(self._folder),
                why=f"{strangers[0]} and {len(strangers) - 1} more", next_step="give an empty folder, or a new one",
            )  # fmt: skip
        return ours | wanted

    def _begun(self) -> Begun | None:
        path = self._folder / BEGUN_PATH
        try:
            return parse_begun(path.read_bytes(), str(path))
        except (FileNotFoundError, IntegrityError):
            return None

    def _prepare(self, ours: set[str]) -> None:
        """Decide what is kept, remove what is not wanted, and make the files that come."""
        wanted = {entry.path for entry in self._origin.files}
        going = [self._folder / name for name in ours - wanted]
        freed = sum(place.stat().st_size for place in going if place.is_file())
        recorded = self._recorded()
        self._look(recorded)
        needed = sum(arrival.missing_bytes for arrival in self._arrivals) + _MARGIN
        require_room(self._folder, needed - freed)  # before anything is taken from what is there
        write_file(self._folder / BEGUN_PATH, Begun(tuple(sorted(ours | wanted)), self._origin.where, True).to_json())
        with disk_errors(self._folder):
            (self._folder / MANIFEST_PATH).unlink(missing_ok=True)  # from here to the end this is no complete model
            for path in sorted(ours - wanted):
                for each in (path, path + ".part"):
                    (self._folder / each).unlink(missing_ok=True)
        self._open_journal(recorded)
        for arrival in self._arrivals:
            arrival.open()
            if not arrival.pending:
                arrival.catch_up()

    def _look(self, recorded: dict[str, dict[int, str]]) -> None:
        """Which files and parts of them are there."""
        for entry in self._origin.files:
            found = self._found(entry)
            if found is not None:
                self._there.append(found)
                self._on_bytes(entry.size)
                self._on_file(entry.path)
                continue
            arrival = Arrival(entry, self._origin.part_bytes, self._folder / entry.path)
            arrival.keep(recorded.get(entry.path, {}), self._on_bytes)
            self._arrivals.append(arrival)

    def _found(self, entry: FileEntry) -> FileEntry | None:
        """The entry of a file that is there under its name with exactly its bytes, or None."""
        path = self._folder / entry.path
        if not entry.sha256 or path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
            return None
        found = self._cache.entry(path, entry.path, part_bytes=self._origin.part_bytes)
        return found if found.sha256 == entry.sha256 and entry.crc64nvme in {(), found.crc64nvme} else None

    def _recorded(self) -> dict[str, dict[int, str]]:
        """CRC-64/NVME by path and number, of parts that arrived before and whose checksum no manifest says."""
        if is_known(self._origin.files):
            return {}
        path = self._folder / JOURNAL_PATH
        with disk_errors(path):
            known = read_journal(path.read_bytes() if path.is_file() else b"").uploads
        return {
            path: {number: part.crc64nvme for number, part in sent.parts.items()}
            for path, sent in known.items()
            if sent.upload == self._origin.identity
        }

    def _open_journal(self, recorded: dict[str, dict[int, str]]) -> None:
        """Open the journal, with a beginning for every file that has none."""
        if is_known(self._origin.files):
            return
        path = self._folder / JOURNAL_PATH
        with disk_errors(path):
            self._journal = path.open("ab", buffering=0)
            self._journal.write(b"\n")  # a kill may have torn off the last line
            for entry in self._origin.files:
                if entry.path not in recorded:
                    self._journal.write(begun_line(entry.path, self._origin.identity))

    # --- what comes --------------------------------------------------------------------------------------

    def _open_parts(self) -> int:
        return max(1, sum(len(arrival.pending) for arrival in self._arrivals))

    def _next(self) -> Task | None:
        """The next part: of the file that fewest are busy with, so that each can be hashed in order."""
        waiting = [arrival for arrival in self._arrivals if arrival.pending]
        if not waiting:
            return None
        arrival = min(waiting, key=lambda each: each.active)
        arrival.active += 1
        return partial(self._receive, arrival, arrival.pending.pop(0))

    def _receive(self, arrival: Arrival, part: Part) -> None:
        try:
            if arrival.receive(part, self._origin, self._count, self._record):
                self._on_file(arrival.entry.path)
        finally:
            arrival.active -= 1

    def _count(self, count: int) -> None:
        self._moved += count
        self._on_bytes(count)

    def _record(self, path: str, number: int, crc: str) -> None:
        if self._journal:
            with disk_errors(self._folder / JOURNAL_PATH):
                self._journal.write(part_line(path, number, SentPart(crc, "")))

    # --- the end -----------------------------------------------------------------------------------------

    def _settle(self) -> Fetched:
        if not all(arrival.complete for arrival in self._arrivals):
            raise AssertionError("a file that is not complete would get its name")
        entries = [*self._there, *(arrival.entry for arrival in self._arrivals)]
        manifest = FileManifest(tuple(sorted(entries, key=lambda entry: entry.path)), self._origin.part_bytes)
        self._origin.confirm()
        with writing(self._folder / MANIFEST_PATH) as file:  # its room is taken before any file gets its name
            file.write(manifest.to_json())
            file.flush()
            for arrival in self._arrivals:
                arrival.settle()
                self._cache.learn(arrival.final, arrival.entry, file_stamp(arrival.final), manifest.part_bytes)
        self._forget()
        self._cache.save()
        return Fetched(manifest, changed=True, bytes_moved=self._moved)

    def _forget(self) -> None:
        with disk_errors(self._folder):
            for path in (BEGUN_PATH, JOURNAL_PATH):
                (self._folder / path).unlink(missing_ok=True)

    def _remove_all(self) -> None:
        """A full disk is not left full of halves."""
        with suppress(BerthError, OSError):
            for arrival in self._arrivals:
                arrival.remove()
            if not self._there and not any(arrival.final.exists() for arrival in self._arrivals):
                self._forget()
            for folder in sorted({arrival.path.parent for arrival in self._arrivals} - {self._folder}, reverse=True):
                with suppress(OSError):
                    folder.rmdir()


def is_complete(folder: Path, manifest: FileManifest, cache: HashCache) -> bool:
    """Whether a folder holds exactly a manifest's files with exactly their bytes (hashes known by stat are trusted)."""
    expected = {entry.path for entry in manifest.files}
    try:
        with disk_errors(folder):
            if not folder.is_dir() or read_manifest(folder) != manifest:
                return False
            found = {path for path in list_files(folder) if not path.startswith(OWN_FOLDER)}
            if found != expected:
                return False
            entry = partial(cache.entry, part_bytes=manifest.part_bytes)
            same = all(entry(folder / each.path, each.path) == each for each in manifest.files)
    except IntegrityError:
        return False  # a manifest that is none, or links where files should be: it is fetched anew
    cache.save()
    return same


def incomplete(where: str) -> IntegrityError:
    """The error for a place without the mark of completeness."""
    return IntegrityError(
        "there is no complete delivery",
        where=where,
        why=f"{MANIFEST_PATH} is not there; it is written last",
        next_step="ship the model first",
    )


def summary(manifest: FileManifest) -> str:
    """`12 files, 4.60 MB`."""
    return f"{len(manifest.files)} files, {format_decimal(manifest.size)}"

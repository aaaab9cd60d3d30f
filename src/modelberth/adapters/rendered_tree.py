"""A rendered tree on disk: what is there, what is ours, and how it is replaced without ever being half of both.

A record in the tree (`gitops/<stack>/.berth.json`) says which files were written, and with what content. A file that
is in no record is somebody else's; one whose content is not what was recorded was edited. Neither is touched unasked.

Replacing: all new files are written into a folder beside the tree first, on the same disk; then each takes its place by
a rename, with the one before kept until all are in place. An error on the way puts everything back. A kill on the way
leaves a tree that the next run completes: until it is done, the record names the content before and the content after.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelberth.adapters.files import disk_errors, locked, sync_folder, write_file, writing
from modelberth.base.errors import BerthError, Conflict, IntegrityError, UsageError

RECORD = ".berth.json"
SCHEMA_VERSION = "modelberth.dev/rendered/v1"
STAGING = ".berth-render"
_MAX_RECORD = 16 << 20

Kind = Literal["created", "updated", "overwritten", "unchanged", "removed"]


@dataclass(frozen=True)
class WantedFile:
    """A file as it should be.

    Attributes:
        path: relative to the target, with slashes.
        content: its bytes.
        executable: whether it is a program.
    """

    path: str
    content: bytes
    executable: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return _digest(self.content)


@dataclass(frozen=True)
class Change:
    """What becomes of one file.

    Attributes:
        path: relative to the target.
        kind: what happens to it.
        before: its content now; None where there is none.
        wanted: what it becomes; None where it goes.
    """

    path: str
    kind: Kind
    before: bytes | None
    wanted: WantedFile | None


@dataclass(frozen=True)
class Comparison:
    """A tree as it is beside the tree as it should be.

    Attributes:
        changes: of every file that is wanted or recorded, by path.
        edited: files of ours that somebody has changed.
        foreign: files of somebody else where ours should go.
    """

    changes: tuple[Change, ...]
    edited: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether anything would be written."""
        return any(each.kind != "unchanged" for each in self.changes)


@dataclass
class RenderedTree:
    """One stack's tree in one target folder.

    Attributes:
        target: the folder.
        stack: name of the stack.
    """

    target: Path
    stack: str
    _record: Mapping[str, frozenset[str]] = field(default_factory=dict, init=False)

    @property
    def record(self) -> Path:
        """Where the record is."""
        return self.target / "gitops" / self.stack / RECORD

    def compare(self, files: Sequence[WantedFile]) -> Comparison:
        """Look at what is there; nothing is written.

        Raises:
            UsageError: the target is no folder, or something in the way is no plain file or folder.
            IntegrityError: the record cannot be read.
            AuthError: a file may not be read.
        """
        if self.target.exists() and not self.target.is_dir():
            raise UsageError("the target is no folder", where=str(self.target))
        self._record = self._read_record()
        wanted = {each.path: each for each in files}
        changes: list[Change] = []
        edited: list[str] = []
        foreign: list[str] = []
        for path in sorted({*wanted, *self._record}):
            before = self._read(path)
            change, problem = self._change(path, before, wanted.get(path))
            changes += [change] if change else []
            if problem:
                (edited if path in self._record else foreign).append(path)
        return Comparison(tuple(changes), tuple(edited), tuple(foreign))

    def _change(self, path: str, before: bytes | None, wanted: WantedFile | None) -> tuple[Change | None, bool]:
        """What becomes of a file, and whether somebody else's work is in the way."""
        ours = before is None or _digest(before) in self._record.get(path, frozenset())
        if wanted is None:
            return (None, False) if before is None else (Change(path, "removed", before, None), not ours)
        if before is None:
            return Change(path, "created", None, wanted), False
        if before == wanted.content and self._is_executable(path) == wanted.executable:
            return Change(path, "unchanged", before, wanted), False
        ours = ours or before == wanted.content
        return Change(path, "updated" if ours else "overwritten", before, wanted), not ours

    def write(self, files: Sequence[WantedFile], *, overwrite: bool = False) -> Comparison:
        """Make the tree what it should be.

        Args:
            files: all of them.
            overwrite: take the place of what somebody else has written or edited.

        Raises:
            Conflict: something of somebody else is in the way, or another run is writing.
            DoesNotFit: the disk is full; the tree is as it was.
            UsageError, IntegrityError, AuthError: as `compare`.
        """
        with self._staging() as staging:
            comparison = self.compare(files)
            if not overwrite:
                self._refuse(comparison)
            if comparison.differs or self._needs_record(files):
                self._replace(staging, comparison, files)
        return comparison

    def _refuse(self, comparison: Comparison) -> None:
        if not comparison.edited and not comparison.foreign:
            return
        lines = [f"{path}: edited since it was rendered" for path in comparison.edited]
        lines += [f"{path}: not written by berth" for path in comparison.foreign]
        raise Conflict(
            "files in the target are not as they were rendered", where=str(self.target), why="\n".join(lines),
            next_step="move the changes into berth.yaml or an overlay; --diff shows them, --overwrite drops them",
        )  # fmt: skip

    # --- the record ----------------------------------------------------------------------------------------

    def _read_record(self) -> dict[str, frozenset[str]]:
        content = self._read(str(self.record.relative_to(self.target)))
        if content is None:
            return {}
        try:
            document = json.loads(content)
            version, parts = document["schemaVersion"], [document["files"], document.get("next", {})]
            known: dict[str, set[str]] = {}
            for path, digest in ((path, digest) for part in parts for path, digest in part.items()):
                known.setdefault(_checked(path), set()).add(str(digest))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._unreadable("it is not what berth writes") from None
        if version != SCHEMA_VERSION:
            raise self._unreadable(f"it is of version {version}; this berth knows {SCHEMA_VERSION}")
        return {path: frozenset(digests) for path, digests in known.items()}

    def _unreadable(self, why: str) -> IntegrityError:
        return IntegrityError(
            "the record of the rendered tree cannot be read", where=str(self.record), why=why,
            next_step="take it from the repository, or remove it and render with --overwrite",
        )  # fmt: skip

    def _needs_record(self, files: Iterable[WantedFile]) -> bool:
        return self._record != {each.path: frozenset({each.digest}) for each in files}

    def _write_record(self, files: Mapping[str, str], following: Mapping[str, str] | None = None) -> None:
        document = {"schemaVersion": SCHEMA_VERSION, "files": dict(sorted(files.items()))}
        if following:
            document["next"] = dict(sorted(following.items()))
        with writing(self.record) as file:
            file.write(json.dumps(document, indent=2).encode() + b"\n")

    # --- replacing -----------------------------------------------------------------------------------------

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A folder in the target that only this run has; what a killed run left in it goes first."""
        folder = self.target / STAGING
        self._require_plain(folder)
        with locked(folder / "lock", wait=False, holder="the rendered tree"):
            try:
                for name in ("new", "old"):
                    shutil.rmtree(folder / name, ignore_errors=True)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _replace(self, staging: Path, comparison: Comparison, files: Sequence[WantedFile]) -> None:
        changing = [each for each in comparison.changes if each.kind != "unchanged"]
        after = {each.path: each.digest for each in files}
        with disk_errors(self.target):
            for each in changing:
                self._stage(staging / "new", each)
            before = self.record.read_bytes() if self.record.exists() else None
            self._write_record({path: min(digests) for path, digests in self._record.items()}, after)
            try:
                self._swap(staging, changing)
            except BaseException:
                self._restore_record(before)
                raise
            self._write_record(after)

    def _restore_record(self, before: bytes | None) -> None:
        """The record as it was; where that fails too, the one with both contents is right as well."""
        with suppress(OSError, BerthError):
            if before is None:
                self.record.unlink()
            else:
                write_file(self.record, before)

    def _stage(self, folder: Path, change: Change) -> None:
        if change.wanted is None:
            return
        path = folder / change.path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777 if change.wanted.executable else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(change.wanted.content)
            file.flush()
            os.fsync(file.fileno())

    def _swap(self, staging: Path, changing: Sequence[Change]) -> None:
        done: list[Change] = []
        try:
            for each in changing:
                done.append(each)
                self._put(staging, each)
            for folder in {(self.target / each.path).parent for each in changing}:
                if folder.is_dir():
                    sync_folder(folder)
        except BaseException:
            for each in reversed(done):
                self._put_back(staging, each)
            raise
        self._drop_empty_folders(changing)

    def _put(self, staging: Path, change: Change) -> None:
        place, old = self.target / change.path, staging / "old" / change.path
        if change.before is not None:
            old.parent.mkdir(parents=True, exist_ok=True)
            os.link(place, old)  # the file before keeps a name until all are in place
        if change.wanted is None:
            place.unlink()
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        (staging / "new" / change.path).replace(place)

    def _put_back(self, staging: Path, change: Change) -> None:
        place, old = self.target / change.path, staging / "old" / change.path
        if old.exists():
            old.replace(place)
        elif change.before is None:
            place.unlink(missing_ok=True)

    def _drop_empty_folders(self, changing: Iterable[Change]) -> None:
        """Folders that hold nothing since their last file went; never the target itself."""
        for each in changing:
            folder = (self.target / each.path).parent
            while each.wanted is None and folder != self.target and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent

    # --- what is there -------------------------------------------------------------------------------------

    def _read(self, path: str) -> bytes | None:
        """A file's content; None where there is none."""
        place = self.target / path
        self._require_plain(place)
        with disk_errors(place):
            try:
                return place.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _is_executable(self, path: str) -> bool:
        return bool((self.target / path).stat().st_mode & stat.S_IXUSR)

    def _require_plain(self, place: Path) -> None:
        """Refuse links on the way: what is written through one lands somewhere else."""
        for step in (*reversed(place.relative_to(self.target).parents[:-1]), place.relative_to(self.target)):
            found = self.target / step
            if found.is_symlink():
                raise UsageError("a link is in the way", where=str(found), next_step="remove it, or render elsewhere")
            if found == place and found.is_dir() and place.name not in {STAGING}:
                raise UsageError("a folder is where a file should go", where=str(found))
            if found != place and found.exists() and not found.is_dir():
                raise UsageError("a file is where a folder should go", where=str(found))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checked(path: str) -> str:
    """A path of the record; one that leaves the target was not written by us."""
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in {"", ".", ".."} for part in parts) or "\0" in path:
        raise ValueError(path)
    return path

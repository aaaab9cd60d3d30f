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
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelberth.adapters.files import disk_errors, locked, sync_folder, write_file, writing
from modelberth.adapters.staged_files import clear, keep, stage
from modelberth.base.errors import BerthError, Conflict, IntegrityError, UsageError

RECORD = ".berth.json"
SCHEMA_VERSION = "modelberth.dev/rendered/v1"
STAGING = ".berth-render"

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
        record_differs: whether the record is of other content, as after a merge that took one side's.
    """

    changes: tuple[Change, ...]
    edited: tuple[str, ...]
    foreign: tuple[str, ...]
    record_differs: bool = False

    @property
    def differs(self) -> bool:
        """Whether anything would be written."""
        return self.record_differs or any(each.kind != "unchanged" for each in self.changes)


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
        self._require_folder()
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
        return Comparison(tuple(changes), tuple(edited), tuple(foreign), self._needs_record(files))

    def _change(self, path: str, before: bytes | None, wanted: WantedFile | None) -> tuple[Change | None, bool]:
        """What becomes of a file, and whether somebody else's work is in the way."""
        ours = before is None or _digest(before) in self._record.get(path, frozenset())
        if wanted is None:
            return (None, False) if before is None else (Change(path, "removed", before, None), not ours)
        if before is None:
            return Change(path, "created", None, wanted), False
        if before == wanted.content and self._can_run(path, wanted):
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
        self._require_folder()
        with self._staging() as staging:
            comparison = self.compare(files)
            if not overwrite:
                self._refuse(comparison)
            if comparison.differs:
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
            version = document["schemaVersion"]
            if version != SCHEMA_VERSION:
                raise self._unreadable(f"it is of version {ascii(version)[:80]}; this berth knows {SCHEMA_VERSION}")
            known: dict[str, set[str]] = {}
            for part in (document["files"], document.get("next", {})):
                for path, digest in part.items():
                    known.setdefault(self._checked(path), set()).add(str(digest))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._unreadable("it is not what berth writes") from None
        return {path: frozenset(digests) for path, digests in known.items()}

    def _checked(self, path: str) -> str:
        """A path of the record; one outside of the stack's own folders was not written by us, whatever it says."""
        ours = path.startswith((f"gitops/{self.stack}/", f"steps/{self.stack}/")) and path.split("/")[2:] != [RECORD]
        if not ours or any(part in {"", ".", ".."} for part in path.split("/")) or b"\0" in os.fsencode(path):
            raise ValueError(path)
        return path

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
        lock, staged = folder / "lock", (folder / "new", folder / "old")
        self._require_plain(lock)
        with locked(lock, wait=False, holder="the rendered tree"):
            try:
                clear(staged)
                yield folder
            finally:
                clear(staged)  # before the lock: what is there afterwards is the next run's
                with suppress(OSError):
                    lock.unlink()
                    folder.rmdir()

    def _replace(self, staging: Path, comparison: Comparison, files: Sequence[WantedFile]) -> None:
        changing = [each for each in comparison.changes if each.kind != "unchanged"]
        after = {each.path: each.digest for each in files}
        with disk_errors(self.target):
            wanted = [each.wanted for each in changing if each.wanted]
            stage(staging / "new", {each.path: each.content for each in wanted if not each.executable})
            stage(staging / "new", {each.path: each.content for each in wanted if each.executable}, mode=0o777)
            before = self.record.read_bytes() if self.record.exists() else None
            self._write_record(self._recorded_now(comparison), after)
            done: list[Change] = []
            try:
                self._swap(staging, changing, done)
                self._write_record(after)
            except BaseException:
                if self._put_all_back(staging, done):
                    self._restore_record(before)
                raise
        self._drop_empty_folders(changing)

    def _recorded_now(self, comparison: Comparison) -> dict[str, str]:
        """One content for each recorded file: the one that is there, where a killed run has left two."""
        there = {each.path: _digest(each.before) for each in comparison.changes if each.before is not None}
        return {
            path: there[path] if there.get(path) in digests else min(digests)
            for path, digests in self._record.items()
        }  # fmt: skip

    def _restore_record(self, before: bytes | None) -> None:
        """The record as it was; where that fails too, the one with both contents is right as well."""
        with suppress(OSError, BerthError):
            if before is None:
                self.record.unlink()
            else:
                write_file(self.record, before)

    def _swap(self, staging: Path, changing: Sequence[Change], done: list[Change]) -> None:
        for each in changing:
            done.append(each)
            with disk_errors(self.target / each.path):
                self._put(staging, each)
        for folder in {(self.target / each.path).parent for each in changing}:
            if folder.is_dir():
                sync_folder(folder)

    def _put(self, staging: Path, change: Change) -> None:
        place, old = self.target / change.path, staging / "old" / change.path
        if change.before is not None:
            old.parent.mkdir(parents=True, exist_ok=True)
            keep(place, old)  # the file before keeps a name until all are in place
        if change.wanted is None:
            place.unlink()
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        (staging / "new" / change.path).replace(place)

    def _put_all_back(self, staging: Path, done: Sequence[Change]) -> bool:
        """As many as can be; whether that was all of them. If not, the record has to go on naming both contents."""
        complete = True
        for change in reversed(done):
            place, old = self.target / change.path, staging / "old" / change.path
            try:
                if old.exists():
                    old.replace(place)
                elif change.before is None:
                    place.unlink(missing_ok=True)
            except OSError:
                complete = False
        return complete

    def _drop_empty_folders(self, changing: Iterable[Change]) -> None:
        """Folders that hold nothing since their last file went; never the target itself."""
        for each in changing:
            folder = (self.target / each.path).parent
            with suppress(OSError):  # not empty, or not ours to remove: it stays
                while each.wanted is None and folder != self.target:
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

    def _can_run(self, path: str, wanted: WantedFile) -> bool:
        """Whether a program is one. The others need not be none: where modes are not kept, every file is."""
        return not wanted.executable or bool((self.target / path).stat().st_mode & stat.S_IXUSR)

    def _require_folder(self) -> None:
        with disk_errors(self.target):
            try:
                mode = self.target.stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return  # made when something is written
        if not stat.S_ISDIR(mode):
            raise UsageError("the target is no folder", where=str(self.target))

    def _require_plain(self, place: Path) -> None:
        """Refuse links on the way: what is written through one lands somewhere else. And pipes, which never end."""
        whole = place.relative_to(self.target)
        for step in (*reversed(whole.parents[:-1]), whole):
            found = self.target / step
            with disk_errors(found):
                try:
                    mode = found.lstat().st_mode
                except (FileNotFoundError, NotADirectoryError):
                    return
            if stat.S_ISLNK(mode):
                raise UsageError("a link is in the way", where=str(found), next_step="remove it, or render elsewhere")
            if step != whole and not stat.S_ISDIR(mode):
                raise UsageError("a file is where a folder should go", where=str(found))
            if step == whole and not stat.S_ISREG(mode):
                what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
                raise UsageError(f"{what} is where a file should go", where=str(found))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

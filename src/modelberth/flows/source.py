"""The source of a delivery: a model folder that was checked, and the manifest of its files."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelberth.adapters.files import OnBytes
from modelberth.adapters.folder import HashCache, read_checkpoint
from modelberth.adapters.transport import Cancelled
from modelberth.checkpoint.folder import Checkpoint
from modelberth.delivery.manifest import PART_BYTES, FileEntry, FileManifest, check_part_bytes
from modelberth.flows.parallel import Task, run_parallel


@dataclass(frozen=True)
class Source:
    """A model folder ready to be delivered.

    Attributes:
        folder: where the files are.
        paths: the files to deliver, sorted.
        checkpoint: what config, headers and index say; they agree.
    """

    folder: Path
    paths: tuple[str, ...]
    checkpoint: Checkpoint

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / path).stat().st_size for path in self.paths)


def open_source(folder: Path, *, exclude: tuple[str, ...] = (), allow_pickle: bool = False) -> Source:
    """Check a model folder. Only headers are read.

    Args:
        folder: of the model.
        exclude: shell patterns of paths that stay behind.
        allow_pickle: let pickles pass.

    Raises:
        UsageError: no such folder.
        IntegrityError: truncated or lying files, pickles, code, no config or weights.
    """
    paths, checkpoint = read_checkpoint(folder, exclude=exclude, allow_pickle=allow_pickle)
    return Source(folder, paths, checkpoint)


def hash_source(source: Source, cache: HashCache, on_bytes: OnBytes, part_bytes: int = PART_BYTES) -> FileManifest:
    """The manifest of a source's files; files that have not changed since they were last hashed are not read.

    Raises:
        UsageError: parts of this size are not possible.
        IntegrityError: a file changed while it was read.
    """
    check_part_bytes(part_bytes, max((source.folder / path).stat().st_size for path in source.paths))
    entries: list[FileEntry] = []
    waiting = list(source.paths)
    stopped = threading.Event()

    def count(read: int) -> None:
        if stopped.is_set():
            raise Cancelled
        on_bytes(read)

    def hash_one(path: str) -> None:
        entries.append(cache.entry(source.folder / path, path, count, part_bytes))

    def next_task() -> Task | None:
        return partial(hash_one, waiting.pop(0)) if waiting else None

    run_parallel(next_task, min(len(waiting), os.cpu_count() or 1), stopped.set)
    cache.save()
    return FileManifest(tuple(sorted(entries, key=lambda entry: entry.path)), part_bytes)

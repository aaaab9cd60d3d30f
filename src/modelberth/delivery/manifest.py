"""The manifest of files: what a delivery holds, byte for byte. Written last, it is the mark of completeness.

`.modelberth/manifest.json` beside the files says of each its path, size, SHA-256 and the CRC-64/NVME of every part.
SHA-256 proves the file; the part checksums say which range of it is wrong, and which parts of a broken transfer
can stay (parts are matched by checksum, never by size). CRC-64/NVME is what S3 stores check themselves
(`x-amz-checksum-crc64nvme`), so a store that knows it refuses a part that came wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from modelberth.base.errors import IntegrityError, UsageError
from modelberth.base.units import MIB
from modelberth.checkpoint.folder import check_path

MANIFEST_PATH = ".modelberth/manifest.json"
BEGUN_PATH = ".modelberth/begun.json"
"""Of a delivery that has begun and not ended: which files of a prefix are ours, and of what content."""
OWN_FOLDER = ".modelberth/"
"""Below it lies what is not the model's: the manifest, and what deliveries under way write down."""
BEGUN_VERSION = "modelberth.dev/begun/v1"
SCHEMA_VERSION = "modelberth.dev/manifest/v1"
PART_BYTES = 64 * MIB
"""Bytes in a part, unless a delivery chooses others. With 10,000 parts of an S3 object: files up to 625 GiB."""
LEAST_PART_BYTES, MOST_PART_BYTES = 5 * MIB, 5120 * MIB
"""What S3 takes as a part; only the last one may be smaller."""
MAX_PARTS = 10_000
MAX_MANIFEST_BYTES = 64 * MIB


@dataclass(frozen=True)
class FileEntry:
    """One file of a delivery.

    Attributes:
        path: relative to the delivery, `/` between parts.
        size: bytes.
        sha256: of the whole file, 64 hexadecimal digits.
        crc64nvme: of each part, in order, 16 hexadecimal digits; one for an empty file.
    """

    path: str
    size: int
    sha256: str
    crc64nvme: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A range of a file: its number from 0, first byte, length in bytes, and CRC-64/NVME."""

    number: int
    offset: int
    length: int
    crc64nvme: str


@dataclass(frozen=True)
class FileManifest:
    """All files of a delivery, sorted by path, and the bytes of a part."""

    files: tuple[FileEntry, ...]
    part_bytes: int = PART_BYTES

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> bytes:
        """Canonical JSON: the same files always give the same bytes."""
        files = [
            {"path": entry.path, "size": entry.size, "sha256": entry.sha256, "crc64nvme": list(entry.crc64nvme)}
            for entry in self.files
        ]
        document = {"schemaVersion": SCHEMA_VERSION, "partBytes": self.part_bytes, "files": files}
        return json.dumps(document, indent=1, sort_keys=False).encode() + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits: the name of this content."""
        return hashlib.sha256(self.to_json()).hexdigest()


@dataclass(frozen=True)
class Begun:
    """A delivery that has begun and not ended.

    Attributes:
        paths: files that it has written or will write.
        identity: of its content: the manifest's digest, or the source where hashes are found on the way.
        cleared: no file of an earlier delivery is left that this one will replace; so what is there is this one's.
    """

    paths: tuple[str, ...]
    identity: str
    cleared: bool

    def to_json(self) -> bytes:
        """As it is stored."""
        document = {
            "schemaVersion": BEGUN_VERSION, "identity": self.identity, "cleared": self.cleared, "paths": self.paths,
        }  # fmt: skip
        return json.dumps(document).encode() + b"\n"


def parse_begun(content: bytes, where: str) -> Begun:
    """Read what a delivery under way has left.

    Raises:
        IntegrityError: it is none.
    """
    match _loaded(content):
        case {"schemaVersion": version, "identity": str(identity), "cleared": bool(cleared), "paths": [*paths]} if (
            version == BEGUN_VERSION and all(isinstance(path, str) for path in paths)
        ):
            for path in paths:
                check_path(path)
            return Begun(tuple(paths), identity, cleared)
    raise IntegrityError("what an earlier delivery has left cannot be read", where=where, next_step="remove it")


def _loaded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def parts(entry: FileEntry, part_bytes: int) -> Iterator[Part]:
    """The parts of a file, in order. An empty file has one part of no bytes."""
    for number, crc in enumerate(entry.crc64nvme):
        offset = number * part_bytes
        yield Part(number, offset, min(part_bytes, entry.size - offset), crc)


def wanted_parts(entry: FileEntry, part_bytes: int) -> Iterator[Part]:
    """The parts of a file that is moved, in order: with an empty checksum where none is known yet."""
    unknown = ("",) * part_count(entry.size, part_bytes)
    return parts(replace(entry, crc64nvme=entry.crc64nvme or unknown), part_bytes)


def part_count(size: int, part_bytes: int) -> int:
    """Parts of a file of `size` bytes; one for an empty file."""
    return max(1, -(-size // part_bytes))


def check_part_bytes(part_bytes: int, largest: int) -> None:
    """Refuse a size of parts that S3 does not take, or that makes too many of the largest file.

    Raises:
        UsageError: with what is possible.
    """
    if not LEAST_PART_BYTES <= part_bytes <= MOST_PART_BYTES:
        why = f"S3 takes parts from {LEAST_PART_BYTES // MIB} MiB to {MOST_PART_BYTES // MIB} MiB"
        raise UsageError(f"parts of {part_bytes:,} bytes are not possible", why=why, next_step="--part-size 64MiB")
    if part_count(largest, part_bytes) > MAX_PARTS:
        least = -(-largest // MAX_PARTS)
        raise UsageError(
            f"a file of {largest:,} bytes has too many parts", why=f"S3 takes {MAX_PARTS:,} parts of an object",
            next_step=f"--part-size {-(-least // MIB)}MiB",
        )  # fmt: skip


def parse_manifest(content: bytes, where: str) -> FileManifest:
    """Read a manifest that somebody else may have written.

    Raises:
        IntegrityError: not a manifest of this version, an unsafe or repeated path, or a checksum that is none.
    """
    try:
        document = json.loads(content)
        part_bytes = document["partBytes"]
        if document["schemaVersion"] != SCHEMA_VERSION or type(part_bytes) is not int:
            raise _broken(where, f"its version is not {SCHEMA_VERSION}")
        if not LEAST_PART_BYTES <= part_bytes <= MOST_PART_BYTES:
            raise _broken(where, f"parts of {part_bytes:,} bytes are none")
        if not isinstance(document["files"], list):
            raise _broken(where, "it has no list of files")
        entries = tuple(_entry(item, part_bytes, where) for item in document["files"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(where, "its JSON is not that of a manifest") from error
    paths = [entry.path for entry in entries]
    if paths != sorted(set(paths)):
        raise _broken(where, "its paths are not sorted and unique")
    folders = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    if folders & set(paths):
        raise _broken(where, f"{min(folders & set(paths))} is a file and a folder")
    return FileManifest(entries, part_bytes)


def _entry(item: Any, part_bytes: int, where: str) -> FileEntry:
    entry = FileEntry(item["path"], item["size"], item["sha256"], tuple(item["crc64nvme"]))
    check_path(entry.path)
    sound = (
        isinstance(item["crc64nvme"], list)
        and type(item["size"]) is int  # a bool is an int too
        and entry.size >= 0
        and _is_hex(entry.sha256, 64)
        and len(entry.crc64nvme) == part_count(entry.size, part_bytes)
        and all(_is_hex(crc, 16) for crc in entry.crc64nvme)
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

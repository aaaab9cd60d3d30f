"""The journal of an upload: what a store has confirmed, so that a run after a kill sends only what is missing.

Lines of JSON, appended one at a time; a line that a kill has torn off is skipped. A part counts as sent only when the
store still lists it and it is the same by checksum: the store's own CRC-64/NVME, the MD5 that is the ETag on most
stores, or the very ETag that the store gave for these bytes. Its size alone never counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from modelberth.delivery.manifest import FileEntry


@dataclass(frozen=True)
class SentPart:
    """A part that a store confirmed: CRC-64/NVME of what was sent, and the ETag it was answered with."""

    crc64nvme: str
    etag: str


@dataclass
class SentFile:
    """What is known of the upload of one object.

    Attributes:
        upload: id of the multipart upload.
        parts: by number from 1.
    """

    upload: str
    parts: dict[int, SentPart] = field(default_factory=dict)


@dataclass
class Journal:
    """A journal that was read: uploads under way by key, and files whose bytes were read to the end, by path."""

    uploads: dict[str, SentFile] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)


def begun_line(key: str, upload: str) -> bytes:
    """An upload of an object has begun; what an earlier one sent does not count any more."""
    return _line({"begun": key, "upload": upload})


def part_line(key: str, number: int, part: SentPart) -> bytes:
    """A part was confirmed."""
    return _line({"part": key, "number": number, "crc64nvme": part.crc64nvme, "etag": part.etag})


def file_line(entry: FileEntry) -> bytes:
    """All bytes of a file were read from a source and confirmed; its entry was not known before."""
    return _line(
        {"file": entry.path, "size": entry.size, "sha256": entry.sha256, "crc64nvme": list(entry.crc64nvme)}
    )  # fmt: skip


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def read_journal(content: bytes) -> Journal:
    """What a journal says; lines that are none are skipped, since each says only what need not be done again."""
    journal = Journal()
    for line in content.split(b"\n"):
        match _parsed(line):
            case {"begun": str(key), "upload": str(upload)}:
                journal.uploads[key] = SentFile(upload)
            case {"part": str(key), "number": int(number), "crc64nvme": str(crc), "etag": str(etag)}:
                if key in journal.uploads:
                    journal.uploads[key].parts[number] = SentPart(crc, etag)
            case {"file": str(path), "size": int(size), "sha256": str(sha256), "crc64nvme": [*crcs]}:
                journal.files[path] = FileEntry(path, size, sha256, tuple(map(str, crcs)))
    return journal


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_sent(expected_crc: str, size: int, *, stored_size: int, stored_etag: str, stored_crc: str, sent: SentPart | None,
            md5s: Iterable[str] = ()) -> bool:  # fmt: skip
    """Whether a part that a store lists is the one that is wanted.

    Args:
        expected_crc: CRC-64/NVME of the wanted part, hexadecimal.
        size: its bytes.
        stored_size: bytes of the stored part.
        stored_etag: its ETag.
        stored_crc: its CRC-64/NVME as the store knows it; empty where it does not.
        sent: what the journal says of this part.
        md5s: MD5 of the wanted part, hexadecimal; taken only where nothing else decides, since it costs a read.
    """
    if stored_size != size:
        return False
    if stored_crc:
        return stored_crc == expected_crc
    if sent is not None and sent.etag and sent.etag == stored_etag:
        return sent.crc64nvme == expected_crc
    return stored_etag in set(md5s)

"""Deliveries in S3: opened by their manifest of files, and checked, all of it, without a byte on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from modelberth.adapters.files import OnBytes
from modelberth.adapters.hashing import PartHasher, crc64nvme, crc_text
from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import IntegrityError
from modelberth.delivery.manifest import (
    BEGUN_PATH,
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    FileEntry,
    FileManifest,
    Part,
    parse_manifest,
    parts,
)
from modelberth.flows.claims import is_beside
from modelberth.flows.fetch import incomplete
from modelberth.flows.origins import Origin, S3Origin
from modelberth.flows.parallel import Task, run_parallel
from modelberth.spec.addresses import S3Address


def open_s3_delivery(store: S3Store, address: S3Address) -> S3Origin:
    """A delivery as an origin.

    Raises:
        IntegrityError: it has no manifest, so it is not complete; or files are missing or too many.
    """
    manifest = manifest_in_s3(store, address)
    return S3Origin(store, address, manifest.files, manifest.part_bytes)


def manifest_in_s3(store: S3Store, address: S3Address) -> FileManifest:
    """The manifest of a delivery in S3.

    Raises:
        IntegrityError: there is none, so the delivery is not complete; or files are missing or too many.
    """
    content = store.read(address.key(MANIFEST_PATH), MAX_MANIFEST_BYTES)
    if content is None:
        raise incomplete(str(address))
    manifest = parse_manifest(content, str(address) + MANIFEST_PATH)
    expected = {address.key(entry.path): entry.size for entry in manifest.files}
    present = store.sizes(address.prefix)
    for key in list(present):
        path = key.removeprefix(address.prefix)
        if path in {MANIFEST_PATH, BEGUN_PATH} or is_beside(path):
            del present[key]
    if present != expected:
        different = sorted(key for key in expected.keys() | present.keys() if expected.get(key) != present.get(key))
        raise IntegrityError(
            "the files in the store are not those of its manifest",
            where=str(address),
            why=f"missing, extra or of another size: {', '.join(different[:5])}",
            next_step="ship the model again",
        )
    return manifest


@dataclass(frozen=True)
class WrongBytes:
    """A range of a stored file that is not what the manifest says; `last` is the last byte of it."""

    path: str
    first: int
    last: int
    why: str


def check_origin(origin: Origin, on_bytes: OnBytes, connections: int) -> tuple[WrongBytes, ...]:
    """Read everything and compare it with the manifest: CRC-64/NVME of each part, SHA-256 of each file.

    Returns:
        What is wrong, by path and position; empty when everything is right.
    """
    waiting = list(origin.files)
    found: list[WrongBytes] = []
    lock = threading.Lock()

    def report(wrong: WrongBytes) -> None:
        with lock:
            found.append(wrong)

    def next_task() -> Task | None:
        return partial(_check_file, origin, waiting.pop(0), on_bytes, report) if waiting else None

    run_parallel(next_task, min(connections, len(origin.files)), origin.stop)
    return tuple(sorted(found, key=lambda wrong: (wrong.path, wrong.first)))


def _check_file(origin: Origin, entry: FileEntry, on_bytes: OnBytes, report: Callable[[WrongBytes], None]) -> None:
    hasher, right = PartHasher(origin.part_bytes), True
    for part in parts(entry, origin.part_bytes):
        why = _check_part(origin, entry, part, hasher)
        on_bytes(part.length)
        if why:
            right = False
            report(WrongBytes(entry.path, part.offset, part.offset + part.length - 1, why))
    if right and hasher.entry(entry.path).sha256 != entry.sha256:
        report(WrongBytes(entry.path, 0, entry.size - 1, "the SHA-256 of the whole file is another"))


def _check_part(origin: Origin, entry: FileEntry, part: Part, hasher: PartHasher) -> str:
    """Why a part is wrong; empty when it is right."""
    crc = 0

    def sink(chunk: memoryview) -> None:
        nonlocal crc
        crc = crc64nvme(chunk, crc)
        hasher.update(chunk)

    try:
        origin.read(entry.path, part.offset, part.length, sink)
    except IntegrityError as error:
        return error.what
    return "" if crc_text(crc) == part.crc64nvme else f"CRC-64/NVME {crc_text(crc)}, declared {part.crc64nvme}"

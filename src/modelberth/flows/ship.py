"""Shipping into an S3 prefix: the manifest of files last, and after a kill only what is missing.

What is in the prefix goes through four states, so that a reader is never shown a half of a delivery as a whole, and a
file that is there is known to be this delivery's:

    begun, not cleared    `begun.json` names every file that is ours; the old manifest may still be there
    cleared               files of the old delivery that will be replaced are gone, and so is the old manifest
    filled                file by file; an object appears whole or not at all
    marked                the manifest is written, `begun.json` removed
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modelberth.adapters.files import OnBytes, ignore_bytes, locked
from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import Conflict, IntegrityError
from modelberth.delivery.manifest import (
    BEGUN_PATH,
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    Begun,
    FileEntry,
    FileManifest,
    parse_begun,
    parse_manifest,
)
from modelberth.flows.claims import Claim, claimed, is_beside
from modelberth.flows.deliveries import check_origin
from modelberth.flows.origins import Origin, S3Origin, is_known
from modelberth.flows.progress import OnFile, ignore_file
from modelberth.flows.s3_upload import Uploader
from modelberth.spec.addresses import S3Address

CONNECTIONS = 4
_T = TypeVar("_T")


@dataclass(frozen=True)
class Shipped:
    """What shipping did.

    Attributes:
        digest: of the manifest of files (S3, folder), or of the image manifest that deployments pin (OCI).
        changed: False when everything was there already.
        bytes_moved: bytes written to the destination.
        manifest: of the files that are now there.
    """

    digest: str
    changed: bool
    bytes_moved: int
    manifest: FileManifest


@dataclass(frozen=True)
class ShipOptions:
    """How to ship.

    Attributes:
        connections: parts that are sent at a time.
        journals: folder of the journals; None: a kill costs the files that were under way.
        workspace: folder for the parts of remote sources on their way.
        on_file: told of every file that is complete.
        verify: read what is there first, and send again what is not what its manifest says.
    """

    connections: int = CONNECTIONS
    journals: Path | None = None
    workspace: Path | None = None
    on_file: OnFile = ignore_file
    verify: bool = False


DEFAULTS = ShipOptions()


@dataclass
class _Prefix:
    """What is below a prefix: both documents of ours, and the sizes of everything but claims."""

    before: FileManifest | None
    begun: Begun | None
    present: dict[str, int]


def ship_to_s3(
    origin: Origin, store: S3Store, address: S3Address, on_bytes: OnBytes, options: ShipOptions = DEFAULTS
) -> Shipped:
    """Upload what is missing, the manifest last.

    Raises:
        Conflict: another ship to this prefix is under way, or the prefix holds files that no manifest of ours names:
            the cluster would download them too. Nothing was changed.
        IntegrityError: a source file changed under us, or came wrong twice.
    """
    wrong = _wrong_keys(store, address, options) if options.verify else set()
    there = _look(store, address, origin, wrong)
    if (done := _done(there, origin, address)) is not None:
        return Shipped("sha256:" + done.digest, changed=False, bytes_moved=0, manifest=done)
    with ExitStack() as stack:
        journal = _journal_path(options.journals, store, address)
        if journal is not None:
            stack.enter_context(locked(journal.with_suffix(".lock"), wait=False, holder=f"the way to {address}"))
        claim = stack.enter_context(claimed(store, address.prefix))
        there = _look(store, address, origin, wrong)  # somebody may have shipped before we had the right to
        return _fill(origin, store, address, there, claim, on_bytes, options, journal)


def _fill(
    origin: Origin, store: S3Store, address: S3Address, there: _Prefix, claim: Claim, on_bytes: OnBytes,
    options: ShipOptions, journal: Path | None,
) -> Shipped:  # fmt: skip
    identity = _identity(origin)
    if journal is not None and (there.begun is None or there.begun.identity != identity):
        journal.unlink(missing_ok=True)  # what it says of files is of others of the same name
    kept = _clear(origin, store, address, there, identity)
    if journal is not None and not is_known(origin.files):
        # What it says of a source that has changed, or of another one, must not count.
        journal = journal.with_stem(f"{journal.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}")
    with Uploader(origin, store, address, on_bytes, options.on_file, options.workspace, journal) as uploader:
        entries = uploader.send_all(kept, options.connections)
        manifest = FileManifest(entries, origin.part_bytes)
        present = store.sizes(address.prefix)
        if not _all_present(manifest, address, present):
            raise IntegrityError(
                "the store does not hold what was uploaded", where=str(address), next_step="run the same command again"
            )
        origin.confirm()
        claim.require()
        store.put(address.key(MANIFEST_PATH), manifest.to_json())
        store.delete(address.key(BEGUN_PATH))
        uploader.forget()
    return Shipped("sha256:" + manifest.digest, changed=True, bytes_moved=uploader.moved, manifest=manifest)


def _identity(origin: Origin) -> str:
    """What is shipped, told apart: by its hashes, or by where it comes from where they are found on the way."""
    if is_known(origin.files):
        return FileManifest(origin.files, origin.part_bytes).digest
    listed = "".join(f"{entry.path}\0{entry.size}\0{entry.sha256}\n" for entry in origin.files)
    return f"{origin.identity} {hashlib.sha256(listed.encode()).hexdigest()}"


def _wrong_keys(store: S3Store, address: S3Address, options: ShipOptions) -> set[str]:
    """Keys of files that are there and are not what the manifest beside them says."""
    before = _document(store, address, MANIFEST_PATH, parse_manifest)
    if before is None:
        return set()
    there = S3Origin(store, address, before.files, before.part_bytes)
    return {address.key(wrong.path) for wrong in check_origin(there, ignore_bytes, options.connections)}


def _look(store: S3Store, address: S3Address, origin: Origin, wrong: set[str]) -> _Prefix:
    before = _document(store, address, MANIFEST_PATH, parse_manifest)
    begun = _document(store, address, BEGUN_PATH, parse_begun)
    # What is wrong there counts as of no size: it is removed with what else will be replaced.
    present = {
        key: -1 if key in wrong else size
        for key, size in store.sizes(address.prefix).items()
        if not is_beside(key.removeprefix(address.prefix))
    }
    ours = {entry.path for entry in before.files} if before else set()
    ours |= set(begun.paths) if begun else set()
    _refuse_strangers(address, present, ours | {entry.path for entry in origin.files})
    return _Prefix(before, begun, present)


def _document(store: S3Store, address: S3Address, path: str, parse: Callable[[bytes, str], _T]) -> _T | None:
    content = store.read(address.key(path), MAX_MANIFEST_BYTES)
    return None if content is None else parse(content, str(address) + path)


def _refuse_strangers(address: S3Address, present: Iterable[str], ours: set[str]) -> None:
    known = {address.key(path) for path in (*ours, MANIFEST_PATH, BEGUN_PATH)}
    strangers = sorted(set(present) - known)
    if strangers:
        raise Conflict(
            "the prefix holds other files", where=str(address), why=f"{strangers[0]} and {len(strangers) - 1} more",
            next_step="choose another prefix, or remove them: the cluster downloads everything below a prefix",
        )  # fmt: skip


def _done(there: _Prefix, origin: Origin, address: S3Address) -> FileManifest | None:
    """The delivery that is there, if it is complete and holds exactly what the origin declares."""
    before = there.before
    if before is None or there.begun is not None or before.part_bytes != origin.part_bytes:
        return None
    same = len(before.files) == len(origin.files) and all(map(_is_same, origin.files, before.files))
    return before if same and _all_present(before, address, there.present) else None


def _is_same(declared: FileEntry, there: FileEntry) -> bool:
    """Whether a file that is there is the declared one; where no SHA-256 is declared nobody knows."""
    return (declared.path, declared.size, declared.sha256) == (there.path, there.size, there.sha256) and (
        declared.crc64nvme in {(), there.crc64nvme}
    )


def _all_present(manifest: FileManifest, address: S3Address, present: dict[str, int]) -> bool:
    return all(present.get(address.key(entry.path)) == entry.size for entry in manifest.files)


def _clear(origin: Origin, store: S3Store, address: S3Address, there: _Prefix, identity: str) -> list[FileEntry]:
    """Remove what will be replaced. Returns the files that are there and stay."""
    wanted = {entry.path: entry for entry in origin.files}
    if there.begun is not None and there.begun.cleared and there.begun.identity == identity:
        # Whatever is there was put there under this very manifest.
        return [
            entry for entry in origin.files if there.present.get(address.key(entry.path)) == entry.size
        ]  # fmt: skip
    before = {entry.path: entry for entry in there.before.files} if there.before else {}
    kept = [
        before[entry.path]
        for entry in origin.files
        if entry.path in before
        and _is_same(entry, before[entry.path])
        and there.present.get(address.key(entry.path)) == entry.size
    ]
    ours = set(before) | (set(there.begun.paths) if there.begun else set())
    paths = tuple(sorted(ours | set(wanted)))
    store.put(address.key(BEGUN_PATH), Begun(paths, identity, cleared=False).to_json())
    staying = {address.key(entry.path) for entry in kept}
    for path in paths:
        if address.key(path) in there.present and address.key(path) not in staying:
            store.delete(address.key(path))
    if there.before is not None:
        store.delete(address.key(MANIFEST_PATH))  # from here to the end this is no complete model
    store.put(address.key(BEGUN_PATH), Begun(tuple(sorted(wanted)), identity, cleared=True).to_json())
    return kept


def _journal_path(folder: Path | None, store: S3Store, address: S3Address) -> Path | None:
    if folder is None:
        return None
    name = hashlib.sha256(f"{store.where} {address}".encode()).hexdigest()[:16]
    return folder / f"{name}.jsonl"

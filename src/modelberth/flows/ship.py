"""Shipping: a checked source into an S3 prefix, or into a model image of an OCI layout.

Both write the manifest of files last. A destination that holds the same manifest, with every file of the
declared size, is left as it is: "unchanged".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelberth.adapters.files import CHUNK_BYTES, disk_errors
from modelberth.adapters.folder import PartHasher
from modelberth.adapters.oci import Layout
from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import Conflict, IntegrityError
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor
from modelberth.delivery.manifest import (
    BEGUN_PATH,
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    PART_BYTES,
    FileEntry,
    FileManifest,
    parse_manifest,
)
from modelberth.flows.source import Source
from modelberth.spec.addresses import S3Address

MANIFEST_DIGEST = "dev.modelberth.manifest.sha256"
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Shipped:
    """What shipping did.

    Attributes:
        digest: of the manifest of files (S3), or of the image manifest that deployments pin (OCI).
        changed: False when everything was there already.
        bytes_moved: bytes written to the destination.
    """

    digest: str
    changed: bool
    bytes_moved: int


def ship_to_s3(
    source: Source, manifest: FileManifest, store: S3Store, address: S3Address, on_bytes: OnBytes
) -> Shipped:
    """Upload what is missing, the manifest last.

    Raises:
        Conflict: the prefix holds files that no manifest of ours names; the cluster would download them too.
        IntegrityError: a source file changed under us.
    """
    before, begun = _manifest_at(store, address, MANIFEST_PATH), _manifest_at(store, address, BEGUN_PATH)
    present = store.sizes(address.prefix)
    ours = {entry.path for known in (before, begun) if known for entry in known.files}
    wanted = {entry.path for entry in manifest.files}
    _refuse_strangers(address, present, ours | wanted)
    if before == manifest and begun is None and _all_present(manifest, address, present):
        return Shipped("sha256:" + manifest.digest, changed=False, bytes_moved=0)
    for path in sorted(ours - wanted):
        store.delete(address.key(path))
    store.put(address.key(BEGUN_PATH), manifest.to_json())
    if before is not None:
        store.delete(address.key(MANIFEST_PATH))  # from here to the end this is no complete model
    known = set(before.files) if before else set()
    moved = 0
    for entry in manifest.files:
        if entry in known and present.get(address.key(entry.path)) == entry.size:
            on_bytes(entry.size)
            continue
        _upload(source, entry, store, address.key(entry.path), on_bytes)
        moved += entry.size
    if not _all_present(manifest, address, store.sizes(address.prefix)):
        raise IntegrityError(
            "the store does not hold what was uploaded",
            where=str(address),
            next_step="run the same command again",
        )
    store.put(address.key(MANIFEST_PATH), manifest.to_json())
    store.delete(address.key(BEGUN_PATH))
    return Shipped("sha256:" + manifest.digest, changed=True, bytes_moved=moved)


def _manifest_at(store: S3Store, address: S3Address, path: str) -> FileManifest | None:
    content = store.read(address.key(path), MAX_MANIFEST_BYTES)
    return None if content is None else parse_manifest(content, str(address) + path)


def _refuse_strangers(address: S3Address, present: Iterable[str], ours: set[str]) -> None:
    known = {address.key(path) for path in (*ours, MANIFEST_PATH, BEGUN_PATH)}
    strangers = sorted(set(present) - known)
    if strangers:
        raise Conflict(
            "the prefix holds other files", where=str(address), why=f"{strangers[0]} and {len(strangers) - 1} more",
            next_step="choose another prefix, or remove them: the cluster downloads everything below a prefix",
        )  # fmt: skip


def _all_present(manifest: FileManifest, address: S3Address, present: dict[str, int]) -> bool:
    return all(present.get(address.key(entry.path)) == entry.size for entry in manifest.files)


def _upload(source: Source, entry: FileEntry, store: S3Store, key: str, on_bytes: OnBytes) -> None:
    """One file, part by part; what is sent is compared with the manifest as it goes."""
    with disk_errors(source.folder / entry.path), (source.folder / entry.path).open("rb") as file:
        if entry.size <= PART_BYTES:
            content = file.read()
            _check_sent(entry, _hashed([content]), source.folder)
            store.put(key, content)
            on_bytes(entry.size)
            return
        hasher = PartHasher()
        with store.upload(key) as upload:
            while part := file.read(PART_BYTES):
                hasher.update(part)
                if hasher.size > entry.size:
                    break  # it grows, perhaps faster than it can be sent
                upload.send(part)
                on_bytes(len(part))
            _check_sent(entry, hasher, source.folder)


def _hashed(chunks: Iterable[bytes]) -> PartHasher:
    hasher = PartHasher()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher


def _check_sent(entry: FileEntry, sent: PartHasher, folder: Path) -> None:
    if sent.entry(entry.path) != entry:
        raise IntegrityError(
            "a file changed while it was shipped",
            where=str(folder / entry.path),
            next_step="wait for its writer to finish, then ship again",
        )


# --- into a model image --------------------------------------------------------------------------------


def build_image(source: Source, manifest: FileManifest, layout: Layout, tag: str, on_bytes: OnBytes) -> Shipped:
    """Build a model image: one deterministic layer a file, the manifest of files as the last layer.

    Args:
        source: the checked folder.
        manifest: of its files.
        layout: where the image goes; layers that it has are not written again.
        tag: name of the image in the layout.
        on_bytes: told of every byte written.
    """
    known = layout.tagged(tag)
    if known and _is_same(layout, known, manifest):
        return Shipped(known.digest, changed=False, bytes_moved=0)
    layers = [
        layout.write_layer(_layer(source.folder / entry.path, entry, on_bytes), entry.path) for entry in manifest.files
    ]
    content = manifest.to_json()
    own = _hashed([content]).entry(MANIFEST_PATH)
    layers.append(layout.write_layer(iter([image.layer_head(own), content, image.layer_tail(own.size)]), MANIFEST_PATH))
    config = layout.write_blob(image.CONFIG_TYPE, image.image_config(tuple(layers)))
    document = image.image_manifest(config, tuple(layers), {MANIFEST_DIGEST: manifest.digest})
    descriptor = layout.write_blob(image.MANIFEST_TYPE, document)
    layout.set_tag(tag, descriptor)
    layout.remove_unused()
    return Shipped(descriptor.digest, changed=True, bytes_moved=sum(layer.size for layer in layers))


def _is_same(layout: Layout, tagged: Descriptor, manifest: FileManifest) -> bool:
    if not layout.has(tagged):
        return False
    content = layout.read_blob(tagged)
    layers = image.parse_image_manifest(content, tagged.digest)
    return image.annotation(content, MANIFEST_DIGEST) == manifest.digest and all(layout.has(layer) for layer in layers)


def _layer(path: Path, entry: FileEntry, on_bytes: OnBytes) -> Iterator[bytes]:
    """The tar of one file; the file's bytes are compared with the manifest as they go by."""
    yield image.layer_head(entry)
    hasher = PartHasher()
    with disk_errors(path), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            on_bytes(len(chunk))
            if hasher.size > entry.size:
                break  # it grows, perhaps faster than it can be read
            yield chunk
    _check_sent(entry, hasher, path.parent)
    yield image.layer_tail(entry.size)

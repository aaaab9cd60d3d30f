"""Fetching: a delivery into a folder, every byte checked against the manifest of files before it has its name.

A folder is complete when it holds the manifest; it is written last. A range of a file that comes wrong is
fetched once more; if it stays wrong, that is an integrity error which names file and range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from modelberth.adapters.files import disk_errors, require_room, write_file, writing
from modelberth.adapters.folder import HashCache, PartHasher, list_files, read_manifest
from modelberth.adapters.oci import Layout
from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import IntegrityError
from modelberth.base.units import format_decimal
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor
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
from modelberth.spec.addresses import S3Address

OnBytes = Callable[[int], None]
ReadRange = Callable[[int, int], Iterable[bytes]]
_TRIES = 2


def manifest_in_s3(store: S3Store, address: S3Address) -> FileManifest:
    """The manifest of a delivery in S3.

    Raises:
        IntegrityError: there is none, so the delivery is not complete; or files are missing or too many.
    """
    content = store.read(address.key(MANIFEST_PATH), MAX_MANIFEST_BYTES)
    if content is None:
        raise _incomplete(str(address))
    manifest = parse_manifest(content, str(address) + MANIFEST_PATH)
    expected = {address.key(entry.path): entry.size for entry in manifest.files}
    present = store.sizes(address.prefix)
    for own in (MANIFEST_PATH, BEGUN_PATH):
        present.pop(address.key(own), None)
    if present != expected:
        different = sorted(key for key in expected.keys() | present.keys() if expected.get(key) != present.get(key))
        raise IntegrityError(
            "the files in the store are not those of its manifest",
            where=str(address),
            why=f"missing, extra or of another size: {', '.join(different[:5])}",
        )
    return manifest


def fetch_from_s3(store: S3Store, address: S3Address, manifest: FileManifest, folder: Path, on_bytes: OnBytes) -> None:
    """Download a delivery into a folder, the manifest last."""
    require_room(folder, manifest.size)
    for entry in manifest.files:
        key = address.key(entry.path)

        def read(offset: int, length: int, key: str = key) -> Iterable[bytes]:
            return store.chunks(key, offset, length)

        with writing(folder / entry.path) as file:
            _fetch_file(entry, read, file, str(address) + entry.path, on_bytes)
    write_file(folder / MANIFEST_PATH, manifest.to_json())


def _fetch_file(entry: FileEntry, read: ReadRange, file: BinaryIO, where: str, on_bytes: OnBytes) -> None:
    hasher = PartHasher()
    for part in parts(entry):
        hasher = _fetch_part(part, read, file, hasher, where)
        on_bytes(part.length)
    if hasher.entry(entry.path) != entry:
        raise IntegrityError(
            "a file is not the one that was shipped",
            where=where,
            why="its SHA-256 differs from the manifest's",
        )


def _fetch_part(part: Part, read: ReadRange, file: BinaryIO, before: PartHasher, where: str) -> PartHasher:
    for _ in range(_TRIES):
        file.seek(part.offset)
        hasher = before.copy()
        for chunk in read(part.offset, part.length):
            file.write(chunk)
            hasher.update(chunk)
        if hasher.size == part.offset + part.length and hasher.crcs[part.number] == part.crc32:
            return hasher
    last = part.offset + part.length - 1
    raise IntegrityError(
        "bytes came wrong twice", where=f"{where} bytes {part.offset:,} to {last:,}",
        why=f"their CRC-32 is not the manifest's {part.crc32}", next_step="ship the model again; nothing was started",
    )  # fmt: skip


def manifest_in_image(layout: Layout, tag: str) -> tuple[FileManifest, dict[str, Descriptor]]:
    """The manifest of files in a model image, and the layer of each file by path.

    Raises:
        IntegrityError: no such image, or its layers are not those of its files.
    """
    tagged = layout.tagged(tag)
    if tagged is None:
        raise _incomplete(f"{layout.folder} tag {tag}")
    layers = {layer.path: layer for layer in image.parse_image_manifest(layout.read_blob(tagged), tagged.digest)}
    own = layers.pop(MANIFEST_PATH, None)
    if own is None:
        raise _incomplete(f"{layout.folder} tag {tag}")
    manifest = parse_manifest(image.file_in_layer(layout.read_blob(own), MANIFEST_PATH), own.digest)
    if {entry.path for entry in manifest.files} != set(layers):
        raise IntegrityError("the image's layers are not the files of its manifest", where=tagged.digest)
    return manifest, layers


def fetch_from_image(
    layout: Layout, manifest: FileManifest, layers: dict[str, Descriptor], folder: Path, on_bytes: OnBytes
) -> None:
    """Unpack a model image into a folder: layer digests and file hashes are checked, the manifest is written last."""
    require_room(folder, manifest.size)
    for entry in manifest.files:
        with writing(folder / entry.path) as file:
            hasher = PartHasher()
            for chunk in _content(entry, layout.chunks(layers[entry.path])):
                file.write(chunk)
                hasher.update(chunk)
                on_bytes(len(chunk))
            if hasher.entry(entry.path) != entry:
                raise IntegrityError(
                    "a file is not the one that was packed", where=f"{layers[entry.path].digest} {entry.path}"
                )
    write_file(folder / MANIFEST_PATH, manifest.to_json())


def _content(entry: FileEntry, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A file's bytes out of its layer. All chunks are taken, because the digest is checked after the last."""
    skip, remaining = len(image.layer_head(entry)), entry.size
    for chunk in chunks:
        body = chunk[skip : skip + remaining]
        skip = max(0, skip - len(chunk))
        remaining -= len(body)
        if body:
            yield body


def is_complete(folder: Path, manifest: FileManifest, cache: HashCache) -> bool:
    """Whether a folder holds exactly a manifest's files with exactly their bytes (hashes known by stat are trusted)."""
    expected = {entry.path for entry in manifest.files}
    try:
        with disk_errors(folder):
            if not folder.is_dir() or read_manifest(folder) != manifest:
                return False
            if set(list_files(folder)) != expected | {MANIFEST_PATH}:
                return False
            same = all(cache.entry(folder / entry.path, entry.path) == entry for entry in manifest.files)
    except IntegrityError:
        return False  # a manifest that is none, or links where files should be: it is fetched anew
    cache.save()
    return same


def _incomplete(where: str) -> IntegrityError:
    return IntegrityError(
        "there is no complete delivery",
        where=where,
        why=f"{MANIFEST_PATH} is not there; it is written last",
        next_step="ship the model first",
    )


def summary(manifest: FileManifest) -> str:
    """`12 files, 4.60 MB`."""
    return f"{len(manifest.files)} files, {format_decimal(manifest.size)}"

"""Model images (ModelCars): built into a layout on disk, and read back as an origin, with the digests checked.

An image of ours has one layer a file and the manifest of files as its last layer, so a range of a file is a range of
its layer: parts of an image are fetched, checked and resumed as those of an S3 delivery are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from modelberth.adapters.files import CHUNK_BYTES, OnBytes, disk_errors
from modelberth.adapters.folder import HashCache
from modelberth.adapters.hashing import PartHasher
from modelberth.adapters.http_messages import Sink
from modelberth.adapters.oci import Layout
from modelberth.base.errors import IntegrityError
from modelberth.delivery import image
from modelberth.delivery.image import Base, Descriptor
from modelberth.delivery.manifest import MANIFEST_PATH, FileEntry, FileManifest, parse_manifest
from modelberth.flows.fetch import incomplete
from modelberth.flows.origins import FolderOrigin
from modelberth.flows.ship import Shipped

MANIFEST_DIGEST = "dev.modelberth.manifest.sha256"
BASE_DIGEST = "org.opencontainers.image.base.digest"


class Blobs(Protocol):
    """Where the blobs of an image are: a layout on disk, or a repository of a registry."""

    where: str

    def tagged(self, reference: str) -> Descriptor | None:
        """The manifest that a tag or digest names, or None."""

    def read_blob(self, blob: Descriptor) -> bytes:
        """A small blob, its digest checked."""

    def read_range(self, blob: Descriptor, offset: int, length: int, sink: Sink) -> None:
        """A range of a blob into a sink."""

    def stream_blob(self, blob: Descriptor, sink: Sink) -> None:
        """A whole blob into a sink, in order; its digest is checked after the last byte."""

    def read_manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """The manifest of a tag or digest, its digest checked."""

    def close(self) -> None:
        """End what other threads read."""


class ImageOrigin:
    """The files of a model image of ours."""

    folder = None

    def __init__(self, blobs: Blobs, manifest: FileManifest, layers: dict[str, Descriptor], where: str) -> None:
        self._blobs, self._layers = blobs, layers
        self.where, self.files, self.part_bytes = where, manifest.files, manifest.part_bytes
        self.identity = where
        self._heads = {entry.path: len(image.layer_head(entry)) for entry in manifest.files}

    def read(self, path: str, offset: int, length: int, sink: Sink) -> None:
        """A range of a file, out of its layer, into a sink."""
        self._blobs.read_range(self._layers[path], self._heads[path] + offset, length, sink)

    def confirm(self) -> None:
        """What is read is named by its content."""

    def stop(self) -> None:
        """Close the connections."""
        self._blobs.close()

    def wrong_frames(self) -> tuple[str, ...]:
        """Paths of files whose layer is not what stands around them in a tar of ours, so that its digest is wrong."""
        wrong = []
        for entry in self.files:
            head, tail = image.layer_head(entry), image.layer_tail(entry.size)
            found = bytearray()
            self._blobs.read_range(self._layers[entry.path], 0, len(head), found.extend)
            self._blobs.read_range(self._layers[entry.path], len(head) + entry.size, len(tail), found.extend)
            if found != head + tail:
                wrong.append(entry.path)
        return tuple(wrong)


def open_image(blobs: Blobs, reference: str, where: str) -> ImageOrigin:
    """A model image of ours as an origin.

    Args:
        blobs: where it is.
        reference: its tag or digest there.
        where: its address, for messages.

    Raises:
        IntegrityError: no such image, it is not one of ours, or its layers are not those of its files.
    """
    manifest, layers = manifest_in_image(blobs, reference)
    return ImageOrigin(blobs, manifest, layers, where)


def read_image(blobs: Blobs, reference: str, where: str, architecture: str = "amd64") -> tuple[Descriptor, bytes]:
    """The manifest of an image; out of an index, that of linux and an architecture.

    Raises:
        IntegrityError: it is not there, or not for this architecture.
    """
    descriptor, content = blobs.read_manifest(reference)
    chosen = image.platform_manifest(content, architecture, where)
    return blobs.read_manifest(chosen.digest) if chosen is not None else (descriptor, content)


def manifest_in_image(blobs: Blobs, reference: str) -> tuple[FileManifest, dict[str, Descriptor]]:
    """The manifest of files in a model image, and the layer of each file by path.

    Raises:
        IntegrityError: no such image, or its layers are not those of its files.
    """
    if blobs.tagged(reference) is None:
        raise incomplete(f"{blobs.where} {reference}")
    descriptor, content = blobs.read_manifest(reference)
    layers = {layer.path: layer for layer in image.parse_image_manifest(content, descriptor.digest)}
    own = layers.pop(MANIFEST_PATH, None)
    if own is None:
        raise IntegrityError(
            "the image has no manifest of files", where=f"{blobs.where} {reference}",
            why="berth did not build it, so nothing says what its files should be",
            next_step="build it anew from the model: berth modelcar build, or berth ship",
        )  # fmt: skip
    manifest = parse_manifest(image.file_in_layer(blobs.read_blob(own), MANIFEST_PATH), own.digest)
    if {entry.path for entry in manifest.files} != set(layers):
        raise IntegrityError("the image's layers are not the files of its manifest", where=descriptor.digest)
    for entry in manifest.files:
        if layers[entry.path].size != image.layer_bytes(entry):
            raise IntegrityError("a layer does not hold its file", where=f"{descriptor.digest} {entry.path}")
    return manifest, layers


def build_image(
    origin: FolderOrigin, layout: Layout, tag: str, on_bytes: OnBytes, base: tuple[Blobs, Base] | None = None,
    cache: HashCache | None = None,
) -> Shipped:  # fmt: skip
    """Build a model image: one deterministic layer a file, the manifest of files as the last layer.

    Args:
        origin: the folder, checked and hashed.
        layout: where the image goes; layers that it has are not written again.
        tag: name of the image in the layout.
        on_bytes: told of every byte written.
        base: the image that it stands on, and where that one's blobs are.
        cache: of layer digests; without it every layer is written.
    """
    manifest, below = FileManifest(origin.files, origin.part_bytes), base[1] if base else None
    annotations = annotations_of(manifest, below)
    known = layout.tagged(tag)
    if known and _is_same(layout, known, annotations):
        on_bytes(manifest.size)
        return Shipped(known.digest, changed=False, bytes_moved=0, manifest=manifest)
    stored = [_store_layer(origin, entry, layout, on_bytes, cache) for entry in manifest.files]
    own = layout.write_layer(own_layer(manifest.to_json()), MANIFEST_PATH)
    layers, moved = [*(layer for layer, _ in stored), own], own.size + sum(count for _, count in stored)
    if cache is not None:
        cache.save()
    if base:
        for layer in base[1].layers:
            if not layout.has(layer):
                layout.write_stream(layer, partial(base[0].stream_blob, layer))
    config = layout.write_blob(image.CONFIG_TYPE, image.image_config(tuple(layers), below))
    document = image.image_manifest(config, tuple(layers), annotations, below)
    descriptor = layout.write_blob(image.MANIFEST_TYPE, document)
    layout.set_tag(tag, descriptor)
    layout.remove_unused()
    return Shipped(descriptor.digest, changed=True, bytes_moved=moved, manifest=manifest)


def _store_layer(
    origin: FolderOrigin, entry: FileEntry, layout: Layout, on_bytes: OnBytes, cache: HashCache | None
) -> tuple[Descriptor, int]:
    """The layer of a file, written where it is not there yet, and the bytes that were written."""
    path, written = origin.folder / entry.path, []

    def write() -> str:
        written.append(layout.write_layer(_layer(path, entry, origin.part_bytes, on_bytes), entry.path))
        return written[0].digest

    digest = cache.digest(path, f"layer {entry.path}", write) if cache is not None else write()
    layer = Descriptor(image.LAYER_TYPE, digest, image.layer_bytes(entry), entry.path)
    if not written and not layout.has(layer):
        write()  # it is known, of another layout or a push
    elif not written:
        on_bytes(entry.size)
    return layer, layer.size if written else 0


def annotations_of(manifest: FileManifest, base: Base | None) -> dict[str, str]:
    """What a model image says of itself: the digest of its manifest of files, and of the image that it stands on."""
    return {MANIFEST_DIGEST: manifest.digest, **({BASE_DIGEST: base.digest} if base else {})}


def own_layer(content: bytes) -> Iterator[bytes]:
    """The layer that holds the manifest of files."""
    own = _hashed([content]).entry(MANIFEST_PATH)
    return iter([image.layer_head(own), content, image.layer_tail(own.size)])


def _hashed(chunks: Iterable[bytes]) -> PartHasher:
    hasher = PartHasher()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher


def _is_same(layout: Layout, tagged: Descriptor, annotations: dict[str, str]) -> bool:
    if not layout.has(tagged):
        return False
    content = layout.read_blob(tagged)
    said = {key: image.annotation(content, key) for key in (MANIFEST_DIGEST, BASE_DIGEST)}
    wanted = {MANIFEST_DIGEST: "", BASE_DIGEST: "", **annotations}
    return said == wanted and all(layout.has(blob) for blob in image.blobs_of(content))


def _layer(path: Path, entry: FileEntry, part_bytes: int, on_bytes: OnBytes) -> Iterator[bytes]:
    """The tar of one file; the file's bytes are compared with the manifest as they go by."""
    yield image.layer_head(entry)
    hasher = PartHasher(part_bytes)
    with disk_errors(path), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            on_bytes(len(chunk))
            if hasher.size > entry.size:
                break  # it grows, perhaps faster than it can be read
            yield chunk
    if hasher.entry(entry.path) != entry:
        raise IntegrityError(
            "a file changed while it was shipped", where=str(path),
            next_step="wait for its writer to finish, then ship again",
        )  # fmt: skip
    yield image.layer_tail(entry.size)

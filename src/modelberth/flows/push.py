"""Model images into a registry, straight from the model's folder: no copy on disk, and only layers it does not have.

Layers are known by their digest before anything moves, so the registry is asked first, what it has stays, and it checks
what it gets. The manifest goes last: a tag never names a half of an image.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelberth.adapters.files import OnBytes, disk_errors, ignore_bytes, open_pieces
from modelberth.adapters.folder import HashCache
from modelberth.adapters.oci import Layout
from modelberth.adapters.transport import Cancelled
from modelberth.base.errors import Conflict, DoesNotFit
from modelberth.base.units import format_decimal
from modelberth.catalog.registries import layer_limit
from modelberth.delivery import image
from modelberth.delivery.image import Base, Descriptor
from modelberth.delivery.manifest import MANIFEST_PATH, FileEntry, FileManifest
from modelberth.flows.images import Blobs, annotations_of, own_layer, read_image
from modelberth.flows.origins import FolderOrigin
from modelberth.flows.parallel import Task, run_parallel
from modelberth.flows.progress import OnFile, ignore_file
from modelberth.flows.ship import Shipped
from modelberth.flows.spool import path_of, spool_in

if TYPE_CHECKING:
    from modelberth.adapters.registry import Registry

_BUFFER_BYTES = 256 << 10
Pieces = Callable[[int, int], Iterator[memoryview]]


@dataclass(frozen=True)
class Copied:
    """An image that was copied: digest of its manifest, whether anything changed, and the bytes that moved."""

    digest: str
    changed: bool
    bytes_moved: int


def read_base(blobs: Blobs, reference: str, architecture: str = "amd64") -> Base:
    """A base image: its config, and its layers as they are stored.

    Raises:
        IntegrityError: it is not there, for this architecture, or not to be read.
    """
    descriptor, content = read_image(blobs, reference, f"{blobs.where} {reference}", architecture)
    config, *layers = image.blobs_of(content)
    # Whatever paths its layers name, the model's files are not theirs.
    return Base(descriptor.digest, blobs.read_blob(config), tuple(replace(layer, path="") for layer in layers))


def push_folder(
    origin: FolderOrigin, registry: Registry, tag: str, cache: HashCache, on_bytes: OnBytes, *, connections: int,
    base: tuple[Blobs, Base] | None = None, journals: Path | None = None, on_file: OnFile = ignore_file,
) -> Shipped:  # fmt: skip
    """Push a model's folder as an image.

    Args:
        origin: the folder, checked and hashed.
        registry: repository that it goes to.
        tag: name of the image there.
        cache: of layer digests.
        on_bytes: told of every byte that is there or was sent.
        connections: layers that are sent at a time.
        base: the image that it stands on, and where that one's blobs are.
        journals: folder for uploads under way.
        on_file: told of every file that is complete.

    Raises:
        DoesNotFit: a file is larger than a layer may be in this registry.
        Conflict: somebody else gave the tag to another image meanwhile.
    """
    manifest = FileManifest(origin.files, origin.part_bytes)
    _require_layers_fit(origin, registry)
    before = registry.tagged(tag)
    layers = layer_descriptors(origin, cache)
    content = manifest.to_json()
    own_blob = b"".join(own_layer(content))
    own = image.describe(image.LAYER_TYPE, own_blob, MANIFEST_PATH)
    below = base[1] if base else None
    config_blob = image.image_config((*layers, own), below)
    config = image.describe(image.CONFIG_TYPE, config_blob)
    document = image.image_manifest(config, (*layers, own), annotations_of(manifest, below), below)
    digest = image.digest_of(document)
    if before is not None and before.digest == digest:
        on_bytes(manifest.size)
        return Shipped(digest, changed=False, bytes_moved=0, manifest=manifest)
    small = [(own, own_blob), (config, config_blob)]
    blobs: list[tuple[Descriptor, Pieces]] = [(blob, partial(_memory_pieces, content)) for blob, content in small]
    blobs += [
        (layer, partial(_layer_pieces, origin.folder / entry.path, entry))
        for layer, entry in zip(layers, origin.files, strict=True)
    ]
    if base:
        blobs += [(layer, partial(_remote_pieces, base[0], layer)) for layer in base[1].layers]
    moved = push_blobs(registry, blobs, on_bytes, connections, journals, on_file)
    _require_same(registry, tag, before)
    registry.put_manifest(tag, document, image.MANIFEST_TYPE)
    return Shipped(digest, changed=True, bytes_moved=moved, manifest=manifest)


def push_image(
    source: Blobs, reference: str, registry: Registry, tag: str, on_bytes: OnBytes, *, connections: int,
    journals: Path | None = None, on_file: OnFile = ignore_file,
) -> Copied:  # fmt: skip
    """Copy an image, blob by blob, into a registry."""
    descriptor, content = source.read_manifest(reference)
    before = registry.tagged(tag)
    blobs = [(blob, partial(_remote_pieces, source, blob)) for blob in image.blobs_of(content)]
    if before is not None and before.digest == descriptor.digest:
        on_bytes(sum(blob.size for blob, _ in blobs))
        return Copied(descriptor.digest, changed=False, bytes_moved=0)
    moved = push_blobs(registry, blobs, on_bytes, connections, journals, on_file)
    _require_same(registry, tag, before)
    registry.put_manifest(tag, content, descriptor.media_type)
    return Copied(descriptor.digest, changed=True, bytes_moved=moved)


def pull_image(source: Blobs, reference: str, layout: Layout, tag: str, on_bytes: OnBytes) -> Copied:
    """Copy an image, blob by blob, into a layout."""
    descriptor, content = source.read_manifest(reference)
    before, moved = layout.tagged(tag), 0
    for blob in image.blobs_of(content):
        if not layout.has(blob):
            layout.write_stream(blob, partial(source.stream_blob, blob))
            moved += blob.size
        on_bytes(blob.size)
    layout.write_blob(descriptor.media_type, content)
    layout.set_tag(tag, descriptor)
    changed = moved > 0 or before is None or before.digest != descriptor.digest
    return Copied(descriptor.digest, changed, moved)


def push_blobs(
    registry: Registry, blobs: Sequence[tuple[Descriptor, Pieces]], on_bytes: OnBytes, connections: int,
    journals: Path | None, on_file: OnFile,
) -> int:  # fmt: skip
    """Send the blobs that a registry does not have, the largest first. Returns the bytes that moved."""
    waiting = sorted(dict(blobs).items(), key=lambda each: each[0].size)
    lock, moved = threading.Lock(), 0

    def send(blob: Descriptor, pieces: Pieces) -> None:
        nonlocal moved
        session = _Session(journals, registry, blob)
        count = registry.push_blob(blob, pieces, session=session.read(), on_session=session.write)
        session.forget()
        with lock:
            moved += count
        on_bytes(blob.size)
        if blob.path and blob.path != MANIFEST_PATH:
            on_file(blob.path)

    def next_task() -> Task | None:
        return partial(send, *waiting.pop()) if waiting else None

    run_parallel(next_task, min(connections, max(1, len(blobs))), registry.close)
    return moved


class _Session:
    """Where an upload of a blob goes on, kept for the next run. The registry itself says how far it came."""

    def __init__(self, folder: Path | None, registry: Registry, blob: Descriptor) -> None:
        name = hashlib.sha256(f"{registry.where} {blob.digest}".encode()).hexdigest()[:16]
        self._path = folder / f"{name}.session" if folder else None

    def read(self) -> str:
        """The address of the upload; empty where none is known."""
        if self._path is None:
            return ""
        try:
            said = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return ""
        return said if isinstance(said, str) else ""

    def write(self, address: str, _offset: int) -> None:
        """Keep it. A plain write: a torn one is as good as none."""
        if self._path is not None:
            with disk_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # For nobody else's eyes: some registries put a signature into it.
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(json.dumps(address))

    def forget(self) -> None:
        """The blob is there."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


def layer_descriptors(
    origin: FolderOrigin, cache: HashCache, on_bytes: OnBytes = ignore_bytes
) -> tuple[Descriptor, ...]:
    """The layers of a folder's files, in their order; digests that are not known are made, several at a time."""
    found: dict[str, Descriptor] = {}
    waiting = list(origin.files)
    stopped = threading.Event()

    def count(read: int) -> None:
        if stopped.is_set():
            raise Cancelled
        on_bytes(read)

    def make(entry: FileEntry) -> None:
        path = origin.folder / entry.path
        digest = cache.digest(path, f"layer {entry.path}", partial(_layer_digest, path, entry, count))
        found[entry.path] = Descriptor(image.LAYER_TYPE, digest, image.layer_bytes(entry), entry.path)

    def next_task() -> Task | None:
        return partial(make, waiting.pop(0)) if waiting else None

    run_parallel(next_task, min(os.cpu_count() or 1, len(waiting)), stopped.set)
    cache.save()
    return tuple(found[entry.path] for entry in origin.files)


def _layer_digest(path: Path, entry: FileEntry, on_bytes: OnBytes) -> str:
    hasher = hashlib.sha256()
    for piece in _layer_pieces(path, entry, 0, image.layer_bytes(entry)):
        hasher.update(piece)
        on_bytes(len(piece))
    return "sha256:" + hasher.hexdigest()


def _layer_pieces(path: Path, entry: FileEntry, offset: int, length: int) -> Iterator[memoryview]:
    """A range of a file's layer, a buffer at a time."""
    head, begin, count, tail = image.layer_piece(entry, offset, length)
    if head:
        yield memoryview(head)
    with disk_errors(path):
        yield from open_pieces(path, begin, count, memoryview(bytearray(_BUFFER_BYTES)))
    if tail:
        yield memoryview(tail)


def _memory_pieces(content: bytes, offset: int, length: int) -> Iterator[memoryview]:
    yield memoryview(content)[offset : offset + length]


def _remote_pieces(source: Blobs, blob: Descriptor, offset: int, length: int) -> Iterator[memoryview]:
    """A range of a blob that is somewhere else, through a spool on disk. The registry checks the whole."""
    with spool_in(Path(tempfile.gettempdir())) as spool:

        def sink(chunk: memoryview) -> None:
            spool.write(chunk)

        source.read_range(blob, offset, length, sink)
        spool.flush()
        yield from open_pieces(path_of(spool), 0, length, memoryview(bytearray(_BUFFER_BYTES)))


def _require_layers_fit(origin: FolderOrigin, registry: Registry) -> None:
    limit = layer_limit(registry.host)
    largest = max(origin.files, key=lambda entry: entry.size)
    if limit is not None and image.layer_bytes(largest) > limit.bytes:
        raise DoesNotFit(
            f"{largest.path} is too large for a layer of this registry", where=registry.where,
            why=f"{format_decimal(image.layer_bytes(largest))}; {limit.name} takes {format_decimal(limit.bytes)}",
            next_step="save the model in smaller shards (max_shard_size), or use S3",
        )  # fmt: skip


def _require_same(registry: Registry, tag: str, before: Descriptor | None) -> None:
    """Refuse to take a tag from who has set it meanwhile."""
    now = registry.tagged(tag)
    if (now.digest if now else "") != (before.digest if before else ""):
        raise Conflict(
            "the tag was set by somebody else meanwhile", where=f"{registry.where}:{tag}",
            why=f"it names {now.digest if now else 'nothing'} now",
            next_step="look who pushes there, then run it again",
        )  # fmt: skip

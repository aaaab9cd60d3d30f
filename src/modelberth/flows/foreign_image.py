"""Model images that others have built, unpacked into a folder: layer digests are checked, hashes are found on the way.

Such an image has no manifest of files, so a wrong byte is known only when its layer is over: the layer is named then,
and nothing has its name. It is not resumed inside a layer.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import IO

from modelberth.adapters.files import OnBytes, disk_errors, require_room, sync_folder, write_file
from modelberth.adapters.folder import list_files
from modelberth.adapters.hashing import PartHasher
from modelberth.adapters.tar_stream import model_files_in
from modelberth.adapters.transport import Sink
from modelberth.base.errors import Conflict, IntegrityError
from modelberth.checkpoint.folder import model_files
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor
from modelberth.delivery.manifest import MANIFEST_PATH, OWN_FOLDER, FileEntry, FileManifest
from modelberth.flows.fetch import Fetched
from modelberth.flows.images import Blobs
from modelberth.flows.progress import OnFile

IMAGE_PATH = f"{OWN_FOLDER}image"
"""Digest of the image that a folder was unpacked from."""
_BUFFER_BYTES = 256 << 10
_PAST_NS = 10_000_000_000


def is_ours(blobs: Blobs, reference: str) -> bool:
    """Whether an image has a manifest of files.

    Raises:
        IntegrityError: there is no such image.
    """
    _, content = _manifest(blobs, reference)
    return MANIFEST_PATH in {layer.path for layer in image.blobs_of(content)}


def _manifest(blobs: Blobs, reference: str) -> tuple[Descriptor, bytes]:
    descriptor, content = blobs.read_manifest(reference)
    chosen = image.platform_manifest(content, "amd64", f"{blobs.where} {reference}")
    return blobs.read_manifest(chosen.digest) if chosen is not None else (descriptor, content)


def is_unpacked(blobs: Blobs, reference: str, folder: Path) -> bool:
    """Whether a folder holds what was unpacked from this very image; its files are not looked at."""
    try:
        return (folder / IMAGE_PATH).read_text(encoding="utf-8") == _manifest(blobs, reference)[0].digest
    except (OSError, UnicodeDecodeError):
        return False


def image_size(blobs: Blobs, reference: str) -> int:
    """Bytes of all layers, as they are stored."""
    _, content = _manifest(blobs, reference)
    return sum(layer.size for layer in image.blobs_of(content)[1:])


def unpack_image(
    blobs: Blobs, reference: str, folder: Path, on_bytes: OnBytes, on_file: OnFile, *, allow_pickle: bool,
    part_bytes: int,
) -> Fetched:  # fmt: skip
    """Unpack the model of an image that others have built into a folder, the manifest of files last.

    Args:
        blobs: where the image is.
        reference: its tag or digest there.
        folder: made where there is none; it must be empty.
        on_bytes: told of the bytes of layers.
        on_file: told of every file.
        allow_pickle: let pickles pass.
        part_bytes: bytes of a part, for the manifest that is made.

    Raises:
        IntegrityError: no model in it, a layer with a wrong digest, files that are refused.
        Conflict: the folder holds files.
        DoesNotFit: the disk is too small, or became full; nothing stays then.
    """
    descriptor, content = _manifest(blobs, reference)
    layers = image.blobs_of(content)[1:]
    if folder.exists() and list_files(folder):
        raise Conflict("the folder holds files", where=str(folder), next_step="give an empty folder, or a new one")
    require_room(folder, sum(layer.size for layer in layers))
    found: dict[str, FileEntry] = {}
    try:
        for layer in layers:
            for path, size, stream in model_files_in(
                layer.media_type, partial(_counted, blobs, layer, on_bytes), f"{blobs.where} {layer.digest}"
            ):
                found[path] = _write(folder / (path + ".part"), path, size, stream, part_bytes)
                on_file(path)
        kept = model_files(found, allow_pickle=allow_pickle)
        if not kept:
            raise IntegrityError(
                "there is no model in the image", where=f"{blobs.where} {reference}", why="no file lies below /models"
            )
        manifest = FileManifest(tuple(found[path] for path in kept), part_bytes)
    except BaseException:
        for path in found:
            (folder / (path + ".part")).unlink(missing_ok=True)
        raise
    _settle(folder, manifest, set(found), descriptor.digest)
    return Fetched(manifest, changed=True, bytes_moved=sum(layer.size for layer in layers))


def _counted(blobs: Blobs, layer: Descriptor, on_bytes: OnBytes, sink: Sink) -> None:
    def take(chunk: memoryview) -> None:
        on_bytes(len(chunk))
        sink(chunk)

    blobs.stream_blob(layer, take)


def _write(part: Path, path: str, size: int, stream: IO[bytes], part_bytes: int) -> FileEntry:
    """Write one file under its `.part` name, hashed as it passes."""
    hasher = PartHasher(part_bytes)
    with disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb", buffering=0) as file:
            while chunk := stream.read(_BUFFER_BYTES):
                hasher.update(chunk)
                file.write(chunk)
            written = time.time_ns() - _PAST_NS  # as for every file that arrives: later changes show
            os.utime(file.fileno(), ns=(written, written))
            os.fsync(file.fileno())
    if hasher.size != size:
        raise IntegrityError("a file of the image is cut short", where=path)
    return hasher.entry(path)


def _settle(folder: Path, manifest: FileManifest, written: set[str], digest: str) -> None:
    kept = {entry.path for entry in manifest.files}
    with disk_errors(folder):
        for path in written - kept:
            (folder / (path + ".part")).unlink(missing_ok=True)
        for path in sorted(kept):
            (folder / (path + ".part")).replace(folder / path)
            sync_folder((folder / path).parent)
    write_file(folder / IMAGE_PATH, digest.encode())
    write_file(folder / MANIFEST_PATH, manifest.to_json())

"""Model images that others have built, unpacked into a folder: layer digests are checked, hashes are found on the way.

Such an image has no manifest of files, so a wrong byte is known only when its layer is over: the layer is named then,
and nothing has its name. It is not resumed inside a layer.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from modelberth.adapters.files import OnBytes, disk_errors, remove_tree, require_room, sync_folder, write_file
from modelberth.adapters.folder import list_files, read_manifest
from modelberth.adapters.hashing import PartHasher
from modelberth.adapters.http_messages import Sink
from modelberth.adapters.tar_stream import Stream, model_files_in
from modelberth.base.errors import Conflict, IntegrityError
from modelberth.checkpoint.folder import model_files
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor
from modelberth.delivery.manifest import (
    BEGUN_PATH,
    MANIFEST_PATH,
    OWN_FOLDER,
    Begun,
    FileEntry,
    FileManifest,
    parse_begun,
)
from modelberth.flows.fetch import Fetched, folder_of_ours
from modelberth.flows.images import Blobs, read_image
from modelberth.flows.progress import OnFile

IMAGE_PATH = f"{OWN_FOLDER}image"
"""Digest of the image that a folder was unpacked from."""
ARRIVING_PATH = f"{OWN_FOLDER}arriving"
"""Below it files arrive; none has its name before all of them are right."""
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
    return read_image(blobs, reference, f"{blobs.where} {reference}")


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
        folder: made where there is none. It may hold an earlier delivery, or the beginning of one, nothing else.
        on_bytes: told of the bytes of layers.
        on_file: told of every file.
        allow_pickle: let pickles pass.
        part_bytes: bytes of a part, for the manifest that is made.

    Raises:
        IntegrityError: no model in it, a layer with a wrong digest, files that are refused.
        Conflict: the folder holds other files, or another fetch into it is under way.
        DoesNotFit: the disk is too small, or became full; nothing stays then.
    """
    with folder_of_ours(folder):
        return _unpack(blobs, reference, folder, on_bytes, on_file, allow_pickle=allow_pickle, part_bytes=part_bytes)


def _unpack(
    blobs: Blobs, reference: str, folder: Path, on_bytes: OnBytes, on_file: OnFile, *, allow_pickle: bool,
    part_bytes: int,
) -> Fetched:  # fmt: skip
    descriptor, content = _manifest(blobs, reference)
    layers, before = image.blobs_of(content)[1:], _files_of_ours(folder)
    arriving = folder / ARRIVING_PATH
    remove_tree(arriving)  # what a kill has left
    require_room(folder, sum(layer.size for layer in layers))
    found: dict[str, FileEntry] = {}
    try:
        for layer in layers:
            _unpack_layer(blobs, layer, arriving, found, on_bytes, on_file, part_bytes)
        kept = model_files(found, allow_pickle=allow_pickle)
        if not kept:
            raise IntegrityError(
                "there is no model in the image", where=f"{blobs.where} {reference}", why="no file lies below /models"
            )
        manifest = FileManifest(tuple(found[path] for path in kept), part_bytes)
        _settle(folder, manifest, before, descriptor.digest)
    finally:
        remove_tree(arriving)
    return Fetched(manifest, changed=True, bytes_moved=sum(layer.size for layer in layers))


def _files_of_ours(folder: Path) -> set[str]:
    """Files of the folder that an earlier delivery has put there.

    Raises:
        Conflict: it holds others.
    """
    manifest, begun = read_manifest(folder), folder / BEGUN_PATH
    ours = {entry.path for entry in manifest.files} if manifest else set()
    if begun.is_file():
        ours |= set(parse_begun(begun.read_bytes(), str(begun)).paths)
    strangers = [path for path in list_files(folder) if path not in ours and not path.startswith(OWN_FOLDER)]
    if strangers:
        raise Conflict(
            "the folder holds files", where=str(folder), why=f"{strangers[0]} and {len(strangers) - 1} more",
            next_step="give an empty folder, or a new one",
        )  # fmt: skip
    return ours


def _unpack_layer(
    blobs: Blobs, layer: Descriptor, arriving: Path, found: dict[str, FileEntry], on_bytes: OnBytes, on_file: OnFile,
    part_bytes: int,
) -> None:  # fmt: skip
    """Unpack one layer over those below it."""
    below = set(found)

    def remove(gone: str) -> None:
        for path in [each for each in below if not gone or each == gone or each.startswith(gone + "/")]:
            below.discard(path)
            found.pop(path, None)
            with disk_errors(arriving):
                (arriving / path).unlink(missing_ok=True)

    for path, size, stream in model_files_in(
        layer.media_type, partial(_counted, blobs, layer, on_bytes), f"{blobs.where} {layer.digest}", remove
    ):
        _make_way(path, arriving, found)
        below.discard(path)
        found[path] = _write(arriving / path, path, size, stream, part_bytes)
        on_file(path)


def _make_way(path: str, arriving: Path, found: dict[str, FileEntry]) -> None:
    """Remove the file that stands where a folder comes, and the folder where a file comes: the later one counts."""
    parts = path.split("/")
    for parent in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
        if found.pop(parent, None):
            (arriving / parent).unlink()
    if (arriving / path).is_dir():
        for each in [each for each in found if each.startswith(path + "/")]:
            del found[each]
        remove_tree(arriving / path)


def _counted(blobs: Blobs, layer: Descriptor, on_bytes: OnBytes, sink: Sink) -> None:
    def take(chunk: memoryview) -> None:
        on_bytes(len(chunk))
        sink(chunk)

    blobs.stream_blob(layer, take)


def _write(part: Path, path: str, size: int, stream: Stream, part_bytes: int) -> FileEntry:
    """Write one file where files arrive, hashed as it passes."""
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


def _settle(folder: Path, manifest: FileManifest, before: set[str], digest: str) -> None:
    """Give the files their names; after a kill in between, the next run knows them as ours."""
    kept = {entry.path for entry in manifest.files}
    write_file(folder / BEGUN_PATH, Begun(tuple(sorted(before | kept)), digest, cleared=True).to_json())
    with disk_errors(folder):
        (folder / MANIFEST_PATH).unlink(missing_ok=True)  # from here to the end this is no complete model
        for path in sorted(before):
            (folder / path).unlink(missing_ok=True)
        for path in sorted(kept):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / ARRIVING_PATH / path).replace(folder / path)
            sync_folder((folder / path).parent)
    write_file(folder / IMAGE_PATH, digest.encode())
    write_file(folder / MANIFEST_PATH, manifest.to_json())
    with disk_errors(folder):
        (folder / BEGUN_PATH).unlink()

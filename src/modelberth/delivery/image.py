"""OCI images of models (ModelCars): deterministic plain-tar layers, one a file, everything below /models.

The same files give the same digests on any machine and at any time: times and owners are zero, entries are in
path order, nothing is compressed (weights do not compress, and a gzip of them costs minutes). One layer a file
keeps the peak on a node at the unpacked size plus the layers in flight.
Sources: OCI image specification 1.1 (layer, config, manifest, layout); KServe's modelcar wants /models.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from dataclasses import dataclass
from typing import Any

from modelberth.base.errors import IntegrityError
from modelberth.checkpoint.folder import check_path
from modelberth.delivery.manifest import FileEntry

MODELS_FOLDER = "models"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
FILE_PATH = "dev.modelberth.path"
_BLOCK = 512
_SIZE_FIELD = slice(124, 136)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Descriptor:
    """A blob by content: media type, `sha256:...` digest, size in bytes, and the file path it carries, if one."""

    media_type: str
    digest: str
    size: int
    path: str = ""

    def to_json(self) -> dict[str, Any]:
        """As manifests write it."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.path:
            document["annotations"] = {FILE_PATH: self.path}
        return document


def layer_head(entry: FileEntry) -> bytes:
    """The tar bytes before a file's content: its parent folders and its own header."""
    parts = [MODELS_FOLDER, *entry.path.split("/")]
    folders = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))
    head = b"".join(_header(folder, 0, tarfile.DIRTYPE, 0o755) for folder in folders)
    return head + _header("/".join(parts), entry.size, tarfile.REGTYPE, 0o644)


def layer_tail(size: int) -> bytes:
    """The tar bytes after a file's content: padding to a block, and two empty blocks."""
    return b"\0" * (-size % _BLOCK + 2 * _BLOCK)


def layer_bytes(entry: FileEntry) -> int:
    """Size of a file's layer in bytes."""
    return len(layer_head(entry)) + entry.size + len(layer_tail(entry.size))


def file_in_layer(layer: bytes, path: str) -> bytes:
    """The content of the file `path` in a small layer that is in memory.

    No tar reader is let loose on bytes of others (links to themselves, negative sizes): a layer is exactly
    head, content and tail as they are written here.

    Raises:
        IntegrityError: the layer is not one of ours, or holds another file.
    """
    begin = len(layer_head(FileEntry(path, 0, "", ())))
    field = layer[max(0, begin - _BLOCK) : begin][_SIZE_FIELD]
    if re.fullmatch(rb"[0-7]{11}\0", field):
        entry = FileEntry(path, int(field[:-1], 8), "", ())
        end = begin + entry.size
        if len(layer) == layer_bytes(entry) and layer[:begin] == layer_head(entry) and not any(layer[end:]):
            return layer[begin:end]
    raise IntegrityError("a layer does not hold its file", where=path)


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = size, kind, mode
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    # PAX: ustar where it fits, extended records for long names and files past 8 GiB.
    return info.tobuf(tarfile.PAX_FORMAT)


@dataclass(frozen=True)
class Base:
    """The image that a model image stands on: what brings `sh`, `ln` and `sleep` for KServe's sidecar.

    Attributes:
        digest: of its manifest.
        config: its config blob.
        layers: its layers; they are copied as they are, compressed or not.
    """

    digest: str
    config: bytes
    layers: tuple[Descriptor, ...]


def image_config(layers: tuple[Descriptor, ...], base: Base | None = None) -> bytes:
    """The image's config blob. Without a base it runs nowhere; `amd64` is what a node's pull asks for.

    Raises:
        IntegrityError: the base's config is none.
    """
    document: dict[str, Any] = {"architecture": "amd64", "os": "linux", "config": {}, "history": []}
    below: list[str] = []
    if base is not None:
        document, below = _base_config(base)
    document["rootfs"] = {"type": "layers", "diff_ids": [*below, *(layer.digest for layer in layers)]}
    document["history"] = [
        *document.get("history", []), *({"created_by": f"berth modelcar: {layer.path}"} for layer in layers),
    ]  # fmt: skip
    return _canonical(document)


def _base_config(base: Base) -> tuple[dict[str, Any], list[str]]:
    """A base's config and the digests of its layers as they are unpacked."""
    try:
        document = json.loads(base.config)
        below = document["rootfs"]["diff_ids"]
        sound = isinstance(document, dict) and len(below) == len(base.layers)
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound or not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in below):
        raise IntegrityError("the base image has no usable config", where=base.digest)
    if not isinstance(document.get("history", []), list):
        document["history"] = []
    return document, below


def image_manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], annotations: dict[str, str], base: Base | None = None
) -> bytes:
    """The image's manifest blob; its digest is what deployments pin."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in (*(base.layers if base else ()), *layers)],
        "annotations": dict(sorted(annotations.items())),
    }
    return _canonical(document)


def describe(media_type: str, content: bytes, path: str = "") -> Descriptor:
    """The descriptor of a blob that is in memory."""
    return Descriptor(media_type, digest_of(content), len(content), path)


def digest_of(content: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def parse_image_manifest(content: bytes, where: str) -> tuple[Descriptor, ...]:
    """The layers with model files of an image that `berth` built, in order; those of its base are left out.

    Raises:
        IntegrityError: not an image manifest, a layer of another kind, or a path that is unsafe or repeated.
    """
    try:
        items = json.loads(content)["layers"]
        layers = tuple(_layer(item, where) for item in items if FILE_PATH in (item.get("annotations") or {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError("the image's manifest cannot be read", where=where) from error
    if len({layer.path for layer in layers}) != len(layers):
        raise IntegrityError("two layers of the image hold the same file", where=where)
    return layers


def _layer(item: Any, where: str) -> Descriptor:
    kind, digest, size = item["mediaType"], item["digest"], item["size"]
    path = item.get("annotations", {}).get(FILE_PATH, "")
    texts = all(isinstance(text, str) for text in (kind, digest, path))
    counted = type(size) is int and size >= 0  # a bool is an int too
    if not texts or not counted or kind != LAYER_TYPE or not path or not _DIGEST.fullmatch(digest):
        raise IntegrityError("a layer of the image is not a model file", where=where, why=f"media type {kind}")
    check_path(path)
    return Descriptor(kind, digest, size, path)


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def blobs_of(content: bytes) -> tuple[Descriptor, ...]:
    """Everything that an image manifest names, whoever wrote it: its config first, then its layers.

    Raises:
        IntegrityError: it is no image manifest.
    """
    try:
        document = json.loads(content)
        return tuple(_descriptor(item) for item in (document["config"], *document["layers"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError("the image's manifest cannot be read", why="it names no config and layers") from error


def _descriptor(item: Any) -> Descriptor:
    kind, digest, size = item["mediaType"], item["digest"], item["size"]
    if not isinstance(kind, str) or type(size) is not int or size < 0 or not _DIGEST.fullmatch(digest):
        raise ValueError("no descriptor")
    return Descriptor(kind, digest, size, str((item.get("annotations") or {}).get(FILE_PATH, "")))


def platform_manifest(content: bytes, architecture: str, where: str) -> Descriptor | None:
    """The image of an index for linux and an architecture; None where the document is no index.

    Raises:
        IntegrityError: the index has no such image.
    """
    try:
        document = json.loads(content)
        items = document.get("manifests")
        if not isinstance(items, list):
            return None
        for item in items:
            platform = item.get("platform") or {} if isinstance(item, dict) else {}
            if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
                return _descriptor(item)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError("the image's manifest cannot be read", where=where) from error
    raise IntegrityError(f"the image is not there for linux/{architecture}", where=where)


def layer_piece(entry: FileEntry, offset: int, length: int) -> tuple[bytes, int, int, bytes]:
    """What a range of a file's layer is made of.

    Args:
        entry: the file.
        offset: of the range in the layer.
        length: of the range.

    Returns:
        Bytes of the head, then offset and length of the range of the file, then bytes of the tail.
    """
    head, tail = layer_head(entry), layer_tail(entry.size)
    end = offset + length
    begin_file, end_file = len(head), len(head) + entry.size
    first, last = max(offset, begin_file), min(end, end_file)
    return (
        head[offset:end],
        max(0, first - begin_file),
        max(0, last - first),
        tail[max(0, offset - end_file) : max(0, end - end_file)],
    )


def annotation(content: bytes, key: str) -> str:
    """One annotation of an image manifest that `parse_image_manifest` accepted; empty where it has none."""
    annotations = json.loads(content).get("annotations")
    return str(annotations.get(key, "")) if isinstance(annotations, dict) else ""

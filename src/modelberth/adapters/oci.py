"""OCI image layouts on disk: writing model images into one, and reading them back with every byte checked.

A layout is a folder: `oci-layout`, `index.json` with the tags, and blobs by digest. Several images share the
blobs they have in common. Source: OCI image layout specification 1.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from modelberth.adapters.files import CHUNK_BYTES, disk_errors, write_file, writing
from modelberth.base.errors import IntegrityError
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
MAX_DOCUMENT_BYTES = 64 << 20


class Layout:
    """One image layout; the folder is made when something is first written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tagged(self, tag: str) -> Descriptor | None:
        """The manifest that a tag names, or None."""
        for item in self._index()["manifests"]:
            if _tag(item) == tag:
                return Descriptor(item["mediaType"], item["digest"], item["size"])
        return None

    def set_tag(self, tag: str, manifest: Descriptor) -> None:
        """Let a tag name a manifest; what it named before stays in the layout, untagged."""
        self._write_index(tag, [{**manifest.to_json(), "annotations": {image.REF_NAME: tag}}])

    def remove_tag(self, tag: str) -> None:
        """Let a tag name nothing any more."""
        self._write_index(tag, [])

    def _write_index(self, tag: str, entries: list[dict[str, Any]]) -> None:
        """The index with `entries` in place of what `tag` named."""
        index = self._index()
        index["manifests"] = [*(item for item in index["manifests"] if _tag(item) != tag), *entries]
        write_file(self.folder / "oci-layout", _LAYOUT)
        write_file(self.folder / "index.json", json.dumps(index, indent=1).encode() + b"\n")

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob of this digest and size is there; its bytes are checked when they are read."""
        path = self._path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def write_blob(self, media_type: str, content: bytes, path: str = "") -> Descriptor:
        """Store a small blob."""
        blob = image.describe(media_type, content, path)
        if not self.has(blob):
            write_file(self._path(blob.digest), content)
        return blob

    def write_layer(self, chunks: Iterable[bytes], path: str) -> Descriptor:
        """Store a layer from its bytes; its digest is known, and so is its name, when the last has come."""
        hasher, size = hashlib.sha256(), 0
        arriving = self.folder / "blobs" / "sha256" / f"arriving-{uuid.uuid4().hex}"
        with writing(arriving) as file:
            for chunk in chunks:
                file.write(chunk)
                hasher.update(chunk)
                size += len(chunk)
        blob = Descriptor(image.LAYER_TYPE, "sha256:" + hasher.hexdigest(), size, path)
        with disk_errors(arriving):
            arriving.replace(self._path(blob.digest))
        return blob

    def read_blob(self, blob: Descriptor) -> bytes:
        """A small blob's bytes.

        Raises:
            IntegrityError: it is not there, or its bytes are not those of its digest.
        """
        if blob.size > MAX_DOCUMENT_BYTES:
            raise IntegrityError("the blob is too large for a document", where=blob.digest)
        return b"".join(self.chunks(blob))

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes in pieces; the digest is checked after the last.

        Raises:
            IntegrityError: as for `read_blob`. What was yielded before must not be used then.
        """
        path = self._path(blob.digest)
        if not path.is_file():
            raise self._wrong(blob, "it is not there")
        hasher = hashlib.sha256()
        with disk_errors(path), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != blob.size:
                raise self._wrong(blob, "its size is not the declared one")
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                yield chunk
        if "sha256:" + hasher.hexdigest() != blob.digest:
            raise self._wrong(blob, "its bytes are not those of its digest")

    def remove_unused(self) -> None:
        """Remove blobs that no tag leads to: of images replaced since, and of builds that were killed.

        Only for who holds the layout's lock. Nothing is removed where a manifest cannot be read: what it needs is
        not known then.
        """
        used: set[str] = set()
        for item in self._index()["manifests"]:
            manifest = Descriptor(item["mediaType"], item["digest"], item["size"])
            try:
                blobs = image.blobs_of(self.read_blob(manifest))
            except IntegrityError:
                return
            used |= {digest.partition(":")[2] for digest in (manifest.digest, *blobs)}
        for blob in self.folder.glob("blobs/sha256/*"):
            if blob.name not in used:
                blob.unlink(missing_ok=True)

    def _wrong(self, blob: Descriptor, why: str) -> IntegrityError:
        what = f"layer of {blob.path}" if blob.path else "blob"
        return IntegrityError(
            f"a {what} cannot be used",
            where=str(self._path(blob.digest)),
            why=why,
            next_step="remove it and build the image again",
        )

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise IntegrityError(f"{digest!r} is no digest", where=str(self.folder))
        return self.folder / "blobs" / "sha256" / value

    def _index(self) -> dict[str, Any]:
        path = self.folder / "index.json"
        try:
            index = json.loads(path.read_bytes())
            if not isinstance(index["manifests"], list) or not all(map(_is_descriptor, index["manifests"])):
                raise IntegrityError("the layout's index cannot be read", where=str(path))
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": image.INDEX_TYPE, "manifests": []}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise IntegrityError("the layout's index cannot be read", where=str(path)) from error
        return dict(index)


def _is_descriptor(item: Any) -> bool:
    """Whether an entry of an index, which another tool may have written, is one."""
    kinds = {"mediaType": str, "digest": str, "size": int}
    return (
        isinstance(item, dict)
        and all(isinstance(item.get(key), kind) for key, kind in kinds.items())
        and isinstance(item.get("annotations") or {}, dict)
    )


def _tag(item: dict[str, Any]) -> Any:
    return (item.get("annotations") or {}).get(image.REF_NAME)

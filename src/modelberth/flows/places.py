"""Places that weights come from and go to: a folder, S3, the Hub, an OCI layout, a registry; opened from their address.

What the environment says of stores (AWS_*, KServe's own variables, HF_*) is read here, and the options over it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelberth.adapters.files import OnBytes, ignore_bytes
from modelberth.adapters.folder import HashCache, without
from modelberth.adapters.http_messages import Sink
from modelberth.base.errors import IntegrityError, UsageError
from modelberth.checkpoint.folder import is_weights, model_files
from modelberth.delivery.manifest import (
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    OWN_FOLDER,
    PART_BYTES,
    FileEntry,
    check_part_bytes,
)
from modelberth.flows.deliveries import open_s3_delivery
from modelberth.flows.images import open_image
from modelberth.flows.model_source import check_shelf
from modelberth.flows.origins import FolderOrigin, Origin, S3Origin
from modelberth.flows.s3_settings import settings_from_environment
from modelberth.flows.shelves import MAX_FILES, BucketShelf, Shelf
from modelberth.flows.source import hash_source, open_source
from modelberth.spec.addresses import (
    FolderAddress,
    HubAddress,
    LayoutAddress,
    OciAddress,
    PlaceAddress,
    S3Address,
)

if TYPE_CHECKING:
    from modelberth.adapters.huggingface import HubRepository
    from modelberth.adapters.oci import Layout
    from modelberth.adapters.registry import Registry
    from modelberth.adapters.s3 import S3Store


@dataclass(frozen=True)
class PlaceOptions:
    """How places are reached, and what of a model is taken.

    Attributes:
        endpoint: URL of the S3 store, over what the environment says.
        region: of it.
        profile: AWS profile.
        ca_bundle: file of authorities, for S3 and registries.
        virtual_host: bucket.host (True) or host/bucket (False); None: as the kind of store wants it.
        plain_http: a registry without TLS; loopback ones are taken so anyway.
        stall_seconds: how long nothing may move before a connection is given up.
        part_bytes: bytes of a part, where a new manifest is made.
        exclude: shell patterns of paths that stay behind.
        allow_pickle: let pickles pass.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    ca_bundle: str | None = None
    virtual_host: bool | None = None
    plain_http: bool = False
    stall_seconds: float = 60.0
    part_bytes: int = PART_BYTES
    exclude: tuple[str, ...] = ()
    allow_pickle: bool = False


class Places:
    """Opens places, and closes what it has opened at the end of its block."""

    def __init__(self, options: PlaceOptions, environment: Mapping[str, str] = os.environ) -> None:
        self.options = options
        self._environment = environment
        self._stack = ExitStack()

    def __enter__(self) -> Places:
        """Begin."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close everything."""
        self._stack.close()

    # What opens a kind of place is imported when one is: a library for stores that nobody asked for costs memory.

    def s3(self, bucket: str) -> S3Store:
        """A store's bucket."""
        from modelberth.adapters.s3 import S3Endpoint, S3Store

        options, said = self.options, settings_from_environment(self._environment)
        own = options.profile is None
        endpoint = S3Endpoint(
            options.endpoint or said.endpoint,
            region=options.region or said.region,
            access_key=said.access_key if own else "",
            secret_key=said.secret_key if own else "",
            session_token=said.session_token if own else "",
            profile=options.profile,
            verify=options.ca_bundle or said.verify,
            virtual_host=said.virtual_host if options.virtual_host is None else options.virtual_host,
            anonymous=said.anonymous and own,
            stall_seconds=options.stall_seconds,
        )
        store = S3Store(endpoint, bucket)
        self._stack.callback(store.close)
        return store

    def layout(self, address: LayoutAddress) -> Layout:
        """An image layout."""
        from modelberth.adapters.oci import Layout

        return Layout(Path(address.path).expanduser())

    def blobs(self, address: OciAddress | LayoutAddress) -> Layout | Registry:
        """Where an image's blobs are."""
        return self.layout(address) if isinstance(address, LayoutAddress) else self.registry(address)

    def registry(self, address: OciAddress) -> Registry:
        """A repository of a registry."""
        from modelberth.adapters.registry import Registry, RegistryOptions

        options = RegistryOptions(
            verify=self.options.ca_bundle or True, plain_http=self.options.plain_http or None,
            stall_seconds=self.options.stall_seconds,
        )  # fmt: skip
        registry = Registry(address, options)
        self._stack.callback(registry.close)
        return registry

    def hub(self, address: HubAddress) -> HubRepository:
        """A repository of the Hub."""
        from modelberth.adapters.huggingface import HubRepository

        repository = HubRepository(address, stall_seconds=self.options.stall_seconds)
        self._stack.callback(repository.close)
        return repository

    # --- origins -----------------------------------------------------------------------------------------

    def folder_origin(self, address: FolderAddress, cache: HashCache, on_bytes: OnBytes = ignore_bytes) -> FolderOrigin:
        """A folder, checked and hashed."""
        options, folder = self.options, Path(address.path).expanduser()
        source = open_source(folder, exclude=options.exclude, allow_pickle=options.allow_pickle)
        return FolderOrigin(folder, hash_source(source, cache, on_bytes, options.part_bytes))

    def remote_origin(self, address: PlaceAddress, *, marked: bool) -> Origin:
        """Anything but a folder of this machine, as an origin.

        Args:
            address: of the place.
            marked: whether an S3 prefix must be a complete delivery; else files that lie there are taken as they are.
        """
        if isinstance(address, S3Address):
            store = self.s3(address.bucket)
            if marked or store.read(address.key(MANIFEST_PATH), MAX_MANIFEST_BYTES) is not None:
                return open_s3_delivery(store, address)
            return self._bare_s3(store, address)
        if isinstance(address, HubAddress):
            return self._hub_origin(address)
        if isinstance(address, OciAddress | LayoutAddress):
            return open_image(self.blobs(address), reference(address), str(address))
        raise UsageError("this is a folder of this machine", where=str(address))

    def _bare_s3(self, store: S3Store, address: S3Address) -> Origin:
        shelf = BucketShelf(store, address)
        sizes = {path: size for path, size in shelf.sizes().items() if not path.startswith(OWN_FOLDER)}
        files = self._declared(str(address), shelf, sizes, lambda _path: "", strict=True)
        return S3Origin(store, address, files, self.options.part_bytes)

    def _hub_origin(self, address: HubAddress) -> Origin:
        repository = self.hub(address)
        sizes = repository.sizes()
        pinned = replace(address, revision=repository.commit)

        def sha256(path: str) -> str:
            """As the Hub declares it; small files have none there and are read for it."""
            small = sizes[path] <= _SMALL_BYTES
            return repository.sha256(path) or (_sha256(repository.read(path, 0, sizes[path])) if small else "")

        files = self._declared(str(pinned), repository, sizes, sha256, strict=False)
        return HubOrigin(repository, pinned, files, self.options.part_bytes)

    def _declared(
        self, name: str, shelf: Shelf, sizes: Mapping[str, int], sha256: Callable[[str], str], *, strict: bool
    ) -> tuple[FileEntry, ...]:
        """The files to take of a remote that has no manifest; config, headers and index are checked before that."""
        paths = without(sizes, self.options.exclude)
        if not strict:  # a repository holds much that no engine needs: other formats, pictures, scripts
            paths = [path for path in paths if _is_needed(path, paths)]
        if len(paths) > MAX_FILES:
            raise UsageError(f"there are more than {MAX_FILES:,} files", where=name, next_step="use --exclude")
        kept = model_files(paths, allow_pickle=self.options.allow_pickle)
        _, headers = check_shelf(name, shelf, {path: sizes[path] for path in kept})
        if not headers and not self.options.allow_pickle:
            raise IntegrityError("there are no weights", where=name, why=f"no safetensors among {len(kept)} files")
        check_part_bytes(self.options.part_bytes, max(sizes[path] for path in kept))
        return tuple(FileEntry(path, sizes[path], sha256(path), ()) for path in kept)


_SMALL_BYTES = 16 << 20
"""Larger files are kept apart by the Hub (LFS), and have a SHA-256 there."""
_UNNEEDED_FOLDERS = ("onnx/", "openvino/", "original/", "metal/", "coreml/", "runs/", "assets/", "images/", "figures/")
_UNNEEDED_SUFFIXES = (
    ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".tflite", ".ot", ".npz", ".py", ".sh", ".png",
    ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".mp4", ".ipynb",
)  # fmt: skip


def _is_needed(path: str, paths: list[str]) -> bool:
    """Whether an engine that loads safetensors needs this file of a repository."""
    if not any(is_weights(each) for each in paths):
        return True  # then what is there is refused, or allowed, by name
    return not path.lower().endswith(_UNNEEDED_SUFFIXES) and not path.startswith(_UNNEEDED_FOLDERS)


class HubOrigin:
    """A repository of the Hub at a commit."""

    folder = None

    def __init__(
        self, repository: HubRepository, pinned: HubAddress, files: tuple[FileEntry, ...], part_bytes: int
    ) -> None:
        self._repository = repository
        self.where, self.files, self.part_bytes = str(pinned), files, part_bytes
        self.identity = self.where  # it has its commit

    def read(self, path: str, offset: int, length: int, sink: Sink) -> None:
        """A range of a file into a sink."""
        self._repository.read_into(path, offset, length, sink)

    def confirm(self) -> None:
        """What is read is named by its content."""

    def stop(self) -> None:
        """Close the connections."""
        self._repository.close()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def reference(address: OciAddress | LayoutAddress) -> str:
    """What names an image in its repository or layout: the digest where there is one, else the tag."""
    if isinstance(address, LayoutAddress):
        return address.tag
    return address.digest or address.tag

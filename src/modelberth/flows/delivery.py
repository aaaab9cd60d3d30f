"""The verbs of delivery as functions: ship from anywhere to anywhere, and fetch into a folder."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from modelberth.adapters.files import locked, remove_tree
from modelberth.adapters.folder import HashCache, read_manifest
from modelberth.adapters.oci import Layout
from modelberth.base.clock import Stopwatch
from modelberth.base.errors import UsageError
from modelberth.base.units import format_decimal
from modelberth.delivery.manifest import FileManifest
from modelberth.flows.fetch import fetch_to_folder, is_complete
from modelberth.flows.foreign_image import image_size, is_ours, is_unpacked, unpack_image
from modelberth.flows.images import build_image, manifest_in_image
from modelberth.flows.origins import FolderOrigin, Origin, is_known
from modelberth.flows.places import PlaceOptions, Places, reference
from modelberth.flows.progress import Listener, Note
from modelberth.flows.s3_settings import resolve_source, settings_from_environment
from modelberth.flows.ship import ShipOptions, Shipped, ship_to_s3
from modelberth.flows.source import open_source
from modelberth.flows.stage_clock import StageClock
from modelberth.flows.state import State, open_state
from modelberth.spec.addresses import (
    FolderAddress,
    HubAddress,
    LayoutAddress,
    OciAddress,
    PlaceAddress,
    S3Address,
    parse_place,
)

UNCHANGED = "unchanged"


@dataclass(frozen=True)
class DeliveryRequest:
    """What to deliver where.

    Attributes:
        source: a folder, hf://, s3://, oci:// or oci-layout:PATH:tag.
        destination: a folder, s3://, oci:// or oci-layout:PATH:tag.
        state: folder for everything kept on this machine; the default one where None.
        connections: parts that move at a time.
        workspace: for parts on their way from one remote to another; in the state folder where None.
        base: image that a model image stands on; none where empty.
        verify: read what is at the destination first, and send again what is wrong there.
        places: how places are reached.
    """

    source: str
    destination: str
    state: Path | None = None
    connections: int = 4
    workspace: Path | None = None
    base: str = ""
    verify: bool = False
    places: PlaceOptions = field(default_factory=PlaceOptions)


@dataclass(frozen=True)
class DeliveryReport:
    """What a delivery did.

    Attributes:
        source: where the bytes came from; a Hub id with its commit.
        destination: where they are.
        digest: of the manifest of files, or of the image that deployments pin.
        manifest: of the files that are there.
        changed: False when everything was there already.
        bytes_moved: bytes sent or received.
        seconds: from begin to end.
    """

    source: str
    destination: str
    digest: str
    manifest: FileManifest
    changed: bool
    bytes_moved: int
    seconds: float


def ship(request: DeliveryRequest, listener: Listener) -> DeliveryReport:
    """Ship weights from anywhere to anywhere; every byte is checked, and a run after a kill moves what is missing.

    Raises:
        BerthError: as the command line's exit codes say.
    """
    return _deliver(request, listener, marked=False)


def fetch(request: DeliveryRequest, listener: Listener) -> DeliveryReport:
    """Fetch a complete delivery into a folder; an S3 prefix without its mark is refused.

    Raises:
        UsageError: the destination is no folder.
        BerthError: as the command line's exit codes say.
    """
    if not isinstance(parse_place(request.destination), FolderAddress):
        raise UsageError(
            "a fetch ends in a folder", where=request.destination, next_step="berth ship goes to stores and registries"
        )
    return _deliver(request, listener, marked=True)


def _deliver(request: DeliveryRequest, listener: Listener, *, marked: bool) -> DeliveryReport:
    watch = Stopwatch()
    source_text = resolve_source(request.source, settings_from_environment(os.environ))
    source, destination = parse_place(source_text), parse_place(request.destination)
    state = _state(request, destination, marked=marked)
    with Places(request.places) as places:
        delivery = _Delivery(request, places, state, StageClock(name_of(source), listener), listener)
        shipped, where = delivery.run(source, destination, marked=marked)
    return DeliveryReport(
        where, str(destination), shipped.digest, shipped.manifest, shipped.changed, shipped.bytes_moved, watch.seconds()
    )


def _state(request: DeliveryRequest, destination: PlaceAddress, *, marked: bool) -> State:
    """The state folder. A pod that fetches may have no place to keep anything; it then keeps nothing."""
    if marked and isinstance(destination, FolderAddress) and request.state is None:
        try:
            return open_state(None)
        except UsageError:
            return State(Path(destination.path).expanduser() / ".modelberth" / "state")
    return open_state(request.state)


def name_of(address: PlaceAddress) -> str:
    """A short name of what is delivered, for progress."""
    text = str(address).rstrip("/").rpartition("/")[2]
    return text or str(address)


class _Delivery:
    """One delivery between two opened places."""

    def __init__(
        self, request: DeliveryRequest, places: Places, state: State, clock: StageClock, listener: Listener
    ) -> None:
        self._request, self._places, self._state, self._clock = request, places, state, clock
        self._listener = listener
        self._cache = HashCache(state.hashes)

    def run(self, source: PlaceAddress, destination: PlaceAddress, *, marked: bool) -> tuple[Shipped, str]:
        """Deliver. Returns what was done, and the source as it was read."""
        images = OciAddress | LayoutAddress
        if isinstance(destination, HubAddress):
            raise UsageError("nothing is shipped to the Hugging Face Hub", where=str(destination))
        if isinstance(source, images):
            if isinstance(destination, images):
                return self._copy_image(source, destination), str(source)
            if not is_ours(self._places.blobs(source), reference(source)):
                return self._from_foreign_image(source, destination), str(source)
        origin = self._open(source, marked=marked)
        if isinstance(destination, S3Address):
            return self._to_s3(origin, destination), origin.where
        if isinstance(destination, FolderAddress):
            return self._to_folder(origin, destination), origin.where
        return self._to_image(origin, destination), origin.where

    def _open(self, source: PlaceAddress, *, marked: bool) -> Origin:
        if isinstance(source, FolderAddress):
            with self._clock.stage("hash", f"every file of {source}") as stage:
                origin: Origin = self._places.folder_origin(source, self._cache, stage.moved)
                stage.outcome = summary_of(origin)
            return origin
        with self._clock.stage("check", f"headers and index of {source}") as stage:
            origin = self._places.remote_origin(source, marked=marked)
            stage.outcome = summary_of(origin)
        if not is_known(origin.files) and isinstance(source, S3Address):
            self._listener(Note("", f"{source} has no manifest of files: its bytes are taken as they are"))
        return origin

    # --- destinations ------------------------------------------------------------------------------------

    def _to_s3(self, origin: Origin, destination: S3Address) -> Shipped:
        store = self._places.s3(destination.bucket)
        with self._clock.stage("ship", f"to {destination}") as stage:
            stage.expect(origin_size(origin), len(origin.files))
            options = ShipOptions(
                self._request.connections, self._state.journals, self._workspace(), stage.file_moved,
                self._request.verify,
            )  # fmt: skip
            shipped = ship_to_s3(origin, store, destination, stage.moved, options)
            stage.outcome = _outcome(shipped)
        return shipped

    def _to_folder(self, origin: Origin, destination: FolderAddress) -> Shipped:
        folder = Path(destination.path).expanduser()
        with self._clock.stage("fetch", f"into {folder}") as stage:
            stage.expect(origin_size(origin), len(origin.files))
            fetched = fetch_to_folder(
                origin, folder, self._cache, stage.moved, self._request.connections, stage.file_moved
            )  # fmt: skip
            digest = "sha256:" + fetched.manifest.digest
            shipped = Shipped(digest, fetched.changed, fetched.bytes_moved, fetched.manifest)
            stage.outcome = f"{_outcome(shipped)}, every byte checked" if fetched.changed else UNCHANGED
        return shipped

    def _to_image(self, origin: Origin, destination: OciAddress | LayoutAddress) -> Shipped:
        if isinstance(origin, FolderOrigin):
            return self._folder_to_image(origin, destination)
        # A layer's digest is known when all of it was read, so a remote is first brought into the workspace.
        folder = self._workspace() / "image" / FileManifest(origin.files).digest[:16]
        with self._clock.stage("fetch", f"into {folder}") as stage:
            stage.expect(origin_size(origin))
            fetched = fetch_to_folder(origin, folder, self._cache, stage.moved, self._request.connections)
        shipped = self._folder_to_image(FolderOrigin(folder, fetched.manifest), destination)
        remove_tree(folder)
        return shipped

    def _from_foreign_image(
        self, source: OciAddress | LayoutAddress, destination: S3Address | FolderAddress
    ) -> Shipped:
        """An image that others have built has no manifest of files: it is unpacked first, and then it has one."""
        name = hashlib.sha256(str(source).encode()).hexdigest()[:16]
        folder = self._workspace() / "image" / name
        if isinstance(destination, FolderAddress):
            folder = Path(destination.path).expanduser()
        blobs, options = self._places.blobs(source), self._request.places
        known = read_manifest(folder) if isinstance(destination, FolderAddress) else None
        same = known is not None and is_unpacked(blobs, reference(source), folder)
        if known is not None and same and is_complete(folder, known, self._cache):
            return Shipped("sha256:" + known.digest, changed=False, bytes_moved=0, manifest=known)
        with self._clock.stage("fetch", f"into {folder}; the image was not built by berth") as stage:
            stage.expect(image_size(blobs, reference(source)))
            fetched = unpack_image(
                blobs, reference(source), folder, stage.moved, stage.file_moved, allow_pickle=options.allow_pickle,
                part_bytes=options.part_bytes,
            )  # fmt: skip
            stage.outcome = f"{format_decimal(fetched.bytes_moved)}, every layer checked"
        if isinstance(destination, FolderAddress):
            digest = "sha256:" + fetched.manifest.digest
            return Shipped(digest, changed=True, bytes_moved=fetched.bytes_moved, manifest=fetched.manifest)
        open_source(folder, exclude=options.exclude, allow_pickle=options.allow_pickle)
        shipped = self._to_s3(FolderOrigin(folder, fetched.manifest), destination)
        remove_tree(folder)
        return shipped

    def _folder_to_image(self, origin: FolderOrigin, destination: OciAddress | LayoutAddress) -> Shipped:
        if self._request.verify and isinstance(destination, OciAddress):
            raise UsageError(
                "a registry's blobs cannot be replaced", where=str(destination), why="they are named by their digest",
                next_step="find what is wrong with --check, delete the blob there, then push again",
            )  # fmt: skip
        from modelberth.flows.push import push_folder, read_base

        base = None
        if self._request.base:
            address = parse_image(self._request.base)
            source = self._places.blobs(address)
            base = (source, read_base(source, reference(address)))
        with self._clock.stage("ship", f"to {destination}") as stage:
            stage.expect(origin_size(origin))
            if isinstance(destination, OciAddress):
                shipped = push_folder(
                    origin, self._places.registry(destination), tag_of(destination), self._cache, stage.moved,
                    connections=self._request.connections, base=base, journals=self._state.journals,
                    on_file=stage.file_moved,
                )  # fmt: skip
            else:
                layout = self._places.layout(destination)
                with layout_lock(layout):
                    if self._request.verify:
                        layout.remove_wrong()
                    shipped = build_image(origin, layout, tag_of(destination), stage.moved, base, self._cache)
            stage.outcome = _outcome(shipped)
        return shipped

    def _copy_image(self, source: OciAddress | LayoutAddress, destination: OciAddress | LayoutAddress) -> Shipped:
        from modelberth.flows.push import pull_image, push_image

        there = self._places.blobs(source)
        manifest = manifest_in_image(there, reference(source))[0]
        with self._clock.stage("ship", f"to {destination}") as stage:
            stage.expect(manifest.size)
            if isinstance(destination, OciAddress):
                copied = push_image(
                    there, reference(source), self._places.registry(destination), tag_of(destination), stage.moved,
                    connections=self._request.connections, journals=self._state.journals, on_file=stage.file_moved,
                )  # fmt: skip
            else:
                layout = self._places.layout(destination)
                with layout_lock(layout):
                    copied = pull_image(there, reference(source), layout, tag_of(destination), stage.moved)
            shipped = Shipped(copied.digest, copied.changed, copied.bytes_moved, manifest)
            stage.outcome = _outcome(shipped)
        return shipped

    def _workspace(self) -> Path:
        return self._request.workspace or self._state.workspace


def layout_lock(layout: Layout) -> AbstractContextManager[None]:
    """The lock of an image layout; a second writer is refused."""
    return locked(layout.folder / ".berth.lock", wait=False, holder="this image layout")


def tag_of(address: OciAddress | LayoutAddress) -> str:
    """The tag that an image is given.

    Raises:
        UsageError: the address names a digest, which nobody can choose.
    """
    if isinstance(address, OciAddress) and (address.digest or not address.tag):
        raise UsageError("an image is shipped to a tag", where=str(address), next_step="give oci://registry/name:tag")
    return address.tag


def parse_image(text: str) -> OciAddress | LayoutAddress:
    """The address of an image.

    Raises:
        UsageError: it is the address of something else.
    """
    address = parse_place(text if ":" in text.partition("/")[0] or "://" in text else f"oci://{text}")
    if not isinstance(address, OciAddress | LayoutAddress):
        raise UsageError(f"'{text}' is no image", why="expected oci://registry/name:tag or oci-layout:PATH:tag")
    return address


def origin_size(origin: Origin) -> int:
    """Bytes of all files."""
    return sum(entry.size for entry in origin.files)


def summary_of(origin: Origin) -> str:
    """`12 files, 4.60 MB`."""
    return f"{len(origin.files)} files, {format_decimal(origin_size(origin))}"


def _outcome(shipped: Shipped) -> str:
    return format_decimal(shipped.bytes_moved) if shipped.changed else UNCHANGED

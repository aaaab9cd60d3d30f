"""Deliveries that are there: every byte compared with the manifest, and what killed ships have left, cleared up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from modelberth.adapters.folder import read_manifest
from modelberth.base.clock import Stopwatch
from modelberth.base.errors import IntegrityError, UsageError
from modelberth.delivery.manifest import FileManifest
from modelberth.flows.claims import claimed
from modelberth.flows.deliveries import WrongBytes, check_origin
from modelberth.flows.delivery import DeliveryRequest, layout_lock, name_of, origin_size, summary_of
from modelberth.flows.fetch import incomplete
from modelberth.flows.images import ImageOrigin
from modelberth.flows.origins import FolderOrigin, Origin
from modelberth.flows.places import Places
from modelberth.flows.progress import Listener
from modelberth.flows.stage_clock import StageClock
from modelberth.spec.addresses import FolderAddress, HubAddress, LayoutAddress, PlaceAddress, S3Address, parse_place


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        place: that was read.
        digest: of the manifest of files.
        files: how many.
        size: bytes of all of them.
        wrong: ranges that are not what the manifest says.
        seconds: from begin to end.
    """

    place: str
    digest: str
    files: int
    size: int
    wrong: tuple[WrongBytes, ...]
    seconds: float


def check(request: DeliveryRequest, listener: Listener) -> CheckReport:
    """Read all bytes of a delivery and compare them with its manifest; nothing is kept.

    Args:
        request: whose destination is checked.
        listener: told of the progress.

    Raises:
        IntegrityError: there is no complete delivery, or files are missing or too many.
    """
    watch, address = Stopwatch(), parse_place(request.destination)
    with Places(request.places) as places:
        origin = _marked(places, address)
        with StageClock(name_of(address), listener).stage("check", f"every byte of {address}") as stage:
            stage.expect(origin_size(origin))
            wrong = check_origin(origin, stage.moved, request.connections)
            if isinstance(origin, ImageOrigin):
                frames = origin.wrong_frames()
                wrong += tuple(WrongBytes(path, 0, 0, "the layer's digest is wrong: its tar header") for path in frames)
            stage.outcome = f"{summary_of(origin)}, {len(wrong)} wrong"
    digest = "sha256:" + FileManifest(origin.files, origin.part_bytes).digest
    return CheckReport(str(address), digest, len(origin.files), origin_size(origin), wrong, watch.seconds())


def _marked(places: Places, address: PlaceAddress) -> Origin:
    if isinstance(address, HubAddress):
        raise UsageError("a delivery is checked, not the Hugging Face Hub", where=str(address))
    if not isinstance(address, FolderAddress):
        return places.remote_origin(address, marked=True)
    folder = Path(address.path).expanduser()
    manifest = read_manifest(folder)
    if manifest is None:
        raise incomplete(str(folder))
    for entry in manifest.files:
        if not (folder / entry.path).is_file() or (folder / entry.path).stat().st_size != entry.size:
            raise IntegrityError(
                "the files of the folder are not those of its manifest", where=str(folder / entry.path),
                why="it is missing, or of another size", next_step="fetch the model again",
            )  # fmt: skip
    return FolderOrigin(folder, manifest)


@dataclass(frozen=True)
class Remains:
    """Something that a ship left behind: what it is, its name, and since when."""

    kind: str
    name: str
    since: datetime | None


def collect_garbage(request: DeliveryRequest, *, remove: bool) -> tuple[Remains, ...]:
    """What ships that were killed have left at a destination, and its removal.

    Args:
        request: whose destination is looked at: an S3 prefix or an image layout.
        remove: whether it is removed.

    Raises:
        Conflict: a ship to this destination is under way.
        UsageError: there is nothing to collect at such a place.
    """
    address = parse_place(request.destination)
    with Places(request.places) as places:
        if isinstance(address, S3Address):
            return _s3_garbage(places, address, remove=remove)
        if isinstance(address, LayoutAddress):
            layout = places.layout(address)
            if not layout.folder.is_dir():
                return ()  # a lock would make it
            with layout_lock(layout):
                unused = layout.unused()
                for digest in unused if remove else ():
                    layout.remove_blob(digest)
            return tuple(Remains("blob", digest, None) for digest in unused)
    raise UsageError(
        "there is nothing to collect at such a place", where=str(address),
        next_step="give s3://bucket/prefix/ or oci-layout:PATH:tag; a registry collects its own garbage",
    )  # fmt: skip


def _s3_garbage(places: Places, address: S3Address, *, remove: bool) -> tuple[Remains, ...]:
    store = places.s3(address.bucket)
    # Who holds the right to ship knows that every upload under way is an orphan.
    with claimed(store, address.prefix):
        pending = store.pending_uploads(address.prefix)
        for upload in pending if remove else ():
            store.abort_upload(upload.key, upload.id)
    return tuple(Remains("multipart upload", upload.key, upload.initiated) for upload in pending)

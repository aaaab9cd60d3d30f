"""The delivery of `berth up`: each service's weights go where the cluster would find them, and come back as it would.

S3 weights go through the embedded S3 server, OCI weights through an image layout on disk; then both are fetched
into serving folders with every byte checked. A serving folder is named by its content and never changed, so
another run that serves from one is not disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelberth.adapters.files import locked, remove_tree, require_room
from modelberth.adapters.folder import HashCache
from modelberth.adapters.oci import Layout
from modelberth.adapters.s3 import S3Endpoint, S3Store
from modelberth.adapters.s3_server import S3Server, start_server
from modelberth.base.errors import Conflict, DoesNotFit, IntegrityError, RemoteUnavailable, UsageError
from modelberth.base.units import MIB, format_decimal
from modelberth.delivery.manifest import MANIFEST_PATH, FileManifest
from modelberth.flows.deliveries import open_s3_delivery
from modelberth.flows.fetch import fetch_to_folder, is_complete, summary
from modelberth.flows.images import build_image, open_image
from modelberth.flows.origins import FolderOrigin, Origin
from modelberth.flows.progress import Listener, Note
from modelberth.flows.ship import ShipOptions, Shipped, ship_to_s3
from modelberth.flows.source import Source, hash_source, open_source
from modelberth.flows.stage_clock import Running, StageClock
from modelberth.flows.state import StackFolder, State
from modelberth.spec.addresses import FolderAddress, OciAddress, S3Address
from modelberth.spec.services import Service

UNCHANGED = "unchanged"
_MARGIN = 16 * MIB
"""Room beyond the weights themselves: manifests, logs, compiled kernels."""


@dataclass(frozen=True)
class Delivered:
    """A service whose verified weights are in a folder."""

    service: Service
    folder: Path
    size: int
    digest: str


def service_source(service: Service, base: Path) -> Source:
    """The checked source folder of a service.

    Args:
        service: whose weights.
        base: folder of the stack's file; relative sources are relative to it.

    Raises:
        UsageError: the service has no source folder.
        IntegrityError: what is in it is no sound model.
    """
    if not isinstance(service.source, FolderAddress):
        found = f"its source is {service.source}" if service.source else "it names no source"
        raise UsageError(
            f"{service.name} has no folder to take its weights from", why=found,
            next_step="give the variant a folder: source: ./weights",
        )  # fmt: skip
    return open_source((base / service.source.path).expanduser())


class Delivery:
    """Ships and fetches the services of one stack under its lock."""

    def __init__(self, state: State, stack: StackFolder, run: Path, listener: Listener) -> None:
        self._stack, self._run, self._listener = stack, run, listener
        self._cache = HashCache(state.hashes)
        self._server: S3Server | None = None
        self._stores: dict[str, S3Store] = {}

    @contextmanager
    def open(self) -> Iterator[Delivery]:
        """Hold the lock and, once it is needed, the S3 server, as long as the block runs."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._stack.lock, wait=False))
            except Conflict:
                self._listener(Note("", "another run of this stack is delivering; waiting for it"))
                stack.enter_context(locked(self._stack.lock))
            stack.callback(self._close)
            yield self

    def _close(self) -> None:
        for store in self._stores.values():
            store.close()
        if self._server:
            self._server.stop()

    def deliver(self, service: Service, source: Source, clock: StageClock, held: ExitStack) -> Delivered:
        """Ship one service's weights and fetch them back; says "unchanged" where nothing had to move.

        Args:
            service: whose weights.
            source: the checked folder that they come from.
            clock: times the two stages.
            held: keeps the serving folder from being removed by other runs until it is closed.
        """
        with clock.stage("ship", f"to {service.weights}") as stage:
            stage.expect(source.size)
            manifest = hash_source(source, self._cache, lambda _count: None)
            with self._full_disk_told():
                shipped = self._ship(service, source, manifest, stage)
            stage.outcome = format_decimal(shipped.bytes_moved) if shipped.changed else UNCHANGED
        with clock.stage("fetch", f"from {service.weights}") as stage:
            stage.expect(manifest.size)
            folder = self._stack.serving(service.name, manifest.digest)
            if is_complete(folder, manifest, self._cache):
                stage.outcome = UNCHANGED
            else:
                with self._wrong_bytes_forgotten(service):
                    self._fetch(service, folder, stage)
                stage.outcome = f"{summary(manifest)}, every byte checked"
            held.enter_context(locked(_lock_of(folder), shared=True))
            _remove_abandoned(folder)
        return Delivered(service, folder, manifest.size, shipped.digest)

    def _ship(self, service: Service, source: Source, manifest: FileManifest, stage: Running) -> Shipped:
        if isinstance(service.weights, S3Address):
            store, options = self._store(service.weights.bucket), ShipOptions(journals=self._stack.root / "journals")
            return ship_to_s3(
                FolderOrigin(source.folder, manifest), store, service.weights, stage.moved, options
            )  # fmt: skip
        return build_image(FolderOrigin(source.folder, manifest), self._layout(), _tag(service.weights), stage.moved)

    def _fetch(self, service: Service, folder: Path, stage: Running) -> None:
        """Into a fresh folder beside the final one, which gets its name when it is complete."""
        arriving = folder.with_name(folder.name + ".arriving")
        remove_tree(folder)  # of the same content and damaged, else it would have been complete
        if isinstance(service.weights, S3Address):
            origin: Origin = open_s3_delivery(self._store(service.weights.bucket), service.weights)
        else:
            origin = open_image(self._layout(), _tag(service.weights), str(service.weights))
        fetch_to_folder(origin, arriving, self._cache, stage.moved)
        arriving.rename(folder)

    def _layout(self) -> Layout:
        return Layout(self._stack.oci)

    def _store(self, bucket: str) -> S3Store:
        if self._server is None:
            self._server = start_server(self._stack.s3, self._run / "s3.log")
        if bucket not in self._stores:
            keys = self._server.keys
            endpoint = S3Endpoint(self._server.endpoint, access_key=keys.access_key, secret_key=keys.secret_key)
            self._stores[bucket] = S3Store(endpoint, bucket)
            self._stores[bucket].ensure_bucket()
        return self._stores[bucket]

    @contextmanager
    def _wrong_bytes_forgotten(self, service: Service) -> Iterator[None]:
        """Shipping compares sizes, so wrong bytes at rest would stay: forget the delivery, and it is made anew."""
        try:
            yield
        except IntegrityError as error:
            if isinstance(service.weights, S3Address):
                self._store(service.weights.bucket).delete(service.weights.key(MANIFEST_PATH))
            else:
                self._layout().remove_tag(_tag(service.weights))
            error.next_step = "run the same command again: it ships these weights anew"
            raise

    @contextmanager
    def _full_disk_told(self) -> Iterator[None]:
        """The embedded server answers 500 when its disk is full; say what it is."""
        try:
            yield
        except RemoteUnavailable as error:
            try:
                require_room(self._stack.root, _MARGIN)
            except DoesNotFit as full:
                raise full from error
            raise


def _lock_of(folder: Path) -> Path:
    """The lock that runs hold, shared, while they serve from a folder."""
    return folder.with_name(folder.name + ".lock")


def _remove_abandoned(folder: Path) -> None:
    """Remove earlier contents of a service that no run serves from. Only for who holds the delivery's lock."""
    for other in folder.parent.iterdir():
        if other == folder or not other.is_dir():
            continue
        with suppress(Conflict), locked(_lock_of(other), wait=False):
            remove_tree(other)
            _lock_of(other).unlink()


def require_delivery_room(stack: StackFolder, services: list[tuple[Service, Source]]) -> None:
    """Refuse to begin when the disk cannot take what is still missing of all services.

    Raises:
        DoesNotFit: with the bytes needed and free.
    """
    missing = sum(source.size * _copies_missing(stack, service) for service, source in services)
    if missing:
        require_room(stack.root, missing + _MARGIN)


def _copies_missing(stack: StackFolder, service: Service) -> int:
    """How many of a service's two copies (store, serving folder) were never made; a changed source is not known yet."""
    if isinstance(service.weights, S3Address):
        stored = (stack.s3 / service.weights.bucket / service.weights.prefix).is_dir()
    else:
        stored = (stack.oci / "index.json").is_file()
    served = (stack.root / "serve" / service.name).is_dir()
    return (not stored) + (not served)


def _tag(address: OciAddress) -> str:
    """The name of an image in the layout: its whole address, since one layout holds the images of a stack."""
    return str(address).removeprefix("oci://")

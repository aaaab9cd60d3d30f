"""What an image holds and what it asks of a node: its layers, its files, and the disk that pulling it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelberth.base.errors import IntegrityError
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor
from modelberth.delivery.manifest import MANIFEST_PATH, FileManifest
from modelberth.flows.delivery import parse_image
from modelberth.flows.images import BASE_DIGEST, manifest_in_image, read_image
from modelberth.flows.places import PlaceOptions, Places, reference
from modelberth.sizing.storage import image_peak_bytes

if TYPE_CHECKING:
    from modelberth.flows.images import Blobs


@dataclass(frozen=True)
class ImageReport:
    """An image as it is stored.

    Attributes:
        address: as it was given.
        digest: of its manifest; what deployments pin.
        base: digest of the image that it stands on; empty where it says none.
        layers: in their order; those with a model file carry its path.
        manifest: of the model files; None where `berth` did not build the image.
        size: bytes of all layers.
        peak: bytes of a node's disk while it is pulled: unpacked, and the layers in flight beside it.
    """

    address: str
    digest: str
    base: str
    layers: tuple[Descriptor, ...]
    manifest: FileManifest | None
    size: int
    peak: int


def inspect_image(text: str, options: PlaceOptions) -> ImageReport:
    """Read an image's manifest and its manifest of files; no layer with weights is read.

    Raises:
        IntegrityError: it is not there, or not to be read.
    """
    address = parse_image(text)
    with Places(options) as places:
        blobs = places.blobs(address)
        descriptor, content = read_image(blobs, reference(address), str(address))
        _config, *layers = image.blobs_of(content)
        manifest = _files(blobs, descriptor.digest, layers)
    sizes = [layer.size for layer in layers]
    base = image.annotation(content, BASE_DIGEST)
    return ImageReport(
        str(address), descriptor.digest, base, tuple(layers), manifest, sum(sizes), image_peak_bytes(sizes)
    )


def _files(blobs: Blobs, digest: str, layers: list[Descriptor]) -> FileManifest | None:
    """The manifest of files, where there is one."""
    if MANIFEST_PATH not in {layer.path for layer in layers}:
        return None
    try:
        return manifest_in_image(blobs, digest)[0]
    except IntegrityError as error:
        error.next_step = error.next_step or "build the image again"
        raise

"""Where the weights of a service are better kept: in an OCI image or in S3, from bytes and disks, not from a law.

An image is pulled to the node's disk once and stays there for the next start; its peak is the unpacked image and the
layers in flight (one layer a file; with a single layer the peak is twice the image). From S3 a pod downloads into its
ephemeral storage at every start. Sources: catalogue (storage.json), notes on CRI-O's unpacking: there is no limit of
20 GB, only a disk that is too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelberth.base.units import MIB, format_decimal, format_seconds
from modelberth.catalog import load


@dataclass(frozen=True)
class StorageAdvice:
    """Where to keep the weights, and the figures behind it.

    Attributes:
        kind: `oci` or `s3`.
        reason: why, with this case's numbers.
        image_bytes: what is delivered.
        image_peak_bytes: disk of the node while an image is pulled.
        disk_bytes: the node's disk; None where it is not known.
        start_seconds: reading or writing it once at the disk's usual rate.
    """

    kind: str
    reason: str
    image_bytes: int
    image_peak_bytes: int
    disk_bytes: int | None
    start_seconds: float


def image_peak_bytes(layers: Sequence[int]) -> int:
    """Disk of a node while an image of these layers is pulled: all of it unpacked, and the largest layers in flight.

    A layer is written to a file as a whole before it is unpacked. Source: catalogue (storage.json, unpackedInFlight).
    """
    in_flight = load("storage")["unpackedInFlight"]["value"]
    return sum(layers) + sum(sorted(layers, reverse=True)[:in_flight])


def advise(image_bytes: int, disk_bytes: int | None) -> StorageAdvice:
    """Where weights of a size are better kept.

    Args:
        image_bytes: all files that are delivered.
        disk_bytes: the node's disk for images and ephemeral storage; None where it is not known.
    """
    facts = load("storage")
    in_flight = facts["unpackedInFlight"]["value"] * facts["typicalShardBytes"]["value"]
    peak = image_bytes + min(image_bytes, in_flight)
    seconds = image_bytes / (facts["diskMiBPerSecond"]["value"] * MIB)
    share = facts["imageDiskShare"]["value"]
    rate = f"about {format_seconds(seconds)} at {facts['diskMiBPerSecond']['value']} MiB/s"
    if disk_bytes is None:
        kind, reason = _unknown_disk(peak, share, rate)
    elif peak > disk_bytes * share:
        kind = "s3"
        reason = (
            f"an image needs {format_decimal(peak)} while it is pulled; {share:.0%} of a disk of "
            f"{format_decimal(disk_bytes)} are {format_decimal(int(disk_bytes * share))}"
        )
    else:
        kind = "oci"
        reason = (
            f"an image of {format_decimal(image_bytes)} needs {format_decimal(peak)} while it is pulled and fits; it "
            f"stays on the node, where S3 would be downloaded at every start ({rate})"
        )
    return StorageAdvice(kind, reason, image_bytes, peak, disk_bytes, seconds)


def _unknown_disk(peak: int, share: float, rate: str) -> tuple[str, str]:
    need = format_decimal(round(peak / share))
    return "oci", f"with a node disk of {need} or more an image is pulled once and kept ({rate}); with less, S3"

"""Machines with GPUs that clouds rent, and what they cost on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelberth.catalog import load


@dataclass(frozen=True)
class InstanceType:
    """One machine type of one cloud.

    Attributes:
        name: as the cloud calls it, `g6.12xlarge`.
        cloud: `aws`, `azure` or `gcp`.
        gpu: product label of its GPUs, a key into the GPU catalogue.
        gpus: how many it has.
        price_per_hour: US dollars, on demand, for the whole machine; None where no price was found.
        region: the region of that price; None without one.
        vcpus: virtual processors.
        memory_gib: main memory, GiB.
        local_disk_gb: local disks that come with it, GB in all; None where it has none or none is known.
        source: where price and sizes are from.
        date: when the price was read, `2026-07-20`.
    """

    name: str
    cloud: str
    gpu: str
    gpus: int
    price_per_hour: float | None
    region: str | None
    vcpus: int
    memory_gib: int
    local_disk_gb: int | None
    source: str
    date: str


@cache
def all_instances() -> tuple[InstanceType, ...]:
    """Every machine type known, in the order of the data file."""
    document = load("instances")
    return tuple(_instance(entry, document["sources"]) for entry in document["instances"])


def find_instance(name: str) -> InstanceType | None:
    """The machine type of that name, whatever its case, or None."""
    wanted = name.strip().casefold()
    return next((instance for instance in all_instances() if instance.name.casefold() == wanted), None)


def instances_with(product: str) -> tuple[InstanceType, ...]:
    """The machine types with GPUs of that product label, cheapest first, those without a price last."""
    found = (instance for instance in all_instances() if instance.gpu == product)
    return tuple(sorted(found, key=_by_price))


def _by_price(instance: InstanceType) -> tuple[bool, float, str]:
    price = instance.price_per_hour
    return price is None, price or 0.0, instance.name


def _instance(entry: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]) -> InstanceType:
    origin = sources[entry["source"]]
    return InstanceType(
        name=entry["name"],
        cloud=entry["cloud"],
        gpu=entry["gpu"],
        gpus=entry["gpus"],
        price_per_hour=entry["pricePerHour"],
        region=entry["region"],
        vcpus=entry["vcpus"],
        memory_gib=entry["memoryGiB"],
        local_disk_gb=entry["localDiskGB"],
        source=origin["source"],
        date=origin["date"],
    )

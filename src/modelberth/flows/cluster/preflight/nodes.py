"""Nodes: cards that are free, drivers against the engine's CUDA, disks against images and weights.

Labels: GPU feature discovery (`nvidia.com/gpu.product`, `nvidia.com/cuda.driver-version.full`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from modelberth.adapters.kubernetes_api import Document
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.errors import DoesNotFit, PrerequisiteMissing
from modelberth.base.units import format_decimal, parse_bytes
from modelberth.catalog.drivers import driver_trouble, release_trouble
from modelberth.catalog.platforms import platform
from modelberth.flows.cluster.preflight.checked import Checked, Wanted, failed, labels_of
from modelberth.flows.cluster.quantities import quantity
from modelberth.manifests.nodes import PRODUCT_LABEL
from modelberth.manifests.resources import GPU
from modelberth.sizing.storage import advise
from modelberth.spec.addresses import OciAddress
from modelberth.spec.cluster import Pool
from modelberth.spec.services import Service

_DRIVER = ("nvidia.com/cuda.driver-version.full", "nvidia.com/cuda.driver.major")
_MOST_NODES = 4


def gpus(wanted: Wanted) -> Iterator[Checked]:
    """Cards of each pool: wanted, free and there; without a stack, those of the cluster."""
    nodes = [each for each in wanted.nodes if labels_of(each).get(PRODUCT_LABEL)]
    taken = _taken(wanted)
    if wanted.stack is None:
        for product in sorted({labels_of(each)[PRODUCT_LABEL] for each in nodes}):
            total, free = _count([each for each in nodes if labels_of(each)[PRODUCT_LABEL] == product], taken)
            yield Checked("GPUs", "ok", f"{product}: {free} of {total} free")
        if not nodes:
            yield Checked("GPUs", "warning", "no node says that it has any", "is the GPU operator installed?")
        return
    for pool in wanted.stack.pools:
        yield from _pool(wanted, pool, wanted.nodes_of(pool), taken)


def _pool(wanted: Wanted, pool: Pool, nodes: Sequence[Document], taken: Mapping[str, int]) -> Iterator[Checked]:
    asked = sum(each.gpus for each in wanted.services if each.pool.name == pool.name)
    total, free = _count(nodes, taken)
    text = f"pool {pool.name}: {asked} of {pool.gpu} wanted, {free} of {total} free"
    if total < asked:
        yield failed("GPUs", text, "berth deploy --scale-machinesets, or add nodes", DoesNotFit)
    elif free < asked:
        yield Checked("GPUs", "warning", text, "the services wait until others give theirs back")
    else:
        yield Checked("GPUs", "ok", text)
    versions = {labels_of(each).get(label) for each in nodes for label in _DRIVER} - {None}
    for driver in sorted(map(str, versions)):
        yield _driver(wanted, pool, driver)


def _driver(wanted: Wanted, pool: Pool, driver: str) -> Checked:
    major = driver.partition(".")[0]
    trouble = _trouble(wanted, int(major)) if major.isdigit() else None
    if trouble:
        return failed("driver", f"pool {pool.name}: {trouble[0]}", trouble[1], PrerequisiteMissing)
    return Checked("driver", "ok", f"pool {pool.name}: {driver}")


def _trouble(wanted: Wanted, driver: int) -> tuple[str, str] | None:
    """What a driver does to the engine's image: the platform's own, or one that holds a known release of vLLM."""
    declared = wanted.stack.platform if wanted.stack else None
    if declared is None:
        return None
    if declared.kind == "rhoai" and declared.engine_image is None:
        return driver_trouble(declared.kind, declared.version, driver)
    facts = platform(declared.kind, declared.version, release=declared.vllm, image=declared.engine_image)
    return release_trouble(facts.vllm, driver)


def _taken(wanted: Wanted) -> dict[str, int]:
    """GPUs that pods hold, by node."""
    found: dict[str, int] = {}
    for pod in wanted.cluster.list(PODS).items:
        spec = pod.get("spec") or {}
        if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"} or not spec.get("nodeName"):
            continue
        for each in spec.get("containers") or []:
            count = int(quantity(((each.get("resources") or {}).get("limits") or {}).get(GPU)))
            found[spec["nodeName"]] = found.get(spec["nodeName"], 0) + count
    return found


def _count(nodes: Sequence[Document], taken: Mapping[str, int]) -> tuple[int, int]:
    total = sum(int(_allocatable(each, GPU)) for each in nodes)
    return total, total - sum(taken.get(str(each["metadata"]["name"]), 0) for each in nodes)


def _allocatable(node: Document, resource: str) -> float:
    return quantity((node.get("status") or {}).get("allocatable", {}).get(resource))


def disks(wanted: Wanted) -> Iterator[Checked]:
    """Each node of a pool against what a service writes to its disk, in bytes."""
    for each in wanted.services:
        nodes = wanted.nodes_of(each.pool)
        if each.variant.weights_size is None:
            text = f"{each.name}: not compared: the variant declares no weightsSize"
            yield Checked("node disks", "ok", text)
        elif nodes:
            yield _disk(each, parse_bytes(each.variant.weights_size), nodes)


def _disk(service: Service, weights: int, nodes: Sequence[Document]) -> Checked:
    """An image needs its peak while it is pulled (all of it unpacked, and layers in flight); a download its files."""
    image = isinstance(service.weights, OciAddress)
    needed = advise(weights, None).image_peak_bytes if image else weights
    what = f"{format_decimal(weights)} of weights"
    if image:
        what = f"an image of {format_decimal(weights)} takes {format_decimal(needed)} while it is pulled"
    rooms = {str(node["metadata"]["name"]): int(_allocatable(node, "ephemeral-storage")) for node in nodes}
    small = {name: needed - room for name, room in rooms.items() if room < needed}
    if not small:
        return Checked("node disks", "ok", f"{service.name}: {what}, {format_decimal(min(rooms.values()))} on the "
                                           "smallest node")  # fmt: skip
    listed = ", ".join(f"{name} lacks {format_decimal(lack)}" for name, lack in sorted(small.items())[:_MOST_NODES])
    more = f" and {len(small) - _MOST_NODES} more" if len(small) > _MOST_NODES else ""
    text = f"{service.name}: {what}: {listed}{more}"
    fix = "larger disks, or weights in a smaller format" + (", or on S3, which takes them once" if image else "")
    if len(small) < len(rooms):
        return Checked("node disks", "warning", text, fix)
    return failed("node disks", text, fix, DoesNotFit)

"""The GPUs that plans are made for: what they are called, and the memory that an engine really sees on them.

The memory of a plan is `cuda_gib`, what CUDA reports in all. It is less than the card's nominal size and less than
what nvidia-smi shows, and it varies with the driver, hence a range.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.base.text import printable, shorten
from modelberth.base.units import GIB
from modelberth.catalog import load

# What GPU feature discovery appends to the label where a card is time-sliced or shared through MPS.
_SHARED = re.compile(r"-shared\s*$", re.IGNORECASE)
# A slice of a card, as in `NVIDIA-A100-SXM4-80GB-MIG-3g.40gb` or `NVIDIA A100-SXM4-40GB MIG 1g.5gb`.
_MIG = re.compile(r"[\s_-]+mig[\s_-]+(?:\d+c\.)?\d+g\..*$", re.IGNORECASE)
_BRANDS = re.compile(r"^(?:nvidia|amd|tesla|geforce)+")


@dataclass(frozen=True)
class Gpu:
    """One kind of card.

    Attributes:
        product: value of the node label: `nvidia.com/gpu.product` as GPU feature discovery writes it, for AMD
            `amd.com/gpu.product-name` as its node labeller does.
        name: short common name, unique.
        aliases: other common names; one that several cards share means the card that has it in `default_for`.
        default_for: the shared aliases that mean this card.
        vendor: `nvidia` or `amd`.
        smi_mib: memory that nvidia-smi or rocm-smi shows, MiB; None where it shows none.
        cuda_gib: memory that CUDA or HIP reports in all, GiB: lowest, most frequent and highest seen.
        multiprocessors: streaming multiprocessors, for AMD compute units.
        compute_capability: as `8.9`; for AMD the architecture, as `gfx942`.
        bf16: whether it computes in bfloat16.
        bandwidth_gbs: memory bandwidth, 10^9 bytes a second.
        bf16_tflops: dense peak in bf16, or in fp16 where there is no bf16, 10^12 operations a second.
        fp8_tflops: dense peak in FP8; None where the card does not compute in it.
        link: how GPUs of one machine are connected: `nvlink`, `pcie`, `infinity-fabric` or `unified`.
        link_text: the link in words, with its bandwidth.
        note: what else must be known, empty for most.
        source: where the facts are from.
        date: when they were read, `2026-11`.
        uncertain: names of those fields, as in the data file, that nothing found confirms for this very card.
    """

    product: str
    name: str
    aliases: tuple[str, ...]
    default_for: tuple[str, ...]
    vendor: str
    smi_mib: int | None
    cuda_gib: tuple[float, float, float]
    multiprocessors: int
    compute_capability: str
    bf16: bool
    bandwidth_gbs: float
    bf16_tflops: float
    fp8_tflops: float | None
    link: str
    link_text: str
    note: str
    source: str
    date: str
    uncertain: tuple[str, ...]

    @property
    def cuda_bytes(self) -> tuple[int, int, int]:
        """`cuda_gib` in bytes: low, mid, high."""
        low, mid, high = (round(size * GIB) for size in self.cuda_gib)
        return low, mid, high

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA compute capability as (major, minor), to compare; None for AMD."""
        if self.vendor != "nvidia":
            return None
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


@cache
def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU known, in the order of the data file."""
    return tuple(_gpu(entry) for entry in load("gpus")["gpus"])


def find_gpu(text: str) -> Gpu:
    """The GPU that a node label or a common name means.

    Case, spaces, hyphens, underscores and a leading NVIDIA, AMD, Tesla or GeForce make no difference. The label of a
    shared card (`NVIDIA-L4-SHARED`) means that card: its tenants see all of its memory.

    Raises:
        UsageError: no GPU, or more than one, has this name, or it names a MIG slice of a card.
    """
    slice_of = _MIG.search(text)
    if slice_of:
        raise _refused_slice(text, slice_of)
    gpu = _index().get(_fold(text))
    if gpu is None:
        raise _unknown(text)
    return gpu


def _fold(text: str) -> str:
    """A name without what people write differently."""
    joined = _BRANDS.sub("", re.sub(r"[\s_-]+", "", _SHARED.sub("", text).casefold()))
    return re.sub(r"(?<=\d)g$", "gb", joined)


@cache
def _index() -> Mapping[str, Gpu]:
    """Folded name -> GPU. A label or a name comes before an alias, a default before the others that share one."""
    index: dict[str, Gpu] = {}
    for gpu in all_gpus():
        for name in (gpu.product, gpu.name):
            index.setdefault(_fold(name), gpu)
    for gpu in all_gpus():
        for name in gpu.default_for:
            index.setdefault(_fold(name), gpu)
    for gpu in all_gpus():
        for name in gpu.aliases:
            index.setdefault(_fold(name), gpu)
    return index


def _unknown(text: str) -> UsageError:
    """The error for a name that means no GPU, with at most five that it may have meant."""
    matches = difflib.get_close_matches(_fold(text), _index(), n=len(_index()), cutoff=0.5)
    near = list(dict.fromkeys(_index()[match].product for match in matches))[:5]
    return UsageError(
        f"no GPU is known as '{shorten(printable(text), 60)}'",
        why=f"nearest: {', '.join(near)}" if near else "no known name is near",
        next_step=f"name the card as its node label does, for example {near[0] if near else 'NVIDIA-L4'}",
    )


def _refused_slice(text: str, found: re.Match[str]) -> UsageError:
    """The error for a MIG slice, naming the whole card if it is known."""
    card = _index().get(_fold(text[: found.start()]))
    whole = card.product if card else "the whole card"
    return UsageError(
        f"'{shorten(printable(text), 60)}' is a MIG slice, not a whole card",
        why="memory, bandwidth and links of a slice are not those of the card, and plans are made for whole cards",
        next_step=f"plan for {whole}, on nodes where MIG is off",
    )


def _gpu(entry: Mapping[str, Any]) -> Gpu:
    low, mid, high = entry["cudaGiB"]
    return Gpu(
        product=entry["product"],
        name=entry["name"],
        aliases=tuple(entry["aliases"]),
        default_for=tuple(entry.get("defaultFor", ())),
        vendor=entry["vendor"],
        smi_mib=entry["smiMiB"],
        cuda_gib=(low, mid, high),
        multiprocessors=entry["multiprocessors"],
        compute_capability=entry["computeCapability"],
        bf16=entry["bf16"],
        bandwidth_gbs=entry["bandwidthGBs"],
        bf16_tflops=entry["bf16Tflops"],
        fp8_tflops=entry["fp8Tflops"],
        link=entry["link"],
        link_text=entry["linkText"],
        note=entry.get("note", ""),
        source=entry["source"],
        date=entry["date"],
        uncertain=tuple(entry["uncertain"]),
    )

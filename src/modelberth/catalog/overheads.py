"""Memory that no structure explains: taken by the driver, by NCCL and by graphs, as measured ranges.

Entries are searched from the top; the first that fits release, ranks, compute capability and link holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelberth.catalog import load
from modelberth.catalog.vllm import Release, within


@dataclass(frozen=True)
class Overhead:
    """A measured range.

    Attributes:
        gib: low, mid, high, GiB on one rank.
        source: where it was measured.
    """

    gib: tuple[float, float, float]
    source: str


def overhead(table: str, release: Release, ranks: int, major: int, link: str) -> Overhead:
    """The first entry of a table that fits.

    Args:
        table: `nonTorch`, `context` or `coldCompile`.
        release: of vLLM.
        ranks: GPUs that share the model.
        major: major number of the compute capability.
        link: `nvlink`, `pcie`, ...
    """
    for entry in load("overheads")[table]:
        if _fits(entry, release, ranks, major, link):
            low, mid, high = entry["gib"]
            return Overhead((low, mid, high), entry["source"])
    raise KeyError(table)


def _fits(entry: Mapping[str, Any], release: Release, ranks: int, major: int, link: str) -> bool:
    if not within(release, entry["since"], entry.get("before")):
        return False
    few, many = entry.get("ranks", (1, 1 << 20))
    return few <= ranks <= many and major in entry.get("majors", (major,)) and link in entry.get("links", (link,))

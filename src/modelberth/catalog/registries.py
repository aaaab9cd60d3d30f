"""How large a layer may be, registry by registry, where that is published."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelberth.catalog import load


@dataclass(frozen=True)
class LayerLimit:
    """The largest layer that a registry takes.

    Attributes:
        name: of the registry.
        bytes: of one layer.
        source: where that is said.
        date: when it was read, `2026-11`.
    """

    name: str
    bytes: int
    source: str
    date: str


def layer_limit(registry_host: str) -> LayerLimit | None:
    """The limit of a registry by its host, with a port or without; None where none is known."""
    host = re.sub(r":\d+$", "", registry_host).lower()
    for entry in load("registries")["limits"]:
        if re.fullmatch(entry["hosts"], host):
            return LayerLimit(entry["name"], entry["bytes"], entry["source"], entry["date"])
    return None

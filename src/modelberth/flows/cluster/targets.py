"""What a user names on the command line: services, or a berth.yaml for all of its services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelberth.base.units import parse_bytes
from modelberth.flows.spec_file import SpecFile, read_spec_file
from modelberth.manifests.resources import moving_seconds, start_seconds
from modelberth.spec.addresses import OciAddress
from modelberth.spec.services import Service, services
from modelberth.timeline.pod_times import DOWNLOAD, IMAGE
from modelberth.timeline.stages import WEIGHTS


@dataclass(frozen=True)
class Chosen:
    """What was named.

    Attributes:
        names: of the services; None for all of the namespace.
        namespace: of the spec; None where none was named.
        spec: as it was read; None where none was named.
    """

    names: tuple[str, ...] | None
    namespace: str | None = None
    spec: SpecFile | None = None


def choose(targets: Sequence[str]) -> Chosen:
    """Names of services, or one berth.yaml.

    Raises:
        SpecError, UsageError: the file is not valid.
    """
    if not targets:
        return Chosen(None)
    first = targets[0]
    if len(targets) == 1 and (first.endswith((".yaml", ".yml")) or "/" in first):
        spec = read_spec_file(Path(first))
        return Chosen(tuple(each.name for each in services(spec.stack)), spec.stack.metadata.namespace, spec)
    return Chosen(tuple(targets))


@dataclass(frozen=True)
class PlannedStart:
    """What the plan says of a start.

    Attributes:
        seconds: that the engine's start may take at most: what the rendered startup probe allows.
        stages: seconds of those stages that the size of the weights decides, at the planned rate of a node's disk.
    """

    seconds: int
    stages: Mapping[str, float]


def planned_starts(found: Iterable[Service]) -> dict[str, PlannedStart]:
    """The planned start of each service whose weights' size is declared.

    Weights are written to the node's disk once (by the pull of their image, or by the download) and read from it once.
    """
    planned = {}
    for each in found:
        if each.variant.weights_size is not None:
            weights = parse_bytes(each.variant.weights_size)
            moved = IMAGE if isinstance(each.weights, OciAddress) else DOWNLOAD
            stages = dict.fromkeys((moved, WEIGHTS), moving_seconds(weights))
            planned[each.name] = PlannedStart(start_seconds(weights), stages)
    return planned

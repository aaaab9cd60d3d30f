"""What a user names on the command line: services, or a berth.yaml for all of its services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelberth.base.units import parse_bytes
from modelberth.flows.spec_file import SpecFile, read_spec_file
from modelberth.manifests.resources import start_seconds
from modelberth.spec.services import Service, services


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


def planned_seconds(found: Iterable[Service]) -> dict[str, int]:
    """Seconds that a start may take by the plan, by service; of those whose weights' size is declared.

    It is what the rendered startup probe allows.
    """
    return {
        each.name: start_seconds(parse_bytes(each.variant.weights_size))
        for each in found
        if each.variant.weights_size is not None
    }

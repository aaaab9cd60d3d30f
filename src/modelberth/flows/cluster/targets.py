"""What a user names on the command line: services, or a berth.yaml for all of its services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelberth.flows.spec_file import SpecFile, read_spec_file
from modelberth.spec.services import services


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

"""Documents of others, which may hold anything: what is of another form than expected counts as not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping as it is; an empty one for everything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list; none for everything else."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []

"""One YAML document that was read: plain data, and where each part of it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Position:
    """Where something stands in a file; both 1-based."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """One YAML document: plain data, and where each key and value stands.

    Attributes:
        source: the name shown in messages, as the user gave it.
        data: dict, list, str, int, float, bool or None.
        values: position of the value at a path.
        keys: position of the key that names a path.
        raw: the plain scalar text at a path, as written.
    """

    source: str
    data: Any
    values: Mapping[Path, Position]
    keys: Mapping[Path, Position]
    raw: Mapping[Path, str]

    def position(self, path: Path, *, of_key: bool = False) -> Position:
        """The position of a path, or of its nearest known ancestor."""
        table = self.keys if of_key else self.values
        for end in range(len(path), -1, -1):
            found = table.get(path[:end]) if end == len(path) else self.values.get(path[:end])
            if found:
                return found
        return Position(1, 1)


def path_text(path: Iterable[str | int]) -> str:
    """A path as people write it: `models[0].variants[1].pool`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text

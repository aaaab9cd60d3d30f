"""Figures of one start, gathered over the ranks that print the same ones."""

from __future__ import annotations

from collections.abc import Mapping

from modelberth.timeline.memory_wordings import Figure

_SMALLEST = frozenset(
    {
        "estimated_max_model_len",
        "free_gib",
        "gpu_total_gib",
        "kv_available_gib",
        "kv_cache_blocks",
        "kv_cache_gib",
        "kv_cache_tokens",
        "max_concurrency",
    }
)
"""Figures of which the poorest rank's counts; of any other the largest does."""


class Figures:
    """What was read so far.

    Attributes:
        numbers: by field of a MemoryReport.
        arguments: engine arguments by flag without leading dashes; the last one read counts.
        evidence: line of each, arguments by `--flag`.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}
        self.arguments: dict[str, str] = {}
        self.evidence: dict[str, int] = {}
        self._preferences: dict[str, int] = {}

    def keep(self, figure: Figure, line: int) -> None:
        """Take a figure, unless what is known of it is to be preferred."""
        name, known = figure.name, self._preferences.get(figure.name)
        if known is not None and figure.preference > known:
            return
        if name.startswith("--"):
            self.arguments[name[2:]] = figure.number
        else:
            number = float(figure.number)
            if known == figure.preference and not self._worse(name, number):
                return
            self.numbers[name] = number
        self._preferences[name] = figure.preference
        self.evidence[name] = line

    def keep_arguments(self, arguments: Mapping[str, str], line: int) -> None:
        """Take engine arguments as the engine lists them."""
        for flag, value in arguments.items():
            self.keep(Figure(f"--{flag}", value, 1), line)

    def _worse(self, name: str, number: float) -> bool:
        return number < self.numbers[name] if name in _SMALLEST else number > self.numbers[name]

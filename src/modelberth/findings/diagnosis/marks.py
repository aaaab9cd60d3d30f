"""What tells how a start goes: read from `marks.yaml`, the catalogue's stages and the wordings about memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from modelberth.base.yamlio import read_documents
from modelberth.catalog import load

ERROR_MARKERS = (
    b"Error:", b"Error(", b"Error\n", b"Error\r", b"Exception:", b"Exception(", b"Exception\n", b"ERROR", b"CRITICAL",
    b"FATAL", b": error: ", b"rror: ", b"level=error", b"level=fatal", b'"error"', b"[error]", b"E0409 12:00:00.",
    b"F0409 12:00:00.", b"Failed: ", b"Failure: ", b"OutOfResources", b"NotFound: ", b"Timeout: ", b"Unsupported: ",
    b"NoSuch", b"Interrupt:", b"Fault: ",
)  # fmt: skip
"""What a line has that may tell of an error of any kind, known or not: ends of classes, levels."""
_OLDER_VLLM = ("Using ", "Engine 0", "Reserving ", "Explicitly set (", "Auto set (")
"""Wordings about memory that too many lines begin with; they are left to those who read the whole log."""


@dataclass(frozen=True)
class Wrapper:
    """A text that repeats a failure; behind `opens`, if it is there, stands what failed."""

    text: str
    opens: str = ""


@dataclass(frozen=True)
class Marks:
    """Texts by what they tell: how a message begins; `whole` are whole messages that tell as `signalled` does.

    Those of wrappers may stand anywhere in a message.
    """

    banner: tuple[str, ...]
    engine: tuple[str, ...]
    ready: tuple[str, ...]
    done: tuple[str, ...]
    shutdown: tuple[str, ...]
    signalled: tuple[str, ...]
    whole: frozenset[str]
    died: tuple[str, ...]
    quoting: tuple[str, ...]
    wrappers: tuple[Wrapper, ...]
    stages: tuple[tuple[str, tuple[str, ...]], ...]
    memory: tuple[str, ...]

    def needles(self) -> Iterator[str]:
        """Every text that a line must be looked at for."""
        for texts in (self.banner, self.engine, self.ready, self.done, self.memory):
            yield from texts
        for texts in (self.shutdown, self.signalled, self.died):
            yield from texts
        yield from self.whole
        for _, texts in self.stages:
            yield from texts


@cache
def marks() -> Marks:
    """The marks."""
    content = files("modelberth.findings.diagnosis").joinpath("marks.yaml").read_bytes()
    facts: Mapping[str, Any] = read_documents(content, "marks.yaml")[0].data
    names = ("banner", "engine", "ready", "done", "shutdown", "signalled", "died", "quoting")
    named = {name: tuple(facts[name]) for name in names}
    wrappers = tuple(Wrapper(each["text"], each.get("opens", "")) for each in facts["wrappers"])
    stages = tuple((each["stage"], tuple(each["starts"])) for each in load("engine_log")["stages"])
    return Marks(
        **named, whole=frozenset(facts["whole"]), wrappers=wrappers, stages=stages, memory=tuple(sorted(_memory()))
    )


def _memory() -> set[str]:
    facts = load("memory_log")
    found = {text for kind in ("figures", "failures") for entry in facts[kind] for text in entry["starts"]}
    found |= {text for kind in ("banner", "engine", "arguments") for text in facts[kind]}
    return {text for text in found if text not in _OLDER_VLLM}

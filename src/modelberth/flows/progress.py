"""What a flow tells while it works. A listener is any callable that takes an event, from any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StageBegun:
    """A stage of a service has begun; `detail` says what it does, in a few words."""

    service: str
    stage: str
    detail: str = ""


@dataclass(frozen=True)
class StageEnded:
    """A stage of a service has ended after `seconds`."""

    service: str
    stage: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class BytesMoved:
    """`done` of `total` bytes of a service's stage have been moved or read, and `files` of `all_files` files with them.

    `all_files` is 0 where files are not counted.
    """

    service: str
    stage: str
    done: int
    total: int
    files: int = 0
    all_files: int = 0


@dataclass(frozen=True)
class Note:
    """Something the user should know; `service` is empty when it is about the whole."""

    service: str
    text: str


Event = StageBegun | StageEnded | BytesMoved | Note
Listener = Callable[[Event], None]


OnFile = Callable[[str], None]
"""Told the path of every file that is complete."""


def ignore_file(_path: str) -> None:
    """An `OnFile` that does nothing."""


def silent(_event: Event) -> None:
    """A listener that hears nothing."""

"""The first error in an engine's log that is a cause: wrappers that only repeat it are passed over.

vLLM's last line is a wrapper ("Engine core initialization failed. See root cause above."); the cause stands
some forty lines above it, in the log of another process.
"""

from __future__ import annotations

import re

from modelberth.base.text import shorten
from modelberth.catalog import load
from modelberth.timeline.log_lines import LogLine

# The last line of a traceback: an exception's dotted name, a colon, its text.
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.){0,10}[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Fault): .+", re.S)
# argparse: "api_server.py: error: unrecognized arguments: --foo"
_USAGE = re.compile(r"[\w.-]{1,80}: error: .+", re.S)
_SYSTEM = re.compile(r"(?:Killed|Bus error|Segmentation fault|Fatal Python error: .+)", re.S)
# pydantic says on this line how many, and on the next lines which.
_ANNOUNCED = re.compile(r"(?:[A-Za-z_]\w*\.){0,10}ValidationError: \d+ validation errors? for \S+")
_STOPPING = "[shutdown]"
LIMIT = 400


class CauseFinder:
    """Reads a log line by line and keeps the first cause."""

    def __init__(self) -> None:
        self.cause: str | None = None
        self._wrappers: tuple[str, ...] = tuple(load("engine_log")["wrappers"])
        self._stopping = False
        self._unfinished = ""

    def feed(self, line: LogLine) -> None:
        """Take the next line. What is said after a shutdown was asked for is no cause."""
        if self._stopping or self.cause:
            return
        message = line.message.strip()
        if self._unfinished and message:
            self.cause = shorten(f"{self._unfinished}: {message}", LIMIT)
        elif message.startswith(_STOPPING):
            self._stopping = True
        elif _ANNOUNCED.fullmatch(message):
            self._unfinished = message
        elif self._is_cause(message):
            self.cause = shorten(message, LIMIT)

    def _is_cause(self, message: str) -> bool:
        if not (_EXCEPTION.fullmatch(message) or _USAGE.fullmatch(message) or _SYSTEM.fullmatch(message)):
            return False
        return not any(wrapper in message for wrapper in self._wrappers)

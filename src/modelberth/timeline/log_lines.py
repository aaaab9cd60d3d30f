"""One line of vLLM's log, taken apart: process prefix, level, and the message that its logger wrote.

Only the message is matched by anybody, and only from its first character: a prompt or a file name that quotes
an error somewhere inside a line raises nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelberth.base.text import printable

# (EngineCore pid=4943) INFO 11-23 13:34:34 [core.py:133] message
_VLLM = re.compile(
    r"(?:\([^()]{1,80}\) )?(?P<level>[A-Z]{4,8}) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]{1,80}\] ?(?P<message>.*)",
    re.S,
)
# INFO:     Application startup complete.
_UVICORN = re.compile(r"(?P<level>INFO|WARNING|ERROR|CRITICAL): +(?P<message>.*)", re.S)
# (EngineCore pid=4943) text, printed past the logger
_PREFIX = re.compile(r"\((?=[^()]{0,80}\bpid=[0-9])[^()]{1,120}\) ")
MAX_LINE = 8192
"""Characters of a line that are looked at."""


@dataclass(frozen=True)
class LogLine:
    """A line's level (empty for plain output) and message, without escapes and control characters."""

    level: str
    message: str


def parse_line(line: str) -> LogLine:
    """Take a line apart; a line of no known form is a message without a level."""
    text = printable(line[:MAX_LINE]).rstrip()
    for form in (_VLLM, _UVICORN):
        if match := form.fullmatch(text):
            return LogLine(match["level"], match["message"])
    return LogLine("", text[len(match[0]) :] if (match := _PREFIX.match(text)) else text)

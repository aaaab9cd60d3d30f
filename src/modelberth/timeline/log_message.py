"""Messages of vLLM in a line as collectors hand it on: behind timestamps, names of containers, processes and ranks.

`log_lines` reads what an engine of our own writes. A log that someone kept comes from anywhere: docker, kubectl,
journald, one JSON object a line, with a progress bar of one rank in front of the message of another. Its longest
lines (all arguments, the whole configuration) are longer than what `log_lines` looks at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from modelberth.base.text import printable

MAX_LINE = 64 * 1024
"""Characters of a line that are looked at."""
MAX_PARTS = 64
"""Pieces of a line, cut at carriage returns and after progress bars, that are looked at."""

# What stands before a line; each may come once or more. Names are bounded, so none backtracks far.
_OUTER = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)? +"  # docker, kubectl --timestamps, CRI
    r"|std(?:out|err) [FP] "  # CRI
    r"|\[pod/[^\]\s]{1,250}\] "  # kubectl --prefix
    r"|[\w.-]{1,80} {0,40}\| "  # docker compose
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,80} [\w./@-]{1,80}(?:\[\d{1,9}\])?: "  # journald, syslog
    r"|\((?P<process>[^()]{0,80}?)\bpid=[^()]{1,80}\) ?"  # (EngineCore_DP0 pid=12), (VllmWorker rank=0 pid=12)
)
# INFO 04-09 12:00:00 [gpu_worker.py:206] message; with --log-level debug the file has folders before it.
_HEADER = re.compile(
    r"[A-Z]{4,8} (?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,9})? \[(?P<source>[^\]\s]{1,120})\] ?"
    r"|(?:INFO|WARNING|ERROR|CRITICAL): +"
)
# ValueError: text; torch.OutOfMemoryError: text
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w{0,60}\.){0,8}[A-Za-z_]\w{0,60}(?:Error|Exception): ")
_CUTS = re.compile(r"[\r\n]+|(?<=it/s\])|(?<=s/it\])")


@dataclass(frozen=True)
class Message:
    """What a logger wrote, or the text of an exception without its name.

    Attributes:
        text: the message, without escapes and control characters.
        process: the name in front of it (`EngineCore_DP0`, `VllmWorker rank=1`); empty when there is none.
        source: the file that logged it (`gpu_worker.py`); empty when the line does not say.
    """

    text: str
    process: str = ""
    source: str = ""


def messages(line: str) -> Iterator[Message]:
    """The messages in a line, in order; what is past MAX_LINE and MAX_PARTS is left out."""
    text = line[:MAX_LINE]
    if text.startswith("{"):
        text = _inside_json(text)
    for part in _CUTS.split(text, maxsplit=MAX_PARTS)[:MAX_PARTS]:
        if part:
            yield _message(printable(part).rstrip())


def _inside_json(text: str) -> str:
    """The line inside of docker's json-file or of vLLM's own JSON format; any other text as it is."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return text
    inside = next((fields[key] for key in ("log", "message", "msg") if isinstance(fields.get(key), str)), text)
    return str(inside)


def _message(text: str) -> Message:
    process, start = "", 0
    while match := _OUTER.match(text, start):
        process, start = match["process"] or process, match.end()
    header = _HEADER.match(text, start)
    if header:
        start = header.end()
    source = (header["source"] or "") if header else ""
    body = text[start:].strip()
    if named := _EXCEPTION.match(body):
        body = body[named.end() :]
    return Message(body, process.strip(), source.rpartition("/")[2].partition(":")[0])

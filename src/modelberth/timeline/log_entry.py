"""One line of anybody's log taken apart: time, pod, process, level, and the message behind all prefixes.

Logs reach us through docker, kubectl, stern, CRI, journald, JSON, Ray, torchrun, and issue threads, where they were
indented, quoted, escaped for HTML, and their colours became text. None of that is part of a message.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import Any

from modelberth.base.text import printable

MAX_MESSAGE = 16 * 1024
"""Characters of a message that are looked at."""
_PREFIXES = 8
ERROR, WARNING, INFO = "error", "warning", "info"

# Colours that became text: [0;36m, ^[[1m, \x1b[0m
_COLOURS = re.compile(
    r"(?:\^\[|\\x1b|\\u001b|\\033|#033|␛)\[[0-9]{0,3}(?:;[0-9]{1,3}){0,5}m"
    r"|\[[0-9]{1,3}(?:;[0-9]{1,3}){0,5}m|\[m(?![\w-])"  # [mistral is no colour
)
_ENTITY = re.compile(r"&(?:[lg]t|amp|quot|apos|nbsp|#x?[0-9a-fA-F]{1,6});")
_QUOTED = re.compile(r"(?:> ?){1,5}(?=\S)|`{1,3}(?=[^`\s])")
_TIME = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,:]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"

# What stands before a message; each may come once or more. Names are bounded, so none backtracks far.
_OUTER = re.compile(
    rf"\[?(?P<time>{_TIME})\]?(?:[ \t]*[|:,-])?[ \t]+"  # docker, kubectl --timestamps, CRI, Python's logging
    r"|std(?:out|err) [FP] "  # CRI
    r"|\[pod/(?P<pod>[^/\]\s]{1,253})/(?P<container>[^\]\s]{1,63})\] ?"  # kubectl and oc --prefix
    # stern
    r"|(?P<pod_2>[a-z0-9][a-z0-9.-]{4,253}) (?P<container_2>kserve-container|storage-initializer|modelcar(?:-init)?"
    r"|main|vllm|queue-proxy|worker-container) (?:[>›] )?"
    r"|(?!(?:DEBUG|INFO|WARN|ERROR|CRITICAL)[A-Z]{0,3} )(?P<pod_3>[\w.-]{1,80}) {0,40}\| "  # docker compose
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,80} [\w./@-]{1,80}(?:\[\d{1,9}\])?: "  # journald, syslog
    r"|[\w.-]{1,80} [\w./@-]{1,80}\[\d{1,9}\]: "  # journald behind a time in ISO's form
    r"|\[(?P<pod_4>[a-z0-9][a-z0-9.-]{2,240}-(?:[a-z0-9]{5}|\d{1,4}))\] "  # berth logs, of several pods
    r"|\[(?:[A-Za-z]{1,20}[ _-])?(?:vllm|VLLM)(?:[ _-]\w{1,20})?\]:? "  # what wraps a process of that name
    r"|\((?P<process>[^()]{0,80}?) ?\b(?:pid|ip)=[^()]{1,80}\) ?"  # (EngineCore_DP0 pid=12)
    r"|\((?P<process_2>(?:EngineCore|Worker|ApiServer|APIServer|VllmWorker)[\w-]{0,40})\) "
    r"|\[(?P<process_3>(?:rank|default)\d{1,5})\]: ?"  # torch
    r"|\[\d{1,5},\d{1,5}\]<std(?:out|err)>: ?"  # mpirun
)
_LEVELS = r"DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|EXCEPTION"
_HEADERS = re.compile(
    # vLLM: INFO 04-09 12:00:00 [gpu_worker.py:206] text; before 0.8: INFO 04-09 12:00:00 gpu_worker.py:206] text
    r"(?P<level>[A-Z]{4,8}) (?P<moment>(?:\d{2,4}-)?\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,9})?) "
    r"\[?(?P<source>[^\]\s]{1,120})\] ?"
    # uvicorn, logging.basicConfig: "INFO:     text", "ERROR:root:text", "ERROR | a.b:c:1 - text"
    rf"|(?P<level_2>{_LEVELS})[ \t]{{0,6}}(?::[\w.]{{1,80}}:|:|\|[ \t]{{0,4}}[\w.:<>]{{1,120}} - )[ \t]{{0,8}}"
    # Python's logging behind a time: "1 kserve ERROR [storage.py:download():66] text", "- name - ERROR - text"
    rf"|(?:\d{{1,9}} )?(?:- )?(?:[\w.-]{{1,80}}(?: -)? )?(?P<level_3>{_LEVELS})(?: - |:? |\t)(?:[\w./-]{{1,80}}\t)?"
    r"(?:\[(?P<source_2>[^\]\s]{1,160})\]:? ?|(?P<source_3>[\w./-]{1,80}:\d{1,6}) (?:-- |- )?)?"
    # glog, klog, torch: E0409 12:00:00.123456 1 controller.go:12] text; [W425 12:00:00.123456789 file.cpp:1] text
    r"|\[?(?P<glog>[IWEF])(?P<moment_2>\d{3,4} \d\d:\d\d:\d\d(?:\.\d{1,9})?)"
    r"(?: +\d{1,9})? (?P<source_4>[\w./-]{1,160}):\d{1,6}\] ?"
    # NCCL: host:12:34 [0] NCCL WARN text; host:12:34 [0] net.cc:12 NCCL WARN text
    r"|[\w.-]{1,80}:\d{1,9}:\d{1,9} (?:\[\d{1,4}\] )?(?:[\w./-]{1,120}:\d{1,6} )?NCCL (?P<nccl>WARN|INFO|ERROR|TRACE) "
    # [ERROR] text; [error] text
    r"|\[(?P<level_4>[A-Za-z]{4,8})\]:? (?:\[(?P<source_5>[\w./-]{1,120}:\d{1,6})(?::\w{1,80})?\] )?"
    # /usr/lib/x.py:12: FutureWarning: text
    r"|(?:[\w./-]{1,200}\.py):\d{1,6}: (?P<py>[A-Za-z]{0,40}Warning): "
    r"|(?P<plain>[Ee]rror|ERROR|FATAL|[Ff]atal|[Pp]anic): "
)
_BEHIND_TIME = ("level_3",)
_LOGFMT = re.compile(r"(?:[a-z_]{1,20}=(?:\"[^\"]{0,80}\"|[^\s\"]{1,80}) ){0,6}?level=\"?(?P<level>[A-Za-z]{3,8})\"? ")
_MSG = re.compile(r"\b(?:msg|error|err)=(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>\S+))")
_KINDS = {
    "warn": WARNING, "warning": WARNING, "error": ERROR, "err": ERROR, "critical": ERROR, "fatal": ERROR,
    "exception": ERROR, "panic": ERROR, "dpanic": ERROR, "w": WARNING, "e": ERROR, "f": ERROR,
}  # fmt: skip
_JSON_TEXTS = ("log", "message", "msg", "MESSAGE", "textPayload", "event")
_JSON_FURTHER = ("error", "err", "inadmissibleReason", "exception", "exc_info", "stacktrace", "traceback")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line taken apart.

    Attributes:
        text: the message; of a line of JSON with its error and traceback on further lines.
        level: `error`, `warning`, `info`, or empty for plain output.
        indent: blanks before the message.
        time: as it stands there.
        pod: as the prefix names it.
        container: as the prefix names it.
        process: `EngineCore_DP0`, `Worker_TP1`, `rank0`.
        source: the file that logged it, without its folder: `core.py`.
    """

    text: str
    level: str = ""
    indent: int = 0
    time: str = ""
    pod: str = ""
    container: str = ""
    process: str = ""
    source: str = ""


def cleaned(line: str) -> str:
    """A line without escapes, control characters, colours that became text, and HTML's entities."""
    text = line if line.isascii() and line.isprintable() else printable(line).rstrip()
    if "m" in text and "[" in text:
        text = _COLOURS.sub("", text)
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    return text


def entry(line: str) -> Entry:
    """Take a line apart. Of a line with carriage returns the last piece that says something counts."""
    if "\r" in line:
        line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    return _entry(cleaned(line[: 4 * MAX_MESSAGE]), depth=0)


def _entry(text: str, depth: int) -> Entry:
    found: dict[str, str] = {}
    start, indent = _prefixes(text, found)
    body = text[start : start + MAX_MESSAGE]
    if body.startswith("{") and depth < 2 and (inner := _json(body)) is not None:
        return _inside(inner, found, depth)
    level = source = ""
    if header := _HEADERS.match(body):
        level, source = _level(header, bool(found.get("time")))
        if level:
            body = body[header.end() :]
            found.setdefault("time", header["moment"] or header["moment_2"] or "")
    elif "level=" in body and (fields := _LOGFMT.match(body)):
        level = _KINDS.get(fields["level"].lower(), INFO)
        body = "\n".join(each["quoted"] or each["bare"] for each in _MSG.finditer(body)) or body
    return Entry(
        text=body.rstrip(),
        level=level,
        indent=indent,
        time=found.get("time", ""),
        pod=found.get("pod", ""),
        container=found.get("container", ""),
        process=found.get("process", "").strip(),
        source=source.rpartition("/")[2].partition(":")[0],
    )


def _prefixes(text: str, found: dict[str, str]) -> tuple[int, int]:
    """Where the message begins, and how far it is indented; what the prefixes say goes into `found`."""
    start = len(text) - len(text.lstrip(" \t"))
    indent = start
    if quoted := _QUOTED.match(text, start):
        start, indent = quoted.end(), 0
    for _ in range(_PREFIXES):
        match = _OUTER.match(text, start)
        if not match:
            break
        for name, value in match.groupdict().items():
            if value:
                found[name.partition("_")[0]] = value
        blanks = len(text) - match.end() - len(text[match.end() :].lstrip(" \t"))
        start, indent = match.end(), 0
        if _OUTER.match(text, start + blanks) or _HEADERS.match(text, start + blanks):
            start += blanks
        else:
            indent = blanks
            return start + blanks, indent
    return start, indent


def _level(header: re.Match[str], timed: bool) -> tuple[str, str]:
    groups = header.groupdict()
    if groups["level_3"] and not timed and header.start("level_3") > header.start():
        return "", ""  # a word before the level is a logger's name only behind a time
    if groups["py"]:
        return WARNING, ""
    if groups["plain"]:
        return ERROR, ""
    word = next(groups[name] for name in ("level", "level_2", "level_3", "level_4", "glog", "nccl") if groups[name])
    if groups["level_4"] and word.upper() not in _LEVELS.split("|"):
        return "", ""
    source = next(
        (groups[name] for name in ("source", "source_2", "source_3", "source_4", "source_5") if groups[name]), ""
    )
    return _KINDS.get(word.lower(), INFO), source


def _json(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and any(isinstance(fields.get(key), str) for key in _JSON_TEXTS) else None


def _inside(fields: dict[str, Any], found: dict[str, str], depth: int) -> Entry:
    text = next(fields[key] for key in _JSON_TEXTS if isinstance(fields.get(key), str)).rstrip("\n")
    first, _, rest = text.partition("\n")
    inner = _entry(cleaned(first), depth + 1)
    level = fields.get("level") or fields.get("severity") or fields.get("levelname") or fields.get("lvl")
    further = [rest, *(fields[key] for key in _JSON_FURTHER if isinstance(fields.get(key), str))]
    time = next((str(fields[key]) for key in ("time", "ts", "timestamp", "asctime", "@timestamp") if key in fields), "")
    return Entry(
        text="\n".join([inner.text, *(printable(each) for each in further if each)]),
        level=inner.level or (_KINDS.get(level.lower(), INFO) if isinstance(level, str) else ""),
        indent=inner.indent,
        time=inner.time or time or found.get("time", ""),
        pod=inner.pod or found.get("pod", ""),
        container=inner.container or found.get("container", ""),
        process=inner.process or found.get("process", "").strip(),
        source=inner.source,
    )

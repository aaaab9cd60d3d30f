"""Text that is safe to show: control characters stripped, long lines cut, near misses suggested."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# CSI (colours, cursor), OSC (titles, links), DCS/APC/PM strings, then any other two-byte escape.
# None goes past the end of its line: an unfinished one must not hide the rest of a log.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[PX^_][^\x1b\n]*(?:\x1b\\)?|.?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_SECRET_ENDINGS = ("accesskeyid", "accesskey", "secretkey", "apikey", "token", "password", "passwd")


def names_secret(key: str) -> bool:
    """Whether a key such as `secretAccessKey`, `aws_access_key_id` or `hf-token` would hold a secret."""
    return re.sub(r"[-_]", "", key.lower()).endswith(_SECRET_ENDINGS)


def printable(text: str) -> str:
    """Text without terminal escapes, other control characters and bidirectional overrides.

    Tabs and newlines stay. Logs and answers of others pass through here before they reach a terminal.
    """
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters on one line, an ellipsis marking the cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else (line[: limit - 1] + "…" if limit > 0 else "")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely meant, or None when nothing is near."""
    candidates = list(known)
    folded = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` or the list of what is known."""
    names = sorted(known)
    near = nearest(word, names)
    if near:
        return f"did you mean '{near}'?"
    return f"known: {', '.join(names)}" if names else ""

"""JUnit's XML, as test reports of CI systems read it: one suite, its cases, and what failed of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

# What XML 1.0 has no place for, section 2.2.
_NOT_XML = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        group: shown as its class.
        name: of it.
        kind: of its failure; empty where it passed.
        message: of its failure, one line.
        text: of its failure, as long as it is.
        seconds: that it took; None where nobody measured.
    """

    group: str
    name: str
    kind: str = ""
    message: str = ""
    text: str = ""
    seconds: float | None = None


def junit(suite: str, cases: Sequence[Case]) -> str:
    """A report; what XML has no place for is left out."""
    failures = sum(1 for each in cases if each.kind)
    head = f'<testsuite name={_attribute(suite)} tests="{len(cases)}" failures="{failures}" errors="0" skipped="0">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *map(_case, cases), "</testsuite>"])


def _case(each: Case) -> str:
    time = "" if each.seconds is None else f' time="{each.seconds:.3f}"'
    begin = f"  <testcase classname={_attribute(each.group)} name={_attribute(each.name)}{time}"
    if not each.kind:
        return f"{begin}/>"
    text = escape(_NOT_XML.sub("", each.text))
    failure = f"    <failure type={_attribute(each.kind)} message={_attribute(each.message)}>{text}</failure>"
    return f"{begin}>\n{failure}\n  </testcase>"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("", text))

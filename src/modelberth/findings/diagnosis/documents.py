"""A diagnosis as plain data: the project's own document, SARIF 2.1.0 and JUnit's XML."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from modelberth.findings.diagnosis.finding import Diagnosis, Evidence, Finding

SCHEMA_VERSION = "modelberth.dev/findings/v1"
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"high": "error", "medium": "warning", "low": "note"}
# What XML 1.0 has no place for, section 2.2.
_NOT_XML = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HOME = "https://github.com/modelberth/modelberth"


def document(found: Diagnosis) -> dict[str, Any]:
    """The document of `berth diagnose -o json`."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "stage": found.stage,
        "state": found.state,
        "starts": found.starts,
        "findings": [_finding(each) for each in found.findings],
        "firstError": _evidence(found.first_error) if found.first_error else None,
        "collect": list(found.collect),
        "truncated": list(found.truncated),
    }


def _finding(each: Finding) -> dict[str, Any]:
    return {
        "id": each.id,
        "title": each.title,
        "severity": each.severity,
        "confidence": each.confidence,
        "stage": each.stage,
        "cause": each.cause,
        "numbers": dict(each.numbers),
        "evidence": [_evidence(one) for one in each.evidence],
        "count": each.count,
        "fix": each.fix,
        "patch": dict(each.patch),
        "command": each.command,
        "confirm": each.confirm,
        "links": list(each.links),
        "consequences": [
            {"id": one.id, "title": one.title, "evidence": [_evidence(place) for place in one.evidence]}
            for one in each.consequences
        ],
    }


def _evidence(each: Evidence) -> dict[str, Any]:
    return {"source": each.source, "line": each.line, "text": each.text, "time": each.time, "process": each.process}


def sarif(found: Diagnosis, version: str) -> dict[str, Any]:
    """One run; each finding at its first evidence."""
    rules = {each.id: each for each in found.findings}
    index = {name: number for number, name in enumerate(rules)}
    driver = {
        "name": "berth diagnose",
        "version": version,
        "informationUri": _HOME,
        "rules": [
            {
                "id": each.id,
                "shortDescription": {"text": each.title},
                "help": {"text": f"{each.fix} berth explain {each.id}".strip()},
                "defaultConfiguration": {"level": _LEVELS[each.severity]},
            }
            for each in rules.values()
        ],
    }
    results = [
        {
            "ruleId": each.id,
            "ruleIndex": index[each.id],
            "level": _LEVELS[each.severity],
            "message": {"text": f"{each.cause} Fix: {each.fix}"},
            "locations": [_location(place) for place in each.evidence[:1]],
            "relatedLocations": [_location(place) for place in each.evidence[1:]],
            "occurrenceCount": each.count,
        }
        for each in found.findings
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _location(place: Evidence) -> dict[str, Any]:
    if place.line == 0:  # an object of the cluster
        return {"logicalLocations": [{"fullyQualifiedName": place.source, "kind": "object"}]}
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(place.source)},
            "region": {"startLine": place.line, "snippet": {"text": place.text}},
        }
    }


def junit(found: Diagnosis) -> str:
    """One failed test case a finding; one that passed when there is none."""
    cases = [_case(each) for each in found.findings] or ['  <testcase classname="berth.diagnose" name="no finding"/>']
    count = len(found.findings)
    head = f'<testsuite name="berth diagnose" tests="{max(1, count)}" failures="{count}" errors="0" skipped="0">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>"])


def _case(each: Finding) -> str:
    places = [f"{place.source}:{place.line}: {place.text}" if place.line else f"{place.source}: {place.text}"
              for place in each.evidence]  # fmt: skip
    text = _xml("\n".join([each.cause, f"Fix: {each.fix}", *places]))
    title = _xml(each.title, escaped=False)
    return (
        f'  <testcase classname="berth.diagnose.{each.severity}" name={quoteattr(f"{each.id} {title}")}>\n'
        f"    <failure type={quoteattr(each.id)} message={quoteattr(title)}>{text}</failure>\n"
        "  </testcase>"
    )


def _xml(text: str, *, escaped: bool = True) -> str:
    """Text without what XML 1.0 has no place for."""
    kept = _NOT_XML.sub("", text)
    return escape(kept) if escaped else kept

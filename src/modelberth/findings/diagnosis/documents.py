"""A diagnosis as plain data: the project's own document, SARIF 2.1.0 and JUnit's XML."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from modelberth.base.junit import Case
from modelberth.base.junit import junit as report
from modelberth.findings.diagnosis.finding import Diagnosis, Evidence, Finding

SCHEMA_VERSION = "modelberth.dev/findings/v1"
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"high": "error", "medium": "warning", "low": "note"}
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
    cases = [_case(each) for each in found.findings] or [Case("berth.diagnose", "no finding")]
    return report("berth diagnose", cases)


def _case(each: Finding) -> Case:
    places = [f"{place.source}:{place.line}: {place.text}" if place.line else f"{place.source}: {place.text}"
              for place in each.evidence]  # fmt: skip
    text = "\n".join([each.cause, f"Fix: {each.fix}", *places])
    return Case(f"berth.diagnose.{each.severity}", f"{each.id} {each.title}", each.id, each.title, text)

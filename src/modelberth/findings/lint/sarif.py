"""Findings as SARIF 2.1.0, the format that code hosts show beside the lines (OASIS standard, 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from modelberth.base.errors import Problem
from modelberth.base.yamlio import Position
from modelberth.findings.lint.rules import Rule
from modelberth.findings.lint.run import LintFinding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"high": "error", "medium": "warning", "low": "note"}
# What code hosts sort by: 0 to 10, as CVSS.
_SCORES = {"high": "8.0", "medium": "5.0", "low": "2.0"}


def sarif(
    findings: Sequence[LintFinding], rules: Iterable[Rule], version: str, problems: Sequence[tuple[str, Problem]] = ()
) -> dict[str, Any]:
    """One run; what is ignored is in it as suppressed with its reason, what could not be read as a notification."""
    known = sorted(rules, key=lambda each: each.number)
    index = {each.id: number for number, each in enumerate(known)}
    driver = {
        "name": "berth lint",
        "version": version,
        "informationUri": "https://github.com/modelberth/modelberth",
        "rules": [_rule(each) for each in known],
    }
    results = [_result(each, index[each.rule.id]) for each in findings]
    said = [
        {"level": "error", "message": {"text": each.message}, "locations": [{"physicalLocation": _place(source, each)}]}
        for source, each in problems
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not problems, "toolExecutionNotifications": said}],
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _place(source: str, at: Position | Problem) -> dict[str, Any]:
    return {
        # A URI: a blank or a bracket in a file's name is written as its code.
        "artifactLocation": {"uri": quote(source)},
        "region": {"startLine": max(1, at.line), "startColumn": max(1, at.column)},
    }


def _rule(each: Rule) -> dict[str, Any]:
    return {
        "id": each.id,
        "shortDescription": {"text": each.title},
        "fullDescription": {"text": each.why},
        "help": {"text": each.why},
        "defaultConfiguration": {"level": _LEVELS[each.severity]},
        "properties": {"security-severity": _SCORES[each.severity]} if 500 <= each.number < 600 else {},
    }


def _result(each: LintFinding, index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": each.rule.id,
        "ruleIndex": index,
        "level": _LEVELS[each.severity],
        "message": {"text": f"{each.hit.message}. Fix: {each.hit.fix}"},
        "locations": [
            {
                "physicalLocation": _place(each.source, each.position),
                "logicalLocations": [{"fullyQualifiedName": each.object}],
            }
        ],
    }
    if each.ignored is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": each.ignored}]
    return result

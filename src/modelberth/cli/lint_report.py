"""What `berth lint` says: findings by line, with the fix; and the rules."""

from __future__ import annotations

from collections import Counter
from typing import Any

from modelberth import __version__
from modelberth.cli import output
from modelberth.findings.lint.run import RULES, LintFinding
from modelberth.findings.lint.sarif import sarif
from modelberth.flows.lint import LintResult

SCHEMA_VERSION = "modelberth.dev/lint/v1"
_SEVERITIES = ("high", "medium", "low")


def show(result: LintResult, form: str, *, dry_run: bool = False) -> None:
    """The findings; with `dry_run` what is fixed only would be."""
    if form == "sarif":
        found = (*result.findings, *result.ignored)
        output.document(sarif(found, result.rules, __version__, result.problems), "json")
    elif form == "json":
        output.document({**_document(result), "dryRun": dry_run}, "json")
    elif form == "name":
        if result.findings:
            output.data("\n".join(f"{_place(each)}: {each.rule.id}" for each in result.findings))
    else:
        _table(result, wide=form == "wide", fixed="would fix" if dry_run else "fixed")
    output.talk(*(problem.text(source) for source, problem in result.problems))


def _table(result: LintResult, *, wide: bool, fixed: str) -> None:
    lines = [f"{fixed}  {_place(each)}  {each.rule.id}  {each.hit.fix}" for each in result.fixed]
    for each in result.findings:
        lines.append(f"{_place(each)}  {each.severity}  {each.rule.id}  {each.rule.title}: {each.hit.message}")
        lines += [f"  why: {each.rule.why}"] if wide else []
        lines.append(f"  fix: {each.hit.fix}" + ("   (--fix writes it)" if each.edit else ""))
    if wide:
        lines += [f"{_place(each)}  ignored  {each.rule.id}  {each.ignored}" for each in result.ignored]
    output.data("\n".join([*lines, _summary(result)]))


def _summary(result: LintResult) -> str:
    counts = Counter(each.severity for each in result.findings)
    found = ", ".join(f"{counts[each]} {each}" for each in _SEVERITIES if counts[each]) or "nothing found"  # type: ignore[index]
    files = "file" if result.files == 1 else "files"
    objects = "object" if result.objects == 1 else "objects"
    text = f"{found} in {result.files} {files} ({result.objects} {objects})"
    text += f", {len(result.ignored)} ignored" if result.ignored else ""
    fixable = sum(1 for each in result.findings if each.edit)
    text += f"; --fix writes {fixable} of them" if fixable else ""
    return text + "."


def _place(each: LintFinding) -> str:
    return f"{each.source}:{each.position.line}:{each.position.column}"


def _document(result: LintResult) -> dict[str, Any]:
    return {
        "schemaVersion": SCHEMA_VERSION,
        "files": result.files,
        "objects": result.objects,
        "findings": [_entry(each) for each in result.findings],
        "ignored": [{**_entry(each), "reason": each.ignored} for each in result.ignored],
        "fixed": [_entry(each) for each in result.fixed],
        "problems": [
            {"file": source, "line": each.line, "column": each.column, "message": each.message}
            for source, each in result.problems
        ],
    }


def _entry(each: LintFinding) -> dict[str, Any]:
    return {
        "id": each.rule.id,
        "severity": each.severity,
        "title": each.rule.title,
        "file": each.source,
        "line": each.position.line,
        "column": each.position.column,
        "object": each.object,
        "message": each.hit.message,
        "why": each.rule.why,
        "fix": each.hit.fix,
        "fixable": each.edit is not None,
    }


def show_rules(form: str) -> None:
    """All rules."""
    known = sorted(RULES, key=lambda each: each.number)
    if form == "json":
        output.document({
            "schemaVersion": "modelberth.dev/lint-rules/v1",
            "rules": [{"id": each.id, "severity": each.severity, "title": each.title, "why": each.why}
                      for each in known],
        }, "json")  # fmt: skip
        return
    rows = [(each.id, each.severity, each.title) for each in known]
    output.data("\n".join(output.table(("ID", "SEVERITY", "RULE"), rows)))

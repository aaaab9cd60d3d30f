"""All rules over all manifests: findings in order, what is ignored and why, and the text after safe fixes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelberth.base.yamlio import Position, Span
from modelberth.findings.lint import (
    engine,
    fit,
    jobs,
    kustomize,
    resources,
    scheduling,
    security,
    storage,
    versions,
)
from modelberth.findings.lint.rules import Hit, Rule, Severity, rule
from modelberth.findings.lint.world import World, text

ANNOTATION = "modelberth.dev/lint-ignore"
_COMMENT = re.compile(r"#\s*berth-lint:\s*ignore\s+(?P<ids>MB-LINT-\d+(?:\s*,\s*MB-LINT-\d+)*)\s*(?P<reason>.*)$")
_PLAIN = re.compile(r"[\w./:@=+-]+(?: [\w./:@=+-]+)*")  # what needs no quotes and no escapes
_NOTE = re.compile(r"(?P<id>MB-LINT-\d+)\s*(?::\s*(?P<reason>[^;]*))?")


@rule(
    1,
    "low",
    "ignored without a reason",
    "Nobody will know whether it may go again: say why after the id.",
)
def no_reason(_world: World) -> Iterator[Hit]:
    """Made by the run itself, which reads the comments."""
    return iter(())


IGNORED_WITHOUT_REASON = no_reason
RULES: tuple[Rule, ...] = (
    no_reason, *storage.RULES, *engine.RULES, *scheduling.RULES, *resources.RULES, *security.RULES, *jobs.RULES,
    *versions.RULES, *kustomize.RULES, *fit.RULES,
)  # fmt: skip


@dataclass(frozen=True)
class LintFinding:
    """One broken rule at one place.

    Attributes:
        rule: the rule.
        source: name of the file.
        position: line and column, 1-based.
        object: `Kind/name`; empty for what has none.
        hit: what was found.
        ignored: the reason why it does not count; None where it does.
    """

    rule: Rule
    source: str
    position: Position
    object: str
    hit: Hit
    ignored: str | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.rule.severity

    @property
    def edit(self) -> tuple[Span, str] | None:
        """What a safe fix replaces and by what, quotes aside; None where only people can fix it."""
        after, manifest = self.hit.replacement, self.hit.manifest
        if after is None or self.ignored is not None or not _PLAIN.fullmatch(after):
            return None
        span = manifest.document.spans.get((*manifest.base, *self.hit.path))
        return (span, after) if span else None


def lint(world: World, lines: Mapping[str, Sequence[str]], rules: Iterable[Rule] = RULES) -> tuple[LintFinding, ...]:
    """Every finding, by file and line; what is ignored among them, with its reason.

    Args:
        world: the manifests.
        lines: the lines of each file, for the comments in them.
        rules: those that are asked for.
    """
    asked = tuple(rules)
    found = [_finding(each, hit) for each in asked for hit in each.check(world)]
    marked = [_with_ignore(each, lines.get(each.source, ())) for each in found]
    bare = [_bare(each) for each in marked if each.ignored == ""] if IGNORED_WITHOUT_REASON in asked else []
    ordered = sorted({_key(each): each for each in (*marked, *bare)}.items())
    return tuple(each for _, each in ordered)


def _key(finding: LintFinding) -> tuple[str, int, int, int, str]:
    place = finding.position
    return finding.source, place.line, place.column, finding.rule.number, finding.hit.message


def _finding(found: Rule, hit: Hit) -> LintFinding:
    manifest = hit.manifest
    name = f"{manifest.kind}/{manifest.name}" if manifest.kind else ""
    return LintFinding(found, manifest.source, manifest.position(hit.path, of_key=hit.of_key), name, hit)


def _with_ignore(finding: LintFinding, lines: Sequence[str]) -> LintFinding:
    """The finding with the reason for which it is ignored, from a comment or an annotation."""
    for number in (finding.position.line, finding.position.line - 1):
        if 0 < number <= len(lines):
            comment = _COMMENT.search(lines[number - 1])
            # A comment on the line above counts when it stands alone there.
            alone = number == finding.position.line or lines[number - 1].lstrip().startswith("#")
            if comment and alone and finding.rule.id in re.split(r"\s*,\s*", comment["ids"]):
                return _ignored(finding, comment["reason"])
    for note in _NOTE.finditer(text(finding.hit.manifest.annotations.get(ANNOTATION))):
        if note["id"] == finding.rule.id:
            return _ignored(finding, note["reason"] or "")
    return finding


def _ignored(finding: LintFinding, reason: str) -> LintFinding:
    cleaned = re.sub(r"^(?:because\b|:|-)\s*", "", reason.strip())
    return LintFinding(finding.rule, finding.source, finding.position, finding.object, finding.hit, cleaned)


def _bare(finding: LintFinding) -> LintFinding:
    message = f"{finding.rule.id} is ignored here and nobody says why"
    hit = Hit(finding.hit.manifest, finding.hit.path, message, f"# berth-lint: ignore {finding.rule.id} because ...")
    return LintFinding(IGNORED_WITHOUT_REASON, finding.source, finding.position, finding.object, hit)


def fixed(content: str, findings: Iterable[LintFinding]) -> tuple[str, tuple[LintFinding, ...]]:
    """A file's text with its safe fixes made, and which they were; everything else stays as it is.

    Args:
        content: the text that the findings are of.
        findings: of this file; those that are ignored or have no safe fix are passed over.
    """
    edits: dict[tuple[int, int], tuple[str, list[LintFinding]]] = {}
    for each in findings:
        if each.edit:
            span, after = each.edit
            edits.setdefault((span.start, span.end), (after, []))[1].append(each)
    for (start, end), (after, _) in sorted(edits.items(), reverse=True):
        quote = content[start] if content[start] in "'\"" else ""
        content = content[:start] + quote + after + quote + content[end:]
    return content, tuple(each for _, (_, group) in sorted(edits.items()) for each in group)

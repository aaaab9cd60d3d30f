"""Checks of signatures and their fixtures, for the tests and for `tools/signatures.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linear_patterns import problems as not_linear
from modelberth.findings.diagnosis.context import NAMES
from modelberth.findings.diagnosis.diagnose import Log, diagnose_objects
from modelberth.findings.diagnosis.finding import Diagnosis
from modelberth.findings.diagnosis.signature import TEXTS, Match, Signature
from modelberth.findings.diagnosis.wording import places

FIXTURES = Path(__file__).parents[1] / "data" / "signatures"
STAGES = frozenset({
    "", "queue", "scheduling", "image", "download", "process", "engine", "weights", "profile", "compile", "kv-cache",
    "graphs", "server",
})  # fmt: skip
KINDS = {
    "events": "Event", "pods": "Pod", "nodes": "Node", "inferenceservices": "InferenceService",
    "llminferenceservices": "LLMInferenceService", "workloads": "Workload", "deployments": "Deployment",
    "clusterqueues": "ClusterQueue", "localqueues": "LocalQueue", "persistentvolumeclaims": "PersistentVolumeClaim",
    "jobs": "Job", "replicasets": "ReplicaSet", "servingruntimes": "ServingRuntime",
}  # fmt: skip


def patterns_of(match: Match) -> Iterator[tuple[str, bool]]:
    """The expressions of a match, and whether each may match anywhere in a text."""
    if match.log is not None:
        yield match.log, False
    for fields in (match.event, match.condition, match.pod_container, match.pod):
        if fields is not None and fields.message is not None:
            yield fields.message, True


def groups_of(signature: Signature) -> set[str]:
    """Every named group of a signature."""
    found: set[str] = set()
    for match in signature.match:
        for pattern, _ in patterns_of(match):
            found |= set(re.compile(pattern).groupindex)
    return found


def mistakes(signature: Signature, known: Mapping[str, Signature]) -> Iterator[str]:
    """What is wrong in a signature beside its form."""
    if signature.stage not in STAGES:
        yield f"stage: '{signature.stage}' is none of {', '.join(sorted(filter(None, STAGES)))}"
    for match in signature.match:
        for pattern, _ in patterns_of(match):
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"{pattern!r}: {error}"
                return
            yield from (f"{pattern!r}: {problem}" for problem in not_linear(pattern))
    yield from _places(signature)
    for name in signature.explains:
        if name not in known:
            yield f"explains: there is no {name}"
        elif name == signature.id:
            yield "explains: itself"
    if len(signature.page.strip().splitlines()) < 3:
        yield "page: it has fewer than 3 lines"


def _places(signature: Signature) -> Iterator[str]:
    groups = groups_of(signature)
    names = {group for group in groups if not (group.endswith("_unit") and group.removesuffix("_unit") in groups)}
    said = {*names, *NAMES}
    for field in ("cause", "cause_without", "fix", "fix_without", "command", "confirm"):
        for name in sorted(places(getattr(signature, field) or "") - said):
            yield f"{field}: {{{name}}} is no group of its patterns"
    for key, value in signature.patch.items():
        for name in sorted(places(str(value)) - said):
            yield f"patch: {key}: {{{name}}} is no group of its patterns"
    for name in sorted(set(signature.numbers) - names):
        yield f"numbers: {name} is no group of its patterns"


def unused_numbers(signature: Signature) -> set[str]:
    """Numbers that no text shows."""
    texts = f"{signature.cause} {signature.cause_without} {signature.fix} {signature.fix_without}"
    return {name for name, unit in signature.numbers.items() if unit not in TEXTS} - places(texts)


def fixtures(folder: Path, kind: str) -> list[Path]:
    """The fixtures `match-*` or `miss-*` of a signature."""
    return sorted(each for each in folder.glob(f"{kind}-*") if each.suffix in {".log", ".json"})


def diagnosed(path: Path, signatures: Mapping[str, Signature] | None = None) -> Diagnosis:
    """What is said about a fixture."""
    if path.suffix == ".log":
        return diagnose_objects((), [Log(path.name, [path.read_bytes()])], signatures)
    content = json.loads(path.read_text())
    objects = list(_objects(content))
    logs = [
        Log(name, [text.encode()], pod=name.partition("/")[0], container=name.partition("/")[2])
        for name, text in content.get("logs", {}).items()
    ]
    return diagnose_objects(objects, logs, signatures)


def _objects(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, entries in content.items():
        if key in ("objects", "items"):
            yield from entries
        elif key in KINDS:
            yield from ({"kind": KINDS[key], **each} for each in entries)
        elif key != "logs":
            raise ValueError(f"'{key}' is no kind of object; known: {', '.join([*KINDS, 'objects', 'logs'])}")


def failures(signature: Signature, signatures: Mapping[str, Signature] | None = None) -> Iterator[str]:
    """What its fixtures show to be wrong."""
    folder = FIXTURES / signature.id
    matches, misses = fixtures(folder, "match"), fixtures(folder, "miss")
    if not matches or not misses:
        yield f"tests/data/signatures/{signature.id}: a match-*.log (or .json) and a miss-* are needed"
    for path in matches:
        yield from (f"{path.name}: {text}" for text in _match_failures(path, signature, diagnosed(path, signatures)))
    for path in misses:
        raised = [each.id for each in diagnosed(path, signatures).findings]
        raised += [below.id for each in diagnosed(path, signatures).findings for below in each.consequences]
        if signature.id in raised:
            yield f"{path.name}: must not raise it"


def _match_failures(path: Path, signature: Signature, found: Diagnosis) -> Iterator[str]:
    ids = [each.id for each in found.findings]
    if not ids or ids[0] != signature.id:
        yield f"raised {', '.join(ids) or 'nothing'} (first error: {found.first_error and found.first_error.text})"
        return
    first = found.findings[0]
    text = f"{first.cause} {first.fix}"
    expected = path.with_suffix(".expect")
    for line in expected.read_text().splitlines() if expected.exists() else ():
        if line.strip() and line.strip() not in text:
            yield f"'{line.strip()}' is not in: {text}"

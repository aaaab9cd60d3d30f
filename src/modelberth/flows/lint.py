"""`berth lint`: anybody's manifests against the rules.

find files -> read every document -> read the models that are named -> run the rules -> write the safe fixes
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelberth.adapters.files import disk_errors, write_file
from modelberth.base.errors import Problem, Problems, SpecError, UsageError
from modelberth.base.text import did_you_mean
from modelberth.base.yamlio import LooseDocument, read_documents
from modelberth.catalog.platforms import KINDS, Platform, platform, versions
from modelberth.catalog.vllm import rules_for
from modelberth.findings.lint.kustomize import KUSTOMIZATIONS, listed, listed_name, patches
from modelberth.findings.lint.rules import Rule
from modelberth.findings.lint.run import RULES, LintFinding, fixed, lint
from modelberth.findings.lint.world import Manifest, World
from modelberth.flows.model_source import read_model
from modelberth.sizing.model import Model

STDIN, _STDIN_NAME = "-", "<stdin>"
_SUFFIXES = {".yaml", ".yml"}
_NO_SUFFIX = {"Kustomization"}
_SKIPPED = {".git", "node_modules", "__pycache__", ".berth-render"}
_LINE_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML's own, by which lines are counted
# Words of Go's templates, and none of Jinja's, whose chat templates stand in ConfigMaps.
_TEMPLATE = re.compile(
    rb"\{\{-?\s*(?:\.(?:Values|Release|Chart|Files|Capabilities)\b|/\*"
    rb"|(?:if|else|end|range|with|define|include|template|tpl|toYaml)\b)"
)


@dataclass(frozen=True)
class LintRequest:
    """What `berth lint` is asked.

    Attributes:
        paths: files and folders; `-` is standard input.
        platform: `rhoai:3.0` or `kserve:0.20`; None where it is not known.
        vllm: release of vLLM instead of the platform's.
        models: where a service's model is read: service -> folder, config.json, s3://, Hub id.
        select: ids of the rules that are wanted; all when empty.
        ignore: ids of the rules that are not.
        fix: write the safe fixes.
        dry_run: write nothing, and say what would be.
    """

    paths: Sequence[Path]
    platform: str | None = None
    vllm: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    select: Sequence[str] = ()
    ignore: Sequence[str] = ()
    fix: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class LintResult:
    """What was found.

    Attributes:
        findings: those that count, by file and line.
        ignored: those that somebody gave a reason for.
        problems: files that could not be read, each with its place.
        files: how many files were read.
        objects: how many Kubernetes objects were in them.
        fixed: the findings whose fix was written; they are not among `findings`. With `dry_run` they are still there.
        rules: those that were run.
    """

    findings: tuple[LintFinding, ...]
    ignored: tuple[LintFinding, ...]
    problems: tuple[tuple[str, Problem], ...]
    files: int
    objects: int
    fixed: tuple[LintFinding, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class _File:
    source: str
    path: Path | None
    content: bytes


def run_lint(request: LintRequest) -> LintResult:
    """Lint manifests.

    Raises:
        UsageError: no such path, an unknown platform, rule or service.
        IntegrityError, AuthError, RemoteUnavailable: a model cannot be read.
        DoesNotFit: the disk is full while a fix is written; the file is as it was.
    """
    rules = _rules(request)
    files = list(_files(request.paths))
    documents: list[LooseDocument] = []
    problems: list[tuple[str, Problem]] = []
    for file in files:
        try:
            documents += _read(file)
        except SpecError as error:
            problems += [(file.source, each) for each in error.problems.items]
    manifests = tuple(each for document in documents for each in _manifests(document))
    laid_over = patches(manifests)
    names = frozenset(posixpath.normpath(file.source) for file in files)
    world = World(
        tuple(each for each in manifests if posixpath.normpath(each.source) not in laid_over),
        names,
        _platform(request),
        _models(request, manifests),
        _folders(files),
        release=request.vllm,
        patches=tuple(each for each in manifests if posixpath.normpath(each.source) in laid_over),
        there=_there(manifests, names),
    )
    lines = {file.source: _LINE_ENDS.split(file.content.decode("utf-8", "replace")) for file in files}
    found = lint(world, lines, rules)
    written = _fixes(files, found, write=not request.dry_run) if request.fix else ()
    gone = set() if request.dry_run else {id(each) for each in written}  # equality would compare whole documents
    left = [each for each in found if id(each) not in gone]
    return LintResult(
        tuple(each for each in left if not each.ignored),
        tuple(each for each in left if each.ignored),
        tuple(problems),
        len(files),
        sum(1 for each in manifests if each.kind),
        written,
        rules,
    )


# --- files ---------------------------------------------------------------------------------------------------


def _files(paths: Sequence[Path]) -> Iterable[_File]:
    seen: set[Path] = set()
    for path in paths or [Path()]:
        if str(path) == STDIN:
            yield _File(_STDIN_NAME, None, sys.stdin.buffer.read())
            continue
        with disk_errors(path):
            if not path.exists():
                raise UsageError("there is no such file or folder", where=str(path))
            for found in sorted(_below(path)) if path.is_dir() else [path]:
                real = found.resolve()
                if real not in seen and real.is_file() and (found == path or real.is_relative_to(path.resolve())):
                    seen.add(real)
                    yield _File(found.as_posix(), found, found.read_bytes())


def _below(folder: Path) -> Iterable[Path]:
    """YAML files below a folder; links to folders are not followed, and so no loop is."""
    for root, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(each for each in folders if each not in _SKIPPED)
        for name in names:
            if Path(name).suffix in _SUFFIXES or name in _NO_SUFFIX:
                yield Path(root) / name


def _raise(error: OSError) -> None:
    raise error


def _folders(files: Sequence[_File]) -> dict[str, frozenset[str]]:
    """The folders of the files, and those above them that a kustomization may name."""
    found: dict[str, set[str]] = {}
    for file in files:
        if file.path is None:
            continue
        folder = file.path.parent
        found.setdefault(folder.as_posix(), set()).add(file.path.name)
        for parent in folder.parents:
            found.setdefault(parent.as_posix(), set())
    return {name: frozenset(names) for name, names in found.items()}


def _there(manifests: Sequence[Manifest], files: frozenset[str]) -> frozenset[str]:
    """What kustomizations list and the disk has, though it was not read."""
    found = set()
    for each in manifests:
        for _, entry in listed(each) if each.source != _STDIN_NAME else ():
            name = listed_name(each, entry)
            if name in files:
                continue
            place = Path(each.source).parent / entry
            if place.is_file() or any((place / file).is_file() for file in KUSTOMIZATIONS):
                found.add(name)
    return frozenset(found)


def _read(file: _File) -> Iterable[LooseDocument]:
    try:
        return read_documents(file.content, file.source)
    except SpecError:
        template = _TEMPLATE.search(file.content)
        if template is None:
            raise
        line = file.content[: template.start()].count(b"\n") + 1
        problem = Problem(line, 1, "", "this is a template and no YAML yet", "helm template ... | berth lint -")
        raise SpecError(Problems(file.source, (problem,))) from None


def _manifests(document: LooseDocument) -> Iterable[Manifest]:
    """The objects of a document: itself, or the items of a List."""
    whole = Manifest(document)
    items = whole.get("items")
    if whole.kind.endswith("List") and isinstance(items, list):
        return [Manifest(document, ("items", index)) for index, each in enumerate(items) if isinstance(each, dict)]
    return [whole] if isinstance(document.data, dict) else []


# --- what they are held against ------------------------------------------------------------------------------


def _rules(request: LintRequest) -> tuple[Rule, ...]:
    known = {each.id: each for each in RULES}
    for name in (*request.select, *request.ignore):
        if name not in known:
            raise UsageError(
                f"no rule is named '{name}'", why=did_you_mean(name, known), next_step="berth lint --rules"
            )
    return tuple(
        each for each in RULES if (not request.select or each.id in request.select) and each.id not in request.ignore
    )


def _platform(request: LintRequest) -> Platform | None:
    if request.vllm:
        rules_for(request.vllm)  # refuses what is no release
    if request.platform is None:
        return None
    kind, _, version = request.platform.partition(":")
    if kind not in KINDS or version not in versions(kind):
        known = ", ".join(f"{each}:{number}" for each in KINDS for number in versions(each))
        raise UsageError(f"'{request.platform}' is no platform", why=f"known: {known}")
    return platform(kind, version, release=request.vllm)


def _models(request: LintRequest, manifests: Sequence[Manifest]) -> dict[str, Model]:
    names = [each.name for each in manifests if each.kind in {"InferenceService", "LLMInferenceService"}]
    for name in request.models:
        if name not in names:
            raise UsageError(f"no service is named '{name}'", where="--model", why=did_you_mean(name, names))
    return {name: read_model(text).model for name, text in request.models.items()}


# --- fixes ---------------------------------------------------------------------------------------------------


def _fixes(files: Sequence[_File], findings: Sequence[LintFinding], *, write: bool) -> tuple[LintFinding, ...]:
    done: list[LintFinding] = []
    for file in files:
        here = [each for each in findings if each.source == file.source]
        if file.path is None or not any(each.edit for each in here):
            continue
        mark = b"\xef\xbb\xbf" if file.content.startswith(b"\xef\xbb\xbf") else b""
        text, made = fixed(file.content.removeprefix(mark).decode(), here)
        if made and write:
            write_file(file.path.resolve(), mark + text.encode())
        done += made
    return tuple(done)

"""Which release of vLLM's server knows which flag: read from its source distributions, without running any of it.

    python tools/vllm_flags.py FOLDER > src/modelberth/catalog/vllm_flags.json

FOLDER holds unpacked source distributions of vLLM, `vllm-<release>/`. A flag is what a parser is given: literals of
`add_argument` in the engine's and the server's argument modules, and the fields of the server's argument classes.
What a field's type makes of its flag (a switch, a list, a choice) follows vLLM's `get_kwargs` (vllm_sources.py).
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vllm_sources import ENGINE, MODULE_FILES, Facts, Sources, Types

SERVE_FILES = ("entrypoints/cli/serve.py", "scripts.py")
SERVE_PARSER = "serve_parser"
SERVER_CLASSES = re.compile(r"(Base)?FrontendArgs")
MOST_CHOICES = 24
"""Longer lists change with every release and with what is compiled in: methods of quantization, draft models."""

_SPECULATIVE = ("disable-logprobs-during-spec-decoding", "ngram-prompt-lookup-max", "ngram-prompt-lookup-min",
                "num-speculative-tokens", "spec-decoding-acceptance-method", "speculative-disable-by-batch-size",
                "speculative-disable-mqa-scorer", "speculative-draft-tensor-parallel-size", "speculative-max-model-len",
                "speculative-model", "speculative-model-quantization", "typical-acceptance-sampler-posterior-alpha",
                "typical-acceptance-sampler-posterior-threshold")  # fmt: skip
_GUIDED = ("disable_additional_properties", "disable_any_whitespace", "disable_fallback", "backend")
_EPLB = {"num-redundant-experts": "num_redundant_experts", "eplb-window-size": "window_size",
         "eplb-step-interval": "step_interval", "eplb-log-balancedness": "log_balancedness"}  # fmt: skip
# Flags that are gone or deprecated -> what vLLM's own words of that time name instead.
REPLACED = {
    "cuda-graph-sizes": "cudagraph-capture-sizes",
    "disable-log-requests": "no-enable-log-requests",
    "disable-mm-preprocessor-cache": "mm-processor-cache-gb=0",
    "enable-multimodal-encoder-data-parallel": "mm-encoder-tp-mode=data",
    "enable-reasoning": "reasoning-parser",
    "log-config-file": "logging-config.pylogging_config_file",
    "override-pooler-config": "pooler-config",
    "rope-scaling": "hf-overrides",
    "rope-theta": "hf-overrides",
    "task": "runner",
    **dict.fromkeys(_SPECULATIVE, "speculative-config"),
    **{f"guided-decoding-{key.replace('_', '-')}": f"structured-outputs-config.{key}" for key in _GUIDED},
    **{name: f"eplb-config.{key}" for name, key in _EPLB.items()},
}


class Reader:
    """The flags of one release."""

    def __init__(self, package: Path) -> None:
        self.sources = Sources(package)
        self.types = Types(self.sources)

    def flags(self) -> dict[str, Facts]:
        """Name -> facts."""
        found: dict[str, Facts] = {}
        for name in MODULE_FILES:
            if tree := self.sources.tree(name):
                found |= dict(self._declared(tree))
                found |= dict(self._added(tree))
        for name in SERVE_FILES:
            if tree := self.sources.tree(name):
                added = {flag: replace(facts, serve=True) for flag, facts in self._added(tree, SERVE_PARSER)}
                found |= {flag: facts for flag, facts in added.items() if flag not in found}
        return {flag: self._short(facts) for flag, facts in found.items() if flag != "help"}

    @staticmethod
    def _short(facts: Facts) -> Facts:
        return facts if len(facts.choices) <= MOST_CHOICES else replace(facts, choices=())

    def _declared(self, tree: ast.Module) -> Iterator[tuple[str, Facts]]:
        """Fields of the server's argument classes: each becomes a flag."""
        changes = _changes(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and SERVER_CLASSES.fullmatch(node.name):
                for each in node.body:
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                        facts = self.types.facts(each.annotation)
                        for key, value in changes.get(("frontend_kwargs", each.target.id), []):
                            facts = _with(facts, key, value)
                        yield each.target.id.replace("_", "-"), facts

    def _added(self, tree: ast.Module, parser: str = "") -> Iterator[tuple[str, Facts]]:
        """What `add_argument` is given as literals."""
        kwargs, changes = _kwargs_of(tree), _changes(tree)
        for node, names in _calls(tree, parser):
            long = [name for name in names if name.startswith("--")]
            if not long:
                continue
            facts = Facts()
            for keyword in sorted(node.keywords, key=lambda each: each.arg is not None):  # a field's facts first
                for key, value in self._given(keyword, kwargs, changes):
                    facts = value if key is None else _with(facts, key, value)
            others = tuple(name.replace("_", "-") for name in names if name != long[0])
            yield long[0].removeprefix("--").replace("_", "-"), replace(facts, also=others)

    def _given(self, keyword: ast.keyword, kwargs: dict[str, str], changes: dict) -> Iterator[tuple]:
        """One keyword of a call: (None, facts) for a field's, (key, expression) for its own and for changes."""
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
            return
        inner = keyword.value
        if isinstance(inner, ast.Dict):
            for key, value in zip(inner.keys, inner.values, strict=True):
                name = None if key is None else ast.literal_eval(key)
                yield from self._given(ast.keyword(arg=name, value=value), kwargs, changes)
        elif isinstance(inner, ast.Subscript) and isinstance(inner.value, ast.Name):
            source, name = inner.value.id, str(ast.literal_eval(inner.slice))
            annotation = self.sources.classes.get(kwargs.get(source, ""), {}).get(name)
            if annotation is not None:
                yield None, self.types.facts(annotation)
            yield from changes.get((source, name), [])


def _calls(tree: ast.Module, parser: str) -> Iterator[tuple[ast.Call, list[str]]]:
    """Calls of `add_argument` with their literal names; one in a loop over literals counts for each of them."""
    loops = {id(call): node for node in ast.walk(tree) if isinstance(node, ast.For) for call in ast.walk(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add_argument"):  # fmt: skip
            continue
        if parser and ast.unparse(node.func.value) != parser:
            continue
        names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        loop = loops.get(id(node))
        if not names and loop and isinstance(loop.iter, ast.List):
            rows = [each.elts[0] if isinstance(each, ast.Tuple) else each for each in loop.iter.elts]
            for row in rows:
                if isinstance(row, ast.Constant) and isinstance(row.value, str):
                    yield node, [row.value]
        else:
            yield node, names


def _kwargs_of(tree: ast.Module) -> dict[str, str]:
    """Variables of the form `x = get_kwargs(Class)`."""
    return {
        node.targets[0].id: node.value.args[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") in {"get_kwargs", "_compute_kwargs"}
        and node.value.args and isinstance(node.value.args[0], ast.Name)
    }  # fmt: skip


def _changes(tree: ast.Module) -> dict[tuple[str, str], list[tuple[str, ast.expr | None]]]:
    """`x_kwargs["field"]["key"] = ...` and `del x_kwargs["field"]["key"]`, by variable and field."""
    found: dict[tuple[str, str], list[tuple[str, ast.expr | None]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.Delete):
            for target in node.targets:
                words = re.fullmatch(r"(\w+)\['(\w+)'\]\['(\w+)'\]", ast.unparse(target))
                if words:
                    value = node.value if isinstance(node, ast.Assign) else None
                    found.setdefault((words[1], words[2]), []).append((words[3], value))
    return found


_ACTIONS = (("BooleanOptional", "switch"), ("store_true", "alone"), ("store_false", "alone"), ("append", "append"),
            ("StoreBoolean", "boolean"))  # fmt: skip


def _with(facts: Facts, key: str, value: ast.expr | None) -> Facts:
    """Facts after one keyword; None for one that is taken away."""
    if key == "nargs":
        written = "" if value is None else str(getattr(value, "value", ""))
        kept = facts.kind if facts.kind in {"append", "boolean"} else "value"
        return replace(facts, kind={"?": "optional" if kept == "value" else kept, "+": "list", "*": "list"}.get(
            written, kept))  # fmt: skip
    if value is None:
        return facts
    if key == "action":
        text = ast.unparse(value)
        kind = next((kind for word, kind in _ACTIONS if word in text), facts.kind)
        return replace(facts, kind=kind)
    if key == "choices":
        return replace(facts, choices=_constants(value))
    return replace(facts, deprecated=True) if key == "deprecated" else facts


def _constants(value: ast.expr) -> tuple[str, ...]:
    """A literal list; nothing where a part of it is computed."""
    items = value.elts if isinstance(value, ast.List | ast.Tuple) else []
    if not all(isinstance(each, ast.Constant) for each in items):
        return ()
    return tuple(sorted(str(each.value) for each in items if isinstance(each, ast.Constant) and each.value is not None))


def merged(releases: dict[str, dict[str, Facts]]) -> dict[str, list[dict[str, object]]]:
    """One row of spans a flag: what it is since a release, and until which where the next does not know it."""
    order = list(releases)
    result: dict[str, list[dict[str, object]]] = {}
    for flag in sorted({flag for flags in releases.values() for flag in flags}):
        spans: list[dict[str, object]] = []
        before: Facts | None = None
        for index, release in enumerate(order):
            facts = releases[release].get(flag)
            if facts and facts != before:
                spans.append({"since": release, **facts.as_data()})
            elif before and not facts:
                spans[-1]["until"] = order[index - 1]
            before = facts
        result[flag] = spans
    return result


def release_of(folder: Path) -> tuple[int, ...]:
    """A folder's release, to sort by; `.post1` after what it follows."""
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


def _first_with(text: str, read: list[tuple[str, Path]]) -> str:
    """The first release whose own parser holds a text."""
    return next(
        release
        for release, package in read
        if any(text in path.read_text() for path in (*package.glob("utils.py"), *package.glob("utils/*.py")))
    )


def main() -> None:
    """Read every release below a folder and print the catalogue."""
    folders = sorted(Path(sys.argv[1]).glob("vllm-*"), key=release_of)
    packages = {folder.name.removeprefix("vllm-"): folder / "vllm" for folder in folders}
    read = [(release, package) for release, package in packages.items() if (package / ENGINE).exists()]
    releases = {release: Reader(package).flags() for release, package in read}
    head = {
        "source": "add_argument and argument classes of vLLM's source distributions on PyPI, tools/vllm_flags.py",
        "date": "2026-11",
        "releases": list(releases),
        "dottedSince": _first_with("create_nested_dict", read),
        "disableSince": _first_with("class EnableDisableAction", read),
        "replaced": dict(sorted(REPLACED.items())),
    }
    lines = [f"    {json.dumps(flag)}: {json.dumps(spans)}" for flag, spans in merged(releases).items()]
    print(f'{json.dumps(head, indent=2)[:-2]},\n  "flags": {{\n' + ",\n".join(lines) + "\n  }\n}")


if __name__ == "__main__":
    main()

"""Which release of vLLM's server knows which flag: read from its source distributions, without running any of it.

    python tools/vllm_flags.py FOLDER > src/modelberth/catalog/vllm_flags.json

FOLDER holds unpacked source distributions of vLLM, `vllm-<release>/`. A flag is what a parser is given: literals of
`add_argument` in the engine's and the server's argument modules, and the fields of the server's argument classes.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SERVER_FILES = ("engine/arg_utils.py", "entrypoints/openai/cli_args.py", "entrypoints/launchers/cli_args.py",
                "entrypoints/common/cli_args.py", "entrypoints/openai/api_server.py")  # fmt: skip
SERVER_CLASSES = re.compile(r"(Base)?FrontendArgs")
NO_FLAGS = {"help"}


def release_of(folder: Path) -> tuple[int, ...]:
    """A folder's release, to sort by; `.post1` after what it follows."""
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


def flags_of(folder: Path) -> dict[str, dict[str, object]]:
    """The flags of one release: name -> kind and short forms."""
    package = folder / "vllm"
    booleans = {name: kinds for path in _config_files(package) for name, kinds in _fields(path)}
    found: dict[str, dict[str, object]] = {}
    for name in SERVER_FILES:
        path = package / name
        if path.exists():
            tree = ast.parse(path.read_text())
            found |= dict(_added(tree, booleans))
            found |= dict(_declared(tree))
    return {flag: facts for flag, facts in found.items() if flag not in NO_FLAGS}


def _config_files(package: Path) -> Iterator[Path]:
    yield from package.glob("config.py")
    yield from package.glob("config/**/*.py")
    yield package / "engine" / "arg_utils.py"


def _fields(path: Path) -> Iterator[tuple[str, dict[str, bool]]]:
    """Classes of a file, each with its fields and whether they are booleans."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield (
                node.name,
                {
                    each.target.id: _is_boolean(each.annotation)
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                },
            )


def _is_boolean(annotation: ast.expr) -> bool:
    words = set(re.findall(r"\w+", ast.unparse(annotation)))
    return "bool" in words and not words - {"bool", "Optional", "None", "Union", "SkipValidation"}


def _added(tree: ast.AST, classes: dict[str, dict[str, bool]]) -> Iterator[tuple[str, dict[str, object]]]:
    """What `add_argument` is given as literals."""
    sources = _kwargs_of(tree)
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
        ):
            continue
        names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        long = [name for name in names if name.startswith("--")]
        short = [name for name in names if name.startswith("-") and not name.startswith("--")]
        for name in long[:1]:
            facts: dict[str, object] = {"kind": "switch" if _is_switch(node, sources, classes) else "value"}
            other = [each.lstrip("-") for each in (*long[1:], *short)]
            yield name.removeprefix("--").replace("_", "-"), {**facts, **({"also": other} if other else {})}


def _kwargs_of(tree: ast.AST) -> dict[str, str]:
    """Variables of the form `x = get_kwargs(Class)`."""
    return {
        node.targets[0].id: node.value.args[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") in {"get_kwargs", "_compute_kwargs"}
        and node.value.args and isinstance(node.value.args[0], ast.Name)
    }  # fmt: skip


def _is_switch(node: ast.Call, sources: dict[str, str], classes: dict[str, dict[str, bool]]) -> bool:
    for keyword in node.keywords:
        if keyword.arg == "action":
            return "store_true" in ast.unparse(keyword.value) or "BooleanOptional" in ast.unparse(keyword.value) or (
                "store_false" in ast.unparse(keyword.value)
            )  # fmt: skip
        if keyword.arg is None and _is_boolean_field(keyword.value, sources, classes):
            return True
    return False


def _is_boolean_field(value: ast.expr, sources: dict[str, str], classes: dict[str, dict[str, bool]]) -> bool:
    """`x_kwargs["field"]` of a boolean field, also inside `{**x_kwargs["field"], ...}`."""
    if isinstance(value, ast.Dict):
        return any(_is_boolean_field(each, sources, classes) for key, each in zip(value.keys, value.values, strict=True)
                   if key is None)  # fmt: skip
    if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name) and isinstance(value.slice, ast.Constant):
        return classes.get(sources.get(value.value.id, ""), {}).get(str(value.slice.value), False)
    return False


def _declared(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Fields of the server's argument classes; since 0.10 or so each becomes a flag."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and SERVER_CLASSES.fullmatch(node.name):
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    kind = "switch" if _is_boolean(each.annotation) else "value"
                    yield each.target.id.replace("_", "-"), {"kind": kind}


def merged(releases: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    """One entry a flag: its kind, other names, and since and until when; the newest release has the word."""
    order = list(releases)
    result: dict[str, object] = {}
    for flag in sorted({flag for flags in releases.values() for flag in flags}):
        there = [release for release in order if flag in releases[release]]
        facts = dict(releases[there[-1]][flag])
        if there[0] != order[0]:
            facts["since"] = there[0]
        if there[-1] != order[-1]:
            facts["until"] = there[-1]
        result[flag] = facts
    return result


def main() -> None:
    """Read every release below a folder and print the catalogue."""
    folders = sorted(Path(sys.argv[1]).glob("vllm-*"), key=release_of)
    releases = {folder.name.removeprefix("vllm-"): flags_of(folder) for folder in folders if (folder / "vllm").is_dir()}
    releases = {release: flags for release, flags in releases.items() if len(flags) > 100}  # unpacked as a whole
    document = {
        "source": "add_argument and argument classes of vLLM's source distributions on PyPI, tools/vllm_flags.py",
        "date": "2026-11",
        "releases": list(releases),
        "flags": merged(releases),
    }
    lines = [f"    {json.dumps(flag)}: {json.dumps(facts)}" for flag, facts in document.pop("flags").items()]
    head = json.dumps(document, indent=2)[:-2]
    print(f'{head},\n  "flags": {{\n' + ",\n".join(lines) + "\n  }\n}")


if __name__ == "__main__":
    main()

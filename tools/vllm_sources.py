"""What the sources of one vLLM release say of a flag: its facts, its modules, and what a field's type makes of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ENGINE = "engine/arg_utils.py"
MODULE_FILES = (ENGINE, "entrypoints/openai/cli_args.py", "entrypoints/launchers/cli_args.py",
                "entrypoints/common/cli_args.py", "entrypoints/openai/api_server.py")  # fmt: skip
TYPE_FILES = ("config.py", "config/**/*.py", "model_executor/layers/quantization/__init__.py",
              "reasoning/abs_reasoning_parsers.py", "platforms/interface.py", "pooling_params.py", "tasks.py",
              "sampling_params.py", "*/chat_utils.py", "*/chat_utils/types.py")  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What one release's parser makes of a flag.

    Attributes:
        kind: `switch` (with a `--no-` form), `alone` (without), `boolean` (true or false, or nothing), `optional` (a
            value or nothing), `value`, `list` (several words), `append` (may be given again).
        also: its other names, with their dashes.
        choices: the values that there are, as literals; empty where any is taken, or they are too many or computed.
        deprecated: whether the release warns of it.
        serve: whether `vllm serve` alone has it.
    """

    kind: str = "value"
    also: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    deprecated: bool = False
    serve: bool = False

    def as_data(self) -> dict[str, object]:
        """Without what is as usual."""
        told = {"also": list(self.also), "choices": list(self.choices), "deprecated": self.deprecated,
                "serve": self.serve}  # fmt: skip
        return {"kind": self.kind, **{key: value for key, value in told.items() if value}}


@dataclass
class Sources:
    """The modules of one release that say something about flags."""

    package: Path
    trees: dict[str, ast.Module] = field(default_factory=dict)

    def tree(self, name: str) -> ast.Module | None:
        """A module by its path, parsed once."""
        path = self.package / name
        if name not in self.trees and path.exists():
            self.trees[name] = ast.parse(path.read_text())
        return self.trees.get(name)

    def texts(self, name: str) -> str:
        """A module as text."""
        return (self.package / name).read_text()

    @cached_property
    def modules(self) -> list[ast.Module]:
        """Where argument classes and the names of their types are defined."""
        paths = {path for pattern in TYPE_FILES for path in self.package.glob(pattern)}
        names = [str(path.relative_to(self.package)) for path in sorted(paths)]
        return [tree for name in (*names, *MODULE_FILES) if (tree := self.tree(name))]

    @cached_property
    def classes(self) -> dict[str, dict[str, ast.expr]]:
        """Classes with the types of their fields, those of their bases first."""
        found = {node.name: node for tree in self.modules for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        return {name: self._fields(node, found) for name, node in found.items()}

    @cached_property
    def names(self) -> dict[str, ast.expr]:
        """Module-level names and what they are."""
        found: dict[str, ast.expr] = {}
        for tree in self.modules:
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    found.setdefault(node.targets[0].id, node.value)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value and (
                    "TypeAlias" in ast.unparse(node.annotation)
                ):  # fmt: skip
                    found.setdefault(node.target.id, node.value)
        return found

    @cached_property
    def dataclasses(self) -> set[str]:
        """Classes whose fields are given as JSON."""
        return {node.name for tree in self.modules for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
                and any(re.search("dataclass|config", ast.unparse(each)) for each in node.decorator_list)}  # fmt: skip

    def _fields(self, node: ast.ClassDef, found: dict[str, ast.ClassDef]) -> dict[str, ast.expr]:
        fields: dict[str, ast.expr] = {}
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in found and base.id != node.name:
                fields |= self._fields(found[base.id], found)
        return fields | {
            each.target.id: each.annotation
            for each in node.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        }


class Types:
    """What a field's type makes of its flag."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        engine = sources.texts(ENGINE)
        self.counts = "def contains_type" in engine  # before, types said nothing of a flag
        self.free_with_text = '"metavar" if contains_type' in engine
        self.bool_or_text = "{bool, str, type(None)}" in engine

    def facts(self, annotation: ast.expr) -> Facts:
        """Kind and choices."""
        if not self.counts:
            return Facts()
        members = list(self._members(annotation, 8))
        kinds = {name for name, _ in members}
        literal = next((node for name, node in members if name == "Literal" and isinstance(node, ast.Subscript)), None)
        if kinds & self.sources.dataclasses:
            return Facts()
        if self.bool_or_text and kinds == {"bool", "str", "None"}:
            return Facts("optional")
        if "bool" in kinds:
            return Facts("switch")
        if literal is not None:
            free = self.free_with_text and "str" in kinds
            return Facts(choices=() if free else self._literals(literal))
        return Facts("list" if kinds & {"tuple", "list", "set"} else "value")

    def _members(self, node: ast.expr, depth: int) -> Iterator[tuple[str, ast.expr]]:
        """The types of a union, by name, each with its expression."""
        if depth == 0:
            return
        if isinstance(node, ast.Constant):
            inner = ast.parse(node.value, mode="eval").body if isinstance(node.value, str) else None
            yield from self._members(inner, depth - 1) if inner else [("None", node)]
        elif isinstance(node, ast.BinOp):
            yield from self._members(node.left, depth - 1)
            yield from self._members(node.right, depth - 1)
        elif isinstance(node, ast.Subscript):
            yield from self._subscript(node, depth)
        elif isinstance(node, ast.Name) and node.id in self.sources.names and (
            node.id not in self.sources.classes and node.id not in {"bool", "str", "int"}
        ):  # fmt: skip
            yield from self._members(self.sources.names[node.id], depth - 1)
        else:
            yield ast.unparse(node).split(".")[-1], node

    def _subscript(self, node: ast.Subscript, depth: int) -> Iterator[tuple[str, ast.expr]]:
        name = ast.unparse(node.value).split(".")[-1]
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Optional":
            yield from self._members(node.slice, depth - 1)
            yield "None", node
        elif name == "Union":
            for each in items:
                yield from self._members(each, depth - 1)
        elif name in {"Annotated", "SkipValidation"}:
            yield from self._members(items[0], depth - 1)
        else:
            yield name.lower() if name in {"List", "Tuple", "Set", "Dict"} else name, node

    def _literals(self, node: ast.Subscript) -> tuple[str, ...]:
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        found: list[str] = []
        for each in items:
            if isinstance(each, ast.Constant):
                found += [] if each.value is None else [str(each.value)]
            elif isinstance(each, ast.Subscript):
                found += self._literals(each)
            elif isinstance(each, ast.Name) and isinstance(named := self.sources.names.get(each.id), ast.Subscript):
                found += self._literals(named)
        return tuple(sorted(set(found)))

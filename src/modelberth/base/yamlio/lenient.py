"""Manifests of anybody: several documents, aliases, YAML 1.1 words, read as a cluster's own tools read them.

Where the strict reader refuses, this one takes what kubectl would take, and notes for every value where it begins and
ends in the text, so that one of them can be replaced and nothing else moves. Duplicate keys are refused as Kustomize
refuses them; kubectl alone would take the last and say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from modelberth.base.errors import Problem, Problems, SpecError
from modelberth.base.yamlio.document import Document, Path, Position

MAX_BYTES = 32 << 20
_MAX_REPEATED = 200_000  # values that aliases write out again; a bomb has more
_MAX_DEPTH = 200
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same nodes and marks, ten times as fast where it is built
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null")}


@dataclass(frozen=True)
class Span:
    """Where a value stands in its text: offsets of its first character and of the one after its last."""

    start: int
    end: int


@dataclass(frozen=True)
class LooseDocument(Document):
    """One document that was read leniently.

    Attributes:
        spans: where each scalar stands that is written on one line, without an anchor or a tag: what can be replaced.
    """

    spans: dict[Path, Span] = field(default_factory=dict)


def read_documents(content: bytes, source: str) -> tuple[LooseDocument, ...]:
    """Every document of a file; empty ones are left out.

    Args:
        content: the file's bytes; UTF-8.
        source: the name to show in messages.

    Raises:
        SpecError: it is no YAML, with line and column; too large, or nested too deep.
    """
    if len(content) > MAX_BYTES:
        raise _fail(source, 0, 0, f"the file has {len(content):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        raise _fail(source, line, len(before) - before.rfind(b"\n"), "it is not UTF-8") from None
    try:
        _check_depth(text, source)
        documents = (_Builder(source, text).build(node) for node in yaml.compose_all(text, Loader=_LOADER))
        found = [each for each in documents if each.data is not None]
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, source) from None
    except (ValueError, OverflowError, RecursionError):
        raise _fail(source, 0, 0, "not YAML: a value that cannot be read") from None
    return tuple(found)


def _fail(source: str, line: int, column: int, message: str) -> SpecError:
    return SpecError(Problems(source, (Problem(line, column, "", message),)))


def _syntax_error(error: yaml.YAMLError, text: str, source: str) -> SpecError:
    odd = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if isinstance(error, yaml.reader.ReaderError) and odd:  # it has an offset and no mark
        before = text[: odd.start()]
        column = len(before) - before.rfind("\n")
        return _fail(source, before.count("\n") + 1, column, "not YAML: a character that YAML does not allow")
    mark = getattr(error, "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = getattr(error, "problem", None) or "cannot be parsed"
    return _fail(source, line, column, f"not YAML: {problem}")


def _check_depth(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            mark = event.start_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            raise _fail(source, line, column, f"nested deeper than {_MAX_DEPTH} levels")


def _size(node: yaml.Node, known: dict[int, int], inside: set[int]) -> int:
    """How many values a node has when its aliases are written out; linear in what is written.

    Raises:
        ValueError: an alias stands in what it means.
    """
    if id(node) in inside:
        raise ValueError("an alias without end")
    if id(node) not in known:
        inside.add(id(node))
        known[id(node)] = 1 + sum(_size(child, known, inside) for child in _children(node))
        inside.discard(id(node))
    return known[id(node)]


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return (child for pair in node.value for child in pair)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


class _Builder:
    """Plain data out of composed nodes, with positions and spans."""

    def __init__(self, source: str, text: str) -> None:
        self._source = source
        self._text = text
        self._values: dict[Path, Position] = {}
        self._keys: dict[Path, Position] = {}
        self._raw: dict[Path, str] = {}
        self._spans: dict[Path, Span] = {}
        self._loader = yaml.SafeLoader("")

    def build(self, node: yaml.Node) -> LooseDocument:
        written: dict[int, int] = {}
        if "&" in self._text and _size(node, written, set()) - len(written) > _MAX_REPEATED:
            place = _position(node)
            raise _fail(self._source, place.line, place.column, "not YAML: aliases that grow without measure")
        data = self._node(node, ())
        return LooseDocument(self._source, data, self._values, self._keys, self._raw, self._spans)

    def _node(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = _position(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return [self._node(child, (*path, index)) for index, child in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._check_keys(node)
        result: dict[str, Any] = {}
        for key_node, value_node in _merged(node):
            key = str(key_node.value)
            self._keys[*path, key] = _position(key_node)
            result[key] = self._node(value_node, (*path, key))
        return result

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            place = _position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise _fail(self._source, place.line, place.column, "not YAML: a key must be plain text")
            key = str(key_node.value)
            if key in seen:
                message = f"the key '{key}' stands twice; first at line {seen[key]}"
                raise _fail(self._source, place.line, place.column, message)
            seen[key] = place.line

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        start, end = node.start_mark.index, node.end_mark.index
        written = self._text[start:end]
        if written and written[0] not in "&!" and "\n" not in written:
            self._spans[path] = Span(start, end)
        if not node.style:  # None, or empty where libyaml has read it
            self._raw[path] = node.value
        if node.tag not in _PLAIN or ":" in node.value:  # 1:30 is a number of YAML 1.1 that clusters take as text
            return node.value
        return self._loader.construct_object(node)


def _merged(node: yaml.MappingNode) -> Iterable[tuple[yaml.Node, yaml.Node]]:
    """The pairs of a mapping; what `<<` brings stands first, so that the mapping's own keys win."""
    own: list[tuple[yaml.Node, yaml.Node]] = []
    for key, value in node.value:
        if key.tag != _MERGE:
            own.append((key, value))
            continue
        # Of several, the first wins.
        for part in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
            if isinstance(part, yaml.MappingNode):
                yield from _merged(part)
    yield from own


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)

"""Reading: bytes to one document, or to every problem in them with its position."""

from __future__ import annotations

import codecs
import math
import re
from collections import deque
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from modelberth.base.errors import Problem, Problems, SpecError
from modelberth.base.text import names_secret
from modelberth.base.yamlio.dialects import SURROGATE, is_ambiguous
from modelberth.base.yamlio.document import Document, Path, Position, path_text

MAX_BYTES = 2 << 20
"""Largest file read, bytes. A berth.yaml of a hundred models is some 50 kB."""
MAX_DEPTH = 40
"""Deepest nesting read. The spec needs six levels."""

# The values both dialects agree on (YAML 1.2 core schema, section 10.3.2, narrowed).
_NULLS = {"", "~", "null", "Null", "NULL"}
_TRUE, _FALSE = {"true", "True", "TRUE"}, {"false", "False", "FALSE"}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def read_document(content: bytes, source: str) -> Document:
    """Read one YAML document.

    Args:
        content: the file's bytes; UTF-8, with or without a byte order mark.
        source: the name to show in messages.

    Raises:
        SpecError: every reason named in the module's first lines, with line and column.
    """
    text = _decode(content, source)
    _check_line_ends(text, source)
    node = _Composer(_checked_events(text, source)).get_single_node()
    if node is None:
        raise _fail(source, 1, 1, "the file is empty; expected a mapping that starts with apiVersion")
    return _Builder(source).build(node)


def _fail(source: str, line: int, column: int, message: str, suggestion: str = "", path: str = "") -> SpecError:
    return SpecError(Problems(source, (Problem(line, column, path, message, suggestion),)))


def _decode(content: bytes, source: str) -> str:
    if len(content) > MAX_BYTES:
        raise _fail(source, 0, 0, f"the file has {len(content):,} bytes; at most {MAX_BYTES:,} are read")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line, column = _line_column(content[: error.start].decode(), error.start)
        byte = content[error.start]
        raise _fail(source, line, column, f"byte 0x{byte:02x} is not UTF-8", "save the file as UTF-8") from None


def _check_line_ends(text: str, source: str) -> None:
    """Refuse the characters that end a line in YAML 1.1 and not in 1.2: NEL, LS and PS."""
    found = re.search("[\x85\u2028\u2029]", text)
    if found:
        line, column = _line_column(text, found.start())
        name = f"U+{ord(found[0]):04X}"
        raise _fail(
            source,
            line,
            column,
            f"{name} ends a line in YAML 1.1 and not in 1.2",
            "remove it or use a plain line end",
        )


def _line_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Composer(Composer, Resolver):
    """Nodes out of events that were parsed before: parsing is what takes long."""

    def __init__(self, events: list[yaml.Event]) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        self._events = deque(events)

    def check_event(self, *choices: type[yaml.Event]) -> bool:
        return bool(self._events) and (not choices or isinstance(self._events[0], choices))

    def peek_event(self) -> yaml.Event:
        return self._events[0]

    def get_event(self) -> yaml.Event:
        return self._events.popleft()


def _checked_events(text: str, source: str) -> list[yaml.Event]:
    """The events, without what must not reach the recursive composer: depth, aliases, tags, several documents."""
    depth = documents = 0
    events = []
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            events.append(event)
            line, column = _start_of(event)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _fail(
                    source,
                    line,
                    column,
                    "anchors and aliases are not read",
                    "write the value out in both places",
                )
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise _fail(source, line, column, f"the tag {tag} is not read", "remove the tag")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _fail(source, line, column, f"nested deeper than {MAX_DEPTH} levels")
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise _fail(
                    source,
                    line,
                    column,
                    "a second document starts here; expected one",
                    "keep one stack in a file",
                )
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Not chained: the cause quotes the file, and the file may hold a secret by mistake.
        raise _syntax_error(error, text, source) from None
    return events


def _syntax_error(error: Exception, text: str, source: str) -> SpecError:
    if not isinstance(error, yaml.YAMLError):  # PyYAML lets chr() and int() fail: "\U00110000", %YAML 1.<5000 digits>
        return _fail(source, 0, 0, "not YAML: an escape or a directive has a number that is too large")
    if isinstance(error, yaml.reader.ReaderError):  # an unprintable character: an offset, no mark
        line, column = _line_column(text, error.position)
        return _fail(
            source,
            line,
            column,
            "not YAML: a character that YAML does not allow",
            "remove control characters",
        )
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return _fail(source, 0, 0, "not YAML")
    problem = getattr(error, "problem", None) or "cannot be parsed"
    hint = "indent with spaces" if "'\\t'" in problem else ""
    return _fail(source, mark.line + 1, mark.column + 1, f"not YAML: {problem}", hint)


class _Builder:
    """Plain data out of composed nodes, noting positions and collecting problems."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._values: dict[Path, Position] = {}
        self._keys: dict[Path, Position] = {}
        self._raw: dict[Path, str] = {}
        self._problems: list[Problem] = []

    def build(self, node: yaml.Node) -> Document:
        data = self._node(node, ())
        if self._problems:
            raise SpecError(Problems(self._source, tuple(self._problems)))
        return Document(self._source, data, self._values, self._keys, self._raw)

    def _node(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = _position(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._node(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._problem(key_node, path, "a key must be plain text")
                continue
            self._check_unicode(key_node, path)
            child = (*path, key)
            if key in result:
                first = self._keys[child]
                self._problem(
                    key_node,
                    child,
                    f"the key '{key}' stands twice; first at line {first.line}",
                    "keep one of them",
                )
                continue
            if key == "<<" and key_node.style is None:
                self._problem(key_node, path, "merge keys are not read", "write the keys out")
            elif key_node.style is None and is_ambiguous(key):
                self._problem(
                    key_node,
                    child,
                    f"the key '{key}' is not text to every YAML reader",
                    f'write "{key}" in quotes',
                )
            self._keys[child] = _position(key_node)
            result[key] = self._node(value_node, child)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if node.style is not None:  # quoted or a block: always a string
            self._check_unicode(node, path)
            return text
        self._raw[path] = text
        if text in _NULLS:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INT.fullmatch(text) and len(text.lstrip("+-")) < 20:
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        self._check_string(node, path, text)
        return text

    def _check_string(self, node: yaml.ScalarNode, path: Path, text: str) -> None:
        # A value below a key such as `secretKey` is one by mistake: never show it.
        hidden = any(isinstance(part, str) and names_secret(part) for part in path)
        shown, quoted = ("this value", "it") if hidden else (text, f'"{text}"')
        if _NOT_FINITE.fullmatch(text) or _FLOAT.fullmatch(text):
            self._problem(node, path, f"{shown} is not a finite number")
        elif _INT.fullmatch(text):
            self._problem(node, path, f"{shown} is too large a number", f"write {quoted} in quotes if it is text")
        elif is_ambiguous(text):
            advice = f"write {quoted} in quotes, or a plain number"
            self._problem(node, path, f"{shown} reads differently in YAML 1.1 and 1.2", advice)

    def _check_unicode(self, node: yaml.ScalarNode, path: Path) -> None:
        if SURROGATE.search(node.value):
            self._problem(node, path, "half of a surrogate pair is not a character", "write the character itself")

    def _problem(self, node: yaml.Node, path: Path, message: str, suggestion: str = "") -> None:
        position = _position(node)
        self._problems.append(Problem(position.line, position.column, path_text(path), message, suggestion))


def _start_of(marked: yaml.Node | yaml.Event) -> tuple[int, int]:
    """1-based; everything that comes from a text has a mark."""
    mark = marked.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _position(node: yaml.Node) -> Position:
    return Position(*_start_of(node))

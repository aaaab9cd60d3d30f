"""A fix written into berth.yaml: some keys of one variant, and nothing else of the file moves.

The text is edited in place, so comments and layout stay; what comes out is read again and must say exactly what was
asked for, or nothing is written.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelberth.adapters.files import disk_errors, write_file
from modelberth.base.errors import Conflict, SpecError
from modelberth.base.yamlio import LooseDocument, Position, path_text, read_document, read_documents, write_documents
from modelberth.base.yamlio import Path as Key
from modelberth.spec.reading import read_stack
from modelberth.spec.services import Service, service_name
from modelberth.spec.stack import Stack

_WORD = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)
Value = str | int | float | bool


@dataclass(frozen=True)
class SpecChange:
    """What was written.

    Attributes:
        path: the file.
        lines: `models[0].variants[0].maxModelLen: 32768 -> 28160`; empty when it was so already.
    """

    path: Path
    lines: tuple[str, ...]


def write_patch(path: Path, service: Service, patch: Mapping[str, Value]) -> SpecChange:
    """Write a patch into a spec.

    Args:
        path: of berth.yaml.
        service: whose variant is changed.
        patch: keys of the variant, `engineArgs.<flag>` among them, and their values.

    Raises:
        SpecError: the file is no valid spec, or would not be one afterwards.
        Conflict: its layout does not let the change be written without touching something else.
        DoesNotFit: the disk is full; the file is as it was.
    """
    with disk_errors(path):
        content = path.read_bytes()
    changed, lines = patched(content, str(path), service, patch)
    if changed != content:
        with disk_errors(path):
            write_file(path.resolve(), changed)
    return SpecChange(path, lines)


def patched(content: bytes, source: str, service: Service, patch: Mapping[str, Value]) -> tuple[bytes, tuple[str, ...]]:
    """The file's bytes with the patch in them, and what it changes."""
    stack = read_stack(content, source)
    base = _variant(stack, service)
    mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
    text, wanted, lines = content.removeprefix(mark).decode(), read_document(content, source).data, []
    wanted = copy.deepcopy(wanted)
    for name, value in patch.items():
        key = (*base, *name.split(".", 1))
        document = read_documents(text.encode(), source)[0]
        before = _get(wanted, key)
        if before == value and type(before) is type(value):
            continue
        _set(wanted, key, value)
        text = _edited(text, document, key, value, source)
        lines.append(f"{path_text(key)}: {'not set' if before is None else before} -> {value}")
    changed = mark + text.encode()
    _check(changed, source, wanted)
    return changed, tuple(lines)


def _check(changed: bytes, source: str, wanted: Any) -> None:
    try:
        found = read_document(changed, source).data
    except SpecError as error:
        raise _by_hand(source, "the changed file would not be YAML any more") from error
    if found != wanted:
        raise _by_hand(source, "the change would touch something else in it")
    read_stack(changed, source)


def _by_hand(source: str, why: str) -> Conflict:
    return Conflict(
        "the fix cannot be written", where=source, why=why, next_step="write it by hand, as the finding says"
    )


def _variant(stack: Stack, service: Service) -> Key:
    for number, model in enumerate(stack.models):
        for index, variant in enumerate(model.variants):
            if service_name(model, variant) == service.name:
                return ("models", number, "variants", index)
    raise AssertionError("a service is of its stack")


def _get(data: Any, key: Key) -> Any:
    for part in key:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _set(data: Any, key: Key, value: Value) -> None:
    for part in key[:-1]:
        if isinstance(data, dict) and (part not in data or data[part] is None):
            data[part] = {}
        data = data[part]
    data[key[-1]] = value


def _edited(text: str, document: LooseDocument, key: Key, value: Value, source: str) -> str:
    """The text with one key set."""
    if key in document.values:
        span = document.spans.get(key)
        if span is None or span.start == span.end:
            raise _by_hand(source, f"the value of {path_text(key)} is written over several lines, or empty")
        return text[: span.start] + _scalar(value) + text[span.end :]
    parent = key[:-1]
    known = _get(document.data, parent)
    if isinstance(known, dict) and known:
        return _with_key(text, document, parent, list(known), {str(key[-1]): value}, source)
    if parent in document.values:
        raise _by_hand(source, f"{path_text(parent)} is empty")
    above = parent[:-1]
    return _with_key(
        text, document, above, list(_get(document.data, above)), {str(parent[-1]): {str(key[-1]): value}}, source
    )


def _with_key(
    text: str, document: LooseDocument, mapping: Key, names: list[str], entry: dict[str, Any], source: str
) -> str:
    """The text with an entry more in a mapping: on a line of its own, or within the braces where it has some."""
    lines = text.splitlines(keepends=True)
    places = {name: document.keys[*mapping, name] for name in names}
    first = min(places.values(), key=lambda place: (place.line, place.column))
    if document.values[mapping] != first or len({place.line for place in places.values()}) < len(places):
        return _in_braces(text, lines, first, entry)
    # Behind the first value that ends on its own line, so that no comment changes what it belongs to.
    last = next((name for name in names if (*mapping, name) in document.spans), None)
    if last is None:
        raise _by_hand(source, f"{path_text(mapping)} has no value on one line")
    line = document.values[*mapping, last].line
    ending = "\r\n" if lines[line - 1].endswith("\r\n") else "\n"
    written = write_documents([entry]).rstrip("\n").split("\n")
    indented = "".join(" " * (first.column - 1) + each + ending for each in written)
    if not lines[line - 1].endswith("\n"):
        lines[line - 1] += ending
    return "".join([*lines[:line], indented, *lines[line:]])


def _in_braces(text: str, lines: list[str], first: Position, entry: dict[str, Any]) -> str:
    (name, value), offset = next(iter(entry.items())), sum(map(len, lines[: first.line - 1])) + first.column - 1
    if isinstance(value, dict):
        (inner, value) = next(iter(value.items()))
        return f"{text[:offset]}{name}: {{{inner}: {_scalar(value)}}}, {text[offset:]}"
    return f"{text[:offset]}{name}: {_scalar(value)}, {text[offset:]}"


def _scalar(value: Value) -> str:
    """A value as it may stand in braces too: text is in quotes unless it is one plain word."""
    written = write_documents([{"x": value}]).rstrip("\n").removeprefix("x: ")
    if isinstance(value, str) and not _WORD.fullmatch(written):
        return json.dumps(value, ensure_ascii=False)
    return written

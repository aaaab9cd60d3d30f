"""Writing: plain data to canonical YAML that both dialects read alike.

Blocks are written here and scalars by PyYAML, each text once: a stack of 500 services is some 60,000 scalars, most of
them the same few hundred. What is rare (a key that is longer than a line, keys of several lines) is left to PyYAML as
a whole; the text is the same either way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import yaml

from modelberth.base.yamlio.dialects import SURROGATE, is_ambiguous

_FIRST_KEYS = ("apiVersion", "kind", "metadata", "spec")


class _Dumper(yaml.SafeDumper):
    """Block style, no aliases, sequences indented, strings quoted when in doubt."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if "\n" in text and _fits_block(text):
        return dumper.represent_scalar(tag, text, style="|")
    if is_ambiguous(text) or not text.isascii() or not text.isprintable():
        # Double quotes are the one style that can escape anything.
        return dumper.represent_scalar(tag, text, style='"')
    return dumper.represent_scalar(tag, text)


def _fits_block(text: str) -> bool:
    lines = text.split("\n")
    plain = all(line.isascii() and line.isprintable() and line == line.rstrip() for line in lines)
    return plain and bool(lines[0]) and not lines[0].startswith(" ") and not text.endswith("\n\n")


def _ordered(mapping: dict[Any, Any]) -> list[tuple[Any, Any]]:
    first = [(key, mapping[key]) for key in _FIRST_KEYS if key in mapping]
    return first + [(key, value) for key, value in mapping.items() if key not in _FIRST_KEYS]


def _represent_mapping(dumper: yaml.SafeDumper, mapping: dict[Any, Any]) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", _ordered(mapping))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_mapping)


def write_documents(documents: Iterable[Any]) -> str:
    """Canonical YAML text of plain data, documents separated by `---`.

    Key order is apiVersion, kind, metadata, spec, then as given; LF line ends; never a wrapped line.

    Raises:
        ValueError: a value that is not plain data, or a float that is not finite.
    """
    parts = []
    for document in documents:
        _check_plain(document)
        parts.append(_document(document))
    return "---\n".join(parts)


# Most of what a manifest holds needs no analysis: it begins with a letter and has nothing that YAML reads in two ways.
_PLAIN_TEXT = re.compile(r"(?:--)?[A-Za-z](?:[A-Za-z0-9_./=-]|:(?=[A-Za-z0-9/]))*", re.ASCII)
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
_LONGEST_KEY = 100
"""Characters: PyYAML writes a key of 128 and more in two lines, `? key` and `: value`."""


def _document(document: Any) -> str:
    if not isinstance(document, dict | list) or not document:
        return _dumped(document)
    try:
        return "\n".join(_lines(document)) + "\n"
    except _Rare:
        return _dumped(document)


class _Rare(Exception):
    """Something that PyYAML writes in a form of its own."""


def _dumped(value: Any) -> str:
    text = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1 << 30, allow_unicode=False
    )
    # PyYAML closes a bare scalar with a line `...`; text that happens to end in three dots stays.
    return re.sub(r"\n\.\.\.\n\Z", "\n", text)


def _lines(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    """The lines of a collection that is not empty, beginning at the left edge."""
    if isinstance(value, dict):
        for key, child in _ordered(value):
            yield from _entry(f"{_key(key)}:", child)
    else:
        for child in value:
            yield from _item(child)


def _entry(head: str, value: Any) -> Iterator[str]:
    """`key: value`, or the key alone with what belongs to it below."""
    if isinstance(value, dict | list) and value:
        yield head
        yield from (f"  {line}" if line else line for line in _lines(value))
    else:
        first, *rest = _scalar_lines(value)
        yield f"{head} {first}"
        yield from rest


def _item(value: Any) -> Iterator[str]:
    """`- value`, the first line of a collection beside the dash."""
    lines = _lines(value) if isinstance(value, dict | list) and value else iter(_scalar_lines(value))
    yield f"- {next(lines)}"
    nested = isinstance(value, dict | list)
    yield from (f"  {line}" if line and nested else line for line in lines)


def _scalar_lines(value: Any) -> tuple[str, ...]:
    """One line, or the head and the lines of a block, indented below what they belong to."""
    if isinstance(value, dict):
        return ("{}",)
    if isinstance(value, list):
        return ("[]",)
    if isinstance(value, str):
        return _text_lines(value)
    if value is None or isinstance(value, bool):
        return ("null" if value is None else "true" if value else "false",)
    return (str(value) if isinstance(value, int) else _dumped(value).rstrip("\n"),)


@lru_cache(maxsize=1 << 14)
def _text_lines(text: str) -> tuple[str, ...]:
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _WORDS:
        return (text,)
    if "\n" in text and _fits_block(text):
        head, body = ("|", text[:-1]) if text.endswith("\n") else ("|-", text)
        return (head, *(f"  {line}" if line else "" for line in body.split("\n")))
    written = _dumped(text).removesuffix("\n")
    if "\n" in written:
        raise _Rare
    return (written,)


def _key(key: str) -> str:
    lines = _text_lines(key)
    if len(lines) > 1 or len(lines[0]) > _LONGEST_KEY or not key or not (key.isascii() and key.isprintable()):
        raise _Rare
    return lines[0]


def _check_plain(value: Any) -> None:
    if type(value) is dict:
        for key, child in value.items():
            if type(key) is not str:
                raise ValueError(f"a key must be text, not {type(key).__name__}")
            _check_plain(key)
            _check_plain(child)
    elif type(value) is list:
        for child in value:
            _check_plain(child)
    else:
        _check_plain_scalar(value)


def _check_plain_scalar(value: Any) -> None:
    # The exact type: PyYAML represents no subclass, such as the member of an enum.
    if type(value) not in {str, int, float, bool, type(None)}:
        raise ValueError(f"{type(value).__name__} is not plain data")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a float must be finite")
    if isinstance(value, str) and SURROGATE.search(value):
        raise ValueError("half of a surrogate pair is not a character")

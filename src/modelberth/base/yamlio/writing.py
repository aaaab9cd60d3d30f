"""Writing: plain data to canonical YAML that both dialects read alike."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
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


def _represent_mapping(dumper: yaml.SafeDumper, mapping: dict[Any, Any]) -> yaml.MappingNode:
    first = [(key, mapping[key]) for key in _FIRST_KEYS if key in mapping]
    rest = [(key, value) for key, value in mapping.items() if key not in _FIRST_KEYS]
    return dumper.represent_mapping("tag:yaml.org,2002:map", first + rest)


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
        parts.append(
            yaml.dump(
                document,
                Dumper=_Dumper,
                sort_keys=False,
                default_flow_style=False,
                width=1 << 30,
                allow_unicode=False,
            )
        )
    # PyYAML closes a bare scalar with a line `...`; text that happens to end in three dots stays.
    return "---\n".join(re.sub(r"\n\.\.\.\n\Z", "\n", part) for part in parts)


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

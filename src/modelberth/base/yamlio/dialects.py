"""Where YAML 1.1 and 1.2, and the readers of each, part ways."""

from __future__ import annotations

import re

import yaml

# What some reader takes for a number and PyYAML (1.1) does not: the YAML 1.2 core schema, and readers that
# allow underscores, a sign before 0o or 0x, or 0O and 0X (ruamel.yaml; Go's, which Kubernetes uses).
_CORE_ONLY = re.compile(
    r"[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9_]+)?"
    r"|[-+]_[0-9_]*(?:\.[0-9_]*)?|[-+]?0[oOxXbB][0-9a-fA-F_]+",
    re.ASCII,
)
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 pair: no character, and no writer can encode it."""
# YAML 1.1 booleans of one letter, which PyYAML leaves alone and others do not.
_SINGLE_LETTERS = {"y", "Y", "n", "N"}


def is_ambiguous(text: str) -> bool:
    """Whether either dialect reads this plain scalar as something else than text."""
    if text in _SINGLE_LETTERS or _CORE_ONLY.fullmatch(text):
        return True
    tag: str = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag != "tag:yaml.org,2002:str"

"""Reading single fields of a config.json: a count is a count, a flag a flag, and what is neither is refused by name."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.base.text import printable

CONFIG_NAME = "config.json"
HF_QUANT_CONFIG_NAME = "hf_quant_config.json"
MAX_COUNT = 2**40
"""Largest count believed: far past any model's, and small enough that no product of counts overflows."""
MAX_FRACTION = 1e6
"""Largest factor or share believed."""
MAX_LAYERS = 10_000
"""Most layers believed: a made-up number must not make us build a list of that length."""


def load_object(content: bytes, name: str = CONFIG_NAME) -> dict[str, Any]:
    """The JSON object of a config.json, or of another file that is called `name` in messages.

    Raises:
        UsageError: not UTF-8 JSON, a byte order mark, a key that stands twice, or no object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
            raise broken(f"the key '{printable(twice)[:60]}' stands twice in its JSON", name)
        return result

    if content.startswith(b"\xef\xbb\xbf"):
        raise broken("it starts with a byte order mark, which engines refuse too; save it as UTF-8 without one", name)
    try:
        config = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise broken("its JSON cannot be read", name) from error
    if not isinstance(config, dict):
        raise broken("its JSON is not an object", name)
    return config


def count(config: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    """The first of some keys that is there, as a count from 1 to `MAX_COUNT`.

    Raises:
        UsageError: none is there and there is no default, or the value is no count.
    """
    key = next((key for key in keys if config.get(key) is not None), keys[0])
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise broken(f"'{key}' is {json.dumps(value)}, expected a count")
    return value


def optional_count(config: Mapping[str, Any], *keys: str) -> int:
    """As `count`, with 0 where none of the keys is there or the one that is says 0."""
    found = next((config[key] for key in keys if config.get(key) is not None), 0)
    return 0 if found == 0 and not isinstance(found, bool) else count(config, *keys)


def fraction(config: Mapping[str, Any], key: str, default: float) -> float:
    """A number that may have a fraction, from 0 to `MAX_FRACTION`.

    Raises:
        UsageError: it is no such number.
    """
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_FRACTION:
        raise broken(f"'{key}' is {json.dumps(value)}, expected a number")
    return float(value)


def flag(config: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """A truth value; the default where the key is absent or null.

    Raises:
        UsageError: it is neither true nor false.
    """
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise broken(f"'{key}' is {json.dumps(value)}, expected true or false")
    return value


def text(config: Mapping[str, Any], key: str) -> str:
    """The text at a key; empty where there is none or something else."""
    value = config.get(key)
    return value if isinstance(value, str) else ""


def mapping(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping at a key; empty where there is none.

    Raises:
        UsageError: something else stands there.
    """
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise broken(f"'{key}' is no mapping")
    return value


def texts(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of a list at a key; empty where there is none.

    Raises:
        UsageError: something else stands there.
    """
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise broken(f"'{key}' is no list of names")
    return tuple(value)


def broken(why: str, name: str = CONFIG_NAME) -> UsageError:
    """The refusal of a config.json, with the reason."""
    return UsageError(f"{name} does not describe a model", where=name, why=why)

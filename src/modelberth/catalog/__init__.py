"""Facts as data files, each with its source and date. Code here only reads them; no fact lives in code."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load(name: str) -> dict[str, Any]:
    """The data file `name`.json of this package, as plain data."""
    content: dict[str, Any] = json.loads(files("modelberth.catalog").joinpath(f"{name}.json").read_bytes())
    return content

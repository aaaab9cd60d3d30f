"""What an API server says of a value and its schema: types, unknown fields, bounds, patterns, keys of lists.

Both kinds of schema are read: a CRD's structural schema, closed unless it says otherwise, and the OpenAPI of
Kubernetes, whose closed objects say so. Patterns are RE2, as in the API server: `$` is no newline's friend there.
"""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import re2

Schema = Mapping[str, Any]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: _is_integer(value),
}
_RANGES = {"int32": 1 << 31, "int64": 1 << 63}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)
_EMBEDDED = frozenset({"apiVersion", "kind", "metadata"})


def _is_integer(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Beyond 64 bits the API server reads a float.
    return (isinstance(value, int) or value.is_integer()) and -_RANGES["int64"] <= value < _RANGES["int64"]


@cache
def _pattern(text: str) -> Any:
    return re2.compile(text)


def with_defaults(value: Any, schema: Schema) -> Any:
    """A copy with the schema's defaults, as the API server fills them in before it validates.

    An empty field gives way to its default too, unless it may be empty.
    """
    if isinstance(value, list):
        return [with_defaults(each, schema.get("items", {})) for each in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, child in schema.get("properties", {}).items():
        empty = name not in filled or (filled[name] is None and not child.get("nullable"))
        if "default" in child and empty:
            filled[name] = copy.deepcopy(child["default"])
    return {name: with_defaults(each, child_schema(schema, name)) for name, each in filled.items()}


def child_schema(schema: Schema, name: str) -> Schema:
    """The schema of a field; an empty one where it has none."""
    further = schema.get("additionalProperties")
    found = schema.get("properties", {}).get(name, further)
    return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Checker:
    """Checks values against schemas.

    Attributes:
        definitions: what `$ref` names, by the last part of it.
        closed: whether an object without a word on further fields takes none, as in a CRD.
    """

    definitions: Mapping[str, Schema] = field(default_factory=dict)
    closed: bool = True

    def problems(self, value: Any, schema: Schema, path: str = "", *, naming: bool = True) -> Iterator[str]:
        """Everything that is refused, each as "path: why".

        Args:
            value: JSON data.
            schema: what it has to satisfy.
            path: where it stands.
            naming: False within anyOf and its kin, which bound what is named elsewhere.
        """
        schema = self._resolved(schema)
        wrong = _wrong_type(value, schema)
        if wrong:
            yield f"{path or '.'}: {wrong}"
        if wrong or value is None:
            return
        yield from (f"{path or '.'}: {why}" for why in _bound_problems(value, schema))
        if isinstance(value, dict):
            yield from self._object_problems(value, schema, path, naming)
        elif isinstance(value, list):
            yield from self._list_problems(value, schema, path, naming)
        yield from self._junctor_problems(value, schema, path)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        return schema

    def _object_problems(self, value: dict[Any, Any], schema: Schema, path: str, naming: bool) -> Iterator[str]:
        yield from (f"{path}.{name}: is missing" for name in schema.get("required", ()) if name not in value)
        named, further = schema.get("properties", {}), schema.get("additionalProperties")
        for name, child in value.items():
            here = f"{path}.{name}"
            if not isinstance(name, str):
                yield f"{here}: a field's name is text, not {_type_name(name)}"
            elif name in _EMBEDDED and schema.get("x-kubernetes-embedded-resource"):
                continue
            elif name in named:
                yield from self.problems(child, named[name], here, naming=naming)
            elif isinstance(further, Mapping):
                yield from self.problems(child, further, here, naming=naming)
            elif naming and not self._takes_more(schema):
                yield f"{here}: unknown field"

    def _takes_more(self, schema: Schema) -> bool:
        further = schema.get("additionalProperties", not self.closed)
        return bool(further or schema.get("x-kubernetes-preserve-unknown-fields"))

    def _list_problems(self, value: list[Any], schema: Schema, path: str, naming: bool) -> Iterator[str]:
        items = self._resolved(schema.get("items", {}))
        for index, child in enumerate(value):
            if child is None and not items.get("nullable"):
                yield f"{path}[{index}]: is null"  # fields may be, says Kubernetes' OpenAPI; items are not
            else:
                yield from self.problems(child, items, f"{path}[{index}]", naming=naming)
        yield from (f"{path}[{index}]: {key} stands twice" for index, key in _twice(value, schema))

    def _junctor_problems(self, value: Any, schema: Schema, path: str) -> Iterator[str]:
        for part in schema.get("allOf", ()):
            yield from self.problems(value, part, path, naming=False)
        for word, fits in (("anyOf", lambda count: count > 0), ("oneOf", lambda count: count == 1)):
            parts = schema.get(word)
            if parts and not fits(sum(self._holds(value, part) for part in parts)):
                yield f"{path or '.'}: satisfies none, or too many, of the {len(parts)} ways it may look"
        if "not" in schema and self._holds(value, schema["not"]):
            yield f"{path or '.'}: is what it may not be"

    def _holds(self, value: Any, schema: Schema) -> bool:
        return next(self.problems(value, schema, naming=False), None) is None


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    named = ("boolean", "integer", "number", "string", "object", "array")
    return next((name for name in named if _TYPES[name](value)), type(value).__name__)


def _wrong_type(value: Any, schema: Schema) -> str | None:
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if schema.get("x-kubernetes-int-or-string"):
        wanted = ["integer", "string"]
    if value is None and wanted:
        return None if schema.get("nullable") or "null" in wanted else f"must be {' or '.join(wanted)}, not null"
    if not wanted or any(_TYPES[name](value) for name in wanted if name != "null"):
        return None
    return f"must be {' or '.join(wanted)}, not {_type_name(value)}"


def _bound_problems(value: Any, schema: Schema) -> Iterator[str]:
    if "enum" in schema and not any(value == each and type(value) is type(each) for each in schema["enum"]):
        yield f"{value!r} is none of {', '.join(str(each) for each in schema['enum'])}"
    if isinstance(value, str):
        yield from _size_problems(len(value), schema, "Length", "characters")
        if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
            yield f"{value!r} does not match {schema['pattern']}"
    elif isinstance(value, dict):
        yield from _size_problems(len(value), schema, "Properties", "fields")
    elif isinstance(value, list):
        yield from _size_problems(len(value), schema, "Items", "items")
    elif _TYPES["number"](value):
        yield from _number_problems(value, schema)
    yield from _format_problems(value, schema.get("format"))


def _size_problems(size: int, schema: Schema, what: str, unit: str) -> Iterator[str]:
    if size < schema.get(f"min{what}", 0):
        yield f"has {size} {unit}, fewer than {schema[f'min{what}']}"
    if f"max{what}" in schema and size > schema[f"max{what}"]:
        yield f"has {size} {unit}, more than {schema[f'max{what}']}"


def _number_problems(value: float, schema: Schema) -> Iterator[str]:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is not None and (value < lowest or (schema.get("exclusiveMinimum") is True and value == lowest)):
        yield f"{value} is below {lowest}"
    if highest is not None and (value > highest or (schema.get("exclusiveMaximum") is True and value == highest)):
        yield f"{value} is above {highest}"
    if "multipleOf" in schema and value % schema["multipleOf"]:
        yield f"{value} is no multiple of {schema['multipleOf']}"


def _format_problems(value: Any, form: str | None) -> Iterator[str]:
    if form in _RANGES and _is_integer(value) and not -_RANGES[form] <= value < _RANGES[form]:
        yield f"{value} is no {form}"
    elif isinstance(value, str) and (
        (form == "date-time" and not _TIME.fullmatch(value)) or (form == "byte" and not _is_base64(value))
    ):
        yield f"{value!r} is no {form}"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("\n", ""), validate=True)
    except binascii.Error:
        return False
    return True


def _twice(value: list[Any], schema: Schema) -> Iterator[tuple[int, str]]:
    kind, names = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", ())
    seen = []
    for index, each in enumerate(value):
        if kind == "map" and isinstance(each, dict):
            key = {name: each.get(name) for name in names}
        elif kind == "set" or schema.get("uniqueItems"):
            key = each
        else:
            continue
        if key in seen:
            yield index, repr(key)
        seen.append(key)

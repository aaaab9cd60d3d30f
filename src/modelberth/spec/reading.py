"""Reading `berth.yaml`: YAML to a stack, every problem with line, column and what to write instead."""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modelberth.base.errors import Problem, Problems, SpecError
from modelberth.base.text import did_you_mean, names_secret, nearest, shorten
from modelberth.base.yamlio import Document, Path, path_text, read_document
from modelberth.spec.references import mismatches
from modelberth.spec.stack import Stack

NEXT_STEP = "berth schema > berth.schema.json lets an editor complete and check the file"


def read_stack(content: bytes, source: str) -> Stack:
    """Read and check one stack.

    Args:
        content: the bytes of the file.
        source: its name, shown in messages.

    Raises:
        SpecError: all problems at once, in file order.
    """
    document = read_document(content, source)
    try:
        # JSON mode: arrays become tuples, and nothing else is converted.
        stack = Stack.model_validate_json(json.dumps(document.data, allow_nan=False), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        problems = [_problem(details, document) for details in found if not _is_echo(details)]
        raise _spec_error(source, problems) from None
    problems = []
    for mismatch in mismatches(stack):
        position = document.position(mismatch.path, of_key=mismatch.of_key)
        problems.append(
            Problem(position.line, position.column, path_text(mismatch.path), mismatch.message, mismatch.suggestion)
        )
    if problems:
        raise _spec_error(source, problems)
    return stack


def _spec_error(source: str, problems: list[Problem]) -> SpecError:
    # One wrong scalar under a union (an engine argument) gives one error a branch: keep the first.
    unique: dict[tuple[int, int, str], Problem] = {}
    for problem in problems:
        unique.setdefault((problem.line, problem.column, problem.path), problem)
    ordered = sorted(unique.values(), key=lambda problem: (problem.line, problem.column))
    return SpecError(Problems(source, tuple(ordered)), next_step=NEXT_STEP)


def _is_echo(details: ErrorDetails) -> bool:
    """Whether this only repeats what the items of a list say: "too short" or "no text" of a list that has items."""
    found, kind, location = details["input"], details["type"], details["loc"]
    # Of a flag itself: (..., "engineArgs", flag, union branch). A list inside its list is a mistake of its own.
    of_flag = "engineArgs" in location[-3:-1] and isinstance(found, list)
    return bool(found) and (kind == "too_short" or (of_flag and kind in _EXPECTED))


def _problem(details: ErrorDetails, document: Document) -> Problem:
    kind = details["type"]
    path = _known_path(details["loc"], document.data)
    if kind == "missing":
        path = (*path, details["loc"][-1])
    if kind == "extra_forbidden":
        return _unknown_key(path, document)
    if kind == "missing":
        return _missing_key(path, document)
    position = document.position(path)
    message, suggestion = _message(details, path, document)
    return Problem(position.line, position.column, path_text(path), message, suggestion)


def _known_path(location: tuple[int | str, ...], data: Any) -> Path:
    """The part of pydantic's location that is in the file: union branches and `[key]` markers dropped."""
    path: list[int | str] = []
    value = data
    for part in location:
        if _stands_in(value, part):
            path.append(part)
            value = value[part]
    return tuple(path)


def _stands_in(value: Any, part: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _unknown_key(path: Path, document: Document) -> Problem:
    position = document.position(path, of_key=True)
    name = str(path[-1])
    if names_secret(name):
        message = f"the key '{name}' would hold a secret; this file holds references only"
        return Problem(
            position.line,
            position.column,
            path_text(path),
            message,
            "name a Secret: credentials: {secret: NAME}",
        )
    suggestion = did_you_mean(name, _fields_at(path[:-1]))
    return Problem(position.line, position.column, path_text(path), f"the key '{name}' is not known here", suggestion)


def _missing_key(path: Path, document: Document) -> Problem:
    position = document.position(path[:-1])
    name = str(path[-1])
    field = _model_at(path[:-1])
    description = next(
        (info.description for info in field.model_fields.values() if info.alias == name and info.description), ""
    ) if field else ""  # fmt: skip
    return Problem(position.line, position.column, path_text(path), f"the key '{name}' is missing", description)


_SHOWN = 60
"""Characters of a wrong value that a message repeats."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


_BOUNDS = {
    "less_than_equal": "at most",
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than": "less than",
}


_LENGTHS = {
    "too_short": "the list is empty; expected at least {limit} item",
    "string_too_short": "the text is {short}; expected at least {limit} {noun}",
    "string_too_long": "the text is too long; at most {limit} characters",
}


def _message(details: ErrorDetails, path: Path, document: Document) -> tuple[str, str]:
    kind, context, found = details["type"], details.get("ctx", {}), details["input"]
    if kind in _EXPECTED and "engineArgs" in path[:-1]:
        return f"expected text, a number, true, false or a list of them, found {_kind_of(found)}", ""
    if kind in _BOUNDS:
        return f"expected {_BOUNDS[kind]} {next(iter(context.values()))}, found {found}", ""
    if kind in _LENGTHS:
        limit = context.get("min_length", context.get("max_length"))
        noun = "character" if limit == 1 else "characters"
        return _LENGTHS[kind].format(limit=limit, noun=noun, short="too short" if found else "empty"), ""
    if kind in _EXPECTED:
        raw = document.raw.get(path)
        quote = f'write "{raw}" in quotes' if kind == "string_type" and raw and found is not None else ""
        return f"expected {_EXPECTED[kind]}, found {_kind_of(found)}", quote
    if kind == "literal_error":
        allowed = str(context.get("expected", "")).replace("'", "")
        shown = f"'{shorten(found, _SHOWN)}'" if isinstance(found, str) else _kind_of(found)
        near = nearest(str(found), allowed.replace(" or ", ", ").split(", "))
        return f"expected {allowed}, found {shown}", f"did you mean '{near}'?" if near else ""
    if kind == "string_pattern_mismatch":
        return _pattern_message(path, found)
    if kind == "value_error":
        return str(context.get("error", details["msg"])), ""
    return details["msg"][:1].lower() + details["msg"][1:], ""


_IMAGE = "expected an image: registry/name:tag or registry/name@sha256:..., without user and password"
_ONE_LINE = "expected one line of text without control characters"
# What a pattern asks for, by the field's name. What stands there may be a secret by mistake: it is not repeated.
_PATTERNS = {
    "url": "expected an http:// or https:// address without user, password or query",
    "endpoint": "expected an http:// or https:// address without user, password or query",
    "repository": "expected the URL of a Git repository, without a password or token in it",
    "engineImage": _IMAGE,
    "image": _IMAGE,
    "vllm": 'expected a release in quotes, such as "0.25.1"',
    "ami": "expected the id of a machine image: ami- and hexadecimal digits",
    "refreshInterval": "expected a duration such as 1h, 30m or 60s",
    "revision": "expected a branch, a tag or a commit",
    "path": "expected a folder below the repository's top: names joined by slashes",
    "covers": "expected names of resources: cpu, memory, nvidia.com/gpu",
    "nodeLabels": "expected a label as Kubernetes takes it: letters, digits, '-', '_' and '.'",
    "displayName": _ONE_LINE,
    "description": _ONE_LINE,
    "key": _ONE_LINE,
    "accessKeyProperty": _ONE_LINE,
    "secretKeyProperty": _ONE_LINE,
}


def _pattern_message(path: Path, found: Any) -> tuple[str, str]:
    named = next((part for part in reversed(path) if part in _PATTERNS), None)
    if named is not None:
        return _PATTERNS[str(named)], ""
    if "engineArgs" in path:
        return (
            f"'{path[-1]}' is no flag name",
            "write it without dashes in front, in lower case: tool-call-parser",
        )
    if path and path[-1] == "secret":  # the value may be the secret itself: never show it
        return (
            "expected the name of a Secret: a-z, 0-9 and hyphens",
            "put the value itself into a Secret on the cluster",
        )
    fixed = "".join(
        character if character.isascii() and character.isalnum() else "-" for character in str(found).lower()
    ).strip("-")
    example = f"for example '{shorten(fixed, _SHOWN)}'" if fixed and fixed != found else "start with a letter"
    return f"'{shorten(str(found), _SHOWN)}' is no name; expected a-z, 0-9 and hyphens", example


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def _fields_at(path: Path) -> list[str]:
    model = _model_at(path)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _model_at(path: Path) -> type[BaseModel] | None:
    """The model whose keys stand at a path of the file, if it is a model."""
    model: type[BaseModel] | None = Stack
    for part in path:
        if isinstance(part, int) or model is None:
            continue
        annotation = next(
            (info.annotation for name, info in model.model_fields.items() if part in (info.alias, name)), None
        )
        model = _model_within(annotation)
    return model


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_within(argument) for argument in typing.get_args(annotation))
    return next((model for model in inner if model), None)

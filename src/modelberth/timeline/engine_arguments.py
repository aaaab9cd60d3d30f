"""Arguments of an engine, from the lines in which vLLM prints them: `key=value` pairs or a dict, never evaluated.

    args: Namespace(subparser='serve', model='m', max_model_len=None, ...)            0.8.0-0.8.5
    non-default args: {'model': 'm', 'max_model_len': 1024}                            0.9.0-0.33.0
    Initializing a V1 LLM engine (v0.32.0) with config: model='m', max_seq_len=1024    0.8.0-0.33.0

Only arguments that the catalog names are kept: such a line may have an API key in it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from modelberth.catalog import load

LONGEST_VALUE = 300
"""Characters; a longer value (a chat template, a nested configuration) is left out."""

# A string in quotes (also one that the end of the line cuts off), a bracket, a comma, or a run of anything else.
# The closing quote is optional, so a string that is never closed is scanned once, not once from every later quote.
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[\[({]|[\])}]|,|[^'"\[\](){},]+""", re.S)
_PAIR = re.compile(r"""\s*(?:(?P<quote>['"])(?P<key>\w{1,80})(?P=quote): ?|(?P<name>\w{1,80})=)(?P<value>.*)""", re.S)


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of `key=value, ...` or `'key': value, ...` on the outermost level, values as they are written.

    Ends with the text or at the bracket that closes what began before it. Time is linear in the text's length.
    """
    for item in _items(text):
        if match := _PAIR.fullmatch(item):
            yield match["key"] or match["name"], match["value"].strip()


def _items(text: str) -> Iterator[str]:
    depth, begin = 0, 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark == "," and depth == 0:
            yield text[begin : token.start()]
            begin = token.end()
        elif mark in ("[", "(", "{"):
            depth += 1
        elif mark in ("]", ")", "}"):
            depth -= 1
            if depth < 0:
                yield text[begin : token.start()]
                return
    yield text[begin:]


def engine_arguments(text: str) -> Mapping[str, str]:
    """Arguments that the catalog names, by vLLM's flag without its leading dashes (`max-model-len`).

    Values are as on a command line: `bfloat16` for torch.bfloat16, `true` and `false`. What is None, nested or
    longer than LONGEST_VALUE is left out.
    """
    facts = load("memory_log")
    renamed: Mapping[str, str] = facts["renamedArguments"]
    known = {*facts["engineArguments"], *renamed}
    found = {}
    for key, written in pairs(text):
        if key in known and (value := _plain(written)) is not None:
            found[renamed.get(key, key.replace("_", "-"))] = value
    return found


def speaks_of_a_server(text: str) -> bool:
    """Whether a list of arguments has one that only a server takes."""
    server = set(load("memory_log")["serverArguments"])
    return any(key in server for key, _ in pairs(text))


def _plain(written: str) -> str | None:
    if len(written) > LONGEST_VALUE:
        return None
    value = written
    if written[:1] in ("'", '"'):
        try:
            value = str(ast.literal_eval(written))
        except (ValueError, SyntaxError):
            return None
    elif any(mark in written for mark in "[({<"):
        return None
    if value in ("", "None"):
        return None
    return value.lower() if value in ("True", "False") else value.removeprefix("torch.")

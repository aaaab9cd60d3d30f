"""The YAML writer: what it writes, a YAML 1.1 and a YAML 1.2 reader read back alike."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from modelberth.base.yamlio import read_document, write_documents

HOSTILE = [
    "",
    " ",
    "~",
    "=",
    "<<",
    "-",
    "?",
    "...",
    "---",
    "#",
    "a #b",
    "a: b",
    "%s",
    "%YAML 1.2",
    "{{ x }}",
    "{",
    "[a",
    "*a",
]
HOSTILE += [
    "&a",
    "!a",
    "|",
    ">",
    "@a",
    "`a",
    "'",
    '"',
    "it's",
    'say "x"',
    " lead",
    "trail ",
    "\tlead",
    "trail\t",
    "a\tb",
]
HOSTILE += [
    "1e3",
    "1E3",
    "no",
    "Yes",
    "on",
    "y",
    "N",
    "null",
    "Null",
    "true",
    "FALSE",
    "0o14",
    "-0o14",
    "0O14",
    "014",
    "0x1F",
]
HOSTILE += [
    "0X1F",
    "0b11",
    "22:22",
    "1:20:30",
    "1_000",
    "0_8",
    "-_",
    "._",
    "1_0.5",
    ".5",
    "5.",
    "+1",
    ".inf",
    "-.INF",
    ".NaN",
]
HOSTILE += [
    "1e400",
    "2026-11-23",
    "2026-11-23T10:00:00Z",
    "9" * 40,
    "a\nb",
    "a\nb\n",
    "a\n\n",
    "\n",
    "\na",
    " a\nb",
    "a\n---\nb",
]
HOSTILE += [
    "a\n...",
    "waiting...",
    "waiting...\n",
    "a\n...\n",
    "#a\n#b",
    "a \nb",
    "a\r\nb",
    "a\rb",
    "x" * 300,
    "x y " * 100,
]
HOSTILE += [
    "🚢",
    "é",
    "\u200fשלום",
    "\u202eabc",
    "\x85",
    "\u2028",
    "a\u2029b",
    "\x00",
    "\x1b[31m",
    "\x7f",
    "\ufeff",
    "\ufffe",
]

text = (
    st.sampled_from(HOSTILE)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.text("0123456789xXoObBeE_+-.:", max_size=8)
    | st.text("\n\n\n  \t-#:'\"ab.%|", max_size=12)
)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = text | st.booleans() | st.none() | floats


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def grow(children):
        return st.lists(children, max_size=4) | st.dictionaries(text, children, max_size=4)

    return st.recursive(leaves, grow, max_leaves=12)


data = nested(scalars | st.integers(-(10**40), 10**40))
data_within_64_bits = nested(scalars | st.integers(-(2**63), 2**63 - 1))


def yaml_1_1(content: str) -> list[Any]:
    return list(yaml.safe_load_all(content))


def yaml_1_2(content: str) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(content))


def exact(value: Any) -> Any:
    """A value with its types, so that 1, 1.0 and True differ and -0.0 is not 0.0."""
    if isinstance(value, dict):
        return {key: exact(child) for key, child in value.items()}
    if isinstance(value, list):
        return [exact(child) for child in value]
    return type(value), repr(value)


@pytest.mark.parametrize("read", [yaml_1_1, yaml_1_2])
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_hostile_text_comes_back_from_every_place(read, hostile: str):
    document = {"value": hostile, "list": [hostile, [hostile]], hostile: {hostile: hostile}, "last": hostile}
    assert exact(read(write_documents([document]))) == [exact(document)]
    assert exact(read(write_documents([hostile, hostile]))) == [exact(hostile)] * 2


@settings(max_examples=250, deadline=None)
@given(data)
def test_both_dialects_read_back_what_was_written(value: Any):
    content = write_documents([value])
    assert exact(yaml_1_1(content)) == [exact(value)]
    assert exact(yaml_1_2(content)) == [exact(value)]


@settings(max_examples=60, deadline=None)
@given(st.lists(data, min_size=2, max_size=4))
def test_documents_stay_apart(values: list[Any]):
    content = write_documents(values)
    assert exact(yaml_1_1(content)) == exact(values)
    assert exact(yaml_1_2(content)) == exact(values)


@settings(max_examples=100, deadline=None)
@given(data_within_64_bits)
@example(2**63)
def test_our_own_reader_reads_back_what_was_written(value: Any):
    assert exact(read_document(write_documents([value]).encode(), "written").data) == exact(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(data, min_size=1, max_size=3))
def test_writing_is_a_fixed_point(values: list[Any]):
    content = write_documents(values)
    assert write_documents(yaml_1_1(content)) == content


@settings(max_examples=60, deadline=None)
@given(data)
def test_the_text_depends_on_values_only(value: Any):
    """The same object in two places is written twice: no anchors, and nothing remembered between calls."""
    assert write_documents([{"a": value, "b": value}]) == write_documents([{"a": value, "b": copy.deepcopy(value)}])


@settings(max_examples=100, deadline=None)
@given(data)
def test_the_text_is_printable_ascii_with_unix_line_ends(value: Any):
    content = write_documents([value])
    assert content.isascii()
    assert content.replace("\n", "").isprintable()
    assert content.endswith("\n")


def test_style():
    document = {
        "spec": {"args": ["--port", "8080"], "empty": {}, "none": [], "nested": [{"a": 1, "b": [2]}]},
        "zeta": True,
        "kind": "Service",
        "alpha": None,
        "metadata": {"name": "x", "apiVersion": "after", "kind": "first"},
        "apiVersion": "v1",
        "script": "set -e\n  indented\nexit 0\n",
    }
    assert (
        write_documents([document])
        == """\
apiVersion: v1
kind: Service
metadata:
  apiVersion: after
  kind: first
  name: x
spec:
  args:
    - --port
    - '8080'
  empty: {}
  none: []
  nested:
    - a: 1
      b:
        - 2
zeta: true
alpha: null
script: |
  set -e
    indented
  exit 0
""".replace("'8080'", '"8080"')
    )


def test_documents_are_separated_by_three_hyphens():
    assert write_documents([{"a": 1}, {"b": 2}]) == "a: 1\n---\nb: 2\n"
    assert write_documents([]) == ""


def test_long_lines_are_not_wrapped():
    words = "word " * 200 + "end"
    assert write_documents([{"a": words, "b": "é " + words}]).count("\n") == 2


@pytest.mark.parametrize(
    "plain", ["a", "s3://models/a/", "NVIDIA-L4", "0.15.2", "10.0.0.1", "a=b", "-a", "--port=1", "1Gi", "x_1"]
)
def test_ordinary_text_needs_no_quotes(plain: str):
    assert write_documents([{"a": plain}]) == f"a: {plain}\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        ({1: "a"}, "a key must be text, not int"),
        ({None: "a"}, "a key must be text, not NoneType"),
        ((1, 2), "tuple is not plain data"),
        (b"a", "bytes is not plain data"),
        ({1}, "set is not plain data"),
        (object(), "object is not plain data"),
    ],
    ids=["nan", "inf", "int key", "null key", "tuple", "bytes", "set", "object"],
)
def test_what_is_not_plain_data_is_refused_at_any_depth(value: Any, message: str):
    for document in (value, {"a": [value]}, [[{"a": value}]]):
        with pytest.raises(ValueError, match=message):
            write_documents([document])


@pytest.mark.parametrize("place", ["value", "key"])
def test_half_a_surrogate_pair_is_refused(place: str):
    with pytest.raises(ValueError, match="surrogate"):
        write_documents([{"\ud800": 1} if place == "key" else {"a": ["\ud800"]}])


def test_a_subclass_of_a_plain_type_is_no_plain_data():
    with pytest.raises(ValueError, match="OrderedDict is not plain data"):
        write_documents([{"a": OrderedDict(b=1)}])

"""Manifests of anybody, read as kubectl reads them, with the place of every value."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import SpecError
from modelberth.base.yamlio import Position, read_documents, write_documents


def read(text: str):
    return read_documents(text.encode(), "f.yaml")


def test_several_documents_aliases_and_old_words():
    text = "a: &x {n: yes, m: 010}\n---\n\n---\nb: [1, 2.5, ~]\n---\n"
    first, second = read(text)
    assert first.data == {"a": {"n": True, "m": 8}}
    assert second.data == {"b": [1, 2.5, None]}
    (aliased,) = read("a: &x {n: 1}\nb: *x\nc: {<<: *x, m: 2}\n")
    assert aliased.data == {"a": {"n": 1}, "b": {"n": 1}, "c": {"n": 1, "m": 2}}


def test_a_date_is_text():
    assert read("a: 2026-11-25\n")[0].data == {"a": "2026-11-25"}


def test_places_and_spans():
    text = 'a:\n  - b: "x y"  # note\n'
    (document,) = read(text)
    assert document.position(("a", 0, "b")) == Position(2, 8)
    assert document.position(("a", 0, "b"), of_key=True) == Position(2, 5)
    span = document.spans["a", 0, "b"]
    assert text[span.start : span.end] == '"x y"'


BOMB = "a: &a [x, x]\n" + "".join(
    f"{key}: &{key} [{', '.join([f'*{before}'] * 10)}]\n" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t", "a: *none", "&a [*a]", "&a {<<: *a}", "[" * 5000, BOMB])
def test_what_cannot_be_read_is_an_error(text: str):
    with pytest.raises(SpecError) as caught:
        read(text)
    assert caught.value.problems.items[0].message.startswith(("not YAML", "nested deeper"))


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key 'a' stands twice; first at line 1"),
        ("a: {1: x, '1': y}\n", 1, 11, "the key '1' stands twice; first at line 1"),
        ("a:\n  ? {b: c}\n  : d\n", 2, 5, "not YAML: a key must be plain text"),
        ("a: {{ .Values.b }}\n", 1, 5, "not YAML: a key must be plain text"),
        ("a: 1\nb: \x01\n", 2, 4, "not YAML: a character that YAML does not allow"),
        ("[" * 201, 1, 201, "nested deeper than 200 levels"),
    ],
)
def test_what_kustomize_would_refuse_is_said_at_its_place(text: str, line: int, column: int, message: str):
    with pytest.raises(SpecError) as caught:
        read(text)
    (problem,) = caught.value.problems.items
    assert (problem.line, problem.column, problem.message) == (line, column, message)


def test_merges_of_merges_and_who_wins():
    text = "x: &x {a: 1, b: 1}\ny: &y {<<: *x, b: 2, c: 2}\nz: {c: 9, <<: [*y, {a: 7, d: 7}]}\n"
    assert read(text)[0].data["z"] == {"a": 1, "b": 2, "c": 9, "d": 7}


def test_sixties_are_text():
    assert read("a: 1:30\nb: 1:30.5\nc: 0x10\n")[0].data == {"a": "1:30", "b": "1:30.5", "c": 16}


def test_only_what_can_be_replaced_has_a_span():
    text = "\N{ROCKET}: x\na: &n 1\nb: !!str 2\nc: |\n  3\nd: *n\ne: '5'\n"
    (document,) = read(text)
    assert {path: text[span.start : span.end] for path, span in document.spans.items()} == {
        ("\N{ROCKET}",): "x", ("e",): "'5'",
    }  # fmt: skip


def test_no_tag_makes_an_object():
    assert read("a: !!python/object:os.system x\n")[0].data == {"a": "x"}


def test_bytes_that_are_no_text():
    with pytest.raises(SpecError) as caught:
        read_documents(b"a: 1\nb: \xff\n", "f.yaml")
    assert (caught.value.problems.items[0].line, caught.value.problems.items[0].column) == (2, 4)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=5), child, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), PLAIN, min_size=1, max_size=3))
def test_what_we_write_it_reads(value):
    text = write_documents([value])
    assert read(text)[0].data == value == yaml.safe_load(text)

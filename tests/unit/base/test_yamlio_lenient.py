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


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t", "a: *none", "&a [*a]", "[" * 5000, BOMB])
def test_what_cannot_be_read_is_an_error(text: str):
    with pytest.raises(SpecError) as caught:
        read(text)
    assert caught.value.problems.items[0].message.startswith(("not YAML", "nested deeper"))


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

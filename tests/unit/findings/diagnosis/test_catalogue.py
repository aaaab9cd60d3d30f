"""Signatures are read strictly: every mistake is named with its file and line."""

from __future__ import annotations

import re

import pytest

from modelberth.base.errors import SpecError
from modelberth.findings.diagnosis.catalogue import read_all, read_signatures
from modelberth.findings.pages import page, pages

GOOD = """\
- id: MB-KV-001
  title: t
  severity: high
  match:
    - log: "abc"
      needle: "abcd"
  cause: c
  fix: f
  page: p
"""


def test_a_good_one():
    (found,) = read_signatures(GOOD.encode(), "x.yaml")
    assert (found.id, found.root, found.phase, found.match[0].origin) == ("MB-KV-001", 50, "start", "any")


@pytest.mark.parametrize(
    ("old", "new", "place", "text"),
    [
        ("id: MB-KV-001", "id: MB-FOO-001", "x.yaml:1:7", "MB-"),
        ("severity: high", "severity: bad", "x.yaml:3:13", "'low', 'medium' or 'high'"),
        ("  fix: f\n", "  fix: f\n  fux: f\n", "x.yaml:9:8", "Extra inputs"),
        ("  fix: f\n", "", "x.yaml:1:3", "Field required"),
        ('      needle: "abcd"\n', "", "x.yaml:5:7", "needs its needle"),
        ('needle: "abcd"', 'needle: "a"', "x.yaml:6:15", "at least 4"),
        ('needle: "abcd"', 'needle: "abcd"\n      pod: {phase: Failed}', "x.yaml:5:7", "exactly one"),
        ('- log: "abc"\n      needle: "abcd"', "- container: {state: stopped}", "x.yaml:5:", "'waiting'"),
        ('- log: "abc"\n      needle: "abcd"', "- condition: {kind: A, type: B, status: False}", "x.yaml:5:", "'True'"),
        ("cause: c", "cause: [c]", "x.yaml:7:10", "valid string"),
        ("cause: c", "cause: c\n  links: [http://x]", "x.yaml:8:11", "pattern"),
        (GOOD, "a: b", "x.yaml:1:1", "a list"),
        ("title: t", "title: [", "x.yaml", "not YAML"),
    ],
)
def test_mistakes_have_their_line(old, new, place, text):
    with pytest.raises(SpecError) as found:
        read_signatures(GOOD.replace(old, new).encode(), "x.yaml")
    assert place in found.value.why
    assert text in found.value.why


def test_every_mistake_is_told_at_once():
    with pytest.raises(SpecError) as found:
        read_signatures((GOOD.replace("high", "x") + GOOD.replace("high", "y")).encode(), "x.yaml")
    assert found.value.what == "2 problems in x.yaml"


def test_an_id_stands_once():
    with pytest.raises(SpecError, match="1 problem"):
        read_all([("a.yaml", GOOD.encode()), ("b.yaml", GOOD.encode())])


def test_every_page_can_be_shown():
    for each in pages():
        assert page(each.id) == each
        assert each.text
        assert not re.search(r"\{[a-z_]+\}", each.fix)

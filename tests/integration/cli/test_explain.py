"""`berth explain`: a page for every failure and rule, offline, and help for ids that are nearly right."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.integration


def test_a_page(berth):
    done = berth("explain", "MB-KV-001")
    assert done.returncode == 0
    assert done.stdout.startswith("MB-KV-001  ")
    assert "\nFix:\n" in done.stdout
    assert "{" not in done.stdout
    assert berth("explain", "mb-kv-001").stdout == berth("explain", "kv-001").stdout == done.stdout


def test_a_rule_of_lint(berth):
    done = berth("explain", "MB-LINT-101", "-o", "json")
    page = json.loads(done.stdout)
    assert (page["schemaVersion"], page["id"], page["kind"]) == ("modelberth.dev/explain/v1", "MB-LINT-101", "rule")


def test_the_list(berth):
    names = berth("explain", "-o", "name").stdout.split()
    assert len(names) == len(set(names)) > 100
    found = json.loads(berth("explain", "-o", "json").stdout)
    assert [each["id"] for each in found["explanations"]] == names
    assert all(each["text"] for each in found["explanations"])


def test_words_and_fields_find(berth):
    listed = berth("explain", "KV").stdout
    assert "MB-KV-001" in listed
    assert "MB-LINT-101" not in listed
    assert "MB-KV-001" in berth("explain", "context").stdout


@pytest.mark.parametrize(("name", "near"), [("MB-KV-01", "MB-KV-001"), ("MB-LNT-101", "MB-LINT-101")])
def test_an_unknown_id(berth, name, near):
    done = berth("explain", name)
    assert done.returncode == 2
    assert f"did you mean '{near}'?" in done.stderr


def test_what_is_no_id_at_all(berth):
    done = berth("explain", "zzzzqqqq")
    assert (done.returncode, done.stdout) == (2, "")
    assert "berth explain lists everything" in done.stderr

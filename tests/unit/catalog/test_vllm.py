"""What each vLLM release does: the data complete and in order, versions read as people write them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth import sizing
from modelberth.base.errors import UsageError
from modelberth.catalog import load
from modelberth.catalog.platforms import KINDS
from modelberth.catalog.vllm import by_capability, latest, rules_for, versions, within

RULES = load("vllm")["rules"]
BEGAN_LATER = {"samplerFlashInferCapability": "0.21.0"}
"""Rules without a value before a release: there was nothing to ask a card for."""
EVERY = pytest.mark.parametrize("name", list(RULES))


def numbers(version: str) -> list[int]:
    """Not the code's own way: 0.8.5.post1 after 0.8.5, 0.9.0.1 after 0.9.0."""
    return [int(part) for part in re.findall(r"\d+", version)]


# --- the data ------------------------------------------------------------------------------------------


def test_releases_are_in_order():
    assert list(versions()) == sorted(versions(), key=numbers)
    assert len(set(versions())) == len(versions()) == 50
    assert (versions()[0], versions()[-1], latest()) == ("0.8.0", "0.33.0", "0.33.0")
    assert {"0.8.5.post1", "0.9.0.1", "0.10.1.1", "0.27.1"} <= set(versions())


def test_every_minor_release_between_is_there():
    minors = {numbers(version)[1] for version in versions()}
    assert minors == set(range(8, 34))


@EVERY
def test_a_rule_has_a_value_from_the_oldest_release_on(name: str):
    assert RULES[name][0]["since"] == BEGAN_LATER.get(name, "0.8.0")
    assert (rules_for("0.8.0")[name] is None) == (RULES[name][0]["value"] is None or name in BEGAN_LATER)


@EVERY
def test_the_entries_of_a_rule_are_in_order_and_of_known_releases(name: str):
    since = [entry["since"] for entry in RULES[name]]
    assert set(since) <= set(versions())
    assert since == sorted(set(since), key=numbers)


@EVERY
def test_every_entry_changes_something_and_says_where_it_is_from(name: str):
    for entry in RULES[name]:
        assert set(entry) == {"since", "value", "source"}
        assert len(entry["source"]) >= 10
    values = [entry["value"] for entry in RULES[name]]
    assert all(one != other for one, other in pairwise(values))


@EVERY
def test_a_release_has_the_last_value_before_it(name: str):
    """Looked up by hand: the entries in order, those that are not newer."""
    for version in versions():
        fitting = [entry["value"] for entry in RULES[name] if numbers(entry["since"]) <= numbers(version)]
        assert rules_for(version)[name] == (fitting[-1] if fitting else None)


def test_every_rule_that_the_sizing_asks_for_is_there():
    source = "".join(path.read_text() for path in Path(sizing.__file__).parent.glob("*.py"))
    asked = set(re.findall(r'rules\["(\w+)"\]', source)) | set(re.findall(r'engine\.rules\["(\w+)"\]', source))
    assert len(asked) > 25
    assert asked <= set(RULES)


def test_an_unknown_rule_is_a_key_error():
    with pytest.raises(KeyError):
        rules_for("0.8.0")["noSuchRule"]


def test_dtypes_of_the_cache_are_of_known_releases():
    assert set(load("vllm")["kvCacheDtypes"]["since"].values()) <= set(versions())
    assert rules_for("0.8.0").knows_cache_dtype("fp8")
    assert not rules_for("0.19.1").knows_cache_dtype("nvfp4")
    assert rules_for("0.20.0").knows_cache_dtype("nvfp4")
    assert not rules_for("0.33.0").knows_cache_dtype("int3")


def test_every_platform_ships_a_known_vllm():
    shipped = [item["vllm"] for kind in KINDS for item in load("platforms")[kind]["versions"].values()]
    assert {version for version in shipped if version} <= set(versions())
    assert any(shipped)


@pytest.mark.parametrize("entry", RULES["batchDefaults"], ids=lambda entry: entry["since"])
def test_the_last_step_of_the_batch_limits_takes_every_card(entry: dict):
    tiers = entry["value"]["tiers"]
    assert tiers[-1]["minTotalGiB"] == 0
    assert not {"include", "exclude", "excludeCapability"} & set(tiers[-1])
    sizes = [tier["minTotalGiB"] for tier in tiers]
    assert sizes == sorted(sizes, reverse=True)
    for tier in tiers:
        for entrypoint in ("server", "offline"):
            assert tier[entrypoint]["tokens"] >= tier[entrypoint]["seqs"] > 0


def test_every_sampler_has_its_bytes():
    named = {name for entry in RULES["sampler"] for runner in entry["value"].values() for name in runner.values()}
    known = set(rules_for(None)["samplerBytesPerLogit"])
    assert named <= known
    assert "pytorch-sort-below-128-rows" in known


@pytest.mark.parametrize(
    ("name", "release", "value"),
    [
        # The source's own words, release by release: engine-facts.
        ("gpuMemoryUtilization", "0.19.1", 0.9),
        ("gpuMemoryUtilization", "0.20.0", 0.92),
        ("nullBlock", "0.28.0", False),
        ("nullBlock", "0.29.0", True),
        ("weightsMaxSplitMiB", "0.20.2", None),
        ("weightsMaxSplitMiB", "0.21.0", 20),
        ("moeWorkspace", "0.12.0", "transient"),
        ("moeWorkspace", "0.13.0", "kept"),
        ("flashInferRequired", "0.11.0", False),
        ("flashInferRequired", "0.11.1", True),
        ("minimumCapability", "0.11.0", 7.0),
        ("minimumCapability", "0.11.1", 7.5),
        ("kvBatchesInFlight", "0.25.1", 1),
        ("kvBatchesInFlight", "0.26.0", 2),
        ("maxModelLenAuto", "0.13.0", False),
        ("maxModelLenAuto", "0.14.0", True),
        ("samplerFlashInferCapability", "0.20.2", None),
        ("samplerFlashInferCapability", "0.24.0", [8.0, 12.1]),
    ],
)
def test_facts(name: str, release: str, value: object):
    assert rules_for(release)[name] == value


def test_formulas_and_checks_by_release():
    formulas = {version: rules_for(version)["memoryFormula"]["formula"] for version in versions()}
    assert [version for version in versions() if formulas[version] == "peak-all"][-1] == "0.9.0.1"
    assert next(version for version in versions() if formulas[version] == "consumed") == "0.27.0"
    checked = [version for version in versions() if rules_for(version)["startCheck"]["checked"]]
    assert checked == list(versions()[versions().index("0.9.1") :])


# --- versions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("0.11.0", "0.11.0"),
        ("v0.10.2", "0.10.2"),
        (" 0.9.2 ", "0.9.2"),
        ("0.20", "0.20.0"),
        ("0.8.5.dev22+g1575c1701", "0.8.5"),
        ("0.11.0+rhai5", "0.11.0"),
        ("0.13.0+faa43dbf.nv26.01", "0.13.0"),
        ("0.25.1-cu129", "0.25.1"),
        ("0.11.1rc2", "0.11.1"),
        ("0.9.0.1", "0.9.0.1"),
        ("0.10.1.1", "0.10.1.1"),
    ],
)
def test_versions_as_people_and_builds_write_them(asked: str, expected: str):
    found = rules_for(asked)
    assert (found.version, found.asked, found.note) == (expected, asked, "")
    assert list(found.release) == numbers(expected)


@pytest.mark.parametrize("name", list(RULES))
def test_a_later_build_of_a_release_has_its_rules(name: str):
    for asked, expected in (("0.8.5.post1", "0.8.5"), ("0.10.1.2", "0.10.1.1"), ("0.25.1.post3", "0.25.1")):
        assert rules_for(asked).note == ""
        assert rules_for(asked)[name] == rules_for(expected)[name]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("0.99.0", "0.33.0"),
        ("0.34.0.dev1+g0", "0.33.0"),
        ("1.0", "0.33.0"),
        ("0.14.2", "0.14.1"),
        ("0.25.9", "0.25.1"),
        ("0.7.3", "0.8.0"),
        ("0", "0.8.0"),
    ],
)
def test_an_unknown_release_takes_the_nearest_and_says_so(asked: str, expected: str):
    found = rules_for(asked)
    assert found.version == expected
    plain = re.match(r"[\d.]*\d", asked)[0]
    assert found.note == f"vLLM {plain} is not known here: the rules of {expected} are used"


def test_no_version_is_the_newest():
    assert (rules_for(None).version, rules_for(None).note) == ("0.33.0", "")


@pytest.mark.parametrize(
    "text",
    ["latest", "", " ", "main", "v", "0..1", ".9", "-0.9.1", "0.9.1 cpu", "0.1.2.3.4", "12345.0", "٠.٩", "nightly-0.9"],
)
def test_what_is_no_version_is_refused(text: str):
    with pytest.raises(UsageError, match="no vLLM version") as caught:
        rules_for(text)
    assert caught.value.next_step == "known: 0.8.0 to 0.33.0"


def test_a_refusal_shows_no_control_characters_and_is_short():
    with pytest.raises(UsageError) as caught:
        rules_for("\x1b[31m" + "x" * 500)
    assert "\x1b" not in caught.value.what
    assert len(caught.value.what) < 80


@given(
    st.sampled_from(versions()), st.sampled_from(["", "v"]), st.from_regex(r"(\+[a-z][a-z0-9.]{0,8})?", fullmatch=True)
)
def test_a_vendor_s_build_has_the_rules_of_its_release(version: str, before: str, after: str):
    found = rules_for(f"{before}{version}{after}")
    assert found.note == ""
    assert numbers(found.version)[:3] == numbers(version)[:3]


@given(st.lists(st.integers(0, 99), min_size=1, max_size=3))
def test_the_nearest_is_the_newest_that_is_not_newer(parts: list[int]):
    found = rules_for(".".join(map(str, parts)))
    padded = [*parts, 0, 0][:3]
    fitting = [version for version in versions() if numbers(version)[:3] <= padded]
    assert numbers(found.version)[:3] == numbers(fitting[-1] if fitting else versions()[0])[:3]
    assert (found.note == "") == (numbers(found.version)[:3] == padded)


# --- comparing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "since", "before", "expected"),
    [
        ((0, 9, 1), "0.9.1", None, True),
        ((0, 9, 0, 1), "0.9.1", None, False),
        ((0, 10, 0), "0.9.1", "0.11.0", True),
        ((0, 11, 0), "0.9.1", "0.11.0", False),
        ((0, 11), "0.11.0", None, True),
        ((0, 9), "0.10.0", None, False),  # as numbers, not as text
    ],
)
def test_within(release: tuple[int, ...], since: str, before: str | None, expected: bool):
    assert within(release, since, before) is expected


@pytest.mark.parametrize(
    ("table", "major", "expected"),
    [
        ({"8": "a", "9": "b"}, 9, "b"),
        ({"8": "a", "9": "b"}, 12, "b"),
        ({"8": "a", "10": "b"}, 9, "a"),
        ({"8": "a", "9": "b"}, 7, "a"),  # older than all: the oldest
        ({"default": "d", "9": "b"}, 7, "d"),
        ({"default": "d", "9": "b"}, 9, "b"),
        ({"default": "d", "9": "b"}, 10, "b"),
    ],
)
def test_by_capability(table: dict[str, str], major: int, expected: str):
    assert by_capability(table, major) == expected

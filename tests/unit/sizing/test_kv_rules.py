"""What a release means for the KV cache plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelberth.checkpoint.shape import ModelShape
from modelberth.sizing.engine import Engine
from modelberth.sizing.kv_rules import kv_rules

EngineOf = Callable[..., tuple[ModelShape, Engine]]
LLAMA, NEMOTRON, NEXT = "Llama-3.1-8B-Instruct", "NVIDIA-Nemotron-Nano-9B-v2", "Qwen3-Next-80B-A3B-Instruct"


@pytest.fixture(scope="module")
def rule(engine_of: EngineOf) -> Callable[..., object]:
    """One rule of a model with a release: `rule("null_block", "Qwen3-8B", "0.29.0")`."""

    def run(name: str, model: str, vllm: str, gpu: str = "H100", **flags: object) -> object:
        shape, engine = engine_of(model, gpu, vllm=vllm, **flags)
        return getattr(kv_rules(engine, shape), name)

    return run


@pytest.mark.parametrize(
    ("name", "by_release"),
    [
        ("hybrid", {"0.9.0.1": False, "0.9.1": True, "0.33.0": True}),
        ("null_block", {"0.28.0": False, "0.29.0": True}),
        (
            "mixed_pages",
            {
                "0.10.2": "refuse",
                "0.11.0": "one",
                "0.11.2": "one",
                "0.12.0": "stretch",
                "0.23.0": "stretch",
                "0.24.0": "pad",
                "0.26.0": "pad",
                "0.27.0": "promote",
            },
        ),
        ("group_spread", {"0.11.2": 1.0, "0.12.0": 1.25, "0.17.1": 1.25, "0.18.0": 1.5}),
        ("check", {"0.13.0": "layers", "0.14.0": "first", "0.18.1": "first", "0.19.0": "groups"}),
        ("report", {"0.9.0.1": "tokens", "0.9.1": "blocks", "0.20.0": "blocks", "0.20.1": "requests"}),
        ("in_flight_tokens", {"0.25.1": 8192, "0.26.0": 16_384}),
    ],
)
def test_by_release(rule: Callable[..., object], name: str, by_release: dict[str, object]):
    assert {vllm: rule(name, LLAMA, vllm) for vllm in by_release} == by_release


def test_the_step_in_flight_is_the_engine_s(rule: Callable[..., object]):
    assert rule("in_flight_tokens", LLAMA, "0.25.1", max_num_batched_tokens=1000) == 1000
    assert rule("in_flight_tokens", LLAMA, "0.33.0", "L4") == 2 * 2048


def test_blocks_are_the_engine_s(rule: Callable[..., object]):
    assert rule("block_tokens", LLAMA, "0.33.0") == rule("kernel_tokens", LLAMA, "0.33.0") == 16
    assert rule("block_tokens", LLAMA, "0.33.0", block_size=64) == 64
    assert rule("block_tokens", "DeepSeek-V2-Lite", "0.17.1") == 64


@pytest.mark.parametrize(
    ("model", "by_release"),
    [
        # Prefix caching is on for recurrent layers since 0.26; Mamba keeps a state a block until 0.27.1.
        (NEMOTRON, {"0.25.1": "none", "0.26.0": "all", "0.27.1": "all", "0.28.0": "align"}),
        (NEXT, {"0.25.1": "none", "0.26.0": "align", "0.33.0": "align"}),
    ],
)
def test_states_by_release(rule: Callable[..., object], model: str, by_release: dict[str, str]):
    assert {vllm: rule("states", model, vllm) for vllm in by_release} == by_release


def test_further_states(rule: Callable[..., object]):
    found = {vllm: rule("checkpoint_pages", NEMOTRON, vllm) for vllm in ("0.31.0", "0.32.0", "0.33.0")}
    assert found == {"0.31.0": 0, "0.32.0": 1, "0.33.0": 1}
    found = {vllm: rule("checkpoint_pages", NEXT, vllm) for vllm in ("0.31.0", "0.32.0", "0.33.0")}
    assert found == {"0.31.0": 0, "0.32.0": 0, "0.33.0": 1}


def test_blocks_beside_states_come_in_steps(rule: Callable[..., object]):
    assert rule("kernel_tokens", NEMOTRON, "0.11.0") == 16
    assert rule("kernel_tokens", NEMOTRON, "0.11.0", block_size=32) == 32
    assert rule("kernel_tokens", NEMOTRON, "0.8.5") == 16


def test_the_state_s_dtype_is_the_model_s_own(rule: Callable[..., object]):
    assert rule("state_dtype", NEMOTRON, "0.33.0") == "float32"
    assert rule("state_dtype", NEXT, "0.33.0") == "auto"

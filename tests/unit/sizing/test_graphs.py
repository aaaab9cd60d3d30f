"""CUDA graphs: how many, by release; what they take, against what was measured; and when they are charged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modelberth.base.units import GIB
from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.shape import ModelShape
from modelberth.sizing.engine import Engine
from modelberth.sizing.graphs import Graphs, capture_sizes, cuda_graphs
from modelberth.sizing.ranges import ZERO

EngineOf = Callable[..., tuple[ModelShape, Engine]]
LLAMA = "Llama-3.1-8B-Instruct"


@pytest.fixture(scope="module")
def graphs_of(engine_of: EngineOf) -> Callable[..., Graphs]:
    """The graphs of a model on a card."""

    def run(name: str, gpu: str, **flags: object) -> Graphs:
        shape, engine = engine_of(name, gpu, **flags)
        return cuda_graphs(shape, engine, find_gpu(gpu))

    return run


# --- how many ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "step", "number"),
    [
        (512, 8, 67),  # 1, 2, 4, 64 multiples of 8
        (512, 16, 51),  # 1, 2, 4, 31 multiples of 8 below 256, 17 of 16 from there
        (256, 16, 35),
        (1024, 16, 83),
        (8, 16, 4),
        (7, 16, 3),
        (3, 16, 2),
        (1, 8, 1),
        (0, 8, 0),
        (255, 16, 34),
        (271, 16, 35),
        (272, 16, 36),
    ],
)
def test_sizes_up_to_a_limit(limit: int, step: int, number: int):
    found = capture_sizes(limit, step)
    assert len(found) == number
    assert list(found) == sorted(set(found))
    assert all(1 <= size <= limit for size in found)


def test_sizes_by_name():
    assert capture_sizes(24, 16) == (1, 2, 4, 8, 16, 24)
    assert capture_sizes(288, 16)[-5:] == (240, 248, 256, 272, 288)
    assert capture_sizes(264, 8)[-3:] == (248, 256, 264)


@pytest.mark.parametrize(
    ("gpu", "flags", "piecewise", "full"),
    [
        ("L4", {"vllm": "0.10.2"}, 67, 0),  # in pieces only; 2 x 256 requests
        ("L4", {"vllm": "0.11.0"}, 67, 35),  # whole decode steps for up to 256 requests: 3 + 32
        ("L4", {"vllm": "0.11.1"}, 51, 35),
        ("H100", {"vllm": "0.19.0"}, 51, 51),  # 1,024 requests: all of them
        ("L4", {"vllm": "0.9.2", "max_num_seqs": 8}, 67, 0),  # 512 whatever the requests
        ("L4", {"vllm": "0.10.0", "max_num_seqs": 8}, 5, 0),  # 1, 2, 4, 8, 16
        ("L4", {"vllm": "0.19.0", "max_num_seqs": 8}, 5, 4),
        ("L4", {"vllm": "0.19.0", "max_num_seqs": 1}, 2, 1),
        ("L4", {"vllm": "0.19.0", "max_num_batched_tokens": 64}, 11, 11),  # no more than tokens in a step
        ("L4", {"vllm": "0.9.2", "max_num_batched_tokens": 64}, 11, 0),
        ("B200", {"vllm": "0.27.1"}, 51, 51),
        ("B200", {"vllm": "0.28.0"}, 83, 83),  # 1,024 on compute capability 10
        ("B300", {"vllm": "0.28.0"}, 83, 83),
        ("RTX PRO 6000 Server", {"vllm": "0.33.0"}, 51, 51),  # but not on 12
    ],
)
def test_how_many_are_captured(graphs_of: Callable[..., Graphs], gpu: str, flags: dict, piecewise: int, full: int):
    found = graphs_of(LLAMA, gpu, **flags)
    assert (found.piecewise, found.full) == (piecewise, full)


@pytest.mark.parametrize(("vllm", "number"), [("0.10.1", 83), ("0.11.0", 81), ("0.19.0", 83)])
def test_gpt_oss_captures_more(graphs_of: Callable[..., Graphs], vllm: str, number: int):
    """Up to 1,024 (992 in 0.11.0), in steps of 16: vllm/model_executor/models/config.py. Measured with 0.19.0 on an
    H100: PIECEWISE=83 (largest=1024), and 1.84 GiB."""
    assert graphs_of("gpt-oss-20b", "H100", vllm=vllm).piecewise == number


def test_eager_has_none(graphs_of: Callable[..., Graphs]):
    assert graphs_of(LLAMA, "L4", enforce_eager=True) == Graphs(0, 0, ZERO, ZERO)


# --- what they take ------------------------------------------------------------------------------------


def measured() -> list[tuple[str, int, int, int, float]]:
    """Dense models on an H100 with 0.19.0, all 51 and 51 graphs: model, ranks, tokens, requests, GiB."""
    data = Path(__file__).parents[2] / "data"
    rows = [json.loads(line) for line in (data / "vllm-startups" / "public.jsonl").read_text().splitlines()]
    found = []
    for row in rows:
        name, actual = row["model"].split("/")[-1], row["measured"]["cudagraph_gib"]
        fits = row["vllm_version"] == "0.19.0" and row["gpu"] == "NVIDIA H100 80GB HBM3" and row["arch_kind"] == "dense"
        one = "pipeline" not in str(row["other_args"])
        if fits and one and actual and (data / "model-configs" / f"{name}.json").exists():
            found.append(
                (name, row["tensor_parallel_size"], row["max_num_batched_tokens"], row["max_num_seqs"], actual)
            )
    return sorted(set(found))


def test_there_are_measurements():
    assert len(measured()) > 15


@pytest.mark.parametrize(("name", "ranks", "tokens", "seqs", "gib"), measured())
def test_what_was_measured_is_in_the_range(
    graphs_of: Callable[..., Graphs], name: str, ranks: int, tokens: int, seqs: int, gib: float
):
    flags = {"tensor_parallel": ranks, "max_num_batched_tokens": tokens, "max_num_seqs": seqs}
    found = graphs_of(name, "H100", vllm="0.19.0", **flags).memory
    assert found.low / GIB - 0.005 <= gib <= found.high / GIB + 0.005
    assert found.mid / GIB == pytest.approx(gib, abs=0.2)


def test_a_slow_link_takes_more_beyond_two_cards(graphs_of: Callable[..., Graphs]):
    """Measured: a 72B model over four L40S 2.62 GiB, where an H100 of the same rank takes 1.54."""
    found = graphs_of("Qwen2.5-72B-Instruct", "L40S", vllm="0.19.0", tensor_parallel=4).memory
    assert found.low / GIB < 2.62 < found.high / GIB
    two = graphs_of("Qwen2.5-72B-Instruct", "L40S", vllm="0.19.0", tensor_parallel=2).memory
    assert found.mid > 1.5 * two.mid


# --- when they count -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "vllm", "counts"),
    [
        (LLAMA, "0.8.0", False),
        (LLAMA, "0.19.1", False),
        (LLAMA, "0.20.0", True),  # the first runner's estimate
        (LLAMA, "0.22.1", True),
        (LLAMA, "0.23.0", False),  # the second runner estimates nothing
        (LLAMA, "0.28.0", False),
        (LLAMA, "0.29.0", True),
        ("Qwen3-30B-A3B", "0.28.0", True),  # sparse: still the first runner
    ],
)
def test_when_they_are_charged(graphs_of: Callable[..., Graphs], name: str, vllm: str, counts: bool):
    found = graphs_of(name, "L4", vllm=vllm)
    assert found.memory.low > 0
    assert found.charged == (found.memory if counts else ZERO)

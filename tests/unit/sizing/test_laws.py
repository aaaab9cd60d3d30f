"""What holds for every plan, over real models, all cards, all releases and the settings that people turn.

The laws are exact, but for three exceptions that are stated where they are tested: fewer than 128 rows are sorted with
more copies than 128; a plan that a release cannot make has no figures; releases 0.14 to 0.18 check one group of layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.catalog.gpus import Gpu, all_gpus
from modelberth.catalog.vllm import versions
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.ledger import Ledger
from modelberth.sizing.model import Model
from modelberth.sizing.plan import KvFigures, Sizing, size
from modelberth.sizing.ranges import Range

MODELS = (
    "Llama-3.1-8B-Instruct",
    "Mistral-Small-24B-Instruct-2501-quantized.w4a16",
    "Llama-3.3-70B-Instruct-FP8-dynamic",
    "Llama-3.1-70B-Instruct-FP8",
    "Qwen2.5-0.5B-Instruct-AWQ",
    "Qwen3-30B-A3B",
    "Qwen3-235B-A22B-Instruct-2507-FP8",
    "gpt-oss-20b",
    "gemma-3-27b-it",
    "gemma-3n-E4B-it",
    "Llama-4-Scout-17B-16E-Instruct",
    "DeepSeek-V2-Lite",
    "DeepSeek-V3.2",
    "Qwen3-Next-80B-A3B-Instruct",
    "NVIDIA-Nemotron-Nano-9B-v2",
    "granite-4.0-h-tiny",
    "Qwen2.5-VL-7B-Instruct",
    "opt-125m",
)
"""Dense, sparse, hybrid, latent, windows and chunks, pictures, and every way to store weights."""


@dataclass(frozen=True)
class Case:
    """One plan to make."""

    name: str
    gpu: Gpu
    flags: EngineFlags


@pytest.fixture(scope="module")
def planned(model_named: Callable[[str], Model]) -> Callable[..., Sizing]:
    """The plan of a case, with flags of its own changed."""

    def run(case: Case, **changes: object) -> Sizing:
        return size(model_named(case.name), case.gpu, replace(case.flags, **changes))  # type: ignore[arg-type]

    return run


@st.composite
def cases(draw: st.DrawFn, **fixed: object) -> Case:
    flags: dict[str, object] = {
        "vllm": draw(st.sampled_from(versions())),
        "entrypoint": draw(st.sampled_from(["server", "offline"])),
        "tensor_parallel": draw(st.sampled_from([1, 2, 4, 8])),
        "max_model_len": draw(st.none() | st.integers(1, 300_000)),
        "gpu_memory_utilization": draw(st.none() | st.floats(0.05, 1.0)),
        "max_num_batched_tokens": draw(st.none() | st.integers(1, 70_000)),
        "max_num_seqs": draw(st.none() | st.integers(1, 3000)),
        "kv_cache_dtype": draw(st.sampled_from(["auto", "fp8", "fp8_e5m2", "bfloat16", "nvfp4"])),
        "dtype": draw(st.sampled_from(["auto", "auto", "float16", "float32"])),
        "enforce_eager": draw(st.booleans()),
        "expert_parallel": draw(st.booleans()),
    }
    return Case(
        draw(st.sampled_from(MODELS)),
        draw(st.sampled_from(all_gpus())),
        EngineFlags(**{**flags, **fixed}),  # type: ignore[arg-type]
    )


def each(one: Range, other: Range) -> tuple[tuple[float, float], ...]:
    return ((one.low, other.low), (one.mid, other.mid), (one.high, other.high))


def never_less(more: Range, less: Range) -> bool:
    """Whether a range lies nowhere below another, but for a rounding of floats."""
    return all(one >= other - 1 for one, other in each(more, less))


def pinned(plan: Sizing) -> dict[str, int]:
    """The batch limits as they are, so that another length does not change them."""
    return {"max_num_batched_tokens": plan.engine.max_num_batched_tokens, "max_num_seqs": plan.engine.max_num_seqs}


@settings(max_examples=400)
@given(cases())
def test_every_figure_is_finite_and_in_order(planned: Callable[..., Sizing], case: Case):
    found = planned(case)
    for field in fields(Ledger):
        part = getattr(found.ledger, field.name)
        assert part.low <= part.mid <= part.high
        assert field.name == "kv_cache" or part.low >= 0
    for field in fields(KvFigures):
        figure = getattr(found.kv, field.name)
        low, mid, high = (
            (figure.low, figure.mid, figure.high) if isinstance(figure, Range) else (figure, figure, figure)
        )
        assert 0 <= low <= mid <= high < math.inf
    assert found.ledger.budget.high <= found.ledger.total.high + 1
    assert all(reason.strip() for reason in found.reasons)


@settings(max_examples=400)
@given(cases())
def test_the_verdict_follows_from_the_figures(planned: Callable[..., Sizing], case: Case):
    found = planned(case)
    asked, largest, cache = found.engine.max_model_len, found.kv.largest, found.ledger.kv_cache
    match found.verdict:
        case "fits":
            assert largest.low >= asked
            assert cache.low > 0
        case "fits-tight":
            assert largest.mid >= asked
            assert cache.mid > 0
        case "context-too-long":
            assert largest.mid < asked
            assert cache.mid > 0
        case "weights-do-not-fit":
            assert cache.mid <= 0 or found.ledger.weights.mid > found.ledger.total.mid - found.ledger.outside.mid
    assert found.starts == (found.verdict in ("fits", "fits-tight"))
    if found.starts and found.engine.rules["kvCheck"] == "groups":
        # 0.14 to 0.18 check the first group of layers only, and start with less than one request.
        assert found.kv.concurrency.mid >= 1


@settings(max_examples=400)
@given(cases(), st.integers(1, 300_000))
def test_more_context_never_needs_less(planned: Callable[..., Sizing], case: Case, more: int):
    short = planned(case)
    long = planned(case, max_model_len=short.engine.max_model_len + more)
    assert long.kv.request_bytes >= short.kv.request_bytes
    assert long.kv.largest.mid <= max(short.kv.largest.mid, long.engine.max_model_len)
    if short.verdict == "context-too-long":
        assert not long.starts
    if long.verdict == "fits" and pinned(long) == pinned(short):
        assert short.verdict in ("fits", "fits-tight")


@settings(max_examples=300)
@given(cases(), st.floats(0.01, 1.0))
def test_a_larger_share_never_means_less_cache(planned: Callable[..., Sizing], case: Case, share: float):
    here = planned(case)
    other = planned(case, gpu_memory_utilization=share)
    more, less = (other, here) if share >= here.engine.gpu_memory_utilization else (here, other)
    assert never_less(more.ledger.kv_cache, less.ledger.kv_cache)
    assert never_less(more.kv.blocks, less.kv.blocks)
    assert more.ledger.weights == less.ledger.weights
    assert more.ledger.activation == less.ledger.activation


@settings(max_examples=300)
@given(cases(), st.integers(1, 20_000))
def test_more_tokens_in_a_step_never_take_less(planned: Callable[..., Sizing], case: Case, more: int):
    few = planned(case)
    many = planned(
        case, max_num_seqs=few.engine.max_num_seqs, max_num_batched_tokens=few.engine.max_num_batched_tokens + more
    )
    if crosses_128(few, many):
        return
    assert never_less(many.ledger.activation, few.ledger.activation)
    # Since 0.20.1 the step's own size is captured too, whole where there are as many requests: one graph less beyond.
    if not many.engine.rules["cudaGraphExtraSizes"]:
        assert never_less(many.ledger.graph_memory, few.ledger.graph_memory)


@settings(max_examples=300)
@given(cases(), st.integers(1, 3000))
def test_more_requests_in_a_step_never_take_less(planned: Callable[..., Sizing], case: Case, more: int):
    few = planned(case)
    many = planned(
        case, max_num_batched_tokens=few.engine.max_num_batched_tokens, max_num_seqs=few.engine.max_num_seqs + more
    )
    if crosses_128(few, many):
        return
    assert never_less(many.ledger.activation, few.ledger.activation)
    # Since 0.31 the number of requests is a size of its own too, unless it is one already.
    if not many.engine.rules["cudaGraphExtraSizes"]:
        assert never_less(many.ledger.graph_memory, few.ledger.graph_memory)
        assert never_less(few.ledger.kv_cache, many.ledger.kv_cache)
    assert never_less(many.ledger.non_torch, few.ledger.non_torch)


def crosses_128(few: Sizing, many: Sizing) -> bool:
    """Whether the sampler's sort changes its way between the two: 50 bytes a logit below 128 rows, 38 from there."""
    rows = [min(plan.engine.max_num_seqs, plan.engine.max_num_batched_tokens) for plan in (few, many)]
    return few.engine.rules["sampler"]["v1"]["default"] == "pytorch-sort" and rows[0] < 128 <= rows[1]


def test_the_exception_is_real(planned: Callable[..., Sizing]):
    """127 rows of 50 bytes are more than 128 of 38, and less than 168."""
    gpu = next(gpu for gpu in all_gpus() if gpu.name == "L4")
    case = Case(
        "Llama-3.1-8B-Instruct", gpu, EngineFlags(vllm="0.11.0", entrypoint="offline", max_num_batched_tokens=2048)
    )
    sorts = [planned(case, max_num_seqs=seqs).ledger.activation.mid for seqs in (127, 128, 168)]
    assert sorts[1] < sorts[0] < sorts[2]


@settings(max_examples=300)
@given(cases())
def test_eager_never_means_less_cache(planned: Callable[..., Sizing], case: Case):
    eager, compiled = planned(case, enforce_eager=True), planned(case, enforce_eager=False)
    assert never_less(eager.ledger.kv_cache, compiled.ledger.kv_cache)
    assert eager.ledger.graph_memory.high == eager.ledger.cuda_graphs.high == 0
    if compiled.verdict == "fits":
        assert eager.verdict == "fits"


@settings(max_examples=300)
@given(cases())
def test_more_ranks_never_hold_more_weights(planned: Callable[..., Sizing], case: Case):
    """Exactly so, with what the allocator adds: of all models here, with 1, 2, 4 and 8 ranks."""
    few = planned(case, tensor_parallel=1)
    for ranks in (2, 4, 8):
        many = planned(case, tensor_parallel=ranks)
        assert many.account.weights.total <= few.account.weights.total
        assert many.kv.bytes_per_token <= few.kv.bytes_per_token
        few = many


@settings(max_examples=200)
@given(cases(kv_cache_dtype="auto"))
def test_fp8_never_makes_a_token_larger(planned: Callable[..., Sizing], case: Case):
    """A model without a plan has no token at all."""
    own, half = planned(case), planned(case, kv_cache_dtype="fp8")
    if own.kv.bytes_per_token and half.kv.bytes_per_token:
        assert half.kv.bytes_per_token <= own.kv.bytes_per_token
        assert half.kv.request_bytes <= own.kv.request_bytes


@settings(max_examples=300)
@given(
    cases(),
    st.sampled_from([3, 5, 6, 7, 12, 16, 24, 32, 64]),
    st.none() | st.integers(1, 4096),
    st.sampled_from([None, "fp8", "w4a16", "bitsandbytes", "awq", ""]),
    st.none() | st.integers(1, 10**12),
    st.sampled_from(["auto", "int8_per_token_head", "fp8_ds_mla", "turboquant_k8v4", "none", ""]),
    st.sampled_from(["0.8.0", "0.99.0", "0", "9999", "v0.10.2", "latest", "", "0.20.x"]),
)
def test_nothing_but_a_usage_error_is_raised(
    planned: Callable[..., Sizing],
    case: Case,
    ranks: int,
    block: int | None,
    scheme: str | None,
    total: int | None,
    cache: str,
    vllm: str,
):
    try:
        found = planned(
            case, tensor_parallel=ranks, block_size=block, quantization=scheme, gpu_total=total, kv_cache_dtype=cache,
            vllm=vllm,
        )  # fmt: skip
    except UsageError:
        return
    assert found.reasons[0]

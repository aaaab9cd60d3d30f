"""The memory plan of an engine on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import DoesNotFit
from modelberth.base.units import GIB, KIB, MIB
from modelberth.checkpoint.folder import Checkpoint
from modelberth.checkpoint.shape import Attention, ModelShape, Recurrent
from modelberth.sizing.kv_cache import KvRules, cache_layers, plan
from modelberth.sizing.local import KV_FLOOR, KV_REQUESTS, LocalPlan, plan_local

WEIGHTS, PROCESS = 100 * MIB, 500 * MIB
ONE = 1536 * KIB
"""One request of the harbor model: 1,024 tokens of 1,536 bytes, eight whole blocks of 128."""

Planner = Callable[..., LocalPlan]


@pytest.fixture(scope="module")
def planned(harbor_shape: ModelShape) -> Planner:
    """`plan_local` for the harbor shape with 100 MiB of weights and an engine of 500 MiB."""

    def run(available: int, *, max_model_len: int | None = 1024, layers: int = 3, **options: object) -> LocalPlan:
        checkpoint = Checkpoint(replace(harbor_shape, layers=harbor_shape.layers[:1] * layers), {}, WEIGHTS, 1)
        return plan_local(
            checkpoint,
            available=available,
            process=PROCESS,
            block_tokens=128,
            max_model_len=max_model_len,
            **options,  # type: ignore[arg-type]
        )

    return run


def test_with_room_the_cache_is_the_floor(planned: Planner, harbor_shape: ModelShape):
    found = planned(8 * GIB)
    rules = KvRules(block_tokens=128, kernel_tokens=128)
    expected = plan(cache_layers(harbor_shape, rules=rules), KV_FLOOR, 1024, rules)
    assert found == LocalPlan(WEIGHTS, KV_FLOOR, PROCESS, 1024, expected)
    assert (found.kv.blocks, found.kv.tokens) == (1365, 174_720)
    assert found.total == WEIGHTS + KV_FLOOR + PROCESS


def test_with_room_a_larger_model_gets_a_cache_for_several_requests(planned: Planner):
    found = planned(8 * GIB, layers=300)
    assert found.kv_cache == KV_REQUESTS * 100 * ONE
    assert found.kv.concurrency == KV_REQUESTS


def test_with_less_room_the_cache_is_what_is_left(planned: Planner):
    assert planned(WEIGHTS + PROCESS + 10 * MIB).kv_cache == 10 * MIB


def test_the_last_byte_counts(planned: Planner):
    found = planned(WEIGHTS + PROCESS + ONE)
    assert (found.kv_cache, found.kv.concurrency) == (ONE, 1)
    with pytest.raises(DoesNotFit):
        planned(WEIGHTS + PROCESS + ONE - 1)


def test_without_a_length_the_model_s_own_counts(planned: Planner):
    assert planned(8 * GIB, max_model_len=None).max_model_len == 1024
    assert planned(8 * GIB, max_model_len=512).max_model_len == 512


def test_the_type_of_the_cache_counts(planned: Planner):
    assert planned(8 * GIB, kv_cache_dtype="fp8").kv.tokens == 2 * planned(8 * GIB).kv.tokens


def test_a_cache_that_was_asked_for_is_what_it_gets(planned: Planner):
    found = planned(8 * GIB, wanted_cache=GIB)
    assert (found.kv_cache, found.kv.tokens) == (GIB, 699_008)
    assert planned(8 * GIB, wanted_cache=ONE).kv_cache == ONE


def test_a_model_that_does_not_fit_says_each_number(planned: Planner):
    with pytest.raises(DoesNotFit, match="does not fit this machine's memory") as caught:
        planned(200 * MIB)
    assert caught.value.why == (
        "601.50 MiB needed, 200.00 MiB free: weights 100.00 MiB, engine 500.00 MiB, "
        "KV cache 1.50 MiB, of which one request of 1,024 tokens takes 1.50 MiB"
    )
    assert caught.value.next_step == "lower maxModelLen, or free memory"
    assert caught.value.exit_code == 8


def test_a_cache_that_was_asked_for_and_does_not_fit_is_not_made_smaller(planned: Planner):
    with pytest.raises(DoesNotFit) as caught:
        planned(GIB, wanted_cache=GIB)
    assert "1.59 GiB needed, 1.00 GiB free" in caught.value.why
    assert "KV cache 1.00 GiB, of which one request of 1,024 tokens takes 1.50 MiB" in caught.value.why


def test_a_cache_too_small_for_one_request_is_refused_whatever_the_memory(planned: Planner):
    with pytest.raises(DoesNotFit, match=r"a KV cache of 1\.00 MiB does not hold one request") as caught:
        planned(8 * GIB, wanted_cache=MIB)
    assert caught.value.why == "1,024 tokens of 1,536 bytes take 1.50 MiB"
    assert caught.value.next_step == "ask for a larger cache, or lower maxModelLen"


def test_no_memory_is_never_shown_as_less_than_none(planned: Planner):
    with pytest.raises(DoesNotFit, match="does not fit") as caught:
        planned(-5 * GIB)
    assert "needed, 0 B free" in caught.value.why


def _with_mixer(shape: ModelShape, mixer: Attention | Recurrent, layers: int) -> ModelShape:
    """The shape with that mixer in its first layers."""
    first = replace(shape.layers[0], mixer=mixer)
    return replace(shape, layers=(first,) * layers + shape.layers[layers:])


def test_a_window_counts_as_if_a_whole_request_were_in_one_step(harbor_shape: ModelShape, planned: Planner):
    """Two of three layers forget, each in a group of its own: a request takes a block more in each of them."""
    window = replace(harbor_shape.layers[0].mixer, window=16)
    checkpoint = Checkpoint(_with_mixer(harbor_shape, window, 2), {}, WEIGHTS, 1)
    found = plan_local(checkpoint, available=8 * GIB, process=PROCESS, block_tokens=128, max_model_len=1024)
    assert planned(8 * GIB).kv.request_bytes == ONE
    assert found.kv.request_bytes == ONE + 2 * ONE // 3 // 8
    assert found.kv.groups == 3


def test_a_state_is_kept_twice_and_in_float32(harbor_shape: ModelShape):
    state = Recurrent("mamba2", 1, 16, 4, 16, 4)
    checkpoint = Checkpoint(_with_mixer(harbor_shape, state, 1), {}, WEIGHTS, 1)
    found = plan_local(checkpoint, available=8 * GIB, process=PROCESS, block_tokens=128, max_model_len=1024)
    page = 64 * KIB  # 128 tokens of 512 bytes, more than the state's 4 KiB in float32 and its convolution
    assert found.kv.request_bytes == (8 * 2 + 2) * page
    assert found.kv.groups == 3


@given(st.integers(-GIB, 4 * GIB), st.integers(1, 4096), st.integers(1, 60), st.none() | st.integers(0, 2 * GIB))
def test_a_plan_fits_and_serves_a_request_or_is_refused(planned, available, length, layers, wanted):
    try:
        found = planned(available, max_model_len=length, layers=layers, wanted_cache=wanted)
    except DoesNotFit as error:
        assert error.why  # noqa: PT017 - a refusal always says its numbers
        return
    assert found.total <= available
    assert found.kv.concurrency >= 1
    assert wanted in (None, found.kv_cache)

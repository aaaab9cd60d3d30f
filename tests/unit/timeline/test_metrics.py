"""Figures out of metrics: several engines, both names of the KV cache's use, and pages that are broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.timeline.metrics import cards, engine_load, quantile, samples

ENGINE = """\
# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m, with \\"quotes\\""} 7.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:generation_tokens_total{engine="0"} 1.5e+03
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 5.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5"} 18.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="2.5"} 20.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 20.0
process_cpu_seconds_total NaN
"""
DCGM = """\
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",namespace="ns",pod="p",container="c"} 87
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",namespace="ns",pod="p"} 20000
DCGM_FI_DEV_FB_FREE{gpu="0",UUID="GPU-a",namespace="ns",pod="p"} 2000
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",namespace="other",pod="q"} 5
DCGM_FI_DEV_GPU_UTIL{gpu="2",UUID="GPU-c"} 1
"""


def test_an_engine() -> None:
    load = engine_load(ENGINE)
    assert (load.running, load.waiting, load.kv_cache, load.generated) == (5, 7, 0.5, 1500)
    assert (load.first_token_median, load.first_token_p95) == (0.5, 2.5)


def test_an_older_engine_and_a_silent_one() -> None:
    assert engine_load("vllm:gpu_cache_usage_perc 0.5\n").kv_cache == 0.5
    silent = engine_load("<html>no metrics</html>")
    assert (silent.kv_cache, silent.running, silent.first_token_median) == (None, None, None)


def test_the_cards_of_a_namespace() -> None:
    (card,) = cards(DCGM, "ns")
    assert (card.pod, card.utilization, card.used_mib, card.free_mib) == ("p", 87, 20000, 2000)
    assert cards(DCGM, "none") == []


@pytest.mark.parametrize(
    ("buckets", "share", "expected"), [({}, 0.5, None), ({1.0: 0.0}, 0.5, None), ({float("inf"): 3.0}, 0.5, None),
                                       ({1.0: 2.0, 2.0: 4.0}, 0.5, 1.0), ({1.0: 2.0, 2.0: 4.0}, 0.95, 2.0)]
)  # fmt: skip
def test_quantiles(buckets: dict[float, float], share: float, expected: float | None) -> None:
    assert quantile(buckets, share) == expected


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all(each.value == each.value for each in samples(text))

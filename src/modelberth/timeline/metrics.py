"""Figures out of metrics in Prometheus' text format: one engine's load, one card's use.

Names: vllm/v1/metrics/loggers.py (the KV cache's use was `gpu_cache_usage_perc` up to 0.9), NVIDIA's DCGM exporter
(etc/dcp-metrics-included.csv; memory in MiB). Format: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_SAMPLE = re.compile(
    r"(?P<name>[A-Za-z_:][\w:]{0,200})(?:\{(?P<labels>.{0,4000})\})? +(?P<value>[-+.\w]{1,40})(?: +\d{1,20})?"
)
_LABEL = re.compile(r'(?P<name>\w{1,100})="(?P<value>(?:[^"\\]|\\.){0,1000})"')
_KV = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_FIRST = "vllm:time_to_first_token_seconds"


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        name: of the metric.
        labels: of the sample.
        value: NaN is left out before.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: str) -> Iterator[Sample]:
    """The samples of a page; lines that are none, and values that are no number, are passed over."""
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        if not math.isnan(value):
            labels = {each["name"]: each["value"] for each in _LABEL.finditer(match["labels"] or "")}
            yield Sample(match["name"], labels, value)


@dataclass(frozen=True)
class EngineLoad:
    """How busy an engine is; None where it does not say.

    Attributes:
        kv_cache: share of its KV cache that is used, 0 to 1.
        running: requests that are being answered.
        waiting: requests that wait.
        generated: tokens since it began.
        first_token_median: seconds, over all requests since it began; the upper end of the bucket.
        first_token_p95: likewise.
    """

    kv_cache: float | None = None
    running: float | None = None
    waiting: float | None = None
    generated: float | None = None
    first_token_median: float | None = None
    first_token_p95: float | None = None


def engine_load(text: str) -> EngineLoad:
    """The load of an engine out of its metrics; several engines of one server are added up, caches averaged."""
    found = list(samples(text))
    caches = [each.value for each in found if each.name in _KV]
    buckets: dict[float, float] = {}
    for each in found:
        if each.name == f"{_FIRST}_bucket":
            bound = float(each.labels.get("le", "inf"))
            buckets[bound] = buckets.get(bound, 0.0) + each.value
    return EngineLoad(
        sum(caches) / len(caches) if caches else None, _sum(found, "vllm:num_requests_running"),
        _sum(found, "vllm:num_requests_waiting"), _sum(found, "vllm:generation_tokens_total"),
        quantile(buckets, 0.5), quantile(buckets, 0.95),
    )  # fmt: skip


def _sum(found: Iterable[Sample], name: str) -> float | None:
    values = [each.value for each in found if each.name == name]
    return sum(values) if values else None


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The upper end of the bucket that a share of all lies below; None without any, or beyond the last bound."""
    total = max(buckets.values(), default=0.0)
    for bound, count in sorted(buckets.items()):
        if total and count >= share * total:
            return bound if math.isfinite(bound) else None
    return None


@dataclass(frozen=True)
class CardUse:
    """One card.

    Attributes:
        pod: that has it.
        utilization: percent.
        used_mib: memory.
        free_mib: memory.
    """

    pod: str
    utilization: float = 0.0
    used_mib: float = 0.0
    free_mib: float = 0.0


def cards(text: str, namespace: str) -> list[CardUse]:
    """The cards of a namespace's pods, out of the DCGM exporter's metrics."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for each in samples(text):
        pod = each.labels.get("pod") or each.labels.get("exported_pod", "")
        place = each.labels.get("namespace") or each.labels.get("exported_namespace", "")
        if each.name.startswith("DCGM_FI_DEV_") and pod and place == namespace:
            found.setdefault((pod, each.labels.get("UUID") or each.labels.get("gpu", "")), {})[each.name] = each.value
    return [
        CardUse(pod, values.get("DCGM_FI_DEV_GPU_UTIL", 0.0), values.get("DCGM_FI_DEV_FB_USED", 0.0),
                values.get("DCGM_FI_DEV_FB_FREE", 0.0))
        for (pod, _), values in sorted(found.items())
    ]  # fmt: skip

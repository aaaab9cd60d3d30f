"""What a log says about a start beside its failure: the model, its arguments, and memory figures."""

from __future__ import annotations

from math import ceil, floor

from modelberth.findings.diagnosis.signature import Unit
from modelberth.findings.diagnosis.start import Start
from modelberth.findings.diagnosis.wording import Value, safe, shown
from modelberth.timeline.memory_report import MemoryReport, read_memory_report

_ARGUMENTS: dict[str, tuple[str, Unit]] = {
    "model": ("model", "text"),
    "tensor_parallel_size": ("tensor-parallel-size", "count"),
    "max_model_len": ("max-model-len", "tokens"),
    "gpu_memory_utilization": ("gpu-memory-utilization", "number"),
    "max_num_seqs": ("max-num-seqs", "count"),
    "max_num_batched_tokens": ("max-num-batched-tokens", "tokens"),
}
_LONGEST = 240
_FIGURES = ("gpu_total_gib", "weights_gib", "kv_cache_gib", "free_gib", "desired_gib")
NAMES = (
    *_ARGUMENTS, *_FIGURES, "budget_gib", "fitting_utilization", "needed_utilization", "phase", "vllm_version",
    "gpu_name", "pod", "container", "namespace", "node", "object",
)  # fmt: skip
"""What texts of signatures may name beside the groups of their patterns."""


def report(start: Start) -> MemoryReport:
    """The memory report of one start."""
    return read_memory_report(text for _, text in start.figures)


def context(start: Start) -> dict[str, Value]:
    """What texts may name of a start; what is not known is left out."""
    figures = report(start)
    found: dict[str, Value] = {}
    for name, (flag, unit) in _ARGUMENTS.items():
        if text := figures.arguments.get(flag):
            found[name] = _value(text, unit)
    for name in _FIGURES:
        number = getattr(figures, name)
        if number is not None:
            found[name] = shown(number, "GiB")
    found |= _derived(figures)
    version = start.version or figures.vllm_version
    for name, said in (
        ("vllm_version", version), ("gpu_name", figures.gpu_name), ("pod", start.pod), ("container", start.container)
    ):  # fmt: skip
        if said:
            found[name] = Value(said, said)
    return found


def phase(stage: str) -> dict[str, Value]:
    """When it was, in words; nothing before the first stage."""
    text = _PHASES.get(stage)
    return {"phase": Value(text, text)} if text else {}


_PHASES = {
    "engine": "before the weights were loaded",
    "weights": "while the weights were loaded",
    "profile": "in the forward pass that measures the memory",
    "compile": "while the model was compiled",
    "kv-cache": "after the KV cache was set up",
    "graphs": "while CUDA graphs were captured",
    "server": "once the engine was up",
}
_MOST_UTILIZATION = 0.95
"""Above it nothing is left for what vLLM does not count."""


def _derived(figures: MemoryReport) -> dict[str, Value]:
    """What follows from the figures; what cannot be told is left out."""
    found: dict[str, Value] = {}
    total, free = figures.gpu_total_gib, figures.free_gib
    share = _fraction(figures.arguments.get("gpu-memory-utilization"))
    if total and free is not None and 0 < free < total:
        fitting = floor(free / total * 100) / 100
        found["fitting_utilization"] = Value(f"{fitting:.2f}", fitting)
    if total and share:
        found["budget_gib"] = shown(round(total * share, 2), "GiB")
        needed, there = figures.kv_needed_gib, figures.kv_available_gib
        if needed is not None and there is not None and needed > there:
            wanted = ceil((share + (needed - there) / total) * 100) / 100
            if wanted <= _MOST_UTILIZATION:
                found["needed_utilization"] = Value(f"{wanted:.2f}", wanted)
    return found


def _fraction(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number <= 1 else None


def _value(text: str, unit: Unit) -> Value:
    if unit == "text":
        text = safe(text, _LONGEST)
        return Value(text, text)
    try:
        return shown(float(text), unit, text)
    except ValueError:
        return Value(text, text)

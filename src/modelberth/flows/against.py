"""`berth size --against LOG`: what was predicted beside what a real start-up reported, term by term."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelberth.adapters.files import disk_errors
from modelberth.base.errors import UsageError
from modelberth.base.units import GIB
from modelberth.catalog.vllm import rules_for, within
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.plan import Sizing
from modelberth.sizing.ranges import Range, total
from modelberth.timeline.memory_report import MemoryReport, read_memory_report

SCHEMA_VERSION = "modelberth.dev/size-comparison/v1"


@dataclass(frozen=True)
class Term:
    """One figure, predicted and reported.

    Attributes:
        name: as in the ledger.
        unit: `GiB`, `tokens`, `blocks` or `x`.
        predicted: low, mid, high.
        reported: as the log says it.
        line: of the log, from 1; 0 where the figure was computed from others.
    """

    name: str
    unit: str
    predicted: Range
    reported: float
    line: int

    @property
    def error(self) -> float | None:
        """(predicted - reported) / reported; None where the log reports 0."""
        return (self.predicted.mid - self.reported) / self.reported if self.reported else None

    @property
    def inside(self) -> bool:
        """Whether the report lies in the predicted range, to the digits that logs print."""
        slack = 0.005 if self.unit == "GiB" else 0.5
        return self.predicted.low - slack <= self.reported <= self.predicted.high + slack


@dataclass(frozen=True)
class Comparison:
    """A plan held against a log.

    Attributes:
        sizing: the plan, made with the arguments of the log where the command line gives none.
        report: what the log says.
        terms: figures that both have.
        verdict_agrees: whether it was predicted rightly that it starts; None where the log does not say.
    """

    sizing: Sizing
    report: MemoryReport
    terms: tuple[Term, ...]
    verdict_agrees: bool | None


def read_log(path: Path) -> MemoryReport:
    """The memory report of a log file.

    Raises:
        UsageError: no such file, or nothing in it is about an engine's memory.
    """
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), next_step="give a start-up log of vLLM")
    with disk_errors(path), path.open(encoding="utf-8", errors="replace") as lines:
        report = read_memory_report(lines)
    if report.weights_gib is None and report.kv_cache_gib is None and report.failure is None:
        raise UsageError(
            "this log says nothing about memory", where=str(path),
            why="neither weights nor KV cache nor a memory failure of vLLM 0.8 to 0.33 is in it",
            next_step="give the whole log of a start",
        )  # fmt: skip
    return report


_FLAGS = {
    "tensor_parallel": "tensor-parallel-size",
    "max_model_len": "max-model-len",
    "max_num_batched_tokens": "max-num-batched-tokens",
    "max_num_seqs": "max-num-seqs",
    "block_size": "block-size",
}


def flags_from(report: MemoryReport, given: EngineFlags) -> EngineFlags:
    """Flags for the plan: what the command line gives, and for the rest what the log shows."""
    said, default = report.arguments, EngineFlags()
    found: dict[str, Any] = {
        name: int(said[flag]) for name, flag in _FLAGS.items() if said.get(flag, "").isdigit() and int(said[flag])
    }
    if _fraction(said.get("gpu-memory-utilization")) is not None:
        found["gpu_memory_utilization"] = _fraction(said["gpu-memory-utilization"])
    if "kv-cache-dtype" in said:
        found["kv_cache_dtype"] = said["kv-cache-dtype"]
    if said.get("dtype", "").removeprefix("torch.") in {"bfloat16", "float16", "float32"}:
        found["dtype"] = said["dtype"].removeprefix("torch.")
    found["enforce_eager"] = said.get("enforce-eager") == "true"
    found["expert_parallel"] = said.get("enable-expert-parallel") == "true"
    found |= {"vllm": report.vllm_version} if report.vllm_version else {}
    found |= {"entrypoint": report.entrypoint} if report.entrypoint else {}
    found |= {"gpu_total": round(report.gpu_total_gib * GIB)} if report.gpu_total_gib else {}
    kept = {name: value for name, value in found.items() if getattr(given, name) == getattr(default, name)}
    return replace(given, **kept)


def _fraction(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


def compare(sizing: Sizing, report: MemoryReport) -> Comparison:
    """Hold a plan against a report."""
    agrees = None if report.started is None else report.started == sizing.starts
    return Comparison(sizing, report, tuple(_terms(sizing, report)), agrees)


def _terms(sizing: Sizing, report: MemoryReport) -> Iterator[Term]:
    ledger, kv = sizing.ledger, sizing.kv
    pairs: tuple[tuple[str, str, Range, float | None, str], ...] = (
        ("total", "GiB", ledger.total, report.gpu_total_gib, "gpu_total_gib"),
        ("weights", "GiB", ledger.weights, report.weights_gib, "weights_gib"),
        ("activation", "GiB", ledger.activation, _activation(report), "peak_activation_gib"),
        ("non-torch", "GiB", ledger.non_torch, report.non_torch_gib, "non_torch_gib"),
        (
            "weights and non-torch",
            "GiB",
            total((ledger.weights, ledger.non_torch)),
            report.consumed_gib,
            "consumed_gib",
        ),
        ("CUDA graphs", "GiB", ledger.graph_memory, report.cuda_graphs_gib, "cuda_graphs_gib"),
        ("KV cache", "GiB", ledger.kv_cache, report.kv_cache_gib or report.kv_available_gib, "kv_cache_gib"),
        ("KV cache", "tokens", kv.tokens, report.kv_cache_tokens, "kv_cache_tokens"),
        ("KV cache", "blocks", kv.blocks, report.kv_cache_blocks, "kv_cache_blocks"),
        ("concurrency", "x", kv.concurrency, report.max_concurrency, "max_concurrency"),
        ("longest context", "tokens", kv.largest, report.estimated_max_model_len, "estimated_max_model_len"),
    )
    for name, unit, predicted, reported, evidence in pairs:
        if reported is not None:
            scaled = predicted.scaled(1 / GIB) if unit == "GiB" else predicted
            yield Term(name, unit, scaled, float(reported), report.evidence.get(evidence, 0))


def _activation(report: MemoryReport) -> float | None:
    """The peak without the graph estimate, which 0.18 and 0.27 on print into it."""
    peak, graphs = report.peak_activation_gib, report.cuda_graphs_estimated_gib
    if peak is None or graphs is None or report.vllm_version is None:
        return peak
    release = rules_for(report.vllm_version).release
    contained = within(release, "0.18.0", "0.19.0") or within(release, "0.27.0", None)
    return max(0.0, peak - graphs) if contained else peak


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "verdict": comparison.sizing.verdict,
        "started": comparison.report.started,
        "failure": comparison.report.failure,
        "verdictAgrees": comparison.verdict_agrees,
        "terms": [
            {
                "name": term.name,
                "unit": term.unit,
                "predicted": {
                    "low": round(term.predicted.low, 4),
                    "mid": round(term.predicted.mid, 4),
                    "high": round(term.predicted.high, 4),
                },
                "reported": term.reported,
                "error": None if term.error is None else round(term.error, 4),
                "inside": term.inside,
                "line": term.line,
            }
            for term in comparison.terms
        ],
    }

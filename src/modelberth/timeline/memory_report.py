"""What a start-up log of vLLM 0.8 to 0.33 says about memory: figures, arguments, and how the start ended.

Reads any log of an engine, also cut, interleaved or repeated ones; what it does not know it passes over. The
wordings, and the versions that have them, stand in `catalog/memory_log.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelberth.timeline.log_message import messages
from modelberth.timeline.memory_start import Start


@dataclass(frozen=True)
class MemoryReport:
    """The last complete start in a log. Memory is in GiB per GPU as printed; None is what the log does not say.

    With several ranks, weights, activation, non-torch, consumed and graphs are the largest that one printed, and KV
    memory, tokens, blocks and concurrency the smallest.

    Attributes:
        vllm_version: as printed, with its local part.
        arguments: engine arguments by vLLM's flag without dashes in front (`max-model-len`), values as on a command
            line; what the engine resolved replaces what it was given. Only what bears on memory; never a secret.
        entrypoint: `server` or `offline`.
        gpu_name: with spaces, as the driver says it.
        gpu_total_gib: of the GPU, not of the budget.
        model_runner: `v1` or `v2`; None for the V0 engine.
        weights_gib: with LoRA slots and a draft model, if there are any.
        peak_activation_gib: contains the estimate for graphs in 0.18.0, 0.18.1 and 0.27.0 to 0.33.0.
        non_torch_gib: up to 0.26.0.
        consumed_gib: weights and non-torch together, since 0.27.0.
        cuda_graphs_gib: what capturing took; below zero when other memory became free meanwhile.
        cuda_graphs_estimated_gib: since 0.18.0; charged to the budget by default since 0.20.0.
        kv_cache_gib: below zero when there is none.
        kv_cache_tokens: derived by vLLM from concurrency for models with several kinds of layers.
        kv_cache_blocks: GPU blocks of one engine.
        max_concurrency: requests of `concurrency_len` tokens.
        concurrency_len: the max_model_len that the engine divided by.
        free_gib: free when the engine started, where a failed check or the ledger of 0.26.0 and later says so.
        desired_gib: what the utilization asks for, from the same line.
        kv_needed_gib: for one request of the longest context, when that failed.
        kv_available_gib: instead of it.
        estimated_max_model_len: tokens, vLLM's own estimate in that failure.
        failure: `start-check`, `weights-oom`, `profile-oom`, `no-kv-memory`, `context-too-long`, `graph-oom`,
            `sampler-oom`, or `oom` when the log does not show the phase.
        started: True when the engine came up, False when it did not.
        evidence: line, counted from 1, of each field that is not None; of arguments by `--flag`.
    """

    vllm_version: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    gpu_name: str | None = None
    gpu_total_gib: float | None = None
    model_runner: str | None = None
    weights_gib: float | None = None
    peak_activation_gib: float | None = None
    non_torch_gib: float | None = None
    consumed_gib: float | None = None
    cuda_graphs_gib: float | None = None
    cuda_graphs_estimated_gib: float | None = None
    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    kv_cache_blocks: int | None = None
    max_concurrency: float | None = None
    concurrency_len: int | None = None
    free_gib: float | None = None
    desired_gib: float | None = None
    kv_needed_gib: float | None = None
    kv_available_gib: float | None = None
    estimated_max_model_len: int | None = None
    failure: str | None = None
    started: bool | None = None
    evidence: Mapping[str, int] = field(default_factory=dict)


def read_memory_report(lines: Iterable[str]) -> MemoryReport:
    """Read a log; never raises for what is in it.

    Of several starts the last one counts that came up or failed; without such a one the last that has figures.
    """
    starts = [Start()]
    for number, line in enumerate(lines, start=1):
        for message in messages(line):
            if starts[-1].is_over(message):
                starts.append(Start())
            starts[-1].feed(message, number)
    return _report(_that_counts(starts))


def _that_counts(starts: list[Start]) -> Start:
    for wanted in (lambda start: start.started is not None, lambda start: start.figures.numbers):
        if found := next(filter(wanted, reversed(starts)), None):
            return found
    return starts[-1]


def _report(start: Start) -> MemoryReport:
    numbers = start.figures.numbers

    def whole(name: str) -> int | None:
        return int(numbers[name]) if name in numbers else None

    return MemoryReport(
        vllm_version=start.texts.get("vllm_version"),
        arguments=dict(start.figures.arguments),
        entrypoint=start.texts.get("entrypoint"),
        gpu_name=start.texts.get("gpu_name"),
        gpu_total_gib=numbers.get("gpu_total_gib"),
        model_runner=start.texts.get("model_runner"),
        weights_gib=numbers.get("weights_gib"),
        peak_activation_gib=numbers.get("peak_activation_gib"),
        non_torch_gib=numbers.get("non_torch_gib"),
        consumed_gib=numbers.get("consumed_gib"),
        cuda_graphs_gib=numbers.get("cuda_graphs_gib"),
        cuda_graphs_estimated_gib=numbers.get("cuda_graphs_estimated_gib"),
        kv_cache_gib=numbers.get("kv_cache_gib"),
        kv_cache_tokens=whole("kv_cache_tokens"),
        kv_cache_blocks=whole("kv_cache_blocks"),
        max_concurrency=numbers.get("max_concurrency"),
        concurrency_len=whole("concurrency_len"),
        free_gib=numbers.get("free_gib"),
        desired_gib=numbers.get("desired_gib"),
        kv_needed_gib=numbers.get("kv_needed_gib"),
        kv_available_gib=numbers.get("kv_available_gib"),
        estimated_max_model_len=whole("estimated_max_model_len"),
        failure=start.failure,
        started=start.started,
        evidence=start.evidence,
    )

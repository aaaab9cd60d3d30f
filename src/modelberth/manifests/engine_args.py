"""The engine's arguments: one source for the ServingRuntime, the InferenceService and the process on this machine.

The ServingRuntime gives what every service of a platform has (port, model folder); the InferenceService adds its name
and what its variant declares. vLLM reads both as one list. On this machine the same list is
used, with what the machine cannot honour replaced, each replacement said in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelberth.base.units import format_binary
from modelberth.spec.fields import EngineValue
from modelberth.spec.services import Service

MODEL_FOLDER = "/mnt/models"
"""Where KServe mounts the model, whatever its storage."""
PORT = 8080
_KV_CACHE = "kv-cache-memory-bytes"


@dataclass(frozen=True)
class Argument:
    """One flag without its dashes; value None for a flag that stands alone."""

    flag: str
    value: str | None = None

    def text(self) -> str:
        """`--flag=value` or `--flag`: one word, so that no value is taken for another flag."""
        return f"--{self.flag}" if self.value is None else f"--{self.flag}={self.value}"


@dataclass(frozen=True)
class EngineArguments:
    """The arguments of one service, in order.

    Attributes:
        runtime: those that the ServingRuntime gives.
        service: those that the InferenceService gives.
    """

    runtime: tuple[Argument, ...]
    service: tuple[Argument, ...]

    def texts(self) -> tuple[str, ...]:
        """The whole list as the engine gets it on the cluster."""
        return texts((*self.runtime, *self.service))


def texts(arguments: Iterable[Argument]) -> tuple[str, ...]:
    """Arguments as words of a command line."""
    return tuple(argument.text() for argument in arguments)


def runtime_arguments() -> tuple[Argument, ...]:
    """What every service of a platform is started with."""
    return (Argument("port", str(PORT)), Argument("model", MODEL_FOLDER))


def engine_arguments(service: Service) -> EngineArguments:
    """What the engine of a service is started with on the cluster."""
    return EngineArguments(
        runtime_arguments(), (Argument("served-model-name", service.served_name), *_declared(service))
    )


def _declared(service: Service) -> Iterable[Argument]:
    variant = service.variant
    if variant.tensor_parallel_size > 1:
        yield Argument("tensor-parallel-size", str(variant.tensor_parallel_size))
    if variant.dtype != "auto":
        yield Argument("dtype", variant.dtype)
    if variant.kv_cache_dtype != "auto":
        yield Argument("kv-cache-dtype", variant.kv_cache_dtype)
    if variant.max_model_len is not None:
        yield Argument("max-model-len", str(variant.max_model_len))
    if variant.gpu_memory_utilization is not None:
        yield Argument("gpu-memory-utilization", f"{variant.gpu_memory_utilization:g}")
    for flag, value in variant.engine_args.items():
        yield from _extra(flag, value)


def _extra(flag: str, value: EngineValue | tuple[EngineValue, ...]) -> Iterable[Argument]:
    """One declared extra: true stands alone, false is vLLM's `--no-` form, a list repeats the flag."""
    if isinstance(value, tuple):
        for item in value:
            yield from _extra(flag, item)
    elif value is True:
        yield Argument(flag)
    elif value is False:
        yield Argument(flag.removeprefix("no-") if flag.startswith("no-") else f"no-{flag}")
    else:
        yield Argument(flag, str(value))


@dataclass(frozen=True)
class LocalSeat:
    """Where a service runs on this machine.

    Attributes:
        model: folder of the verified weights.
        host: address to listen on.
        port: port to listen on.
        gpus: CUDA devices there are; 0 for the CPU.
        kv_cache_bytes: memory for the KV cache; None where the engine measures for itself.
    """

    model: str
    host: str
    port: int
    gpus: int
    kv_cache_bytes: int | None


@dataclass(frozen=True)
class LocalArguments:
    """The list for this machine, and what was replaced in it, each in one line."""

    arguments: tuple[Argument, ...]
    replacements: tuple[str, ...]

    def texts(self) -> tuple[str, ...]:
        """As words of a command line."""
        return texts(self.arguments)


def local_arguments(arguments: EngineArguments, seat: LocalSeat) -> LocalArguments:
    """The cluster's list with what this machine cannot honour replaced.

    Model folder, port and address always are, and need no word; the rest is said.
    """
    here: list[Argument] = [Argument("host", seat.host)]
    said: list[str] = []
    for argument in (*arguments.runtime, *arguments.service):
        replaced, text = _here(argument, seat)
        here += [replaced] if replaced else []
        said += [text] if text else []
    if seat.kv_cache_bytes is not None:
        here.append(Argument(_KV_CACHE, str(seat.kv_cache_bytes)))
    return LocalArguments(tuple(here), tuple(said))


def left_to_the_cluster(service: Service) -> tuple[str, ...]:
    """What a service says of pods that this machine, which runs one of it, has no use for; each in one line."""
    variant = service.variant
    said = []
    if variant.replicas != 1:
        said.append(f"replicas {variant.replicas} becomes 1: one process here")
    if variant.data_parallel_size > 1:
        said.append(f"data-parallel-size {variant.data_parallel_size} becomes 1: one process here")
    if variant.prefill is not None:
        said.append("prefill apart from decode becomes one engine: one process here")
    return tuple(said)


def _here(argument: Argument, seat: LocalSeat) -> tuple[Argument | None, str]:
    """What becomes of one argument on this machine (None: it is left out), and what to say of it."""
    if argument.flag == "port":
        return replace(argument, value=str(seat.port)), ""
    if argument.flag == "model":
        return replace(argument, value=seat.model), ""
    if argument.flag == "tensor-parallel-size" and int(argument.value or 1) > max(1, seat.gpus):
        ranks, there = str(max(1, seat.gpus)), f"{seat.gpus or 'no'} GPU{'s' if seat.gpus > 1 else ''} here"
        return replace(argument, value=ranks), f"tensor-parallel-size {argument.value} becomes {ranks}: {there}"
    if argument.flag in {"gpu-memory-utilization", _KV_CACHE} and seat.kv_cache_bytes is not None:
        cache = format_binary(seat.kv_cache_bytes)
        return None, f"{argument.flag} {argument.value} becomes a KV cache of {cache}: no GPU here"
    return argument, ""

"""9xx: whether what is served fits, where the service's model was read (`--model SERVICE=FOLDER`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB, format_binary, parse_bytes
from modelberth.catalog.gpus import Gpu, find_gpu
from modelberth.catalog.instances import find_instance
from modelberth.findings.lint.engine import served_flags
from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import PROFILE_NAME, ServedModel, World, items, mapping, text
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import Model
from modelberth.sizing.plan import Sizing, size
from modelberth.sizing.storage import advise

_PRODUCT, _INSTANCE = "nvidia.com/gpu.product", "node.kubernetes.io/instance-type"
_LONG_ENOUGH = 16_384
"""Tokens: thirty tool schemas alone take 12 to 16 thousand (adnan-drina/rhoai3-demo, commit 6a06c623)."""


@dataclass(frozen=True)
class _Sized:
    service: ServedModel
    model: Model
    sizing: Sizing


@rule(
    901,
    "high",
    "it does not fit",
    "vLLM will not start: the weights, or one request of the longest kind, need more memory than the GPUs have.",
)
def too_large(world: World) -> Iterator[Hit]:
    """Services that the sizing says will not start."""
    for each in _sized(world):
        if not each.sizing.starts:
            message = f"{each.service.name} on {_cards(each)}: {each.sizing.reasons[0]}"
            longest = int(each.sizing.kv.largest.low)
            fix = f"--max-model-len={longest}" if longest > 0 else "more GPUs, or a smaller quantisation"
            yield _at(each, "max-model-len", message, fix)


@rule(
    902,
    "high",
    "a context longer than the model's own",
    "vLLM refuses it: positions that the model never saw give nonsense.",
)
def beyond_model(world: World) -> Iterator[Hit]:
    """max-model-len beside the model's positions."""
    for service, model in _models(world):
        argument = service.argument("max-model-len")
        longest = model.shape.max_positions
        if argument and argument.value.isdigit() and longest and int(argument.value) > longest:
            message = f"{int(argument.value):,} tokens; the model of {service.name} has {longest:,} positions"
            yield Hit(argument.manifest, argument.path, message, f"--max-model-len={longest}")


@rule(
    903,
    "low",
    "a context cut for nothing",
    "Agents and retrieval need the room: the GPUs would hold far longer requests than are allowed.",
)
def cut_short(world: World) -> Iterator[Hit]:
    """Short contexts where the low end of the plan holds more."""
    for each in _sized(world):
        argument = each.service.argument("max-model-len")
        longest = int(each.sizing.kv.largest.low)
        allowed = each.sizing.engine.max_model_len
        if argument and each.sizing.verdict == "fits" and allowed < min(longest, _LONG_ENOUGH):
            message = f"{allowed:,} tokens are allowed; {longest:,} fit even at the low end"
            yield Hit(argument.manifest, argument.path, message, f"--max-model-len={min(longest, _LONG_ENOUGH)}")


@rule(
    904,
    "medium",
    "memory limit below the weights",
    "Files that are mapped while they load count: the pod is throttled, or killed before the GPUs have the weights.",
)
def small_limit(world: World) -> Iterator[Hit]:
    """Memory limits beside the size of the weights."""
    for service, model in _models(world):
        path = (*service.container.path, "resources", "limits", "memory")
        try:
            limit = parse_bytes(text(service.manifest.get(*path)))
        except UsageError:
            continue
        if limit < model.stored_bytes:
            message = f"{format_binary(limit)}; the weights of {service.name} are {format_binary(model.stored_bytes)}"
            yield Hit(service.manifest, path, message, "a limit above the weights")


@rule(
    905,
    "high",
    "a quantisation that the checkpoint contradicts",
    "The checkpoint says how it is quantised: another --quantization conflicts with it, and vLLM refuses to start.",
)
def other_quantization(world: World) -> Iterator[Hit]:
    """--quantization beside a checkpoint that is quantised already."""
    for service, model in _models(world):
        argument = service.argument("quantization")
        method = model.shape.quantization.method if model.shape.quantization else None
        if argument and method and argument.value.replace("-", "_") != method.replace("-", "_"):
            message = f"--quantization={argument.value}; the checkpoint of {service.name} is {method}"
            yield Hit(argument.manifest, argument.path, message, "remove it: vLLM reads it from config.json")


@rule(
    906,
    "high",
    "a model image that the node's disk does not hold",
    "An image needs its layers and their unpacked files at once: no space left on device, and the node evicts others.",
)
def large_image(world: World) -> Iterator[Hit]:
    """Weights from an image beside the disk of the MachineSet whose nodes the service selects."""
    for service, model in _models(world):
        path, uri = service.weights
        disk = _disk(world, service)
        if not uri.startswith("oci://") or disk is None:
            continue
        advice = advise(model.stored_bytes, disk)
        if advice.kind == "s3":
            yield Hit(service.manifest, path, f"{service.name}: {advice.reason}", "a larger disk, or weights on S3")


def _disk(world: World, service: ServedModel) -> int | None:
    """Bytes of the nodes' disk, where a MachineSet of the service's instance type says it."""
    wanted = {text(labels.get(_INSTANCE)) for labels in _labels(world, service)} - {""}
    for machines in world.of_kind("MachineSet"):
        provider = ("spec", "template", "spec", "providerSpec", "value")
        if text(machines.get(*provider, "instanceType")) in wanted:
            gibibytes = machines.get(*provider, "blockDevices", 0, "ebs", "volumeSize")
            return gibibytes * GIB if isinstance(gibibytes, int) else None
    return None


def _models(world: World) -> Iterator[tuple[ServedModel, Model]]:
    for service in world.served:
        model = world.models.get(service.name)
        if model is not None:
            yield service, model


def _sized(world: World) -> Iterator[_Sized]:
    for service, model in _models(world):
        gpu, flags = _card(world, service), _flags(world, service)
        if gpu is None or flags is None:
            continue
        try:
            yield _Sized(service, model, size(model, gpu, flags, gpus=service.gpus()))
        except UsageError:
            continue  # what cannot be planned is not guessed


def _flags(world: World, service: ServedModel) -> EngineFlags | None:
    said = served_flags(service)

    def count(flag: str) -> int | None:
        return int(said[flag]) if said.get(flag, "").isdigit() else None

    try:
        share = float(said["gpu-memory-utilization"]) if "gpu-memory-utilization" in said else None
    except ValueError:
        return None
    return EngineFlags(
        vllm=world.vllm,
        tensor_parallel=service.tensor_parallel,
        max_model_len=count("max-model-len"),
        gpu_memory_utilization=share,
        max_num_batched_tokens=count("max-num-batched-tokens"),
        max_num_seqs=count("max-num-seqs"),
        kv_cache_dtype=said.get("kv-cache-dtype", "auto"),
        dtype=said.get("dtype", "auto"),
        enforce_eager="enforce-eager" in said,
        expert_parallel="enable-expert-parallel" in said,
        block_size=count("block-size"),
    )


def _card(world: World, service: ServedModel) -> Gpu | None:
    """The card that a service lands on, by whatever places it."""
    for labels in _labels(world, service):
        if _PRODUCT in labels:
            try:
                return find_gpu(text(labels[_PRODUCT]))
            except UsageError:
                return None
        machine = find_instance(text(labels.get(_INSTANCE)))
        if machine is not None:
            return find_gpu(machine.gpu)
    return None


def _labels(world: World, service: ServedModel) -> Iterator[dict[str, object]]:
    yield dict(mapping(service.manifest.get(*service.pod, "nodeSelector")))
    required = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    for term in items(service.manifest.get(*service.pod, *required)):
        expressions = [mapping(each) for each in items(mapping(term).get("matchExpressions"))]
        yield {text(each.get("key")): value for each in expressions for value in items(each.get("values"))[:1]}
    name = text(service.manifest.annotations.get(PROFILE_NAME))
    for profile in world.of_kind("HardwareProfile"):
        if profile.name == name:
            yield dict(mapping(profile.get("spec", "scheduling", "node", "nodeSelector")))
    for flavor in world.of_kind("ResourceFlavor"):
        if flavor.name == name:
            yield dict(mapping(flavor.get("spec", "nodeLabels")))


def _cards(each: _Sized) -> str:
    return f"{each.service.tensor_parallel} x {each.sizing.gpu.name}"


def _at(each: _Sized, flag: str, message: str, fix: str) -> Hit:
    argument = each.service.argument(flag)
    if argument:
        return Hit(argument.manifest, argument.path, message, fix)
    return Hit(each.service.manifest, each.service.container.path, message, fix, of_key=True)


RULES = (too_large, beyond_model, cut_short, small_limit, other_quantization, large_image)

"""What one field of a stack says about another: names that must exist, counts that must agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from modelberth.base.text import did_you_mean, names_secret
from modelberth.base.yamlio import Path
from modelberth.catalog import platforms
from modelberth.spec.addresses import S3Address, parse_weights
from modelberth.spec.cluster import Pool
from modelberth.spec.fields import MAX_SERVICE_NAME
from modelberth.spec.services import service_name
from modelberth.spec.stack import Model, Stack, Variant

# Flags that a field of the spec sets, and the field.
OWNED_FLAGS = {
    "model": "weights",
    "served-model-name": "servedName",
    "tensor-parallel-size": "tensorParallelSize",
    "max-model-len": "maxModelLen",
    "gpu-memory-utilization": "gpuMemoryUtilization",
    "dtype": "dtype",
    "kv-cache-dtype": "kvCacheDtype",
    "quantization": "quantization",
    "port": "the serving runtime",
    "host": "the serving runtime",
    "data-parallel-size": "dataParallelSize",
}
# vLLM's own preset of an LLMInferenceService passes the name through a shell, unquoted.
_SHELL_SAFE = re.compile(r"[A-Za-z0-9._/:@+-]+")


@dataclass(frozen=True)
class Mismatch:
    """Two places of a stack that do not agree: where it shows, what it is, what to write."""

    path: Path
    message: str
    suggestion: str = ""
    of_key: bool = False


def mismatches(stack: Stack) -> tuple[Mismatch, ...]:
    """Everything in a valid stack that refers to something which is not there, or twice."""
    return tuple(_all(stack))


def _all(stack: Stack) -> Iterator[Mismatch]:
    yield from _platform(stack)
    yield from _openshift_ai_only(stack)
    yield from _pools(stack)
    yield from _credentials(stack)
    yield from _unique([pool.name for pool in stack.pools], ("pools",), "pool")
    yield from _unique([model.name for model in stack.models], ("models",), "model")
    owners: dict[str, str] = {}
    for model_index, model in enumerate(stack.models):
        path: Path = ("models", model_index, "variants")
        yield from _unique([variant.name for variant in model.variants], path, "variant")
        for index, variant in enumerate(model.variants):
            yield from _variant(stack, variant, (*path, index))
            yield from _kind(stack, model, variant, (*path, index))
            yield from _service_name(model, variant, (*path, index), owners)


def _platform(stack: Stack) -> Iterator[Mismatch]:
    known = platforms.versions(stack.platform.kind)
    if stack.platform.version not in known:
        title = platforms.title(stack.platform.kind)
        message = f"{title} {stack.platform.version} is not known to this release"
        yield Mismatch(("platform", "version"), message, f"known: {', '.join(known)}")


def _openshift_ai_only(stack: Stack) -> Iterator[Mismatch]:
    """What only OpenShift AI has, in a stack for another platform."""
    if stack.platform.kind == "rhoai":
        return
    title = platforms.title(stack.platform.kind)
    for field in ("route", "auth"):
        if getattr(stack.access, field):
            yield Mismatch(("access", field), f"{title} has no switch for it", "remove it; it is for kind: rhoai")
    for index, pool in enumerate(stack.pools):
        if pool.hardware_profile:
            message = f"{title} has no hardware profiles"
            yield Mismatch(("pools", index, "hardwareProfile"), message, "remove it; nodeLabels places the services")


def _pools(stack: Stack) -> Iterator[Mismatch]:
    owners: dict[str, str] = {}
    for index, pool in enumerate(stack.pools):
        path: Path = ("pools", index)
        if pool.machine_set and not pool.instance_type:
            yield Mismatch((*path, "machineSet"), "a MachineSet needs instanceType", "add instanceType: g6.4xlarge")
        if not pool.hardware_profile:
            continue
        name = pool.hardware_profile.name
        if name in owners:
            message = f"the hardware profile '{name}' is that of pool '{owners[name]}' too"
            yield Mismatch((*path, "hardwareProfile", "name"), message, "one profile describes one kind of node")
        owners.setdefault(name, pool.name)


def _credentials(stack: Stack) -> Iterator[Mismatch]:
    store = stack.storage.s3
    if store and store.credentials.external_secret and not store.credentials.secret:
        path: Path = ("storage", "s3", "credentials", "externalSecret")
        yield Mismatch(path, "an external secret needs the name of the Secret it becomes", "add secret: NAME beside it")


def _kind(stack: Stack, model: Model, variant: Variant, path: Path) -> Iterator[Mismatch]:
    """What the kind of a model allows its variants, and the platform knows."""
    if model.kind == "InferenceService":
        wrong = [("dataParallelSize", variant.data_parallel_size > 1), ("prefill", variant.prefill is not None)]
        for field, given in wrong:
            if given:
                yield Mismatch((*path, field), "an InferenceService has none", "set kind: LLMInferenceService")
        return
    version = stack.platform.version
    if version in platforms.versions(stack.platform.kind):
        facts = platforms.platform(stack.platform.kind, version)
        if facts.llm_api is None:
            message = f"{facts.title} {version} has no LLMInferenceService"
            yield Mismatch((*path[:-2], "kind"), message, "remove kind, or name a later version")
    name = variant.served_name
    if name and not _SHELL_SAFE.fullmatch(name):
        message = "the preset of an LLMInferenceService passes the name through a shell"
        yield Mismatch((*path, "servedName"), message, "letters, digits and ._/:@+- only")


def _unique(names: list[str], path: Path, noun: str) -> Iterator[Mismatch]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Mismatch((*path, index, "name"), f"a second {noun} named '{name}'", "names are unique")
        seen.add(name)


def _service_name(model: Model, variant: Variant, path: Path, owners: dict[str, str]) -> Iterator[Mismatch]:
    name = service_name(model, variant)
    where = (*path, "service") if variant.service else (*path, "name")
    if len(name) > MAX_SERVICE_NAME:
        yield Mismatch(
            where,
            f"the service name '{name}' has {len(name)} characters; at most {MAX_SERVICE_NAME}",
            "set service:",
        )
    if name[0].isdigit():
        yield Mismatch(
            where,
            f"the service name '{name}' starts with a digit; Kubernetes services start with a letter",
            "set service:",
        )
    if name in owners:
        yield Mismatch(where, f"the service name '{name}' is that of {owners[name]} too", "set service:")
    owners.setdefault(name, f"{model.name}/{variant.name}")


def _variant(stack: Stack, variant: Variant, path: Path) -> Iterator[Mismatch]:
    pools = {pool.name: pool for pool in stack.pools}
    pool = pools.get(variant.pool)
    if pool is None:
        yield Mismatch((*path, "pool"), f"no pool is named '{variant.pool}'", did_you_mean(variant.pool, pools))
    else:
        yield from _gpus(variant, pool, path)
    yield from _storage(stack, variant, path)
    yield from _flags(variant, path)


def _gpus(variant: Variant, pool: Pool, path: Path) -> Iterator[Mismatch]:
    there = pool.count * pool.nodes
    ranks = variant.tensor_parallel_size * variant.data_parallel_size
    if variant.tensor_parallel_size > there:
        message = (
            f"tensorParallelSize {variant.tensor_parallel_size} needs as many GPUs; pool '{pool.name}' has {there}"
        )
        yield Mismatch((*path, "tensorParallelSize"), message, f"at most {there}, or a larger pool")
    elif ranks > there:
        message = f"{ranks} GPUs are needed for it; pool '{pool.name}' has {there}"
        yield Mismatch((*path, "dataParallelSize"), message, f"at most {there // variant.tensor_parallel_size}")
    elif variant.data_parallel_size > 1 and variant.tensor_parallel_size > pool.count:
        message = f"each copy has its GPUs in one node; a node of pool '{pool.name}' has {pool.count}"
        yield Mismatch((*path, "tensorParallelSize"), message, f"at most {pool.count}")
    if variant.prefill and variant.prefill.tensor_parallel_size > pool.count:
        message = f"a node of pool '{pool.name}' has {pool.count} GPUs"
        yield Mismatch((*path, "prefill", "tensorParallelSize"), message, f"at most {pool.count}")


def _storage(stack: Stack, variant: Variant, path: Path) -> Iterator[Mismatch]:
    weights = parse_weights(variant.weights)
    if not isinstance(weights, S3Address):
        return
    where = (*path, "weights")
    if stack.storage.s3 is None:
        yield Mismatch(where, "s3:// weights need storage.s3", f"add storage: {{s3: {{bucket: {weights.bucket}}}}}")
    elif stack.storage.s3.bucket != weights.bucket:
        message = f"the bucket '{weights.bucket}' is not storage.s3.bucket, '{stack.storage.s3.bucket}'"
        yield Mismatch(where, message, "the storage credentials are for one bucket")
    if not weights.prefix:
        yield Mismatch(where, "s3:// weights need a prefix below the bucket", f"s3://{weights.bucket}/{variant.name}/")


def _flags(variant: Variant, path: Path) -> Iterator[Mismatch]:
    for flag in variant.engine_args:
        where = (*path, "engineArgs", flag)
        if flag in OWNED_FLAGS:
            yield Mismatch(where, f"--{flag} is set by {OWNED_FLAGS[flag]}", "remove it here", of_key=True)
        if names_secret(flag):
            yield Mismatch(
                where,
                f"--{flag} would put a secret into manifests and logs",
                "remove it; use a Secret on the cluster",
                of_key=True,
            )

"""The LLMInferenceService: one variant, as llm-d serves it through KServe, on one node or several.

KServe's presets bring image, command, port and probes; the service adds what is its own. What vLLM is started with goes
through the variable VLLM_ADDITIONAL_ARGS, which the presets hand to a shell's `eval`
(kserve config/llmisvcconfig/config-llm-template.yaml): every word is quoted for that shell.
"""

from __future__ import annotations

import shlex
from typing import Any

from modelberth.catalog.platforms import Platform
from modelberth.manifests.engine_args import Argument, engine_arguments, texts
from modelberth.manifests.literal import variable
from modelberth.manifests.objects import Manifest, given
from modelberth.manifests.placement import pod_placement
from modelberth.manifests.probes import startup_times
from modelberth.manifests.resources import Asked, asked
from modelberth.manifests.service_metadata import service_metadata
from modelberth.manifests.storage import pull_secrets, storage_service_account
from modelberth.spec.addresses import S3Address
from modelberth.spec.services import Service
from modelberth.spec.stack import Prefill, Stack

CONTAINER = "main"
"""The container's name in KServe's presets and for the hardware profile's webhook."""
PORT = 8000
_SHM = "dshm"  # the presets' own volume at /dev/shm, of 1Gi
# What the presets give themselves, from the object's own fields.
_PRESET_FLAGS = frozenset({"served-model-name"})
_PARALLEL_FLAGS = frozenset({"tensor-parallel-size"})
# The connector of KServe's own samples (docs/samples/llmisvc, single-node-gpu): NIXL, either pod in either part.
_KV_TRANSFER = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'


def llm_inference_service(stack: Stack, platform: Platform, service: Service) -> Manifest:
    """The LLMInferenceService of a service."""
    variant = service.variant
    local = copies_in_a_node(service)
    several = variant.data_parallel_size > local
    pod = _pod(stack, platform, service, local, several=several)
    return {
        "apiVersion": f"serving.kserve.io/{platform.llm_api}",
        "kind": "LLMInferenceService",
        "metadata": service_metadata(stack, platform, service, {}),
        "spec": given(
            model={"uri": str(service.weights), "name": service.served_name},
            replicas=max(1, variant.replicas),
            parallelism=_parallelism(service, local) if several else None,
            # Empty objects are not "nothing": each asks for KServe's default of that part.
            router={"route": {}, "gateway": {}, **({"scheduler": {}} if variant.scheduler else {})},
            template=pod,
            worker=_worker(pod) if several else None,
            prefill=_prefill(stack, platform, service, variant.prefill) if variant.prefill else None,
        ),
    }


def copies_in_a_node(service: Service) -> int:
    """Data-parallel copies in each pod: the most that a node has GPUs for and that divide all of them evenly."""
    variant = service.variant
    most = max(1, service.pool.count // variant.tensor_parallel_size)
    return max(n for n in range(1, most + 1) if variant.data_parallel_size % n == 0)


def _parallelism(service: Service, local: int) -> dict[str, Any]:
    variant = service.variant
    return given(
        tensor=variant.tensor_parallel_size,
        data=variant.data_parallel_size,
        dataLocal=local,
        expert=True if variant.engine_args.get("enable-expert-parallel") is True else None,
    )


def _pod(stack: Stack, platform: Platform, service: Service, local: int, *, several: bool) -> dict[str, Any]:
    wanted = asked(stack, service, service.variant.tensor_parallel_size * local)
    left_out = _PRESET_FLAGS | (_PARALLEL_FLAGS | {"enable-expert-parallel"} if several else frozenset())
    arguments = _without(_arguments(service), left_out)
    if local > 1 and not several:
        arguments.append(Argument("data-parallel-size", str(local)))
    return _pod_of(stack, platform, service, wanted, arguments)


def _pod_of(
    stack: Stack, platform: Platform, service: Service, wanted: Asked, arguments: list[Argument]
) -> dict[str, Any]:
    s3 = isinstance(service.weights, S3Address)
    return given(
        serviceAccountName=storage_service_account(stack) if s3 else None,
        imagePullSecrets=pull_secrets(stack, service),
        **pod_placement(stack, service),
        containers=[
            given(
                name=CONTAINER,
                # The presets' image is the platform's; a declared one replaces it.
                image=stack.platform.engine_image,
                env=[variable("VLLM_ADDITIONAL_ARGS", shlex.join(texts(arguments)))] if arguments else None,
                resources=wanted.container_resources(),
                startupProbe=_startup(platform, wanted),
            )
        ],
        volumes=[wanted.shm_volume(_SHM)],
    )


def _startup(platform: Platform, wanted: Asked) -> dict[str, Any]:
    """Where the preset has a startup probe, its times alone; where it has none, one that needs no scheme.

    vLLM listens once the model is loaded, and whether it speaks TLS is the preset's business.
    """
    times = startup_times(wanted.start_seconds)
    return times if platform.llm_startup_probe else {"tcpSocket": {"port": PORT}, **times}


def _worker(pod: dict[str, Any]) -> dict[str, Any]:
    """The pods of the other nodes: as the first, but that they answer no requests."""
    containers = [{key: value for key, value in each.items() if key != "startupProbe"} for each in pod["containers"]]
    return {**pod, "containers": containers}


def _prefill(stack: Stack, platform: Platform, service: Service, prefill: Prefill) -> dict[str, Any]:
    gpus = prefill.tensor_parallel_size
    arguments = _without(_arguments(service), _PRESET_FLAGS | _PARALLEL_FLAGS)
    if gpus > 1:
        arguments.insert(0, Argument("tensor-parallel-size", str(gpus)))
    return {
        "replicas": prefill.replicas,
        "template": _pod_of(stack, platform, service, asked(stack, service, gpus), arguments),
    }


def _arguments(service: Service) -> list[Argument]:
    """The engine's arguments; with prefill apart, what carries the KV cache from one pod to the other."""
    arguments = list(engine_arguments(service).service)
    if service.variant.prefill and all(each.flag != "kv-transfer-config" for each in arguments):
        arguments.append(Argument("kv-transfer-config", _KV_TRANSFER))
    return arguments


def _without(arguments: list[Argument], flags: frozenset[str]) -> list[Argument]:
    return [each for each in arguments if each.flag not in flags]

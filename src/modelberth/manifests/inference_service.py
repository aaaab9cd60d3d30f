"""The InferenceService: one variant, as KServe serves it."""

from __future__ import annotations

from collections.abc import Mapping

from modelberth.base.errors import UsageError
from modelberth.catalog.platforms import Platform
from modelberth.manifests.engine_args import PORT, engine_arguments, texts
from modelberth.manifests.literal import literals
from modelberth.manifests.objects import Manifest, given
from modelberth.manifests.placement import pod_placement
from modelberth.manifests.probes import health, startup_times
from modelberth.manifests.resources import asked
from modelberth.manifests.security import pod_security
from modelberth.manifests.service_metadata import service_metadata
from modelberth.manifests.serving_runtime import MODEL_FORMAT, SHM
from modelberth.manifests.storage import pull_secrets, storage_key
from modelberth.spec.addresses import S3Address
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

# vLLM's own image would run as root; any other user does. KServe gives the user of a ModelCar itself (uidModelcar).
_UPSTREAM_USER = 1000


def inference_service(stack: Stack, platform: Platform, service: Service, spare: Mapping[str, int]) -> Manifest:
    """The InferenceService of a service.

    Args:
        stack: the stack.
        platform: what it is rendered for.
        service: the service, of a model of kind InferenceService.
        spare: GPUs that no service of the stack has, by pool.

    Raises:
        UsageError: it needs more GPUs than a node has.
    """
    gpus = service.variant.tensor_parallel_size
    if gpus > service.pool.count:
        raise UsageError(
            f"service '{service.name}' needs {gpus} GPUs in one node; pool '{service.pool.name}' has "
            f"{service.pool.count} in each", where="tensorParallelSize",
            next_step="name a pool with larger nodes, or kind: LLMInferenceService with dataParallelSize",
        )  # fmt: skip
    wanted = asked(stack, service, gpus)
    replicas = max(1, service.variant.replicas)  # a service that is stopped says so in an annotation
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": service_metadata(
            stack, platform, service, {"serving.kserve.io/deploymentMode": platform.deployment_mode}
        ),
        "spec": {
            "predictor": given(
                # A second pod beside the first would wait for a GPU that the first one holds.
                deploymentStrategy={"type": "Recreate"} if spare[service.pool.name] < gpus else None,
                minReplicas=replicas,
                maxReplicas=replicas,
                imagePullSecrets=pull_secrets(stack, service),
                **pod_placement(stack, service),
                securityContext=_pod_security(platform, service),
                volumes=[wanted.shm_volume(SHM)],
                model={
                    "modelFormat": {"name": MODEL_FORMAT},
                    "runtime": stack.platform.runtime,
                    "storageUri": str(service.weights),
                    **_storage(stack, service),
                    "args": literals(texts(engine_arguments(service).service)),
                    "resources": wanted.container_resources(),
                    "startupProbe": {**health(PORT), **startup_times(wanted.start_seconds)},
                },
            )
        },
    }


def _storage(stack: Stack, service: Service) -> Manifest:
    """The key gives the credentials, the URI bucket and prefix: both together are legal, a path beside them is not."""
    key = storage_key(stack)
    return {"storage": {"key": key}} if key and isinstance(service.weights, S3Address) else {}


def _pod_security(platform: Platform, service: Service) -> Manifest:
    security = pod_security()
    if not platform.is_openshift_ai and isinstance(service.weights, S3Address):
        security |= {"runAsUser": _UPSTREAM_USER, "fsGroup": _UPSTREAM_USER}
    return security

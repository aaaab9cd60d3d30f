"""The ServingRuntime: vLLM's image and what all services of a stack start with."""

from __future__ import annotations

from modelberth.catalog.platforms import Platform
from modelberth.manifests.engine_args import PORT, runtime_arguments, texts
from modelberth.manifests.literal import literals, variable
from modelberth.manifests.objects import WAVE_RUNTIME, Manifest, metadata, wave
from modelberth.manifests.probes import liveness, readiness
from modelberth.manifests.security import container_security
from modelberth.spec.stack import Stack

CONTAINER = "kserve-container"
"""The name that KServe looks for."""
SHM = "shm"
MODEL_FORMAT = "vLLM"

# The image may run under a user id that no passwd file has: what writes below HOME, and what asks for the user's
# name (torch's inductor cache, through getpass), is told where and who. Statistics go to nobody.
_ENVIRONMENT = (
    ("HOME", "/tmp"),  # noqa: S108 - a container's own
    ("HF_HOME", "/tmp/hf_home"),  # noqa: S108
    ("VLLM_CACHE_ROOT", "/tmp/vllm"),  # noqa: S108
    ("USER", "vllm"),
    ("VLLM_NO_USAGE_STATS", "1"),
)


def serving_runtime(stack: Stack, platform: Platform) -> Manifest:
    """The ServingRuntime of a stack."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": metadata(
            stack.platform.runtime, stack.metadata.namespace, stack.metadata.name,
            labels={"opendatahub.io/dashboard": "true"} if platform.is_openshift_ai else {},
            annotations=_shown(platform) if platform.is_openshift_ai else {},
            wave=wave(stack, WAVE_RUNTIME),
        ),
        "spec": {
            "annotations": {
                **({"opendatahub.io/kserve-runtime": "vllm"} if platform.is_openshift_ai else {}),
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": str(PORT),
            },
            "multiModel": False,
            # Named by its services: a model of this format that names none must not land here by chance.
            "supportedModelFormats": [{"name": MODEL_FORMAT, "autoSelect": False}],
            "containers": [_container(platform)],
            "volumes": [{"name": SHM, "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}],
        },
    }  # fmt: skip


def _shown(platform: Platform) -> dict[str, str]:
    return {
        "openshift.io/display-name": f"vLLM {platform.vllm} for NVIDIA GPUs",
        "opendatahub.io/apiProtocol": "REST",
        "opendatahub.io/recommended-accelerators": '["nvidia.com/gpu"]',
        "opendatahub.io/runtime-version": f"v{platform.vllm}",
        "opendatahub.io/serving-runtime-scope": "namespace",
        "opendatahub.io/template-display-name": "vLLM NVIDIA GPU ServingRuntime for KServe",
        "opendatahub.io/template-name": "vllm-cuda-runtime",
    }


def _container(platform: Platform) -> Manifest:
    # vLLM's own image has python3 alone; that of OpenShift AI, whose template says python, has both.
    return {
        "name": CONTAINER,
        "image": platform.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": literals(texts(runtime_arguments())),
        "env": [variable(name, value) for name, value in _ENVIRONMENT],
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "livenessProbe": liveness(PORT),
        "readinessProbe": readiness(PORT),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": SHM, "mountPath": "/dev/shm"}],  # noqa: S108
    }

"""7xx: names and versions, against the platform where it is known."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.scheduling import has
from modelberth.findings.lint.world import World, text
from modelberth.spec.fields import MAX_SERVICE_NAME

_MODE = "serving.kserve.io/deploymentMode"
_OLD_MODES = {"RawDeployment", "Serverless", "ModelMesh"}
_NEW_MODES = {"Standard": "RawDeployment", "Knative": "Serverless"}
# The image of OpenShift AI 3.3 is the first of CUDA 13 (adnan-drina/rhoai3-demo, commit 4fb8f611), whose driver is 580.
_CUDA_13, _CUDA_13_DRIVER = (3, 3), 580
_URL = re.compile(r"https?://([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?(:\d+)?")


@rule(
    701,
    "high",
    "a deployment mode that this version does not know",
    "KServe before 0.16 refuses Standard and Knative; RawDeployment is read by every version.",
)
def unknown_mode(world: World) -> Iterator[Hit]:
    """The annotation of the deployment mode."""
    for each in world.of_kind("InferenceService"):
        mode = text(each.annotations.get(_MODE))
        path = ("metadata", "annotations", _MODE)
        if mode and mode not in _OLD_MODES | set(_NEW_MODES):
            yield Hit(each, path, f"{mode} is no deployment mode", "RawDeployment")
        elif mode in _NEW_MODES and world.platform and world.platform.deployment_mode == "RawDeployment":
            old = _NEW_MODES[mode]
            message = f"{world.platform.title} {world.platform.version} does not know {mode}"
            yield Hit(each, path, message, f"write {old}", replacement=old)


@rule(
    702,
    "medium",
    "Serverless for a model on GPUs",
    "OpenShift AI 3 has no Knative, and elsewhere a revision needs its GPUs twice while it rolls.",
)
def serverless(world: World) -> Iterator[Hit]:
    """Serverless on OpenShift AI 3."""
    for each in world.of_kind("InferenceService"):
        if text(each.annotations.get(_MODE)) in {"Serverless", "Knative"} and world.is_openshift_ai:
            yield Hit(each, ("metadata", "annotations", _MODE), "OpenShift AI 3 serves no Knative", "RawDeployment")


@rule(
    703,
    "high",
    "an LLMInferenceService of a version that is not served",
    "OpenShift AI 3.0 to 3.3 serve v1alpha1 alone; the API server does not know the object.",
)
def llm_version(world: World) -> Iterator[Hit]:
    """ApiVersion of LLMInferenceServices."""
    for each in world.of_kind("LLMInferenceService"):
        version = each.api_version.rpartition("/")[2]
        if world.platform is None or (version == "v1alpha1" and world.platform.llm_api):
            continue
        if version != world.platform.llm_api:
            wanted = world.platform.llm_api
            fix = f"serving.kserve.io/{wanted}" if wanted else "an InferenceService"
            message = f"{world.platform.title} {world.platform.version} does not serve {each.api_version}"
            yield Hit(each, ("apiVersion",), message, fix, replacement=fix if wanted else None)


@rule(
    704,
    "low",
    "a hardware profile of the old version",
    "infrastructure.opendatahub.io/v1alpha1 is deprecated; v1 has the same fields.",
)
def old_profile(world: World) -> Iterator[Hit]:
    """ApiVersion of hardware profiles."""
    for each in world.of_kind("HardwareProfile"):
        if each.api_version == "infrastructure.opendatahub.io/v1alpha1":
            new = "infrastructure.opendatahub.io/v1"
            yield Hit(each, ("apiVersion",), "v1alpha1 is deprecated", f"write {new}", replacement=new)


@rule(
    705,
    "low",
    "a Kueue object of the old version",
    "Kueue 0.15 and later store v1beta2; v1beta1 is deprecated and will go.",
)
def old_kueue(world: World) -> Iterator[Hit]:
    """ApiVersion of Kueue objects where the platform's Kueue is newer."""
    for each in world.of_kind("ClusterQueue", "LocalQueue", "ResourceFlavor"):
        if each.api_version.endswith("/v1beta1") and world.platform and world.platform.kueue_api == "v1beta2":
            yield Hit(each, ("apiVersion",), "v1beta1 is deprecated", "kueue.x-k8s.io/v1beta2")


@rule(
    706,
    "high",
    "a name that is too long for a service",
    "The model controller refuses names of more than 53 characters: it makes longer ones of them.",
)
def long_name(world: World) -> Iterator[Hit]:
    """Names of services."""
    for service in world.served:
        if len(service.name) > MAX_SERVICE_NAME:
            message = f"{len(service.name)} characters; at most {MAX_SERVICE_NAME}"
            yield Hit(service.manifest, ("metadata", "name"), message, "a shorter name")


@rule(
    707,
    "medium",
    "a URL that leads to no service",
    "With plain Deployments the Service is NAME-predictor, and headless: its port is 8080, or 8443 with auth.",
)
def dead_url(world: World) -> Iterator[Hit]:
    """In-cluster URLs of services among the manifests."""
    names = {(each.name, each.namespace) for each in world.of_kind("InferenceService")}
    for each in world.manifests if names else ():
        for path, value in _texts(each.data, ()):
            for name, namespace, port in _URL.findall(value):
                service = name.removesuffix("-predictor")
                # Upstream's Service takes port 80; that of OpenShift AI has no address of its own to map ports.
                bare = name != service and not port and world.is_openshift_ai
                if (name, namespace) in names or (bare and (service, namespace) in names):
                    right = f"http://{service}-predictor.{namespace}.svc:8080"
                    yield Hit(each, path, f"{name}.{namespace}.svc{port} does not answer", f"write {right}")


def _texts(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _texts(child, (*path, index))


@rule(
    708,
    "low",
    "the runtime says another vLLM than the platform has",
    "The dashboard calls it outdated, and whoever reads the annotation plans for the wrong release.",
)
def runtime_version(world: World) -> Iterator[Hit]:
    """The runtime-version annotation."""
    for each in world.of_kind("ServingRuntime"):
        said = text(each.annotations.get("opendatahub.io/runtime-version"))
        if not said or world.platform is None or not world.is_openshift_ai:
            continue
        if said.lstrip("v").split(".")[:3] != world.platform.vllm.split(".")[:3]:
            message = f"{said}; {world.platform.title} {world.platform.version} ships vLLM {world.platform.vllm}"
            path = ("metadata", "annotations", "opendatahub.io/runtime-version")
            yield Hit(each, path, message, f"v{world.platform.vllm}, with the image of that release")


@rule(
    709,
    "high",
    "a runtime that is not there",
    "The service names a ServingRuntime that its namespace does not have.",
)
def no_runtime(world: World) -> Iterator[Hit]:
    """Runtimes named by services, where the manifests have any."""
    known = {(each.namespace, each.name) for each in world.of_kind("ServingRuntime")}
    cluster = {each.name for each in world.of_kind("ClusterServingRuntime")}
    for service in world.served if known else ():
        path = (*service.container.path, "runtime")
        name = text(service.manifest.get(*path))
        if name and not has(known, service.manifest.namespace, name) and name not in cluster:
            there = ", ".join(sorted(f"{namespace}/{one}" for namespace, one in known))
            yield Hit(service.manifest, path, f"no ServingRuntime {name} there", f"there is: {there}")


@rule(
    710,
    "high",
    "a GPU driver that the engine's image does not fit",
    "CUDA's error 803 at every start: an image of CUDA 13 needs driver 580 or later, one of CUDA 12 may refuse that.",
)
def driver(world: World) -> Iterator[Hit]:
    """The pinned driver of the GPU operator beside the CUDA of the platform's image."""
    for policy in world.of_kind("ClusterPolicy"):
        pinned = text(policy.get("spec", "driver", "version")).split(".")[0]
        if world.platform is None or not world.is_openshift_ai or not pinned.isdigit():
            continue
        title = f"{world.platform.title} {world.platform.version}"
        needs_13 = tuple(int(part) for part in world.platform.version.split(".")) >= _CUDA_13
        if needs_13 and int(pinned) < _CUDA_13_DRIVER:
            message = f"driver {pinned}; the image of {title} is CUDA 13"
            yield Hit(policy, ("spec", "driver", "version"), message, "remove the pin, or pin 580 or later")
        elif world.platform.version == "3.0" and int(pinned) >= _CUDA_13_DRIVER:
            message = f"driver {pinned}; the image of {title} is CUDA 12 (Red Hat KB 7134740)"
            yield Hit(policy, ("spec", "driver", "version"), message, "pin 570.195.03")


@rule(
    711,
    "high",
    "a word of Kueue's old version",
    "v1beta2 knows Borrow and Preempt no more: the API server refuses the ClusterQueue.",
)
def old_fungibility(world: World) -> Iterator[Hit]:
    """FlavorFungibility of ClusterQueues."""
    for queue in world.of_kind("ClusterQueue"):
        for key, old in (("whenCanBorrow", "Borrow"), ("whenCanPreempt", "Preempt")):
            path = ("spec", "flavorFungibility", key)
            if queue.api_version.endswith("/v1beta2") and queue.get(*path) == old:
                yield Hit(queue, path, f"{key}: {old}", "write MayStopSearch", replacement="MayStopSearch")


RULES = (
    unknown_mode, serverless, llm_version, old_profile, old_kueue, long_name, dead_url, runtime_version, no_runtime,
    driver, old_fungibility,
)  # fmt: skip

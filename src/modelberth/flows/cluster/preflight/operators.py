"""Who serves and drives: KServe, OpenShift AI's operator, the GPU operator, each with its own version.

Names: KServe's Deployment `kserve-controller-manager` (kserve, config/manager), OpenShift AI's
ClusterServiceVersion `rhods-operator.VERSION`, NVIDIA's ClusterPolicy and `gpu-operator-certified.vVERSION`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelberth.adapters.kubernetes_api import Document, Kind, Ref
from modelberth.adapters.kubernetes_api.kinds import INFERENCE_SERVICES
from modelberth.base.errors import AuthError, PrerequisiteMissing
from modelberth.base.text import printable
from modelberth.catalog.platforms import platform
from modelberth.flows.cluster.preflight.checked import Checked, Wanted, failed

_DEPLOYMENTS = Kind("apps/v1", "Deployment")
_POLICIES = Kind("nvidia.com/v1", "ClusterPolicy")
_CONTROLLER = "kserve-controller-manager"
_CONTROLLER_NAMESPACES = ("kserve", "redhat-ods-applications", "opendatahub")
_VERSION = re.compile(r"v?(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)")
_GPU_OPERATOR = re.compile(r"gpu-operator(?:-certified)?\.v?(?P<version>[\w.+-]{1,40})")


def kserve(wanted: Wanted) -> Iterator[Checked]:
    """KServe: whether it is there, the versions of its API, and its own."""
    if not wanted.cluster.serves(INFERENCE_SERVICES):
        fix = "install KServe, or OpenShift AI's operator"
        yield failed("KServe", "the cluster has no InferenceServices", fix, PrerequisiteMissing)
        return
    there = _kserve_version(wanted)
    served = f"serving.kserve.io: {', '.join(wanted.cluster.versions('serving.kserve.io'))}"
    declared = wanted.stack.platform if wanted.stack else None
    if not there or declared is None:
        yield Checked("KServe", "ok", f"{there}, {served}" if there else served)
        return
    expected = platform(declared.kind, declared.version).kserve
    if _minor(there) == _minor(expected):
        yield Checked("KServe", "ok", f"{there}, {served}")
    else:
        text = f"{there} is there, and {declared.kind} {declared.version} is rendered for {expected}; {served}"
        yield Checked("KServe", "warning", text, "platform: {kind: ..., version: ...} of what is there")


def _kserve_version(wanted: Wanted) -> str:
    """The version of the controller that runs; empty where nothing says it, or it may not be seen."""
    own = [wanted.stack.platform.applications_namespace] if wanted.stack else []
    for namespace in dict.fromkeys([*own, *_CONTROLLER_NAMESPACES]):
        try:
            found = wanted.cluster.get(Ref(_DEPLOYMENTS, _CONTROLLER, namespace))
        except AuthError:
            continue
        if found is not None:
            return _version_of(found)
    return ""


def _version_of(deployment: Document) -> str:
    labels = deployment["metadata"].get("labels") or {}
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    images = [str(each.get("image", "")) for each in pod.get("containers") or []]
    tags = [image.rpartition(":")[2] for image in images if "@" not in image and "kserve-controller" in image]
    for text in (str(labels.get("app.kubernetes.io/version", "")), *tags):
        if match := _VERSION.fullmatch(text):
            return match[1]
    return ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def openshift_ai(wanted: Wanted) -> Iterator[Checked]:
    """OpenShift AI's own version beside the one that the stack is rendered for."""
    declared = wanted.stack.platform if wanted.stack else None
    if declared is None or declared.kind != "rhoai":
        return
    for name in wanted.operators:
        if name.startswith("rhods-operator."):
            there = name.removeprefix("rhods-operator.").lstrip("v")
            if _minor(there) == declared.version:
                yield Checked("platform", "ok", f"OpenShift AI {there}")
            else:
                text = f"OpenShift AI {there} is there, and the stack is for {declared.version}"
                yield Checked("platform", "warning", text, f'platform: {{version: "{_minor(there)}"}}')
            return


def gpu_operator(wanted: Wanted) -> Iterator[Checked]:
    """NVIDIA's operator: its version, and whether its policy has come true on the nodes."""
    if not wanted.cluster.serves(_POLICIES):
        return
    versions = [match["version"] for name in wanted.operators if (match := _GPU_OPERATOR.fullmatch(name))]
    operator = f"version {versions[0]}, " if versions else ""
    policies = wanted.cluster.list(_POLICIES).items
    if not policies:
        yield Checked("GPU operator", "warning", f"{operator}no ClusterPolicy", "create one: nothing drives the cards")
    for each in policies:
        name, status = each["metadata"]["name"], each.get("status") or {}
        state = printable(str(status.get("state") or "unknown"))
        text = f"{operator}ClusterPolicy {name}: {state}"
        if state == "ready":
            yield Checked("GPU operator", "ok", text)
        else:
            why = next((str(condition.get("message") or "") for condition in status.get("conditions") or []
                        if condition.get("type") == "Error" and condition.get("status") == "True"), "")  # fmt: skip
            text += f": {printable(why)}" if why else ""
            fix = f"oc describe clusterpolicy {name}; drivers are installed on new nodes for some minutes"
            yield Checked("GPU operator", "warning", text, fix)

"""Labels and annotations of a service: what dashboard, queue, hardware profile and access are told by."""

from __future__ import annotations

from typing import Any

from modelberth.catalog.platforms import Platform
from modelberth.manifests.objects import WAVE_INFERENCE, metadata, wave
from modelberth.manifests.placement import placement_annotations, placement_labels
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

STOP = "serving.kserve.io/stop"


def service_metadata(stack: Stack, platform: Platform, service: Service, annotations: dict[str, str]) -> dict[str, Any]:
    """The metadata of an InferenceService or LLMInferenceService.

    Args:
        stack: the stack.
        platform: what it is rendered for.
        service: the service.
        annotations: those of its kind alone.
    """
    labels = {**_dashboard_label(platform), **placement_labels(stack)}
    if stack.access.route:
        labels["networking.kserve.io/visibility"] = "exposed"
    notes = {**placement_annotations(stack, service), **_shown(platform, service), **annotations}
    if stack.access.auth:
        notes["security.opendatahub.io/enable-auth"] = "true"
    if not service.variant.replicas:
        # With plain Deployments, minReplicas 0 still starts one pod, which takes the GPU (kserve 0.15).
        notes[STOP] = "true"
    return metadata(
        service.name, stack.metadata.namespace, stack.metadata.name,
        labels=labels, annotations=notes, wave=wave(stack, WAVE_INFERENCE),
    )  # fmt: skip


def _dashboard_label(platform: Platform) -> dict[str, str]:
    return {"opendatahub.io/dashboard": "true"} if platform.is_openshift_ai else {}


def _shown(platform: Platform, service: Service) -> dict[str, str]:
    """What the dashboard shows."""
    if not platform.is_openshift_ai:
        return {}
    shown = {
        "openshift.io/display-name": service.variant.display_name or service.name,
        "opendatahub.io/model-type": "generative",
    }
    if service.model.description:
        shown["openshift.io/description"] = service.model.description
    return shown

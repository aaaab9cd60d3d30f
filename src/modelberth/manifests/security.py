"""Pod security: what the standard "restricted" of Kubernetes asks, which OpenShift's restricted-v2 asks too."""

from __future__ import annotations

from typing import Any


def container_security(*, read_only_root: bool = False) -> dict[str, Any]:
    """`securityContext` of a container. No user id: OpenShift gives each namespace its own."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        **({"readOnlyRootFilesystem": True} if read_only_root else {}),
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_security() -> dict[str, Any]:
    """`securityContext` of a pod."""
    return {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}

"""The Argo CD Application that keeps the cluster as the tree says.

It has no finalizer: who deletes the Application keeps the services, and weights are never in it.
"""

from __future__ import annotations

from modelberth.manifests.objects import Manifest, metadata
from modelberth.spec.cluster import ArgoCd
from modelberth.spec.stack import Stack

_SERVER = "https://kubernetes.default.svc"


def application(stack: Stack, wanted: ArgoCd, base: str) -> Manifest:
    """The Application.

    Args:
        stack: the stack.
        wanted: its `argoCd`.
        base: folder of the tree that is synced, from where the tree is written to.
    """
    automated = {"automated": {"prune": True, "selfHeal": True}} if wanted.automated else {}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": metadata(stack.metadata.name, wanted.namespace, stack.metadata.name),
        "spec": {
            "project": wanted.project,
            "source": {
                "repoURL": wanted.repository,
                "targetRevision": wanted.revision,
                "path": f"{wanted.path}/{base}" if wanted.path else base,
            },
            "destination": {"server": _SERVER, "namespace": stack.metadata.namespace},
            "syncPolicy": {
                **automated,
                # Server-side: the API server says which field somebody else owns, instead of overwriting it.
                "syncOptions": ["ServerSideApply=true", "RespectIgnoreDifferences=true"],
                "retry": {"limit": 5, "backoff": {"duration": "30s", "factor": 2, "maxDuration": "10m"}},
            },
            "ignoreDifferences": _ignored(stack),
        },
    }


def _ignored(stack: Stack) -> list[Manifest]:
    """Fields that somebody else writes on purpose."""
    ignored: list[Manifest] = []
    if any(pool.machine_set for pool in stack.pools):
        # Scaled by hand, by `berth deploy --scale-machinesets` or by the autoscaler.
        ignored.append({
            "group": "machine.openshift.io", "kind": "MachineSet", "jsonPointers": ["/spec/replicas"],
        })  # fmt: skip
    if stack.platform.kind == "rhoai" and any(pool.hardware_profile for pool in stack.pools):
        # Written by the webhook of hardware profiles.
        ignored += [
            {
                "group": "serving.kserve.io", "kind": "InferenceService",
                "jsonPointers": ["/spec/predictor/nodeSelector", "/spec/predictor/tolerations"],
            },
            {
                "group": "serving.kserve.io", "kind": "LLMInferenceService",
                "jsonPointers": ["/spec/template/nodeSelector", "/spec/template/tolerations"],
            },
        ]  # fmt: skip
    return ignored

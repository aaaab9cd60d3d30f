"""The Argo CD Application that keeps the cluster as the tree says.

It has no finalizer: who deletes it, by mistake too, keeps services, queue and nodes. Weights are never in it.
"""

from __future__ import annotations

from modelberth.manifests.machine_sets import SIZE_ANNOTATIONS
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
        "metadata": metadata(
            stack.metadata.name,
            wanted.namespace,
            stack.metadata.name,
            # Compared as the API server would apply it: defaults of a CRD and what webhooks add are no difference.
            annotations={"argocd.argoproj.io/compare-options": "ServerSideDiff=true"},
        ),
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
                # Server-side: fields that the tree does not name stay who wrote them. No PruneLast: a service that
                # waits for the GPU of one to be removed would never become healthy, and nothing would be removed.
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
        # Replicas: scaled by hand, by `berth deploy --scale-machinesets` or by the autoscaler. Annotations: the
        # provider's controller writes what it knows of the instance type.
        ignored.append({
            "group": "machine.openshift.io", "kind": "MachineSet",
            "jsonPointers": ["/spec/replicas", *(_pointer(each) for each in SIZE_ANNOTATIONS)],
        })  # fmt: skip
    if stack.platform.kind == "rhoai" and any(pool.hardware_profile for pool in stack.pools):
        # Written by the webhook of hardware profiles. (Kueue writes to pods and suspended Jobs, and the tree's one Job
        # is a hook, which is never compared.)
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


def _pointer(annotation: str) -> str:
    # RFC 6901: a slash within a name is ~1.
    return f"/metadata/annotations/{annotation.replace('/', '~1')}"

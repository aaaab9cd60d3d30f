"""What the stack's Jobs have in common: berth's own image, restricted, with a name that follows from its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelberth.manifests.literal import kubelet_literal
from modelberth.manifests.objects import Manifest, given
from modelberth.manifests.security import container_security, pod_security

_NAME_LENGTH = 63
_HASH_LENGTH = 8
# Exit codes of berth that another try does not change: usage, a missing prerequisite, permission, a conflict,
# integrity, no room.
_FINAL_CODES = (2, 3, 4, 5, 7, 8)
_DAY = 24 * 3600


@dataclass(frozen=True)
class Work:
    """What one Job does.

    Attributes:
        arguments: of berth.
        image: of berth.
        environment: plain variables.
        references: variables from Secrets: name -> (Secret, key, whether it may be missing).
        volumes: name -> (volume source, where it is mounted).
        requests: resources it is given for sure.
        limits: resources it may take.
        deadline: seconds after which it is given up.
        group: of its volumes, which the pod may write to; None where the platform sets one itself.
    """

    arguments: Sequence[str]
    image: str
    environment: Mapping[str, str]
    references: Mapping[str, tuple[str, str, bool]]
    volumes: Mapping[str, tuple[dict[str, Any], str]]
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    deadline: int = 7 * _DAY
    group: int | None = None


def job(work: Work, metadata: Manifest) -> Manifest:
    """The Job; its name gets a hash of what it does, because a Job's template cannot be changed.

    No queue: on a GPU's queue an upload would take quota that a service waits for.
    """
    spec = {
        "backoffLimit": 6,
        "activeDeadlineSeconds": work.deadline,
        "ttlSecondsAfterFinished": _DAY,
        "podFailurePolicy": {
            "rules": [
                # An evicted pod is no failure of ours; what another try cannot mend ends the Job at once.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "berth", "operator": "In", "values": list(_FINAL_CODES)},
                },
            ]
        },
        "template": {"metadata": {"labels": dict(metadata["labels"])}, "spec": _pod(work)},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "name": hashed_name(metadata["name"], spec)},
        "spec": spec,
    }


def hashed_name(name: str, content: Any) -> str:
    """A name that changes with the content, short enough for a Job and its pods' label."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[: _NAME_LENGTH - _HASH_LENGTH - 1].rstrip('-.')}-{digest}"


def _pod(work: Work) -> Manifest:
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the container's own
    mounts += [{"name": name, "mountPath": path} for name, (_, path) in work.volumes.items()]
    volumes = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    volumes += [{"name": name, **source} for name, (source, _) in work.volumes.items()]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**pod_security(), **given(fsGroup=work.group)},
        "containers": [{
            "name": "berth",
            "image": work.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["berth"],
            "args": [kubelet_literal(each) for each in work.arguments],
            "env": _environment(work),
            "resources": {"requests": dict(work.requests), "limits": dict(work.limits)},
            "securityContext": container_security(read_only_root=True),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    }  # fmt: skip


def _environment(work: Work) -> list[dict[str, Any]]:
    plain = {"HOME": "/tmp", **work.environment}  # noqa: S108 - the container's own
    variables: list[dict[str, Any]] = [{"name": name, "value": kubelet_literal(value)} for name, value in plain.items()]
    for name, (secret, key, optional) in work.references.items():
        reference = {"name": secret, "key": key, **({"optional": True} if optional else {})}
        variables.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return variables

"""KServe's ClusterStorageContainer that fetches `s3://` models with `berth fetch`, every byte checked.

KServe's webhook merges this container over its own `storage-initializer` (`pkg/utils/container_merge.go`): it
brings the arguments (source and /mnt/models, the image's entrypoint is `berth fetch`), the model's volume, the
credentials and a private CA; image, resources and security are from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.spec.addresses import OciAddress, parse_weights

API_VERSION = "serving.kserve.io/v1alpha1"
KIND = "ClusterStorageContainer"
CONTAINER = "storage-initializer"
"""The name that KServe looks for: for Istio's user id, and so as not to inject a second one."""
PREFIX = "s3://"
DEFAULT_NAME = "modelberth-s3"

# A DNS subdomain, as the names of most objects: at most 253 characters (Kubernetes, "Object Names and IDs").
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_NAME_LENGTH = 253

# Memory: the client stays below 64 MB for a file of any size, interpreter and libraries included; the
# limit leaves room for the pages that wait to be written. KServe's own: 100Mi to 1Gi, on OpenShift AI to 24Gi.
# CPU: sha256 does 1.6 GiB a core-second, so two cores hash faster than a 25 Gbit/s line brings. What an init container
# asks for costs a pod nothing as long as the engine asks for more.
# No ephemeral-storage: a Kueue queue that does not cover it would not admit the pod.
_REQUESTS = {"cpu": "500m", "memory": "256Mi"}
_LIMITS = {"cpu": "2", "memory": "512Mi"}


@dataclass(frozen=True)
class StorageContainer:
    """What of the ClusterStorageContainer is the user's to say.

    Attributes:
        image: the project's image, with a tag other than `latest` or a digest: registry/name:tag.
        name: of the object; it is cluster-scoped.
        several: it takes several pairs of source and destination (`storageUris`, KServe 0.17 and later). KServe
            refuses such models where this is not said; earlier versions do not know the field.
    """

    image: str
    name: str = DEFAULT_NAME
    several: bool = False


def storage_container(wanted: StorageContainer) -> dict[str, Any]:
    """The object, as plain data.

    Raises:
        UsageError: the image is no address or is not pinned, or the name is not one.
    """
    _check_image(wanted.image)
    if not _NAME.fullmatch(wanted.name) or len(wanted.name) > _NAME_LENGTH:
        raise UsageError(
            "the name of the storage container is not one", why="lower case letters, digits, hyphens and dots"
        )
    spec: dict[str, Any] = {
        "container": _container(wanted.image),
        "supportedUriFormats": [{"prefix": PREFIX}],
        "workloadType": "initContainer",
    }
    if wanted.several:
        spec["supportsMultiModelDownload"] = True
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": wanted.name}, "spec": spec}


def _container(image: str) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        # Nothing is written there: the root is read-only, and the only volume is the model's.
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "resources": {"requests": dict(_REQUESTS), "limits": dict(_LIMITS)},
        # The pod's status then shows the end of our log, which is the error's own text.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Pod Security Standards, "restricted". No user id: OpenShift gives each namespace its own.
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _check_image(image: str) -> None:
    # The image is not quoted: a registry's user and password may stand in it.
    try:
        address = parse_weights(f"oci://{image}")
    except UsageError:
        raise UsageError(
            "the image of the storage container is not one",
            why="expected registry/name:tag or registry/name@sha256:...",
        ) from None
    if isinstance(address, OciAddress) and not address.digest and address.tag == "latest":
        raise UsageError(
            "the image of the storage container is not pinned", why="it has no tag, or 'latest', and no digest",
            next_step="name a version, as registry/name:0.1.0, or a digest",
        )  # fmt: skip

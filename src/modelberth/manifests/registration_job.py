"""The Job that records the services in the model registry: `berth register`, once for each change of the stack."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from modelberth.base.yamlio import write_documents
from modelberth.catalog.platforms import platform
from modelberth.manifests.jobs import Work, hashed_name, job
from modelberth.manifests.objects import WAVE_REGISTRATION, Manifest, metadata, wave
from modelberth.spec.cluster import Delivery, ModelRegistry
from modelberth.spec.stack import Stack

_SPEC_FOLDER, _TOKEN_FOLDER, _TOKEN_KEY = "/etc/berth/spec", "/etc/berth/token", "token"
# OpenShift keeps the authority of its Services' certificates in this ConfigMap of every namespace.
_SERVICE_CA, _CA_FOLDER, _CA_KEY = "openshift-service-ca.crt", "/etc/berth/ca", "service-ca.crt"
_HOUR = 3600
_REQUESTS = {"cpu": "100m", "memory": "128Mi"}
_LIMITS = {"cpu": "1", "memory": "512Mi"}


def registration(stack: Stack) -> list[Manifest]:
    """ConfigMap and Job; nothing without `modelRegistry` and `delivery`."""
    if stack.model_registry is None or stack.delivery is None:
        return []
    meta = _metadata(stack, f"register-{stack.metadata.name}")
    # What the stack says, not the file: its comments are nobody's business on the cluster.
    said = stack.model_dump(mode="json", by_alias=True, exclude_unset=True)
    data = {"berth.yaml": write_documents([said])}
    # The name changes with the content, so that the Job which mounts it does too, and runs again.
    name = hashed_name(meta["name"], data)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "name": name}, "data": data}
    work = _work(stack.delivery, stack.model_registry, name, service_ca=_needs_service_ca(stack))
    return [config, job(work, _as_hook(stack, meta))]


def _needs_service_ca(stack: Stack) -> bool:
    """Whether the registry's certificate is one that OpenShift signs itself: of a Service, reached by its own name."""
    said = stack.platform
    if stack.model_registry is None or not platform(said.kind, said.version).is_openshift_ai:
        return False
    url = urlsplit(stack.model_registry.url)
    return url.scheme == "https" and (url.hostname or "").endswith((".svc", ".svc.cluster.local"))


def _work(delivery: Delivery, registry: ModelRegistry, config: str, *, service_ca: bool) -> Work:
    token = registry.credentials.secret
    environment: dict[str, str] = {}
    volumes: dict[str, tuple[dict[str, Any], str]] = {"spec": ({"configMap": {"name": config}}, _SPEC_FOLDER)}
    if token:
        volumes["token"] = ({"secret": {"secretName": token}}, _TOKEN_FOLDER)
        environment["BERTH_REGISTER_TOKEN_FILE"] = f"{_TOKEN_FOLDER}/{_TOKEN_KEY}"
    if service_ca:
        volumes["service-ca"] = ({"configMap": {"name": _SERVICE_CA}}, _CA_FOLDER)
        environment["BERTH_REGISTER_CA"] = f"{_CA_FOLDER}/{_CA_KEY}"
    return Work(
        arguments=("register", f"{_SPEC_FOLDER}/berth.yaml"),
        image=delivery.image,
        environment=environment,
        references={},
        volumes=volumes,
        requests=_REQUESTS,
        limits=_LIMITS,
        deadline=_HOUR,
    )


def _as_hook(stack: Stack, meta: dict[str, Any]) -> dict[str, Any]:
    """After a sync, and cleared away before the next: a Job that is done would be out of sync for ever."""
    if stack.argo_cd is None:
        return meta
    hook = {"argocd.argoproj.io/hook": "PostSync", "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation"}
    return {**meta, "annotations": {**meta.get("annotations", {}), **hook}}


def _metadata(stack: Stack, name: str) -> dict[str, Any]:
    return metadata(name, stack.metadata.namespace, stack.metadata.name, wave=wave(stack, WAVE_REGISTRATION))

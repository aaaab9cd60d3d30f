"""Upload Jobs: `berth ship` from within the cluster, one for each delivery to the store.

They stand apart from what Argo CD syncs. As a hook one would run again with every sync and hold up what comes after;
as a plain object it would be out of sync once it is done and cleared away. And a service that starts while its weights
arrive lists half of them. So they are applied first and by themselves, and a second run moves nothing.

A try that fails is followed by another pod. It goes on where the last one stopped where `delivery.workspace` keeps the
journal; on a node's disk the journal goes with the pod, and the files that were under way begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelberth.base.units import parse_bytes
from modelberth.manifests.jobs import Work, hashed_name, job
from modelberth.manifests.objects import Manifest, given, metadata
from modelberth.manifests.resources import EPHEMERAL, gibibytes
from modelberth.manifests.storage import ACCESS_KEY, SECRET_KEY
from modelberth.spec.addresses import FolderAddress, OciAddress, S3Address
from modelberth.spec.cluster import Delivery
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack
from modelberth.spec.storage import S3Storage

_WORKSPACE, _CA, _LOGINS = "/workspace", "/etc/berth/ca", "/etc/berth/logins"
_DEFAULT_QUEUE = "default"
# A new volume is root's. OpenShift gives a pod's volumes the namespace's own group; elsewhere it has to be named: the
# image's user, see Containerfile.
_GROUP = 1001
# Parts of 64 MiB on 4 connections are under way at once, each in a file of its own (flows/spool.py); with room for the
# journal and for larger parts.
_SPOOLS = 4 << 30
# The client stays below 64 MB; what is written to the workspace stays in the page cache, which counts as the pod's.
_REQUESTS = {"cpu": "1", "memory": "256Mi"}
_LIMITS = {"cpu": "2", "memory": "1Gi"}


@dataclass(frozen=True)
class Upload:
    """One delivery: the first service that needs it, and its objects."""

    service: str
    objects: tuple[Manifest, ...]


def uploads(stack: Stack) -> tuple[Upload, ...]:
    """Every delivery that the cluster can do itself, each once; nothing without `delivery`."""
    store, delivery = stack.storage.s3, stack.delivery
    if store is None or delivery is None:
        return ()
    return tuple(Upload(each.name, tuple(_objects(stack, store, delivery, each))) for each in _deliveries(stack))


def _deliveries(stack: Stack) -> Iterable[Service]:
    """The first service of every delivery that a Job can make."""
    seen: dict[tuple[str, str], Service] = {}
    for service in _to_the_store(stack):
        if not isinstance(service.source, FolderAddress):
            seen.setdefault((str(service.source), str(service.weights)), service)
    return seen.values()


def notes(stack: Stack) -> Iterable[str]:
    """Deliveries that are left to the user, and what the Jobs find only if the user put it there."""
    if stack.delivery and any(_deliveries(stack)):
        yield from _elsewhere(stack, stack.delivery)
        yield from _queued(stack, stack.delivery)
    left = [each for each in _to_the_store(stack) if not stack.delivery or isinstance(each.source, FolderAddress)]
    if left:
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        why = "their source is a folder of this machine" if stack.delivery else "there is no `delivery`"
        yield f"no upload Job, as {why}; by hand: berth ship {left[0].source} {left[0].weights}{more}"


def _elsewhere(stack: Stack, delivery: Delivery) -> Iterable[str]:
    """What has to be in the Jobs' namespace too, and is not rendered there."""
    store, namespace = stack.storage.s3, delivery.namespace
    if store is None or namespace in (None, stack.metadata.namespace):
        return
    needed = [f"Secret {login}" for login in sorted(filter(None, {_login(stack, each) for each in services(stack)}))]
    if store.credentials.secret and store.credentials.external_secret is None:
        needed.append(f"Secret {store.credentials.secret}")
    if store.ca_config_map:
        needed.append(f"ConfigMap {store.ca_config_map}")
    for each in needed:
        yield f"the upload Jobs read {each} in namespace {namespace}: it has to be there too"


def _queued(stack: Stack, delivery: Delivery) -> Iterable[str]:
    namespace = stack.metadata.namespace
    if stack.queue and stack.queue.name == _DEFAULT_QUEUE and delivery.namespace in (None, namespace):
        yield (
            f"LocalQueue '{_DEFAULT_QUEUE}' of namespace {namespace} takes every Job that names no queue, the uploads "
            "too: delivery.namespace gives them another"
        )


def _to_the_store(stack: Stack) -> Iterable[Service]:
    return (each for each in services(stack) if each.source and isinstance(each.weights, S3Address))


def _objects(stack: Stack, store: S3Storage, delivery: Delivery, service: Service) -> Iterable[Manifest]:
    namespace = delivery.namespace or stack.metadata.namespace
    claim = _claim(stack, delivery, service, namespace)
    if claim:
        yield claim
    work = Work(
        arguments=("ship", str(service.source), str(service.weights), "--workspace", _WORKSPACE),
        image=delivery.image,
        environment=_environment(store, _login(stack, service)),
        references=_references(store, delivery),
        volumes=_volumes(store, claim, _login(stack, service)),
        requests={**_REQUESTS, **({} if claim else {EPHEMERAL: gibibytes(_SPOOLS)})},
        limits=_LIMITS,
        group=_GROUP if claim and stack.platform.kind == "kserve" else None,
    )
    yield job(work, metadata(f"ship-{service.name}", namespace, stack.metadata.name))


def _claim(stack: Stack, delivery: Delivery, service: Service, namespace: str) -> Manifest | None:
    if delivery.workspace is None:
        return None
    spec = given(
        accessModes=["ReadWriteOnce"],
        storageClassName=delivery.workspace.storage_class,
        resources={"requests": {"storage": gibibytes(parse_bytes(delivery.workspace.size))}},
    )
    name = hashed_name(f"ship-{service.name}-workspace", spec)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(name, namespace, stack.metadata.name),
        "spec": spec,
    }


def _login(stack: Stack, service: Service) -> str | None:
    """The Secret with the login of the registry that an upload reads from."""
    from_image = isinstance(service.source, OciAddress) and isinstance(service.weights, S3Address)
    return stack.storage.oci.credentials.secret if stack.storage.oci and from_image else None


def _environment(store: S3Storage, login: str | None) -> dict[str, str]:
    return given(
        # Absent for AWS itself, where berth finds bucket and host.
        AWS_ENDPOINT_URL=store.endpoint,
        AWS_REGION=store.region,
        AWS_CA_BUNDLE=f"{_CA}/cabundle.crt" if store.ca_config_map else None,
        BERTH_STATE=f"{_WORKSPACE}/state",
        REGISTRY_AUTH_FILE=f"{_LOGINS}/config.json" if login else None,
    )


def _references(store: S3Storage, delivery: Delivery) -> dict[str, tuple[str, str, bool]]:
    secret, token = store.credentials.secret, delivery.hub_token
    keys = {name: (secret, name, False) for name in (ACCESS_KEY, SECRET_KEY)} if secret else {}
    return {**keys, **({"HF_TOKEN": (token.secret, token.key, True)} if token else {})}


def _volumes(store: S3Storage, claim: Manifest | None, login: str | None) -> dict[str, tuple[dict[str, Any], str]]:
    workspace: dict[str, Any] = {"emptyDir": {"sizeLimit": gibibytes(_SPOOLS)}}
    if claim:
        workspace = {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    volumes = {"workspace": (workspace, _WORKSPACE)}
    if store.ca_config_map:
        volumes["ca"] = ({"configMap": {"name": store.ca_config_map}}, _CA)
    if login:
        # Optional: a public image needs no login, and a pod that waits for a Secret says so nowhere in its log.
        item = {"key": ".dockerconfigjson", "path": "config.json"}
        volumes["logins"] = ({"secret": {"secretName": login, "items": [item], "optional": True}}, _LOGINS)
    return volumes

"""Upload Jobs: `berth ship` from within the cluster, one for each delivery to the store.

They stand apart from what Argo CD syncs. As a hook one would run again with every sync and hold up what comes after;
as a plain object it would be out of sync once it is done and cleared away. And a service that starts while its weights
arrive lists half of them. So they are applied first and by themselves, and a second run moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelberth.base.units import parse_bytes
from modelberth.manifests.jobs import Work, hashed_name, job
from modelberth.manifests.objects import Manifest, given, metadata
from modelberth.manifests.resources import EPHEMERAL, gibibytes
from modelberth.manifests.storage import ACCESS_KEY, SECRET_KEY, endpoint
from modelberth.spec.addresses import FolderAddress, S3Address
from modelberth.spec.cluster import Delivery
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack
from modelberth.spec.storage import S3Storage

_WORKSPACE, _CA = "/workspace", "/etc/berth/ca"
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
    seen: dict[tuple[str, str], Service] = {}
    for service in _to_the_store(stack):
        if not isinstance(service.source, FolderAddress):
            seen.setdefault((str(service.source), str(service.weights)), service)
    return tuple(Upload(each.name, tuple(_objects(stack, store, delivery, each))) for each in seen.values())


def notes(stack: Stack) -> Iterable[str]:
    """Deliveries that are left to the user, and what the Jobs find only if the user put it there."""
    yield from _secret_elsewhere(stack)
    left = [each for each in _to_the_store(stack) if not stack.delivery or isinstance(each.source, FolderAddress)]
    if left:
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        why = "their source is a folder of this machine" if stack.delivery else "there is no `delivery`"
        yield f"no upload Job, as {why}; by hand: berth ship {left[0].source} {left[0].weights}{more}"


def _secret_elsewhere(stack: Stack) -> Iterable[str]:
    store, delivery = stack.storage.s3, stack.delivery
    namespace = delivery.namespace if delivery else None
    if not uploads(stack) or store is None or namespace in (None, stack.metadata.namespace):
        return
    if store.credentials.secret and store.credentials.external_secret is None:
        yield f"the upload Jobs read Secret {store.credentials.secret} in namespace {namespace}: it has to be there too"


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
        environment=_environment(store),
        references=_references(store, delivery),
        volumes=_volumes(store, claim),
        requests={**_REQUESTS, **({} if claim else {EPHEMERAL: gibibytes(_SPOOLS)})},
        limits=_LIMITS,
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


def _environment(store: S3Storage) -> dict[str, str]:
    return given(
        AWS_ENDPOINT_URL=endpoint(store),
        AWS_REGION=store.region,
        AWS_CA_BUNDLE=f"{_CA}/cabundle.crt" if store.ca_config_map else None,
        BERTH_STATE=f"{_WORKSPACE}/state",
    )


def _references(store: S3Storage, delivery: Delivery) -> dict[str, tuple[str, str, bool]]:
    secret, token = store.credentials.secret, delivery.hub_token
    keys = {name: (secret, name, False) for name in (ACCESS_KEY, SECRET_KEY)} if secret else {}
    return {**keys, **({"HF_TOKEN": (token.secret, token.key, True)} if token else {})}


def _volumes(store: S3Storage, claim: Manifest | None) -> dict[str, tuple[dict[str, Any], str]]:
    workspace: dict[str, Any] = {"emptyDir": {"sizeLimit": gibibytes(_SPOOLS)}}
    if claim:
        workspace = {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    authorities = {"ca": ({"configMap": {"name": store.ca_config_map}}, _CA)} if store.ca_config_map else {}
    return {"workspace": (workspace, _WORKSPACE), **authorities}

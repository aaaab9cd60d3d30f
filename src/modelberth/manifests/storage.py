"""How pods get the keys of the S3 store: by reference, in the form that each platform reads.

- OpenShift AI: a connection Secret (AWS_* keys, labels of the dashboard). odh-model-controller builds `storage-config`
  from it and rewrites any that was written by hand, so none is written here.
- KServe: `storage-config` itself, one JSON text a connection (kserve pkg/credentials/service_account_credentials.go).
- LLMInferenceService reads neither: it takes Secrets of the pod's service account, with the store's address in their
  annotations (kserve pkg/credentials/s3/s3_secret.go).

`opendatahub.io/connections` is not set on services: its webhook (opendatahub-operator internal/webhook/serving) writes
service account and storage path into the object, and a path beside storageUri is refused by KServe.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.manifests.objects import SYNC_WAVE, WAVE_STORAGE, Manifest, given, metadata, wave
from modelberth.spec.addresses import OciAddress, S3Address
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack
from modelberth.spec.storage import ExternalSecret, S3Storage

STORAGE_CONFIG = "storage-config"
ACCESS_KEY, SECRET_KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
_AWS_ENDPOINT = "https://s3.{region}.amazonaws.com"
# What the External Secrets Operator fills in on the cluster, by the names under which it reads the store's entry.
_ACCESS, _SECRET = ".accessKey", ".secretKey"
_BRACES = "{{`{{`}}"  # an action of its templates whose value is the two braces


def storage_key(stack: Stack) -> str | None:
    """What an InferenceService names as `storage.key`; None where the pod has its own way to the store."""
    return stack.storage.s3.credentials.secret if stack.storage.s3 else None


def endpoint(store: S3Storage) -> str:
    """URL of the store."""
    address = _AWS_ENDPOINT.format(region=store.region)
    # AWS in China is a partition of its own, with hosts of its own.
    return (store.endpoint or (f"{address}.cn" if store.region.startswith("cn-") else address)).rstrip("/")


def pull_secrets(stack: Stack, service: Service) -> list[dict[str, str]]:
    """`imagePullSecrets` of a service whose weights are an image."""
    registry = stack.storage.oci
    if registry is None or registry.credentials.secret is None or not isinstance(service.weights, OciAddress):
        return []
    return [{"name": registry.credentials.secret}]


def storage_service_account(stack: Stack) -> str | None:
    """The service account of LLMInferenceServices with weights on S3; None where none is needed."""
    return (
        f"{stack.metadata.name}-models" if storage_key(stack) and any(_from_s3(stack, "LLMInferenceService")) else None
    )


def service_accounts(stack: Stack) -> list[Manifest]:
    """The service account that names the Secret of the store."""
    name = storage_service_account(stack)
    if name is None:
        return []
    return [{
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(stack, name, stack.metadata.namespace),
        "secrets": [{"name": storage_key(stack)}],
    }]  # fmt: skip


def external_secrets(stack: Stack) -> list[Manifest]:
    """What lets the External Secrets Operator write the Secrets of the store; nothing without `externalSecret`.

    Raises:
        UsageError: the Secret has the name that KServe's own has.
    """
    store = stack.storage.s3
    if store is None or store.credentials.external_secret is None:
        return []
    source = store.credentials.external_secret
    return [_external_secret(secret, source) for secret in _secrets(stack, store, None)]


def secret_manifests(stack: Stack, access_key: str, secret_key: str) -> list[Manifest]:
    """The same Secrets with their values. For a file that no repository takes.

    Args:
        stack: with `storage.s3.credentials.secret`; without, there is nothing to write.
        access_key: of the store.
        secret_key: of the store.

    Raises:
        UsageError: the Secret has the name that KServe's own has.
    """
    store = stack.storage.s3
    if store is None or store.credentials.secret is None:
        return []
    return list(_secrets(stack, store, (access_key, secret_key)))


def notes(stack: Stack) -> Iterable[str]:
    """What the user has to do for the store."""
    store = stack.storage.s3
    if store is None or not any(isinstance(each.weights, S3Address) for each in services(stack)):
        return
    if store.ca_config_map and stack.platform.kind == "rhoai" and any(_from_s3(stack, "InferenceService")):
        yield (
            "on OpenShift AI an InferenceService trusts what spec.trustedCABundle of the DSCInitialization says, not "
            "storage.s3.caConfigMap: the store's authority has to be there too"
        )
    if store.credentials.secret is None:
        yield "storage.s3.credentials names no Secret: the pods need another way to the store, such as an IAM role"
    elif store.credentials.external_secret is None:
        yield from _of_a_secret_that_exists(stack, store, store.credentials.secret)


def _of_a_secret_that_exists(stack: Stack, store: S3Storage, name: str) -> Iterable[str]:
    namespace = stack.metadata.namespace
    if stack.platform.kind == "kserve" and any(_from_s3(stack, "InferenceService")):
        yield (
            f"KServe reads the keys from entry {name} of Secret {STORAGE_CONFIG} in namespace {namespace}, not from "
            f"Secret {name} itself: berth render --with-secrets writes both"
        )
    if storage_service_account(stack):
        marks = " ".join(shlex.quote(f"{key}={value}") for key, value in _s3_annotations(store).items())
        yield (
            "an LLMInferenceService reads the store's address from its Secret: "
            f"kubectl annotate secret {name} -n {namespace} {marks}"
        )


def _from_s3(stack: Stack, kind: str) -> Iterable[Service]:
    return (each for each in services(stack) if each.model.kind == kind and isinstance(each.weights, S3Address))


def _metadata(stack: Stack, name: str, namespace: str, **more: Any) -> dict[str, Any]:
    return metadata(name, namespace, stack.metadata.name, wave=wave(stack, WAVE_STORAGE), **more)


def _secrets(stack: Stack, store: S3Storage, keys: tuple[str, str] | None) -> Iterable[Manifest]:
    """Every Secret that the stack's pods and Jobs read, each once; without keys, as a template of the operator."""
    name, namespace = str(store.credentials.secret), stack.metadata.namespace
    if name == STORAGE_CONFIG:
        raise UsageError(
            f"the Secret of the store cannot be called {STORAGE_CONFIG}", where="storage.s3.credentials.secret",
            why="KServe's own Secret of that name holds the keys of all stores", next_step="give it another name",
        )  # fmt: skip
    shown = stack.platform.kind == "rhoai"
    yield _connection(_connection_metadata(stack, store, namespace, shown=shown), store, keys)
    if stack.platform.kind == "kserve":
        yield _secret(_metadata(stack, STORAGE_CONFIG, namespace), {name: _storage_config(store, keys)})
    uploads = stack.delivery.namespace if stack.delivery else None
    if uploads and uploads != namespace:
        # The Jobs read its keys; the dashboard has no service there to offer it for.
        yield _connection(_connection_metadata(stack, store, uploads, shown=False), store, keys)


def _connection(meta: dict[str, Any], store: S3Storage, keys: tuple[str, str] | None) -> Manifest:
    """AWS_* keys: a connection of OpenShift AI, what upload Jobs read, and what a service account names."""
    access_key, secret_key = keys or (f"{{{{ {_ACCESS} }}}}", f"{{{{ {_SECRET} }}}}")
    rest = {"AWS_S3_BUCKET": store.bucket, "AWS_S3_ENDPOINT": endpoint(store), "AWS_DEFAULT_REGION": store.region}
    return _secret(meta, {ACCESS_KEY: access_key, SECRET_KEY: secret_key, **(rest if keys else _literals(rest))})


def _connection_metadata(stack: Stack, store: S3Storage, namespace: str, *, shown: bool) -> dict[str, Any]:
    name = str(store.credentials.secret)
    labels, annotations = {}, _s3_annotations(store)
    if shown:
        labels = {"opendatahub.io/dashboard": "true", "opendatahub.io/managed": "true"}
        annotations |= {
            # odh-model-controller reads the first, the dashboard the second, and since 3.3 rather the third.
            "opendatahub.io/connection-type": "s3",
            "opendatahub.io/connection-type-ref": "s3",
            "opendatahub.io/connection-type-protocol": "s3",
            "openshift.io/display-name": name,
        }
    return _metadata(stack, name, namespace, labels=labels, annotations=annotations)


def _s3_annotations(store: S3Storage) -> dict[str, str]:
    """The store's address, as KServe reads it from a Secret of a service account."""
    scheme, _, host = endpoint(store).partition("://")
    secure = "1" if scheme == "https" else "0"
    prefix = "serving.kserve.io"
    more = {f"{prefix}/s3-cabundle-configmap": store.ca_config_map} if store.ca_config_map else {}
    return {
        f"{prefix}/s3-endpoint": host,
        f"{prefix}/s3-usehttps": secure,
        f"{prefix}/s3-verifyssl": secure,
        f"{prefix}/s3-region": store.region,
        **more,
    }


def _storage_config(store: S3Storage, keys: tuple[str, str] | None) -> str:
    """KServe's JSON of one connection. In a template the operator writes the keys as JSON itself, quotes included:

    between quotes of ours, a key with a quote or a backslash would end the text early.
    """
    access_key, secret_key = (_json(each) for each in keys) if keys else (_as_json(_ACCESS), _as_json(_SECRET))
    rest = {
        "endpoint_url": endpoint(store),
        "bucket": store.bucket,
        "region": store.region,
        **({"cabundle_configmap": store.ca_config_map} if store.ca_config_map else {}),
    }
    fields = {
        "type": _json("s3"),
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        **{name: _json(value) if keys else _literal(_json(value)) for name, value in rest.items()},
    }
    return "{" + ", ".join(f"{_json(name)}: {value}" for name, value in fields.items()) + "}"


def _json(value: str) -> str:
    return json.dumps(value)


def _as_json(field: str) -> str:
    return f"{{{{ {field} | toJson }}}}"


def _literal(text: str) -> str:
    """A text that comes out of a template of the operator as it is here."""
    return text.replace("{{", _BRACES)


def _literals(values: Mapping[str, str]) -> dict[str, str]:
    return {name: _literal(value) for name, value in values.items()}


def _secret(meta: dict[str, Any], values: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "stringData": values}


def _external_secret(secret: Manifest, source: ExternalSecret) -> Manifest:
    meta = dict(secret["metadata"])
    annotations = meta.pop("annotations", {})
    own = {key: value for key, value in annotations.items() if key == SYNC_WAVE}
    its = {key: value for key, value in annotations.items() if key != SYNC_WAVE}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {**meta, **given(annotations=own)},
        "spec": {
            "refreshInterval": source.refresh_interval,
            "secretStoreRef": {"name": source.store, "kind": source.store_kind},
            "target": {
                "name": meta["name"],
                "creationPolicy": "Owner",
                "template": {
                    "engineVersion": "v2",
                    "type": secret["type"],
                    # The operator fills in annotations as it does data.
                    "metadata": {"labels": meta["labels"], "annotations": _literals(its)},
                    "data": secret["stringData"],
                },
            },
            "data": [
                _entry(_ACCESS, source, source.access_key_property),
                _entry(_SECRET, source, source.secret_key_property),
            ],
        },
    }


def _entry(field: str, source: ExternalSecret, entry: str) -> dict[str, Any]:
    return {"secretKey": field.removeprefix("."), "remoteRef": {"key": source.key, "property": entry}}

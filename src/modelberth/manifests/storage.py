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
from collections.abc import Iterable
from typing import Any

from modelberth.manifests.objects import WAVE_STORAGE, Manifest, metadata, wave
from modelberth.spec.addresses import OciAddress, S3Address
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack
from modelberth.spec.storage import ExternalSecret, S3Storage

STORAGE_CONFIG = "storage-config"
ACCESS_KEY, SECRET_KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
_AWS_ENDPOINT = "https://s3.{region}.amazonaws.com"


def storage_key(stack: Stack) -> str | None:
    """What an InferenceService names as `storage.key`; None where the pod has its own way to the store."""
    return stack.storage.s3.credentials.secret if stack.storage.s3 else None


def endpoint(store: S3Storage) -> str:
    """URL of the store."""
    return (store.endpoint or _AWS_ENDPOINT.format(region=store.region)).rstrip("/")


def pull_secrets(stack: Stack, service: Service) -> list[dict[str, str]]:
    """`imagePullSecrets` of a service whose weights are an image."""
    registry = stack.storage.oci
    if registry is None or registry.credentials.secret is None or not isinstance(service.weights, OciAddress):
        return []
    return [{"name": registry.credentials.secret}]


def storage_service_account(stack: Stack) -> str | None:
    """The service account of LLMInferenceServices with weights on S3; None where none is needed."""
    return f"{stack.metadata.name}-models" if storage_key(stack) and any(_from_s3_by_llm_d(stack)) else None


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
    """What lets the External Secrets Operator write the Secrets of the store; nothing without `externalSecret`."""
    store = stack.storage.s3
    if store is None or store.credentials.external_secret is None:
        return []
    source = store.credentials.external_secret
    # {{ }} here is the operator's: a text that it fills in on the cluster. No key passes through the tree.
    keys = ("{{ .accessKey }}", "{{ .secretKey }}")
    return [_external_secret(secret, source) for secret in _secrets(stack, store, *keys, as_template=True)]


def secret_manifests(stack: Stack, access_key: str, secret_key: str) -> list[Manifest]:
    """The same Secrets with their values. For a file that no repository takes.

    Args:
        stack: with `storage.s3.credentials.secret`; without, there is nothing to write.
        access_key: of the store.
        secret_key: of the store.
    """
    store = stack.storage.s3
    if store is None or store.credentials.secret is None:
        return []
    return list(_secrets(stack, store, access_key, secret_key, as_template=False))


def notes(stack: Stack) -> Iterable[str]:
    """What the user has to do for the store."""
    store = stack.storage.s3
    if store is None or not any(isinstance(each.weights, S3Address) for each in services(stack)):
        return
    name, namespace = store.credentials.secret, stack.metadata.namespace
    if name is None:
        yield "storage.s3.credentials names no Secret: the pods need another way to the store, such as an IAM role"
    elif store.credentials.external_secret is None and storage_service_account(stack):
        marks = " ".join(f"{key}={value}" for key, value in _s3_annotations(store).items())
        yield (
            "an LLMInferenceService reads the store's address from its Secret: "
            f"kubectl annotate secret {name} -n {namespace} {marks}"
        )


def _from_s3_by_llm_d(stack: Stack) -> Iterable[Service]:
    return (
        each
        for each in services(stack)
        if each.model.kind == "LLMInferenceService" and isinstance(each.weights, S3Address)
    )


def _metadata(stack: Stack, name: str, namespace: str, **more: Any) -> dict[str, Any]:
    return metadata(name, namespace, stack.metadata.name, wave=wave(stack, WAVE_STORAGE), **more)


def _secrets(
    stack: Stack, store: S3Storage, access_key: str, secret_key: str, *, as_template: bool
) -> Iterable[Manifest]:
    """Every Secret that the stack's pods and Jobs read, each once."""
    name, namespace = str(store.credentials.secret), stack.metadata.namespace
    yield _connection(stack, store, name, namespace, access_key, secret_key)
    if stack.platform.kind == "kserve":
        text = _storage_config(store, access_key, secret_key, as_template=as_template)
        yield _secret(_metadata(stack, STORAGE_CONFIG, namespace), {name: text})
    uploads = stack.delivery.namespace if stack.delivery else None
    if uploads and uploads != namespace:
        yield _connection(stack, store, name, uploads, access_key, secret_key)


def _connection(
    stack: Stack, store: S3Storage, name: str, namespace: str, access_key: str, secret_key: str
) -> Manifest:
    """AWS_* keys: a connection of OpenShift AI, what upload Jobs read, and what a service account names."""
    labels, annotations = {}, dict(_s3_annotations(store))
    if stack.platform.kind == "rhoai":
        labels = {"opendatahub.io/dashboard": "true", "opendatahub.io/managed": "true"}
        annotations |= {
            "opendatahub.io/connection-type": "s3",
            "opendatahub.io/connection-type-ref": "s3",
            "openshift.io/display-name": name,
        }
    values = {
        ACCESS_KEY: access_key,
        SECRET_KEY: secret_key,
        "AWS_S3_BUCKET": store.bucket,
        "AWS_S3_ENDPOINT": endpoint(store),
        "AWS_DEFAULT_REGION": store.region,
    }
    return _secret(_metadata(stack, name, namespace, labels=labels, annotations=annotations), values)


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


def _storage_config(store: S3Storage, access_key: str, secret_key: str, *, as_template: bool) -> str:
    """KServe's JSON of one connection. In a template the operator writes the keys as JSON itself, quotes included."""
    fields = {
        "type": "s3",
        "access_key_id": "ACCESS" if as_template else access_key,
        "secret_access_key": "SECRET" if as_template else secret_key,
        "endpoint_url": endpoint(store),
        "bucket": store.bucket,
        "region": store.region,
        **({"cabundle_configmap": store.ca_config_map} if store.ca_config_map else {}),
    }
    text = json.dumps(fields)
    if as_template:
        text = text.replace('"ACCESS"', "{{ .accessKey | toJson }}").replace('"SECRET"', "{{ .secretKey | toJson }}")
    return text


def _secret(meta: dict[str, Any], values: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "stringData": values}


def _external_secret(secret: Manifest, source: ExternalSecret) -> Manifest:
    meta = secret["metadata"]
    kept = {key: value for key, value in meta.get("annotations", {}).items() if not key.startswith("argocd.")}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {**{key: value for key, value in meta.items() if key != "annotations"}, **_argo_only(meta)},
        "spec": {
            "refreshInterval": source.refresh_interval,
            "secretStoreRef": {"name": source.store, "kind": source.store_kind},
            "target": {
                "name": meta["name"],
                "creationPolicy": "Owner",
                "template": {
                    "engineVersion": "v2",
                    "type": secret["type"],
                    "metadata": {"labels": meta["labels"], "annotations": kept},
                    "data": secret["stringData"],
                },
            },
            "data": [
                {"secretKey": "accessKey", "remoteRef": {"key": source.key, "property": source.access_key_property}},
                {"secretKey": "secretKey", "remoteRef": {"key": source.key, "property": source.secret_key_property}},
            ],
        },
    }


def _argo_only(meta: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in meta.get("annotations", {}).items() if key.startswith("argocd.")}
    return {"annotations": found} if found else {}

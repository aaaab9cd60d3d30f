"""1xx: where weights are, and how pods get the keys for them."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator

from modelberth.base.yamlio import Path
from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import Manifest, World, items, mapping, text

# The end of a name that holds a secret: MINIO_SECRET_KEY, rootPassword, HF_TOKEN, and not TOKENIZER_MODE.
_SECRET_NAME = re.compile(
    r"(?:secret|password|passwd|token|credentials?|access[-_]?key|api[-_]?key|private[-_]?key)(?:[-_]?(?:id|key))*$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"^\$[A-Za-z_]|\$[{(]|<[^>]+>|^$|x{3,}|changeme|replace.?me|placeholder", re.IGNORECASE)
# What is a key by its form, whatever it is called: AWS, Hugging Face, GitHub, a private key.
_KNOWN_FORMS = re.compile(
    r"\bA[KS]IA[0-9A-Z]{16}\b|\bhf_[A-Za-z]{30,}\b|\bgh[pousr]_\w{36,}|BEGIN (?:[A-Z]+ )?PRIVATE KEY"
)
_IN_JSON = re.compile(r'"(?:secret_access_key|access_key_id)"\s*:\s*"[^"]')
_SET_IN_SCRIPT = re.compile(
    r"(?i)(?:secret[\w-]*key|access[\w-]*key(?:[\w-]*id)?|password)['\"]?\s*[:=]\s*['\"]([^'\"$<{\s]{6,})['\"]"
)


@rule(
    101,
    "high",
    "S3 address without its last slash",
    "KServe lists by prefix: without the slash every folder whose name begins so is pulled too, an FP8 sibling say.",
)
def no_slash(world: World) -> Iterator[Hit]:
    """Addresses of weights on S3."""
    for service in world.served:
        path, uri = service.weights
        if uri.startswith("s3://") and not uri.endswith("/"):
            message = f"{uri} also pulls what lies below {uri}-fp8/ and every other name that begins so"
            yield Hit(service.manifest, path, message, f"write {uri}/", replacement=f"{uri}/")


@rule(
    102,
    "high",
    "storageUri and storage.path together",
    "KServe takes one of them and refuses both; storage.key beside storageUri is legal.",
)
def uri_and_path(world: World) -> Iterator[Hit]:
    """InferenceServices with both."""
    for service in world.served:
        path = (*service.container.path, "storage", "path")
        if service.weights[1] and service.manifest.get(*path) is not None:
            yield Hit(service.manifest, path, "storage.path stands beside storageUri", "keep one of the two")


@rule(
    103,
    "high",
    "storage-config written by hand on OpenShift AI",
    "odh-model-controller builds storage-config from the namespace's connection Secrets; it replaces others.",
)
def storage_config(world: World) -> Iterator[Hit]:
    """Secrets named storage-config."""
    for secret in world.of_kind("Secret", "ExternalSecret"):
        managed = secret.labels.get("opendatahub.io/managed") is not None
        if secret.name == "storage-config" and (managed or world.is_openshift_ai):
            yield Hit(
                secret, ("metadata", "name"), "this storage-config fights with odh-model-controller",
                "write a connection Secret: labels opendatahub.io/dashboard and managed, keys AWS_*",
            )  # fmt: skip


@rule(
    104,
    "high",
    "a secret value in a manifest",
    "Whoever reads the repository reads the key; base64 hides nothing.",
)
def secret_values(world: World) -> Iterator[Hit]:
    """Secrets and ConfigMaps with values that are keys, and what kustomizations make them of."""
    fix = "reference it: External Secrets, a sealed Secret, or kubectl create secret"
    for each in (*world.manifests, *world.patches):
        for path, key, value in _values(each):
            if _holds_secret(key, value):
                yield Hit(each, path, f"{path[0]}: {key} has its value in the file", fix)
                break  # one is enough to take the whole of it out


def _values(manifest: Manifest) -> Iterator[tuple[Path, str, str]]:
    if manifest.kind in {"Secret", "ConfigMap"}:
        for part in ("stringData", "data"):
            for key, value in mapping(manifest.get(part)).items():
                plain = _decoded(text(value)) if (manifest.kind, part) == ("Secret", "data") else text(value)
                yield (part, key), key, plain
    for part in ("secretGenerator", "configMapGenerator"):
        for index, each in enumerate(items(manifest.get(part))):
            for at, word in enumerate(items(mapping(each).get("literals"))):
                key, _, value = text(word).partition("=")
                yield (part, index, "literals", at), key, value.strip("'\"")


def _decoded(value: str) -> str:
    try:
        return b64decode(value, validate=True).decode()
    except ValueError:
        return value  # a placeholder that somebody replaces later, or no text


def _holds_secret(key: str, value: str) -> bool:
    if not value or not _is_secret(key, value):
        return False
    return bool(_SECRET_NAME.search(key) or _IN_JSON.search(value) or _KNOWN_FORMS.search(value))


@rule(
    105,
    "high",
    "a secret value in a container's environment or script",
    "It is in the repository, in the object, in `kubectl describe` and in every log of the environment.",
)
def plain_credentials(world: World) -> Iterator[Hit]:
    """Variables that are keys and have a plain value; keys in scripts."""
    for container in world.containers:
        for index, name, value in container.environment:
            known = _SECRET_NAME.search(name) or _KNOWN_FORMS.search(value)
            if value and known and _is_secret(name, value):
                path = (*container.path, "env", index, "value")
                yield Hit(container.manifest, path, f"{name} has its value in the file", "valueFrom: secretKeyRef")
        for path, word in container.words:
            if _SET_IN_SCRIPT.search(word) or _KNOWN_FORMS.search(word):
                yield Hit(container.manifest, path, "the script sets a key to a value", "read it from a Secret")
    for service in world.served:
        for each in service.arguments:
            if each.value and _SECRET_NAME.search(each.flag) and _is_secret(each.flag, each.value):
                fix = "a variable from a Secret: VLLM_API_KEY for --api-key"
                yield Hit(each.manifest, each.path, f"--{each.flag} has its value in the file", fix)


def _is_secret(name: str, value: str) -> bool:
    # A file, an address or a number is none: HF_TOKEN_PATH, TOKEN_URL, MAX_TOKENS.
    if value.startswith(("/", "http")) or value.isdigit() or value.lower() in {"true", "false", "none", "auto"}:
        return False
    return not _REFERENCE.search(value) and not name.upper().endswith(("_FILE", "_PATH", "_URL", "_NAME", "_TOKENS"))


@rule(
    106,
    "medium",
    "connection Secret without the labels of the dashboard",
    "odh-model-controller only reads Secrets with both labels: storage-config stays without this connection.",
)
def connection_labels(world: World) -> Iterator[Hit]:
    """Secrets with a connection type."""
    wanted = ("opendatahub.io/dashboard", "opendatahub.io/managed")
    for secret in world.of_kind("Secret"):
        missing = [label for label in wanted if secret.labels.get(label) != "true"]
        if secret.annotations.get("opendatahub.io/connection-type") == "s3" and missing:
            yield Hit(secret, ("metadata", "labels"), f'{" and ".join(missing)} is not "true"', "add the labels")


@rule(
    107,
    "medium",
    "model image without a tag, or with latest",
    "What a pod serves changes with the registry, and two replicas may serve two models.",
)
def loose_image(world: World) -> Iterator[Hit]:
    """Weights from an image."""
    for service in world.served:
        path, uri = service.weights
        if uri.startswith("oci") and "://" in uri and _is_loose(uri.partition("://")[2]):
            yield Hit(
                service.manifest, path, f"{uri} names no fixed image", "name a tag other than latest, or a digest"
            )


def _is_loose(image: str) -> bool:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return not digest and tag in {"", "latest"}


RULES = (no_slash, uri_and_path, storage_config, secret_values, plain_credentials, connection_labels, loose_image)

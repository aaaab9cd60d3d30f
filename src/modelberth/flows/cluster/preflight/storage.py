"""Where weights come from: the Secrets of store and registries, the store itself, and whether a delivery is complete.

Values of Secrets are read where the store is asked with them, and shown nowhere.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from modelberth.adapters.kubernetes_api import Document, Ref
from modelberth.adapters.kubernetes_api.kinds import SECRETS
from modelberth.adapters.machine import reach
from modelberth.base.errors import AuthError, BerthError, IntegrityError, PrerequisiteMissing
from modelberth.base.text import printable
from modelberth.base.units import format_decimal
from modelberth.flows.cluster.preflight.checked import Checked, Wanted, failed
from modelberth.flows.deliveries import manifest_in_s3
from modelberth.flows.places import PlaceOptions, Places
from modelberth.manifests.storage import ACCESS_KEY, SECRET_KEY, endpoint, pull_secrets, storage_key
from modelberth.spec.addresses import OciAddress, S3Address
from modelberth.spec.services import Service

_KEYS = (ACCESS_KEY, SECRET_KEY)
_PULL_TYPES = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}
_STALL_SECONDS = 10.0


def secrets(wanted: Wanted) -> Iterator[Checked]:
    """The Secret of the store, and those that images are pulled with."""
    yield from _of_store(wanted)
    asked = {each["name"]: service for service in wanted.services if wanted.stack
             for each in pull_secrets(wanted.stack, service)}  # fmt: skip
    for name, service in asked.items():
        if name not in _rendered(wanted):
            yield _pull_secret(wanted, name, service)


def _of_store(wanted: Wanted) -> Iterator[Checked]:
    name = storage_key(wanted.stack) if wanted.stack else None
    if name is None or name in _rendered(wanted):
        return
    found = wanted.store_secret
    if found is None:
        yield failed("Secrets", f"{name} is not in {wanted.namespace}", "berth render --with-secrets writes it",
                     PrerequisiteMissing)  # fmt: skip
        return
    absent = [key for key in _KEYS if key not in (found.get("data") or {})]
    if absent:
        yield failed("Secrets", f"{name} lacks {', '.join(absent)}", "add these keys", PrerequisiteMissing)
        return
    yield Checked("Secrets", "ok", f"{name}: {', '.join(sorted(found['data']))}")


def _pull_secret(wanted: Wanted, name: str, service: Service) -> Checked:
    """Whether a Secret lets the kubelet pull a service's image: its type, and an entry of that registry."""
    found = wanted.cluster.get(Ref(SECRETS, name, wanted.namespace))
    if found is None:
        fix = f"oc create secret docker-registry {name} -n {wanted.namespace}"
        return failed("pull secret", f"{name} is not in {wanted.namespace}", fix, PrerequisiteMissing)
    kind = str(found.get("type") or "Opaque")
    if kind not in _PULL_TYPES:
        fix = "create it anew: oc create secret docker-registry"
        return failed("pull secret", f"{name} is of type {kind}: no kubelet pulls with it", fix, PrerequisiteMissing)
    host = service.weights.registry if isinstance(service.weights, OciAddress) else ""
    hosts = _hosts(_decoded(found, _PULL_TYPES[kind]))
    if host not in hosts:
        text = f"{name} has no entry of {host}; it has {', '.join(sorted(hosts)) or 'none'}"
        return failed("pull secret", text, f"oc registry login --registry {host} --to, or add it", PrerequisiteMissing)
    return Checked("pull secret", "ok", f"{name}: {host}")


def _hosts(document: object) -> set[str]:
    entries = document.get("auths", document) if isinstance(document, Mapping) else {}
    return {printable(urlsplit(each if "//" in each else f"//{each}").netloc) for each in entries}


def _decoded(secret: Document, key: str) -> object:
    try:
        return json.loads(base64.b64decode(str((secret.get("data") or {}).get(key) or "")))
    except (ValueError, binascii.Error):
        return None


def store(wanted: Wanted) -> Iterator[Checked]:
    """Whether the store answers from here, and whether what is to be served is complete in it."""
    declared = wanted.stack.storage.s3 if wanted.stack else None
    if declared is None:
        return
    url = endpoint(declared)
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host.endswith((".svc", ".svc.cluster.local")) or "." not in host:
        yield Checked("store", "ok", f"{host} is an address of the cluster: not asked from here")
        return
    trouble = reach(host, parts.port or (443 if parts.scheme == "https" else 80))
    if trouble:
        text = f"{url} does not answer from here: {trouble}"
        yield Checked("store", "warning", text, "the pods may reach it all the same; berth ship from here cannot")
        return
    yield Checked("store", "ok", url)
    yield from _weights(wanted, url, declared.region)


def _weights(wanted: Wanted, url: str, region: str) -> Iterator[Checked]:
    """The deliveries on S3, asked with the keys of the Secret that the pods get."""
    try:
        found = wanted.store_secret
    except AuthError:
        found = None
    data = (found or {}).get("data") or {}
    if any(key not in data for key in _KEYS):
        yield Checked("weights", "ok", "not looked for: the store's Secret cannot be read")
        return
    environment = {key: base64.b64decode(str(data[key])).decode(errors="replace") for key in _KEYS}
    with Places(PlaceOptions(url, region, stall_seconds=_STALL_SECONDS), environment) as places:
        for each in wanted.services:
            if isinstance(each.weights, S3Address):
                yield _delivery(places, each, each.weights)


def _delivery(places: Places, service: Service, address: S3Address) -> Checked:
    try:
        manifest = manifest_in_s3(places.s3(address.bucket), address)
    except IntegrityError as error:
        text = f"{service.name}: {error.what} ({address}): {error.why}"
        fix = f"berth ship SOURCE {address} says when it is complete; KServe's own download does not ask"
        return Checked("weights", "warning", text, fix)
    except BerthError as error:
        return Checked("weights", "warning", f"{service.name}: {error.what}: {error.why}", error.next_step)
    size = format_decimal(sum(entry.size for entry in manifest.files))
    return Checked("weights", "ok", f"{service.name}: {len(manifest.files)} files, {size}, complete in {address}")


def _rendered(wanted: Wanted) -> set[str]:
    """Names of the Secrets that the stack brings itself."""
    return {each["metadata"]["name"] for each in wanted.objects if each["kind"] in {"Secret", "ExternalSecret"}}

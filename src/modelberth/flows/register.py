"""`berth register`: the services of a stack in the model registry, each once, with the address they are served from.

model -> registered model,  variant -> its version,  service -> the artifact of that version

What others have written there stays, but for what this stack says itself; what it said once and says no longer goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelberth.adapters.http_messages import shown_url
from modelberth.adapters.model_registry import Document, ModelRegistry
from modelberth.base.errors import Conflict, UsageError
from modelberth.base.text import printable, shorten
from modelberth.flows.spec_file import read_spec_file
from modelberth.flows.token_file import read_token
from modelberth.manifests.storage import storage_key
from modelberth.spec.addresses import HubAddress, S3Address
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack

Outcome = Literal["created", "updated", "unchanged", "would be created", "would be updated"]
_FORMAT = "vLLM"
_SOURCE_KIND = "hf"
_SOURCE = ("modelSourceKind", "modelSourceClass", "modelSourceGroup", "modelSourceName", "modelSourceId")
_OWN_FIELDS = ("storageKey", "storagePath", *_SOURCE)
"""Of an artifact: empty where the stack has none. A connection to S3 beside an image's address would be believed."""
_OWN_PROPERTIES = (
    "service", "servedName", "platform", "quantization", "dtype", "maxModelLen", "tensorParallelSize", "gpu",
)  # fmt: skip


@dataclass(frozen=True)
class RegisterRequest:
    """What `berth register` is asked.

    Attributes:
        spec: path of berth.yaml.
        url: of the registry instead of the stack's.
        token_file: file with its bearer token.
        ca: file of the authorities that sign its certificate.
        dry_run: look, and change nothing.
    """

    spec: Path
    url: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Registered:
    """One service in the registry.

    Attributes:
        service: its name.
        model: name of the registered model.
        version: name of its version.
        artifact: name of the version's artifact.
        uri: where it is served from.
        outcome: what became of it, the most that was done to any of the three.
        changes: what was changed, each with both values.
        ids: of model, version and artifact; empty where it would be created.
    """

    service: str
    model: str
    version: str
    artifact: str
    uri: str
    outcome: Outcome
    changes: tuple[str, ...]
    ids: tuple[str, str, str]


def register(request: RegisterRequest) -> tuple[Registered, ...]:
    """Record every service of a stack.

    Raises:
        SpecError, UsageError: the spec is not valid, names no registry, or none answers there.
        AuthError: the registry refuses, or the token cannot be read.
        RemoteUnavailable: it does not answer.
    """
    stack = read_spec_file(request.spec).stack
    url = request.url or (stack.model_registry.url if stack.model_registry else None)
    if url is None:
        raise UsageError(
            "the stack names no model registry", where=str(request.spec),
            next_step="add modelRegistry: {url: ...}, or give --url",
        )  # fmt: skip
    token = read_token(request.token_file) if request.token_file else ""
    registry = ModelRegistry(url, token=token, ca=str(request.ca) if request.ca else None)
    try:
        registry.check()
        recorder = _Recorder(registry, dry_run=request.dry_run)
        return tuple(recorder.record(stack, service) for service in services(stack))
    finally:
        registry.close()


class _Recorder:
    """Finds, creates or changes one object after the other."""

    def __init__(self, registry: ModelRegistry, *, dry_run: bool) -> None:
        self._registry = registry
        self._dry_run = dry_run
        self._changes: list[str] = []
        self._created = 0

    def record(self, stack: Stack, service: Service) -> Registered:
        """Record one service."""
        self._changes, self._created = [], 0
        model = self._object("registered_model", "registered_models", service.model.name, None, _of_model(service))
        version = self._object(
            "model_version", "model_versions", service.variant.name, model["id"], _of_version(stack, service),
            {"registeredModelId": model["id"]},
        )  # fmt: skip
        path = f"model_versions/{version['id']}/artifacts"
        # The registry's own client looks for a version's artifact by the name of the model.
        wanted = _of_artifact(stack, service)
        artifact = self._object("model_artifact", path, service.model.name, version["id"], wanted)
        outcome: Outcome = "created" if self._created else "updated" if self._changes else "unchanged"
        if self._dry_run and outcome != "unchanged":
            outcome = "would be created" if self._created else "would be updated"
        return Registered(
            service.name, service.model.name, service.variant.name, artifact["name"], wanted["uri"], outcome,
            tuple(self._changes), (model["id"], version["id"], artifact["id"]),
        )  # fmt: skip

    def _object(
        self, kind: str, path: str, name: str, parent: str | None, wanted: Document,
        fixed: Mapping[str, str] | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Id and name of an object that is as wanted; the id is empty where it would be created."""
        found = None if parent == "" else self._find(kind, name, parent)
        if found is None:
            self._created += 1
            if self._dry_run:
                return {"id": "", "name": name}
            new = {"name": name, **(fixed or {}), **{key: value for key, value in wanted.items() if value != ""}}
            try:
                return _reference(self._registry.create(path, new), name)
            except Conflict:  # somebody was quicker, or our own request was heard and its answer lost
                found = self._registry.find(kind, name, parent)
                if found is None:
                    raise
                self._created -= 1
        self._change(kind, found, wanted)
        return _reference(found, name)

    def _find(self, kind: str, name: str, parent: str | None) -> Document | None:
        found = self._registry.find(kind, name, parent)
        if found is None and kind == "model_artifact" and parent:
            # The dashboard names an artifact after its version, and shows one of each version: a second would hide it.
            others = self._registry.artifacts(parent)
            found = others[0] if len(others) == 1 else None
        return found

    def _change(self, kind: str, found: Document, wanted: Document) -> None:
        different = _difference(found, wanted)
        if not different:
            return
        noun = f"{kind.replace('_', ' ')} {printable(str(found.get('name', '')))}"
        self._changes += [f"{noun}: {change}" for change in _changes(found, different)]
        if not self._dry_run:
            self._registry.change(f"{kind}s/{found['id']}", {**different, **_type_of(kind)})


def _reference(found: Document, name: str) -> dict[str, str]:
    return {"id": str(found["id"]), "name": str(found.get("name", name))}


def _type_of(kind: str) -> dict[str, str]:
    return {"artifactType": "model-artifact"} if kind == "model_artifact" else {}


def _difference(found: Document, wanted: Document) -> Document:
    """The fields to change. Properties are replaced as a whole by the registry: those of others go along."""
    wanted = dict(wanted)
    if found.get("modelSourceKind") not in {None, "", _SOURCE_KIND}:
        # A catalog, or a transfer of the dashboard's: its link back to there is worth more than ours.
        wanted = {key: value for key, value in wanted.items() if key not in _SOURCE}
    if "customProperties" in wanted:
        there = found.get("customProperties") or {}
        of_others = {key: value for key, value in there.items() if key not in _OWN_PROPERTIES}
        wanted["customProperties"] = {**of_others, **wanted["customProperties"]}
    return {key: value for key, value in wanted.items() if (found.get(key) or "") != (value or "")}


def _changes(found: Document, different: Document) -> Iterator[str]:
    for key, value in different.items():
        if key == "customProperties":
            there = found.get(key) or {}
            yield from (
                _change_text(name, _plain(there.get(name)), _plain(value.get(name)))
                for name in _OWN_PROPERTIES
                if there.get(name) != value.get(name)
            )
        else:
            yield _change_text(key, _without_secrets(found.get(key)), value)


def _change_text(key: str, was: object, becomes: object) -> str:
    """Both values, as text that does nothing to a terminal: the old one is somebody else's."""
    old, new = (shorten(printable(str(each)), 300) if each else "not set" for each in (was, becomes))
    return f"{key} was {old}, is {new}"


def _without_secrets(value: object) -> object:
    """An address that somebody recorded with a password or a signature, without them."""
    return shown_url(value) if isinstance(value, str) and value.startswith(("http://", "https://")) else value


def _plain(value: Any) -> object:
    """What a custom property says."""
    if not isinstance(value, dict):
        return value
    return next((each for key, each in value.items() if key != "metadataType"), "")


def _of_model(service: Service) -> Document:
    described = {"description": service.model.description} if service.model.description else {}
    return {**described, "state": "LIVE"}


def _of_version(stack: Stack, service: Service) -> Document:
    variant = service.variant
    properties: dict[str, str | int | None] = {
        "service": service.name,
        "servedName": service.served_name,
        "platform": f"{stack.platform.kind} {stack.platform.version}",
        "quantization": variant.quantization,
        "dtype": variant.dtype,
        "maxModelLen": variant.max_model_len,
        "tensorParallelSize": variant.tensor_parallel_size,
        "gpu": service.pool.gpu,
    }
    return {"state": "LIVE", "customProperties": {
        key: _property(value) for key, value in properties.items() if value is not None}}  # fmt: skip


def _property(value: str | int) -> dict[str, str]:
    """A custom property: MetadataStringValue or MetadataIntValue, whose number the API takes as text."""
    if isinstance(value, int):
        return {"metadataType": "MetadataIntValue", "int_value": str(value)}
    return {"metadataType": "MetadataStringValue", "string_value": value}


def _of_artifact(stack: Stack, service: Service) -> Document:
    artifact: Document = {
        **dict.fromkeys(_OWN_FIELDS, ""),
        "artifactType": "model-artifact",
        "uri": str(service.weights),
        "modelFormatName": _FORMAT,
        "state": "LIVE",
    }
    key = storage_key(stack)
    if isinstance(service.weights, S3Address):
        # With its slash: KServe lists by prefix, from this path as well.
        artifact |= {**({"storageKey": key} if key else {}), "storagePath": service.weights.prefix}
    if isinstance(service.source, HubAddress):
        owner, _, name = service.source.repository.partition("/")
        artifact |= {"modelSourceKind": _SOURCE_KIND, "modelSourceClass": "huggingface", "modelSourceGroup": owner,
                     "modelSourceName": name}  # fmt: skip
        if service.source.revision:
            artifact["modelSourceId"] = service.source.revision
    return artifact

"""A model registry on the loopback address, as its OpenAPI document says and its own server answers.

The real one is a Go server with a database, which cannot be built here. Facts: kubeflow/model-registry,
api/openapi/model-registry.yaml, internal/core and internal/server (409 for a second name below one parent, 422 for a
field that is missing, 400 for one that is not known, a name in a PATCH among them, 404 for what is not there, ids and
times as text; a PATCH leaves what it does not name, and replaces properties as a whole).
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BASES = ("/api/model_registry/v1alpha3", "/api/model_registry/v1")
_KINDS = {
    "registered_models": "registered_model",
    "model_versions": "model_version",
    "model_artifacts": "model_artifact",
}
_COMMON = {"customProperties", "description", "externalId", "state"}
_FIELDS = {
    "registered_models": _COMMON | {"name", "owner", "readme", "license"},
    "model_versions": _COMMON | {"name", "author", "registeredModelId"},
    "model_artifacts": _COMMON | {
        "name", "artifactType", "uri", "modelFormatName", "modelFormatVersion", "storageKey", "storagePath",
        "serviceAccountName", "modelSourceKind", "modelSourceClass", "modelSourceGroup", "modelSourceId",
        "modelSourceName"},
}  # fmt: skip
_NOT_CHANGED = {"name", "registeredModelId"}
_STATES = {
    "registered_models": {"LIVE", "ARCHIVED"},
    "model_versions": {"LIVE", "ARCHIVED"},
    "model_artifacts": {"UNKNOWN", "PENDING", "LIVE", "MARKED_FOR_DELETION", "DELETED", "ABANDONED", "REFERENCE"},
}
_VALUES = {
    "MetadataStringValue": ("string_value", str), "MetadataIntValue": ("int_value", str),
    "MetadataDoubleValue": ("double_value", float), "MetadataBoolValue": ("bool_value", bool),
    "MetadataStructValue": ("struct_value", str),
}  # fmt: skip


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Store:
    """What the registry holds.

    Attributes:
        objects: kind -> id -> object.
        parents: id of an object -> id of what it is below.
        calls: method and path of every request.
        tokens: the Authorization header of every request.
        token: that is demanded; empty for none.
        bases: versions of the API that are served.
    """

    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    parents: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    token: str = ""
    bases: tuple[str, ...] = BASES
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, kind: str, body: dict[str, Any], parent: str = "") -> dict[str, Any]:
        self._check(kind, body)
        if kind == "model_artifacts":
            body = {"name": str(uuid.uuid4()), **body}
        for required in {"name"} | ({"registeredModelId"} if kind == "model_versions" else set()):
            if not body.get(required):
                raise Refused(422, f"required field '{required}' is zero value.")
        if parent and parent not in self.objects["registered_models" if kind == "model_versions" else "model_versions"]:
            raise Refused(404, f"no parent {parent}")
        if any(each["name"] == body["name"] for each in self.below(kind, parent)):
            raise Refused(409, f"{kind} with name {body['name']} already exists")
        number = str(1 + sum(len(each) for each in self.objects.values()))
        made = {**body, "id": number, "createTimeSinceEpoch": "1", "lastUpdateTimeSinceEpoch": "1"}
        self.objects[kind][number] = made
        self.parents[number] = parent
        return made

    def change(self, kind: str, number: str, body: dict[str, Any]) -> dict[str, Any]:
        found = self.get(kind, number)
        if _NOT_CHANGED & set(body):
            raise Refused(400, f'json: unknown field "{min(_NOT_CHANGED & set(body))}"')
        self._check(kind, body)
        found.update(body)
        return found

    def find(self, kind: str, name: str, parent: str) -> dict[str, Any]:
        for each in self.below(kind, parent):
            if each["name"] == name:
                return each
        raise Refused(404, f"no {kind} found")

    def get(self, kind: str, number: str) -> dict[str, Any]:
        if number not in self.objects[kind]:
            raise Refused(404, f"no {kind} found for id {number}")
        return self.objects[kind][number]

    def below(self, kind: str, parent: str) -> list[dict[str, Any]]:
        return [each for each in self.objects[kind].values() if self.parents.get(each["id"], "") == parent]

    def _check(self, kind: str, body: dict[str, Any]) -> None:
        unknown = set(body) - _FIELDS[kind]
        if unknown:
            raise Refused(400, f'json: unknown field "{min(unknown)}"')
        if "state" in body and body["state"] not in _STATES[kind]:
            raise Refused(400, "invalid value for state")
        for value in body.get("customProperties", {}).values():
            wanted, type_ = _VALUES[value["metadataType"]]
            if set(value) != {"metadataType", wanted} or not isinstance(value[wanted], type_):
                raise Refused(400, "a custom property of another form")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: without it the second waits 40 ms
    store: Store

    def log_message(self, *_arguments: object) -> None:
        return

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        with self.store.lock:
            self.store.calls.append(f"{self.command} {self.path}")
            self.store.tokens.append(self.headers.get("Authorization", ""))
            try:
                status, document = self.routed(body)
            except Refused as refused:
                status, document = refused.status, {"code": "", "message": refused.message}
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = answer  # noqa: N815

    def routed(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.store.token and self.headers.get("Authorization") != f"Bearer {self.store.token}":
            raise Refused(401, "who are you?")
        parts = urlsplit(self.path)
        base = next((each for each in self.store.bases if parts.path.startswith(f"{each}/")), None)
        if base is None:
            raise Refused(404, "no such path")
        path, query = parts.path.removeprefix(base), {key: each[0] for key, each in parse_qs(parts.query).items()}
        below = re.fullmatch(r"/model_versions/(\d+)/artifacts", path)
        if below:
            return self.below_version(below[1], body)
        kind, _, number = path.strip("/").partition("/")
        if kind in _KINDS:
            return self.of_kind(kind, number, body)
        kind = next((each for each, single in _KINDS.items() if single == kind), "")
        if not kind or number or self.command != "GET":
            raise Refused(404, "no such path")
        if not query.get("name") or (kind != "registered_models" and not query.get("parentResourceId")):
            raise Refused(400, "invalid parameters call")
        return 200, self.store.find(kind, query["name"], query.get("parentResourceId", ""))

    def of_kind(self, kind: str, number: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.command == "PATCH" and number:
            return 200, self.store.change(kind, number, body)
        if self.command == "GET":
            return 200, self.store.get(kind, number) if number else _page(list(self.store.objects[kind].values()))
        if number:
            raise Refused(405, "no such method")
        return 201, self.store.create(kind, body, body.get("registeredModelId", ""))

    def below_version(self, number: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.command == "GET":
            return 200, _page(self.store.below("model_artifacts", self.store.get("model_versions", number)["id"]))
        if self.command != "POST" or body.get("artifactType") != "model-artifact":
            raise Refused(400, "invalid artifact type")
        return 201, self.store.create("model_artifacts", body, number)


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": items, "size": len(items), "pageSize": 100, "nextPageToken": ""}


class ModelRegistryServer:
    """The server, running until `close`; over TLS where it is given a certificate and its key."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.store = Store()
        handler = type("Bound", (Handler,), {"store": self.store})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def named(self, kind: str) -> dict[str, dict[str, Any]]:
        """The objects of a kind by name."""
        return {each["name"]: each for each in self.store.objects[kind].values()}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

"""A model registry on the loopback address, as its OpenAPI document says and its own server answers.

The real one is a Go server with a database, which cannot be built here. Facts: kubeflow/model-registry,
api/openapi/model-registry.yaml and internal/core (409 for a second name below one parent, 400 for what is missing,
404 for what is not there, ids as text, PATCH leaves what it does not name).
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
        token: that is demanded; empty for none.
        bases: versions of the API that are served.
    """

    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    parents: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    token: str = ""
    bases: tuple[str, ...] = BASES
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, kind: str, body: dict[str, Any], parent: str = "") -> dict[str, Any]:
        self._check(kind, body)
        if "name" not in body or (kind == "model_versions" and "registeredModelId" not in body):
            raise Refused(400, "required property is missing")
        if any(each["name"] == body["name"] and self.parents.get(each["id"], "") == parent
               for each in self.objects[kind].values()):  # fmt: skip
            raise Refused(409, f"{kind} with name {body['name']} already exists")
        number = str(1 + sum(len(each) for each in self.objects.values()))
        made = {**body, "id": number, "createTimeSinceEpoch": "1", "lastUpdateTimeSinceEpoch": "1"}
        self.objects[kind][number] = made
        self.parents[number] = parent
        return made

    def change(self, kind: str, number: str, body: dict[str, Any]) -> dict[str, Any]:
        found = self.objects[kind].get(number)
        if found is None:
            raise Refused(404, f"no {kind} {number}")
        if _NOT_CHANGED & set(body):
            raise Refused(400, "a name cannot be changed")
        self._check(kind, body)
        found.update(body)
        return found

    def find(self, kind: str, name: str, parent: str) -> dict[str, Any]:
        for each in self.objects[kind].values():
            if each["name"] == name and self.parents.get(each["id"], "") == parent:
                return each
        raise Refused(404, f"no {kind} found")

    def _check(self, kind: str, body: dict[str, Any]) -> None:
        unknown = set(body) - _FIELDS[kind]
        if unknown:
            raise Refused(400, f"unknown fields {sorted(unknown)}")
        for value in body.get("customProperties", {}).values():
            wanted = {"MetadataStringValue": "string_value", "MetadataIntValue": "int_value"}[value["metadataType"]]
            if set(value) != {"metadataType", wanted} or not isinstance(value[wanted], str):
                raise Refused(400, "a custom property of another form")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_arguments: object) -> None:
        return

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        with self.store.lock:
            self.store.calls.append(f"{self.command} {self.path}")
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
        for kind, single in _KINDS.items():
            if path == f"/{single}" and self.command == "GET":
                return 200, self.store.find(kind, query["name"], query.get("parentResourceId", ""))
            if path == f"/{kind}" and self.command == "GET":
                items = list(self.store.objects[kind].values())
                return 200, {"items": items, "size": len(items), "pageSize": 100, "nextPageToken": ""}
            if path == f"/{kind}" and self.command == "POST":
                return 201, self.store.create(kind, body, body.get("registeredModelId", ""))
            changed = re.fullmatch(rf"/{kind}/(\d+)", path)
            if changed and self.command == "PATCH":
                return 200, self.store.change(kind, changed[1], body)
            if changed and self.command == "GET":
                return 200, self.store.objects[kind][changed[1]]
        below = re.fullmatch(r"/model_versions/(\d+)/artifacts", path)
        if below and self.command == "POST":
            return 201, self.store.create("model_artifacts", body, below[1])
        raise Refused(404, "no such path")


class ModelRegistryServer:
    """The server, running until `close`."""

    def __init__(self) -> None:
        self.store = Store()
        handler = type("Bound", (Handler,), {"store": self.store})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def named(self, kind: str) -> dict[str, dict[str, Any]]:
        """The objects of a kind by name."""
        return {each["name"]: each for each in self.store.objects[kind].values()}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

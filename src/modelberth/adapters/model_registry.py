"""The Kubeflow Model Registry over its REST interface: find, create, change.

    registered model -> model version -> model artifact

Names are unique below their parent; the registry answers 409 to a second one (its internal/core). Every call can be
made again: what is found is not created, and an answer that got lost is a 409 the next time.

Facts: kubeflow/model-registry, api/openapi/model-registry.yaml. OpenShift AI's registries serve v1alpha3; the project's
own client asks for v1 since 0.3.18, with the same objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from modelberth.adapters.http_messages import Answer, Request, shown_url
from modelberth.adapters.transport import Wire
from modelberth.base.errors import AuthError, BerthError, Conflict, IntegrityError, RemoteUnavailable, UsageError
from modelberth.base.text import printable, shorten

BASES = ("/api/model_registry/v1alpha3", "/api/model_registry/v1")
Document = dict[str, Any]
_WHO = "the model registry"


class ModelRegistry:
    """One registry.

    Args:
        url: of its REST service, without the path of the API.
        token: sent as a bearer token; empty for none. It goes to this host and to no other: redirects are not followed.
        ca: file of the authorities that sign its certificate; None for the system's.
    """

    def __init__(self, url: str, *, token: str = "", ca: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._base = BASES[0]
        self._token = token
        self._wire = Wire(verify=ca or True, attempts=4)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def check(self) -> None:
        """Make sure that a model registry answers there, and find out which version it speaks.

        Raises:
            UsageError: something else does. AuthError, RemoteUnavailable: as every call.
        """
        for self._base in BASES:
            found = self._call("GET", "/registered_models?pageSize=1")
            if found is not None and isinstance(found.get("items", []), list):
                return
        raise self._no_registry("it does not list registered models")

    def find(self, kind: str, name: str, parent: str | None = None) -> Document | None:
        """The object of that name; None where there is none.

        Args:
            kind: `registered_model`, `model_version` or `model_artifact`.
            name: any text.
            parent: id of what it is below; None for a registered model.
        """
        query = {"name": name, **({"parentResourceId": parent} if parent else {})}
        return self._call("GET", f"/{kind}?{urlencode(query)}")

    def create(self, path: str, fields: Mapping[str, Any]) -> Document:
        """Create an object below a path such as `registered_models`.

        Raises:
            Conflict: there is one of that name.
        """
        created = self._call("POST", f"/{path}", fields)
        if created is None:
            raise self._no_registry(f"it knows no {path}")
        return created

    def change(self, path: str, fields: Mapping[str, Any]) -> Document:
        """Change fields of an object at a path such as `model_versions/7`; those that are not named stay."""
        changed = self._call("PATCH", f"/{path}", fields)
        if changed is None:
            raise Conflict("what was found a moment ago is gone", where=f"{self.url}{self._base}/{path}")
        return changed

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Document | None:
        headers = {"Accept": "application/json", "User-Agent": "modelberth"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = Request(method, f"{self.url}{self._base}{path}", headers)
        content = b"" if body is None else json.dumps(body).encode()
        answer = self._wire.patiently(lambda: self._wire.ask(request, content), where=self.url, what=_WHO)
        return self._meaning(answer, shown_url(request.url))

    def _meaning(self, answer: Answer, where: str) -> Document | None:
        if answer.is_page:
            raise self._no_registry("a page for people came back")
        document = _document(answer.body)
        if answer.status in {200, 201} and document is not None:
            return document
        if answer.status == 404 and not answer.is_page:
            return None
        raise self._error(answer.status, document, where)

    def _error(self, status: int, document: Document | None, where: str) -> BerthError:
        said = shorten(printable(str((document or {}).get("message", ""))), 200)
        why = f"status {status}" + (f": {said}" if said else "")
        if status in {401, 403}:
            step = "give a token that may use the registry: --token-file FILE"
            return AuthError("the model registry refuses", where=where, why=why, next_step=step)
        if status == 409:
            return Conflict("there is one of that name already", where=where, why=why)
        if status == 400:
            return IntegrityError("the model registry does not take it", where=where, why=why)
        if status >= 500 or status == 429:
            return RemoteUnavailable("the model registry does not answer as it should", where=where, why=why,
                                     next_step="try again; ask whoever runs it for its log")  # fmt: skip
        return self._no_registry(why)

    def _no_registry(self, why: str) -> UsageError:
        return UsageError(
            "no model registry answers there", where=self.url, why=why,
            next_step="name the REST service of the registry: modelRegistry: {url: ...}, or --url",
        )  # fmt: skip


def _document(body: bytes) -> Document | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

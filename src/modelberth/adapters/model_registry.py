"""The Kubeflow Model Registry over its REST interface: find, create, change.

    registered model -> model version -> model artifact

Names are unique below their parent; the registry answers 409 to a second one (its internal/core). Every call can be
made again: what is found is not created, and an answer that got lost is a 409 the next time.

Facts: kubeflow/model-registry, api/openapi/model-registry.yaml. OpenShift AI's registries serve v1alpha3; the project's
own client asks for v1 since 0.3.18, with the same objects. A field that a PATCH does not name stays, an empty text
clears one, and `customProperties` are replaced as a whole (internal/converter). What is missing is 422, what is not
known 400 (internal/server/openapi).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from modelberth.adapters.http_messages import Answer, Request, shown_url
from modelberth.adapters.transport import Wire, tls_context
from modelberth.base.errors import AuthError, BerthError, Conflict, IntegrityError, RemoteUnavailable, UsageError
from modelberth.base.text import printable, shorten

BASES = ("/api/model_registry/v1alpha3", "/api/model_registry/v1")
Document = dict[str, Any]
_WHO = "the model registry"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ModelRegistry:
    """One registry.

    Args:
        url: of its REST service, with or without the path of the API.
        token: sent as a bearer token; empty for none. It goes to this host and to no other: redirects are not followed.
        ca: file of the authorities that sign its certificate; None for the system's.

    Raises:
        UsageError: the URL is none, or the file of authorities cannot be read.
    """

    def __init__(self, url: str, *, token: str = "", ca: str | None = None) -> None:
        self.url = service_url(url)
        if ca:
            tls_context(ca)
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
            if found is not None and ("items" in found or "nextPageToken" in found):
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
        found = self._call("GET", f"/{kind}?{urlencode(query)}")
        return None if found is None else self._with_id(found)

    def artifacts(self, version: str) -> list[Document]:
        """The model artifacts of a version, whatever their names."""
        found = self._call("GET", f"/model_versions/{version}/artifacts?artifactType=model-artifact&pageSize=100") or {}
        items = found.get("items")
        every = items if isinstance(items, list) else []
        known = [each for each in every if isinstance(each, dict) and each.get("artifactType") == "model-artifact"]
        return [self._with_id(each) for each in known]

    def create(self, path: str, fields: Mapping[str, Any]) -> Document:
        """Create an object below a path such as `registered_models`.

        Raises:
            Conflict: there is one of that name.
        """
        created = self._call("POST", f"/{path}", fields)
        if created is None:
            raise self._no_registry(f"it knows no {path}")
        return self._with_id(created)

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
        try:
            answer = self._wire.patiently(lambda: self._wire.ask(request, content), where=self.url, what=_WHO)
        except RemoteUnavailable as error:
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                error.next_step = "give the authority that signs its certificate: --ca FILE"
            raise
        return self._meaning(answer, shown_url(request.url))

    def _meaning(self, answer: Answer, where: str) -> Document | None:
        if answer.status in _REDIRECTS:
            raise self._no_registry(f"it sends to {_sent_to(answer)}, and a token follows to no other place")
        if answer.is_page:
            raise self._no_registry("a page for people came back")
        document = _document(answer.body)
        if answer.status in {200, 201} and document is not None:
            return document
        if answer.status == 404:
            return None
        raise self._error(answer.status, document, where)

    def _with_id(self, found: Document) -> Document:
        if not isinstance(found.get("id"), str):
            raise self._no_registry("an object without an id came back")
        return found

    def _error(self, status: int, document: Document | None, where: str) -> BerthError:
        said = shorten(printable(str((document or {}).get("message", ""))), 200)
        why = f"status {status}" + (f": {said}" if said else "")
        if status in {401, 403}:
            return AuthError("the model registry refuses", where=where, why=why, next_step=self._way_in(status))
        if status == 409:
            return Conflict("there is one of that name already", where=where, why=why)
        if status in {400, 422}:
            return IntegrityError("the model registry does not take it", where=where, why=why)
        if status >= 500 or status == 429:
            return RemoteUnavailable("the model registry does not answer as it should", where=where, why=why,
                                     next_step="try again; ask whoever runs it for its log")  # fmt: skip
        return self._no_registry(why)

    def _way_in(self, status: int) -> str:
        if not self._token:
            return "give a token that may use the registry: --token-file FILE"
        if status == 401:
            return "give a token that is valid here and has not expired: --token-file FILE"
        return "ask for the registry's Role (OpenShift AI: registry-user-<registry>) for whoever the token stands for"

    def _no_registry(self, why: str) -> UsageError:
        return UsageError(
            "no model registry answers there", where=self.url, why=why,
            next_step="name the REST service of the registry: modelRegistry: {url: ...}, or --url",
        )  # fmt: skip


def service_url(text: str) -> str:
    """The URL of a registry's REST service, without the path of the API, as people copy it with or without.

    Raises:
        UsageError: it is no http or https URL, or holds a password or a query. It is not repeated then.
    """
    try:
        parts = urlsplit(text)
        sound = bool(parts.hostname) and parts.scheme in {"http", "https"} and (parts.port or 1) > 0
    except ValueError:  # a bracket that is not closed, a port that is none
        sound = False
    if not sound or not text.isprintable() or " " in text or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "this is not the URL of a model registry", where="--url or modelRegistry.url",
            why="expected http://HOST[:PORT] or https://HOST[:PORT], without user, password and query",
            next_step="a token is given by --token-file FILE",
        )  # fmt: skip
    url = text.rstrip("/")
    for base in BASES:
        url = url.removesuffix(base)
    return url.rstrip("/")


def _sent_to(answer: Answer) -> str:
    """Scheme and host of a redirect; its path and query may hold what is not for messages."""
    try:
        parts = urlsplit(urljoin(answer.url, answer.headers.get("location", "")))
    except ValueError:
        return "another place"
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


def _document(body: bytes) -> Document | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

"""One cluster as flows see it: get, list, apply, patch, delete, logs, reviews, and what the server knows of kinds.

Objects are plain data. Writing is server-side apply with the field manager `modelberth`, strict, and never by force:
fields of others are an error with their owner, not a fight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from modelberth.adapters.at_once import at_once
from modelberth.adapters.kubernetes_api.errors import FieldConflict, error_of, field_conflict
from modelberth.adapters.kubernetes_api.kinds import Access, Document, Kind, Listing, Ref
from modelberth.adapters.kubernetes_api.kubeconfig import Login, Target, read_login
from modelberth.adapters.kubernetes_api.wire import APPLY, MERGE, Wire
from modelberth.base.errors import BerthError, PrerequisiteMissing, RemoteUnavailable
from modelberth.base.text import printable

MANAGER = "modelberth"
_PAGE = 500
_REVIEWS_AT_ONCE = 8
_MAX_RAW = 16 << 20
_LOG_LINE = 64 * 1024


def connect(target: Target) -> Cluster:
    """The chosen cluster. Nothing is asked of it yet.

    Raises:
        PrerequisiteMissing, UsageError: the kubeconfig is missing or wrong.
        AuthError: its credentials cannot be had.
    """
    login = read_login(target)
    return Cluster(login, Wire(login, target))


class Cluster:
    """A cluster, reached through one context.

    Attributes:
        context: its name.
        namespace: of the context, or the one that was chosen.
        user: name of the user's entry.
        server: URL of the API server.
    """

    def __init__(self, login: Login, wire: Wire) -> None:
        self.context, self.namespace, self.user, self.server = login.context, login.namespace, login.user, login.server
        self.wire = wire
        self._resources: dict[str, dict[str, Mapping[str, Any]]] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.wire.close()

    def version(self) -> str:
        """Version of the API server: `v1.33.4`."""
        return printable(str(self.wire.json("GET", "/version", "ask for the version").get("gitVersion", "")))

    def versions(self, group: str) -> tuple[str, ...]:
        """Versions of a group that are served, the preferred one first; empty where the group is not there."""
        try:
            found = self.wire.json("GET", f"/apis/{quote(group)}", f"look for {group}")
        except PrerequisiteMissing:
            return ()
        preferred = (found.get("preferredVersion") or {}).get("version")
        served = [str(each.get("version")) for each in found.get("versions") or []]
        return tuple(sorted(served, key=lambda each: each != preferred))

    def serves(self, kind: Kind) -> bool:
        """Whether the server has this kind in this version."""
        return kind.kind in self._known(kind.api_version)

    def resource(self, kind: Kind) -> str:
        """Its plural in paths: `inferenceservices`.

        Raises:
            PrerequisiteMissing: the server does not have it.
        """
        return str(self._found(kind)["name"])

    def is_namespaced(self, kind: Kind) -> bool:
        """Whether its objects stand in namespaces.

        Raises:
            PrerequisiteMissing: the server does not have it.
        """
        return bool(self._found(kind).get("namespaced"))

    def _found(self, kind: Kind) -> Mapping[str, Any]:
        found = self._known(kind.api_version).get(kind.kind)
        if found is None:
            raise PrerequisiteMissing(
                f"the cluster has no {kind.kind} of {kind.api_version}", where=self.server,
                why="its operator is not installed, or is another version",
                next_step="install its operator, or choose another --context",
            )  # fmt: skip
        return found

    def _known(self, api_version: str) -> dict[str, Mapping[str, Any]]:
        """Resources of a version by kind; asked for once."""
        if api_version not in self._resources:
            path = "/api/v1" if api_version == "v1" else f"/apis/{quote(api_version)}"
            try:
                found = self.wire.json("GET", path, f"look for {api_version}").get("resources") or []
            except PrerequisiteMissing:
                found = []
            self._resources[api_version] = {str(each["kind"]): each for each in found if "/" not in str(each["name"])}
        return self._resources[api_version]

    def path(self, kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path of a kind's objects, or of one.

        Raises:
            PrerequisiteMissing: the server does not have the kind.
        """
        root = "/api/v1" if kind.api_version == "v1" else f"/apis/{quote(kind.api_version)}"
        place = f"/namespaces/{quote(namespace, safe='')}" if namespace and self.is_namespaced(kind) else ""
        parts = [self.resource(kind), *(quote(each, safe="") for each in (name, subresource) if each)]
        return f"{root}{place}/{'/'.join(parts)}"

    def get(self, ref: Ref) -> Document | None:
        """The object; None where it, or its kind, is not there.

        Raises:
            BerthError: by meaning.
        """
        try:
            return self.wire.json("GET", self.path(ref.kind, ref.namespace, ref.name), f"get {ref}")
        except PrerequisiteMissing:
            return None

    def list(self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Listing:
        """Every object of a kind; read page by page, so that no answer is large.

        Args:
            kind: of the objects.
            namespace: None for all.
            labels: selector, as `app=x,tier!=y`.
            fields: selector, as `involvedObject.name=x`.

        Raises:
            PrerequisiteMissing: the server does not have the kind.
            BerthError: by meaning.
        """
        items: list[Document] = []
        query = {"limit": str(_PAGE)} | {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}
        what = f"list {self.resource(kind)}" + (f" in {namespace}" if namespace else "")
        while True:
            page = self.wire.json("GET", self.path(kind, namespace), what, query=query)
            items += [{"apiVersion": kind.api_version, "kind": kind.kind} | each for each in page.get("items") or []]
            about = page.get("metadata") or {}
            if not about.get("continue"):
                return Listing(tuple(items), str(about.get("resourceVersion", "")))
            query["continue"] = str(about["continue"])

    def apply(self, document: Document, *, dry_run: bool = False) -> Document:
        """Server-side apply; returns the object as it is stored, or would be.

        Raises:
            FieldConflict: somebody else manages fields of it; nothing was changed.
            InvalidManifest: the server does not take it.
            PrerequisiteMissing: its kind or namespace is not there.
            BerthError: by meaning.
        """
        ref = Ref.of(document)
        what = f"apply {ref}"
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        path = self.path(ref.kind, ref.namespace, ref.name)
        answer = self.wire.answer("PATCH", path, what, query=query, body=document, content_type=APPLY)
        if answer.status_code == 409:
            raise self._conflict(answer.content, document, ref, what)
        if answer.status_code >= 400:
            raise error_of(answer.status_code, answer.content, what, self.server)
        stored: Document = answer.json()
        return stored

    def _conflict(self, body: bytes, document: Document, ref: Ref, what: str) -> BerthError:
        stored = None
        with suppress(BerthError):
            stored = self.get(ref)
        error = field_conflict(body, document, stored, what, self.server)
        if isinstance(error, FieldConflict):
            error.next_step = "change it at its owner, or leave these fields out of berth.yaml"
        return error

    def create(self, document: Document) -> Document:
        """Create an object that must not be there yet.

        Raises:
            Conflict: it is there.
            BerthError: by meaning.
        """
        ref = Ref.of(document)
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return self.wire.json(
            "POST", self.path(ref.kind, ref.namespace), f"create {ref}", query=query, body=document, again=False
        )

    def replace(self, document: Document) -> Document:
        """Put an object in the place of the one with the same resourceVersion.

        Raises:
            Conflict: it has been changed in between.
            BerthError: by meaning.
        """
        ref = Ref.of(document)
        path = self.path(ref.kind, ref.namespace, ref.name)
        return self.wire.json("PUT", path, f"update {ref}", query={"fieldManager": MANAGER}, body=document, again=False)

    def patch(self, ref: Ref, change: Document, *, dry_run: bool = False, subresource: str = "") -> Document:
        """Merge a change into an object.

        Raises:
            BerthError: by meaning.
        """
        query = {"fieldManager": MANAGER} | ({"dryRun": "All"} if dry_run else {})
        path = self.path(ref.kind, ref.namespace, ref.name, subresource)
        return self.wire.json("PATCH", path, f"patch {ref}", query=query, body=change, content_type=MERGE)

    def delete(self, ref: Ref, *, propagation: str = "Foreground") -> bool:
        """Delete an object, and with it what it owns; False where it was not there.

        Raises:
            BerthError: by meaning.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            self.wire.json("DELETE", self.path(ref.kind, ref.namespace, ref.name), f"delete {ref}", body=body)
        except PrerequisiteMissing:
            return False
        return True

    def review(self, wanted: Iterable[Access]) -> tuple[Access, ...]:
        """Those of `wanted` that we may not do, in their order.

        Raises:
            BerthError: the server cannot be asked.
        """
        accesses = tuple(dict.fromkeys(wanted))
        allowed = at_once(self._may, accesses, _REVIEWS_AT_ONCE)
        return tuple(access for access, may in zip(accesses, allowed, strict=True) if not may)

    def _may(self, access: Access) -> bool:
        resource, _, subresource = access.resource.partition("/")
        attributes = {"verb": access.verb, "group": access.group, "resource": resource, "subresource": subresource,
                      "namespace": access.namespace or ""}  # fmt: skip
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes}}  # fmt: skip
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self.wire.json("POST", path, "ask what we may do", body=body)
        return bool((answer.get("status") or {}).get("allowed"))

    def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, tail: int | None = None,
        follow: bool = False, timestamps: bool = False, since: str = "", most_bytes: int | None = None,
        silence: float | None = None,
    ) -> Iterator[bytes]:  # fmt: skip
        """Lines of a container's log, without their ends; one that is longer than 64 KiB comes in pieces.

        Args:
            namespace: of the pod.
            pod: its name.
            container: its name.
            previous: the log of the run before the last restart.
            tail: lines from the end; None for all.
            follow: go on until the container ends.
            timestamps: before each line.
            since: nothing from before this time (RFC 3339, whole seconds); empty for all.
            most_bytes: of the log, after which it is cut; None for all.
            silence: longest time without a byte; None for the time of a request.

        Raises:
            PrerequisiteMissing: there is no such pod.
            BerthError: by meaning; a container that has not started is an InvalidManifest of 400.
        """
        query = {"container": container} | {
            name: value
            for name, value in (
                ("previous", "true" if previous else ""), ("tailLines", "" if tail is None else str(tail)),
                ("follow", "true" if follow else ""), ("timestamps", "true" if timestamps else ""),
                ("sinceTime", since), ("limitBytes", str(most_bytes or "")),
            )
            if value
        }  # fmt: skip
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        what = f"read the log of {pod}/{container} in {namespace}"
        with self.wire.stream(path, what, query=query, read_seconds=silence) as answer:
            yield from lines_of(answer.iter_bytes())

    def raw(self, path: str) -> bytes:
        """What is at a path of the API, such as metrics through a pod's proxy; at most 16 MiB.

        Raises:
            BerthError: by meaning.
        """
        pieces: list[bytes] = []
        size = 0
        with self.wire.stream(path, f"get {path}") as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > _MAX_RAW:
                    raise RemoteUnavailable(
                        "the answer is too large", where=self.server, why=f"more than {_MAX_RAW:,} bytes"
                    )
        return b"".join(pieces)


def lines_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks as lines without their ends; a longer one than 64 KiB is handed on in pieces."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        while len(rest) > _LOG_LINE:
            yield rest[:_LOG_LINE]
            rest = rest[_LOG_LINE:]
    if rest:
        yield rest


def dropped_fields(sent: Any, stored: Any, path: str = "") -> tuple[str, ...]:
    """Paths of what was sent and is not in what was stored: fields that the server knows nothing of.

    Lists are compared by position where both are as long; else only their being there counts.
    """
    if isinstance(sent, dict):
        if not isinstance(stored, dict):
            return (path or ".",)
        missing = [f"{path}.{key}" for key, value in sent.items() if key not in stored and value not in (None, {}, [])]
        below = [
            each for key in sent if key in stored for each in dropped_fields(sent[key], stored[key], f"{path}.{key}")
        ]
        return (*missing, *below)
    if isinstance(sent, list) and isinstance(stored, list) and len(sent) == len(stored):
        return tuple(each for i, value in enumerate(sent) for each in dropped_fields(value, stored[i], f"{path}[{i}]"))
    return ()

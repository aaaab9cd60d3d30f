"""What the double answers to each verb: as a real server does, refusals included."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from cluster_schemas import problems
from kube_server import apply
from kube_server.resources import Resource
from kube_server.store import Document, Key

if TYPE_CHECKING:
    from kube_server.server import KubeServer


def status(code: int, reason: str, message: str, causes: list[dict[str, str]] | None = None) -> Document:
    """A Status object."""
    details = {"causes": causes} if causes else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "details": details, "code": code}  # fmt: skip


class Refused(Exception):
    """An answer that is none: status and Status object."""

    def __init__(self, code: int, reason: str, message: str, causes: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status(code, reason, message, causes)


class Answers:
    """The answers to one user."""

    def __init__(self, owner: KubeServer, user: str) -> None:
        self._owner, self._user = owner, user

    # --- what there is ----------------------------------------------------------------------------------------

    def api_version(self, resource: Resource, version: str) -> str:
        """`serving.kserve.io/v1beta1`."""
        return f"{resource.group}/{version}" if resource.group else version

    def resource(self, match: re.Match[str]) -> Resource | None:
        """The resource that a path names."""
        group, version = match["group"] or "", match["version"] or "v1"
        return next(
            (each for each in self._owner.resources
             if (each.group, each.plural) == (group, match["plural"]) and version in each.versions), None,
        )  # fmt: skip

    def discovery(self, path: str) -> Document | None:
        """/version, and groups and versions with their resources; None for any other path."""
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.4"}
        if path == "/api/v1":
            return self._resources("", "v1")
        parts = path.strip("/").split("/")
        if parts[0] != "apis" or not 2 <= len(parts) <= 3:
            return None
        served = [each for each in self._owner.resources if each.group == parts[1]]
        if len(parts) == 3:
            return self._resources(parts[1], parts[2]) if any(parts[2] in each.versions for each in served) else None
        if not served:
            return None
        versions = list(dict.fromkeys(version for each in served for version in each.versions))
        listed = [{"groupVersion": f"{parts[1]}/{each}", "version": each} for each in versions]
        return {"kind": "APIGroup", "name": parts[1], "versions": listed, "preferredVersion": listed[0]}

    def _resources(self, group: str, version: str) -> Document:
        found = [
            {"name": each.plural, "kind": each.kind, "namespaced": each.namespaced}
            for each in self._owner.resources
            if each.group == group and version in each.versions
        ]
        subresources = [{"name": f"{each['name']}/status", "kind": each["kind"], "namespaced": True} for each in found]
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "groupVersion": name, "resources": [*found, *subresources]}

    # --- who may ----------------------------------------------------------------------------------------------

    def review(self, body: Document) -> Document:
        """A SelfSubjectAccessReview with its answer."""
        wanted = body["spec"]["resourceAttributes"]
        name = wanted["resource"] + (f"/{wanted['subresource']}" if wanted.get("subresource") else "")
        allowed = self._owner.may(self._user, wanted["verb"], name, wanted.get("namespace", ""))
        return body | {"status": {"allowed": allowed}}

    def check(self, verb: str, resource: Resource, namespace: str, name: str = "") -> None:
        """Refuse what the user may not do."""
        if self._owner.may(self._user, verb, name or resource.plural, namespace):
            return
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        text = (
            f'{resource.name} is forbidden: User "{self._user}" cannot {verb} resource "{name or resource.plural}" '
            f'in API group "{resource.group}"{where}'
        )
        raise Refused(403, "Forbidden", text)

    # --- verbs ------------------------------------------------------------------------------------------------

    def answer(
        self, method: str, resource: Resource, version: str, namespace: str, name: str, sub: str,
        query: dict[str, str], body: bytes, content_type: str,
    ) -> tuple[int, Document]:  # fmt: skip
        """The answer to a request for objects."""
        self._resource, self._version, self._sub, self._query = resource, version, sub, query
        self._dry = query.get("dryRun") == "All"
        key = (resource.name, namespace if resource.namespaced else "", name)
        if method == "GET":
            return (200, self._get(key)) if name else (200, self._list(namespace))
        sent = json.loads(body) if body else {}
        if method == "DELETE":
            return 200, self._delete(key)
        if method == "POST":
            return 201, self._create(namespace, sent)
        if method == "PUT":
            return 200, self._replace(key, sent)
        if "apply-patch" in content_type:
            return self._apply(key, sent)
        return 200, self._merge(key, sent)

    def _shown(self, document: Document) -> Document:
        return document | {"apiVersion": self.api_version(self._resource, self._version), "kind": self._resource.kind}

    def _get(self, key: Key) -> Document:
        self.check("get", self._resource, key[1])
        return self._shown(self._existing(key))

    def _existing(self, key: Key) -> Document:
        found = self._owner.store.get(key)
        if found is None:
            raise Refused(404, "NotFound", f'{self._resource.name} "{key[2]}" not found')
        return found

    def selected(self, document: Document, query: dict[str, str]) -> bool:
        """Whether an object passes the selectors of a query."""
        labels = document["metadata"].get("labels") or {}
        by_label = (_passes(labels.get, each) for each in _requirements(query.get("labelSelector")))
        by_field = (
            _passes(lambda path: _field(document, path), each) for each in _requirements(query.get("fieldSelector"))
        )
        return all(by_label) and all(by_field)

    def _list(self, namespace: str) -> Document:
        self.check("list", self._resource, namespace)
        store = self._owner.store
        items = [each for each in store.listed(self._resource.name, namespace) if self.selected(each, self._query)]
        about: dict[str, Any] = {"resourceVersion": str(store.version)}
        start = int(base64.b64decode(self._query["continue"])) if self._query.get("continue") else 0
        limit = int(self._query.get("limit") or 0)
        if limit and start + limit < len(items):
            about["continue"] = base64.b64encode(str(start + limit).encode()).decode()
        shown = items[start : start + limit] if limit else items[start:]
        bare = [{k: v for k, v in each.items() if k not in {"apiVersion", "kind"}} for each in shown]
        api_version = self.api_version(self._resource, self._version)
        return {"apiVersion": api_version, "kind": f"{self._resource.kind}List", "metadata": about, "items": bare}

    def _delete(self, key: Key) -> Document:
        self.check("delete", self._resource, key[1])
        self._existing(key)
        if self._resource.kind == "Namespace":
            self._empty_namespace(key[2])
        gone = self._owner.store.remove(key)
        return self._shown(gone or {})

    def _empty_namespace(self, name: str) -> None:
        store = self._owner.store
        for each in [key for key in list(store.objects) if key[1] == name]:
            store.remove(each)

    def _check_place(self, namespace: str) -> None:
        if not self._resource.namespaced:
            return
        found = self._owner.store.get(("namespaces", "", namespace))
        if found is None:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        if found["metadata"].get("deletionTimestamp"):
            text = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise Refused(403, "Forbidden", f'{self._resource.plural} "x" is forbidden: {text}')

    def _create(self, namespace: str, sent: Document) -> Document:
        self.check("create", self._resource, namespace)
        self._check_place(namespace)
        key = (self._resource.name, namespace if self._resource.namespaced else "", sent["metadata"]["name"])
        if self._owner.store.get(key) is not None:
            raise Refused(409, "AlreadyExists", f'{self._resource.name} "{key[2]}" already exists')
        if wrong := self._wrong(sent):
            raise Refused(422, "Invalid", "; ".join(wrong))
        return self._stored(key, self._with_manager(None, sent))

    def _replace(self, key: Key, sent: Document) -> Document:
        self.check("update", self._resource, key[1])
        found = self._existing(key)
        version = sent["metadata"].get("resourceVersion")
        if version and version != found["metadata"]["resourceVersion"]:
            text = (
                f'Operation cannot be fulfilled on {self._resource.name} "{key[2]}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
            raise Refused(409, "Conflict", text)
        return self._stored(key, self._with_manager(found, sent))

    def _merge(self, key: Key, change: Document) -> Document:
        self.check("patch", self._resource, key[1], f"{self._resource.plural}/{self._sub}" if self._sub else "")
        found = self._existing(key)
        if self._sub == "scale":
            change = {"spec": {"replicas": change["spec"]["replicas"]}}
        elif self._sub == "status":
            change = {"status": change.get("status")}
        else:
            change = {name: value for name, value in change.items() if name != "status"}
        return self._stored(key, self._with_manager(found, apply.merge_patch(found, change)))

    def _with_manager(self, before: Document | None, after: Document) -> Document:
        """Fields that an update changed belong to whoever did it."""
        name = self._query.get("fieldManager") or "unknown"
        old = apply.managed(before) if before else {}
        changed = {path for path, value in apply.managed(after).items() if old.get(path) != value}
        known = apply.owners(before) if before and before["metadata"].get("managedFields") else {}
        owners = {other: fields - changed for other, fields in known.items()}
        owners[name] = owners.get(name, set()) | changed
        about = (after.get("metadata") or {}) | {"managedFields": apply.managed_fields(owners)}
        return after | {"metadata": about}

    def _apply(self, key: Key, sent: Document) -> tuple[int, Document]:
        self.check("patch", self._resource, key[1])
        found = self._owner.store.get(key)
        if found is None:
            self.check("create", self._resource, key[1])
            self._check_place(key[1])
        if wrong := self._wrong(sent):
            kind = f"{self.api_version(self._resource, self._version)}, Kind={sent.get('kind')}"
            text = f"failed to create typed patch object ({key[1]}/{key[2]}; {kind}): {wrong[0]}"
            raise Refused(500, "", text)
        manager = self._query["fieldManager"]
        if found is not None and self._query.get("force") != "true":
            causes = apply.conflicts(found, sent, manager)
            if causes:
                count = len(causes)
                noun = "conflict" if count == 1 else "conflicts"
                raise Refused(409, "Conflict", f"Apply failed with {count} {noun}", causes)
        if found is not None:
            apply.give_up(found, sent, manager)
        stored = self._stored(key, apply.merged(found, sent, manager))
        return (200 if found else 201), stored

    def _wrong(self, sent: Document) -> list[str]:
        if not self._owner.crds:
            return []
        found = problems([sent], self._owner.crds)
        return [each.partition(": ")[2] for each in found if "no schema of" not in each]

    def _stored(self, key: Key, document: Document) -> Document:
        document.pop("apiVersion", None)
        document = {
            "apiVersion": self.api_version(self._resource, self._version),
            "kind": self._resource.kind,
        } | document
        if not key[1]:
            document["metadata"].pop("namespace", None)
        else:
            document["metadata"]["namespace"] = key[1]
        if self._dry:
            before = self._owner.store.get(key)
            about = {"uid": "dry-run", "creationTimestamp": "2026-01-01T00:00:00Z"} if before is None else {}
            return document | {"metadata": document["metadata"] | about}
        return self._owner.store.put(key, document, status_only=self._sub == "status")


def _requirements(selector: str | None) -> list[str]:
    return [each.strip() for each in (selector or "").split(",") if each.strip()]


def _passes(value_of: Any, requirement: str) -> bool:
    if "!=" in requirement:
        name, _, value = requirement.partition("!=")
        return value_of(name) != value
    if "=" in requirement:
        name, _, value = requirement.partition("=")
        return value_of(name) == value.lstrip("=")
    return value_of(requirement) is not None


def _field(document: Document, path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value

"""What an API server says when it refuses, as one error a meaning.

Facts, seen on Kubernetes 1.35 and 1.36: server-side apply answers an unknown field or a wrong type with HTTP 500 and
"failed to create typed patch object": that is an invalid manifest, and asking again changes nothing. A conflict is 409
with one cause a field, whose message names the other manager.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelberth.adapters.kubernetes_api.kinds import Document
from modelberth.base.errors import AuthError, BerthError, Conflict, PrerequisiteMissing, RemoteUnavailable, UsageError
from modelberth.base.text import printable, shorten

_TYPED_PATCH = "failed to create typed patch object"
_MANAGER = re.compile(r'conflict with "(?P<manager>[^"]{1,200})"')
_WEBHOOK = re.compile(r'admission webhook "(?P<name>[^"]{1,253})" denied the request:? ?(?P<why>.*)', re.S)
_STEP = re.compile(r"\.([A-Za-z0-9_./-]+)|\[([^\]]{1,300})\]")
_CAP = 600


@dataclass(frozen=True)
class FieldOwner:
    """One field that somebody else manages.

    Attributes:
        path: of the field, as the server writes it: `.spec.predictor.minReplicas`.
        manager: who manages it.
        ours: the value that was sent; None when it cannot be told.
        theirs: the value that is there; None when it cannot be told.
    """

    path: str
    manager: str
    ours: object = None
    theirs: object = None


class FieldConflict(Conflict):
    """Server-side apply met fields of others; nothing was changed."""

    def __init__(self, what: str, fields: tuple[FieldOwner, ...], **details: str) -> None:
        super().__init__(what, **details)
        self.fields = fields


class InvalidManifest(UsageError):
    """The API server does not take an object; `why` has every field that it names."""


class Gone(BerthError):
    """The history that a watch or a list wanted to go on from is no longer kept (410)."""

    exit_code = 9


def status_of(body: bytes) -> Mapping[str, Any]:
    """The Status object in an answer; empty where there is none, as from a proxy."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def error_of(code: int, body: bytes, what: str, server: str) -> BerthError:
    """The error that an answer means.

    Args:
        code: HTTP status.
        body: of the answer, capped.
        what: what was asked for: `patch InferenceService private-ai/mistral`.
        server: that was asked.
    """
    status = status_of(body)
    said = shorten(printable(str(status.get("message") or "")), _CAP)
    # A path that a server knows nothing of, as of a group that is not installed, is "404 page not found" in plain text.
    unknown_path = code == 404 and body.strip() == b"404 page not found"
    if status.get("kind") != "Status" and code != 401 and not unknown_path:
        return _no_api_server(code, body, what, server)
    if code == 401:
        return AuthError(
            f"the cluster does not know who we are: {what}", where=server, why=said,
            next_step="log in again: oc login, or your cloud's login",
        )  # fmt: skip
    if match := _WEBHOOK.search(str(status.get("message") or "")):
        why = shorten(printable(match["why"]), _CAP)
        return UsageError(f"a webhook refused: {what}", where=printable(match["name"]), why=why)
    if code == 403:
        return AuthError(
            f"not allowed: {what}",
            where=server,
            why=said,
            next_step="berth deploy names every right that is missing, with the Role",
        )
    if code == 404:
        return PrerequisiteMissing(f"not there: {what}", where=server, why=said)
    if code == 409:
        return Conflict(f"somebody else was there before: {what}", where=server, why=said)
    if code == 410:
        return Gone(f"no longer kept: {what}", where=server, why=said)
    if code in {400, 413, 415, 422} or (code == 500 and _TYPED_PATCH in said):
        return InvalidManifest(f"the API server does not take it: {what}", where=server, why=_fields(status, said))
    return RemoteUnavailable(f"the API server answered {code}: {what}", where=server, why=said)


def is_refusal(code: int, body: bytes) -> bool:
    """Whether asking again cannot help although the status is one of a server's own failure."""
    return code == 500 and _TYPED_PATCH.encode() in body


def _no_api_server(code: int, body: bytes, what: str, server: str) -> BerthError:
    if code in {429, 500, 502, 503, 504}:
        return RemoteUnavailable(
            f"the API server answered {code}: {what}", where=server,
            why=shorten(printable(body[:300].decode(errors="replace")), 200),
        )  # fmt: skip
    page = body.lstrip()[:1] == b"<"
    why = (
        "a page for people came back: a proxy, or another service"
        if page
        else f"status {code}, and no Kubernetes Status"
    )
    return UsageError(
        "no Kubernetes API server answers there",
        where=server,
        why=why,
        next_step="kubectl config view, or log in again",
    )


def _fields(status: Mapping[str, Any], said: str) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    lines = [
        shorten(printable(f"{each.get('field', '')}: {each.get('message', '')}"), _CAP)
        for each in causes
        if isinstance(each, dict) and each.get("field")
    ]
    return "\n".join(lines) or said


def field_conflict(body: bytes, sent: Document, stored: Document | None, what: str, server: str) -> BerthError:
    """The error of a 409: with fields and owners where server-side apply names them."""
    causes = ((status_of(body).get("details") or {}).get("causes")) or []
    fields = tuple(
        _owner(each, sent, stored)
        for each in causes
        if isinstance(each, dict) and each.get("reason") == "FieldManagerConflict"
    )
    if not fields:
        return error_of(409, body, what, server)
    lines = [_conflict_text(each) for each in fields]
    return FieldConflict(f"fields are managed by somebody else: {what}", fields, where=server, why="\n".join(lines))


def _owner(cause: Mapping[str, Any], sent: Document, stored: Document | None) -> FieldOwner:
    path = printable(str(cause.get("field", "")))
    match = _MANAGER.search(str(cause.get("message", "")))
    manager = printable(match["manager"]) if match else "somebody"
    return FieldOwner(path, manager, value_at(sent, path), value_at(stored, path))


def _conflict_text(owner: FieldOwner) -> str:
    values = ", ".join(
        f"{name} {shorten(printable(json.dumps(value)), 80)}"
        for name, value in (("ours", owner.ours), ("theirs", owner.theirs))
        if value is not None
    )
    return f"{owner.path}: managed by {owner.manager}" + (f" ({values})" if values else "")


def value_at(document: Any, path: str) -> Any:
    """The value at a path as the server writes it (`.a.b[name="x"].c`, `.a[0]`); None where there is none."""
    value = document
    for name, selector in _STEP.findall(path):
        value = _selected(value, selector) if selector else _member(value, name)
        if value is None:
            return None
    return value


def _member(value: Any, name: str) -> Any:
    """A member of a mapping; a label's key has dots, so the longest name that is there is taken."""
    while isinstance(value, dict) and name not in value and "." in name:
        head, _, rest = name.partition(".")
        if head not in value:
            return None
        value, name = value[head], rest
    return value.get(name) if isinstance(value, dict) else None


def _selected(value: Any, selector: str) -> Any:
    if not isinstance(value, list):
        return None
    if selector.isdigit():
        return value[int(selector)] if int(selector) < len(value) else None
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', selector))
    if selector.startswith("="):  # a set of values: ="x"
        return next((each for each in value if json.dumps(each) == selector[1:]), None)
    return next(
        (each for each in value if isinstance(each, dict) and all(str(each.get(k)) == v for k, v in wanted.items())),
        None,
    )

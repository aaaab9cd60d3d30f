"""Which cluster, and as whom: kubeconfig files read and merged as kubectl does, or a pod's own service account.

Every fault is told with its file and the command that leads on. Values of secrets are read when they are needed, and
shown nowhere.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelberth.base.errors import BerthError, PrerequisiteMissing, UsageError
from modelberth.base.text import did_you_mean, printable, shorten
from modelberth.base.yamlio import read_documents

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT = "~/.kube/config"


@dataclass(frozen=True)
class Target:
    """What a user chose on the command line.

    Attributes:
        kubeconfig: file instead of $KUBECONFIG and ~/.kube/config.
        context: of it, instead of its current one.
        namespace: instead of the context's.
        as_user: to be impersonated.
        timeout: seconds of one request.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    as_user: str | None = None
    timeout: float = 30.0


IN_CLUSTER = "in-cluster"
"""The context of a pod's own service account."""


@dataclass(frozen=True)
class Login:
    """How to reach a cluster, and who says so. Its text form shows no credentials.

    Attributes:
        context: its name; IN_CLUSTER for a pod's own.
        server: URL of the API server.
        namespace: of the context.
        user: name of the user's entry.
        cluster: the entry of the cluster, as it stands in its file.
        identity: the entry of the user, as it stands in its file.
        folder: that paths in the entries are relative to.
    """

    context: str
    server: str
    namespace: str
    user: str
    cluster: Mapping[str, Any] = field(repr=False)
    identity: Mapping[str, Any] = field(repr=False)
    folder: Path = Path()

    def content(self, entry: Mapping[str, Any], name: str) -> bytes | None:
        """What `<name>-data` or the file `<name>` holds; None where there is neither.

        Raises:
            UsageError: it is no base64, or the file cannot be read.
        """
        encoded = entry.get(f"{name}-data")
        if encoded:
            try:
                return base64.b64decode("".join(str(encoded).split()), validate=True)
            except (binascii.Error, ValueError):
                raise UsageError(f"{name}-data is no base64", where=f"context {self.context}") from None
        path = entry.get(name)
        if not path:
            return None
        file = self.folder / str(path)
        try:
            return file.read_bytes()
        except OSError as error:
            raise UsageError(
                f"the file of {name} cannot be read", where=str(file), why=error.strerror or "",
                next_step="log in to the cluster again",
            ) from error  # fmt: skip


def read_login(target: Target, environment: Mapping[str, str] = os.environ) -> Login:
    """Find the chosen context.

    Args:
        target: what was chosen.
        environment: KUBECONFIG, HOME, and what a pod finds.

    Raises:
        PrerequisiteMissing: there is no kubeconfig, or it names no context.
        UsageError: it cannot be read, or has no such context, cluster or user.
    """
    paths = _paths(target, environment)
    found = [path for path in paths if path.exists()]
    if not found:
        if target.kubeconfig is None and environment.get("KUBERNETES_SERVICE_HOST") and _SERVICE_ACCOUNT.is_dir():
            return _in_cluster(target, environment)
        raise PrerequisiteMissing(
            "there is no kubeconfig", where=", ".join(map(str, paths)),
            next_step="oc login https://API:6443, or name a file: --kubeconfig FILE",
        )  # fmt: skip
    merged = _Merged()
    for path in found:
        merged.add(path)
    return _chosen(merged, target, found)


def _paths(target: Target, environment: Mapping[str, str]) -> list[Path]:
    if target.kubeconfig:
        return [target.kubeconfig]
    listed = [Path(each).expanduser() for each in environment.get("KUBECONFIG", "").split(os.pathsep) if each]
    return listed or [Path(_DEFAULT).expanduser()]


class _Merged:
    """Entries of several files: the first that says something wins, as with kubectl."""

    def __init__(self) -> None:
        self.current = ""
        self.entries: dict[str, dict[str, tuple[Mapping[str, Any], Path]]] = {
            "contexts": {}, "clusters": {}, "users": {},
        }  # fmt: skip

    def add(self, path: Path) -> None:
        data = _read(path)
        self.current = self.current or str(data.get("current-context") or "")
        for plural, known in self.entries.items():
            for entry in data.get(plural) or []:
                content = entry.get(plural[:-1]) if isinstance(entry, dict) else None
                if isinstance(content, dict):
                    known.setdefault(str(entry.get("name", "")), (content, path.parent))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        documents = read_documents(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError("the kubeconfig cannot be read", where=str(path), why=error.strerror or "") from error
    except BerthError as error:
        raise UsageError(
            "the kubeconfig is not valid YAML", where=str(path), why=error.why, next_step="log in to the cluster again"
        ) from None
    data = documents[0].data if documents else {}
    if not isinstance(data, dict):
        raise UsageError("that is no kubeconfig", where=str(path), why="expected a mapping with contexts and clusters")
    return data


def _chosen(merged: _Merged, target: Target, paths: list[Path]) -> Login:
    where = ", ".join(map(str, paths))
    contexts = merged.entries["contexts"]
    name = target.context or merged.current
    if not name:
        known = ", ".join(sorted(contexts)) or "none"
        raise PrerequisiteMissing(
            "the kubeconfig has no current context", where=where, why=f"its contexts: {shorten(printable(known), 300)}",
            next_step="kubectl config use-context NAME, or --context NAME",
        )  # fmt: skip
    if name not in contexts:
        hint = did_you_mean(name, list(contexts)[:50])
        raise UsageError(
            f"the kubeconfig has no context {shorten(printable(name), 100)}", where=where,
            why=shorten(printable(hint), 300), next_step="kubectl config get-contexts",
        )  # fmt: skip
    context, folder = contexts[name]
    cluster, cluster_folder = _entry(merged, "clusters", context.get("cluster"), name, where)
    server = str(cluster.get("server") or "")
    if not server.startswith(("https://", "http://")):
        raise UsageError(f"the cluster of context {name} has no server", where=where)
    user = str(context.get("user") or "")
    identity, user_folder = _entry(merged, "users", user, name, where) if user else ({}, folder)
    namespace = target.namespace or str(context.get("namespace") or "default")
    # Entries of one context may come from several files; paths in them are relative to their own.
    return Login(name, server.rstrip("/"), namespace, user, _absolute(cluster, cluster_folder),
                 _absolute(identity, user_folder), folder)  # fmt: skip


def _absolute(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    paths = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return {key: str(folder / str(value)) if key in paths and value else value for key, value in entry.items()}


def _entry(merged: _Merged, plural: str, name: object, context: str, where: str) -> tuple[Mapping[str, Any], Path]:
    found = merged.entries[plural].get(str(name or ""))
    if found is None:
        noun = plural[:-1]
        raise UsageError(f"context {context} names a {noun} that is not there: {name}", where=where)
    return found


def _in_cluster(target: Target, environment: Mapping[str, str]) -> Login:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    bracketed = f"[{host}]" if ":" in host else host
    own = _SERVICE_ACCOUNT / "namespace"
    namespace = target.namespace or (own.read_text().strip() if own.exists() else "default")
    return Login(
        IN_CLUSTER, f"https://{bracketed}:{port}", namespace, "service account",
        {"certificate-authority": str(_SERVICE_ACCOUNT / "ca.crt")}, {"tokenFile": str(_SERVICE_ACCOUNT / "token")},
    )  # fmt: skip

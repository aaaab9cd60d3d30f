"""What a must-gather or an `oc adm inspect` folder holds for a diagnosis: objects, and containers' logs.

    namespaces/<namespace>/core/pods.yaml                       lists, and one file an object
    namespaces/<namespace>/<group>/<resource>/<name>.yaml
    namespaces/<namespace>/pods/<pod>/<container>/<container>/logs/current.log, previous.log
    cluster-scoped-resources/<group>/<resource>...

It is walked three times: for names, to find the namespaces that serve models; for their objects; and for the logs that
matter, each as a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelberth.adapters.gathered import GatheredFile, Gathering, Readable
from modelberth.base.errors import BerthError, UsageError
from modelberth.base.text import did_you_mean, printable, shorten
from modelberth.base.yamlio import read_documents
from modelberth.findings.diagnosis.diagnose import Log

_LOG = re.compile(
    r"(?:.*/)?namespaces/(?P<namespace>[^/]+)/pods/(?P<pod>[^/]+)/(?P<container>[^/]+)/[^/]+/logs/"
    r"(?P<which>current|previous)(?:\.insecure)?\.log"
)
_IN_NAMESPACE = re.compile(r"(?:.*/)?namespaces/(?P<namespace>[^/]+)/(?P<rest>.+)\.(?:yaml|json)")
_OF_CLUSTER = re.compile(r"(?:.*/)?cluster-scoped-resources/(?P<rest>.+)\.(?:yaml|json)")
_SERVING = ("serving.kserve.io/",)
_WANTED = (
    "core/pods", "core/events", "core/persistentvolumeclaims", "core/services", "pods/", "apps/deployments",
    "apps/replicasets", "batch/jobs", "serving.kserve.io/", "kueue.x-k8s.io/", "events.k8s.io/events",
    "route.openshift.io/",
)  # fmt: skip
_WANTED_OF_CLUSTER = ("core/nodes", "kueue.x-k8s.io/", "nvidia.com/", "serving.kserve.io/", "machine.openshift.io/")
_MAX_OBJECT_FILE = 32 << 20
_MAX_OBJECTS = 50_000

Document = dict[str, Any]


@dataclass(frozen=True)
class LogPlace:
    """Whose log it is.

    Attributes:
        namespace: of the pod.
        pod: its name.
        container: its name.
        previous: the log of the run before the last restart.
        path: inside of the gathering.
    """

    namespace: str
    pod: str
    container: str
    previous: bool
    path: str

    @property
    def source(self) -> str:
        """Name for evidence: `mistral-0/kserve-container (previous)`."""
        return f"{self.pod}/{self.container}{' (previous)' if self.previous else ''}"


@dataclass
class Gathered:
    """What is in a gathering; the logs are read when they are asked for.

    Attributes:
        path: folder or archive.
        namespaces: that were looked at.
        objects: each once, without managed fields.
        places: the logs, in the order of the gathering.
        notes: what could not be read, or was left out.
    """

    path: Path
    namespaces: tuple[str, ...]
    objects: list[Document] = field(default_factory=list)
    places: list[LogPlace] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def logs(self, places: Sequence[LogPlace]) -> list[Log]:
        """Logs that are read one after the other, in this order, as an archive has them."""
        files = Gathering(self.path).files()
        return [Log(each.source, _blocks(files, each.path), each.pod, each.container) for each in places]


def _blocks(files: Iterator[GatheredFile], path: str) -> Iterator[bytes]:
    """The blocks of one log out of a walk that all logs share."""
    for file in files:
        if file.path == path:
            while block := file.content.read(1 << 20):
                yield block
            return


def read_must_gather(path: Path, namespace: str | None = None) -> Gathered:
    """Read a gathering's objects, and find its logs.

    Args:
        path: a folder or a tar archive.
        namespace: look at this one alone; None for all that serve models, or where none does for all.

    Raises:
        UsageError: it is no gathering, or has no such namespace.
        AuthError: it may not be read.
        IntegrityError: the archive is a bomb.
    """
    chosen = _choose(_namespaces(path), namespace, path)
    gathered = Gathered(path, tuple(sorted(chosen)))
    gathering = Gathering(path)
    objects = _Objects(gathered.notes)
    for file in gathering.files():
        if place := log_place(file.path):
            if place.namespace in chosen:
                gathered.places.append(place)
        elif _is_wanted(file.path, chosen):
            objects.read(file)
    gathered.objects = list(objects.by_identity.values())
    gathered.notes += gathering.notes
    return gathered


def log_place(path: str) -> LogPlace | None:
    """Whose log a file is; None for any other file."""
    match = _LOG.fullmatch(path)
    if not match:
        return None
    return LogPlace(match["namespace"], match["pod"], match["container"], match["which"] == "previous", path)


def _namespaces(path: Path) -> dict[str, bool]:
    """Every namespace, and whether it serves models."""
    found: dict[str, bool] = {}
    for file in Gathering(path).files():
        match = _IN_NAMESPACE.fullmatch(file.path) or _LOG.fullmatch(file.path)
        if match:
            serves = match.groupdict().get("rest", "").startswith(_SERVING)
            found[match["namespace"]] = found.get(match["namespace"], False) or serves
    return found


def _choose(found: dict[str, bool], wanted: str | None, path: Path) -> set[str]:
    if wanted is not None:
        if wanted not in found:
            raise UsageError(
                f"the gathering has no namespace {wanted}",
                where=str(path),
                why=did_you_mean(wanted, sorted(found)[:20]),
            )
        return {wanted}
    if not found:
        raise UsageError(
            "no namespace is in it", where=str(path),
            why="expected folders namespaces/<name>/ as oc adm must-gather writes",
            next_step="oc adm inspect ns/<namespace> --dest-dir=DIR, then berth diagnose --must-gather DIR",
        )  # fmt: skip
    return {name for name, serves in found.items() if serves} or set(found)


def _is_wanted(path: str, namespaces: set[str]) -> bool:
    if match := _IN_NAMESPACE.fullmatch(path):
        return match["namespace"] in namespaces and match["rest"].startswith(_WANTED)
    return bool((match := _OF_CLUSTER.fullmatch(path)) and match["rest"].startswith(_WANTED_OF_CLUSTER))


class _Objects:
    """The objects of a gathering, each once: it holds many of them in a list and as a file."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self.by_identity: dict[tuple[str, str, str], Document] = {}

    def read(self, file: GatheredFile) -> None:
        """Take what is in a file; one that cannot be read is noted."""
        name = shorten(printable(file.path), 200)
        if file.size > _MAX_OBJECT_FILE:
            self._notes.append(f"{name} is left out: {file.size:,} bytes")
            return
        try:
            for document in _documents(_content(file.content), name):
                self._take(document)
        except BerthError as error:
            self._notes.append(f"{name} is left out: {shorten(error.why or error.what, 200)}")

    def _take(self, document: object) -> None:
        if not isinstance(document, dict):
            return
        items = document.get("items")
        if isinstance(items, list):
            kind = str(document.get("kind", "")).removesuffix("List")
            for item in items:
                if isinstance(item, dict):
                    self._keep({"apiVersion": document.get("apiVersion"), "kind": kind} | item)
        else:
            self._keep(document)

    def _keep(self, document: Document) -> None:
        about = document.get("metadata")
        if not isinstance(about, dict) or len(self.by_identity) >= _MAX_OBJECTS:
            return
        about.pop("managedFields", None)
        identity = (str(document.get("kind")), str(about.get("namespace", "")), str(about.get("name", "")))
        self.by_identity.setdefault(identity, document)


def _content(content: Readable) -> bytes:
    pieces = []
    while piece := content.read(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _documents(content: bytes, name: str) -> Iterator[object]:
    if content.lstrip()[:1] == b"{":
        try:
            yield json.loads(content)
            return
        except (ValueError, RecursionError):
            pass  # YAML may begin with a brace too
    yield from (each.data for each in read_documents(content, name))

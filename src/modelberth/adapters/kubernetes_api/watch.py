"""Watching kinds of objects: list, then watch from there, and list again when the history is gone.

Each watch is a thread that puts changes into one queue. It ends when it is told to. Failures are waited out with
growing, jittered pauses, so that a server that is down is asked at most once a second; the last contact is kept for
whoever wants to show how old a picture is. A socket that says nothing for longer than the server promised is broken.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Literal

from modelberth.adapters.kubernetes_api.cluster import Cluster, lines_of
from modelberth.adapters.kubernetes_api.errors import Gone, error_of
from modelberth.adapters.kubernetes_api.kinds import Document, Kind
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import AuthError, BerthError, PrerequisiteMissing

WATCH_SECONDS = 120
_SILENCE = 30.0
"""Seconds past the server's own end of a watch, after which a silent socket is broken: nobody is there any more."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0

Keep = Callable[[Document], Document]
"""What is kept of an object: a watch over thousands keeps little of each."""


@dataclass(frozen=True)
class Change:
    """What happened.

    Attributes:
        kind: of the object.
        event: `listed` begins anew: `documents` is all there is. `changed` and `deleted` bring one. `lost` and
            `restored` are about the connection, `forbidden` and `absent` end this watch.
        documents: what it is about.
        error: why, for lost, forbidden and absent.
        seen: by the monotonic clock.
    """

    kind: Kind
    event: Literal["listed", "changed", "deleted", "lost", "restored", "forbidden", "absent"]
    documents: tuple[Document, ...] = ()
    error: BerthError | None = None
    seen: float = 0.0


def without_managed_fields(document: Document) -> Document:
    """An object without what takes most of its room and tells nobody anything."""
    (document.get("metadata") or {}).pop("managedFields", None)
    return document


class Watch:
    """One kind in one namespace, or in all, watched on a thread of its own.

    Args:
        cluster: that is asked.
        kind: of the objects.
        namespace: None for all.
        changes: takes every change.
        labels: selector.
        keep: what is kept of each object.
        clock: of `Change.seen`.
    """

    def __init__(
        self, cluster: Cluster, kind: Kind, namespace: str | None, changes: SimpleQueue[Change], *, labels: str = "",
        keep: Keep = without_managed_fields, clock: Clock = monotonic,
    ) -> None:  # fmt: skip
        self._cluster, self._kind, self._namespace = cluster, kind, namespace
        self._changes, self._labels, self._keep, self._clock = changes, labels, keep, clock
        self._stop = Event()
        self._lost = False
        self._version = ""
        self._pause = _FIRST_PAUSE
        self._thread = Thread(target=self._run, name=f"watch {kind.kind}", daemon=True)

    def start(self) -> Watch:
        """Begin; returns at once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End it. A read that is under way ends with the cluster's connections; nobody waits for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._version = self._version or self._list()
                self._follow()
            except Gone as error:
                if not self._version:  # even the list is refused so: there is nothing to go on from
                    self._lose(error)
                self._version = ""
            except PrerequisiteMissing as error:
                self._put("absent", error=error)
                return
            except AuthError as error:
                self._put("forbidden", error=error)
                return
            except BerthError as error:
                if self._stop.is_set():
                    return
                self._lose(error)

    def _lose(self, error: BerthError) -> None:
        if not self._lost:
            self._lost = True
            self._put("lost", error=error)
        pause = self._pause * (1.0 + random.random() / 2)  # noqa: S311 - jitter, never below a second
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        self._wait(pause)

    def _wait(self, seconds: float) -> bool:
        return self._stop.wait(seconds)

    def _found(self) -> None:
        self._pause = _FIRST_PAUSE
        if self._lost:
            self._lost = False
            self._put("restored")

    def _put(self, event: Any, *documents: Document, error: BerthError | None = None) -> None:
        self._changes.put(Change(self._kind, event, documents, error, self._clock()))

    def _list(self) -> str:
        listing = self._cluster.list(self._kind, self._namespace, labels=self._labels)
        self._found()
        self._put("listed", *(self._keep(each) for each in listing.items))
        return listing.resource_version

    def _follow(self) -> None:
        """Watch until the server ends it. Whatever ends it, the next one goes on from the last event that came."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version,
                 "timeoutSeconds": str(WATCH_SECONDS)}  # fmt: skip
        if self._labels:
            query["labelSelector"] = self._labels
        path = self._cluster.path(self._kind, self._namespace)
        what = f"watch {self._cluster.resource(self._kind)}"
        with self._cluster.wire.stream(path, what, query=query, read_seconds=WATCH_SECONDS + _SILENCE) as answer:
            self._found()
            for line in _whole_lines(answer.iter_bytes()):
                if self._stop.is_set():
                    return
                self._version = self._take(line, what) or self._version

    def _take(self, line: bytes, what: str) -> str | None:
        """Hand an event on; returns the version that it brings."""
        try:
            event = json.loads(line)
            kind, document = event["type"], event["object"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise error_of(502, line[:200], what, self._cluster.server) from None  # cut in the middle: list again
        if kind == "ERROR":
            raise error_of(int(document.get("code") or 500), line_of(document), what, self._cluster.server)
        if kind in {"ADDED", "MODIFIED", "DELETED"}:
            self._put("deleted" if kind == "DELETED" else "changed", self._keep(document))
        return str((document.get("metadata") or {}).get("resourceVersion") or "") or None


def line_of(document: Document) -> bytes:
    """An object as one line of JSON."""
    return json.dumps(document).encode()


def _whole_lines(chunks: Any) -> Any:
    """Lines of any length: an object is one line, and objects of more than 64 KiB are usual."""
    rest: list[bytes] = []
    for chunk in chunks:
        *lines, last = chunk.split(b"\n")
        for line in lines:
            whole = b"".join((*rest, line))
            rest = []
            if whole.strip():
                yield whole
        if last:
            rest.append(last)


__all__ = ["Change", "Keep", "Watch", "lines_of", "without_managed_fields"]

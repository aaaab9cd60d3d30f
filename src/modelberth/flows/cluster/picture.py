"""The picture of a namespace, kept up to date by watches: services, their pods, their workloads, and what each is at.

One watch a kind, not a service: a thousand services cost a handful of connections. Only what a state is told from is
kept of each object. The engine's stage is read from its log, while it starts and no more often than asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from modelberth.adapters.kubernetes_api import Change, Cluster, Document, Kind, Watch
from modelberth.adapters.kubernetes_api.kinds import INFERENCE_SERVICES, PODS
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import BerthError, PrerequisiteMissing
from modelberth.base.text import printable, shorten
from modelberth.findings.diagnosis.belonging import service_of
from modelberth.timeline.log_lines import parse_line
from modelberth.timeline.pod_state import DOWNLOAD, PodState
from modelberth.timeline.service_state import ServiceState, absent, service_state
from modelberth.timeline.stages import PROCESS, StartUp

LOG_LINES = 3000
_KEPT_OF_POD = ("nodeName", "schedulingGates")
_KEPT_STATUS = ("phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses")
_KEPT_ABOUT = ("name", "namespace", "labels", "annotations", "generation", "creationTimestamp", "deletionTimestamp",
               "finalizers", "ownerReferences", "uid", "resourceVersion")  # fmt: skip


def trimmed(document: Document) -> Document:
    """An object without what no state is told from."""
    about = {key: value for key, value in (document.get("metadata") or {}).items() if key in _KEPT_ABOUT}
    kept = {"kind": document.get("kind"), "apiVersion": document.get("apiVersion"), "metadata": about}
    status = document.get("status") or {}
    if document.get("kind") == "Pod":
        spec = {key: value for key, value in (document.get("spec") or {}).items() if key in _KEPT_OF_POD}
        return kept | {"spec": spec, "status": {key: status[key] for key in _KEPT_STATUS if key in status}}
    predictor = ((document.get("spec") or {}).get("predictor") or {}).get("minReplicas")
    spec = document.get("spec") or {}
    small = {
        "queueName": spec.get("queueName"),
        "replicas": spec.get("replicas"),
        "predictor": {"minReplicas": predictor},
    }
    if predictor is None:
        small.pop("predictor")
    if small["replicas"] is None:
        small.pop("replicas")
    return kept | {"spec": small, "status": status}


class Picture:
    """What is known of the services of a namespace.

    Attributes:
        lost: why the API server cannot be reached; None while it can.
        last_contact: by the clock.
        notes: what may not be seen.
    """

    def __init__(self, cluster: Cluster, namespace: str, clock: Clock = monotonic) -> None:
        self.cluster, self.namespace, self._clock = cluster, namespace, clock
        self.lost: BerthError | None = None
        self.last_contact = clock()
        self.notes: list[str] = []
        self._changes: SimpleQueue[Change] = SimpleQueue()
        self._objects: dict[str, dict[str, Document]] = {}
        self._listed: set[str] = set()
        self._watches: list[Watch] = []
        self._stages: dict[str, tuple[int, str]] = {}
        self._fetched: dict[str, str] = {}

    def start(self) -> None:
        """Begin to watch; `wait` then takes what comes.

        Raises:
            PrerequisiteMissing: the cluster has no services to watch.
            AuthError, RemoteUnavailable: it cannot be asked.
        """
        kinds = [INFERENCE_SERVICES] if self.cluster.serves(INFERENCE_SERVICES) else []
        kinds += _llm_services(self.cluster)
        if not kinds:
            raise PrerequisiteMissing(
                "the cluster has no InferenceServices", where=self.cluster.server, why="KServe is not installed there",
                next_step="install its operator, or choose another --context",
            )  # fmt: skip
        versions = self.cluster.versions("kueue.x-k8s.io")
        workloads = [Kind(f"kueue.x-k8s.io/{versions[0]}", "Workload")] if versions else []
        for kind in [*kinds, PODS, *workloads]:
            self._objects[kind.kind] = {}
            self._watches.append(Watch(self.cluster, kind, self.namespace, self._changes, keep=trimmed).start())

    def stop(self) -> None:
        """Watch no longer."""
        for each in self._watches:
            each.stop()

    @property
    def is_complete(self) -> bool:
        """Whether every kind has been seen once."""
        return self._listed >= set(self._objects)

    def wait(self, seconds: float) -> bool:
        """Take what comes within so many seconds; whether anything did.

        Raises:
            AuthError: services may not be watched at all.
        """
        try:
            self._take(self._changes.get(timeout=max(0.0, seconds)))
        except Empty:
            return False
        with suppress(Empty):
            while True:
                self._take(self._changes.get_nowait())
        return True

    def _take(self, change: Change) -> None:
        kind = change.kind.kind
        self.last_contact = max(self.last_contact, change.seen) if change.event != "lost" else self.last_contact
        if change.event == "listed":
            self.lost = None
            self._listed.add(kind)
            self._objects[kind] = {_key(each): each for each in change.documents}
        elif change.event == "changed":
            self._objects[kind][_key(change.documents[0])] = change.documents[0]
        elif change.event == "deleted":
            self._objects[kind].pop(_key(change.documents[0]), None)
        elif change.event == "lost":
            self.lost = change.error
        elif change.event == "restored":
            self.lost = None
        elif change.event == "forbidden" and kind.endswith("InferenceService") and change.error:
            raise change.error
        else:
            self._listed.add(kind)
            self.notes.append(f"{kind}s cannot be watched: {change.error.why if change.error else ''}")

    def names(self) -> list[str]:
        """The services that there are."""
        return sorted(str(each["metadata"]["name"]) for each in self._services().values())

    def states(self, names: list[str] | None = None) -> list[ServiceState]:
        """The state of each service, or of those that are named."""
        services = self._services()
        by_service: dict[str, list[Document]] = {}
        for pod in self._objects.get("Pod", {}).values():
            by_service.setdefault(service_of(pod), []).append(pod)
        wanted = self.names() if names is None else names
        return [self._state(services.get(name), name, by_service.get(name, [])) for name in wanted]

    def _services(self) -> dict[str, Document]:
        found = (each for kind, all_of in self._objects.items() if kind.endswith("InferenceService")
                 for each in all_of.values())  # fmt: skip
        return {str(each["metadata"]["name"]): each for each in found}

    def _state(self, service: Document | None, name: str, pods: list[Document]) -> ServiceState:
        if service is None:
            return absent(name, self.namespace)
        uids = {str(pod["metadata"].get("uid")) for pod in pods}
        names = {str(pod["metadata"].get("name")) for pod in pods}
        workloads = [each for each in self._objects.get("Workload", {}).values() if _is_owned(each, uids, names)]
        state = service_state(service, pods, workloads)
        return self._with_engine_stage(state)

    def _with_engine_stage(self, state: ServiceState) -> ServiceState:
        """The stage of the engine where a pod runs and is not ready; as it was read last."""
        fetched = [self._fetched[pod.name] for pod in state.pods if pod.fetcher and self._fetched.get(pod.name)]
        if state.state == "progressing" and state.stage == DOWNLOAD and fetched:
            return replace(state, why=fetched[0])
        known = [self._stages[pod.name][1] for pod in state.pods if pod.name in self._stages and not pod.ready]
        if state.state == "progressing" and state.stage == PROCESS and known:
            order = StartUp(0.0).order
            return replace(state, stage=min(known, key=order.index))
        return state

    def read_stages(self, names: list[str] | None = None) -> bool:
        """Read the logs of engines that start and the last words of what fetches; whether anything is another now."""
        changed = False
        for state in self.states(names):
            for pod in state.pods:
                if pod.engine and not pod.ready and not pod.failing:
                    changed |= self._read_stage(pod)
                elif pod.fetcher:
                    changed |= self._read_fetched(pod)
        return changed

    def _read_fetched(self, pod: PodState) -> bool:
        """What fetches says how far it is: `berth fetch` with bytes, rate and time left, KServe's own file by file."""
        last = ""
        with suppress(BerthError):
            for line in self.cluster.logs(self.namespace, pod.name, pod.fetcher, tail=1):
                last = shorten(printable(line.decode(errors="replace")), 160)
        was = self._fetched.get(pod.name)
        self._fetched[pod.name] = last
        return was != last

    def _read_stage(self, pod: PodState) -> bool:
        start = StartUp(0.0)
        with suppress(BerthError):
            for line in self.cluster.logs(self.namespace, pod.name, pod.engine, tail=LOG_LINES):
                start.feed(parse_line(line.decode(errors="replace")), 0.0)
        was = self._stages.get(pod.name)
        self._stages[pod.name] = (pod.restarts, start.stage)
        return was != self._stages[pod.name]


@contextmanager
def picture(cluster: Cluster, namespace: str) -> Iterator[Picture]:
    """A picture that is kept up to date while the block runs, complete when it begins.

    Raises:
        PrerequisiteMissing, AuthError, RemoteUnavailable: there is nothing to see, or it may not be.
    """
    shown = Picture(cluster, namespace)
    shown.start()
    try:
        while not shown.is_complete:
            shown.wait(1.0)
            if shown.lost is not None and not shown.is_complete:
                raise shown.lost
        yield shown
    finally:
        shown.stop()


def _llm_services(cluster: Cluster) -> list[Kind]:
    for version in cluster.versions("serving.kserve.io"):
        kind = Kind(f"serving.kserve.io/{version}", "LLMInferenceService")
        if cluster.serves(kind):
            return [kind]
    return []


def _key(document: Mapping[str, Any]) -> str:
    about = document["metadata"]
    return f"{about.get('namespace', '')}/{about['name']}"


def _is_owned(workload: Document, uids: set[str], names: set[str]) -> bool:
    owners = workload["metadata"].get("ownerReferences") or []
    return any(str(owner.get("uid")) in uids or str(owner.get("name")) in names for owner in owners)

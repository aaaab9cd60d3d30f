"""The picture of a namespace, kept up to date by watches: services, their pods, their workloads, and what each is at.

One watch a kind, not a service: a thousand services cost a handful of connections, and a change costs the state of the
service that it is about. What pods say of their start is read while they start, and no more often than asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

from modelberth.adapters.kubernetes_api import Change, Cluster, Kind, Watch
from modelberth.adapters.kubernetes_api.kinds import INFERENCE_SERVICES, PODS
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import BerthError, PrerequisiteMissing
from modelberth.findings.diagnosis.holders import holders
from modelberth.flows.cluster.objects import Objects, ServiceKey, trimmed
from modelberth.flows.cluster.pod_logs import PodLogs
from modelberth.timeline.pod_times import QUEUE
from modelberth.timeline.service_state import ServiceState, absent, service_state

_MOST_HOLDERS = 4


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
        self._objects = Objects()
        self._logs = PodLogs(cluster, namespace)
        self._known: dict[ServiceKey, ServiceState] = {}
        self._kinds: set[str] = set()
        self._listed: set[str] = set()
        self._watches: list[Watch] = []

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
            self._kinds.add(kind.kind)
            self._watches.append(Watch(self.cluster, kind, self.namespace, self._changes, keep=trimmed).start())

    def stop(self) -> None:
        """Watch no longer."""
        for each in self._watches:
            each.stop()

    @property
    def is_complete(self) -> bool:
        """Whether every kind has been seen once."""
        return self._listed >= self._kinds

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
            self._objects.replace(kind, change.documents)
        elif change.event == "changed":
            self._objects.put(change.documents[0])
        elif change.event == "deleted":
            self._objects.remove(change.documents[0])
        elif change.event == "lost":
            self.lost = change.error
        elif change.event == "restored":
            self.lost = None
        elif change.event == "forbidden" and kind.endswith("InferenceService") and change.error:
            raise change.error
        else:
            self._listed.add(kind)
            self.notes.append(f"{kind}s cannot be watched: {change.error.why if change.error else ''}")

    def states(self, names: list[str] | None = None) -> list[ServiceState]:
        """The state of each service, or of those that are named; two of one name are two."""
        self._renew()
        if names is None:
            return [self._known[key] for key in self._objects.service_keys()]
        found: list[ServiceState] = []
        for name in names:
            keys = self._objects.named(name)
            found += [self._known[key] for key in keys] or [absent(name, self.namespace)]
        return found

    def _renew(self) -> None:
        """Judge anew what has changed, and nothing else."""
        self._logs.forget(self._objects.gone)
        self._objects.gone.clear()
        for key in self._objects.changed:
            if self._objects.service(key) is None:
                self._known.pop(key, None)
            else:
                self._known[key] = self._judged(key)
        self._objects.changed.clear()

    def _judged(self, key: ServiceKey) -> ServiceState:
        pods = self._objects.pods(key)
        workloads = self._objects.workloads(pods)
        logs = {name: self._logs.of(name) for name in (str(pod["metadata"]["name"]) for pod in pods)}
        state = service_state(self._objects.service(key) or {}, pods, workloads, logs)
        if state.stage == QUEUE and workloads:
            return replace(state, why=state.why + self._holders(str(workloads[0]["spec"].get("queueName") or "")))
        return state

    def _holders(self, queue: str) -> str:
        """Who holds the GPUs of a queue, as far as this namespace goes."""
        held = holders(self._objects.in_queue(queue))
        if not held:
            return ""
        more = f" and {len(held) - _MOST_HOLDERS} more" if len(held) > _MOST_HOLDERS else ""
        text = ", ".join(f"{name.partition('/')[2]} ({gpus})" for name, gpus in held[:_MOST_HOLDERS])
        return f"; GPUs of this queue are held by {text}{more}"

    def read_stages(self, names: list[str] | None = None) -> None:
        """Read on what pods that start say of it."""
        states = self.states(names)
        of_pod = {pod.name: ServiceKey(*state.key) for state in states for pod in state.pods}
        changed = self._logs.read(pod for state in states for pod in state.pods)
        self._objects.changed |= {of_pod[name] for name in changed}


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

"""`berth status` and `berth watch`, and the waiting of `berth deploy`: states as they are, and as they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelberth.adapters.kubernetes_api import Cluster
from modelberth.base.clock import Clock, monotonic
from modelberth.flows.cluster.picture import Picture, picture
from modelberth.timeline.service_state import ServiceState, absent
from modelberth.timeline.stages import StageTime

_LOOK_SECONDS = 2.0
_STEADY_SECONDS = 30.0
OnStates = Callable[[Sequence[ServiceState], Picture], None]


@dataclass(frozen=True)
class Outcome:
    """How the waiting ended.

    Attributes:
        states: of the services at its end.
        timed_out: whether the time was over before all were ready.
        seconds: that it took.
        stages: of each service, those that have ended, and how long each took by the cluster's own clocks.
    """

    states: tuple[ServiceState, ...]
    timed_out: bool
    seconds: float
    stages: Mapping[str, tuple[StageTime, ...]] = field(default_factory=dict)

    @property
    def all_ready(self) -> bool:
        """Whether there are services, and all are settled."""
        return _all_settled(self.states)


def current(
    cluster: Cluster, namespace: str, names: Sequence[str] | None = None
) -> tuple[list[ServiceState], list[str]]:
    """The states now, with the engines' stages, and what could not be seen.

    Raises:
        PrerequisiteMissing, AuthError, RemoteUnavailable: as `picture`.
    """
    with picture(cluster, namespace) as seen:
        wanted = list(names) if names is not None else None
        seen.read_stages(wanted)
        return seen.states(wanted), seen.notes


def follow(
    cluster: Cluster, namespace: str, names: Sequence[str] | None, on_states: OnStates, *, timeout: float | None = None,
    for_ever: bool = False, fail_after: float | None = None, clock: Clock = monotonic,
) -> Outcome:  # fmt: skip
    """Watch services until all are ready, or the time is over.

    Args:
        cluster: that they are on.
        namespace: theirs.
        names: of them; None for all that there are.
        on_states: told the states at first, and whenever one is another; also when the API server is lost, or back.
        timeout: seconds; None for no end.
        for_ever: go on although all are ready.
        fail_after: seconds after which a service that keeps failing ends the waiting; None for never.
        clock: of both.

    Raises:
        PrerequisiteMissing, AuthError, RemoteUnavailable: as `picture`.
    """
    begun = clock()
    waiting = _Waiting(list(names) if names is not None else None, fail_after)
    with picture(cluster, namespace) as seen:
        next_look = begun
        while True:
            now = clock()
            if now >= next_look:
                seen.read_stages(waiting.names)
                next_look = now + _LOOK_SECONDS
            states = waiting.take(seen, on_states, now)
            done = _all_settled(states) and not for_ever
            late = timeout is not None and now - begun >= timeout
            if done or late or waiting.given_up:
                return Outcome(tuple(states), late and not done, now - begun, _stages(states))
            left = timeout - (now - begun) if timeout is not None else _STEADY_SECONDS
            starting = any((pod.engine and not pod.ready) or pod.fetcher for each in states for pod in each.pods)
            seen.wait(min(left, _LOOK_SECONDS if starting or fail_after is not None else _STEADY_SECONDS))


class _Waiting:
    """What was told last, and since when something fails."""

    def __init__(self, names: list[str] | None, fail_after: float | None) -> None:
        self.names = names
        self.given_up = False
        self._fail_after = fail_after
        self._told: object = None
        self._failing: dict[tuple[str, str], float] = {}
        self._seen: set[tuple[str, str]] = set()

    def take(self, seen: Picture, on_states: OnStates, now: float) -> list[ServiceState]:
        states = seen.states(self.names)
        shown = states + self._vanished(seen, states)
        summary = ([(each.kind, each.name, each.state, each.stage, each.why, each.ready) for each in shown],
                   seen.lost is None)  # fmt: skip
        if summary != self._told:
            self._told = summary
            on_states(shown, seen)
        self._failing = {each.key: self._failing.get(each.key, now) for each in states if each.state == "failing"}
        if self._fail_after is not None:
            self.given_up = any(now - since >= self._fail_after for since in self._failing.values())
        return states

    def _vanished(self, seen: Picture, states: Sequence[ServiceState]) -> list[ServiceState]:
        """Services of the namespace that were there before; those that are named are told as absent anyway."""
        if self.names is not None:
            return []
        now = {each.key for each in states}
        self._seen |= now
        return [absent(name, seen.namespace, kind) for kind, name in self._seen - now]


def _all_settled(states: Sequence[ServiceState]) -> bool:
    return bool(states) and all(each.is_settled for each in states)


def _stages(states: Sequence[ServiceState]) -> dict[str, tuple[StageTime, ...]]:
    return {each.name: each.times.ended for each in states}

"""Jobs that are run and waited for: uploads, registration. What their pods say is handed on line by line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Event

from modelberth.adapters.kubernetes_api import Cluster, Document, Ref
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import BerthError, NotReady
from modelberth.base.text import printable, shorten
from modelberth.flows.progress import Listener, Note

_LOOK_SECONDS = 2.0
_LAST_LINES = 5


def run_jobs(
    cluster: Cluster, objects: Sequence[Document], timeout: float, listener: Listener, clock: Clock = monotonic
) -> None:
    """Apply objects, and wait for the Jobs among them. One that is done already is not run again: its name is made of
    what it does.

    Raises:
        NotReady: a Job failed, or was not done in time.
        BerthError: by meaning.
    """
    deadline = clock() + timeout
    for each in objects:
        if each["kind"] != "Job":
            cluster.apply(each)
    for each in objects:
        if each["kind"] == "Job":
            _run(cluster, each, deadline, listener, clock)


def _run(cluster: Cluster, job: Document, deadline: float, listener: Listener, clock: Clock) -> None:
    ref = Ref.of(job)
    found = cluster.get(ref)
    if found is not None and _ended(found) == "Complete":
        listener(Note("", f"{ref}: done before, unchanged"))
        return
    if found is not None and _ended(found) == "Failed":
        cluster.delete(ref)
        _until_gone(cluster, ref, deadline, clock)
    cluster.apply(job)
    listener(Note("", f"{ref}: running"))
    told = ""
    while clock() < deadline:
        now = cluster.get(ref) or {}
        last = _last_lines(cluster, ref, 1)
        if last and last[-1] != told:
            told = last[-1]
            listener(Note("", f"{ref.name}: {told}"))
        how = _ended(now)
        if how == "Complete":
            listener(Note("", f"{ref}: done"))
            return
        if how == "Failed":
            raise _failed(cluster, ref, "failed")
        Event().wait(_LOOK_SECONDS)
    raise _failed(cluster, ref, "is not done in time")


def _until_gone(cluster: Cluster, ref: Ref, deadline: float, clock: Clock) -> None:
    while cluster.get(ref) is not None and clock() < deadline:
        Event().wait(_LOOK_SECONDS / 4)


def _failed(cluster: Cluster, ref: Ref, how: str) -> NotReady:
    return NotReady(
        f"{ref} {how}", why="\n".join(_last_lines(cluster, ref, _LAST_LINES)),
        next_step=f"oc logs job/{ref.name} -n {ref.namespace}",
    )  # fmt: skip


def _ended(job: Document) -> str:
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((str(each["type"]) for each in conditions
                 if each.get("type") in {"Complete", "Failed"} and each.get("status") == "True"), "")  # fmt: skip


def _last_lines(cluster: Cluster, ref: Ref, count: int) -> list[str]:
    """The last lines of a Job's newest pod; none where there is none, or none may be read."""
    with suppress(BerthError):
        pods = cluster.list(PODS, ref.namespace, labels=f"job-name={ref.name}").items
        for pod in sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")), reverse=True)[:1]:
            container = pod["spec"]["containers"][0]["name"]
            lines = cluster.logs(str(ref.namespace), pod["metadata"]["name"], container, tail=count)
            return [shorten(printable(line.decode(errors="replace")), 200) for line in lines]
    return []

"""One deployment of a stack at a time: a Lease that is held, renewed, and let go.

A holder that died lets its Lease run out. Where Leases may not be written the deployment goes on without, and says so.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from threading import Event, Thread

from modelberth.adapters.kubernetes_api import Cluster, Document, Ref
from modelberth.adapters.kubernetes_api.kinds import LEASES
from modelberth.base.clock import utc_now
from modelberth.base.errors import AuthError, BerthError, Conflict, PrerequisiteMissing
from modelberth.flows.progress import Listener, Note

SECONDS = 60


@contextmanager
def held(cluster: Cluster, namespace: str, stack: str, listener: Listener) -> Iterator[None]:
    """Hold a stack while the block runs.

    Raises:
        Conflict: somebody else holds it.
    """
    try:
        lease = _take(cluster, namespace, f"berth-{stack}")
    except (AuthError, PrerequisiteMissing) as error:
        listener(
            Note("", f"no Lease can be held ({error.why or error.what}): two deployments at once would not notice")
        )
        yield
        return
    over = Event()
    renewing = Thread(target=_renew, args=(cluster, lease, over), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        with suppress(BerthError):
            cluster.delete(Ref.of(lease), propagation="Background")


def _take(cluster: Cluster, namespace: str, name: str) -> Document:
    about = {"name": name, "namespace": namespace}
    wanted = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about, "spec": _spec()}
    try:
        return cluster.create(wanted)
    except Conflict:
        found = cluster.get(Ref(LEASES, name, namespace))
    if found is None:  # let go in between
        return cluster.create(wanted)
    spec = found.get("spec") or {}
    if not _is_over(spec):
        raise Conflict(
            "this stack is being deployed by somebody else", where=f"Lease {namespace}/{name}",
            why=f"held by {spec.get('holderIdentity', '?')}, renewed {spec.get('renewTime', '?')}",
            next_step=f"wait for it; a holder that died is over after {SECONDS} s",
        )  # fmt: skip
    return cluster.replace(found | {"spec": _spec()})


def _spec() -> Document:
    now = f"{utc_now():%Y-%m-%dT%H:%M:%S.%fZ}"
    holder = f"{os.environ.get('USER') or 'berth'}@{socket.gethostname()} (process {os.getpid()})"
    return {"holderIdentity": holder, "leaseDurationSeconds": SECONDS, "acquireTime": now, "renewTime": now}


def _is_over(spec: Document) -> bool:
    try:
        renewed = datetime.fromisoformat(str(spec["renewTime"]))
        return renewed + timedelta(seconds=int(spec.get("leaseDurationSeconds") or SECONDS)) < utc_now()
    except (KeyError, ValueError):
        return True


def _renew(cluster: Cluster, lease: Document, over: Event) -> None:
    while not over.wait(SECONDS / 3):
        with suppress(BerthError):
            cluster.patch(Ref.of(lease), {"spec": {"renewTime": f"{utc_now():%Y-%m-%dT%H:%M:%S.%fZ}"}})

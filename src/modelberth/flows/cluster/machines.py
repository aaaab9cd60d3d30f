"""`berth deploy --scale-machinesets`: the nodes that the services need, brought up and waited for; never taken away."""

from __future__ import annotations

from threading import Event

from modelberth.adapters.kubernetes_api import Cluster, Ref
from modelberth.adapters.kubernetes_api.kinds import NODES
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import NotReady, PrerequisiteMissing
from modelberth.flows.progress import Listener, Note
from modelberth.manifests.machine_sets import machine_sets
from modelberth.manifests.nodes import PRODUCT_LABEL
from modelberth.manifests.resources import GPU
from modelberth.spec.cluster import Pool
from modelberth.spec.services import services
from modelberth.spec.stack import Stack

_LOOK_SECONDS = 5.0


def scale_up(cluster: Cluster, stack: Stack, timeout: float, listener: Listener, clock: Clock = monotonic) -> None:
    """Scale the MachineSets of the pools up to the nodes that their services need, and wait for the GPUs.

    Raises:
        PrerequisiteMissing: a MachineSet is not there.
        NotReady: the GPUs were not there in time.
        BerthError: by meaning.
    """
    deadline = clock() + timeout
    wanted: dict[str, int] = {}
    with_machines = [pool for pool in stack.pools if pool.machine_set is not None]
    for pool, document in zip(with_machines, machine_sets(stack), strict=True):
        nodes, gpus = _needed(stack, pool)
        if nodes:
            _scale(cluster, Ref.of(document), nodes, listener)
            wanted[pool.gpu] = wanted.get(pool.gpu, 0) + gpus
    while wanted and clock() < deadline:
        there = _gpus(cluster)
        short = {gpu: count - there.get(gpu, 0) for gpu, count in wanted.items() if there.get(gpu, 0) < count}
        if not short:
            return
        Event().wait(_LOOK_SECONDS)
    if wanted:
        raise NotReady("the GPUs are not there in time", why=", ".join(f"{n} of {gpu}" for gpu, n in wanted.items()),
                       next_step="oc get machines -n openshift-machine-api")  # fmt: skip


def _needed(stack: Stack, pool: Pool) -> tuple[int, int]:
    gpus = sum(each.gpus for each in services(stack) if each.pool.name == pool.name)
    return -(-gpus // pool.count), gpus


def _scale(cluster: Cluster, ref: Ref, nodes: int, listener: Listener) -> None:
    found = cluster.get(ref)
    if found is None:
        raise PrerequisiteMissing(
            f"there is no {ref}",
            next_step="apply the rendered capacity/ first: berth deploy without --scale-machinesets",
        )
    has = int((found.get("spec") or {}).get("replicas") or 0)
    if has >= nodes:
        listener(Note("", f"{ref}: {has} nodes, enough"))
        return
    cluster.patch(ref, {"spec": {"replicas": nodes}}, subresource="scale")
    listener(Note("", f"{ref}: from {has} to {nodes} nodes"))


def _gpus(cluster: Cluster) -> dict[str, int]:
    """GPUs of ready nodes by product."""
    found: dict[str, int] = {}
    for node in cluster.list(NODES).items:
        status = node.get("status") or {}
        ready = any(
            each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or []
        )
        if ready:
            product = str((node["metadata"].get("labels") or {}).get(PRODUCT_LABEL, ""))
            found[product] = found.get(product, 0) + int((status.get("allocatable") or {}).get(GPU) or 0)
    return found

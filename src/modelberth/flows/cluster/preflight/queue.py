"""Kueue: whether the queue is there, and whether its quota holds what the stack asks for."""

from __future__ import annotations

from collections.abc import Iterator

from modelberth.adapters.kubernetes_api import Document, Kind, Ref
from modelberth.base.errors import DoesNotFit, PrerequisiteMissing
from modelberth.flows.cluster.preflight.checked import Checked, Wanted, failed
from modelberth.flows.cluster.quantities import quantity
from modelberth.manifests.resources import GPU


def queue(wanted: Wanted) -> Iterator[Checked]:
    """The queue of the stack, and the GPUs that it has left."""
    declared = wanted.stack.queue if wanted.stack else None
    if declared is None:
        return
    versions = wanted.cluster.versions("kueue.x-k8s.io")
    if not versions:
        yield failed("queue", "the cluster has no Kueue", "install Kueue, or leave queue out", PrerequisiteMissing)
        return
    rendered = {(each["kind"], each["metadata"]["name"]) for each in wanted.objects}
    local = wanted.cluster.get(
        Ref(Kind(f"kueue.x-k8s.io/{versions[0]}", "LocalQueue"), declared.name, wanted.namespace)
    )
    if local is None and ("LocalQueue", declared.name) not in rendered:
        yield failed("queue", f"there is no LocalQueue {declared.name} in {wanted.namespace}",
                      "create it, or name one that is there", PrerequisiteMissing)  # fmt: skip
        return
    yield from _quota(wanted, versions[0], local, declared.name)


def _quota(wanted: Wanted, version: str, local: Document | None, name: str) -> Iterator[Checked]:
    behind = str(((local or {}).get("spec") or {}).get("clusterQueue") or "")
    found = wanted.cluster.get(Ref(Kind(f"kueue.x-k8s.io/{version}", "ClusterQueue"), behind)) if behind else None
    if found is None:
        yield Checked("queue", "ok", f"{name}: comes with this stack")
        return
    nominal, used = _quotas(found)
    asked = sum(each.gpus for each in wanted.services)
    text = f"{name} in {behind}: {asked} GPUs wanted, {nominal - used} of {nominal} left"
    if nominal < asked:
        yield failed("queue", text, "raise nominalQuota of the ClusterQueue", DoesNotFit)
    elif nominal - used < asked:
        yield Checked("queue", "warning", text, "services that run already may be among those that hold it")
    else:
        yield Checked("queue", "ok", text)


def _quotas(queue: Document) -> tuple[int, int]:
    """GPUs that a ClusterQueue has in all its flavours, and that are used."""
    nominal = used = 0.0
    for group in (queue.get("spec") or {}).get("resourceGroups") or []:
        for flavor in group.get("flavors") or []:
            nominal += sum(
                quantity(each.get("nominalQuota")) for each in flavor.get("resources") or [] if each["name"] == GPU
            )
    for flavor in (queue.get("status") or {}).get("flavorsUsage") or []:
        used += sum(quantity(each.get("total")) for each in flavor.get("resources") or [] if each["name"] == GPU)
    return int(nominal), int(used)

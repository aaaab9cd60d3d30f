"""`berth destroy`: the objects of a stack, services first; weights, Secrets and what others own stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

from modelberth.adapters.kubernetes_api import Cluster, Document, Ref
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import NotReady
from modelberth.findings.diagnosis.belonging import SERVICE_KINDS, service_of
from modelberth.flows.progress import Listener, Note
from modelberth.flows.spec_file import SpecFile
from modelberth.manifests.objects import LABEL_STACK
from modelberth.manifests.tree import stack_tree
from modelberth.spec.services import services

_LOOK_SECONDS = 0.5
_STAYS = frozenset({"Secret", "Namespace", "PersistentVolumeClaim"})


@dataclass(frozen=True)
class Doomed:
    """What would go, and what stays.

    Attributes:
        goes: objects, services first.
        stays: in words.
    """

    goes: tuple[Ref, ...]
    stays: tuple[str, ...]


def doomed(cluster: Cluster, spec: SpecFile, names: Sequence[str] = (), *, machine_sets: bool = False) -> Doomed:
    """What a destruction would take.

    Args:
        cluster: that it is on.
        spec: the stack.
        names: of the services alone that go; empty for the whole stack.
        machine_sets: whether they go too, and with them their nodes.
    """
    stack = spec.stack
    goes: list[Ref] = []
    stays = [f"weights: {each.weights}" for each in services(stack) if not names or each.name in names]
    for each in stack_tree(stack, spec_path=str(spec.path)).objects:
        ref = Ref.of(each)
        if names and not (ref.kind.kind in SERVICE_KINDS and ref.name in names):
            continue
        if ref.kind.kind in _STAYS or (ref.kind.kind == "MachineSet" and not machine_sets):
            stays.append(str(ref))
        elif cluster.serves(ref.kind) and (found := cluster.get(ref)) is not None:
            if _is_ours(found, stack.metadata.name):
                goes.append(ref)
            else:
                stays.append(f"{ref}: it is not of this stack")
    goes.sort(key=lambda each: each.kind.kind not in SERVICE_KINDS)
    return Doomed(tuple(goes), tuple(dict.fromkeys([*stays, *_recorded(stack.model_registry is not None)])))


def _recorded(registered: bool) -> list[str]:
    return ["what the model registry has recorded"] if registered else []


def _is_ours(document: Document, stack: str) -> bool:
    return (document["metadata"].get("labels") or {}).get(LABEL_STACK) == stack


def destroy(cluster: Cluster, what: Doomed, namespace: str, timeout: float, listener: Listener,
            clock: Clock = monotonic) -> None:  # fmt: skip
    """Delete what goes, and wait until the pods of the services are gone.

    Raises:
        NotReady: something is still there when the time is over, with what holds it.
        BerthError: by meaning.
    """
    deadline = clock() + timeout
    served = [ref for ref in what.goes if ref.kind.kind in SERVICE_KINDS]
    names = {ref.name for ref in served}
    for part in (served, [ref for ref in what.goes if ref not in served]):
        for ref in part:
            if cluster.delete(ref):
                listener(Note("", f"{ref}: deleted"))
        _until_gone(cluster, part, namespace, names, deadline, clock)


def _until_gone(
    cluster: Cluster, part: Sequence[Ref], namespace: str, names: set[str], deadline: float, clock: Clock
) -> None:
    while left := _left(cluster, part, namespace, names):
        if clock() >= deadline:
            raise NotReady(
                f"{len(left)} objects are still there", where=f"namespace {namespace}", why="\n".join(left),
                next_step=f"oc get pods -n {namespace}; look at what the finalizers wait for",
            )  # fmt: skip
        Event().wait(_LOOK_SECONDS)


def _left(cluster: Cluster, part: Sequence[Ref], namespace: str, names: set[str]) -> list[str]:
    lines = []
    for ref in part:
        found = cluster.get(ref)
        if found is not None:
            held = ", ".join(found["metadata"].get("finalizers") or []) or "its pods"
            lines.append(f"{ref}: waits for {held}")
    pods = cluster.list(PODS, namespace).items if names else ()
    return lines + [str(Ref.of(each)) for each in pods if service_of(each) in names]

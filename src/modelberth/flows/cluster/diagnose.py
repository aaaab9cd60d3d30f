"""`berth diagnose SERVICE`: what the cluster itself says of services that do not start or answer, to cause and fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from modelberth.adapters.kubernetes_api import Cluster
from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.findings.diagnosis.belonging import SERVICE_KINDS, belonging
from modelberth.findings.diagnosis.diagnose import diagnose_objects
from modelberth.findings.diagnosis.finding import Diagnosis
from modelberth.findings.diagnosis.holders import with_holders
from modelberth.flows.cluster.evidence import Evidence, all_workloads, logs_of, look


def diagnose_services(cluster: Cluster, namespace: str, names: Sequence[str] = ()) -> Diagnosis:
    """Diagnose services of a namespace.

    Args:
        cluster: that they are on.
        namespace: theirs.
        names: of those to look at; empty for all.

    Raises:
        UsageError: there is no such service.
        AuthError, RemoteUnavailable: the cluster cannot be asked.
    """
    evidence = look(cluster, namespace)
    _check_names(evidence, namespace, names)
    objects = [each for name in names for each in belonging(evidence.objects, name)] if names else evidence.objects
    unique = list({id(each): each for each in objects}.values())
    notes = list(evidence.notes)
    found = diagnose_objects(unique, logs_of(cluster, unique, notes))
    if any(each.id.startswith("MB-KUE-") for each in found.findings):
        found = with_holders(found, all_workloads(cluster, evidence))
    return replace(found, truncated=(*found.truncated, *notes))


def _check_names(evidence: Evidence, namespace: str, names: Sequence[str]) -> None:
    known = sorted(str(each["metadata"]["name"]) for each in evidence.objects if each.get("kind") in SERVICE_KINDS)
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no service {name} in namespace {namespace}", why=did_you_mean(name, known) or "it has none",
                next_step=f"oc get inferenceservices -n {namespace}",
            )  # fmt: skip

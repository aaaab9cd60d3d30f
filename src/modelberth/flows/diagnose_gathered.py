"""`berth diagnose --must-gather`: what somebody gathered of a cluster, to cause and fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.findings.diagnosis.belonging import SERVICE_KINDS, belonging, service_of, serving_pods
from modelberth.findings.diagnosis.diagnose import diagnose_objects
from modelberth.findings.diagnosis.finding import Diagnosis
from modelberth.findings.diagnosis.holders import with_holders
from modelberth.flows.must_gather import Document, Gathered, LogPlace, read_must_gather


def diagnose_gathered(path: Path, service: str | None = None, namespace: str | None = None) -> Diagnosis:
    """Diagnose a must-gather, an `oc adm inspect` folder, or a tar of one.

    Args:
        path: of it.
        service: look at this one alone; None for all.
        namespace: look into this one alone; None for all that serve models.

    Raises:
        UsageError: it is no gathering, or has no such namespace or service.
        AuthError: it may not be read.
        IntegrityError: the archive is a bomb.
    """
    gathered = read_must_gather(path, namespace)
    objects = gathered.objects if service is None else _of_service(gathered, service)
    found = diagnose_objects(objects, gathered.logs(_that_matter(gathered.places, objects)))
    found = with_holders(found, [each for each in gathered.objects if each.get("kind") == "Workload"])
    return replace(found, truncated=(*found.truncated, *gathered.notes))


def _of_service(gathered: Gathered, service: str) -> Sequence[Document]:
    known = {str(each["metadata"].get("name")) for each in gathered.objects if each.get("kind") in SERVICE_KINDS}
    known |= {service_of(pod) for pod in serving_pods(gathered.objects)}
    if service not in known:
        raise UsageError(
            f"the gathering has no service {service}",
            where=str(gathered.path),
            why=did_you_mean(service, sorted(known)),
        )
    return [dict(each) for each in belonging(gathered.objects, service)]


def _that_matter(places: Sequence[LogPlace], objects: Sequence[Document]) -> list[LogPlace]:
    """Logs of the pods that serve; of all pods where no pod is known to."""
    serving = {
        (str(pod["metadata"].get("namespace")), str(pod["metadata"].get("name"))) for pod in serving_pods(objects)
    }
    return [each for each in places if not serving or (each.namespace, each.pod) in serving]

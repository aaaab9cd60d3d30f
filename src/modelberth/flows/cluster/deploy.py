"""`berth deploy`: a stack onto the cluster, watched until it answers, verified, and put back when it does not.

    rights and kinds -> compare -> ask -> hold -> weights -> apply in waves -> wait by stages -> verify -> record

Nothing is forced: a field of somebody else ends it before anything is changed. What is applied and not yet ready goes
on without us, whatever ends us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelberth.adapters.kubernetes_api import Cluster, Document, Ref, dropped_fields
from modelberth.adapters.kubernetes_api.kinds import NAMESPACES
from modelberth.base.errors import BerthError, Conflict, DoesNotFit, Interrupted, NotReady, PrerequisiteMissing
from modelberth.findings.diagnosis.belonging import SERVICE_KINDS
from modelberth.flows.cluster.comparison import Compared, compare
from modelberth.flows.cluster.diagnose import diagnose_services
from modelberth.flows.cluster.doctor import preflight
from modelberth.flows.cluster.hold import held
from modelberth.flows.cluster.jobs import run_jobs
from modelberth.flows.cluster.machines import scale_up
from modelberth.flows.cluster.permissions import needed, require
from modelberth.flows.cluster.preflight.checked import NOT_SEEN, Checked, Wanted
from modelberth.flows.cluster.targets import PlannedStart, planned_starts
from modelberth.flows.cluster.verify_service import declared, verify_service
from modelberth.flows.cluster.watch import Outcome, follow
from modelberth.flows.progress import Listener, Note, StageBegun
from modelberth.flows.spec_file import SpecFile
from modelberth.flows.verify_endpoint import VerifyReport, VerifyRequest
from modelberth.manifests.objects import SYNC_WAVE, WAVE_REGISTRATION
from modelberth.manifests.tree import stack_tree
from modelberth.manifests.upload_jobs import uploads
from modelberth.spec.services import Service, services
from modelberth.timeline.service_state import ServiceState
from modelberth.timeline.stages import StageTime

DEFAULT_TIMEOUT = 3600.0
_FAILING_SECONDS = 120.0
"""A service that fails for so long is given up: the kubelet has tried it three times or more by then."""
_JOB_PARTS = frozenset({"Job", "ConfigMap"})
Confirm = Callable[[Sequence[Compared]], bool]


@dataclass(frozen=True)
class DeployRequest:
    """What `berth deploy` is asked.

    Attributes:
        namespace: of the services.
        ship: bring the weights first, by the rendered upload Jobs.
        scale_machine_sets: bring the nodes of the pools first.
        wait: until the services answer.
        verify: ask them, once they do.
        rollback: put the services back when it fails.
        timeout: seconds of the waiting, all of it.
        dry_run: compare, and change nothing.
        preflight: look first at what no waiting would mend: Secrets, drivers, disks, quota.
    """

    namespace: str
    ship: bool = False
    scale_machine_sets: bool = False
    wait: bool = True
    verify: bool = True
    rollback: bool = False
    timeout: float = DEFAULT_TIMEOUT
    dry_run: bool = False
    preflight: bool = True


@dataclass
class DeployResult:
    """What became of it.

    Attributes:
        objects: each with what was, or would be, done.
        states: of the services at the end; empty where nobody waited.
        stages: of each service, those that were seen to end, and how long each took.
        planned: start of each service by the plan, where the size of its weights is declared.
        reports: of the verification.
        refused: whether the user said no.
    """

    objects: list[Compared]
    states: tuple[ServiceState, ...] = ()
    stages: Mapping[str, tuple[StageTime, ...]] = field(default_factory=dict)
    planned: dict[str, PlannedStart] = field(default_factory=dict)
    reports: list[VerifyReport] = field(default_factory=list)
    refused: bool = False


def deploy(
    cluster: Cluster, spec: SpecFile, request: DeployRequest, confirm: Confirm, listener: Listener
) -> DeployResult:
    """Deploy a stack.

    Args:
        cluster: onto which.
        spec: the stack.
        request: how.
        confirm: asked before anything is changed; nothing is when it says no.
        listener: told what happens.

    Raises:
        UsageError, InvalidManifest: the stack cannot be rendered, or the server does not take an object.
        PrerequisiteMissing: kinds, the namespace, Secrets or nodes are not there, or a driver does not fit.
        DoesNotFit: a disk or a quota is too small.
        AuthError: rights are missing.
        Conflict: fields belong to others, or somebody else deploys this stack.
        NotReady: services were not ready in time, or do not answer as they should.
    """
    objects = stack_tree(spec.stack, spec_path=str(spec.path)).applied
    jobs = [list(each.objects) for each in uploads(spec.stack)] if request.ship else []
    _require_namespace(cluster, request.namespace)
    require(
        cluster,
        needed(cluster, [*objects, *(one for job in jobs for one in job)], request.namespace),
        request.namespace,
    )
    compared = compare(cluster, objects)
    _refuse_conflicts(compared)
    if request.preflight:
        wanted = Wanted(cluster, request.namespace, spec.stack, services(spec.stack), objects)
        _look_first(preflight(wanted), str(spec.path), listener)
    result = DeployResult(compared)
    if request.dry_run:
        return result
    if not confirm(compared):
        result.refused = True
        return result
    with held(cluster, request.namespace, spec.stack.metadata.name, listener):
        run = _Run(cluster, spec, request, listener, result)
        run.bring(jobs)
        run.apply()
        if request.wait:
            run.wait_and_verify()
    return result


def _require_namespace(cluster: Cluster, namespace: str) -> None:
    if cluster.get(Ref(NAMESPACES, namespace)) is None:
        raise PrerequisiteMissing(
            f"there is no namespace {namespace}", where=cluster.server, next_step=f"oc create namespace {namespace}"
        )


def _refuse_conflicts(compared: Sequence[Compared]) -> None:
    found = [each for each in compared if each.conflict is not None]
    if not found:
        return
    lines = [
        f"{each.ref}: {line}" for each in found for line in (each.conflict.why if each.conflict else "").splitlines()
    ]
    raise Conflict(
        f"fields of {len(found)} objects belong to somebody else; nothing was changed", why="\n".join(lines),
        next_step=(
            "change them where their owner does (Git, when that is Argo CD); or let the owner give them up "
            "(kubectl apply --server-side --field-manager=OWNER without them); or leave them out of berth.yaml"
        ),
    )  # fmt: skip


def _look_first(found: Sequence[Checked], spec: str, listener: Listener) -> None:
    """Say what the preflight found. GPUs that are not there yet may come; the rest would only be waited for in vain."""
    hopeless = [each for each in found if each.level == "failed" and each.name != "GPUs"]
    if hopeless:
        kind = DoesNotFit if hopeless[0].exit_code == DoesNotFit.exit_code else PrerequisiteMissing
        raise kind(
            f"{len(hopeless)} of what the stack needs is not there; nothing was changed",
            why="\n".join(f"{each.name}: {each.found}; {each.fix}" for each in hopeless),
            next_step=f"berth doctor {spec} shows everything; --no-preflight deploys all the same",
        )
    for each in found:
        if each.level != "ok" and not each.found.startswith(NOT_SEEN):
            listener(Note("", f"preflight: {each.name}: {each.found}{'; ' + each.fix if each.fix else ''}"))


class _Run:
    """A deployment that has begun."""

    def __init__(
        self, cluster: Cluster, spec: SpecFile, request: DeployRequest, listener: Listener, result: DeployResult
    ) -> None:
        self._cluster, self._spec, self._request = cluster, spec, request
        self._listener, self._result = listener, result
        self._services = services(spec.stack)
        self._stages: dict[str, str] = {}

    def bring(self, jobs: Sequence[Sequence[Document]]) -> None:
        """Weights and nodes, before what needs them."""
        if self._request.ship and not jobs and any(each.source is not None for each in self._services):
            why = "the stack has no delivery:" if self._spec.stack.delivery is None else "no upload Job can bring them:"
            self._listener(Note("", f"weights are not brought from here, {why} berth ship SOURCE DESTINATION does it"))
        for job in jobs:
            run_jobs(self._cluster, job, self._request.timeout, self._listener)
        if self._request.scale_machine_sets:
            scale_up(self._cluster, self._spec.stack, self._request.timeout, self._listener)

    def apply(self) -> None:
        """Every object that differs, in the order of the waves; what is recorded of the services comes after them."""
        for each in self._result.objects:
            if each.outcome == "unchanged" or self._is_late(each):
                continue
            stored = self._cluster.apply(each.wanted)
            self._listener(Note("", f"{each.ref}: {'created' if each.outcome == 'create' else 'changed'}"))
            from_us = _lost(each.wanted, stored)
            if from_us:
                self._listener(Note("", f"{each.ref}: the server dropped {', '.join(from_us[:5])}"))

    def _is_late(self, each: Compared) -> bool:
        """Registration runs once the services answer, where somebody waits for that."""
        wave = (each.wanted["metadata"].get("annotations") or {}).get(SYNC_WAVE)
        registers = wave == str(WAVE_REGISTRATION) or each.ref.name.startswith("register-")
        return self._request.wait and registers and each.ref.kind.kind in _JOB_PARTS

    def wait_and_verify(self) -> None:
        """Wait by stages, ask each service, then record them.

        Raises:
            NotReady, IntegrityError: as `deploy`.
        """
        try:
            outcome = self._wait()
            self._result.states, self._result.stages = outcome.states, outcome.stages
            self._result.planned = planned_starts(self._services)
            if not outcome.all_ready:
                raise self._not_ready(outcome)
            if self._request.verify:
                self._verify()
        except NotReady:
            if self._request.rollback:
                self._roll_back()
            raise
        except Interrupted:
            self._listener(Note("", self._what_continues()))
            raise
        late = [each.wanted for each in self._result.objects if self._is_late(each)]
        if late:
            run_jobs(self._cluster, late, self._request.timeout, self._listener)

    def _not_ready(self, outcome: Outcome) -> NotReady:
        """What is not ready, where it stands, and what a diagnosis says of it."""
        late = [each for each in outcome.states if not each.is_settled]
        lines = [
            f"{each.name}: {each.state} in {each.stage or 'no stage'}{': ' + each.why if each.why else ''}"
            for each in late
        ]
        how = f"after {outcome.seconds:.0f} s" if outcome.timed_out else "and keep failing"
        namespace = self._request.namespace
        return NotReady(
            f"{len(late)} of {len(outcome.states)} services are not ready {how}",
            where=f"namespace {namespace}", why="\n".join([*lines, *self._findings([each.name for each in late])]),
            next_step=f"berth diagnose {late[0].name} -n {namespace}" if late else f"berth status -n {namespace}",
        )  # fmt: skip

    def _findings(self, names: Sequence[str]) -> list[str]:
        """The first findings of a diagnosis, as lines; none where it cannot be made."""
        there = [each.name for each in self._result.states if each.name in names and each.state != "absent"]
        try:
            found = diagnose_services(self._cluster, self._request.namespace, there).findings if there else ()
        except BerthError as error:
            return [f"no diagnosis: {error.why or error.what}"]
        return [line for each in found[:2] for line in (f"{each.id} {each.title}: {each.cause}", f"fix: {each.fix}")]

    def _what_continues(self) -> str:
        return (
            f"what was applied goes on in {self._request.namespace}; look at it again: "
            f"berth watch {self._spec.path} -n {self._request.namespace}"
        )

    def _wait(self) -> Outcome:
        names = [each.name for each in self._services]
        return follow(
            self._cluster, self._request.namespace, names, lambda states, _seen: self._tell(states),
            timeout=self._request.timeout, fail_after=_FAILING_SECONDS,
        )  # fmt: skip

    def _tell(self, states: Sequence[ServiceState]) -> None:
        for each in states:
            stage = each.stage or each.state
            summary = f"{stage} {each.why}"
            if self._stages.get(each.name) != summary:
                self._stages[each.name] = summary
                self._listener(StageBegun(each.name, stage, each.why))

    def _verify(self) -> None:
        prompts = self._spec.stack.verification.prompts
        for service in self._running():
            request = declared(service, VerifyRequest(""), prompts)
            report = verify_service(self._cluster, self._request.namespace, service.name, request)
            self._result.reports.append(report)
            failed = [check for check in report.checks if not check.passed]
            if failed:
                raise NotReady(
                    f"{service.name} does not answer as it should", where=report.url,
                    why="\n".join(f"{check.name}: {check.detail}" for check in failed),
                    next_step=f"berth verify {service.name} -n {self._request.namespace}",
                )  # fmt: skip
            self._listener(Note(service.name, f"verified: {len(report.checks)} checks passed"))

    def _running(self) -> Sequence[Service]:
        return [each for each in self._services if each.variant.replicas]

    def _roll_back(self) -> None:
        """The services that this deployment changed become what they were; those that it created go. Weights stay."""
        for each in self._result.objects:
            if each.ref.kind.kind not in SERVICE_KINDS or each.outcome == "unchanged":
                continue
            try:
                if each.live is None:
                    self._cluster.delete(each.ref)
                    self._listener(Note("", f"{each.ref}: deleted again"))
                else:
                    self._cluster.replace(_restored(each.live, self._cluster.get(each.ref)))
                    self._listener(Note("", f"{each.ref}: put back to what it was"))
            except BerthError as error:
                self._listener(Note("", f"{each.ref}: cannot be put back: {error.why or error.what}"))


def _restored(before: Document, now: Document | None) -> Document:
    version = ((now or {}).get("metadata") or {}).get("resourceVersion")
    about = {key: value for key, value in before["metadata"].items() if key != "managedFields"}
    return {key: value for key, value in before.items() if key != "status"} | {
        "metadata": about | ({"resourceVersion": version} if version else {})
    }


def _lost(sent: Document, stored: Document) -> tuple[str, ...]:
    return tuple(each for each in dropped_fields(sent, stored) if not each.startswith(".metadata"))

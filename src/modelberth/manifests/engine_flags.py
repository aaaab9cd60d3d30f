"""Whether a release of vLLM takes what it is started with: an unknown flag ends the start, or becomes the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from modelberth.base.text import nearest, printable, shorten
from modelberth.catalog import flags
from modelberth.catalog.flags import Flag
from modelberth.manifests.engine_args import Argument

_COMPUTED = re.compile(r"\$\(|\$\{|\{\{")
"""A value that somebody fills in later, which no list of choices can judge."""


def flag_problems(arguments: Iterable[Argument], release: str, *, serve: bool = False) -> tuple[str, ...]:
    """What a release does not take, each in one sentence.

    Args:
        arguments: flags without dashes, with their values.
        release: of vLLM.
        serve: whether `vllm serve` starts the engine, not the module `vllm.entrypoints.openai.api_server`.
    """
    given = tuple(arguments)
    each_alone = (_problem(each, release, serve) for each in given)
    return (*filter(None, each_alone), *_repeated(given, release))


def flag_problem(name: str, value: str | None, release: str) -> str:
    """What is wrong with one flag on a release, whatever starts the engine; empty when it is taken."""
    found = flags.flag(name, release)
    if found is None:
        return _unknown(name, release)
    if f"-{re.split(r'[.=0-9]', name)[0]}" in found.short:  # `tp`, `O3`, `cc.level`
        return f"--{name} is no flag of vLLM {release}: its short form has one dash; write --{found.name}"
    if "." in name and not flags.reads_parts(release):
        return f"--{name}: vLLM {release} reads no parts of a flag; write --{found.name} with JSON"
    if found.is_switch and value is not None:
        return f"--{name} stands alone in vLLM {release}: true or false in berth.yaml, no value on the command line"
    return _value_problem(name, value, found, release)


def _problem(argument: Argument, release: str, serve: bool) -> str:
    found = flags.flag(argument.flag, release)
    if found and found.serve_only and not serve:
        return f"--{argument.flag} is a flag of `vllm serve` alone in vLLM {release}, not of its module: remove it"
    return flag_problem(argument.flag, argument.value, release)


def _value_problem(name: str, value: str | None, found: Flag, release: str) -> str:
    """Of a flag that takes one."""
    if value is None:
        return f"--{name} needs a value in vLLM {release}" if found.kind in {"value", "list", "append"} else ""
    if "." in name or not found.choices or value in {"", "None", *found.choices} or _COMPUTED.search(value):
        return ""
    shown = shorten(printable(value), 40)
    return f"--{name}={shown}: vLLM {release} has {', '.join(found.choices)}{_meant(value, found.choices)}"


def _meant(value: str, choices: Iterable[str]) -> str:
    near = nearest(value, choices)
    return f"; did you mean {near}?" if near else ""


def _unknown(name: str, release: str) -> str:
    """Of a flag that the release does not have: known elsewhere, written otherwise, or unheard of."""
    found = flags.flag(name) or flags.flag(name.removeprefix("no-"), release)
    if found and not flags.is_in(found, release):
        return _of_other_releases(name, found, release)
    here = f"--{shorten(printable(name), 60)} is no flag of vLLM {release}"
    if found:  # a form that it has not there
        opposite = flags.flag(f"no-{found.name}", release)
        return f"{here}: " + (f"write --no-{found.name}" if opposite else f"--{found.name} has no opposite; remove it")
    begun = [each for each in flags.known(release) if each.startswith(name)]
    if len(begun) == 1:
        return f"{here}, which takes it for --{begun[0]}: write that in full"
    near = nearest(name, flags.known(release))
    return f"{here}; " + (f"did you mean --{near}?" if near else "remove it")


def _of_other_releases(name: str, found: Flag, release: str) -> str:
    gone = flags.is_after(release, found.until)
    when = f"until {found.until}" if gone else f"since {found.since}"
    instead = found.replaced_by if gone and flags.flag(found.replaced_by.partition("=")[0], release) else ""
    return f"--{name} is in vLLM {when}, and not in {release}: " + (f"use --{instead}" if instead else "remove it")


def _repeated(given: tuple[Argument, ...], release: str) -> Iterable[str]:
    """Flags that stand more than once: the last one alone counts, and nothing says so."""
    whole = [found for each in given if "." not in each.flag and (found := flags.flag(each.flag, release))]
    for found, times in Counter(whole).items():
        if times > 1 and found.kind != "append":
            yield f"--{found.name} stands {times} times: vLLM {release} takes the last one alone; write it once"

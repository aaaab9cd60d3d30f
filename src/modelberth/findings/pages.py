"""One page for everything that can be found: signatures of failures and rules of `berth lint`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.findings.diagnosis.catalogue import catalogue
from modelberth.findings.diagnosis.signature import Signature
from modelberth.findings.lint.rules import Rule
from modelberth.findings.lint.run import RULES

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_ID = re.compile(r"(?:MB-)?[A-Za-z]{2,5}-\d{1,4}", re.I)


@dataclass(frozen=True)
class Page:
    """What is told about one finding.

    Attributes:
        id: of the signature or rule.
        title: what is wrong.
        severity: how bad it is.
        kind: `failure` or `rule`.
        stage: of the start that it breaks; empty where none.
        text: what happens, why, and how it is fixed.
        fix: what to do, with the names of a case's numbers in it.
        confirm: what would confirm it.
        seen: how it shows: beginnings of messages, fields of objects.
        follows: ids of its consequences.
        links: sources.
    """

    id: str
    title: str
    severity: str
    kind: str
    stage: str = ""
    text: str = ""
    fix: str = ""
    confirm: str = ""
    seen: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


def pages() -> tuple[Page, ...]:
    """Every page: failures, then rules, by id."""
    failures = [_failure(each) for _, each in sorted(catalogue().items())]
    rules = [_rule(each) for each in sorted(RULES, key=lambda each: each.number)]
    return (*failures, *rules)


def page(name: str) -> Page | tuple[Page, ...]:
    """The page of an id, or those that have a word in their title.

    Raises:
        UsageError: there is none.
    """
    known = {each.id: each for each in pages()}
    upper = name.upper()
    for candidate in (upper, f"MB-{upper}"):
        if candidate in known:
            return known[candidate]
    word = name.lower()
    found = tuple(each for each in known.values() if word in each.title.lower() or upper in each.id.split("-"))
    if found and not _ID.fullmatch(name):
        return found
    why = did_you_mean(upper if upper.startswith("MB-") else f"MB-{upper}", known)
    why = why if why.startswith("did you mean") else ""
    raise UsageError(f"nothing is known as '{name}'", why=why, next_step="berth explain lists everything")


def _failure(each: Signature) -> Page:
    return Page(
        each.id, each.title, each.severity, "failure", each.stage, each.page.strip(), _named(each.fix),
        _named(each.confirm), tuple(dict.fromkeys(_seen(each))), each.explains, each.links,
    )  # fmt: skip


def _seen(each: Signature) -> list[str]:
    found = []
    for match in each.match:
        if match.log is not None:
            place = f" (in {', '.join(match.container)})" if match.container else ""
            found += [f"{needle}{place}" for needle in match.needles]
        elif match.event:
            found.append(f"event {match.event.reason}")
        elif match.condition:
            wanted = match.condition
            state = f"={wanted.status}" if wanted.status else ""
            found.append(f"condition {wanted.type}{state} of {wanted.kind} {wanted.reason or ''}".strip())
        elif match.pod_container:
            fields = match.pod_container
            code = f" with exit code {fields.exit_code}" if fields.exit_code is not None else ""
            found.append(f"container {fields.state or ''} {fields.reason or ''}".strip() + code)
        elif match.pod:
            gate = f" gated by {match.pod.gate}" if match.pod.gate else ""
            found.append(f"pod {match.pod.phase or ''} {match.pod.reason or ''}".strip() + gate)
    return found


def _named(text: str) -> str:
    """A text in which the numbers of a case are named: `{largest}` becomes LARGEST."""
    return _PLACE.sub(lambda place: place[1].upper(), text)


def _rule(each: Rule) -> Page:
    ignore = f"Ignored with a reason: `# berth-lint: ignore {each.id} because ...`."
    return Page(each.id, each.title, each.severity, "rule", text=f"{each.why}\n{ignore}")

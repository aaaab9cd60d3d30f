"""What `berth register` says."""

from __future__ import annotations

from collections.abc import Sequence

from modelberth.cli import output
from modelberth.flows.register import Registered

SCHEMA_VERSION = "modelberth.dev/register/v1"


def show(found: Sequence[Registered], form: str) -> None:
    """Every service and what became of it."""
    if form in ("json", "yaml"):
        output.document({"schemaVersion": SCHEMA_VERSION, "services": [_entry(each) for each in found]}, form)
    elif form == "name":
        output.data("\n".join(each.service for each in found))
    else:
        _table(found, wide=form == "wide")


def _table(found: Sequence[Registered], *, wide: bool) -> None:
    head = ["SERVICE", "MODEL", "VERSION", "ARTIFACT", "RESULT"] + (["IDS"] if wide else [])
    rows = [
        [each.service, each.model, each.version, each.uri, each.outcome]
        + (["/".join(one or "-" for one in each.ids)] if wide else [])
        for each in found
    ]
    lines = output.table(head, rows)
    lines += [f"{each.service}: {change}" for each in found for change in each.changes]
    output.data("\n".join(lines))


def _entry(each: Registered) -> dict[str, object]:
    model, version, artifact = each.ids
    return {
        "service": each.service,
        "model": {"name": each.model, "id": model or None},
        "version": {"name": each.version, "id": version or None},
        "artifact": {"name": each.artifact, "uri": each.uri, "id": artifact or None},
        "result": each.outcome,
        "changes": list(each.changes),
    }

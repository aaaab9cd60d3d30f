"""What ship, fetch, check and the clean-up say at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelberth.base.units import format_decimal, format_seconds
from modelberth.cli import output

if TYPE_CHECKING:
    from modelberth.flows.delivery import DeliveryReport
    from modelberth.flows.upkeep import CheckReport, Remains

_NO_TIME = 1e-9


def show_delivery(verb: str, report: DeliveryReport, form: str) -> None:
    """The result of a ship or a fetch."""
    if form in {"json", "yaml"}:
        output.document(_delivery_document(verb, report), form)
    elif form == "name":
        output.data(report.digest)
    else:
        output.data("\n".join(_delivery_lines(report, wide=form == "wide")))


def show_deliveries(verb: str, reports: list[DeliveryReport], form: str) -> None:
    """The results of several, in one document."""
    if len(reports) > 1 and form in {"json", "yaml"}:
        documents = [_delivery_document(verb, report) for report in reports]
        output.document({"schemaVersion": f"modelberth.dev/{verb}-list/v1", "deliveries": documents}, form)
        return
    for report in reports:
        show_delivery(verb, report, form)


def _delivery_document(verb: str, report: DeliveryReport) -> dict[str, Any]:
    return {
        "schemaVersion": f"modelberth.dev/{verb}/v1",
        "source": report.source,
        "destination": report.destination,
        "digest": report.digest,
        "manifest": "sha256:" + report.manifest.digest,
        "changed": report.changed,
        "bytes": report.manifest.size,
        "bytesMoved": report.bytes_moved,
        "seconds": round(report.seconds, 3),
        "files": [{"path": entry.path, "bytes": entry.size, "sha256": entry.sha256} for entry in report.manifest.files],
    }


def _delivery_lines(report: DeliveryReport, *, wide: bool) -> list[str]:
    manifest, rate = report.manifest, int(report.bytes_moved / max(report.seconds, _NO_TIME))
    moved = f"{format_decimal(report.bytes_moved)} moved, {format_decimal(rate)}/s" if report.changed else "unchanged"
    lines = [
        f"{report.source} -> {report.destination}",
        f"  {len(manifest.files)} files, {format_decimal(manifest.size)}: {moved}, {format_seconds(report.seconds)}",
        f"  {report.digest}",
    ]
    if wide:
        rows = [[entry.path, f"{entry.size:,}", entry.sha256] for entry in manifest.files]
        lines += ["", *output.table(["FILE", "BYTES", "SHA-256"], rows, right=frozenset({1}))]
    return lines


def show_check(report: CheckReport, form: str) -> None:
    """What a check found."""
    if form in {"json", "yaml"}:
        output.document(_check_document(report), form)
    elif form == "name":
        output.data(report.digest)
    else:
        count = len(report.wrong)
        verdict = (
            f"{count} {'range is' if count == 1 else 'ranges are'} wrong" if count else "every byte is as declared"
        )
        size = f"{report.files} files, {format_decimal(report.size)}"
        output.data(f"{report.place}: {verdict} ({size}, {format_seconds(report.seconds)})\n  {report.digest}")
        if report.wrong:
            rows = [[wrong.path, f"{wrong.first:,} to {wrong.last:,}", wrong.why] for wrong in report.wrong]
            output.data("\n".join(output.table(["FILE", "BYTES", "WHY"], rows)))


def _check_document(report: CheckReport) -> dict[str, Any]:
    return {
        "schemaVersion": "modelberth.dev/check/v1",
        "place": report.place,
        "digest": report.digest,
        "files": report.files,
        "bytes": report.size,
        "seconds": round(report.seconds, 3),
        "passed": not report.wrong,
        "wrong": [
            {"path": wrong.path, "firstByte": wrong.first, "lastByte": wrong.last, "why": wrong.why}
            for wrong in report.wrong
        ],
    }


def show_remains(place: str, remains: tuple[Remains, ...], form: str, *, removed: bool) -> None:
    """What was left behind, and whether it is gone."""
    if form in {"json", "yaml"}:
        items = [
            {"kind": each.kind, "name": each.name, "since": each.since.isoformat() if each.since else None}
            for each in remains
        ]
        document = {"schemaVersion": "modelberth.dev/garbage/v1", "place": place, "removed": removed, "items": items}
        output.document(document, form)
    elif form == "name":
        for each in remains:
            output.data(each.name)
    elif not remains:
        output.data(f"{place}: nothing was left behind")
    else:
        rows = [[each.kind, each.since.isoformat() if each.since else "", each.name] for each in remains]
        output.data("\n".join(output.table(["WHAT", "SINCE", "NAME"], rows)))
        output.talk(f"{len(remains)} {'removed' if removed else 'found; without --dry-run they are removed'}")

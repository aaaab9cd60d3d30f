"""What `berth explain` says: a page, or the list of all."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from modelberth.cli import output
from modelberth.findings.pages import Page

_WIDEST = 100


def show_list(pages: Sequence[Page], form: str) -> None:
    """All pages, one a line."""
    if form == "name":
        output.data("\n".join(each.id for each in pages))
    elif form == "text":
        rows = [(each.id, each.severity, each.title) for each in pages]
        output.data("\n".join(output.table(("ID", "SEVERITY", "TITLE"), rows)))
    else:
        output.document(
            {"schemaVersion": "modelberth.dev/explanations/v1", "explanations": [_document(each) for each in pages]},
            form,
        )


def show_page(page: Page, form: str) -> None:
    """One page."""
    if form == "name":
        output.data(page.id)
    elif form == "text":
        output.data("\n".join(_lines(page)))
    else:
        output.document({"schemaVersion": "modelberth.dev/explain/v1", **_document(page)}, form)


def _lines(page: Page) -> Iterator[str]:
    stage = f", stage {page.stage}" if page.stage else ""
    yield f"{page.id}  {page.title}"
    yield f"{page.severity}{stage}"
    yield ""
    yield from page.text.split("\n")
    for title, text in (("Fix", page.fix), ("What would confirm it", page.confirm)):
        if text:
            yield from ("", f"{title}:")
            yield from textwrap.wrap(
                text, min(output.width(), _WIDEST), initial_indent="  ", subsequent_indent="  ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    for title, items in (("Told by", page.seen), ("Its consequences", page.follows), ("Sources", page.links)):
        if items:
            yield from ("", f"{title}:", *(f"  {each}" for each in items))


def _document(page: Page) -> dict[str, Any]:
    return {
        "id": page.id,
        "title": page.title,
        "severity": page.severity,
        "kind": page.kind,
        "stage": page.stage,
        "text": page.text,
        "fix": page.fix,
        "confirm": page.confirm,
        "seen": list(page.seen),
        "consequences": list(page.follows),
        "links": list(page.links),
    }

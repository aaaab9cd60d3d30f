"""What `berth render` says: files and what became of them, or the objects themselves."""

from __future__ import annotations

from collections import Counter

from modelberth.adapters.rendered_tree import RECORD, Kind
from modelberth.base.yamlio import write_documents
from modelberth.cli import output
from modelberth.flows.render import RenderResult, difference
from modelberth.manifests.tree import Tree

SCHEMA_VERSION = "modelberth.dev/render/v1"
_KINDS: tuple[Kind, ...] = ("created", "updated", "overwritten", "removed", "unchanged")


def show_objects(tree: Tree, form: str) -> None:
    """All objects, in the order in which they are applied."""
    if form == "json":
        output.document({"apiVersion": "v1", "kind": "List", "items": list(tree.objects)}, "json")
    elif form in ("name", "table"):
        output.data("\n".join(f"{each['kind']}/{each['metadata']['name']}" for each in tree.objects))
    else:
        output.data(write_documents(tree.objects).rstrip("\n"))
    _notes(tree)


def show(result: RenderResult, form: str, *, diff: bool, written: bool) -> None:
    """What was written, or would be."""
    comparison = result.comparison
    assert comparison is not None  # noqa: S101 - of a tree
    changes = [each for each in comparison.changes if each.kind != "unchanged"]
    if diff:
        if changes:
            output.data("".join(difference(each) for each in changes).rstrip("\n"))
    elif form in ("json", "yaml"):
        output.document(_document(result, written=written), form)
    elif form == "name":
        output.data("\n".join(each.path for each in comparison.changes))
    else:
        width = max((len(each.kind) for each in changes), default=0)
        lines = [f"{each.kind.ljust(width)}  {each.path}" for each in changes]
        output.data("\n".join([*lines, _summary(result, written=written)]))
    _strangers(result, written=written)
    _notes(result.tree)
    if result.secrets:
        output.talk(f"secrets: {result.secrets} (mode 0600, ignored by Git): kubectl apply -f {result.secrets}")


def _summary(result: RenderResult, *, written: bool) -> str:
    comparison = result.comparison
    assert comparison is not None  # noqa: S101 - of a tree
    counts = Counter(each.kind for each in comparison.changes)
    parts = ", ".join(f"{counts[kind]} {kind}" for kind in _KINDS if counts[kind])
    head = f"{len(comparison.changes)} files: {parts}."
    return head if written else f"{head} Nothing was written."


def _strangers(result: RenderResult, *, written: bool) -> None:
    """Files of others, when nothing was written: a run that writes refuses or names them itself."""
    comparison = result.comparison
    if comparison is None or written:
        return
    if comparison.record_differs and not any(each.kind != "unchanged" for each in comparison.changes):
        output.talk(f"the record is not of these files: gitops/{result.tree.stack}/{RECORD}")
    output.talk(*(f"edited since it was rendered: {path}" for path in comparison.edited))
    output.talk(*(f"not written by berth: {path}" for path in comparison.foreign))


def _notes(tree: Tree) -> None:
    output.talk(*(f"note: {note}" for note in tree.notes))


def _document(result: RenderResult, *, written: bool) -> dict[str, object]:
    comparison = result.comparison
    assert comparison is not None  # noqa: S101 - of a tree
    return {
        "schemaVersion": SCHEMA_VERSION,
        "stack": result.tree.stack,
        "written": written,
        "files": [
            {"path": each.path, "change": each.kind, "sha256": each.wanted.digest if each.wanted else None}
            for each in comparison.changes
        ],
        "recordDiffers": comparison.record_differs,
        "edited": list(comparison.edited),
        "foreign": list(comparison.foreign),
        "secrets": str(result.secrets) if result.secrets else None,
        "notes": list(result.tree.notes),
    }

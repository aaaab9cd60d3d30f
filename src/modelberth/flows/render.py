"""`berth render`: a stack's manifests, as objects or as a tree of files that a repository takes.

read the spec -> build every object -> compare with what is there -> write only what differs
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from modelberth.adapters.rendered_tree import Change, Comparison, RenderedTree, WantedFile
from modelberth.base.errors import UsageError
from modelberth.flows.spec_file import SpecFile, read_spec_file
from modelberth.flows.storage_secrets import write_secrets
from modelberth.manifests.tree import Tree, stack_tree


@dataclass(frozen=True)
class RenderRequest:
    """What `berth render` is asked.

    Attributes:
        spec: path of berth.yaml.
        target: folder that the tree goes into; None for the objects alone.
        overwrite: take the place of edited and of foreign files.
        check: look, and write nothing.
        with_secrets: write the Secrets of the store too, to a file that Git ignores.
    """

    spec: Path
    target: Path | None = None
    overwrite: bool = False
    check: bool = False
    with_secrets: bool = False


@dataclass(frozen=True)
class RenderResult:
    """What became of it.

    Attributes:
        tree: files, objects and notes.
        comparison: what is or would be written; None without a target.
        secrets: the file with the Secrets, where one was written.
    """

    tree: Tree
    comparison: Comparison | None
    secrets: Path | None = None


def render(request: RenderRequest) -> RenderResult:
    """Render a stack.

    Raises:
        SpecError, UsageError: the spec is not valid, or cannot be rendered for its platform.
        Conflict: the target has files that are not as they were rendered, or another run is writing.
        AuthError: the target may not be written, or there are no keys for `with_secrets`.
        DoesNotFit: the disk is full; nothing was changed.
    """
    spec = read_spec_file(request.spec)
    target = request.target
    tree = stack_tree(spec.stack, spec_path=_seen_from_script(spec, target))
    if target is None:
        return RenderResult(tree, None)
    files = [WantedFile(each.path, each.text.encode(), each.executable) for each in tree.files]
    place = RenderedTree(target, tree.stack)
    if request.check:
        return RenderResult(tree, place.compare(files))
    comparison = place.write(files, overwrite=request.overwrite)
    secrets = write_secrets(spec.stack, target, os.environ) if request.with_secrets else None
    return RenderResult(tree, comparison, secrets)


def _seen_from_script(spec: SpecFile, target: Path | None) -> str:
    """The stack's file as deploy.sh reaches it from its own folder."""
    script = (target or Path()) / "steps" / spec.stack.metadata.name
    try:
        return os.path.relpath(spec.path.resolve(), script.resolve())
    except OSError as error:
        raise UsageError("the target cannot be found", where=str(target), why=error.strerror or "") from error


def difference(change: Change) -> str:
    """A change as a unified diff."""
    before = (change.before or b"").decode(errors="replace").splitlines(keepends=True)
    after = change.wanted.content.decode().splitlines(keepends=True) if change.wanted else []
    old = f"a/{change.path}" if change.before is not None else "/dev/null"
    new = f"b/{change.path}" if change.wanted else "/dev/null"
    return "".join(difflib.unified_diff(before, after, old, new))

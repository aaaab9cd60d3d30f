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
from modelberth.flows.storage_secrets import place_secrets, stack_secrets
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
        Conflict: the target has files that are not as they were rendered, or another run is writing; or its folder
            of secrets is somebody else's.
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
    secrets = stack_secrets(spec.stack, os.environ) if request.with_secrets else None  # no keys: nothing is written
    comparison = place.write(files, overwrite=request.overwrite)
    return RenderResult(tree, comparison, place_secrets(spec.stack, target, secrets) if secrets else None)


def _seen_from_script(spec: SpecFile, target: Path | None) -> str:
    """The stack's file as deploy.sh reaches it from its own folder."""
    script = (target or Path()) / "steps" / spec.stack.metadata.name
    try:
        return os.path.relpath(spec.path.resolve(), script.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UsageError("the target cannot be found", where=str(target), why=_reason(error)) from error


def _reason(error: OSError | RuntimeError) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else "its links lead in a circle"


def difference(change: Change) -> str:
    """A change as a unified diff."""
    wanted = change.wanted
    old = f"a/{change.path}" if change.before is not None else "/dev/null"
    new = f"b/{change.path}" if wanted else "/dev/null"
    if wanted and change.before == wanted.content:
        return f"diff {old} {new}\nold mode 100644\nnew mode 100755\n"
    return "".join(difflib.unified_diff(_lines(change.before), _lines(wanted.content if wanted else None), old, new))


def _lines(content: bytes | None) -> list[str]:
    """Lines by newlines alone, as `patch` counts them; a last one without is marked as `diff` does."""
    lines = [f"{line}\n" for line in (content or b"").decode(errors="replace").split("\n")]
    last = lines.pop()
    return lines if last == "\n" else [*lines, f"{last}\\ No newline at end of file\n"]

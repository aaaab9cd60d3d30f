"""The Secrets of a stack's store with their values, in a file that Git ignores and nobody else may read.

The only place where keys are written down, and only when they are asked for: what the tree holds are references.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from modelberth.adapters.files import disk_errors, write_file
from modelberth.adapters.s3 import find_keys
from modelberth.base.errors import AuthError, Conflict, UsageError
from modelberth.base.yamlio import write_documents
from modelberth.flows.s3_settings import settings_from_environment
from modelberth.manifests.storage import secret_manifests
from modelberth.spec.stack import Stack

FOLDER = "secrets"


def stack_secrets(stack: Stack, environment: Mapping[str, str]) -> str:
    """The Secrets of the store, with their values, as a file's text.

    Args:
        stack: its `storage.s3.credentials` names the Secret, and the profile that the keys are of.
        environment: the AWS_* variables; what they leave open, the standard AWS chain decides.

    Raises:
        UsageError: the stack names no Secret.
        AuthError: there are no keys, or only some that end by themselves.
        PrerequisiteMissing: the profile is not there.
    """
    _name(stack)
    access, secret = _keys(stack, environment)
    return write_documents(secret_manifests(stack, access, secret))


def _name(stack: Stack) -> str:
    store = stack.storage.s3
    if store is None or store.credentials.secret is None:
        raise UsageError(
            "there is no Secret to write", where="storage.s3.credentials.secret",
            next_step="name it in berth.yaml, or leave --with-secrets out",
        )  # fmt: skip
    return store.credentials.secret


def place_secrets(stack: Stack, target: Path, text: str) -> Path:
    """Write them to `<target>/secrets/<stack>/<name>.yaml`.

    Raises:
        Conflict: the folder of secrets holds files that Git takes, and so is not ours.
        UsageError: a link is where the file should be.
        AuthError, DoesNotFit: it may not be written, or the disk is full.
    """
    folder = target / FOLDER
    ignore, path = folder / ".gitignore", folder / stack.metadata.name / f"{_name(stack)}.yaml"
    with disk_errors(path):
        for step in (folder, path.parent, path, ignore):
            if step.is_symlink():
                raise UsageError("a link is where a file of secrets should go", where=str(step))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _ignored(ignore):  # first: there is no moment in which Git would take the other
            _require_empty(folder)
            write_file(ignore, b"*\n")
        path.parent.mkdir(exist_ok=True, mode=0o700)
        _write_private(path, text)
    return path


def _ignored(ignore: Path) -> bool:
    """Whether Git takes nothing of a folder but, as some write it, the file that says so."""
    if not ignore.is_file():
        return False
    lines = {line.strip() for line in ignore.read_text(encoding="utf-8", errors="replace").splitlines()}
    return "*" in lines and not any(line.startswith("!") for line in lines - {"!.gitignore"})


def _require_empty(folder: Path) -> None:
    if any(not each.is_dir() for each in folder.rglob("*")):
        raise Conflict(
            "the folder of secrets is somebody else's", where=str(folder),
            why="it has files, and no .gitignore that keeps all of them from Git",
            next_step=f"move its files, or write a line of * to {folder / '.gitignore'} if Git is to take none of them",
        )  # fmt: skip


def _keys(stack: Stack, environment: Mapping[str, str]) -> tuple[str, str]:
    """Access key and secret key."""
    settings = settings_from_environment(environment)
    profile = stack.storage.s3.credentials.profile if stack.storage.s3 else None
    if settings.access_key and not settings.session_token and profile is None:
        return settings.access_key, settings.secret_key
    found = find_keys(profile)
    if found is None:
        raise AuthError(
            "there are no lasting keys to write", where="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
            next_step="set both, or name an AWS profile: storage: {s3: {credentials: {profile: NAME}}}",
        )  # fmt: skip
    return found


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

"""The Secrets of a stack's store with their values, in a file that Git ignores and nobody else may read.

The only place where keys are written down, and only when they are asked for: what the tree holds are references.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from modelberth.adapters.files import disk_errors
from modelberth.adapters.s3 import find_keys
from modelberth.base.errors import AuthError, UsageError
from modelberth.base.yamlio import write_documents
from modelberth.flows.s3_settings import settings_from_environment
from modelberth.manifests.storage import secret_manifests
from modelberth.spec.stack import Stack

FOLDER = "secrets"


def write_secrets(stack: Stack, target: Path, environment: Mapping[str, str]) -> Path:
    """Write the Secrets of the store to `<target>/secrets/<stack>/<name>.yaml`.

    Args:
        stack: its `storage.s3.credentials` names the Secret, and the profile that the keys are of.
        target: folder of the rendered tree.
        environment: the AWS_* variables; what they leave open, the standard AWS chain decides.

    Raises:
        UsageError: the stack names no Secret, or a link is where the file should be.
        AuthError: there are no keys, or only some that end by themselves.
        PrerequisiteMissing: the profile is not there.
    """
    store = stack.storage.s3
    if store is None or store.credentials.secret is None:
        raise UsageError(
            "there is no Secret to write", where="storage.s3.credentials.secret",
            next_step="name it in berth.yaml, or leave --with-secrets out",
        )  # fmt: skip
    access, secret = _keys(stack, environment)
    text = write_documents(secret_manifests(stack, access, secret))
    folder = target / FOLDER
    path = folder / stack.metadata.name / f"{store.credentials.secret}.yaml"
    for step in (folder, path.parent, path, folder / ".gitignore"):
        if step.is_symlink():
            raise UsageError("a link is where a file of secrets should go", where=str(step))
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / ".gitignore").write_text("*\n")  # first: there is no moment in which Git would take the other
        _write_private(path, text)
    return path


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
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)

"""What a registry's answers mean."""

from __future__ import annotations

import json
import re

from modelberth.adapters.http_messages import Answer
from modelberth.base.errors import AuthError, BerthError, DoesNotFit, IntegrityError, RemoteUnavailable, UsageError
from modelberth.base.text import printable, shorten

_FULL = re.compile(rb"quota|storage limit|too large|exceeds (?:the )?(?:maximum|limit)|no space left", re.IGNORECASE)
_CODE = re.compile(r"[A-Z_]{3,40}")


def codes(answer: Answer) -> tuple[str, ...]:
    """The error codes of an answer (`MANIFEST_UNKNOWN`); none where it gives none."""
    return tuple(code for code, _ in _entries(answer))


def _entries(answer: Answer) -> list[tuple[str, str]]:
    try:
        entries = json.loads(answer.body)["errors"]
        found = [(str(entry["code"]), str(entry.get("message", ""))) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [(code, shorten(printable(message), 160)) for code, message in found if _CODE.fullmatch(code)]


def _why(answer: Answer) -> str:
    """Status, code and message of an answer."""
    said = [f"{code}: {message}" if message else code for code, message in _entries(answer)[:1]]
    return ", ".join([f"status {answer.status}", *said])


def meaning(answer: Answer, action: str, host: str, where: str, *, logged_in: bool = False) -> BerthError:
    """The error that an answer stands for which is not what was asked for.

    Args:
        answer: of the registry.
        action: `pull` or `push`.
        host: to log in to.
        where: the place.
        logged_in: whether a login was found for it.
    """
    status, why = answer.status, _why(answer)
    if status in {413, 507} or (status in {400, 403, 500} and _FULL.search(answer.body)):
        return DoesNotFit(
            "the registry has no room for this", where=where, why=why,
            next_step="raise its limit or quota, or save the model in smaller shards (max_shard_size)",
        )  # fmt: skip
    if status == 429:
        return RemoteUnavailable(
            "the registry wants fewer requests", where=where, why=why, next_step="try again later, or log in"
        )
    if status >= 500:
        return RemoteUnavailable("the registry failed after retries", where=where, why=why, next_step="try again later")
    if answer.is_page:
        return no_registry(where, f"it answers with a page, status {status}")
    if 300 <= status < 400:
        return no_registry(where, f"it leads elsewhere, status {status}")
    if status in {401, 403}:
        return refused(answer, action, host, where, logged_in=logged_in)
    if status == 404 or "MANIFEST_BLOB_UNKNOWN" in codes(answer):
        return _missing(answer, where, why)
    return UsageError("the registry does not take this request", where=where, why=why)


def _missing(answer: Answer, where: str, why: str) -> BerthError:
    if "NAME_UNKNOWN" in codes(answer):
        step = "correct the address, or have the repository made: some registries want that first"
        return UsageError("there is no such repository", where=where, why=why, next_step=step)
    return IntegrityError("it is not in the registry", where=where, why=why)


def refused(answer: Answer, action: str, host: str, where: str, *, logged_in: bool) -> AuthError:
    """The error for a login that is missing, wrong or not enough."""
    login = f"podman login {host}, or docker login {host}"
    step = f"allow this login to {action} there, or log in anew: {login}" if logged_in else f"log in: {login}"
    why = f"{_why(answer)}; {'the login that was found does not do' if logged_in else 'no login was found'}"
    return AuthError(f"the registry does not let us {action}", where=where, why=why, next_step=step)


def no_registry(where: str, why: str) -> RemoteUnavailable:
    """The error for an answer that no registry gives."""
    what = "this does not answer as a registry does"
    return RemoteUnavailable(what, where=where, why=why, next_step="check the address: oci://registry/name:tag")


def no_tls(where: str) -> RemoteUnavailable:
    """The error for TLS to a server that has none."""
    return RemoteUnavailable(
        "the registry does not speak TLS", where=where, why="it answers TLS with something else",
        next_step="if nobody in between can be in the way: --plain-http",
    )  # fmt: skip


def wants_tls(where: str) -> RemoteUnavailable:
    """The error for plain HTTP to a server that wants TLS."""
    return RemoteUnavailable(
        "the registry speaks TLS only", where=where, why="it refuses plain HTTP", next_step="leave out --plain-http"
    )

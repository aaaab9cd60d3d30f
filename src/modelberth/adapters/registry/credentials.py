"""Who we are at a registry, as `podman login` and `docker login` wrote it down, or as a credential helper knows it.

Sources: containers-auth.json(5); Docker's documents on config.json and on credential helpers.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelberth.adapters import processes
from modelberth.base.errors import PrerequisiteMissing, UsageError

DOCKER_HUB = "docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_SERVER = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers say in place of a name
_HELPER = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Credentials:
    """A name and a password, or an identity token in place of both. The text form shows nothing of it."""

    user: str
    password: str
    identity_token: str = ""

    def __repr__(self) -> str:
        """Without anything that is secret."""
        return "Credentials(...)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(host: str, repository: str) -> Credentials | None:
    """The credentials for a repository; the first file that has some decides. None where there are none.

    Args:
        host: of the registry, with its port.
        repository: the most specific entry wins: host/namespace/repository before host/namespace before host.

    Raises:
        UsageError: a file cannot be read.
        PrerequisiteMissing: a credential helper is named that is not there, or that fails.
    """
    for path in _files(os.environ):
        document = _read(path)
        found = _in_document(document, host, repository, path) if document else None
        if found:
            return found
    return None


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    docker = environment.get("DOCKER_CONFIG")
    yield (Path(docker) if docker else Path("~/.docker").expanduser()) / "config.json"
    yield Path("~/.config/containers/auth.json").expanduser()


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UsageError("the file of registry logins cannot be read", where=str(path), why=why) from None
    except (ValueError, RecursionError):
        raise _broken(path, "it is no JSON") from None
    if not isinstance(document, dict):
        raise _broken(path, "it is no JSON object")
    return document


def _broken(path: Path, why: str) -> UsageError:
    step = "log in again: podman login or docker login"
    return UsageError("the file of registry logins cannot be read", where=str(path), why=why, next_step=step)


def _in_document(document: dict[str, Any], host: str, repository: str, path: Path) -> Credentials | None:
    names = tuple(_names(host, repository))
    helpers, logins = _table(document, "credHelpers"), _table(document, "auths")
    by_name = {_bare(str(key)): key for key in logins}
    for name in names:
        if name in helpers:
            return _from_helper(helpers[name], name, path)
        if name in by_name and (found := _from_login(logins[by_name[name]], path)):
            return found
    store = document.get("credsStore")
    return _from_helper(store, host, path) if store else None


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key)
    return table if isinstance(table, dict) else {}


def _names(host: str, repository: str) -> Iterator[str]:
    """What an entry for a repository may be called, the most specific name first."""
    parts = repository.split("/")
    hosts = _HUB_NAMES if host in _HUB_NAMES else (host,)
    for count in range(len(parts), -1, -1):
        yield from ("/".join((each, *parts[:count])) for each in hosts)


def _bare(key: str) -> str:
    """The key of an entry without scheme and version, which `docker login` writes for some hosts."""
    return re.sub(r"/v[12]/?$", "", re.sub(r"^https?://", "", key)).rstrip("/")


def _from_login(login: Any, path: Path) -> Credentials | None:
    if not isinstance(login, dict):
        return None
    if token := login.get("identitytoken"):
        return Credentials("", "", str(token))
    if not login.get("auth"):
        user, password = login.get("username"), login.get("password")
        return Credentials(str(user), str(password)) if user and password else None
    try:
        text = base64.b64decode(str(login["auth"]), validate=True).decode()
    except ValueError:
        raise _broken(path, "a login in it is damaged") from None
    user, separator, password = text.partition(":")
    if not separator:
        raise _broken(path, "a login in it is damaged")
    return Credentials(user, password.rstrip("\0"))


def _from_helper(helper: Any, name: str, path: Path) -> Credentials | None:
    """Ask a credential helper. What it says is shown nowhere."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise _broken(path, "it names a credential helper that is none")
    program = f"docker-credential-{helper}"
    server = _HUB_SERVER if name in _HUB_NAMES else name
    try:
        code, output = processes.run([program, "get"], given=server)
    except PrerequisiteMissing as error:
        raise PrerequisiteMissing(
            f"{program} cannot be started", where=str(path), why=error.why,
            next_step=f"install it, or take it out of that file and log in: podman login {name}",
        ) from None  # fmt: skip
    if code:
        if "credentials not found" in output:
            return None
        raise _no_answer(program, path, f"exit code {code}", name)
    try:
        said = json.loads(output[output.index("{") : output.rindex("}") + 1])
        user, secret = str(said["Username"]), str(said["Secret"])
    except (ValueError, TypeError, KeyError):
        raise _no_answer(program, path, "its answer cannot be read", name) from None
    return Credentials("", "", secret) if user == _TOKEN_USER else Credentials(user, secret)


def _no_answer(program: str, path: Path, why: str, name: str) -> PrerequisiteMissing:
    return PrerequisiteMissing(
        f"{program} gives no credentials", where=str(path), why=why, next_step=f"log in: podman login {name}"
    )

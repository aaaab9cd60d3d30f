"""Who we are, for every request: a token, a token's file, a password, or what a plug-in gives (`exec`).

Plug-ins follow client.authentication.k8s.io/v1 and v1beta1 (Kubernetes' documentation, "client-go credential
plugins"). One that hangs is given up; one that is missing is named with what its entry says of installing it. A 401 is
answered once with credentials read anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from modelberth.adapters import processes
from modelberth.adapters.kubernetes_api.kubeconfig import Login
from modelberth.base.clock import utc_now
from modelberth.base.errors import AuthError, BerthError, PrerequisiteMissing, UsageError
from modelberth.base.text import printable, shorten

PLUGIN_SECONDS = 60.0
_PLUGIN_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EARLY = timedelta(seconds=10)
_FILE_AGE = timedelta(seconds=60)
_UNAUTHORIZED = 401


@dataclass(frozen=True)
class Credentials:
    """What proves who we are; its text form shows nothing of it.

    Attributes:
        token: bearer token; empty for none.
        certificate: of a client, PEM; None for none.
        key: of the certificate, PEM.
        expires: when they end; None when nobody says.
    """

    token: str = ""
    certificate: bytes | None = None
    key: bytes | None = None
    expires: datetime | None = None

    def __repr__(self) -> str:
        """Without secrets."""
        return "Credentials(...)"


class Identity(httpx2.Auth):
    """The user's entry of a kubeconfig as the credentials of requests.

    Args:
        login: whose it is.
        read_again: reads the kubeconfig anew, for a token in it that has changed meanwhile (`oc login`).
    """

    def __init__(self, login: Login, read_again: Callable[[], Login] | None = None) -> None:
        self._login, self._read_again = login, read_again
        self._entry = login.identity
        self._known: Credentials | None = None

    def credentials(self, *, anew: bool = False) -> Credentials:
        """The credentials now; read again when they end soon or when `anew`.

        Raises:
            AuthError: the plug-in gives none, or the file cannot be read.
            PrerequisiteMissing: the plug-in is not installed.
        """
        known = self._known
        if known is None or anew or (known.expires is not None and known.expires - _EARLY <= utc_now()):
            self._known = known = self._read()
        return known

    def _read(self) -> Credentials:
        entry = self._entry
        if entry.get("tokenFile"):
            return Credentials(_token_in(Path(str(entry["tokenFile"]))), expires=utc_now() + _FILE_AGE + _EARLY)
        if entry.get("token"):
            return Credentials(str(entry["token"]))
        if isinstance(entry.get("exec"), dict):
            return run_plugin(entry["exec"], self._login)
        if entry.get("auth-provider"):
            raise AuthError(
                "the kubeconfig uses an auth-provider, which Kubernetes no longer has", where=self._login.context,
                next_step="log in to the cluster again, with its current tool",
            )  # fmt: skip
        return Credentials()

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign a request; a 401 is tried once more with what the kubeconfig, a file or a plug-in says now."""
        sent = self.credentials()
        self._sign(request, sent)
        response = yield request
        if response.status_code == _UNAUTHORIZED:
            if self._read_again is not None:
                with suppress(BerthError):  # a kubeconfig that cannot be read now leaves what was known
                    self._entry = self._read_again().identity
            found = self.credentials(anew=True)
            if found.token != sent.token:
                self._sign(request, found)
                yield request

    def _sign(self, request: httpx2.Request, credentials: Credentials) -> None:
        if credentials.token:
            request.headers["Authorization"] = f"Bearer {credentials.token}"
        elif self._entry.get("username"):
            basic = httpx2.BasicAuth(str(self._entry["username"]), str(self._entry.get("password", "")))
            next(basic.auth_flow(request))


def _token_in(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise AuthError("the token's file cannot be read", where=str(path), why=error.strerror or "") from error


def run_plugin(entry: Mapping[str, Any], login: Login, seconds: float = PLUGIN_SECONDS) -> Credentials:
    """Ask a credential plug-in.

    Args:
        entry: `exec` of a user.
        login: that it is for.
        seconds: after which it is given up.

    Raises:
        PrerequisiteMissing: it is not installed.
        AuthError: it fails, hangs, or gives nothing that can be used.
        UsageError: its entry is not complete.
    """
    version, command = str(entry.get("apiVersion", "")), str(entry.get("command", ""))
    if version not in _PLUGIN_VERSIONS or not command:
        raise UsageError(
            "the credential plug-in of this context cannot be used", where=f"context {login.context}",
            why=f"apiVersion {version or 'missing'}; known: {', '.join(_PLUGIN_VERSIONS)}",
        )  # fmt: skip
    variables = {str(each.get("name")): str(each.get("value")) for each in entry.get("env") or []}
    about = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    if entry.get("provideClusterInfo"):
        about["spec"] = {"interactive": False, "cluster": {"server": login.server}}
    environment = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(about)}
    # A relative path with a folder is relative to the kubeconfig; a bare name is looked for in PATH.
    program = str(login.folder / command) if "/" in command and not Path(command).is_absolute() else command
    done = _run([program, *map(str, entry.get("args") or [])], environment, entry, login, seconds)
    return _given(done, version, program, login)


def _run(
    command: list[str], environment: Mapping[str, str], entry: Mapping[str, Any], login: Login, seconds: float
) -> bytes:
    try:
        done = processes.run_within(seconds, command, environment=environment)
    except PrerequisiteMissing as error:
        hint = shorten(printable(str(entry.get("installHint") or "")), 300)
        raise PrerequisiteMissing(
            f"the credential plug-in {command[0]} is not installed", where=f"context {login.context}", why=hint,
            next_step=f"install {Path(command[0]).name}, or log in to the cluster in another way",
        ) from error  # fmt: skip
    if done.code:
        last = done.error.strip().splitlines()[-1:] or [f"exit code {done.code}"]
        why = f"it gave no answer in {seconds:.0f} s" if done.timed_out else shorten(printable(last[0]), 300)
        raise AuthError(
            f"the credential plug-in {command[0]} failed", where=f"context {login.context}", why=why,
            next_step="run it by hand, or log in to the cluster again",
        )  # fmt: skip
    return done.output


def _given(output: bytes, version: str, program: str, login: Login) -> Credentials:
    try:
        answer = json.loads(output)
        status = answer["status"]
        token, certificate = str(status.get("token") or ""), status.get("clientCertificateData")
        expires = status.get("expirationTimestamp")
        known = answer["apiVersion"] == version and (token or certificate)
        until = datetime.fromisoformat(expires) if expires else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known, token, certificate, until, status = False, "", None, None, {}
    if not known:
        raise AuthError(
            f"the credential plug-in {program} gave no credentials", where=f"context {login.context}",
            why=f"expected an ExecCredential of {version} with a token or a certificate",
        )  # fmt: skip
    key = status.get("clientKeyData")
    return Credentials(token, certificate.encode() if certificate else None, key.encode() if key else None, until)

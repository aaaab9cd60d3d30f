"""How requests to a registry are authorized: as its challenge wants it, with a password or with a token.

A token is kept until shortly before it expires; a challenge in the middle of an upload leads to a new one.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from modelberth.adapters.http_messages import Answer, Request, is_loopback, shown_url
from modelberth.adapters.registry import errors
from modelberth.adapters.registry.credentials import Credentials, find_credentials
from modelberth.adapters.transport import Wire
from modelberth.base.errors import AuthError, BerthError

_SCOPES = {"pull": {"pull"}, "push": {"pull", "push"}}
_TOKEN_SECONDS = 60
"""Life of a token that does not say how long it lives (distribution, token specification)."""
_MARGIN_SECONDS = 15.0
"""A token is not used any more when it has less to live, or less than a quarter: a request takes a while to arrive."""
_CLIENT = "modelberth"
_CHALLENGE_PART = re.compile(r'([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s,"]*))|([\w-]+)', re.ASCII)
"""A parameter with its value, or the name of a scheme."""
_ADDRESS = re.compile(r"https?://[\x21-\x7e]+")


@dataclass(frozen=True)
class Challenge:
    """What a registry wants in a 401: the scheme and its parameters."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


@dataclass(frozen=True)
class _Token:
    header: str
    until: float


class Authorizer:
    """The Authorization headers for one repository of one registry.

    Args:
        host: of the registry, as the address names it.
        repository: of it.
        wire: that tokens are asked for over.
        where: for messages.
        plain_allowed: the user said that this registry is to be spoken to without TLS.
    """

    def __init__(self, host: str, repository: str, wire: Wire, where: str, *, plain_allowed: bool) -> None:
        self._host, self._repository, self._wire, self._where = host, repository, wire, where
        self._plain_allowed = plain_allowed
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._looked = False
        self._basic = ""
        self._challenge: Challenge | None = None
        self._tokens: dict[str, _Token] = {}

    @property
    def has_credentials(self) -> bool:
        """Whether a login was found; False also before one was looked for."""
        return self._credentials is not None

    def header(self, action: str) -> str:
        """The header's value for `pull` or `push`; empty as long as nothing was demanded."""
        with self._lock:
            return self._header(action)

    def renew(self, answer: Answer, action: str, used: str) -> str:
        """Do what the challenge of a 401 demands.

        Args:
            answer: with the challenge.
            action: that was refused.
            used: the header that was sent.

        Returns:
            The header to ask again with; the one that was used, or none, where asking again makes no sense.
        """
        challenges = parse_challenges(answer.headers.get("www-authenticate", ""))
        with self._lock:
            if bearer := next((each for each in challenges if each.scheme == "bearer" and each.realm), None):
                known = self._tokens.get(action)
                if known is None or known.header == used:
                    self._challenge = bearer
                    self._tokens.pop(action, None)
            elif any(each.scheme == "basic" for each in challenges):
                found = self._login()
                self._basic = found.basic if found and not found.identity_token else ""
            return self._header(action)

    def _header(self, action: str) -> str:
        if self._challenge is None:
            return self._basic
        token = self._tokens.get(action)
        if token is None or token.until <= time.monotonic():
            token = self._tokens[action] = self._fetch(self._challenge, action)
        return token.header

    def _login(self) -> Credentials | None:
        if not self._looked:
            self._credentials = find_credentials(self._host, self._repository)
            self._looked = True
        return self._credentials

    # --- tokens ------------------------------------------------------------------------------------------

    def _fetch(self, challenge: Challenge, action: str) -> _Token:
        login, where = self._login(), f"{shown_url(challenge.realm)} for {self._where}"
        if login:
            self._require_protected(challenge.realm)
        request, body = _token_request(challenge, self._scopes(challenge, action), login)
        begun = time.monotonic()
        answer = self._wire.patiently(
            lambda: self._wire.ask(request, body), where=where, what="the registry's token server"
        )
        if answer.status != 200 or answer.is_page:
            raise self._no_token(answer, action, where)
        try:
            said = json.loads(answer.body)
            token, seconds = (
                said.get("token") or said.get("access_token"),
                float(said.get("expires_in", _TOKEN_SECONDS)),
            )
            until = begun + seconds - min(_MARGIN_SECONDS, seconds / 4)
        except (ValueError, TypeError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise errors.no_registry(where, "it gives no token")
        return _Token(f"Bearer {token}", until)

    def _scopes(self, challenge: Challenge, action: str) -> list[str]:
        """What the challenge wants, and what we know that we need: some registries ask for less than they check."""
        ours = f"repository:{self._repository}:"
        wanted, others = set(_SCOPES[action]), []
        for scope in challenge.scope.split():
            if not scope.startswith(ours):
                others.append(scope)
            elif action != "pull":  # the challenge may be that of a push
                wanted |= set(scope.removeprefix(ours).split(","))
        return [ours + ",".join(sorted(wanted)), *others]

    def _require_protected(self, realm: str) -> None:
        """Passwords go only where nobody in between can read them, or where the user has said that it is so."""
        same_host = urlsplit(realm).netloc == self._host
        if realm.startswith("https://") or is_loopback(realm) or (self._plain_allowed and same_host):
            return
        raise AuthError(
            "the registry wants its password sent unprotected", where=self._where,
            why=f"its token server is {shown_url(realm)}", next_step="give the token server TLS",
        )  # fmt: skip

    def _no_token(self, answer: Answer, action: str, where: str) -> BerthError:
        if answer.status in {400, 401, 403} and not answer.is_page:
            return errors.refused(answer, action, self._host, self._where, logged_in=self.has_credentials)
        return errors.meaning(answer, action, self._host, where)


def _token_request(challenge: Challenge, scopes: list[str], login: Credentials | None) -> tuple[Request, bytes]:
    if login and login.identity_token:
        form = {
            "grant_type": "refresh_token", "refresh_token": login.identity_token, "service": challenge.service,
            "scope": " ".join(scopes), "client_id": _CLIENT,
        }  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", challenge.realm, headers), urlencode(form).encode()
    fields = [*([("service", challenge.service)] if challenge.service else []), *(("scope", each) for each in scopes)]
    separator = "&" if "?" in challenge.realm else "?"
    url = f"{challenge.realm}{separator}{urlencode(fields, quote_via=quote, safe=':,/')}"
    return Request("GET", url, {"Authorization": login.basic} if login else {}), b""


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header. Realms that are no web address are left out."""
    found: list[tuple[str, dict[str, str]]] = []
    for key, quoted, bare, word in _CHALLENGE_PART.findall(text):
        if word:
            found.append((word.lower(), {}))
        elif found:
            found[-1][1][key.lower()] = quoted or bare
    challenges = [
        Challenge(scheme, fields.get("realm", ""), fields.get("service", ""), fields.get("scope", ""))
        for scheme, fields in found
    ]
    return [each for each in challenges if each.scheme != "bearer" or _ADDRESS.fullmatch(each.realm)]

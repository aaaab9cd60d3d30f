"""Requests to one registry: its address, its authorization, and patience."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from modelberth.adapters.http_messages import Answer, Request, Sink, is_loopback
from modelberth.adapters.registry import errors
from modelberth.adapters.registry.auth import Authorizer
from modelberth.adapters.registry.credentials import DOCKER_HUB
from modelberth.adapters.transport import Wire
from modelberth.base.errors import BerthError
from modelberth.spec.addresses import OciAddress

WHO = "the registry"
_HUB_HOST = "registry-1.docker.io"
# What OpenSSL says when the other side answers with something that is no TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
Body = Callable[[], bytes | Iterable[memoryview]]
"""Gives a body, from the start each time it is called: a request may have to be made again."""


def _no_body() -> bytes:
    return b""


@dataclass(frozen=True)
class RegistryOptions:
    """How a registry is spoken to.

    Attributes:
        verify: whether certificates are checked, or a file of authorities.
        plain_http: without TLS; None: only to this machine, where TLS is taken if that is what answers.
        stall_seconds: how long nothing may move before a connection is given up.
    """

    verify: bool | str = True
    plain_http: bool | None = None
    stall_seconds: float = 30.0


class Connection:
    """One repository of one registry.

    Attributes:
        host: of the registry, as the address names it.
        where: the place, for messages.
    """

    def __init__(self, address: OciAddress, options: RegistryOptions) -> None:
        self.host = address.registry
        self.where = f"registry {address.registry}/{address.repository}"
        hub = address.registry == DOCKER_HUB
        repository = f"library/{address.repository}" if hub and "/" not in address.repository else address.repository
        self._netloc = _HUB_HOST if hub else address.registry
        self._path = f"/v2/{repository}/"
        plain = options.plain_http
        self._automatic = plain is None and is_loopback(f"http://{self._netloc}")
        self._scheme = "http" if plain or self._automatic else "https"
        self._spoken = False
        self.wire = Wire(verify=options.verify, stall_seconds=options.stall_seconds)
        self.auth = Authorizer(address.registry, repository, self.wire, self.where, plain_allowed=bool(plain))

    def url(self, place: str) -> str:
        """The address of a place below the repository (`blobs/...`), or an address that the registry gave.

        Raises:
            RemoteUnavailable: it is none, or leads from TLS to where bytes are not protected.
        """
        base = f"{self._scheme}://{self._netloc}"
        try:
            url = urljoin(f"{base}{self._path}", place)
            parts = urlsplit(url)
        except ValueError:
            raise errors.no_registry(self.where, "it leads to an address that is none") from None
        if self._scheme == "https" and parts.scheme == "http" and parts.netloc == self._netloc:
            # Behind a gateway that ends TLS, a registry often does not know that it is spoken to with TLS.
            return parts._replace(scheme="https").geturl()
        if parts.scheme not in {"http", "https"} or (self._scheme == "https" and parts.scheme == "http"):
            raise errors.no_registry(self.where, "it leads to where bytes are not protected")
        return url

    def kept(self, url: str) -> str:
        """An address of this registry without its host, which may be another name for it next time."""
        parts = urlsplit(url)
        return parts._replace(scheme="", netloc="").geturl() if self._is_ours(url) else url

    # --- requests ----------------------------------------------------------------------------------------

    def once(
        self, method: str, place: str, action: str, *, headers: Mapping[str, str] | None = None,
        body: Body = _no_body, length: int | None = None, slow_seconds: float = 0.0,
    ) -> Answer:  # fmt: skip
        """One attempt; a new token, where one is demanded, is part of it.

        Raises:
            Stalled, CutOff, OSError, http.client.HTTPException: the attempt failed; `Wire.patiently` knows them.
        """

        def call(request: Request) -> Answer:
            return self.wire.ask(replace(request, slow_seconds=slow_seconds), body(), length)

        return self._authorized(call, method, place, action, headers or {})

    def get(
        self, method: str, place: str, action: str, headers: Mapping[str, str], accept: Callable[[Answer], bool],
        sink: Sink,
    ) -> Answer:  # fmt: skip
        """One attempt at GET or HEAD, which follows redirects; where `accept` says yes the body goes into the sink."""
        return self._authorized(lambda request: self.wire.get(request, accept, sink), method, place, action, headers)

    def patiently(self, attempt: Callable[[], Answer], what: str = "") -> Answer:
        """Make an attempt until trying again would not change its answer; `what` names the thing for messages."""
        return self.wire.patiently(attempt, where=f"{self.where} {what}".rstrip(), what=WHO)

    def meaning(self, answer: Answer, action: str, what: str = "") -> BerthError:
        """The error that an answer stands for."""
        where = f"{self.where} {what}".rstrip()
        return errors.meaning(answer, action, self.host, where, logged_in=self.auth.has_credentials)

    def _authorized(
        self, call: Callable[[Request], Answer], method: str, place: str, action: str, headers: Mapping[str, str]
    ) -> Answer:
        url = self.url(place)
        ours = self._is_ours(url)
        used = self.auth.header(action) if ours else ""
        answer = self._call(call, _request(method, url, headers, used))
        if answer.status == 400 and not self._spoken and self._wants_tls():
            if not self._automatic:
                raise errors.wants_tls(self.where)
            self._scheme = "https"
            return self._authorized(call, method, place, action, headers)
        self._spoken = True
        # A challenge counts only from the registry: another host that it led to must not get at the password.
        if answer.status != 401 or not ours or not self._is_ours(answer.url or url):
            return answer
        renewed = self.auth.renew(answer, action, used)
        return answer if renewed in {"", used} else self._call(call, _request(method, url, headers, renewed))

    def _call(self, call: Callable[[Request], Answer], request: Request) -> Answer:
        try:
            return call(request)
        except ssl.SSLError as error:
            if error.reason in _NO_TLS:
                raise errors.no_tls(self.where) from None
            raise

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == (self._scheme, self._netloc)

    def _wants_tls(self) -> bool:
        """Whether the registry refuses plain HTTP: Go's and nginx's servers say so in words, if not to HEAD."""
        if self._scheme != "http":
            return False
        answer = self.wire.ask(Request("GET", f"http://{self._netloc}/v2/"))
        return answer.status == 400 and b"HTTPS" in answer.body

    def require_registry(self) -> None:
        """Refuse what answers as no registry does.

        Raises:
            RemoteUnavailable: it is none.
        """
        answer = self.patiently(lambda: self.once("GET", "/v2/", "pull"))
        if answer.is_page or answer.status not in {200, 401, 403}:
            raise errors.no_registry(self.where, f"status {answer.status} at /v2/")


def _request(method: str, url: str, headers: Mapping[str, str], authorization: str) -> Request:
    return Request(method, url, {**headers, "Authorization": authorization} if authorization else headers)

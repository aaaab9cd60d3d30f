"""Where an S3 store is, who we are there, and how requests to it are signed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import botocore
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.loaders
import botocore.session

from modelberth.adapters.http_messages import Request, is_loopback
from modelberth.adapters.s3.errors import client_errors
from modelberth.adapters.transport import tls_context
from modelberth.base.errors import UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 10, 60, 4
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_PAYLOAD = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True)
class S3Endpoint:
    """Where an S3 store is and who we are there. What is absent comes from the standard AWS chain: variables, profile.

    Without a URL or a region that chain decides on them too; without keys it has to have some.

    Attributes:
        url: of the store; None for the chain's, at last AWS itself.
        region: that requests are signed for.
        access_key: empty where the chain finds keys.
        secret_key: belongs to it.
        session_token: belongs to it; often empty.
        profile: of the AWS configuration files.
        verify: whether certificates are checked, or a file of authorities.
        virtual_host: bucket.host instead of host/bucket; None: as AWS wants it there, host/bucket elsewhere.
        anonymous: requests are not signed.
        stall_seconds: how long nothing may move before a connection is given up.
    """

    url: str | None
    region: str | None = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    profile: str | None = None
    verify: bool | str = True
    virtual_host: bool | None = None
    anonymous: bool = False
    stall_seconds: float = 30.0

    def __repr__(self) -> str:
        """Without the keys."""
        return f"S3Endpoint({without_user(self.url or 'AWS')}, {self.region})"


class Signer:
    """Signs requests for objects of one bucket, and knows the addresses of its keys."""

    def __init__(self, endpoint: S3Endpoint, bucket: str, session: botocore.session.Session, client: S3Client) -> None:
        self._client, self._bucket = client, bucket
        self._credentials = None if endpoint.anonymous else session.get_credentials()
        self._region = client.meta.region_name or "us-east-1"

    def url(self, key: str) -> str:
        """The address of an object, as botocore resolves it."""
        signed = self._client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": key})
        return signed.partition("?")[0]

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, payload: str = EMPTY_PAYLOAD
    ) -> Request:
        """A signed request.

        Args:
            method: of HTTP.
            url: with its query.
            headers: which are signed too.
            payload: SHA-256 of the body, or `UNSIGNED_PAYLOAD`.
        """
        unsigned = botocore.awsrequest.AWSRequest(method=method, url=url, headers=dict(headers or {}))
        if self._credentials is not None:
            frozen = self._credentials.get_frozen_credentials()
            _Auth(frozen, "s3", self._region, payload).add_auth(unsigned)
        return Request(method, url, dict(unsigned.headers.items()))

    @property
    def protected(self) -> bool:
        """Whether nothing between us and the store can change what is sent: TLS, or this machine."""
        url = str(self._client.meta.endpoint_url)
        return url.startswith("https:") or is_loopback(url)


class _Auth(botocore.auth.S3SigV4Auth):
    """Signature version 4 with the hash of a body that is not at hand."""

    def __init__(self, credentials: Any, service: str, region: str, payload: str) -> None:
        super().__init__(credentials, service, region)
        self._payload = payload

    def payload(self, request: Any) -> str:
        """The hash that was given."""
        return self._payload


def connect(endpoint: S3Endpoint, bucket: str) -> tuple[S3Client, Signer]:
    """A client and a signer for a bucket.

    Raises:
        UsageError: the address or the certificates cannot be used.
    """
    if isinstance(endpoint.verify, str):
        tls_context(endpoint.verify)  # says so when the file cannot be read; botocore would only at the first call
    session = _session(endpoint)
    client = _client(session, endpoint)
    return client, Signer(endpoint, bucket, session, client)


def find_keys(profile: str | None) -> tuple[str, str] | None:
    """Access key and secret key of the standard AWS chain; None where it has none, or only keys that pass.

    Raises:
        PrerequisiteMissing: there is no such profile, or half of a pair of keys.
    """
    with client_errors("the AWS configuration"):
        credentials = botocore.session.Session(profile=profile).get_credentials()
    # What comes with a session token ends within hours: no Secret is made of it.
    return None if credentials is None or credentials.token else (credentials.access_key, credentials.secret_key)


def _client(session: botocore.session.Session, endpoint: S3Endpoint) -> S3Client:
    client = _client_at(session, endpoint, endpoint.url, endpoint.url)
    if not endpoint.url and not is_aws(client.meta.endpoint_url):
        # AWS_ENDPOINT_URL or the profile names another store: few of those answer to bucket.host.
        chosen = client.meta.endpoint_url
        client.close()
        return _client_at(session, endpoint, None, chosen)
    return client


def _client_at(session: botocore.session.Session, endpoint: S3Endpoint, url: str | None, known: str | None) -> S3Client:
    """A client for `url`, or for what the AWS chain says; `known` is where it will lead, if not to AWS."""
    style: Literal["path", "virtual", "auto"] = "path" if known else "auto"
    if endpoint.virtual_host is not None:
        style = "virtual" if endpoint.virtual_host else "path"
    try:
        client: Any = session.create_client(
            "s3",
            endpoint_url=url,
            # None leaves it to AWS_CA_BUNDLE and the profile.
            verify=None if endpoint.verify is True else endpoint.verify,
            config=botocore.config.Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "max_attempts": _ATTEMPTS},
                s3={"addressing_style": style},
                signature_version=botocore.UNSIGNED if endpoint.anonymous else None,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # A proxy of the environment must not see requests to this machine.
                proxies={} if known and is_loopback(known) else None,
            ),
        )
        return client  # type: ignore[no-any-return]
    except ValueError:
        # Its message quotes the address, and with it a password that stands there.
        step = "expected http://host:port or https://host, in the spec or AWS_ENDPOINT_URL"
        raise UsageError("the address of the S3 store is not one", next_step=step) from None


def is_aws(url: str) -> bool:
    """Whether this is AWS itself."""
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def without_user(url: str) -> str:
    """A URL for messages: without the user and the password that it may carry."""
    head, separator, rest = url.rpartition("@")
    return f"{head.partition('://')[0]}://{rest}" if separator else url


class _Loader(botocore.loaders.Loader):
    """Loads what botocore knows, without the addresses of 400 services that nobody here asks: 6 MB of memory less.

    What stays is S3 and what credentials are got from: roles (sts) and single sign-on.
    """

    _KEPT = frozenset({"s3", "sts", "sso", "oidc", "portal.sso", "sso-oidc"})

    def load_data_with_path(self, name: str) -> tuple[Any, str]:
        """As the library, of which `endpoints` is a list of partitions with their services."""
        data, path = super().load_data_with_path(name)
        if name == "endpoints":
            for partition in data["partitions"]:
                services = partition["services"]
                partition["services"] = {key: services[key] for key in self._KEPT & services.keys()}
        return data, path


@lru_cache(maxsize=1)
def _loader() -> botocore.loaders.Loader:
    """One loader for all stores: what it has read is kept."""
    # As botocore's own `create_loader`, which makes no other class; AWS_DATA_PATH adds models that S3 does not need.
    return _Loader()


def _session(endpoint: S3Endpoint) -> botocore.session.Session:
    session = _bare_session(endpoint)
    session.register_component("data_loader", _loader())
    return session


def _bare_session(endpoint: S3Endpoint) -> botocore.session.Session:
    if not endpoint.access_key:
        session = botocore.session.Session(profile=endpoint.profile)
        # botocore knows AWS_DEFAULT_REGION only; every other AWS SDK, and what sets variables in pods, AWS_REGION.
        region = endpoint.region or os.environ.get("AWS_REGION")
        if region:
            session.set_config_variable("region", region)
        return session
    # With keys of their own, neither AWS_PROFILE nor the user's configuration files have a say.
    alone = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
    session = botocore.session.Session(session_vars={name: (None, None, value, None) for name, value in alone.items()})
    session.set_credentials(endpoint.access_key, endpoint.secret_key, endpoint.session_token or None)
    if endpoint.region:
        session.set_config_variable("region", endpoint.region)
    return session

"""Where an S3 store is and who we are there, as the environment says it: on a laptop, in a Job, and under KServe."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from modelberth.base.errors import UsageError
from modelberth.flows.kserve_environment import (
    ACCESS_KEY,
    ANONYMOUS,
    BUCKET,
    CA_BUNDLE,
    CA_CONFIG_MAP,
    CA_MOUNT,
    ENDPOINTS,
    PLACEHOLDER,
    REGIONS,
    SECRET_KEY,
    SESSION_TOKEN,
    VERIFY,
    VIRTUAL_HOST,
    flag,
    kserve_variables,
)

# KServe, pkg/constants: where it mounts a CA bundle's ConfigMap, and the file in it.
_CA_MOUNT, _CA_FILE = "/etc/ssl/custom-certs", "cabundle.crt"
_GLOBAL_AWS = "https://s3.amazonaws.com"
_GLOBAL_REGION = "us-east-1"
# At most one @, before the host: with more of them nobody can tell what is a password.
_URL = re.compile(r"(https?://)(?:[^/?#@]*@)?((?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d+)?)(?:[/?#][^@]*)?", re.IGNORECASE)


@dataclass(frozen=True)
class S3Settings:
    """What the environment says of an S3 store. What it leaves open, the standard AWS chain decides.

    Attributes:
        endpoint: URL of the store; None for the chain's, at last AWS itself.
        region: its region; None for the chain's.
        access_key: empty where the chain is to find keys: a profile, a role of the service account (IRSA).
        secret_key: belongs to `access_key`.
        session_token: belongs to `access_key`; often empty.
        verify: whether the store's certificate is checked, or a file of the authorities to check it against. Whether
            that file is there is not looked at.
        virtual_host: bucket.host instead of host/bucket; None where the kind of store decides.
        anonymous: requests are not signed; there are no keys then.
        bucket: bucket of the data connection; empty where it names none.
    """

    endpoint: str | None
    region: str | None
    access_key: str
    secret_key: str
    session_token: str
    verify: bool | str
    virtual_host: bool | None
    anonymous: bool
    bucket: str

    def __repr__(self) -> str:
        """Without keys, and without what a URL may carry beside the host."""
        who = "anonymous" if self.anonymous else "own keys" if self.access_key else "keys of the AWS chain"
        return f"S3Settings({_shown(self.endpoint)}, {self.region}, {who}, verify={self.verify}, bucket={self.bucket})"


def settings_from_environment(environment: Mapping[str, str]) -> S3Settings:
    """Read the settings. Nothing but the argument is looked at.

    S3_USE_ACCELERATE, and KServe's S3_CONNECT_TIMEOUT, S3_READ_TIMEOUT and S3_MAX_ATTEMPTS, have no effect.

    Raises:
        UsageError: values that cannot be read, or that contradict each other; none of them is quoted.
    """
    variables = kserve_variables(environment)
    anonymous = bool(flag(variables, *ANONYMOUS))
    access, secret, token = ("", "", "") if anonymous else _keys(variables)
    endpoint, region = _first(variables, ENDPOINTS), _first(variables, REGIONS)
    return S3Settings(
        endpoint=endpoint,
        region=region,
        access_key=access,
        secret_key=secret,
        session_token=token,
        verify=_verify(variables),
        virtual_host=_virtual_host(variables, endpoint, region),
        anonymous=anonymous,
        bucket=variables.get(BUCKET, ""),
    )


def resolve_source(uri: str, settings: S3Settings) -> str:
    """The address to fetch from, where KServe left its bucket to the data connection.

    KServe's webhook writes `<scheme-placeholder>://path` for a model's `storage.path` and puts scheme and bucket in
    once it has read the data connection. Any other address is left as it is.

    Raises:
        UsageError: the data connection names no bucket.
    """
    if not uri.startswith(PLACEHOLDER):
        return uri
    if not settings.bucket:
        raise UsageError(
            "the model's address has no bucket, and its data connection names none", where="storage.path",
            next_step="add 'bucket' to the data connection, or give the model a storageUri: s3://bucket/prefix/",
        )  # fmt: skip
    return f"s3://{settings.bucket}/{uri.removeprefix(PLACEHOLDER).lstrip('/')}"


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((variables[name] for name in names if name in variables), None)


def _keys(variables: Mapping[str, str]) -> tuple[str, str, str]:
    access, secret = variables.get(ACCESS_KEY, ""), variables.get(SECRET_KEY, "")
    token = variables.get(SESSION_TOKEN, "")
    if bool(access) != bool(secret):
        raise UsageError(f"there is only one of {ACCESS_KEY} and {SECRET_KEY}", next_step="set both, or neither")
    if not (access + secret + token).isascii():
        raise UsageError("the S3 keys hold characters that no key has", next_step="write them anew")
    return (access, secret, token) if access else ("", "", "")


def _verify(variables: Mapping[str, str]) -> bool | str:
    if flag(variables, VERIFY) is False:
        return False
    if CA_BUNDLE in variables:
        return variables[CA_BUNDLE]
    if CA_CONFIG_MAP in variables:
        return posixpath.join(variables.get(CA_MOUNT, _CA_MOUNT), _CA_FILE)
    return True


def _virtual_host(variables: Mapping[str, str], endpoint: str | None, region: str | None) -> bool | None:
    # As KServe: AWS's global address leads to a bucket of another region only by the bucket's own host name.
    if endpoint == _GLOBAL_AWS and region not in {None, _GLOBAL_REGION}:
        return True
    return flag(variables, *VIRTUAL_HOST)


def _shown(endpoint: str | None) -> str:
    """The host of a URL, without the user and the password that it may carry."""
    if endpoint is None:
        return "endpoint of the AWS chain"
    url = _URL.fullmatch(endpoint)
    return f"{url[1]}{url[2]}" if url else "an endpoint that is no URL"

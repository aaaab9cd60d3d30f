"""The environment that KServe gives a storage initializer, in the words of the AWS variables.

KServe says where the store is in three ways, and `kserve_variables` brings them to one:

- AWS_* variables, from a Secret of the service account (its `pkg/credentials/s3/utils.go`), beside S3_ENDPOINT,
  S3_USE_HTTPS, S3_VERIFY_SSL, S3_USER_VIRTUAL_BUCKET (so spelled there) and awsAnonymousCredential;
- STORAGE_CONFIG, the JSON of one data connection, where the service names a `storage.key`
  (`pkg/credentials/service_account_credentials.go`; on OpenShift AI odh-model-controller writes it);
- STORAGE_OVERRIDE_CONFIG, JSON again: the service's own `storage.parameters`, which win.

As in KServe's initializer (`kserve_storage.py`), what the JSON says wins over variables. An empty text says nothing.
Values hold keys: no error quotes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from modelberth.base.errors import UsageError

PLACEHOLDER = "<scheme-placeholder>://"
"""What KServe writes before a `storage.path` until its credentials are known."""

CONFIG, OVERRIDE = "STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
REGIONS = ("AWS_DEFAULT_REGION", "AWS_REGION")
BUCKET = "AWS_S3_BUCKET"
CA_BUNDLE, CA_CONFIG_MAP, CA_MOUNT = "AWS_CA_BUNDLE", "CA_BUNDLE_CONFIGMAP_NAME", "CA_BUNDLE_VOLUME_MOUNT_POINT"
VERIFY = "S3_VERIFY_SSL"
ANONYMOUS = ("awsAnonymousCredential", "AWS_ANONYMOUS_CREDENTIAL")
VIRTUAL_HOST = ("S3_USER_VIRTUAL_BUCKET", "S3_USE_VIRTUAL_BUCKET")

_S3_ENDPOINT, _USE_HTTPS, _CONNECTION_ENDPOINT = "S3_ENDPOINT", "S3_USE_HTTPS", "AWS_S3_ENDPOINT"
_READ = (
    *ENDPOINTS, ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, *REGIONS, BUCKET, CA_BUNDLE, CA_CONFIG_MAP, CA_MOUNT, VERIFY,
    *ANONYMOUS, *VIRTUAL_HOST, _S3_ENDPOINT, _USE_HTTPS, _CONNECTION_ENDPOINT,
)  # fmt: skip
# Key of the JSON -> the variables it stands for. The first gets its value, the others no longer have a say.
_CONFIG_VARIABLES = {
    "endpoint_url": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "access_key_id": (ACCESS_KEY, SESSION_TOKEN),
    "secret_access_key": (SECRET_KEY,),
    "region": REGIONS,
    "bucket": (BUCKET,),
    "ca_bundle": (CA_BUNDLE,),
    "verify_ssl": (VERIFY,),
    "anonymous": ANONYMOUS,
}
_KEYS = ("access_key_id", "secret_access_key")
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no"}


def kserve_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment says of S3, by the standard variables and KServe's own; only what is said, stripped.

    Raises:
        UsageError: the JSON cannot be read or is not for S3, or values contradict each other.
    """
    variables = {name: text for name in _READ if (text := _text(name, environment.get(name, "")))}
    for key, text in _storage_config(environment).items():
        name, *silenced = _CONFIG_VARIABLES[key]
        variables[name] = text
        for other in silenced:
            variables.pop(other, None)
    endpoint = _endpoint(variables)
    if endpoint and not any(name in variables for name in ENDPOINTS):
        variables["AWS_ENDPOINT_URL"] = endpoint
    return variables


def flag(variables: Mapping[str, str], *names: str) -> bool | None:
    """Yes or no under any of these names; None where none of them says.

    Raises:
        UsageError: neither yes nor no, or both.
    """
    said = {_yes(name, variables[name]) for name in names if name in variables}
    if len(said) > 1:
        raise UsageError(f"{' and '.join(names)} contradict each other", next_step="set one of them")
    return said.pop() if said else None


def _yes(name: str, text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise UsageError(f"{name} is neither true nor false", next_step="set it to true, false, 1 or 0")


def _text(name: str, value: str) -> str:
    """A value without the line end that `echo key | base64` leaves in many a Secret."""
    text = value.strip()
    if not text.isprintable():
        # In a header such a value fails deep inside the HTTP library, with the value in its message.
        raise UsageError(f"{name} holds characters that cannot be printed", next_step="write it anew")
    return text


def _endpoint(variables: Mapping[str, str]) -> str:
    """S3_ENDPOINT, which KServe writes without a scheme, as a URL; or a data connection's own variable."""
    host = variables.get(_S3_ENDPOINT, "")
    if not host:
        return variables.get(_CONNECTION_ENDPOINT, "")
    https, scheme = flag(variables, _USE_HTTPS), host.lower().partition("://")[0]
    if "://" not in host:
        return f"{'http' if https is False else 'https'}://{host}"
    if https is not None and scheme != ("https" if https else "http"):
        raise UsageError(f"{_S3_ENDPOINT} and {_USE_HTTPS} contradict each other", next_step=f"unset {_USE_HTTPS}")
    return host


def _storage_config(environment: Mapping[str, str]) -> dict[str, str]:
    """The data connection with the service's own parameters over it: the keys that S3 has, where they say something."""
    merged: dict[str, str] = {}
    for name in (CONFIG, OVERRIDE):
        merged |= _json_object(name, environment.get(name, ""))
    if not any(merged.values()):
        return {}
    if merged.get("type", "").lower() != "s3":
        raise UsageError(
            f"{CONFIG} is not for S3", where="its key 'type'",
            next_step="name the key of an S3 data connection as storage.key of the model",
        )  # fmt: skip
    said = {key: merged[key] for key in _CONFIG_VARIABLES if merged.get(key)}
    if len([key for key in _KEYS if key in said]) == 1:
        raise UsageError(f"{CONFIG} has only one of {' and '.join(_KEYS)}", next_step="give both, or neither")
    return said


def _json_object(name: str, text: str) -> dict[str, str]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # Not chained: a JSON error carries the whole document, and with it the keys.
        raise UsageError(f"{name} is not JSON", next_step="correct the data connection's Secret") from None
    if not isinstance(value, dict):
        raise UsageError(f"{name} is not a JSON object", next_step="correct the data connection's Secret")
    return {key: _value(name, key, value[key]) for key in ("type", *_CONFIG_VARIABLES) if key in value}


def _value(name: str, key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(f"{name} key '{key}'", value)
    raise UsageError(f"{name} key '{key}' is not text", next_step="put it between quotation marks")

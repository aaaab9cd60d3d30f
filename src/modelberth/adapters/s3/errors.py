"""What an S3 store's answers mean, whichever way they came: through botocore or over a connection of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.exceptions
import botocore.parsers

from modelberth.adapters.http_messages import Answer
from modelberth.base.errors import (
    AuthError,
    BerthError,
    DoesNotFit,
    IntegrityError,
    PrerequisiteMissing,
    RemoteUnavailable,
    UsageError,
)
from modelberth.base.text import printable, shorten

_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.ProfileNotFound,
)
_UNKNOWN_KEYS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
_WRONG_BYTES = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest"}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
_PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket", "HeadBucket": "s3:ListBucket", "CreateBucket": "s3:CreateBucket",
    "GetObject": "s3:GetObject", "HeadObject": "s3:GetObject", "DeleteObject": "s3:DeleteObject",
    "PutObject": "s3:PutObject", "CreateMultipartUpload": "s3:PutObject", "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject", "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts", "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}  # fmt: skip
"""The permission that a call needs (AWS, service authorization reference for Amazon S3)."""


@contextmanager
def client_errors(where: str) -> Iterator[None]:
    """Turn what botocore raises into our errors."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        found = error.response.get("ResponseMetadata", {})
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise meaning(status_of(error), code, error.operation_name, where, found.get("HTTPHeaders", {})) from error
    except _NO_CREDENTIALS as error:
        why = "neither AWS_* variables nor a profile give keys"
        step = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise PrerequisiteMissing("there are no S3 credentials", where=where, why=why, next_step=step) from error
    except botocore.exceptions.CredentialRetrievalError as error:
        why = "whoever hands them out, a program or a service, failed"  # its own words may quote them
        raise AuthError("the S3 credentials cannot be renewed", where=where, why=why) from error
    except botocore.exceptions.ConfigParseError as error:
        raise UsageError("the AWS configuration cannot be read", where=where, why=str(error)) from error
    except botocore.parsers.ResponseParserError as error:
        raise no_store(where, "its answer cannot be read") from error
    except botocore.exceptions.SSLError:
        raise RemoteUnavailable(
            "the certificate of the S3 store is not trusted", where=where, next_step="give its authority: --ca-bundle"
        ) from None
    except (botocore.exceptions.BotoCoreError, OSError) as error:
        # Its message quotes the address, and with it a password that stands there.
        raise RemoteUnavailable("the S3 store does not answer", where=where, why=type(error).__name__) from None


def status_of(error: botocore.exceptions.ClientError) -> int:
    """The HTTP status of what botocore raised."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def refusal(answer: Answer, operation: str, where: str) -> BerthError:
    """The error that an answer of our own connections stands for."""
    if answer.is_page:
        return no_store(where, f"it answers with a page, status {answer.status}")
    if answer.status in {301, 302, 303, 307, 308}:
        return no_store(where, f"it leads elsewhere, status {answer.status}; the region may be another one")
    found = re.search(rb"<Code>([\w.-]{1,80})</Code>", answer.body)
    code = found[1].decode() if found else f"status {answer.status}"
    return meaning(answer.status, code, operation, where, answer.headers)


def meaning(status: int, code: str, operation: str, where: str, headers: Mapping[str, Any]) -> BerthError:
    """What status and code of a refused call mean."""
    why = f"{code} at {operation}"
    if code in _SKEWED:
        return _skewed(where, headers)
    if status == 507 or code in _FULL:  # Ceph says 403 of a quota, MinIO 400
        return DoesNotFit(
            "the S3 store is full", where=where, why=why, next_step="make room there, then run this again"
        )
    if status in {401, 403} or code in _UNKNOWN_KEYS:
        permission = _PERMISSIONS.get(operation, operation)
        step = "check the keys" if code in _UNKNOWN_KEYS else f"allow {permission} for these keys"
        return AuthError(
            "the S3 store refused this", where=where, why=f"{why}, which needs {permission}", next_step=step
        )
    if code in _WRONG_BYTES:
        return IntegrityError("the S3 store got other bytes than were sent", where=where, why=why)
    if status == 404:
        what = "there is no such bucket" if code == "NoSuchBucket" else "it is not in the S3 store"
        return IntegrityError(what, where=where, why=why)
    if status >= 500 or code in {"SlowDown", "RequestTimeout"} or status == 429:
        return RemoteUnavailable(
            "the S3 store failed after retries", where=where, why=why,
            next_step="try again later, or check the endpoint (AWS_ENDPOINT_URL)",
        )  # fmt: skip
    return UsageError("the S3 store does not take this request", where=where, why=why)


def _skewed(where: str, headers: Mapping[str, Any]) -> AuthError:
    why = "the store refuses requests of another time"
    try:
        theirs = parsedate_to_datetime(str(headers.get("date", "")))
        seconds = round((datetime.now(UTC) - theirs).total_seconds())
        side = "ahead of" if seconds > 0 else "behind"
        why = f"this machine's clock is {abs(seconds):,} s {side} the store's"
    except (ValueError, TypeError):
        pass  # it says no time of its own
    return AuthError("the clocks differ", where=where, why=why, next_step="set the clock: timedatectl set-ntp true")


def no_store(where: str, why: str) -> RemoteUnavailable:
    """The error for an answer that no S3 store gives."""
    step = "check the endpoint (AWS_ENDPOINT_URL)"
    what = "this does not answer as an S3 store does"
    return RemoteUnavailable(what, where=where, why=shorten(printable(why), 200), next_step=step)

"""S3: the calls that delivery needs, over boto3, with its errors mapped to ours.

Checksums are ours (the manifest of files); boto3 is told to compute its own only where a service requires it,
because S3-compatible stores disagree on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions
import botocore.parsers
import botocore.session

from modelberth.base.errors import (
    AuthError,
    BerthError,
    IntegrityError,
    PrerequisiteMissing,
    RemoteUnavailable,
    UsageError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 10, 60, 4
_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.ProfileNotFound,
)
_LISTING_KEYS = {"Name", "IsTruncated", "KeyCount", "Contents"}
_REFUSED_KEYS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class S3Endpoint:
    """Where an S3 store is and who we are there. What is absent comes from the standard AWS chain: variables, profile.

    Without a URL or a region that chain decides on them too; without keys it has to have some.
    """

    url: str | None
    region: str | None = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    profile: str | None = None

    def __repr__(self) -> str:
        """Without the keys."""
        return f"S3Endpoint({self.url}, {self.region})"


class S3Store:
    """One bucket of one store."""

    def __init__(self, endpoint: S3Endpoint, bucket: str) -> None:
        self._bucket = bucket
        self._where = f"{_without_user(endpoint.url or 'AWS')} bucket {bucket}"
        with self._errors():
            self._client = _client(endpoint)
        self._where = f"{_without_user(self._client.meta.endpoint_url)} bucket {bucket}"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ensure_bucket(self) -> None:
        """Make the bucket where there is none."""
        with self._errors():
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except botocore.exceptions.ClientError as error:
                if _status(error) != 404:
                    raise
                self._client.create_bucket(Bucket=self._bucket)

    def read(self, key: str, limit: int) -> bytes | None:
        """A small object's bytes, or None where there is none.

        Raises:
            IntegrityError: it has more than `limit` bytes.
        """
        with self._errors(key):
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=key)
            except botocore.exceptions.ClientError as error:
                if _status(error) == 404:
                    return None
                raise
            with closing(response["Body"]) as body:
                if response["ContentLength"] > limit:
                    raise IntegrityError(
                        "the object is too large for what it should be", where=f"{self._where} key {key}"
                    )
                return body.read()

    def sizes(self, prefix: str, limit: int | None = None) -> dict[str, int]:
        """Sizes in bytes of all objects below a prefix that ends in `/`, by key.

        Raises:
            UsageError: there is no such bucket, or there are more than `limit` objects.
        """
        found: dict[str, int] = {}
        with self._errors(prefix):
            try:
                for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                    if not _LISTING_KEYS & page.keys():
                        raise _no_store(self._where, "its answer is no list of objects")
                    found.update((item["Key"], item["Size"]) for item in page.get("Contents", []))
                    if limit is not None and len(found) > limit:
                        raise UsageError(
                            f"there are more than {limit:,} objects", where=f"{self._where} prefix {prefix}",
                            next_step="give the prefix of one model",
                        )  # fmt: skip
            except botocore.exceptions.ClientError as error:
                if _status(error) != 404:
                    raise
                raise UsageError(
                    "there is no such bucket", where=self._where, next_step="correct its name or the endpoint"
                ) from error
        return found

    def put(self, key: str, content: bytes) -> None:
        """Write an object in one request."""
        with self._errors(key):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    @contextmanager
    def upload(self, key: str) -> Iterator[Upload]:
        """A multipart upload: completed when the block ends, aborted when it fails."""
        with self._errors(key):
            upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        upload = Upload(self, key, upload_id)
        try:
            yield upload
            with self._errors(key):
                self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": upload.parts}
                )
        except BaseException:
            # What went wrong is told, not that the remains could not be removed either.
            with suppress(BerthError), self._errors(key):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            raise

    def chunks(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a range, in pieces.

        Raises:
            IntegrityError: the object is not there, or the answer is another range or of another length.
        """
        if length == 0:
            return
        with self._errors(key):
            response = self._client.get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={offset}-{offset + length - 1}"
            )
            with closing(response["Body"]) as body:
                # rclone answers ranges with 200 instead of 206; the Content-Range says what it really sends.
                expected = f"bytes {offset}-{offset + length - 1}/"
                answered = response.get("ContentRange", "")
                if not answered.startswith(expected):
                    raise IntegrityError(
                        "the store answered another range than asked", where=f"{self._where} key {key}",
                        why=f"asked for {expected.rstrip('/')}, got '{answered}'",
                    )  # fmt: skip
                yield from body.iter_chunks(CHUNK_BYTES)

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        where = f"{self._where} key {key}" if key else self._where
        try:
            yield
        except botocore.exceptions.ClientError as error:
            raise _translated(error, where) from error
        except _NO_CREDENTIALS as error:
            why = "neither AWS_* variables nor a profile give keys"
            raise PrerequisiteMissing("there are no S3 credentials", where=where, why=why) from error
        except botocore.exceptions.ConfigParseError as error:
            raise UsageError("the AWS configuration cannot be read", where=where, why=str(error)) from error
        except botocore.parsers.ResponseParserError as error:
            raise _no_store(where, "its answer cannot be read") from error
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            # Its message quotes the address, and with it a password that stands there.
            raise RemoteUnavailable("the S3 store does not answer", where=where, why=type(error).__name__) from None


class Upload:
    """A multipart upload under way."""

    def __init__(self, store: S3Store, key: str, upload_id: str) -> None:
        self._store, self._key, self._id = store, key, upload_id
        self.parts: list[Any] = []

    def send(self, content: bytes) -> None:
        """Send the next part; all but the last have at least 5 MiB."""
        number = len(self.parts) + 1
        with self._store._errors(self._key):
            answer = self._store._client.upload_part(
                Bucket=self._store._bucket, Key=self._key, UploadId=self._id, PartNumber=number, Body=content
            )
        self.parts.append({"ETag": answer["ETag"], "PartNumber": number})


def _client(endpoint: S3Endpoint) -> S3Client:
    session = _session(endpoint)
    client = _client_at(session, endpoint.url, endpoint.url)
    if not endpoint.url and not _is_aws(client.meta.endpoint_url):
        # AWS_ENDPOINT_URL or the profile names another store: few of those answer to bucket.host.
        chosen = client.meta.endpoint_url
        client.close()
        return _client_at(session, None, chosen)
    return client


def _client_at(session: boto3.session.Session, url: str | None, known: str | None) -> S3Client:
    """A client for `url`, or for what the AWS chain says; `known` is where it will lead, if not to AWS."""
    try:
        return session.client(
            "s3",
            endpoint_url=url,
            config=botocore.config.Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "max_attempts": _ATTEMPTS},
                s3={"addressing_style": "path" if known else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # A proxy of the environment must not see requests to this machine.
                proxies={} if known and "//127.0.0.1" in known else None,
            ),
        )
    except ValueError:
        # Its message quotes the address, and with it a password that stands there.
        step = "expected http://host:port or https://host, in the spec or AWS_ENDPOINT_URL"
        raise UsageError("the address of the S3 store is not one", next_step=step) from None


def _is_aws(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _without_user(url: str) -> str:
    """A URL for messages: without the user and the password that it may carry."""
    head, separator, rest = url.rpartition("@")
    return f"{head.partition('://')[0]}://{rest}" if separator else url


def _session(endpoint: S3Endpoint) -> boto3.session.Session:
    if not endpoint.access_key:
        # boto3 knows AWS_DEFAULT_REGION only; every other AWS SDK, and what sets variables in pods, AWS_REGION.
        region = endpoint.region or os.environ.get("AWS_REGION")
        return boto3.session.Session(profile_name=endpoint.profile, region_name=region)
    # With keys of their own, neither AWS_PROFILE nor the user's configuration files have a say.
    alone = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
    session = botocore.session.Session(session_vars={name: (None, None, value, None) for name, value in alone.items()})
    return boto3.session.Session(
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        botocore_session=session,
        region_name=endpoint.region,
    )


def _no_store(where: str, why: str) -> RemoteUnavailable:
    step = "check the endpoint (AWS_ENDPOINT_URL)"
    return RemoteUnavailable("this does not answer as an S3 store does", where=where, why=why, next_step=step)


def _status(error: botocore.exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _translated(error: botocore.exceptions.ClientError, where: str) -> BerthError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    operation, status = error.operation_name, _status(error)
    if status in {401, 403} or code in _REFUSED_KEYS:
        return AuthError(
            "the S3 store refused this",
            where=where,
            why=f"{code} at {operation}",
            next_step=f"allow {operation} for these keys",
        )
    if status == 404:
        return IntegrityError("it is not in the S3 store", where=where, why=f"{code} at {operation}")
    if status == 507 or code in {"XMinioStorageFull", "QuotaExceeded"}:
        return RemoteUnavailable("the S3 store is full", where=where, why=code)
    if status >= 500 or code in {"SlowDown", "RequestTimeout"}:
        return RemoteUnavailable(
            "the S3 store failed after retries",
            where=where,
            why=f"{code} at {operation}",
            next_step="try again later, or check the endpoint (AWS_ENDPOINT_URL)",
        )
    return UsageError("the S3 store does not take this request", where=where, why=f"{code} at {operation}")

"""One bucket of one store: listings, small objects, multipart uploads, and ranges of large objects."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.exceptions

from modelberth.adapters.http_messages import Answer, Sink, is_range, range_header, wrong_range
from modelberth.adapters.s3.client import UNSIGNED_PAYLOAD, S3Endpoint, connect, is_aws, without_user
from modelberth.adapters.s3.errors import client_errors, no_store, refusal, status_of
from modelberth.adapters.transport import Wire
from modelberth.base.errors import IntegrityError, RemoteUnavailable, UsageError

_LISTING_KEYS = {"Name", "IsTruncated", "KeyCount", "Contents"}
_UNSUPPORTED = {400, 405, 501}
_WHO = "the S3 store"
Pieces = Callable[[], Iterator[memoryview]]
"""Gives the bytes of a body, from the start each time it is called: a request may have to be made again."""


@dataclass(frozen=True)
class Upload:
    """A multipart upload: its key, its id, and whether the store checks CRC-64/NVME of its parts."""

    key: str
    id: str
    checked: bool


@dataclass(frozen=True)
class StoredPart:
    """A part that the store has: bytes, ETag without quotes, and CRC-64/NVME in hexadecimal where it is known."""

    size: int
    etag: str
    crc64nvme: str = ""


@dataclass(frozen=True)
class PendingUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    id: str
    initiated: datetime | None


@dataclass(frozen=True)
class Listing:
    """What is below a prefix: sizes in bytes, times of the last change and ETags by key, and the store's own time."""

    sizes: Mapping[str, int]
    modified: Mapping[str, datetime]
    etags: Mapping[str, str]
    now: datetime


class S3Store:
    """One bucket of one store."""

    def __init__(self, endpoint: S3Endpoint, bucket: str) -> None:
        self.bucket = bucket
        self.where = f"{without_user(endpoint.url or 'AWS')} bucket {bucket}"
        with client_errors(self.where):
            self._connect(endpoint)
        url = self._client.meta.endpoint_url
        self.where = f"{without_user(url)} bucket {bucket}"
        verify = os.environ.get("AWS_CA_BUNDLE") or True if endpoint.verify is True else endpoint.verify
        self._wire = Wire(verify=verify, stall_seconds=endpoint.stall_seconds)
        if is_aws(url) and not endpoint.url:
            self._go_to_region(endpoint)

    def _connect(self, endpoint: S3Endpoint) -> None:
        self._client, self._signer = connect(endpoint, self.bucket)
        self._client.meta.events.register("after-call.s3", self._refuse_page)

    def _refuse_page(self, http_response: Any, model: Any, **_others: Any) -> None:
        """What botocore takes for an empty answer or an object may be a page for people."""
        is_page = "text/html" in http_response.headers.get("content-type", "").lower()
        if is_page and (model.has_streaming_output or http_response.content):  # moto says it of answers without a body
            http_response.raw.close()  # nobody else will: the caller never sees it
            raise no_store(self.where, f"it answers with a page, status {http_response.status_code}")

    def close(self) -> None:
        """Close the connections; transfers of other threads end."""
        self._wire.close()
        self._client.close()

    def _go_to_region(self, endpoint: S3Endpoint) -> None:
        """Sign for the bucket's own region: AWS says which it is whatever it answers."""
        try:
            answer: Mapping[str, Any] = self._client.head_bucket(Bucket=self.bucket)
        except botocore.exceptions.ClientError as error:
            answer = error.response
        except botocore.exceptions.BotoCoreError:
            return  # the first real call says what is wrong
        region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        if region and region != self._client.meta.region_name:
            self._client.close()
            there = S3Endpoint(
                endpoint.url, region, endpoint.access_key, endpoint.secret_key, endpoint.session_token,
                endpoint.profile, endpoint.verify, endpoint.virtual_host, endpoint.anonymous,
            )  # fmt: skip
            self._connect(there)

    # --- the bucket --------------------------------------------------------------------------------------

    def ensure_bucket(self) -> None:
        """Make the bucket where there is none."""
        with self._errors():
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except botocore.exceptions.ClientError as error:
                if status_of(error) != 404:
                    raise
                self._client.create_bucket(Bucket=self.bucket)

    def sizes(self, prefix: str, limit: int | None = None) -> dict[str, int]:
        """Sizes in bytes of all objects below a prefix that ends in `/`, by key.

        Raises:
            UsageError: there is no such bucket, or there are more than `limit` objects.
        """
        return dict(self.listing(prefix, limit).sizes)

    def listing(self, prefix: str, limit: int | None = None) -> Listing:
        """All objects below a prefix that ends in `/`.

        Raises:
            UsageError: there is no such bucket, or there are more than `limit` objects.
        """
        sizes: dict[str, int] = {}
        modified: dict[str, datetime] = {}
        etags: dict[str, str] = {}
        now = datetime.now(UTC)
        with self._errors(prefix):
            try:
                for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                    if not _LISTING_KEYS & page.keys():
                        raise no_store(self.where, "its answer is no list of objects")
                    for item in page.get("Contents", []):
                        sizes[item["Key"]] = item["Size"]
                        modified[item["Key"]] = item["LastModified"]
                        etags[item["Key"]] = item.get("ETag", "")
                    now = _time_of(page["ResponseMetadata"]["HTTPHeaders"], now)
                    if limit is not None and len(sizes) > limit:
                        raise UsageError(
                            f"there are more than {limit:,} objects", where=f"{self.where} prefix {prefix}",
                            next_step="give the prefix of one model",
                        )  # fmt: skip
            except botocore.exceptions.ClientError as error:
                if status_of(error) != 404:
                    raise
                raise UsageError(
                    "there is no such bucket", where=self.where, next_step="correct its name or the endpoint"
                ) from error
        return Listing(sizes, modified, etags, now)

    # --- small objects -----------------------------------------------------------------------------------

    def read(self, key: str, limit: int) -> bytes | None:
        """A small object's bytes, or None where there is none.

        Raises:
            IntegrityError: it has more than `limit` bytes.
        """
        with self._errors(key):
            try:
                response = self._client.get_object(Bucket=self.bucket, Key=key)
            except botocore.exceptions.ClientError as error:
                if status_of(error) == 404 and error.response.get("Error", {}).get("Code") != "NoSuchBucket":
                    return None
                raise
            with closing(response["Body"]) as body:
                if response["ContentLength"] > limit:
                    raise IntegrityError(
                        "the object is too large for what it should be", where=f"{self.where} key {key}"
                    )
                return body.read()

    def put(self, key: str, content: bytes) -> None:
        """Write a small object in one request."""
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    # --- large objects -----------------------------------------------------------------------------------

    def get_range(self, key: str, offset: int, length: int, sink: Sink) -> None:
        """The bytes of a range into a sink, in order; after a broken connection it goes on where it was.

        Raises:
            IntegrityError: the object is not there, or the answer is another range or of another length.
            NotReady: the connection stalled again and again.
        """
        where, done, url = self._at(key), 0, self._url(key)

        def take(chunk: memoryview) -> None:
            nonlocal done
            if done + len(chunk) > length:
                raise IntegrityError(f"{_WHO} sends more than it was asked for", where=where)
            done += len(chunk)
            sink(chunk)

        def attempt() -> Answer:
            at, left = offset + done, length - done
            with client_errors(where):  # keys that last a short time are renewed here
                request = self._signer.request("GET", url, {"Range": range_header(at, left)})
            return self._wire.get(request, lambda answer: is_range(answer, at, left), take)

        if length == 0:
            return
        answer = self._wire.patiently(attempt, where=where, what=_WHO, moved=lambda: done)
        if done == length:
            return
        if answer.status in {200, 206} and not answer.is_page:
            raise wrong_range(answer, offset + done, length - done, where)
        raise refusal(answer, "GetObject", where)

    def put_pieces(self, key: str, length: int, crc64nvme: str, pieces: Pieces) -> None:
        """Write an object of at most 5 GiB in one request.

        Args:
            key: of the object.
            length: bytes.
            crc64nvme: of all bytes, in hexadecimal; a store that knows it checks what it gets.
            pieces: the bytes.

        Raises:
            IntegrityError: the store got other bytes, or the pieces found out that they are not what they were.
        """
        self._send(self._url(key), length, crc64nvme, pieces, "PutObject", self._at(key))

    def begin_upload(self, key: str) -> Upload:
        """Begin a multipart upload."""
        with self._errors(key):
            try:
                answer: Any = self._client.create_multipart_upload(
                    Bucket=self.bucket, Key=key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
                )
            except botocore.exceptions.ClientError as error:
                if status_of(error) not in _UNSUPPORTED:
                    raise
                answer = self._client.create_multipart_upload(Bucket=self.bucket, Key=key)
        return Upload(key, answer["UploadId"], answer.get("ChecksumAlgorithm") == "CRC64NVME")

    def put_part(self, upload: Upload, number: int, length: int, crc64nvme: str, pieces: Pieces) -> str:
        """Send part `number`, from 1; all but the last have at least 5 MiB. Returns its ETag without quotes.

        Raises:
            IntegrityError: as for `put_pieces`; also when the upload is not there any more.
        """
        url = f"{self._url(upload.key)}?partNumber={number}&uploadId={_quoted(upload.id)}"
        crc = crc64nvme if upload.checked else ""
        answer = self._send(url, length, crc, pieces, "UploadPart", f"{self._at(upload.key)} part {number}")
        return answer.headers.get("etag", "").strip('"')

    def complete_upload(self, upload: Upload, etags: Mapping[int, str], size: int) -> None:
        """Make the object of so many bytes out of its parts, by part number from 1."""
        parts: Any = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in sorted(etags.items())]
        with self._errors(upload.key):
            try:
                self._client.complete_multipart_upload(
                    Bucket=self.bucket, Key=upload.key, UploadId=upload.id, MultipartUpload={"Parts": parts}
                )
            except botocore.exceptions.ClientError as error:
                # An answer that got lost is asked for again, and then the upload is gone: its object is there.
                if status_of(error) != 404 or self.sizes(upload.key).get(upload.key) != size:
                    raise

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload up; nothing happens where there is none."""
        with self._errors(key):
            try:
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
            except botocore.exceptions.ClientError as error:
                if status_of(error) != 404:
                    raise

    def stored_parts(self, key: str, upload_id: str) -> dict[int, StoredPart] | None:
        """The parts of an upload by number; None where the upload is gone, or the store cannot say."""
        found: dict[int, StoredPart] = {}
        with self._errors(key):
            try:
                for page in self._client.get_paginator("list_parts").paginate(
                    Bucket=self.bucket, Key=key, UploadId=upload_id
                ):
                    for part in page.get("Parts", []):
                        crc = _hex(part.get("ChecksumCRC64NVME", ""))
                        found[part["PartNumber"]] = StoredPart(part["Size"], part["ETag"].strip('"'), crc)
            except botocore.exceptions.ClientError as error:
                if status_of(error) in {404, *_UNSUPPORTED}:
                    return None
                raise
        return found

    def pending_uploads(self, prefix: str) -> list[PendingUpload]:
        """Multipart uploads below a prefix that were neither completed nor aborted; none where the store cannot say."""
        found: list[PendingUpload] = []
        with self._errors(prefix):
            try:
                for page in self._client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self.bucket, Prefix=prefix
                ):
                    found += [
                        PendingUpload(item["Key"], item["UploadId"], item.get("Initiated"))
                        for item in page.get("Uploads", [])
                        if item["Key"].startswith(prefix)
                    ]
            except botocore.exceptions.ClientError as error:
                if status_of(error) not in {404, *_UNSUPPORTED}:
                    raise
        return found

    # --- pieces of it ------------------------------------------------------------------------------------

    def _send(self, url: str, length: int, crc64nvme: str, pieces: Pieces, operation: str, where: str) -> Answer:
        headers = {"x-amz-checksum-crc64nvme": base64.b64encode(bytes.fromhex(crc64nvme)).decode()} if crc64nvme else {}
        payload = UNSIGNED_PAYLOAD if self._signer.protected else _sha256(pieces())

        def attempt() -> Answer:
            with client_errors(where):
                request = self._signer.request("PUT", url, headers, payload)
            return self._wire.ask(request, pieces(), length)

        answer = self._wire.patiently(attempt, where=where, what=_WHO)
        if answer.status not in {200, 201} or (answer.is_page and answer.body):  # moto says text/html of no body
            raise refusal(answer, operation, where)
        return answer

    def _url(self, key: str) -> str:
        with self._errors(key):
            return self._signer.url(key)

    def _at(self, key: str) -> str:
        return f"{self.where} key {key}" if key else self.where

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        with client_errors(self._at(key)):
            yield


def _sha256(pieces: Iterator[memoryview]) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def _quoted(upload_id: str) -> str:
    if not re.fullmatch(r"[\w.~=+/-]+", upload_id, re.ASCII):
        raise RemoteUnavailable("the S3 store gave an upload id that is none")
    return upload_id.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def _hex(text: str) -> str:
    """Base64 of a checksum as hexadecimal; empty where it is none."""
    try:
        return base64.b64decode(text, validate=True).hex()
    except ValueError:
        return ""


def _time_of(headers: Mapping[str, Any], otherwise: datetime) -> datetime:
    try:
        return parsedate_to_datetime(str(headers.get("date", "")))
    except (ValueError, TypeError):
        return otherwise

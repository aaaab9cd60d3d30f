"""The addresses a stack and a command line can name: folders, the Hub, S3 and OCI registries."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelberth.base.errors import UsageError

# AWS bucket naming rules: 3-63 characters of a-z 0-9 . - starting and ending alphanumeric.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# AWS "safe characters" of object keys.
_PREFIX_PART = re.compile(r"[A-Za-z0-9!_.*'()-]+")
# OCI distribution spec 1.1, "Pulling manifests".
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")


@dataclass(frozen=True)
class S3Address:
    """`s3://bucket/prefix/`. The prefix always ends in `/` unless it is empty.

    KServe lists by string prefix: without the slash `s3://models/a` also pulls `s3://models/a-fp8/`.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def key(self, path: str) -> str:
        """The object key of a file path below this prefix."""
        return self.prefix + path


@dataclass(frozen=True)
class OciAddress:
    """`oci://registry/repository:tag` or `...@sha256:...`."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"oci://{self.registry}/{self.repository}{tag}{digest}"


@dataclass(frozen=True)
class HubAddress:
    """`hf://owner/name` or `hf://owner/name@revision` on the Hugging Face Hub."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class FolderAddress:
    """A folder on this machine, as written; relative ones are relative to the stack's file."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class LayoutAddress:
    """`oci-layout:PATH:tag`: an image in an OCI image layout, a folder of this machine."""

    path: str
    tag: str

    def __str__(self) -> str:
        return f"oci-layout:{self.path}:{self.tag}"


WeightsAddress = S3Address | OciAddress
SourceAddress = S3Address | OciAddress | HubAddress | FolderAddress
PlaceAddress = SourceAddress | LayoutAddress


def parse_weights(text: str) -> WeightsAddress:
    """Where the cluster finds the weights.

    Raises:
        UsageError: neither `s3://` nor `oci://`, or malformed.
    """
    if text.startswith("s3://"):
        return _s3(text)
    if text.startswith("oci://"):
        return _oci(text)
    raise UsageError(
        f"'{_shown(text)}' is no weights address",
        why="expected s3://bucket/prefix/ or oci://registry/name:tag",
    )


def parse_source(text: str) -> SourceAddress:
    """Where weights come from before they are delivered.

    Raises:
        UsageError: an address that is malformed or of an unknown scheme.
    """
    if text.startswith(("s3://", "oci://")):
        return parse_weights(text)
    if text.startswith("hf://"):
        return _hub(text)
    scheme, separator, _ = text.partition("://")
    if separator:
        raise UsageError(f"'{scheme}://' is no known source", why="expected a folder, hf://, s3:// or oci://")
    if not text or "\0" in text:
        raise UsageError("a source folder needs a name")
    return FolderAddress(text)


def parse_place(text: str) -> PlaceAddress:
    """Where weights are, of all kinds: a folder, hf://, s3://, oci:// or oci-layout:PATH:tag.

    Raises:
        UsageError: an address that is malformed or of an unknown scheme.
    """
    if not text.startswith("oci-layout:"):
        return parse_source(text)
    path, separator, tag = text.removeprefix("oci-layout:").rpartition(":")
    if not separator or not path or "\0" in path or not _TAG.fullmatch(tag):
        raise UsageError(f"'{text}' is no image in a layout", why="expected oci-layout:PATH:tag")
    return LayoutAddress(path, tag)


def _shown(text: str) -> str:
    """An address for an error message: what stands before an `@` may be a user and a password."""
    return re.sub(r"(?<=://).*@", "…@", text, flags=re.S)


def _s3(text: str) -> S3Address:
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        shown = "…" if "@" in text else bucket
        raise UsageError(f"'{shown}' is no bucket name", why="3 to 63 of a-z, 0-9, dot and hyphen")
    parts = prefix.rstrip("/").split("/") if prefix.strip("/") else []
    if any(part in {"", ".", ".."} or not _PREFIX_PART.fullmatch(part) for part in parts):
        raise UsageError(
            f"'{_shown(text)}' has a prefix that no store and shell agree on",
            why="letters, digits and !-_.*'() between the slashes, and no '.', '..' or empty part",
        )
    return S3Address(bucket, "/".join(parts) + "/" if parts else "")


def _oci(text: str) -> OciAddress:
    rest, _, digest = text.removeprefix("oci://").partition("@")
    registry, _, name = rest.partition("/")
    repository, _, tag = name.partition(":")
    if not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
        raise UsageError(
            f"'{_shown(text)}' is no image address",
            why="expected oci://registry/name:tag, the name in lower case",
        )
    if tag and not _TAG.fullmatch(tag):
        raise UsageError(f"'{tag}' is no image tag", why="letters, digits, dot, hyphen and underscore, at most 128")
    if digest and not _DIGEST.fullmatch(digest):
        raise UsageError(f"'{digest}' is no digest", why="expected sha256: and 64 hexadecimal digits")
    port = registry.rpartition(":")[2]
    if port.isdigit() and int(port) > 65535:
        raise UsageError(f"'{port}' is no port", why="at most 65535")
    return OciAddress(registry, repository, tag if tag or digest else "latest", digest)


def _hub(text: str) -> HubAddress:
    repository, _, revision = text.removeprefix("hf://").partition("@")
    sound = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository, re.ASCII)
    if not sound or not re.fullmatch(r"[\w./-]*", revision, re.ASCII):
        raise UsageError(
            f"'{_shown(text)}' is no Hub address", why="expected hf://owner/name or hf://owner/name@revision"
        )
    return HubAddress(repository, revision)

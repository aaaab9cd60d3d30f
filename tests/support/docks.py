"""What the tests of delivery stand on: models of a few parts, stores, `berth` at one of them, sudden death."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import boto3
from botocore.config import Config

from fault_proxy import FaultProxy, Request
from faults import Action, Broken, Gate, Head

ROOT = Path(__file__).parents[2]
LONG_AGO = 1_600_000_000
PART = 5 << 20
"""The least that S3 takes as a part, so the tests' parts have it."""
OWN = ".modelberth/"
MARK = OWN + "manifest.json"
CONFIG = ROOT / "examples" / "harbor" / "weights" / "bf16" / "config.json"


# --- models ------------------------------------------------------------------------------------------------


def shard(path: Path, size: int, *, hole: bool = False) -> None:
    """Write a safetensors file of one tensor named as the file; its bytes are random, or a hole."""
    header = json.dumps({path.stem: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        if hole:
            file.truncate(file.tell() + size)
        else:
            file.write(os.urandom(size))


def write_model(folder: Path, *sizes: int, hole: bool = False) -> Path:
    """A sound model: a config, a shard of each size, their index. All were last modified long ago."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONFIG, folder / "config.json")
    names = [f"model-{number:05}-of-{len(sizes):05}.safetensors" for number in range(1, len(sizes) + 1)]
    for name, size in zip(names, sizes, strict=True):
        shard(folder / name, size, hole=hole)
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": {Path(name).stem: name for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Set the modification times of all files back."""
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


SHARDS = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors")
"""Of the tests' model: two parts, three parts, one part."""
SIZES = (PART + 70_000, 2 * PART + 90_000, 200_000)
SMALL = tuple(size // 16 for size in SIZES)


# --- stores ------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """A running S3 server: its address and keys, and for one that keeps plain files their folder.

    Without keys it takes any.
    """

    url: str
    access_key: str = ""
    secret_key: str = ""
    folder: Path | None = None

    def environment(self, url: str = "") -> dict[str, str]:
        """What tells `berth` of it; at a proxy's address if one is given."""
        keys = {
            "AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_SESSION_TOKEN": "",
        }  # fmt: skip
        return {"AWS_ENDPOINT_URL": url or self.url, **(keys if self.access_key else {})}

    def client(self, url: str = ""):
        """A client of boto3."""
        return boto3.client(
            "s3", endpoint_url=url or self.url, region_name="us-east-1", aws_access_key_id=self.access_key or "any-key",
            aws_secret_access_key=self.secret_key or "any-secret",
            config=Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required"),
        )  # fmt: skip

    def new_bucket(self) -> str:
        """A new bucket."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str, prefix: str = "m/") -> dict[str, str]:
        """SHA-256 of every object below a prefix, by path, without what deliveries write for themselves."""
        with closing(self.client()) as client:
            keys = [key.removeprefix(prefix) for key in self.keys(bucket, prefix)]
            return {
                key: hashlib.sha256(client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read()).hexdigest()
                for key in keys
                if not key.startswith(OWN)
            }

    def keys(self, bucket: str, prefix: str = "m/") -> list[str]:
        """Keys of every object below a prefix."""
        with closing(self.client()) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def empty(self, bucket: str) -> None:
        """Remove all objects, so that the server's memory is free."""
        with closing(self.client()) as client:
            for key in self.keys(bucket, ""):
                client.delete_object(Bucket=bucket, Key=key)


# --- berth at a store --------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """How a run ended: exit code, its JSON document (None where there is none), what it said to people."""

    code: int
    document: dict | None
    talk: str


class Dock:
    """`berth` at one bucket, its deliveries below `m/`, through a proxy, with a state folder of its own."""

    def __init__(self, berth, store: Store, proxy: FaultProxy, bucket: str, state: Path) -> None:
        self._berth = berth
        self.store, self.proxy, self.bucket, self.state = store, proxy, bucket, state
        self.address = f"s3://{bucket}/m/"

    def start(self, verb: str, *arguments: object, **environment: str):
        """Start a verb; options that are given win over those that every verb gets here."""
        return self._berth.start(
            verb, "--part-size", "5MiB", "--state", self.state, "-o", "json", *arguments,
            **{**self.store.environment(self.proxy.url), **environment},
        )  # fmt: skip

    def end(self, started) -> Outcome:
        """Wait for its end. No secret of the store was said."""
        code, stdout, talk = started.end()
        assert not self.store.secret_key or self.store.secret_key not in stdout + talk
        return Outcome(code, json.loads(stdout) if stdout else None, talk)

    def run(self, verb: str, *arguments: object, **environment: str) -> Outcome:
        """Run a verb to its end."""
        return self.end(self.start(verb, *arguments, **environment))

    def ship(self, folder: Path, *options: object) -> Outcome:
        """Ship a folder to the prefix."""
        return self.run("ship", folder, self.address, *options)

    def fetch(self, folder: Path, *options: object) -> Outcome:
        """Fetch the prefix into a folder."""
        return self.run("fetch", self.address, folder, *options)

    def beside(self, name: str, proxy: FaultProxy | None = None) -> Dock:
        """The same bucket from a machine that knows nothing: another state folder."""
        return Dock(self._berth, self.store, proxy or self.proxy, self.bucket, self.state.with_name(name))

    @property
    def requests(self) -> list[Request]:
        """Every request for this bucket so far."""
        return [each for each in self.proxy.requests if each.path.startswith((f"/{self.bucket}/", f"/{self.bucket}?"))]

    def data_requests(self, method: str, since: int = 0) -> list[Request]:
        """Those that move bytes of the model, from the `since`-th request on."""
        return [each for each in self.requests[since:] if is_data(each, method)]

    def objects(self) -> dict[str, str]:
        """SHA-256 of the model's objects by path."""
        return self.store.objects(self.bucket)

    def has_mark(self) -> bool:
        """Whether the prefix has its manifest."""
        return "m/" + MARK in self.store.keys(self.bucket)

    def upload_id(self, path: str) -> str:
        """The id of the only upload under way of a file."""
        with closing(self.store.client()) as client:
            uploads = client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        (found,) = [item["UploadId"] for item in uploads if item["Key"] == "m/" + path]
        return found


def is_data(request: Request, method: str) -> bool:
    """Whether a request moves bytes of a model."""
    path = request.path.partition("?")[0]
    return request.method == method and path.count("/") > 1 and f"/{OWN}" not in path


# --- sudden death ------------------------------------------------------------------------------------------


class Victim:
    """A process that a fault ends by SIGKILL as soon as somebody has said which."""

    def __init__(self) -> None:
        self._processes: Queue = Queue()

    def is_(self, started):
        """Say which one."""
        self._processes.put(started.process)
        return started

    def kill(self, *_arguments: object) -> None:
        """End it, and wait until it is gone."""
        process = self._processes.get(timeout=50)
        process.kill()
        process.wait()


@dataclass(frozen=True)
class KillBefore(Action):
    """The client dies when it has sent the head of a request; the server never sees it."""

    victim: Victim

    def before(self, request: Request) -> None:
        self.victim.kill()
        raise Broken


@dataclass(frozen=True)
class KillDone(Action):
    """The client dies when the server has done what was asked, without knowing it."""

    victim: Victim

    def head(self, head: Head) -> None:
        self.victim.kill()
        raise Broken


@dataclass(frozen=True)
class KillSending(Action):
    """The client dies when `after` bytes of its request's body have reached the server."""

    victim: Victim
    after: int

    def sent(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return self._dying(pieces)

    def body(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return pieces

    def _dying(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        seen = 0
        for piece in pieces:
            if seen + len(piece) >= self.after:
                yield piece[: self.after - seen]
                self.victim.kill()
                raise Broken
            seen += len(piece)
            yield piece


@dataclass(frozen=True)
class KillReceiving(KillSending):
    """The client dies when `after` bytes of the answer's body have left for it."""

    def sent(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return pieces

    def body(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return self._dying(pieces)

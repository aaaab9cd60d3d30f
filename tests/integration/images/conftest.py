"""What the tests of model images share: `berth` at one repository of a registry, and the tools of others."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from docks import Outcome
from fault_proxy import FaultProxy, Request
from servers import ProgramMissing, Registry, debian_program

_MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"


class Wharf:
    """`berth` at one repository of a registry, through a proxy where there is one."""

    def __init__(self, berth, registry: Registry, proxy: FaultProxy | None, repository: str) -> None:
        self.berth, self.registry, self.proxy, self.repository = berth, registry, proxy, repository
        self.host = (proxy.url if proxy else registry.url).partition("://")[2]

    def address(self, tag: str = "1.0") -> str:
        """The image of a tag."""
        return f"oci://{self.host}/{self.repository}:{tag}"

    def start(self, *arguments: object, **environment: str):
        """Start a verb."""
        return self.berth.start(*arguments, "-o", "json", **environment)

    def end(self, started) -> Outcome:
        """Wait for its end."""
        code, stdout, talk = started.end()
        return Outcome(code, json.loads(stdout) if stdout else None, talk)

    def run(self, *arguments: object, **environment: str) -> Outcome:
        """Run a verb to its end."""
        return self.end(self.start(*arguments, **environment))

    def push(self, source: object, *options: object, tag: str = "1.0", **environment: str) -> Outcome:
        """Push a folder, or an image of a layout."""
        return self.run("modelcar", "push", source, self.address(tag), *options, **environment)

    def fetch(self, folder: Path, *options: object, tag: str = "1.0") -> Outcome:
        """Fetch the image into a folder."""
        return self.run("fetch", self.address(tag), folder, *options)

    def beside(self, repository: str) -> Wharf:
        """Another repository of the same registry, the same way."""
        return Wharf(self.berth, self.registry, self.proxy, repository)

    @property
    def requests(self) -> list[Request]:
        """Every request for this repository so far, through the proxy."""
        return [each for each in self.proxy.requests if each.path.startswith(f"/v2/{self.repository}/")]

    def sent(self, since: int = 0) -> int:
        """Bytes of blobs that were sent, from the `since`-th request on."""
        return sum(each.sent_bytes for each in self.requests[since:] if each.method == "PATCH")

    def blob(self, digest: str) -> Path:
        """The file of a blob in the registry."""
        return self.registry.blob(digest)

    def document(self, digest: str) -> dict:
        """A manifest or config, as the registry keeps it."""
        return json.loads(self.blob(digest).read_bytes())

    def layers(self, digest: str) -> dict[str, dict]:
        """Descriptors of an image's layers by the path of their file."""
        layers = self.document(digest)["layers"]
        return {layer["annotations"]["dev.modelberth.path"]: layer for layer in layers if layer.get("annotations")}

    def manifest(self, tag: str = "1.0") -> bytes | None:
        """What a tag names, past the proxy; None where it names nothing."""
        request = urllib.request.Request(self._url(tag), headers={"Accept": _MANIFEST_TYPES})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def digest(self, tag: str = "1.0") -> str | None:
        """Digest of what a tag names; None where it names nothing."""
        content = self.manifest(tag)
        return "sha256:" + hashlib.sha256(content).hexdigest() if content else None

    def put_manifest(self, tag: str, content: bytes) -> None:
        """Let a tag name a manifest, as somebody else would."""
        kind = json.loads(content)["mediaType"]
        request = urllib.request.Request(self._url(tag), data=content, headers={"Content-Type": kind}, method="PUT")
        urllib.request.urlopen(request).close()

    def _url(self, tag: str) -> str:
        return f"{self.registry.url}/v2/{self.repository}/manifests/{tag}"


@pytest.fixture
def wharf(berth, fault_proxy) -> Callable[..., Wharf]:
    """`berth` at a new repository of a registry; `proxied` to see and disturb what is sent."""

    def make(registry: Registry, *, proxied: bool = False) -> Wharf:
        proxy = fault_proxy(registry.url) if proxied else None
        return Wharf(berth, registry, proxy, f"images/r{uuid.uuid4().hex[:12]}")

    return make


@pytest.fixture
def log_in(berth) -> Callable[[str, str, str], None]:
    """Write down a login for `berth`, as `docker login` does."""

    def write(host: str, user: str, password: str) -> None:
        path = berth.home / ".docker" / "config.json"
        path.parent.mkdir(exist_ok=True)
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))

    return write


class Tools:
    """skopeo and umoci, with a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "TMPDIR": str(folder)}
        for program in ("skopeo", "umoci"):
            debian_program(program)

    def __call__(self, *command: object) -> None:
        """Run one of them."""
        done = subprocess.run(
            [str(part) for part in command], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[0]}: {done.stderr}"

    def pull(self, wharf: Wharf, tag: str, layout: Path) -> None:
        """Pull an image into a layout, as it is."""
        source = f"docker://{wharf.registry.host}/{wharf.repository}:{tag}"
        self(
            "skopeo", "copy", "--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers", source,
            f"oci:{layout}:{tag}",
        )  # fmt: skip

    def push(self, layout: Path, tag: str, wharf: Wharf) -> None:
        """Push an image of a layout."""
        destination = f"docker://{wharf.registry.host}/{wharf.repository}:{tag}"
        self("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:{tag}", destination)

    def unpack(self, layout: Path, tag: str) -> Path:
        """Unpack an image, which compares every layer with its diff id; returns its root."""
        bundle = self.folder / f"bundle-{uuid.uuid4().hex[:8]}"
        self("umoci", "unpack", "--rootless", "--image", f"{layout}:{tag}", bundle)
        return bundle / "rootfs"

    def new_image(self, layout: Path, tag: str) -> None:
        """An image without layers, in a layout that is there or not."""
        if not layout.exists():
            self("umoci", "init", "--layout", layout)
        self("umoci", "new", "--image", f"{layout}:{tag}")

    def insert(self, layout: Path, tag: str, source: Path, target: str) -> None:
        """Put a file or folder into an image, as one more layer with gzip."""
        self("umoci", "insert", "--rootless", "--image", f"{layout}:{tag}", source, target)

    def white_out(self, layout: Path, tag: str, target: str) -> None:
        """Take a path away, in one more layer."""
        self("umoci", "insert", "--rootless", "--image", f"{layout}:{tag}", "--whiteout", target)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """skopeo and umoci."""
    folder = tmp_path / "tools"
    folder.mkdir()
    try:
        return Tools(folder)
    except ProgramMissing:
        pytest.skip("programs are missing; next: apt-get install skopeo umoci")


def write_layout(layout: Path, tag: str, layers: list[tuple[str, bytes]]) -> dict:
    """An image of these layers in a layout, written with nothing of ours; returns its manifest."""
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def store(kind: str, content: bytes) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": store("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": [store(kind, content) for kind, content in layers],
    }  # fmt: skip
    entry = store(manifest["mediaType"], json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return manifest


@pytest.fixture(scope="session")
def foreign_layout() -> Callable[[Path, str, list[tuple[str, bytes]]], dict]:
    """Write an image of given layers (media type, bytes) into a layout; returns its manifest."""
    return write_layout


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path, str], Path]:
    """A copy of a folder under a name."""
    return lambda folder, name: Path(shutil.copytree(folder, tmp_path / name))

"""`berth modelcar` against docker-registry, skopeo and umoci: standard images, deterministic, checked and resumed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docks import LONG_AGO, KillBefore, KillSending, Victim, shard
from fault_proxy import Callback, Fault, FlipByte, Stall
from modelberth.adapters.folder import HashCache
from modelberth.adapters.registry import Registry
from modelberth.base.errors import DoesNotFit
from modelberth.delivery.manifest import FileEntry, FileManifest
from modelberth.flows.origins import FolderOrigin
from modelberth.flows.push import push_folder
from modelberth.spec.addresses import OciAddress

pytestmark = pytest.mark.integration

KILLED = -9
MANIFEST = ".modelberth/manifest.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files_of(layout: Path) -> set[str]:
    """Names of the blobs of a layout, and of what is no blob yet."""
    return {path.name for path in (layout / "blobs" / "sha256").iterdir()}


# --- the same image, however it is made ----------------------------------------------------------------------


def test_a_layout_and_the_folder_itself_give_the_same_image(wharf, registry, berth, model, tmp_path):
    folder, here = model(), wharf(registry)
    layout = f"oci-layout:{tmp_path / 'images'}:bf16"
    built = here.run("modelcar", "build", folder, layout)
    assert built.code == 0, built.talk
    straight, copied = here.push(folder, tag="straight"), here.push(layout, tag="copied")
    assert (straight.code, copied.code) == (0, 0), straight.talk + copied.talk
    assert straight.document["digest"] == copied.document["digest"] == built.document["digest"]
    assert here.digest("straight") == here.digest("copied") == built.document["digest"]
    named = berth("modelcar", "inspect", here.address("straight"), "-o", "name")
    assert named.stdout.strip() == built.document["digest"]


def test_times_owners_and_modes_of_the_files_change_nothing(wharf, registry, model):
    here = wharf(registry)
    first, second = model(), model(name="again")
    for number, path in enumerate(sorted(second.iterdir())):
        os.utime(path, (LONG_AGO + number, LONG_AGO + number))
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, 1000 + number, 1000)
    pushed = [here.push(folder, tag=tag) for folder, tag in ((first, "one"), (second, "two"))]
    assert [each.code for each in pushed] == [0, 0]
    assert here.digest("one") == here.digest("two") == pushed[0].document["digest"] == pushed[1].document["digest"]
    assert pushed[1].document["bytesMoved"] == 0


def test_pushed_again_nothing_moves(wharf, registry, model):
    folder, here = model(), wharf(registry, proxied=True)
    first = here.push(folder)
    assert first.code == 0, first.talk
    assert first.document["changed"]
    assert here.sent() == first.document["bytesMoved"] > size_of(folder)
    before = len(here.requests)
    again = here.push(folder)
    assert again.code == 0, again.talk
    assert (again.document["changed"], again.document["bytesMoved"]) == (False, 0)
    assert again.document["digest"] == first.document["digest"]
    assert {each.method for each in here.requests[before:]} <= {"GET", "HEAD"}


def test_one_changed_file_moves_its_layer_the_manifest_and_the_config(wharf, registry, model, settled):
    folder, here = model(), wharf(registry, proxied=True)
    first = here.push(folder).document["digest"]
    before = len(here.requests)
    (folder / "generation_config.json").write_text('{"temperature": 0.25}')
    settled(folder)
    again = here.push(folder)
    assert again.code == 0, again.talk
    second = again.document["digest"]
    old, new = here.layers(first), here.layers(second)
    assert {path for path in new if new[path] != old[path]} == {"generation_config.json", MANIFEST}
    moved = [new["generation_config.json"], new[MANIFEST], here.document(second)["config"]]
    assert again.document["bytesMoved"] == here.sent(before) == sum(blob["size"] for blob in moved)
    begun = [each for each in here.requests[before:] if each.method == "POST"]
    assert len(begun) == 3


def test_a_build_writes_only_the_layers_that_are_not_there(wharf, registry, model, tmp_path):
    folder, here, layout = model(), wharf(registry), tmp_path / "images"
    first = here.run("modelcar", "build", folder, f"oci-layout:{layout}:1.0")
    times = {path.name: path.stat().st_mtime_ns for path in (layout / "blobs" / "sha256").iterdir()}
    changed = folder / "generation_config.json"
    changed.write_text('{"temperature": 0.25}')
    os.utime(changed, (LONG_AGO, LONG_AGO))  # the others are left as they are: whoever touches one has changed it
    again = here.run("modelcar", "build", folder, f"oci-layout:{layout}:1.0")
    assert (first.code, again.code) == (0, 0)
    kept = {path.name: path.stat().st_mtime_ns for path in (layout / "blobs" / "sha256").iterdir()}
    assert {name for name in kept if times.get(name) != kept[name]} == kept.keys() - times.keys()
    assert again.document["bytesMoved"] < 20_000


# --- the tools of others -------------------------------------------------------------------------------------


def test_skopeo_and_umoci_pull_and_unpack_the_same_bytes(wharf, registry, tools, model, hashes, tmp_path):
    folder, here = model(), wharf(registry)
    pushed = here.push(folder)
    assert pushed.code == 0, pushed.talk
    tools.pull(here, "1.0", tmp_path / "pulled")
    index = json.loads((tmp_path / "pulled" / "index.json").read_bytes())
    assert [entry["digest"] for entry in index["manifests"]] == [pushed.document["digest"]]
    root = tools.unpack(tmp_path / "pulled", "1.0")
    assert hashes(root / "models") == hashes(folder)
    assert (root / "models" / MANIFEST).is_file()
    assert [path.name for path in root.iterdir()] == ["models"]


def test_a_layout_of_ours_is_unpacked_by_umoci(wharf, registry, tools, model, hashes, tmp_path):
    folder, layout = model("w4a16"), tmp_path / "images"
    assert wharf(registry).run("modelcar", "build", folder, f"oci-layout:{layout}:int4").code == 0
    assert hashes(tools.unpack(layout, "int4") / "models") == hashes(folder)


@pytest.fixture
def base(tools, tmp_path) -> Path:
    """A small image as others build it: two gzip layers, an entrypoint."""
    layout, files = tmp_path / "base", tmp_path / "base-files"
    files.mkdir()
    (files / "sh").write_text("#!shell\n")
    (files / "sleep").write_text("#!sleep\n")
    tools.new_image(layout, "small")
    tools.insert(layout, "small", files / "sh", "/bin/sh")
    tools.insert(layout, "small", files / "sleep", "/bin/sleep")
    tools("umoci", "config", "--image", f"{layout}:small", "--config.entrypoint", "/bin/sh", "--config.env", "A=b")
    return layout


def image_in(layout: Path, tag: str) -> tuple[dict, dict]:
    """Manifest and config of an image in a layout."""

    def blob(digest: str) -> dict:
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())

    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    digest = next(e["digest"] for e in entries if e["annotations"]["org.opencontainers.image.ref.name"] == tag)
    manifest = blob(digest)
    return manifest, blob(manifest["config"]["digest"])


@pytest.mark.parametrize("lies", ["in a layout", "in a registry"])
def test_on_a_base(wharf, registry, tools, base, model, hashes, tmp_path, lies):
    """Its layers are copied as they are, its entrypoint stays, and every diff id is right: umoci compares them."""
    folder, here = model(), wharf(registry)
    below, config_below = image_in(base, "small")
    address = f"oci-layout:{base}:small"
    if lies == "in a registry":
        there = here.beside(f"{here.repository}/base")
        tools.push(base, "small", there)
        address = there.address("small")
    pushed = here.push(folder, "--base", address)
    assert pushed.code == 0, pushed.talk
    digest = pushed.document["digest"]
    layers, config = (
        here.document(digest)["layers"],
        here.document(here.document(digest)["config"]["digest"]),
    )
    assert layers[:2] == below["layers"]
    assert {layer["mediaType"] for layer in layers[:2]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    paths = [layer["annotations"]["dev.modelberth.path"] for layer in layers[2:]]
    assert paths == [*sorted(path.name for path in folder.iterdir()), MANIFEST]
    assert config["config"]["Entrypoint"] == config_below["config"]["Entrypoint"] == ["/bin/sh"]
    assert config["config"]["Env"] == ["A=b"]
    diff_ids = config["rootfs"]["diff_ids"]
    assert diff_ids == config_below["rootfs"]["diff_ids"] + [layer["digest"] for layer in layers[2:]]
    assert sum(not entry.get("empty_layer") for entry in config["history"]) == len(layers)
    tools.pull(here, "1.0", tmp_path / "pulled")
    root = tools.unpack(tmp_path / "pulled", "1.0")
    assert hashes(root / "models") == hashes(folder)
    assert (root / "bin" / "sleep").read_text() == "#!sleep\n"
    assert here.push(folder, "--base", address).document["bytesMoved"] == 0
    fetched = here.fetch(tmp_path / "back")
    assert fetched.code == 0, fetched.talk
    assert hashes(tmp_path / "back") == hashes(folder)


def test_a_layout_on_a_base_and_the_push_give_the_same_image(wharf, registry, base, model, tmp_path):
    folder, here = model("w4a16"), wharf(registry)
    layout, below = f"oci-layout:{tmp_path / 'images'}:int4", f"oci-layout:{base}:small"
    built = here.run("modelcar", "build", folder, layout, "--base", below)
    assert built.code == 0, built.talk
    assert here.push(folder, "--base", below).document["digest"] == built.document["digest"]
    assert here.push(layout, tag="copied").document["digest"] == built.document["digest"]
    without = here.push(folder, tag="without")
    assert without.document["digest"] != built.document["digest"]


# --- what is in it -------------------------------------------------------------------------------------------


def test_inspect_says_what_is_there_and_what_a_node_needs(wharf, registry, model):
    folder, here = model(), wharf(registry, proxied=True)
    pushed = here.push(folder)
    before = len(here.requests)
    said = here.run("modelcar", "inspect", here.address())
    assert said.code == 0, said.talk
    document, layers = said.document, here.document(pushed.document["digest"])["layers"]
    assert document["schemaVersion"] == "modelberth.dev/modelcar/v1"
    assert document["image"] == here.address()
    assert document["digest"] == pushed.document["digest"]
    assert document["manifest"] == pushed.document["manifest"]
    assert document["base"] is None
    assert document["bytes"] == sum(layer["size"] for layer in layers)
    assert document["nodeDiskPeakBytes"] > document["bytes"]
    assert [(each["digest"], each["bytes"], each["path"]) for each in document["layers"]] == [
        (layer["digest"], layer["size"], layer["annotations"]["dev.modelberth.path"]) for layer in layers
    ]
    read = sum(each.answer_bytes for each in here.requests[before:])
    assert read < 100_000  # no weights


def test_inspect_of_an_image_on_a_base_and_of_the_base(wharf, registry, base, model, tmp_path):
    here, layout = wharf(registry), f"oci-layout:{tmp_path / 'images'}:int4"
    assert here.run("modelcar", "build", model("w4a16"), layout, "--base", f"oci-layout:{base}:small").code == 0
    said = here.run("modelcar", "inspect", layout).document
    below = here.run("modelcar", "inspect", f"oci-layout:{base}:small").document
    assert said["base"] == below["digest"]
    assert [each["path"] for each in said["layers"]][:3] == [None, None, "config.json"]
    assert below["manifest"] is None


def test_what_was_pushed_is_fetched_as_it_was(wharf, registry, model, hashes, tmp_path):
    folder, here = model(), wharf(registry)
    pushed = here.push(folder)
    fetched = here.fetch(tmp_path / "back")
    assert fetched.code == 0, fetched.talk
    assert hashes(tmp_path / "back") == hashes(folder)
    assert fetched.document["manifest"] == pushed.document["manifest"]
    again = here.fetch(tmp_path / "back")
    assert (again.document["changed"], again.document["bytesMoved"]) == (False, 0)
    by_digest = here.run(
        "fetch", f"oci://{here.host}/{here.repository}@{pushed.document['digest']}", tmp_path / "pinned"
    )
    assert by_digest.code == 0, by_digest.talk
    assert hashes(tmp_path / "pinned") == hashes(folder)
    checked = here.run("ship", "--check", here.address())
    assert (checked.code, checked.document["passed"]) == (0, True)


# --- wrong bytes ---------------------------------------------------------------------------------------------


@pytest.fixture
def damage(flip) -> Iterator[Callable[[Path, int], None]]:
    """Turn a byte of a file over until the test has ended: repositories of one registry share blobs."""
    done: list[tuple[Path, int]] = []

    def turn(path: Path, offset: int) -> None:
        flip(path, offset)
        done.append((path, offset))

    yield turn
    for path, offset in done:
        flip(path, offset)


def test_a_wrong_byte_in_the_registry_is_named_by_file_and_range(wharf, registry, model, damage, tmp_path):
    folder, here = model(), wharf(registry)
    digest = here.push(folder).document["digest"]
    layer = here.layers(digest)[FIRST]
    damage(here.blob(layer["digest"]), 1_500_000)
    size = (folder / FIRST).stat().st_size
    fetched = here.fetch(tmp_path / "back")
    assert fetched.code == 7
    assert f"{FIRST} bytes 0 to {size - 1:,}" in fetched.talk
    assert not [path for path in (tmp_path / "back").rglob("*") if path.suffix in {".safetensors", ".json"}
                and not path.is_relative_to(tmp_path / "back" / ".modelberth")]  # fmt: skip
    checked = here.run("ship", "--check", here.address())
    assert (checked.code, checked.document["passed"]) == (7, False)
    (wrong,) = checked.document["wrong"]
    assert (wrong["path"], wrong["firstByte"], wrong["lastByte"]) == (FIRST, 0, size - 1)


def test_a_byte_that_came_wrong_once_is_fetched_again(wharf, registry, model, hashes, tmp_path):
    folder, here = model(), wharf(registry, proxied=True)
    digest = here.push(folder).document["digest"]
    layer = here.layers(digest)[SECOND]
    rule = here.proxy.add(Fault(FlipByte(700_000), method="GET", path=layer["digest"], times=1))
    fetched = here.fetch(tmp_path / "back")
    assert fetched.code == 0, fetched.talk
    assert rule.struck == 1
    assert hashes(tmp_path / "back") == hashes(folder)


@pytest.mark.parametrize("which", ["config", "manifest of files"])
def test_a_wrong_byte_in_a_document(wharf, registry, model, damage, tmp_path, which):
    """The config says nothing of the files; a runtime refuses it, a fetch does not need it."""
    here = wharf(registry)
    digest = here.push(model("w4a16")).document["digest"]
    config, files = here.document(digest)["config"]["digest"], here.layers(digest)[MANIFEST]["digest"]
    damage(here.blob(config if which == "config" else files), 300)
    fetched = here.fetch(tmp_path / "back")
    assert fetched.code == (0 if which == "config" else 7), fetched.talk
    assert (tmp_path / "back" / "config.json").exists() == (which == "config")


def test_a_wrong_byte_in_the_image_manifest_on_its_way(wharf, registry, model, tmp_path):
    """In the registry itself it would not be given out."""
    here = wharf(registry, proxied=True)
    assert here.push(model("w4a16")).code == 0
    here.proxy.add(Fault(FlipByte(300), method="GET", path="/manifests/"))
    fetched = here.fetch(tmp_path / "back")
    assert fetched.code == 7, fetched.talk
    assert "the manifest is not that of its digest" in fetched.talk
    assert not (tmp_path / "back").exists()


# --- killed --------------------------------------------------------------------------------------------------


def killed_push(here, victim: Victim, fault: Fault, folder: Path, *options: object) -> int:
    """A push that is killed by a fault. Returns how many requests it made."""
    rule = here.proxy.add(fault)
    started = victim.is_(here.start("modelcar", "push", folder, here.address(), *options))
    assert here.end(started).code == KILLED
    assert rule.struck == 1
    assert here.manifest() is None
    return len(here.requests)


def test_a_push_killed_inside_a_layer_moves_what_is_missing(wharf, registry, model, hashes, tmp_path):
    """The largest layer has arrived, the second breaks off: this registry wants that one from its start."""
    folder, here, victim = model(), wharf(registry, proxied=True), Victim()
    fault = Fault(KillSending(victim, 300_000), method="PATCH", after=1, times=1)
    made = killed_push(here, victim, fault, folder, "--connections", 1)
    whole = here.requests[:made]
    (arrived,) = [each.sent_bytes for each in whole if each.method == "PATCH" and each.status == 202]
    again = here.push(folder)
    assert again.code == 0, again.talk
    layers = here.layers(again.document["digest"])
    total = sum(layer["size"] for layer in layers.values()) + here.document(again.document["digest"])["config"]["size"]
    assert here.sent(made) == again.document["bytesMoved"] == total - arrived
    assert here.fetch(tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(folder)
    assert list((here.berth.state / "journals").glob("*.session")) == []


def test_a_push_killed_between_two_chunks_of_a_layer_goes_on_inside_it(wharf, registry, big_model, hashes, tmp_path):
    here, victim = wharf(registry, proxied=True), Victim()
    made = killed_push(
        here, victim, Fault(KillBefore(victim), method="PATCH", after=1, times=1), big_model, "--connections", 1
    )
    chunk = here.sent()
    assert chunk == 64 << 20
    (session,) = (here.berth.state / "journals").glob("*.session")
    assert session.stat().st_mode & 0o077 == 0  # some registries put a signature into it
    again = here.push(big_model)
    assert again.code == 0, again.talk
    layer = here.layers(again.document["digest"])["model.safetensors"]
    chunks = [each for each in here.requests[made:] if each.method == "PATCH"]
    begins = [int(match[1]) for each in chunks if (match := re.match(r"(\d+)-", each.header("Content-Range")))]
    assert chunk in begins
    assert here.sent(made) == again.document["bytesMoved"] < layer["size"] - chunk + 20_000
    checked = here.run("ship", "--check", here.address())
    assert checked.code == 0, checked.talk
    assert not session.exists()


# --- others --------------------------------------------------------------------------------------------------


def test_a_tag_that_somebody_else_sets_meanwhile_stays_theirs(wharf, registry, model, settled):
    folder, here = model("w4a16"), wharf(registry, proxied=True)
    assert here.push(folder, tag="theirs").code == 0
    theirs = here.manifest("theirs")
    (folder / "generation_config.json").write_text("{}")
    settled(folder)
    rule = here.proxy.add(Fault(Callback(lambda _request: here.put_manifest("1.0", theirs)), method="PATCH", times=1))
    pushed = here.push(folder)
    assert pushed.code == 5, pushed.talk
    assert rule.struck == 1
    assert here.manifest() == theirs
    assert here.digest("theirs") in pushed.talk
    assert not [each for each in here.requests if each.method == "PUT" and each.path.endswith("/manifests/1.0")]
    assert here.push(folder).code == 0  # now it is known what is replaced


def test_an_image_is_pushed_to_a_tag_not_to_a_digest(wharf, registry, model, tmp_path):
    folder, here = model("w4a16"), wharf(registry)
    digest = "sha256:" + "0" * 64
    layout = f"oci-layout:{tmp_path / 'images'}:1.0"
    assert here.run("modelcar", "build", folder, layout).code == 0
    for source in (folder, layout):
        pushed = here.run("modelcar", "push", source, f"oci://{here.host}/{here.repository}@{digest}")
        assert pushed.code == 2, pushed.talk
        assert "an image is shipped to a tag" in pushed.talk


def test_a_digest_beside_the_tag_is_refused_too(wharf, registry, model):
    """Nobody can choose the digest; to drop it would be to push something else than was asked for."""
    folder, here = model("w4a16"), wharf(registry)
    pushed = here.run("modelcar", "push", folder, f"{here.address()}@sha256:{'0' * 64}")
    assert pushed.code == 2, pushed.talk
    assert here.manifest() is None


def test_places_that_modelcar_does_not_take(wharf, registry, model, tmp_path):
    here, folder = wharf(registry), model("w4a16")
    assert here.run("modelcar", "build", folder, here.address()).code == 2
    assert here.run("modelcar", "push", folder, f"oci-layout:{tmp_path / 'images'}:1.0").code == 2
    assert here.run("modelcar", "push", tmp_path / "nothing", here.address()).code == 2
    missing = here.run("modelcar", "push", f"oci-layout:{tmp_path / 'images'}:1.0", here.address())
    assert missing.code == 7
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(("host", "name", "size"), [
    ("ghcr.io", "GitHub Container registry", 10_000_000_000), ("quay.io:443", "quay.io", 20_000_000_000),
    ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR", 52_000 << 20),
])  # fmt: skip
def test_a_file_too_large_for_a_layer_of_the_registry_is_refused_before_anything(
    monkeypatch, tmp_path, host, name, size
):
    """The tar around a file counts too. Nobody is asked: whoever tried would meet a closed port of this machine."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    entry = FileEntry("model.safetensors", size, "0" * 64, ("0" * 16,))
    registry = Registry(OciAddress(host, "acme/model", "1.0", ""))
    with pytest.raises(DoesNotFit, match=r"model\.safetensors is too large for a layer of this registry") as caught:
        push_folder(
            FolderOrigin(tmp_path, FileManifest((entry,))), registry, "1.0", HashCache(tmp_path / "hashes.json"),
            lambda _count: None, connections=4,
        )  # fmt: skip
    assert name in caught.value.why
    assert host in caught.value.where
    assert "max_shard_size" in caught.value.next_step


# --- layouts -------------------------------------------------------------------------------------------------


@pytest.fixture
def stalled_build(wharf, registry, tools, base, model, tmp_path):
    """A build into a layout that stands still at the last layer of its base; its layout, its wharf, the start."""
    here = wharf(registry, proxied=True)
    tools.push(base, "small", here)
    digest = json.loads(here.manifest("small"))["layers"][-1]["digest"]
    here.proxy.add(Fault(Stall(10), method="GET", path=digest, times=1))
    layout, folder = tmp_path / "images", model("w4a16")
    arguments = ("modelcar", "build", folder, f"oci-layout:{layout}:int4", "--base", here.address("small"))
    started = here.start(*arguments)
    here.proxy.wait_stalled()
    return here, layout, arguments, started


def test_a_second_build_into_a_layout_is_refused(stalled_build):
    here, layout, arguments, first = stalled_build
    second = here.run(*arguments)
    assert second.code == 5, second.talk
    assert str(layout) in second.talk
    collected = here.run("ship", "--gc", f"oci-layout:{layout}:int4")
    assert collected.code == 5, collected.talk
    here.proxy.release()
    ended = here.end(first)
    assert ended.code == 0, ended.talk
    again = here.run(*arguments)
    assert (again.code, again.document["changed"]) == (0, False)


def test_what_a_killed_build_left_is_listed_and_removed(stalled_build, hashes, tmp_path):
    here, layout, arguments, first = stalled_build
    first.process.kill()
    assert here.end(first).code == KILLED
    left, address = files_of(layout), f"oci-layout:{layout}:int4"
    assert len(left) > 6
    listed = here.run("ship", "--gc", "--dry-run", address)
    assert listed.code == 0, listed.talk
    assert {item["name"] for item in listed.document["items"]} == left == files_of(layout)
    assert listed.document["removed"] is False
    removed = here.run("ship", "--gc", address)
    assert (removed.code, removed.document["removed"]) == (0, True)
    assert files_of(layout) == set()
    here.proxy.release()
    again = here.run(*arguments)
    assert again.code == 0, again.talk
    assert here.run("ship", "--gc", address).document["items"] == []
    assert here.run("fetch", address, tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(Path(arguments[2]))


def test_a_build_after_a_kill_ends_as_one_that_nobody_disturbed(stalled_build, tools):
    here, layout, arguments, first = stalled_build
    first.process.kill()
    assert here.end(first).code == KILLED
    here.proxy.release()
    again = here.run(*arguments)
    assert again.code == 0, again.talk
    manifest, config = image_in(layout, "int4")
    blobs = {blob["digest"] for blob in (manifest["config"], *manifest["layers"])} | {again.document["digest"]}
    assert {f"sha256:{name}" for name in files_of(layout)} == blobs
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
    tools.unpack(layout, "int4")


def test_clearing_up_a_layout_that_is_not_there_makes_none(wharf, registry, tmp_path):
    found = wharf(registry).run("ship", "--gc", f"oci-layout:{tmp_path / 'images'}:1.0")
    assert (found.code, found.document["items"]) == (0, [])
    assert not (tmp_path / "images").exists()


# --- who we are ----------------------------------------------------------------------------------------------


def test_a_wrong_password_is_refused_and_a_right_one_is_not(
    wharf, registry_with_password, log_in, model, hashes, tmp_path
):
    here, folder = wharf(registry_with_password), model("w4a16")
    nobody = here.push(folder)
    assert nobody.code == 4
    assert f"podman login {here.host}" in nobody.talk
    log_in(here.host, here.registry.user, "canary-of-the-registry")
    wrong = here.push(folder)
    assert wrong.code == 4
    assert "the login that was found does not do" in wrong.talk
    assert "canary-of-the-registry" not in wrong.talk
    log_in(here.host, here.registry.user, here.registry.password)
    right = here.push(folder)
    assert right.code == 0, right.talk
    assert here.registry.password not in right.talk
    assert here.fetch(tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(folder)


def test_a_certificate_that_is_not_trusted_and_one_that_is(wharf, registry_with_tls, model, hashes, tmp_path):
    here, folder = wharf(registry_with_tls), model("w4a16")
    refused = here.push(folder)
    assert refused.code == 9
    assert "--ca-bundle" in refused.talk
    ca = ("--ca-bundle", here.registry.ca)
    pushed = here.push(folder, *ca)
    assert pushed.code == 0, pushed.talk
    said = here.run("modelcar", "inspect", here.address(), *ca)
    assert said.document["digest"] == pushed.document["digest"]
    assert here.fetch(tmp_path / "back", *ca).code == 0
    assert hashes(tmp_path / "back") == hashes(folder)
    no_file = here.push(folder, "--ca-bundle", tmp_path / "nothing.pem")
    assert no_file.code == 2


# --- memory --------------------------------------------------------------------------------------------------

# A process inherits the peak of who started it; so a small one starts it.
_MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def test_a_push_of_a_gibibyte_stays_below_64_mb(wharf, registry, model, tmp_path):
    folder, here = model("w4a16"), wharf(registry)
    shard(folder / "model.safetensors", 1 << 30, hole=True)
    os.utime(folder / "model.safetensors", (LONG_AGO, LONG_AGO))
    command = [here.berth.program, "modelcar", "push", str(folder), here.address(), "-o", "name"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MEASURE, *command], env=here.berth.environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    digest, code, peak = done.stdout.split()
    layer = here.layers(digest)["model.safetensors"]
    assert here.blob(layer["digest"]).stat().st_size == layer["size"]
    here.blob(layer["digest"]).unlink()  # a gibibyte that nobody else needs
    assert code == "0"
    assert int(peak) << 10 < 64_000_000


def test_a_model_image_can_be_a_base(wharf, registry, model, hashes, tmp_path):
    here = wharf(registry)
    assert here.push(model("w4a16", "one"), tag="below").code == 0
    assert here.push(model("bf16", "two"), "--base", here.address("below"), tag="above").code == 0
    assert here.fetch(tmp_path / "back", tag="above").code == 0
    assert hashes(tmp_path / "back") == hashes(tmp_path / "two")

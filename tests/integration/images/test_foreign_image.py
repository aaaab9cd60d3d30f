"""Model images that others have built: umoci, skopeo and olot, odd tars, and what is no archive at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from docks import KillReceiving, Victim
from fault_proxy import Fault
from modelberth.adapters.tar_stream import model_files_in
from modelberth.base.errors import IntegrityError
from servers import ProgramMissing, peer_program

pytestmark = pytest.mark.integration

LAYER, GZIP = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MANIFEST = ".modelberth/manifest.json"
KILLED = -9


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def names_in(folder: Path) -> set[str]:
    """Paths of everything in a folder but its folders; what has no `.part` has its final name."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def without_own(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith(".modelberth/")}


# --- tars ----------------------------------------------------------------------------------------------------


def tar_of(*members: tuple[str, bytes | None, bytes], end: bool = True) -> bytes:
    """A tar of members: name, content (None for all that has none), and kind."""
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer, format=tarfile.PAX_FORMAT) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "target", len(content or b"")
            archive.addfile(info, io.BytesIO(content or b""))
        size = archive.offset
    return buffer.getvalue() if end else buffer.getvalue()[:size]


def tar_of_folder(folder: Path, names: list[str] | None = None) -> bytes:
    """A tar of a model, below models/."""
    paths = [folder / name for name in names] if names else sorted(folder.iterdir())
    return tar_of(
        ("models/", None, tarfile.DIRTYPE),
        *((f"models/{path.name}", path.read_bytes(), tarfile.REGTYPE) for path in paths),
    )  # fmt: skip


@pytest.fixture
def foreign(wharf, registry, foreign_layout, tmp_path) -> Callable[..., str]:
    """An image of given layers in a layout of others; returns its address."""

    def make(*layers: tuple[str, bytes], tag: str = "1.0", name: str = "foreign") -> str:
        foreign_layout(tmp_path / name, tag, list(layers))
        return f"oci-layout:{tmp_path / name}:{tag}"

    return make


@pytest.fixture
def here(wharf, registry):
    """`berth` at a repository of the registry."""
    return wharf(registry)


# --- builders that are used ----------------------------------------------------------------------------------


def fetched_as_it_was(here, source: str, folder: Path, target: Path, hashes) -> None:
    """Fetch an image twice: the same files with a manifest, then nothing."""
    first = here.run("fetch", source, target)
    assert first.code == 0, first.talk
    assert hashes(target) == hashes(folder)
    assert first.document["changed"]
    manifest = json.loads((target / MANIFEST).read_bytes())
    assert {entry["path"]: entry["sha256"] for entry in manifest["files"]} == hashes(folder)
    again = here.run("fetch", source, target)
    assert again.code == 0, again.talk
    assert (again.document["changed"], again.document["bytesMoved"]) == (False, 0)
    assert again.document["digest"] == first.document["digest"]
    checked = here.run("ship", "--check", target)
    assert (checked.code, checked.document["passed"]) == (0, True)


def test_an_image_of_umoci_in_a_registry_and_in_a_layout(here, tools, model, hashes, tmp_path):
    folder, layout = model(), tmp_path / "umoci"
    tools.new_image(layout, "1.0")
    tools.insert(layout, "1.0", folder, "/models")
    tools.push(layout, "1.0", here)
    layers = json.loads(here.manifest())["layers"]
    assert [layer["mediaType"] for layer in layers] == [GZIP]
    fetched_as_it_was(here, here.address(), folder, tmp_path / "from-registry", hashes)
    fetched_as_it_was(here, f"oci-layout:{layout}:1.0", folder, tmp_path / "from-layout", hashes)


def test_an_image_of_olot(here, tools, model, hashes, tmp_path):
    """olot adds a layer for each file to an image that is there."""
    try:
        olot = peer_program("olot")
    except ProgramMissing as error:
        pytest.skip(str(error))
    folder, layout = model(), tmp_path / "olot"
    (tmp_path / "hello").write_text("hello\n")
    tools.new_image(layout, "latest")
    tools.insert(layout, "latest", tmp_path / "hello", "/hello")
    files = sorted(folder.iterdir())
    done = subprocess.run([olot, layout, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tools("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:latest",
          f"docker://{here.registry.host}/{here.repository}:1.0")  # fmt: skip
    fetched_as_it_was(here, here.address(), folder, tmp_path / "back", hashes)


def test_docker_media_types(here, foreign, model, hashes, tmp_path):
    folder, docker = model("w4a16"), "application/vnd.docker.image.rootfs.diff.tar"
    names = sorted(path.name for path in folder.iterdir())
    address = foreign(
        (docker, tar_of_folder(folder, names[:3])), (f"{docker}.gzip", gzip.compress(tar_of_folder(folder, names[3:])))
    )
    fetched_as_it_was(here, address, folder, tmp_path / "back", hashes)


@pytest.mark.parametrize("prefix", ["models/", "./models/", "/models/"])
def test_names_as_builders_write_them(here, foreign, model, hashes, tmp_path, prefix):
    folder = model("w4a16")
    files = [(prefix + path.name, path.read_bytes(), tarfile.REGTYPE) for path in sorted(folder.iterdir())]
    others = [("etc/passwd", b"root", tarfile.REGTYPE), ("bin/sh", None, tarfile.SYMTYPE), ("dev/null", None, b"3")]
    address = foreign((LAYER, tar_of(*others, *files)))
    fetched_as_it_was(here, address, folder, tmp_path / "back", hashes)


def test_shipped_on_to_s3(here, s3, foreign, model, hashes, tmp_path):
    folder = model("w4a16")
    address = foreign((GZIP, gzip.compress(tar_of_folder(folder))))
    bucket, keys = s3.store().where.rpartition(" ")[2].rpartition("/")[2], s3.server.keys
    environment = {
        "AWS_ENDPOINT_URL": s3.server.endpoint, "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key, "AWS_SESSION_TOKEN": "",
    }  # fmt: skip
    shipped = here.run("ship", address, f"s3://{bucket}/m/", **environment)
    assert shipped.code == 0, shipped.talk
    assert hashes(s3.data / bucket / "m") == hashes(folder)
    assert not list((here.berth.state / "workspace").rglob("*.safetensors"))


def test_such_an_image_is_not_copied_on_as_one_of_ours(here, foreign, model):
    pushed = here.push(foreign((LAYER, tar_of_folder(model("w4a16")))))
    assert pushed.code == 7
    assert "berth did not build it" in pushed.talk
    assert here.manifest() is None


# --- layers on layers ----------------------------------------------------------------------------------------


def test_a_later_layer_has_its_file_in_place_of_an_earlier_one_s(here, foreign, model, hashes, tmp_path):
    folder = model("w4a16")
    old = tar_of(("models/tokenizer.json", b"an older and longer one" * 99, tarfile.REGTYPE),
                 ("models/config.json", b"{}", tarfile.REGTYPE))  # fmt: skip
    address = foreign((LAYER, old), (GZIP, gzip.compress(tar_of_folder(folder))))
    fetched_as_it_was(here, address, folder, tmp_path / "back", hashes)


def test_what_a_later_layer_takes_away_is_not_there(here, tools, model, hashes, tmp_path):
    """OCI image specification, "Whiteouts": `.wh.name` takes away `name` of the layers below."""
    folder, layout = model("w4a16"), tmp_path / "umoci"
    (folder / "notes.txt").write_text("not for everybody")
    tools.new_image(layout, "1.0")
    tools.insert(layout, "1.0", folder, "/models")
    tools.white_out(layout, "1.0", "/models/notes.txt")
    (folder / "notes.txt").unlink()
    assert hashes(tools.unpack(layout, "1.0") / "models") == hashes(folder)
    fetched_as_it_was(here, f"oci-layout:{layout}:1.0", folder, tmp_path / "back", hashes)


def test_what_a_later_layer_takes_away_as_a_folder_is_not_there(here, foreign, model, hashes, tmp_path):
    folder = model("w4a16")
    below = tar_of(
        ("models/notes/one.txt", b"1", tarfile.REGTYPE), ("models/notes/deep/two.txt", b"2", tarfile.REGTYPE)
    )
    away = tar_of(("models/.wh.notes", b"", tarfile.REGTYPE))
    address = foreign((LAYER, below), (LAYER, tar_of_folder(folder)), (LAYER, away))
    fetched_as_it_was(here, address, folder, tmp_path / "back", hashes)


@pytest.mark.parametrize("name", ["models/.wh..wh..opq", ".wh.models"])
def test_an_opaque_folder_hides_all_that_was_below(here, foreign, model, hashes, tmp_path, name):
    """Its own files stay, wherever the entry stands in its layer."""
    folder = model("w4a16")
    below = tar_of(("models/notes.txt", b"1", tarfile.REGTYPE), ("models/config.json", b"{}", tarfile.REGTYPE))
    files = [(f"models/{path.name}", path.read_bytes(), tarfile.REGTYPE) for path in sorted(folder.iterdir())]
    layer = tar_of(*files[:2], (name, b"", tarfile.REGTYPE), *files[2:])
    fetched_as_it_was(here, foreign((LAYER, below), (LAYER, layer)), folder, tmp_path / "back", hashes)


def test_a_file_that_is_a_folder_in_another_layer(here, foreign, model, tmp_path):
    """Either the later one counts or it is refused: nothing is half there."""
    clash = tar_of(("models/thing", b"a file", tarfile.REGTYPE))
    other = tar_of(("models/thing/inside.txt", b"in a folder", tarfile.REGTYPE))
    address = foreign((LAYER, clash), (LAYER, tar_of_folder(model("w4a16"))), (LAYER, other))
    fetched = here.run("fetch", address, tmp_path / "back")
    assert fetched.code in {0, 7}, fetched.talk
    if fetched.code:
        assert without_own(names_in(tmp_path / "back")) == set()


# --- refused -------------------------------------------------------------------------------------------------


def refused(here, address: str, folder: Path, code: int = 7) -> str:
    """A fetch that fails and leaves nothing under any final name; returns what it said."""
    fetched = here.run("fetch", address, folder)
    assert fetched.code == code, fetched.talk
    assert without_own(names_in(folder)) == set(), "something stayed"
    assert not (folder / MANIFEST).exists()
    return fetched.talk


@pytest.mark.parametrize(("where", "kind"), [(600_000, LAYER), (600_000, GZIP), (40, GZIP), (-400, LAYER), (-5, GZIP)])
def test_a_wrong_byte_of_a_layer_leaves_nothing(here, foreign, model, flip, tmp_path, where, kind):
    """In the middle of a file, in the head of the compression, in the padding at the end, in its checksum."""
    content = tar_of_folder(model("w4a16"))
    content = gzip.compress(content) if kind == GZIP else content
    address = foreign((kind, content))
    (blob,) = [path for path in (tmp_path / "foreign" / "blobs" / "sha256").iterdir()
               if path.stat().st_size == len(content)]  # fmt: skip
    flip(blob, where % len(content))
    assert blob.name in refused(here, address, tmp_path / "back")


def test_a_wrong_byte_of_a_layer_in_a_registry_leaves_nothing(here, tools, model, flip, tmp_path):
    folder, layout = model(), tmp_path / "umoci"
    (folder / "unique.txt").write_text(here.repository)
    tools.new_image(layout, "1.0")
    tools.insert(layout, "1.0", folder, "/models")
    tools.push(layout, "1.0", here)
    (layer,) = json.loads(here.manifest())["layers"]
    flip(here.blob(layer["digest"]), layer["size"] // 2)
    assert layer["digest"].removeprefix("sha256:") in refused(here, here.address(), tmp_path / "back")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_among_the_files_are_refused(here, foreign, model, tmp_path, kind):
    odd = tar_of(("models/generation_config.json", None, kind))
    said = refused(here, foreign((LAYER, tar_of_folder(model("w4a16"))), (LAYER, odd)), tmp_path / "back")
    assert "models/generation_config.json" in said
    assert "only plain files are taken" in said


@pytest.mark.parametrize("name", ["models/../../x", "models/a/../../../x", "models//x", "models/a\\b", "models/a\x07b"])
def test_paths_that_lead_out_are_refused(here, foreign, model, tmp_path, name):
    odd = tar_of((name, b"out", tarfile.REGTYPE))
    before = names_in(tmp_path)
    said = refused(here, foreign((LAYER, tar_of_folder(model("w4a16"))), (LAYER, odd)), tmp_path / "back")
    assert "is not safe" in said
    assert not [name for name in names_in(tmp_path) - before if name.endswith("/x")]


def test_zstd_is_refused_by_name(here, foreign, tmp_path):
    said = refused(here, foreign((ZSTD, b"\x28\xb5\x2f\xfd" + bytes(40))), tmp_path / "back")
    assert f"it is {ZSTD}; plain tar and gzip are read" in said
    assert "push the image without compression, or with gzip" in said
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("content", [b"", b"no tar", os.urandom(3000), bytes(20_000)])
@pytest.mark.parametrize("kind", [LAYER, GZIP])
def test_what_is_no_tar_holds_no_model(here, foreign, tmp_path, content, kind):
    refused(here, foreign((kind, content)), tmp_path / "back")
    if kind == GZIP:
        refused(here, foreign((kind, gzip.compress(content)), name="compressed"), tmp_path / "back-2")


def test_pickles_and_code_are_refused_and_leave_nothing(here, foreign, model, tmp_path):
    whole = tar_of_folder(model("w4a16"))
    for number, name in enumerate(("pytorch_model.bin", "modeling.py")):
        odd = tar_of((f"models/{name}", b"x", tarfile.REGTYPE))
        address = foreign((LAYER, whole), (LAYER, odd), name=f"odd-{number}")
        assert name in refused(here, address, tmp_path / f"back-{number}")


def test_an_image_without_a_model(here, foreign, tmp_path):
    address = foreign((LAYER, tar_of(("etc/motd", b"hello", tarfile.REGTYPE))))
    assert "there is no model in the image" in refused(here, address, tmp_path / "back")


def test_a_folder_that_holds_files_is_left_alone(here, foreign, model, tmp_path):
    target = tmp_path / "back"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    fetched = here.run("fetch", foreign((LAYER, tar_of_folder(model("w4a16")))), target)
    assert fetched.code == 5
    assert names_in(target) == {"mine.txt"}


@pytest.mark.parametrize("cut", ["in the file", "in its padding"])
@pytest.mark.parametrize("kind", [LAYER, GZIP])
def test_a_tar_that_ends_inside_a_file_is_refused(here, foreign, model, tmp_path, kind, cut):
    """Its digest is right: its builder has cut it. A file whose padding alone is missing is whole."""
    folder = model("w4a16")
    (folder / "zz-last.txt").write_bytes(b"z" * 700)
    whole = tar_of_folder(folder)
    end = whole.rindex(b"z") + 1
    content = whole[: end - 300] if cut == "in the file" else whole[: end + 10]
    address = foreign((kind, gzip.compress(content) if kind == GZIP else content))
    if cut == "in the file":
        assert "zz-last.txt" in refused(here, address, tmp_path / "back")
    else:
        assert here.run("fetch", address, tmp_path / "back").code == 0


def test_a_tar_without_the_blocks_at_its_end_is_whole(here, foreign, model, hashes, tmp_path):
    folder = model("w4a16")
    files = [(f"models/{path.name}", path.read_bytes(), tarfile.REGTYPE) for path in sorted(folder.iterdir())]
    fetched_as_it_was(here, foreign((LAYER, tar_of(*files, end=False))), folder, tmp_path / "back", hashes)


def test_a_full_disk_leaves_nothing(here, foreign, model, small_disk):
    """Compressed it would have had room."""
    folder, disk = model("w4a16"), small_disk("8m")
    (folder / "zeros.txt").write_bytes(bytes(30_000_000))
    address = foreign((GZIP, gzip.compress(tar_of_folder(folder))))
    fetched = here.run("fetch", address, disk / "back")
    assert fetched.code == 8, fetched.talk
    assert names_in(disk) == set()


def test_a_file_that_is_missing_afterwards_is_fetched_again(here, foreign, model, hashes, tmp_path):
    folder = model("w4a16")
    address = foreign((LAYER, tar_of_folder(folder)))
    assert here.run("fetch", address, tmp_path / "back").code == 0
    (tmp_path / "back" / "tokenizer.json").unlink()
    (tmp_path / "back" / "config.json").write_text("{}")
    again = here.run("fetch", address, tmp_path / "back")
    assert again.code == 0, again.talk
    assert hashes(tmp_path / "back") == hashes(folder)


def test_another_image_takes_the_place_of_the_first(here, foreign, model, hashes, tmp_path):
    """As it does for images of ours: the folder holds nothing but a delivery."""
    first, second = model("bf16", "first"), model("w4a16", "second")
    for name, folder in (("one", first), ("two", second)):
        fetched = here.run("fetch", foreign((LAYER, tar_of_folder(folder)), name=name), tmp_path / "back")
        assert fetched.code == 0, fetched.talk
        assert hashes(tmp_path / "back") == hashes(folder)


def test_killed_and_run_again(wharf, registry, tools, model, hashes, tmp_path):
    """What a kill leaves is ours, not a stranger's: the next run begins anew and ends well."""
    folder, layout, here, victim = model(), tmp_path / "umoci", wharf(registry, proxied=True), Victim()
    tools.new_image(layout, "1.0")
    tools.insert(layout, "1.0", folder, "/models")
    tools.push(layout, "1.0", here)
    (layer,) = json.loads(here.manifest())["layers"]
    here.proxy.add(Fault(KillReceiving(victim, 3_000_000), method="GET", path=layer["digest"], times=1))
    started = victim.is_(here.start("fetch", here.address(), tmp_path / "back"))
    assert here.end(started).code == KILLED
    assert not (tmp_path / "back" / MANIFEST).exists()
    assert not [name for name in without_own(names_in(tmp_path / "back")) if not name.endswith(".part")]
    again = here.fetch(tmp_path / "back")
    assert again.code == 0, again.talk
    assert hashes(tmp_path / "back") == hashes(folder)
    assert not [name for name in names_in(tmp_path / "back") if name.endswith(".part")]


# --- any bytes -----------------------------------------------------------------------------------------------

_NAMES = st.one_of(
    st.sampled_from([
        "models/config.json", "models/a/b.json", "./models/c", "/models/d", "models/../../out", "models/a/../../../out",
        "../models/x", "/etc/passwd", "models", "models/", "models/.wh.config.json", "models/.wh..wh..opq", "models/é",
        "models/" + "n" * 150, "models/" + "d/" * 60 + "x", "models/a\x00b", "models/ ", "models/.", "models/..",
    ]),
    st.text(max_size=30).map(lambda text: f"models/{text}"),
)  # fmt: skip
_KINDS = st.sampled_from([tarfile.REGTYPE] * 6 + [
    tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.SOLARIS_XHDTYPE, b"Z",
])  # fmt: skip
_MEMBERS = st.lists(st.tuples(_NAMES, st.binary(max_size=1500), _KINDS), max_size=5)


def raw_tar(members: list[tuple[str, bytes, bytes]], form: int) -> bytes:
    """A tar with members as they are, whatever their kind says of their content."""
    blocks = []
    for name, content, kind in members:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
        try:
            blocks.append(info.tobuf(form, "utf-8", "surrogateescape"))
        except (ValueError, UnicodeError):
            continue  # this form cannot hold that name
        blocks += [content, bytes(-len(content) % 512)]
    return b"".join([*blocks, bytes(1024)])


def pour(kind: str, send: Callable[[Callable], None]) -> dict[str, bytes]:
    """Everything below /models that is sent."""
    found = {}
    for path, size, stream in model_files_in(kind, send, "a layer"):
        pieces = []
        while piece := stream.read(1 << 16):
            pieces.append(piece)
        found[path] = b"".join(pieces)
        assert len(found[path]) == size
    return found


def read_all(kind: str, content: bytes) -> dict[str, bytes]:
    """Everything that a layer holds below /models, its bytes counted."""

    def send(sink) -> None:
        for offset in range(0, len(content), 1000):
            sink(memoryview(content)[offset : offset + 1000])

    return pour(kind, send)


def files_or_error(kind: str, content: bytes) -> None:
    """Files with plain paths, or an error of ours; nothing else comes out."""
    try:
        found = read_all(kind, content)
    except IntegrityError:
        return
    for path in found:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert (Path("/a/folder") / path).resolve().is_relative_to("/a/folder")
        assert path.isprintable()


_MORE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_a_gzip_head_cut_anywhere_is_an_error_of_ours():
    content = gzip.compress(raw_tar([("models/config.json", b"x", tarfile.REGTYPE)], tarfile.PAX_FORMAT), mtime=0)
    named = content[:3] + b"\x1c" + content[4:10] + b"\x02\x00xxname\x00said\x00" + content[10:]  # extra, name, comment
    for head in (content, named):
        for size in range(24):
            with pytest.raises(IntegrityError):
                read_all(GZIP, head[:size])


@_MORE
@given(_MEMBERS, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
       st.floats(0, 1), st.sampled_from([LAYER, GZIP]))  # fmt: skip
@example([("models/config.json", b"x" * 600, tarfile.REGTYPE)], tarfile.PAX_FORMAT, 0.4, LAYER)
@example([("models/config.json", b"x" * 600, tarfile.REGTYPE)], tarfile.PAX_FORMAT, 0.9, GZIP)
@example([("models/config.json", b"x" * 600, tarfile.GNUTYPE_SPARSE)], tarfile.PAX_FORMAT, 1.0, LAYER)
def test_any_tar_cut_anywhere_gives_files_or_an_error_of_ours(members, form, share, kind):
    content = raw_tar(members, form)
    content = gzip.compress(content, mtime=0) if kind == GZIP else content
    files_or_error(kind, content[: round(len(content) * share)])


@_MORE
@given(_MEMBERS, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
       st.sampled_from([LAYER, GZIP]))  # fmt: skip
def test_any_tar_with_wrong_bytes_gives_files_or_an_error_of_ours(members, wrong, kind):
    content = raw_tar(members, tarfile.PAX_FORMAT)
    damaged = bytearray(gzip.compress(content, mtime=0) if kind == GZIP else content)
    for share, value in wrong:
        damaged[int(share * len(damaged))] = value
    files_or_error(kind, bytes(damaged))


@_MORE
@given(st.binary(max_size=3000), st.sampled_from([LAYER, GZIP]))
def test_any_bytes_give_files_or_an_error_of_ours(content, kind):
    files_or_error(kind, content)


def test_what_the_sender_fails_with_is_what_is_raised():
    content = tar_of(("models/config.json", b"x" * 5000, tarfile.REGTYPE))

    def send(sink) -> None:
        sink(memoryview(content)[:2000])
        raise IntegrityError("the wrong digest")

    with pytest.raises(IntegrityError, match="the wrong digest"):
        pour(LAYER, send)


def test_a_reader_that_stops_ends_the_sender_too():
    """Nobody waits for ever for room in a queue that is read no more."""
    head, ended = tar_of(("models/config.json", bytes(4000), tarfile.REGTYPE))[:4000], []

    def send(sink) -> None:
        try:
            sink(memoryview(head))
            for _ in range(10_000):
                sink(memoryview(bytes(1 << 16)))
        finally:
            ended.append(True)

    found = model_files_in(LAYER, send, "a layer")
    next(found)
    found.close()
    assert ended == [True]

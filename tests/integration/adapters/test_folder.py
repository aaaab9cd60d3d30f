"""Model folders: what is refused before a byte moves, hashes of all bytes, and the cache of hashes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import zlib
from pathlib import Path

import pytest

from modelberth.adapters.files import write_file
from modelberth.adapters.folder import HashCache, hash_file, list_files, read_checkpoint, read_manifest
from modelberth.base.errors import IntegrityError, UsageError
from modelberth.delivery.manifest import MANIFEST_PATH, PART_BYTES

pytestmark = pytest.mark.integration

MIB = 1 << 20


def refused(folder):
    """The error that reading a model folder ends with."""
    with pytest.raises(IntegrityError) as caught:
        read_checkpoint(folder)
    assert caught.value.exit_code == 7
    return caught.value


def bytes_read():
    """What this process has read so far, by the system's count."""
    return int(Path("/proc/self/io").read_text().split()[1])


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_the_example_models_are_sound(weights, precision):
    paths, checkpoint = read_checkpoint(weights(precision))
    assert set(paths) == {path.name for path in weights(precision).iterdir()}
    assert checkpoint.shape.precision == precision
    assert 0 < checkpoint.weight_bytes < sum(path.stat().st_size for path in weights(precision).iterdir())


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_truncated_weights(model, size):
    folder = model()
    path = folder / "model-00002-of-00002.safetensors"
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)
    error = refused(folder)
    assert error.where == str(path)
    assert f"{path.stat().st_size:,}" in error.why


def test_weights_with_something_behind_them(model):
    folder = model("w4a16")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"!")
    assert refused(folder).where == str(folder / "model.safetensors")


def test_only_headers_are_read(big_model):
    before = bytes_read()
    read_checkpoint(big_model)
    assert bytes_read() - before < MIB


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "deep/MODEL.PT", "optimizer.pkl", "modeling.py", "lib.so", "setup.sh"]
)
def test_pickles_and_code(model, name):
    folder = model("w4a16")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04.")
    assert name in refused(folder).what


def test_files_that_are_not_part_of_a_model_stay_out(model):
    folder = model("w4a16")
    for name in (".git/config", ".cache/huggingface/x.lock", ".gitattributes", "__pycache__/x.pyc", MANIFEST_PATH):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    paths, _ = read_checkpoint(folder)
    assert "model.safetensors" in paths
    assert not [path for path in paths if Path(path).stem == "x" or path.startswith(".")]


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("config.json", "config.json"),
        ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        ("model.safetensors.index.json", "model.safetensors.index.json"),
    ],
)
def test_a_missing_file(model, missing, what):
    folder = model()
    (folder / missing).unlink()
    assert what in refused(folder).what


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(UsageError) as caught:
        read_checkpoint(tmp_path / "nothing")
    assert caught.value.where == str(tmp_path / "nothing")
    assert "config.json" in refused(tmp_path).what


def test_links_in_a_circle(model):
    folder = model("w4a16")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    assert refused(folder).where == str(folder / "config.json")


# --- links -------------------------------------------------------------------------------------------------


def test_links_out_of_the_folder(model, tmp_path):
    folder = model("w4a16")
    (tmp_path / "secret").write_text("of somebody else")
    (folder / "notes.txt").symlink_to(tmp_path / "secret")
    assert refused(folder).what == "a link leads out of the folder"


def test_links_to_folders_out_of_the_folder(model, tmp_path):
    folder = model("w4a16")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    assert refused(folder).where == str(folder / "more")


def test_a_link_to_the_folder_itself(model):
    folder = model("w4a16")
    (folder / "again").symlink_to(folder)
    assert refused(folder).what == "this is not a file"


def test_a_link_that_leads_nowhere(model):
    folder = model("w4a16")
    (folder / "gone").symlink_to(folder / "not-there")
    assert refused(folder).where == str(folder / "gone")


def test_links_inside_the_folder_are_files(model):
    folder = model("w4a16")
    (folder / "copy.json").symlink_to("config.json")
    assert "copy.json" in read_checkpoint(folder)[0]


def test_the_hub_caches_own_layout(model, tmp_path):
    """`snapshots/<revision>/` holds links into `blobs/` beside it."""
    folder = model("w4a16", "models--acme--harbor/snapshots/abc123")
    blobs = tmp_path / "models--acme--harbor" / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    paths, checkpoint = read_checkpoint(folder)
    assert len(paths) == 6
    assert checkpoint.weight_bytes > 0


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_is_neither_file_nor_folder(model, kind, monkeypatch):
    folder = model("w4a16")
    if kind == "fifo":
        os.mkfifo(folder / "special")
    else:
        monkeypatch.chdir(folder)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("special")
    assert refused(folder).what == "this is not a file"


def test_files_are_listed_by_path(tmp_path):
    for name in ("b/c", "b/a", "a", "z", "B"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert list_files(tmp_path) == ("B", "a", "b/a", "b/c", "z")


# --- hashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5 * MIB + 3, PART_BYTES, PART_BYTES + 1])
def test_the_hash_of_a_file(tmp_path, size):
    path, told = tmp_path / "file", []
    with path.open("wb") as file:
        file.write(os.urandom(min(size, 1000)))
        file.truncate(size)
    entry = hash_file(path, "name", told.append)
    content = path.read_bytes()
    parts = [content[start : start + PART_BYTES] for start in range(0, max(size, 1), PART_BYTES)]
    assert (entry.path, entry.size, sum(told)) == ("name", size, size)
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.crc32 == tuple(f"{zlib.crc32(part):08x}" for part in parts)


@pytest.mark.parametrize("change", ["append", "overwrite", "truncate"])
def test_a_file_that_changes_while_it_is_read(tmp_path, change):
    path = tmp_path / "file"
    path.write_bytes(bytes(9 * MIB))
    os.utime(path, (0, 0))

    def interfere(_count):
        if change == "truncate":
            os.truncate(path, 6 * MIB)
        else:
            with path.open("ab" if change == "append" else "r+b") as file:
                file.write(b"!")

    with pytest.raises(IntegrityError) as caught:
        hash_file(path, "name", interfere)
    assert caught.value.what == "the file changed while it was read"
    assert caught.value.where == str(path)


# --- the cache of hashes -----------------------------------------------------------------------------------


@pytest.fixture
def settled_file(tmp_path):
    """A file of 9 MiB that was written long ago."""
    path = tmp_path / "weights" / "file"
    path.parent.mkdir()
    path.write_bytes(os.urandom(9 * MIB))
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


def entry_and_bytes_read(cache, path):
    """A file's entry, and what had to be read for it."""
    before = bytes_read()
    entry = cache.entry(path, "name")
    return entry, bytes_read() - before


def test_a_known_file_is_not_read_again(settled_file, tmp_path):
    cache = HashCache(tmp_path / "hashes.json")
    entry, read = entry_and_bytes_read(cache, settled_file)
    assert read >= 9 * MIB
    cache.save()
    told = []
    again = HashCache(tmp_path / "hashes.json")
    same, read = entry_and_bytes_read(again, settled_file)
    assert (same, read < MIB) == (entry, True)
    again.entry(settled_file, "name", told.append)
    assert sum(told) == entry.size


@pytest.mark.parametrize("keep_time", [False, True], ids=["new time", "time set back"])
def test_a_changed_file_is_read_again(settled_file, tmp_path, keep_time):
    cache = HashCache(tmp_path / "hashes.json")
    entry, _ = entry_and_bytes_read(cache, settled_file)
    status = settled_file.stat()
    with settled_file.open("r+b") as file:
        file.write(b"changed")
    if keep_time:
        os.utime(settled_file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert settled_file.stat().st_mtime_ns == status.st_mtime_ns
    changed, read = entry_and_bytes_read(cache, settled_file)
    assert read >= 9 * MIB
    assert changed.sha256 == hashlib.sha256(settled_file.read_bytes()).hexdigest() != entry.sha256


def test_another_file_of_the_same_size_and_time_is_read(settled_file, tmp_path):
    cache = HashCache(tmp_path / "hashes.json")
    entry, _ = entry_and_bytes_read(cache, settled_file)
    status, other = settled_file.stat(), settled_file.with_name("other")
    other.write_bytes(os.urandom(9 * MIB))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(settled_file)
    assert entry_and_bytes_read(cache, settled_file)[0] != entry


def test_a_file_that_has_just_been_written_is_not_trusted(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(9 * MIB))
    cache = HashCache(tmp_path / "hashes.json")
    for _ in range(2):
        assert entry_and_bytes_read(cache, path)[1] >= 9 * MIB
    cache.save()
    assert not (tmp_path / "hashes.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"%s": 5}', '{"%s": {"stamp": %s}}', "\xff"])
def test_a_damaged_cache_is_an_empty_one(settled_file, tmp_path, content):
    status = settled_file.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]
    values = (settled_file, json.dumps(stamp))[: content.count("%s")]
    (tmp_path / "hashes.json").write_text(content % values, "latin-1")
    cache = HashCache(tmp_path / "hashes.json")
    assert cache.entry(settled_file, "name") == hash_file(settled_file, "name")
    cache.save()
    assert entry_and_bytes_read(HashCache(tmp_path / "hashes.json"), settled_file)[1] < MIB


SAVER = """
import pathlib, sys
from modelberth.adapters.folder import HashCache
path, cache = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    known = HashCache(cache)
    for file in sorted(path.iterdir()):
        file.chmod(0o644)  # another stamp, so that there is always something to save
        known.entry(file, "name")
        known.save()
print("done", flush=True)
"""


def test_runs_that_save_at_the_same_time_do_not_disturb_each_other(script, tmp_path):
    """The cache is shared by all stacks of a state folder; their deliveries hold different locks."""
    cache, savers = tmp_path / "hashes.json", []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(3):
            (folder / f"file-{number}").write_bytes(os.urandom(100))
            os.utime(folder / f"file-{number}", (1_600_000_000, 1_600_000_000))
        savers.append(script(SAVER, folder, cache))
    for saver in savers:
        assert saver.lines.next() == "ready"
    for saver in savers:
        saver.process.stdin.write("\n")
        saver.process.stdin.flush()
    for saver in savers:
        assert saver.lines.rest() == "ready\ndone"
    known = json.loads(cache.read_bytes())
    assert {Path(path).parent.name for path in known} == {"one", "two"}
    assert sorted(path.name for path in tmp_path.glob("hashes*")) in (["hashes.json"], ["hashes.json", "hashes.lock"])


def test_the_manifest_of_a_folder(tmp_path):
    assert read_manifest(tmp_path) is None
    write_file(tmp_path / MANIFEST_PATH, b"{}")
    with pytest.raises(IntegrityError):
        read_manifest(tmp_path)

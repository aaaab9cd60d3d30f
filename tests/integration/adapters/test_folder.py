"""Model folders: what is refused before a byte moves, hashes of all bytes, and the cache of hashes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from awscrt.checksums import crc64nvme

from modelberth.adapters.files import write_file
from modelberth.adapters.folder import (
    HashCache,
    file_stamp,
    hash_file,
    list_files,
    read_checkpoint,
    read_manifest,
    without,
)
from modelberth.base.errors import IntegrityError, UsageError
from modelberth.delivery.manifest import MANIFEST_PATH, PART_BYTES, FileEntry

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


# --- what stays behind -------------------------------------------------------------------------------------

FOUND = ("config.json", "model.safetensors", "deep/model.bin", "deep/er/model.bin", "deeper/notes.txt", "README.md")


@pytest.mark.parametrize(("patterns", "left"), [
    ((), FOUND),
    (("README.md",), FOUND[:5]),
    (("*.bin",), (*FOUND[:2], *FOUND[4:])),
    (("model.bin",), (*FOUND[:2], *FOUND[4:])),
    (("deep/*.bin",), (*FOUND[:2], *FOUND[4:])),
    (("deep",), (*FOUND[:2], *FOUND[4:])),
    (("deep/",), (*FOUND[:2], *FOUND[4:])),
    (("deep/er",), (*FOUND[:3], *FOUND[4:])),
    (("d*/*",), (*FOUND[:2], FOUND[5])),
    (("model.*", "*.md"), ("config.json", "deeper/notes.txt")),
    (("[!c]*",), ("config.json",)),
    (("readme.md", "er", "eep/", "deep/e", "", "/", "./config.json"), FOUND),
])  # fmt: skip
def test_what_a_pattern_leaves_behind(patterns, left):
    """A path, a name or a folder; letters count as they are written, and half a name is none."""
    assert without(FOUND, patterns) == list(left)


def test_a_pickle_is_left_behind_or_allowed(model):
    folder = model("w4a16")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "--exclude" in refused(folder).next_step
    assert "pytorch_model.bin" not in read_checkpoint(folder, exclude=("*.bin",))[0]
    assert "pytorch_model.bin" in read_checkpoint(folder, allow_pickle=True)[0]


@pytest.mark.parametrize(("pattern", "what"), [
    ("config.json", "there is no config.json"), ("*.safetensors", "there are no weights"),
    ("model-00001*", "model.safetensors.index.json"), ("*.index.json", "model.safetensors.index.json is missing"),
])  # fmt: skip
def test_what_is_left_is_a_model_or_refused(model, pattern, what):
    folder = model()
    with pytest.raises(IntegrityError) as caught:
        read_checkpoint(folder, exclude=(pattern,))
    assert what in caught.value.what


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


@pytest.mark.parametrize("part_bytes", [PART_BYTES, 5 * MIB])
@pytest.mark.parametrize("size", [0, 1, 5 * MIB + 3, PART_BYTES, PART_BYTES + 1])
def test_the_hash_of_a_file(tmp_path, size, part_bytes):
    path, told = tmp_path / "file", []
    with path.open("wb") as file:
        file.write(os.urandom(min(size, 1000)))
        file.truncate(size)
    entry = hash_file(path, "name", told.append, part_bytes)
    content = path.read_bytes()
    parts = [content[start : start + part_bytes] for start in range(0, max(size, 1), part_bytes)]
    assert (entry.path, entry.size, sum(told)) == ("name", size, size)
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.crc64nvme == tuple(f"{crc64nvme(part):016x}" for part in parts)


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


def test_other_parts_are_hashed_anew(settled_file, tmp_path):
    cache = HashCache(tmp_path / "hashes.json")
    first = cache.entry(settled_file, "name")
    before = bytes_read()
    second = cache.entry(settled_file, "name", part_bytes=5 * MIB)
    assert bytes_read() - before >= 9 * MIB
    assert (len(first.crc64nvme), len(second.crc64nvme)) == (1, 2)
    assert second == hash_file(settled_file, "name", part_bytes=5 * MIB)


# --- what others have read ---------------------------------------------------------------------------------

LEARNT = FileEntry("name", 9 * MIB, "5" * 64, ("1" * 16, "2" * 16))


def test_a_file_whose_bytes_somebody_else_has_read_is_not_read_again(settled_file, tmp_path):
    cache = HashCache(tmp_path / "hashes.json")
    cache.learn(settled_file, LEARNT, file_stamp(settled_file), 5 * MIB)
    cache.save()
    for each in (cache, HashCache(tmp_path / "hashes.json")):
        before = bytes_read()
        assert each.entry(settled_file, "name", part_bytes=5 * MIB) == LEARNT
        assert bytes_read() - before < MIB
    assert cache.entry(settled_file, "name") == hash_file(settled_file, "name")  # parts of another size are not known


@pytest.mark.parametrize("change", ["changed since", "just written"])
def test_what_may_have_changed_since_is_not_learnt(settled_file, tmp_path, change):
    cache = HashCache(tmp_path / "hashes.json")
    stamp = file_stamp(settled_file)
    if change == "just written":
        settled_file.touch()
        stamp = file_stamp(settled_file)
    else:
        settled_file.chmod(0o600)
    cache.learn(settled_file, LEARNT, stamp, PART_BYTES)
    assert cache.entry(settled_file, "name") == hash_file(settled_file, "name") != LEARNT


# --- other digests of files --------------------------------------------------------------------------------


class Compute:
    """Something that makes a digest, and counts how often it had to."""

    def __init__(self, digest="sha256:1", meanwhile=lambda: None):
        self.digest, self.meanwhile, self.calls = digest, meanwhile, 0

    def __call__(self):
        self.calls += 1
        self.meanwhile()
        return self.digest


def test_a_digest_is_made_once_for_a_purpose(settled_file, tmp_path):
    cache, compute, other = HashCache(tmp_path / "hashes.json"), Compute(), Compute("sha256:2")
    for _ in range(2):
        assert cache.digest(settled_file, "layer a", compute) == "sha256:1"
        assert cache.digest(settled_file, "layer b", other) == "sha256:2"
    entry = cache.entry(settled_file, "name")  # under the same path, and nothing of it is disturbed
    cache.save()
    again = HashCache(tmp_path / "hashes.json")
    assert again.digest(settled_file, "layer a", compute) == "sha256:1"
    assert again.digest(settled_file, "layer b", other) == "sha256:2"
    assert again.entry(settled_file, "name") == entry == hash_file(settled_file, "name")
    assert (compute.calls, other.calls) == (1, 1)


@pytest.mark.parametrize("when", ["afterwards", "meanwhile", "just before"])
def test_a_digest_of_a_file_that_changes_is_made_again(settled_file, tmp_path, when):
    cache, compute = HashCache(tmp_path / "hashes.json"), Compute()
    if when == "just before":
        settled_file.touch()
    if when == "meanwhile":
        compute.meanwhile = lambda: settled_file.chmod(0o600)
    assert cache.digest(settled_file, "layer", compute) == "sha256:1"
    compute.meanwhile = lambda: None
    if when == "afterwards":
        settled_file.chmod(0o600)
    compute.digest = "sha256:2"
    assert cache.digest(settled_file, "layer", compute) == "sha256:2"


@pytest.mark.parametrize("known", [None, 5, [], {}, {"stamp": [1, 2, 3, 4], "digest": "x"}, {"digest": 5}])
def test_a_damaged_digest_is_made_again(settled_file, tmp_path, known):
    if isinstance(known, dict):
        known = {"stamp": file_stamp(settled_file), **known}
    (tmp_path / "hashes.json").write_text(json.dumps({f"{settled_file} layer": known}))
    assert HashCache(tmp_path / "hashes.json").digest(settled_file, "layer", Compute()) == "sha256:1"


def test_a_digest_of_what_is_not_there(tmp_path):
    with pytest.raises(UsageError) as caught:
        HashCache(tmp_path / "hashes.json").digest(tmp_path / "nothing", "layer", Compute())
    assert caught.value.where == str(tmp_path / "nothing")


def test_an_error_on_the_way_to_a_digest_leaves_nothing_behind(settled_file, tmp_path):
    cache, compute = HashCache(tmp_path / "hashes.json"), Compute()

    def fail():
        raise IntegrityError("it changed")

    compute.meanwhile = fail
    with pytest.raises(IntegrityError):
        cache.digest(settled_file, "layer", compute)
    compute.meanwhile = lambda: None
    assert cache.digest(settled_file, "layer", compute) == "sha256:1"


# --- at the same time --------------------------------------------------------------------------------------


def test_threads_share_a_cache(tmp_path):
    """Every thread asks for every file; all get the same, and all of it is known the next time."""
    files = [tmp_path / f"file-{number:02}" for number in range(30)]
    for file in files:
        file.write_bytes(os.urandom(1000))
        os.utime(file, (1_600_000_000, 1_600_000_000))
    cache, threads = HashCache(tmp_path / "hashes.json"), 6
    barrier = Barrier(threads)

    def ask(number):
        barrier.wait()
        order = files[number * 5 :] + files[: number * 5]
        entries = {file.name: cache.entry(file, file.name) for file in order}
        digests = {file.name: cache.digest(file, "layer", lambda file=file: f"of {file.name}") for file in order}
        return entries, digests

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(ask, range(threads)))
    expected = (
        {file.name: hash_file(file, file.name) for file in files},
        {file.name: f"of {file.name}" for file in files},
    )
    assert answers == [expected] * threads
    cache.save()
    again, told = HashCache(tmp_path / "hashes.json"), Compute("made anew")
    before = bytes_read()
    assert {file.name: again.entry(file, file.name) for file in files} == expected[0]
    assert {file.name: again.digest(file, "layer", told) for file in files} == expected[1]
    assert (told.calls, bytes_read() - before < 30_000) == (0, True)


def test_where_nothing_can_be_kept_the_next_run_hashes_again(settled_file, tmp_path):
    """A pod whose root is read-only."""
    (tmp_path / "file").write_text("")
    cache = HashCache(tmp_path / "file" / "hashes.json")
    entry = cache.entry(settled_file, "name")
    cache.save()
    assert HashCache(tmp_path / "file" / "hashes.json").entry(settled_file, "name") == entry


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

"""Files that appear whole or not at all, locks that end with their holder, and room on the disk."""

from __future__ import annotations

import os
import signal

import pytest

from modelberth.adapters.files import disk_errors, locked, remove_tree, require_room, write_file, writing
from modelberth.base.errors import AuthError, Conflict, DoesNotFit, UsageError

pytestmark = pytest.mark.integration


def names(folder):
    """All paths below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    with writing(path) as file:
        file.write(b"half")
        assert names(path.parent) == ["file.part"]
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DoesNotFit("full")])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write():
        with writing(path) as file:
            file.write(b"after")
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write()
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"before"


def test_a_part_that_a_crash_left_is_overwritten(tmp_path):
    (tmp_path / "file.part").write_bytes(b"of a run that was killed" * 100)
    write_file(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_full_disk_leaves_nothing(small_disk):
    disk = small_disk("1m")
    write_file(disk / "file", b"before")
    with pytest.raises(DoesNotFit) as caught:
        write_file(disk / "file", b"x" * (2 << 20))
    assert caught.value.exit_code == 8
    assert caught.value.where == str(disk / "file")
    assert "free on that disk" in caught.value.why
    assert names(disk) == ["file"]
    assert (disk / "file").read_bytes() == b"before"


def test_a_limit_on_file_size_is_no_room_either(script, tmp_path):
    """RLIMIT_FSIZE, as `ulimit -f` sets it; the signal that comes with it is ignored by Python."""
    code = """
import pathlib, resource, sys
from modelberth.adapters.files import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_file(pathlib.Path(sys.argv[1]), b"x" * 10000)
except Exception as error:
    print(type(error).__name__, error.exit_code)
"""
    assert script(code, tmp_path / "file").lines.next() == "DoesNotFit 8"
    assert names(tmp_path) == []


def test_require_room(small_disk):
    disk = small_disk("1m")
    require_room(disk, 1 << 19)
    require_room(disk / "not" / "there" / "yet", 1 << 19)
    with pytest.raises(DoesNotFit) as caught:
        require_room(disk / "not" / "there" / "yet", 1 << 21)
    assert caught.value.why == "2.10 MB needed, 1.05 MB free"


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(UsageError):
        write_file(tmp_path / "file", b"x")
    assert names(tmp_path) == ["file"]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        write_file(tmp_path / "file" / "below", b"x")


def test_no_permission(script, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without privileges")
    code = """
import os, pathlib, sys
from modelberth.adapters.files import write_file
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    write_file(pathlib.Path(sys.argv[1]), b"x")
except Exception as error:
    print(type(error).__name__, error.exit_code)
"""
    assert script(code, "/usr/berth-test").lines.next() == f"{AuthError.__name__} 4"


def test_a_reader_that_went_away_is_no_disk_error(tmp_path):
    with pytest.raises(BrokenPipeError), disk_errors(tmp_path):
        raise BrokenPipeError


def test_remove_tree(tmp_path):
    remove_tree(tmp_path / "nothing")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("")
    (tmp_path / "kept").write_text("")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    assert names(tmp_path) == ["kept"]


HOLDER = """
import pathlib, signal, sys
from modelberth.adapters.files import locked
with locked(pathlib.Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.readline()
    pathlib.Path(sys.argv[1]).write_text("released")
"""


@pytest.mark.parametrize(("theirs", "ours", "conflict"), [
    ("exclusive", False, True), ("exclusive", True, True), ("shared", False, True), ("shared", True, False),
])  # fmt: skip
def test_a_lock_is_held_against_other_processes(script, tmp_path, theirs, ours, conflict):
    lock = tmp_path / "deep" / "lock"
    holder = script(HOLDER, lock, theirs)
    assert holder.lines.next() == "held"
    if conflict:
        with pytest.raises(Conflict) as caught, locked(lock, shared=ours, wait=False, holder="the delivery"):
            pass
        assert caught.value.exit_code == 5
        assert caught.value.what == "another run holds the delivery"
    else:
        with locked(lock, shared=ours, wait=False):
            pass


def test_a_lock_ends_with_its_holder(script, tmp_path):
    holder = script(HOLDER, tmp_path / "lock", "exclusive")
    assert holder.lines.next() == "held"
    os.kill(holder.pid, signal.SIGKILL)
    holder.process.wait()
    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_lock_is_waited_for(script, tmp_path):
    lock = tmp_path / "lock"
    holder = script(HOLDER, lock, "exclusive")
    assert holder.lines.next() == "held"
    waiting = script(HOLDER.replace('print("held"', "print(pathlib.Path(sys.argv[1]).read_text()"), lock, "exclusive")
    holder.process.stdin.write("\n")
    holder.process.stdin.flush()
    assert waiting.lines.next() == "released"


def test_an_error_frees_the_lock(tmp_path):
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "lock"):
        raise ValueError("inside")
    with locked(tmp_path / "lock", wait=False):
        pass


REMOVER = """
import os, pathlib, sys
from modelberth.adapters.files import locked
folder = pathlib.Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(500):
    with locked(folder / "lock"):
        os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails while somebody else is inside
        (folder / "inside").unlink()
        (folder / "lock").unlink()
print("done", flush=True)
"""


def test_a_lock_that_its_holder_removes_is_still_one_lock(script, tmp_path):
    """Who has waited for the removed file does not hold the one that others make anew."""
    removers = [script(REMOVER, tmp_path) for _ in range(3)]
    for remover in removers:
        assert remover.lines.next() == "ready"
    for remover in removers:
        remover.process.stdin.write("\n")
        remover.process.stdin.flush()
    for remover in removers:
        assert remover.lines.rest() == "ready\ndone"
    assert names(tmp_path) == []

"""Disks that are too small, or become full on the way: said before anything moves, or nothing half-written stays."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docks import MARK, OWN, SHARDS, SIZES, KillBefore, Victim, write_model
from fault_proxy import Callback, Fault

pytestmark = pytest.mark.integration


@pytest.fixture
def shipped(dock, rclone, source):
    """The tests' model, 16 MB, complete in a bucket."""
    here = dock(rclone)
    assert here.ship(source).code == 0
    return here


def files_in(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def fill(path: Path) -> None:
    """Let a file grow until its disk is full."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_disk_that_is_too_small_is_said_so_before_anything_moves(shipped, small_disk):
    disk = small_disk("12m")
    before = len(shipped.requests)
    end = shipped.fetch(disk / "model")
    assert end.code == 8
    needed, free = re.findall(r"([\d.]+) MB (?:needed|free)", end.talk)
    assert 16 <= float(needed) <= 18
    assert 12 <= float(free) <= 12.6
    assert shipped.data_requests("GET", before) == []
    assert files_in(disk) == []


def test_room_for_what_is_missing_is_enough(shipped, small_disk, source, hashes):
    """A second run needs no room for what the first has brought."""
    disk, victim = small_disk("19m"), Victim()
    shipped.proxy.add(Fault(KillBefore(victim), method="GET", path=f"/m/{SHARDS[1]}", after=2, times=1))
    assert shipped.end(victim.is_(shipped.start("fetch", shipped.address, disk / "model"))).code == -9
    assert shutil.disk_usage(disk).free < sum(SIZES)
    assert shipped.fetch(disk / "model").code == 0
    assert hashes(disk / "model") == hashes(source)


def test_a_disk_that_another_program_fills_before_the_files_are_made_keeps_nothing(shipped, small_disk):
    disk = small_disk("24m")
    grown = Callback(lambda _request: fill(disk / "of-another-program"))
    shipped.proxy.add(Fault(grown, method="GET", path="list-type", times=1))
    end = shipped.fetch(disk / "model")
    assert end.code == 8
    assert files_in(disk) == ["of-another-program"]


def test_a_disk_that_is_filled_midway_takes_nothing_from_what_has_its_room(shipped, small_disk, source, hashes):
    """The room for the files was taken before a byte came. What is too little then is room for the mark."""
    disk = small_disk("24m")
    grown = Callback(lambda _request: fill(disk / "of-another-program"))
    shipped.proxy.add(Fault(grown, method="GET", path=f"/m/{SHARDS[1]}", times=1))
    end = shipped.fetch(disk / "model")
    assert end.code == 8
    assert [path for path in files_in(disk / "model") if path.endswith(".part")] == []
    assert not (disk / "model" / MARK).exists()
    (disk / "of-another-program").unlink()
    shipped.proxy.clear()
    assert shipped.fetch(disk / "model").code == 0
    assert hashes(disk / "model") == hashes(source)


def test_a_model_that_is_there_stays_whole_when_the_next_one_does_not_fit(
    dock, shipped, small_disk, source, hashes, tmp_path
):
    disk = small_disk("24m")
    folder, other = disk / "model", dock(shipped.store)
    assert shipped.fetch(folder).code == 0
    assert other.ship(write_model(tmp_path / "next", *SIZES)).code == 0
    assert other.fetch(folder).code == 8
    assert hashes(folder) == hashes(source)
    assert shipped.run("ship", "--check", folder).code == 0


def test_a_limit_on_the_size_of_files_is_a_full_disk(shipped, tmp_path):
    """As a quota gives it: in the middle of a file, and with room on the disk."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "BERTH_STATE": str(tmp_path / "state"),
        **shipped.store.environment(),
    }  # fmt: skip
    limit = 6_000_000
    done = subprocess.run(
        [Path(sys.executable).with_name("berth"), "fetch", shipped.address, tmp_path / "back"], env=environment,
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 8, done.stderr
    assert "disk" in done.stderr
    assert not (tmp_path / "back").exists() or files_in(tmp_path / "back") == []


@pytest.fixture
def bare(dock, rclone, source):
    """The tests' model as somebody else has put it into a bucket: no manifest."""
    here = dock(rclone)
    shutil.copytree(source, rclone.folder / here.bucket / "bare")
    return here


def test_parts_between_two_stores_need_room_in_the_workspace(bare, small_disk):
    disk = small_disk("3m")
    end = bare.run("ship", f"s3://{bare.bucket}/bare/", bare.address, "--workspace", disk)
    assert end.code == 8
    assert "full" in end.talk
    assert files_in(disk) == []
    assert not bare.has_mark()


def test_room_for_the_parts_under_way_is_enough_between_two_stores(bare, small_disk, source, hashes):
    disk = small_disk("12m")
    end = bare.run("ship", f"s3://{bare.bucket}/bare/", bare.address, "--workspace", disk, "--connections", 2)
    assert end.code == 0, end.talk
    assert bare.objects() == hashes(source)
    assert files_in(disk) == []


def test_a_journal_that_has_no_room_is_said_so(dock, rclone, source, small_disk):
    here, disk = dock(rclone), small_disk("1m")
    here.state = disk / "state"
    fill(disk / "of-another-program")
    os.truncate(disk / "of-another-program", (1 << 20) - 65_536)
    grown = Callback(lambda _request: fill(disk / "of-another-program"))
    here.proxy.add(Fault(grown, method="PUT", path="begun", times=1))
    end = here.ship(source)
    assert end.code == 8, end.talk
    assert str(disk) in end.talk
    assert not here.has_mark()


def test_a_folder_that_may_not_be_written_is_said_so(shipped):
    end = shipped.fetch(Path("/proc/no-such-place/model"))
    assert end.code in {2, 4}
    assert "/proc/no-such-place" in end.talk


def test_a_folder_below_a_file_is_said_so(shipped, tmp_path):
    (tmp_path / "file").write_text("in the way")
    end = shipped.fetch(tmp_path / "file" / "model")
    assert end.code == 2
    assert (tmp_path / "file").read_text() == "in the way"
    assert not (tmp_path / OWN).exists()

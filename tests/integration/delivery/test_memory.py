"""The memory of a client does not depend on how large an object is: 1 GiB moves through less than 64 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from docks import write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
GIB = 1 << 30
LIMIT = 64_000_000
# A process of its own, and a small one: what a child holds before it becomes another program counts as the child's.
_MEASURE = """\
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024]))
"""


@pytest.fixture
def peak(rclone, tmp_path: Path):
    """Run a verb, which must end well; returns the most memory that it held, in bytes."""

    def run(*arguments: object) -> int:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "BERTH_STATE": str(tmp_path / "state"),
            **rclone.environment(),
        }  # fmt: skip
        command = [str(Path(sys.executable).with_name("berth")), *map(str, arguments)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MEASURE, *command], env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        code, most = json.loads(done.stdout)
        assert code == 0, done.stderr
        return most

    return run


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one shard of 1 GiB that takes no room on the disk."""
    return write_model(tmp_path_factory.mktemp("sparse"), GIB, hole=True)


def test_one_gib_is_shipped_and_fetched_in_less_than_64_mb(peak, rclone, sparse, tmp_path):
    bucket, back = rclone.new_bucket(), tmp_path / "back"
    assert peak("ship", sparse, f"s3://{bucket}/m/") < LIMIT
    assert peak("fetch", f"s3://{bucket}/m/", back) < LIMIT
    assert (back / "model-00001-of-00001.safetensors").stat().st_size > GIB
    (back / "model-00001-of-00001.safetensors").unlink()


def test_one_gib_is_checked_in_less_than_64_mb(peak, rclone, sparse):
    bucket = rclone.new_bucket()
    peak("ship", sparse, f"s3://{bucket}/m/")
    assert peak("ship", "--check", f"s3://{bucket}/m/") < LIMIT


def test_one_gib_goes_from_store_to_store_in_less_than_64_mb(peak, rclone, sparse):
    first, second = rclone.new_bucket(), rclone.new_bucket()
    for path in sparse.iterdir():  # as somebody else has put it there: no manifest, its hashes are found on the way
        (rclone.folder / first / "m").mkdir(exist_ok=True)
        os.link(path, rclone.folder / first / "m" / path.name)
    assert peak("ship", f"s3://{first}/m/", f"s3://{second}/m/") < LIMIT


def test_many_parts_at_a_time_move_in_less_than_64_mb(peak, rclone, tmp_path):
    bucket, folder = rclone.new_bucket(), write_model(tmp_path / "model", *[40 << 20] * 4, hole=True)
    assert peak("ship", folder, f"s3://{bucket}/m/", "--part-size", "5MiB", "--connections", 16) < LIMIT
    assert peak("fetch", f"s3://{bucket}/m/", tmp_path / "back", "--connections", 16) < LIMIT

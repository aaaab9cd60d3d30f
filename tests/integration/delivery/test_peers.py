"""What `berth ship` wrote, read by programs of others: byte for byte the source."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from docks import OWN, Dock
from servers import ProgramMissing, peer_program

pytestmark = pytest.mark.integration
KSERVE = "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])"


@pytest.fixture(params=["rclone", "moto"])
def shipped(request, dock, source) -> Dock:
    """The tests' model, complete in a bucket of either server."""
    here = dock(request.getfixturevalue(request.param))
    assert here.ship(source).code == 0
    return here


def test_boto3_reads_back_what_was_shipped(shipped, source, hashes, tmp_path):
    with closing(shipped.store.client()) as client:
        for key in shipped.store.keys(shipped.bucket):
            place = tmp_path / "back" / key.removeprefix("m/")
            place.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(shipped.bucket, key, str(place))
    assert hashes(tmp_path / "back") == hashes(source)
    assert {path.name for path in (tmp_path / "back" / OWN).iterdir()} == {"manifest.json"}


def test_the_storage_initializer_of_kserve_reads_back_what_was_shipped(shipped, source, hashes, tmp_path):
    try:
        python = peer_program("python")
    except ProgramMissing as error:
        pytest.skip(str(error))
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any-key-will-do", "AWS_SECRET_ACCESS_KEY": "any-secret", **shipped.store.environment(),
        "S3_USE_HTTPS": "0",
    }  # fmt: skip
    environment = {name: value for name, value in environment.items() if value}
    done = subprocess.run(
        [python, "-c", KSERVE, shipped.address, tmp_path / "back"], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert hashes(tmp_path / "back") == hashes(source)


def test_what_others_put_into_a_bucket_is_shipped_on_with_a_manifest(dock, rclone, source, hashes, tmp_path):
    here = dock(rclone)
    with closing(here.store.client()) as client:
        for path in source.iterdir():
            client.upload_file(str(path), here.bucket, f"theirs/{path.name}")
    end = here.run("ship", f"s3://{here.bucket}/theirs/", here.address)
    assert end.code == 0, end.talk
    assert here.objects() == hashes(source)
    assert here.fetch(Path(tmp_path / "back")).code == 0
    assert hashes(tmp_path / "back") == hashes(source)

"""Wrong bytes at rest: found by --check, replaced by --verify, in S3 and in an image layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from docks import SHARDS, Dock

pytestmark = pytest.mark.integration


@pytest.fixture
def shipped(dock, rclone, source) -> Dock:
    """`berth` at a bucket with the tests' model."""
    made = dock(rclone)
    assert made.ship(source).code == 0
    return made


def stored(dock: Dock, path: str) -> Path:
    """The file of an object in rclone's folder."""
    return dock.store.folder / dock.bucket / "m" / path


def test_what_is_wrong_at_rest_is_sent_again_and_nothing_else(shipped, source, hashes, flip, tmp_path):
    flip(stored(shipped, SHARDS[2]), 100_000)
    assert shipped.ship(source).document["changed"] is False, "a ship looks at names and sizes"
    assert shipped.run("ship", "--check", shipped.address).code == 7
    mended = shipped.ship(source, "--verify")
    assert (mended.code, mended.document["bytesMoved"]) == (0, (source / SHARDS[2]).stat().st_size)
    assert shipped.run("ship", "--check", shipped.address).code == 0
    assert shipped.fetch(tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_fetch_that_meets_wrong_bytes_says_how_to_mend_them(shipped, flip, tmp_path):
    flip(stored(shipped, SHARDS[0]), 100_000)
    refused = shipped.fetch(tmp_path / "back")
    assert refused.code == 7
    assert "--verify" in refused.talk


def test_what_is_right_is_only_read(shipped, source):
    again = shipped.ship(source, "--verify")
    assert (again.code, again.document["changed"], again.document["bytesMoved"]) == (0, False, 0)
    assert shipped.has_mark()


def test_a_layout_is_mended(berth, source, flip, tmp_path):
    layout = tmp_path / "layout"
    address = f"oci-layout:{layout}:1"
    assert berth("ship", source, address).returncode == 0
    largest = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    flip(largest, largest.stat().st_size // 2)
    assert berth("ship", "--check", address).returncode == 7
    assert berth("ship", "--verify", source, address).returncode == 0
    assert berth("ship", "--check", address).returncode == 0


def test_a_wrong_byte_around_a_file_of_an_image_is_found(berth, source, flip, tmp_path):
    layout = tmp_path / "layout"
    address = f"oci-layout:{layout}:1"
    assert berth("ship", source, address).returncode == 0
    largest = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    flip(largest, 600)  # in the header of the file's own tar entry
    checked = berth("ship", "--check", address)
    assert checked.returncode == 7
    assert "tar header" in checked.stdout


def test_a_registry_is_not_mended_but_says_so(berth, source):
    refused = berth("ship", "--verify", source, "oci://127.0.0.1:1/acme/model:1")
    assert refused.returncode == 2
    assert "cannot be replaced" in refused.stderr


def test_several_fetches_are_one_document(shipped, source, hashes, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    both = shipped.run("fetch", shipped.address, one, shipped.address, two)
    assert both.code == 0
    assert both.document["schemaVersion"] == "modelberth.dev/fetch-list/v1"
    assert [each["destination"] for each in both.document["deliveries"]] == [str(one), str(two)]
    assert hashes(one) == hashes(two) == hashes(source)

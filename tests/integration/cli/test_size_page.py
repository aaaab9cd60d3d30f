"""`berth size --html`: the page as a file, and the places where none can be written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

CONFIGS = Path(__file__).parents[2] / "data" / "model-configs"
FITS = (CONFIGS / "Qwen3-8B.json", "--gpu", "L4", "--max-model-len", "8192")


def test_the_page_is_written_beside_the_report(berth, tmp_path):
    path = tmp_path / "deep" / "plan.html"
    plain, done = berth("size", *FITS), berth("size", *FITS, "--html", path)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    assert str(path) in done.stderr
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "Fits" in text
    assert [each.name for each in path.parent.iterdir()] == ["plan.html"]
    first = path.read_bytes()
    assert berth("size", *FITS, BERTH_SIZE_HTML=str(path)).returncode == 0
    assert path.read_bytes() == first


def test_a_plan_that_does_not_start_has_a_page_too(berth, tmp_path):
    path = tmp_path / "plan.html"
    done = berth("size", CONFIGS / "Qwen3-32B.json", "--gpu", "L4", "--html", path, "-o", "name")
    assert (done.returncode, done.stdout) == (8, "weights-do-not-fit")
    assert "beyond the card" in path.read_text(encoding="utf-8")


def test_the_name_of_a_folder_is_no_markup(berth, tmp_path, weights):
    folder = tmp_path / "<script>alert(1)<"
    shutil.copytree(weights("w4a16"), folder)
    page = tmp_path / "plan.html"
    assert berth("size", folder, "--gpu", "L4", "--html", page).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


@pytest.mark.parametrize("kind", ["folder", "device", "below a file", "pipe"])
def test_a_page_that_cannot_be_written(berth, tmp_path, kind):
    path = {"folder": tmp_path, "device": Path("/dev/null"), "pipe": tmp_path / "pipe"}.get(kind)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "plan.html"
    done = berth("size", *FITS, "--html", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path.parent) in done.stderr
    assert not list(tmp_path.glob("*.part"))
    assert Path("/dev/null").is_char_device()


def test_a_page_on_a_full_disk(berth, small_disk):
    disk = small_disk("64k")
    (disk / "ballast").write_bytes(b"x" * (60 << 10))
    done = berth("size", *FITS, "--html", disk / "plan.html")
    assert (done.returncode, done.stdout) == (8, "")
    assert "the disk is full" in done.stderr
    assert "--state" not in done.stderr
    assert [path.name for path in disk.iterdir()] == ["ballast"]

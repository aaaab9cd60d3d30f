"""A must-gather is read where it lies, folder or archive; hostile and broken archives harm nobody."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelberth.adapters import gathered
from modelberth.adapters.gathered import Gathering
from modelberth.base.errors import IntegrityError, UsageError

FILES = {
    "must-gather/namespaces/ns/core/pods.yaml": b"kind: PodList\n",
    "must-gather/namespaces/ns/pods/p/c/c/logs/current.log": b"line\n" * 1000,
    "must-gather/version": b"",
}


def read_all(path: Path) -> tuple[dict[str, bytes], list[str]]:
    gathering = Gathering(path)
    found = {}
    for file in gathering.files():
        pieces = []
        while piece := file.content.read(4096):
            pieces.append(piece)
        found[file.path] = b"".join(pieces)
    return found, gathering.notes


def write_tar(path: Path, mode: str, change: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if change:
            change(archive)
    return path


def add(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    content = b"evil" if kind == tarfile.REGTYPE else b""
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tbz", "w:bz2")]
)
def test_archives_of_every_kind(tmp_path: Path, name: str, mode: str) -> None:
    assert read_all(write_tar(tmp_path / name, mode)) == (FILES, [])


def test_a_folder(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    secret = tmp_path.parent / "outside"
    secret.write_text("secret")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")  # would wait for ever
    found, notes = read_all(tmp_path)
    assert found == FILES
    assert notes == ["left out 2 links, special files and names that lead out: link, pipe"]


def test_names_that_lead_out_are_left_out_and_named(tmp_path: Path) -> None:
    def hostile(archive: tarfile.TarFile) -> None:
        add(archive, "../../etc/cron.d/evil")
        add(archive, "/etc/passwd")
        add(archive, "a/link", tarfile.SYMTYPE, "/etc")
        add(archive, "a/hard", tarfile.LNKTYPE, "/etc/passwd")
        add(archive, "a/device", tarfile.CHRTYPE)

    found, notes = read_all(write_tar(tmp_path / "a.tar.gz", "w:gz", hostile))
    assert found == FILES
    assert notes == [
        "left out 5 links, special files and names that lead out: ../../etc/cron.d/evil, /etc/passwd, a/link, ..."
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_ends_early_is_read_up_to_there(tmp_path: Path, mode: str) -> None:
    whole = write_tar(tmp_path / "a.tar", mode)
    cut = whole.read_bytes()[: 3000 if mode == "w" else 150]
    whole.write_bytes(cut)
    found, notes = read_all(whole)
    assert "must-gather/namespaces/ns/core/pods.yaml" in found
    assert notes[0].startswith("the archive ends early or is damaged after")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "_FREE_BYTES", 1 << 20)
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("must-gather/a.log")
        member.size = 64 << 20
        archive.addfile(member, io.BytesIO(bytes(64 << 20)))
    with pytest.raises(IntegrityError, match="unpacks to more than any gathering holds"):
        read_all(path)


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"no archive")])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no folder and no tar archive"):
        read_all(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it cannot be read"):
        read_all(tmp_path / "nothing")

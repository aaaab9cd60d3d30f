"""A tree on disk: replaced as a whole or not at all, whatever stands there and whenever it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelberth.adapters.rendered_tree import RECORD, STAGING, RenderedTree, WantedFile
from modelberth.base.errors import Conflict, DoesNotFit, IntegrityError, UsageError

pytestmark = pytest.mark.integration
BASE = "gitops/s/base"
A, B, C, SCRIPT = f"{BASE}/a.yaml", f"{BASE}/b/b.yaml", f"{BASE}/c/c.yaml", "steps/s/deploy.sh"


def files(**texts: str) -> list[WantedFile]:
    paths = {"a": A, "b": B, "c": C, "script": SCRIPT}
    return [WantedFile(paths[name], text.encode(), name == "script") for name, text in texts.items()]


FIRST = files(a="one\n", b="one\n", script="#!/bin/sh\n")
SECOND = files(a="two\n", c="two\n", script="#!/bin/sh\n# two\n")


def content(target: Path) -> dict[str, str]:
    """All files but the record."""
    return {
        str(path.relative_to(target)): path.read_text()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != RECORD
    }


def texts(wanted: list[WantedFile]) -> dict[str, str]:
    return {each.path: each.content.decode() for each in wanted}


def tree(target: Path) -> RenderedTree:
    return RenderedTree(target, "s")


def kinds(comparison) -> dict[str, str]:
    return {each.path: each.kind for each in comparison.changes}


def test_a_tree_is_created_updated_and_cleared_of_what_is_no_longer_rendered(tmp_path):
    target = tmp_path / "not" / "there"
    assert set(kinds(tree(target).write(FIRST)).values()) == {"created"}
    assert content(target) == texts(FIRST)
    assert os.access(target / SCRIPT, os.X_OK)
    assert kinds(tree(target).write(SECOND)) == {A: "updated", B: "removed", C: "created", SCRIPT: "updated"}
    assert content(target) == texts(SECOND)
    assert not (target / B).parent.exists()
    assert not (target / STAGING).exists()


def test_the_same_again_changes_nothing(tmp_path):
    tree(tmp_path).write(FIRST)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert set(kinds(tree(tmp_path).write(FIRST)).values()) == {"unchanged"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_files_of_others_are_never_touched(tmp_path):
    tree(tmp_path).write(FIRST)
    overlay = tmp_path / "gitops/s/overlays/prod/kustomization.yaml"
    overlay.parent.mkdir(parents=True)
    overlay.write_text("mine\n")
    (tmp_path / BASE / "b" / "notes.txt").write_text("mine\n")
    tree(tmp_path).write(SECOND)
    assert overlay.read_text() == "mine\n"
    assert (tmp_path / BASE / "b" / "notes.txt").read_text() == "mine\n"


@pytest.mark.parametrize("path", [A, B, SCRIPT])
def test_an_edited_file_is_refused_with_its_name_and_nothing_is_written(tmp_path, path: str):
    tree(tmp_path).write(FIRST)
    (tmp_path / path).write_text("edited\n")
    before = content(tmp_path)
    with pytest.raises(Conflict, match="not as they were rendered") as caught:
        tree(tmp_path).write(SECOND)
    assert f"{path}: edited since it was rendered" in caught.value.why
    assert content(tmp_path) == before
    assert tree(tmp_path).write(SECOND, overwrite=True).edited == (path,)
    assert content(tmp_path) == texts(SECOND)


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / BASE).mkdir(parents=True)
    (tmp_path / A).write_text("somebody's\n")
    with pytest.raises(Conflict) as caught:
        tree(tmp_path).write(FIRST)
    assert f"{A}: not written by berth" in caught.value.why
    assert content(tmp_path) == {A: "somebody's\n"}


def test_a_file_that_is_wanted_as_it_is_becomes_ours(tmp_path):
    (tmp_path / BASE).mkdir(parents=True)
    (tmp_path / A).write_text("one\n")
    tree(tmp_path).write(FIRST)
    assert kinds(tree(tmp_path).write(SECOND))[A] == "updated"


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="the target is no folder"):
        tree(tmp_path / "file").compare(FIRST)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, (place, what) in enumerate(
        [("gitops", "link"), (f"{BASE}/a.yaml", "link"), (f"{BASE}/a.yaml", "folder"), ("gitops/s", "file")]
    ):
        target = tmp_path / str(number)
        at = target / place
        at.parent.mkdir(parents=True)
        {"link": lambda at=at: at.symlink_to(elsewhere), "folder": at.mkdir, "file": at.touch}[what]()
        with pytest.raises(UsageError, match=f"a {what} is"):
            tree(target).write(FIRST)
        assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "record",
    ["{", "[]", '{"schemaVersion": "modelberth.dev/rendered/v9", "files": {}}',
     '{"schemaVersion": "modelberth.dev/rendered/v1", "files": {"../../etc/passwd": "x"}}'],
)  # fmt: skip
def test_a_record_that_is_not_ours_is_refused(tmp_path, record: str):
    tree(tmp_path).write(FIRST)
    (tmp_path / "gitops/s" / RECORD).write_text(record)
    with pytest.raises(IntegrityError, match="record"):
        tree(tmp_path).write(SECOND)
    assert content(tmp_path) == texts(FIRST)


def test_the_record_says_what_was_written(tmp_path):
    tree(tmp_path).write(SECOND)
    record = json.loads((tmp_path / "gitops/s" / RECORD).read_text())
    assert record["files"] == {each.path: each.digest for each in sorted(SECOND, key=lambda each: each.path)}
    assert set(record) == {"schemaVersion", "files"}


# --- ends at any moment --------------------------------------------------------------------------------------

VICTIM = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from modelberth.adapters.rendered_tree import RenderedTree, WantedFile
    target, at = Path(sys.argv[1]), int(sys.argv[2])
    wanted = [WantedFile(p, t.encode(), p.endswith(".sh")) for p, t in eval(sys.argv[3]).items()]
    seen = 0

    def strike(event, arguments):
        global seen
        if event in {"os.rename", "os.link", "os.remove"} and str(target) in str(arguments[0]):
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(strike)
    RenderedTree(target, "s").write(wanted)
""")


def killed_at(target: Path, step: int, wanted: list[WantedFile]) -> bool:
    """Write in a process of its own that is killed before its n-th change of names; whether it was."""
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, str(target), str(step), repr(texts(wanted))], capture_output=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


@pytest.mark.timeout(180)
def test_a_run_that_was_killed_is_completed_by_the_next(tmp_path):
    """At every change of a name; afterwards the same stack, or another one, is rendered without a complaint."""
    third = files(a="three\n", b="three\n")
    steps = 0
    for following in (SECOND, third):
        step = 0
        while True:
            target = tmp_path / f"{following is SECOND}-{step}"
            tree(target).write(FIRST)
            if not killed_at(target, step, SECOND):
                break
            tree(target).write(following)
            assert content(target) == texts(following)
            assert not (target / STAGING).exists()
            step += 1
        steps += step
    assert steps >= 16


def test_of_two_runs_at_once_the_second_is_refused(tmp_path):
    with tree(tmp_path)._staging(), pytest.raises(Conflict, match="another run"):
        tree(tmp_path).write(FIRST)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_the_tree_as_it_was(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=True)
    try:
        tree(tmp_path).write(FIRST)
        large = files(a="x" * 200_000, b="y" * 200_000, script="#!/bin/sh\n")
        with pytest.raises(DoesNotFit):
            tree(tmp_path).write(large)
        assert content(tmp_path) == texts(FIRST)
        assert set(kinds(tree(tmp_path).write(FIRST)).values()) == {"unchanged"}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk for reading only needs root")
def test_a_disk_that_is_for_reading_only_is_said(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(Exception, match="may not be read or written"):
            tree(tmp_path).write(FIRST)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- whatever people do --------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
WANTED = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["one\n", "two\n", ""]), min_size=1)
EDITS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["one\n", "two\n", "mine\n", None]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(WANTED, EDITS, WANTED)
def test_a_run_writes_all_of_it_or_nothing(tmp_path_factory, first, edits, second):
    target = tmp_path_factory.mktemp("tree")
    paths = {"a": A, "b": B, "c": C}
    tree(target).write(files(**first))
    for name, text in edits.items():
        path = target / paths[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
    before = content(target)
    try:
        tree(target).write(files(**second))
    except Conflict:
        assert content(target) == before
        assert any(text == "mine\n" or first.get(name) != text for name, text in edits.items())
    else:
        kept = {path: text for path, text in before.items() if text == "mine\n" and path not in texts(files(**second))}
        assert content(target) == texts(files(**second)) | {
            path: text for path, text in before.items()
            if path not in texts(files(**second)) and path not in texts(files(**first))
        }  # fmt: skip
        assert all(path not in texts(files(**first)) for path in kept)

"""A tree on disk: replaced as a whole or not at all, whatever stands there and whenever it ends."""

from __future__ import annotations

import hashlib
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
    """All files but the record, and what is left for the next run to clear."""
    return {
        str(path.relative_to(target)): path.read_text()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != RECORD and STAGING not in path.parts
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


def test_a_mode_that_matters_is_put_right_and_others_are_left(tmp_path):
    """Disks that keep no modes call every file a program."""
    tree(tmp_path).write(FIRST)
    (tmp_path / A).chmod(0o755)
    (tmp_path / SCRIPT).chmod(0o644)
    assert kinds(tree(tmp_path).write(FIRST)) == {A: "unchanged", B: "unchanged", SCRIPT: "updated"}
    assert os.access(tmp_path / SCRIPT, os.X_OK)


def test_a_record_of_other_content_is_a_difference_and_is_put_right(tmp_path):
    """As after a merge that took the record of one side: without it the next change would be called an edit."""
    tree(tmp_path).write(FIRST)
    record = tmp_path / "gitops/s" / RECORD
    old = record.read_text()
    tree(tmp_path).write(SECOND)
    record.write_text(old)
    found = tree(tmp_path).compare(SECOND)
    assert (found.differs, found.record_differs) == (True, True)
    tree(tmp_path).write(SECOND)
    assert not tree(tmp_path).compare(SECOND).differs
    assert tree(tmp_path).write(FIRST).edited == ()


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for ask in (RenderedTree.compare, RenderedTree.write):
        with pytest.raises(UsageError, match="the target is no folder"):
            ask(tree(tmp_path / "file"), FIRST)
        with pytest.raises(UsageError, match="cannot be read or written"):
            ask(tree(tmp_path / ("x" * 300)), FIRST)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, (place, what) in enumerate(
        [
            ("gitops", "link"),
            (A, "link"),
            (A, "folder"),
            ("gitops/s", "file"),
            (A, "pipe"),
            (STAGING, "link"),
            (f"{STAGING}/lock", "link"),
        ]
    ):
        target = tmp_path / str(number)
        at = target / place
        at.parent.mkdir(parents=True)
        make = {
            "link": lambda at: at.symlink_to(elsewhere / "new"),
            "folder": Path.mkdir,
            "file": Path.touch,
            "pipe": os.mkfifo,
        }
        make[what](at)
        with pytest.raises(UsageError, match=f"a {what} "):
            tree(target).write(FIRST)
        assert list(elsewhere.iterdir()) == []


def test_in_the_folder_for_staging_only_what_is_ours_is_removed_and_no_link_is_followed(tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    (target / STAGING).mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "theirs").touch()
    (target / STAGING / "mine").touch()
    for name in ("new", "old"):
        (target / STAGING / name).symlink_to(elsewhere)
    tree(target).write(FIRST)
    assert [path.name for path in (target / STAGING).iterdir()] == ["mine"]
    assert [path.name for path in elsewhere.iterdir()] == ["theirs"]


@pytest.mark.parametrize(
    "record",
    ["{", "[]", "[" * 100_000, '{"schemaVersion": "modelberth.dev/rendered/v1", "files": []}',
     '{"schemaVersion": "modelberth.dev/rendered/v1", "files": {"../../etc/passwd": "x"}}',
     '{"schemaVersion": "modelberth.dev/rendered/v1", "files": {"gitops/s/\\ud800": "x"}}'],
    ids=["no-json", "a-list", "deep", "files-a-list", "outside", "no-name"],
)  # fmt: skip
def test_a_record_that_is_not_ours_is_refused(tmp_path, record: str):
    tree(tmp_path).write(FIRST)
    (tmp_path / "gitops/s" / RECORD).write_text(record)
    with pytest.raises(IntegrityError, match="record"):
        tree(tmp_path).write(SECOND)
    assert content(tmp_path) == texts(FIRST)


def test_a_record_of_a_later_version_is_named_as_one_whatever_it_holds(tmp_path):
    tree(tmp_path).write(FIRST)
    (tmp_path / "gitops/s" / RECORD).write_text('{"schemaVersion": "modelberth.dev/rendered/v9", "files": []}')
    with pytest.raises(IntegrityError) as caught:
        tree(tmp_path).write(SECOND)
    assert "modelberth.dev/rendered/v9" in caught.value.why


@pytest.mark.parametrize("path", [".git/HEAD", "berth.yaml", "gitops/other/base/a.yaml", f"gitops/s/{RECORD}"])
def test_a_record_cannot_name_files_that_are_not_of_the_stack(tmp_path, path: str):
    """It is a file like others in a repository: who writes it may not have anything removed."""
    tree(tmp_path).write(FIRST)
    theirs = tmp_path / path
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text("theirs\n")
    record = tmp_path / "gitops/s" / RECORD
    record.write_text(json.dumps({
        "schemaVersion": "modelberth.dev/rendered/v1", "files": {path: hashlib.sha256(b"theirs\n").hexdigest()},
    }))  # fmt: skip
    with pytest.raises(IntegrityError, match="record"):
        tree(tmp_path).write(FIRST, overwrite=True)
    assert theirs.exists()


def test_the_record_says_what_was_written(tmp_path):
    tree(tmp_path).write(SECOND)
    record = json.loads((tmp_path / "gitops/s" / RECORD).read_text())
    assert record["files"] == {each.path: each.digest for each in sorted(SECOND, key=lambda each: each.path)}
    assert set(record) == {"schemaVersion", "files"}


# --- ends at any moment --------------------------------------------------------------------------------------

VICTIM = textwrap.dedent("""
    import errno, os, signal, sys
    from pathlib import Path
    from modelberth.adapters.rendered_tree import RenderedTree, WantedFile
    from modelberth.cli.errors import guard
    target, at, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    wanted = [WantedFile(p, t.encode(), p.endswith(".sh")) for p, t in eval(sys.argv[4]).items()]
    seen = 0

    def strike(event, arguments):
        global seen
        if event not in {"os.rename", "os.link", "os.remove"} or str(target) not in str(arguments[0]):
            return
        seen += 1
        if seen - 1 == at:
            print("struck", flush=True)
        if seen - 1 == at and how in signal.Signals.__members__:
            os.kill(os.getpid(), signal.Signals[how])
        if seen - 1 == at and how == "hold":
            sys.stdin.read()
        if (seen - 1 == at and how == "fails once") or (seen - 1 >= at and how == "fails from then on"):
            raise OSError(errno.EIO, "the disk has failed")

    sys.addaudithook(strike)
    sys.exit(guard(lambda: RenderedTree(target, "s").write(wanted) and 0))
""")


def victim(target: Path, step: int, how: str, wanted: list[WantedFile]) -> list[str]:
    return [sys.executable, "-c", VICTIM, str(target), str(step), how, repr(texts(wanted))]


def struck_at(target: Path, step: int, how: str, wanted: list[WantedFile]) -> int | None:
    """Write in a process that is struck before its n-th change of names; its exit code, None if it was not struck."""
    done = subprocess.run(victim(target, step, how, wanted), capture_output=True, text=True, check=False)
    assert "bug" not in done.stderr
    return done.returncode if done.stdout else None


THIRD = files(a="three\n", b="three\n")


@pytest.mark.timeout(180)
def test_a_run_that_was_killed_is_completed_by_the_next(tmp_path):
    """At every change of a name; afterwards the same stack, or another one, is rendered without a complaint."""
    steps = 0
    for following in (SECOND, THIRD):
        step = 0
        while True:
            target = tmp_path / f"{following is SECOND}-{step}"
            tree(target).write(FIRST)
            if struck_at(target, step, "SIGKILL", SECOND) is None:
                break
            tree(target).write(following)
            assert content(target) == texts(following)
            assert not (target / STAGING).exists()
            step += 1
        steps += step
    assert steps >= 16


@pytest.mark.timeout(180)
@pytest.mark.parametrize("second", [1, 3, 6])
def test_two_runs_that_were_killed_are_completed_by_a_third(tmp_path, second: int):
    """Three contents are then about, and each file may have any of them."""
    for first in range(9):
        target = tmp_path / str(first)
        tree(target).write(FIRST)
        assert struck_at(target, first, "SIGKILL", SECOND) == -signal.SIGKILL
        assert struck_at(target, second, "SIGKILL", THIRD) == -signal.SIGKILL
        following = files(a="four\n", c="four\n")
        tree(target).write(following)
        assert content(target) == texts(following)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "fails once"])
def test_a_run_that_is_stopped_or_fails_leaves_the_tree_as_it_was(tmp_path, how: str):
    """At every change of a name, but for the last: when only the lock is left to go, all is done."""
    step, ends = 0, []
    while True:
        target = tmp_path / str(step)
        tree(target).write(FIRST)
        record = (target / "gitops/s" / RECORD).read_bytes()
        if (code := struck_at(target, step, how, SECOND)) is None:
            break
        ends.append(content(target) == texts(FIRST))
        assert content(target) == texts(FIRST if ends[-1] else SECOND)
        assert ((target / "gitops/s" / RECORD).read_bytes() == record) is ends[-1]
        assert (target / STAGING).exists() is not ends[-1]
        assert code == {"SIGINT": 130, "SIGTERM": 143}.get(how, 2 if ends[-1] else 0)
        assert tree(target).write(THIRD).edited == ()
        assert not (target / STAGING).exists()
        step += 1
    assert ends == [True] * (len(ends) - 1) + [False]
    assert len(ends) >= 8


@pytest.mark.timeout(180)
def test_what_cannot_be_put_back_is_no_edit_either(tmp_path):
    step = 0
    while True:
        target = tmp_path / str(step)
        tree(target).write(FIRST)
        if struck_at(target, step, "fails from then on", SECOND) is None:
            break
        tree(target).write(THIRD)
        assert content(target) == texts(THIRD)
        step += 1
    assert step >= 8


def test_of_two_runs_at_once_the_second_is_refused(tmp_path):
    tree(tmp_path).write(FIRST)
    with subprocess.Popen(
        victim(tmp_path, 3, "hold", SECOND), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "struck\n"
        with pytest.raises(Conflict, match="another run"):
            tree(tmp_path).write(THIRD)
        first.communicate()
    assert first.returncode == 0
    assert content(tmp_path) == texts(SECOND)


# --- who may what --------------------------------------------------------------------------------------------

UNPRIVILEGED = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
OTHER_USER = 65534


AS_OTHER_USER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from modelberth.adapters.rendered_tree import RenderedTree, WantedFile
    from modelberth.base.errors import BerthError
    wanted = [WantedFile(p, t.encode(), p.endswith(".sh")) for p, t in eval(sys.argv[1]).items()]
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    try:
        RenderedTree(Path(), "s").write(wanted)
        print("written")
    except BerthError as error:
        print(type(error).__name__, error.where)
""")


def as_other_user(target: Path, wanted: list[WantedFile]) -> str:
    """Write as somebody who is not root: `written`, or which error and where.

    The folders above the target are the tests' alone, so it is where the process starts.
    """
    command = [sys.executable, "-c", AS_OTHER_USER, repr(texts(wanted)), str(OTHER_USER)]
    return subprocess.run(command, cwd=target, capture_output=True, text=True, check=True).stdout.strip()


def given_away(target: Path) -> None:
    for path in (target, *target.rglob("*")):
        os.chown(path, OTHER_USER, OTHER_USER)


@UNPRIVILEGED
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_or_read_is_named_and_nothing_changes(tmp_path, mode: int):
    tree(tmp_path).write(FIRST)
    given_away(tmp_path)
    (tmp_path / B).parent.chmod(mode)
    before = content(tmp_path)
    assert as_other_user(tmp_path, SECOND) == f"AuthError {B}"
    assert content(tmp_path) == before


@UNPRIVILEGED
def test_files_of_another_user_are_replaced_where_the_folders_allow_it(tmp_path):
    """Linux gives such a file no second name (fs.protected_hardlinks), nor do some disks."""
    tree(tmp_path).write(FIRST)
    for path in (tmp_path, *(each for each in tmp_path.rglob("*") if each.is_dir())):
        os.chown(path, OTHER_USER, OTHER_USER)
    assert as_other_user(tmp_path, SECOND) == "written"
    assert content(tmp_path) == texts(SECOND)


# --- disks ---------------------------------------------------------------------------------------------------


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

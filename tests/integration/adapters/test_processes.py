"""Children under their keeper: what they say, how they end, and that nothing of them outlives anybody."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from queue import Queue

import pytest

from modelberth.adapters import processes
from modelberth.base.errors import PrerequisiteMissing

pytestmark = pytest.mark.integration

PATIENCE = 50
# Three generations: a child, a grandchild in a session of its own, and one whose parent has gone (double fork).
# Each says its process id once it is what it should be. STUBBORN: who ignores SIGTERM.
FAMILY = """
import os, signal, sys
stubborn = sys.argv[1]
def be(name):
    if name in stubborn.split(","):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, f"{name} {os.getpid()}\\n".encode())
    while True:
        signal.pause()
if os.fork() == 0:
    os.setsid()
    be("session")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        be("orphan")
    os._exit(0)
be("child")
"""
NAMES = {"child", "session", "orphan"}


@pytest.fixture
def start(tmp_path):
    """Start a Python child; returns it and the queue of its lines. It is stopped after the test."""
    started = []

    def run(code, *arguments, **options):
        lines = Queue()
        command = [sys.executable, "-S", "-c", code, *map(str, arguments)]
        child = processes.start(command, log=tmp_path / "child.log", on_line=lines.put, **options)
        started.append(child)
        return child, lines

    yield run
    for child in started:
        child.stop()


@pytest.fixture
def family(start):
    """Start three generations; returns the child and the process id of each."""

    def run(stubborn="", **options):
        child, lines = start(FAMILY, stubborn, **options)
        said = (lines.get(timeout=PATIENCE).split() for _ in NAMES)
        pids = {name: int(pid) for name, pid in said}
        assert pids.keys() == NAMES
        return child, pids

    return run


def drain(lines):
    """All lines of a child that was stopped, so that its output has been read to the end."""
    found = []
    while not lines.empty():
        found.append(lines.get())
    return found


@pytest.mark.parametrize("code", [0, 7, 127, 200, 255])
def test_the_exit_code_is_the_childs_own(start, code):
    child, _ = start(f"raise SystemExit({code})")
    assert child.wait(PATIENCE) == code
    assert child.poll() == code
    assert child.stop() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT])
def test_a_death_by_signal_is_negative(start, number):
    child, _ = start(f"import os; os.kill(os.getpid(), {int(number)})")
    assert child.wait(PATIENCE) == -number


def test_a_program_that_is_not_there(tmp_path):
    lines, scratch = [], tmp_path / "scratch"
    scratch.mkdir()
    child = processes.start(
        ["/nowhere/engine"], log=tmp_path / "child.log", on_line=lines.append, scratch=scratch, grace=0.1
    )
    assert child.wait(PATIENCE) == 127
    child.stop()
    assert lines == ["/nowhere/engine: No such file or directory"]
    assert not scratch.exists()


def test_output_arrives_line_by_line_and_as_it_is_in_the_log(start, tmp_path):
    content = b"first\n" + b"a" * 1_000_000 + b"\nprogress 1\rprogress 2\n\xff\xfe\n\nno newline at the end"
    (tmp_path / "content").write_bytes(content)
    child, lines = start("import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())", tmp_path / "content")
    assert child.wait(PATIENCE) == 0
    child.stop()
    first, long, *others = drain(lines)
    assert first == "first"
    assert long == "a" * processes.MAX_LINE
    assert others == ["progress 1", "progress 2", "\ufffd\ufffd", "", "no newline at the end"]
    assert (tmp_path / "child.log").read_bytes() == content


def test_both_streams_are_logged_and_a_second_run_is_appended(start, tmp_path):
    for text in ("one", "two"):
        child, lines = start(f"import sys; print('{text}', file=sys.stderr)")
        assert child.wait(PATIENCE) == 0
        child.stop()
        assert drain(lines) == [text]
    assert (tmp_path / "child.log").read_text() == "one\ntwo\n"


def test_the_environment_is_the_one_given(start, monkeypatch):
    monkeypatch.setenv("CANARY", "ours")
    child, lines = start("import json, os; print(json.dumps(dict(os.environ)))", environment={"BERTH_TEST": "given"})
    assert child.wait(PATIENCE) == 0
    child.stop()
    found = json.loads(lines.get(timeout=PATIENCE))
    found.pop("LC_CTYPE", None)  # Python adds it where no locale is set
    assert found == {"BERTH_TEST": "given"}


def test_without_one_it_is_ours(start, monkeypatch):
    monkeypatch.setenv("CANARY", "ours")
    child, lines = start("import os; print(os.environ['CANARY'])")
    assert child.wait(PATIENCE) == 0
    assert lines.get(timeout=PATIENCE) == "ours"


def test_the_child_has_no_input_and_a_session_of_its_own(start):
    child, lines = start("import os, sys; print(sys.stdin.read() == '', os.getsid(0))")
    assert child.wait(PATIENCE) == 0
    empty, session = lines.get(timeout=PATIENCE).split()
    assert empty == "True"
    assert int(session) not in {os.getsid(0), os.getpid()}


def test_a_full_disk_for_the_log_does_not_stop_the_child(small_disk, tmp_path):
    disk, lines = small_disk("64k"), []
    code = "for i in range(20000): print('line', i)"
    child = processes.start([sys.executable, "-c", code], log=disk / "child.log", on_line=lines.append)
    assert child.wait(PATIENCE) == 0
    child.stop()
    assert lines == [f"line {number}" for number in range(20000)]
    assert (disk / "child.log").stat().st_size <= 64 << 10


def test_stop_lets_a_child_clean_up(start):
    code = """
import signal, sys
def stop(*_):
    print("cleaned up", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    signal.pause()
"""
    child, lines = start(code, grace=PATIENCE)
    assert lines.get(timeout=PATIENCE) == "ready"
    assert child.poll() is None
    assert child.wait(0) is None
    assert child.stop() == 3
    assert drain(lines) == ["cleaned up"]
    assert child.stop() == 3  # a second time changes nothing


def test_stop_ends_the_whole_family(family, is_running):
    child, pids = family(grace=1.0)
    assert child.stop() == -signal.SIGTERM
    assert not [name for name, pid in pids.items() if is_running(pid)]


def test_stop_ends_those_who_ignore_the_request(family, is_running):
    child, pids = family("child,session,orphan", grace=0.1)
    assert child.stop() == -signal.SIGKILL
    assert not [name for name, pid in pids.items() if is_running(pid)]


def test_stop_ends_a_child_that_is_suspended(family, is_running):
    child, pids = family(grace=0.1)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    assert child.stop() in {-signal.SIGKILL, -signal.SIGTERM}  # the request may come before the suspension
    assert not [name for name, pid in pids.items() if is_running(pid)]


def test_the_end_of_a_child_is_the_end_of_what_it_started(family, is_running):
    child, pids = family()
    os.kill(pids["child"], signal.SIGKILL)
    assert child.wait(PATIENCE) == -signal.SIGKILL
    assert not [name for name, pid in pids.items() if is_running(pid)]


@pytest.mark.parametrize("end", ["by itself", "stopped"])
def test_the_scratch_folder_is_removed(start, tmp_path, end):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "socket").write_text("left behind")
    child, lines = start("print('ready', flush=True); input()", scratch=scratch, grace=1.0)
    if end == "by itself":
        assert child.wait(PATIENCE) == 1  # there is no input
    else:
        assert lines.get(timeout=PATIENCE) == "ready"
        child.stop()
    assert not scratch.exists()


PARENT = """
import os, pathlib, signal, sys
from modelberth.adapters import processes
family, stubborn, log, scratch = sys.argv[1:]
child = processes.start(
    [sys.executable, "-S", "-c", family, stubborn], log=pathlib.Path(log), scratch=pathlib.Path(scratch), grace=0.1,
    on_line=lambda line: print(line, flush=True),
)
print("keeper", child.pid, flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("stubborn", ["", "child,session,orphan"], ids=["obedient", "stubborn"])
def test_sigkill_of_the_parent_ends_everything(script, wait_gone, tmp_path, stubborn):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = script(PARENT, FAMILY, stubborn, tmp_path / "child.log", scratch)
    said = dict(parent.lines.next().split() for _ in range(4))
    assert said.keys() == NAMES | {"keeper"}
    parent.kill()
    wait_gone(map(int, said.values()))
    assert not scratch.exists()


def test_signals_for_our_process_group_do_not_reach_the_child(script, wait_gone, tmp_path):
    """Ctrl-C reaches us alone: we stop the children in order."""
    code = PARENT.replace("signal.pause()", "input(); print('alive', os.path.exists(f'/proc/{child.pid}'), flush=True)")
    code = "import os, signal; os.setpgid(0, 0); signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + code
    scratch = tmp_path / "scratch"
    parent = script(code, FAMILY, "", tmp_path / "child.log", scratch)
    said = dict(parent.lines.next().split() for _ in range(4))
    os.killpg(parent.pid, signal.SIGINT)
    parent.process.stdin.write("\n")
    parent.process.stdin.flush()
    assert parent.lines.next() == "alive True"
    assert all(Path(f"/proc/{pid}").exists() for pid in said.values())
    parent.kill()
    wait_gone(map(int, said.values()))


# --- short commands ----------------------------------------------------------------------------------------


def test_run_returns_code_and_output():
    lines = []
    code, output = processes.run(["sh", "-c", "echo out; echo err >&2; printf '\\377'; exit 3"], on_line=lines.append)
    assert (code, output) == (3, "out\nerr\n\ufffd")
    assert lines == ["out", "err", "\ufffd"]


def test_run_passes_the_environment(monkeypatch):
    monkeypatch.setenv("CANARY", "ours")
    assert processes.run(["/usr/bin/env"], environment={"GIVEN": "1"}) == (0, "GIVEN=1\n")


@pytest.mark.parametrize("kind", ["missing", "not executable", "a folder", "no program"])
def test_run_of_what_cannot_be_started(tmp_path, kind):
    path = tmp_path / "program"
    if kind == "a folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"\x7fnothing that runs")
        path.chmod(0o755 if kind == "no program" else 0o644)
    with pytest.raises(PrerequisiteMissing) as caught:
        processes.run([str(path)])
    assert str(path) in caught.value.what


def test_an_error_while_a_command_runs_ends_its_process_group(wait_gone):
    pids = []

    def fail(line):
        pids.append(int(line))
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.run(["sh", "-c", "sleep 1000 & echo $$; echo $!; wait"], on_line=fail)
    wait_gone(pids)

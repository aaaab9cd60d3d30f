"""`berth diagnose --log`: cause and fix from a log alone, its forms and exit codes, the fix written into a spec."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
BERTH = Path(sys.executable).with_name("berth")
LOG = """\
(APIServer pid=1) INFO 11-20 10:00:00 [api_server.py:1977] vLLM API server version 0.11.0
(EngineCore_DP0 pid=12) INFO 11-20 10:00:05 [core.py:77] Initializing a V1 LLM engine (v0.11.0) with config: model='m', \
max_seq_len=1024, tensor_parallel_size=1
(EngineCore_DP0 pid=12) INFO 11-20 10:00:30 [gpu_model_runner.py:2653] Model loading took 15.2683 GiB and 11.4 seconds
(EngineCore_DP0 pid=12) ERROR 11-20 10:00:41 [core.py:708] EngineCore failed to start.
(EngineCore_DP0 pid=12) ERROR 11-20 10:00:41 [core.py:708] Traceback (most recent call last):
(EngineCore_DP0 pid=12) ERROR 11-20 10:00:41 [core.py:708]   File "/usr/lib/vllm/v1/core/kv_cache_utils.py", line 690, in x
(EngineCore_DP0 pid=12) ERROR 11-20 10:00:41 [core.py:708]     raise ValueError(
(EngineCore_DP0 pid=12) ERROR 11-20 10:00:41 [core.py:708] ValueError: To serve at least one request with the models's \
max seq len (1024), (5.63 GiB KV cache is needed, which is larger than the available KV cache memory (4.96 GiB). Based \
on the available memory, the estimated maximum model length is 896. Try increasing `gpu_memory_utilization` or \
decreasing `max_model_len` when initializing the engine.
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/usr/lib/vllm/v1/engine/utils.py", line 729, in wait_for_engine_startup
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""  # noqa: E501
HEALTHY = ROOT / "tests" / "data" / "engine-logs" / "bf16-eager.log"
MEMORY = 300 * 2**20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "vllm.log"
    path.write_text(LOG)
    return path


def test_a_person_reads_cause_evidence_and_fix(berth, log):
    done = berth("diagnose", "--log", log)
    assert done.returncode == 23
    first = done.stdout.splitlines()[0]
    assert first.startswith("MB-KV-001  high  ")
    for text in ("1,024", "5.63 GiB", "4.96 GiB", "896", "line 8, EngineCore_DP0", "berth explain MB-KV-001"):
        assert text in done.stdout
    assert "maxModelLen: 896" in done.stdout


def test_a_program_reads_the_document(berth, log):
    found = json.loads(berth("diagnose", "--log", log, "-o", "json").stdout)
    assert found["schemaVersion"] == "modelberth.dev/findings/v1"
    assert (found["stage"], found["state"]) == ("kv-cache", "failed")
    first = found["findings"][0]
    assert (first["id"], first["severity"], first["confidence"]) == ("MB-KV-001", "high", "high")
    assert {1024, 5.63, 4.96, 896} <= set(first["numbers"].values())
    assert first["evidence"][0]["line"] == 8
    assert first["evidence"][0]["source"] == str(log)


def test_forms_for_hosts_and_pipes(berth, log):
    sarif = json.loads(berth("diagnose", "--log", log, "-o", "sarif").stdout)
    assert sarif["runs"][0]["results"][0]["ruleId"] == "MB-KV-001"
    suite = ElementTree.fromstring(berth("diagnose", "--log", log, "-o", "junit").stdout)
    assert suite.get("failures") == "1"
    assert berth("diagnose", "--log", log, "-o", "name").stdout == "MB-KV-001"
    assert "schemaVersion: modelberth.dev/findings/v1" in berth("diagnose", "--log", log, "-o", "yaml").stdout


def test_standard_input_gzip_and_several_logs(berth, log, tmp_path):
    done = subprocess.run([BERTH, "diagnose", "--log", "-"], input=LOG, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0][:9]) == (23, "MB-KV-001")
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(LOG.encode()) + gzip.compress(b"two members\n"))
    done = berth("diagnose", "--log", packed, "--log", log)
    assert done.returncode == 23
    assert f"{packed}:8" in done.stdout
    assert "said 2 times" in done.stdout or f"{log}:8" in done.stdout


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: data[:200] + b"\xff" * 40 + data[240:]])
def test_a_damaged_gzip_is_read_as_far_as_it_goes_and_said(berth, tmp_path, damage):
    packed = tmp_path / "log.gz"
    packed.write_bytes(damage(gzip.compress(LOG.encode() + os.urandom(5000))))
    done = berth("diagnose", "--log", packed)
    assert done.returncode in (0, 23)
    assert str(packed) in done.stderr


def test_a_healthy_log_raises_nothing(berth):
    done = berth("diagnose", "--log", HEALTHY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is wrong" in done.stdout
    assert json.loads(berth("diagnose", "--log", HEALTHY, "-o", "json").stdout)["findings"] == []


def test_what_nothing_knows(berth, tmp_path):
    path = tmp_path / "x.log"
    path.write_text("Traceback (most recent call last):\n  File 'x'\nFooError: it broke \x1b[2J\n")
    done = berth("diagnose", "--log", path)
    assert done.returncode == 0
    assert "FooError: it broke" in done.stdout
    assert "kubectl logs" in done.stdout


def test_the_fix_is_written_into_the_spec(berth, log, stack):
    spec = stack("int4", "bf16")
    before = spec.read_text()
    done = berth("diagnose", "--log", log, "--spec", spec, "--service", "harbor-int4", "--apply-fix")
    assert done.returncode == 23
    assert "models[0].variants[0].maxModelLen: 1024 -> 896" in done.stderr
    assert spec.read_text() == before.replace("maxModelLen: 1024", "maxModelLen: 896", 1)
    again = berth("diagnose", "--log", log, "--spec", spec, "--service", "harbor-int4", "--apply-fix")
    assert "in it already" in again.stderr


def test_with_a_model_it_says_what_would_fit(berth, log, weights):
    done = berth("diagnose", "--log", log, "--model", weights("bf16"), "--gpu", "L4", "-o", "json")
    first = json.loads(done.stdout)["findings"][0]
    assert "The plan for NVIDIA-L4" in first["fix"]
    assert first["numbers"]["plannedLargestContext"] >= 1024


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("x", "--log", "-"), "one of them"),
        (("--log", "nowhere.log"), "there is no such file"),
        (("--log", "/"), "this is a folder"),
        (("--log", "-", "--log", "-"), "only once"),
        (("--log", "-", "--apply-fix"), "--spec"),
        (("--log", "-", "--service", "x"), "--spec"),
    ],
)
def test_usage(berth, arguments, text):
    done = berth("diagnose", *arguments)
    assert done.returncode == 2
    assert text in done.stderr


def test_a_service_must_be_named_where_there_are_several(berth, log, stack):
    done = berth("diagnose", "--log", log, "--spec", stack("int4", "bf16"), "--apply-fix")
    assert done.returncode == 2
    assert "--service NAME" in done.stderr
    done = berth("diagnose", "--log", log, "--spec", stack("int4"), "--service", "harbor-int5")
    assert "did you mean 'harbor-int4'?" in done.stderr


def test_a_large_log_takes_little_memory(tmp_path):
    path = tmp_path / "large.log"
    with path.open("wb") as file:
        for _ in range(60):  # 120 MB of lines without a shape in common, then one of 20 MB
            file.write(os.urandom(1 << 20).hex().encode()[: 2 << 20].replace(b"7", b"\n"))
        file.write(b"\n" + b"y" * (20 << 20) + b"\n" + LOG.encode())
    code, peak, output = _limited(["diagnose", "--log", str(path), "-o", "name"])
    assert (code, output) == (23, "MB-KV-001\n")
    assert peak < MEMORY


def test_a_bomb_is_unpacked_piece_by_piece(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:  # in pieces: a child's peak begins with what its parent holds
        for _ in range(200):
            file.write(b"\x00" * (1 << 20))
        file.write(b"\n" + LOG.encode())
    code, peak, output = _limited(["diagnose", "--log", str(path), "-o", "name"])
    assert (code, output) == (23, "MB-KV-001\n")
    assert peak < MEMORY


def _limited(arguments: list[str]) -> tuple[int, int, str]:
    """Exit code, peak memory in bytes and output of a `berth`."""
    process = subprocess.Popen([BERTH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert isinstance(usage, resource.struct_rusage)
    return process.returncode, usage.ru_maxrss * 1024, output

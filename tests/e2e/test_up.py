"""The main job with real vLLM: two variants of one model shipped, fetched, served, verified and compared.

The tests of this module share a state folder and run in file order: the first run fills it, the later ones
find everything unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kube_server import KubeServer
from serving_scenes import NAMESPACE, Scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200), pytest.mark.usefixtures("nothing_left")]

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "examples" / "harbor" / "berth.yaml"
WEIGHTS = {"bf16": ROOT / "examples/harbor/weights/bf16", "w4a16": ROOT / "examples/harbor/weights/w4a16"}
NEW_IN_3 = "What is new in Red Hat OpenShift AI 3.0?"
SCHEDULING = "Explain Kubernetes GPU scheduling in 3 sentences."
KILLED, INTERRUPTED = -signal.SIGKILL, 128 + signal.SIGINT
NOT_READY = 6


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but the delivery's own manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".modelberth" not in path.parts)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def chat(url: str, model: str, prompt: str) -> str:
    """Ask an endpoint with nothing but the standard library, as any client would."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 96, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def test_the_main_job(berth, state):
    done = berth("up", "--once", "-o", "json", "--state", str(state), str(SPEC))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schemaVersion"] == "modelberth.dev/up/v1"
    services = {service["quantization"]: service for service in document["services"]}
    assert services.keys() == {"bf16", "w4a16"}
    assert services["bf16"]["storage"] == "s3://models/harbor/bf16/"
    assert services["w4a16"]["storage"].startswith("oci://")

    for precision, service in services.items():
        assert [check["passed"] for check in service["checks"]] == [True] * 5, service["checks"]
        assert service["bytes"] == sum(path.stat().st_size for path in WEIGHTS[precision].iterdir())
        stages = [stage["stage"] for stage in service["stages"]]
        assert stages[:5] == ["size", "ship", "fetch", "process", "engine"]
        assert stages[-2:] == ["verify", "ask"]
        assert {"weights", "kv-cache", "server"} <= set(stages)
        assert all(stage["seconds"] >= 0 for stage in service["stages"])
        assert service["timeToFirstTokenSeconds"] > 0
        assert service["tokensPerSecond"] > 0
        # The plan, made before anything started, is what the engine then reports.
        assert service["kvCache"]["plannedTokens"] == service["kvCache"]["reportedTokens"]

    # The same list as on the cluster, but for what this machine cannot honour, and that is said.
    assert "--dtype=bfloat16" in services["bf16"]["arguments"]
    assert "--tensor-parallel-size=1" in services["bf16"]["arguments"]
    assert any("tensor-parallel-size 4 becomes 1" in text for text in services["bf16"]["replaced"])

    answers = {
        precision: {answer["prompt"]: answer["text"] for answer in service["answers"]}
        for precision, service in services.items()
    }
    assert "llm-d" in answers["bf16"][NEW_IN_3]
    assert answers["bf16"][SCHEDULING].count(".") == 3
    alike = [answers["w4a16"][prompt] == text for prompt, text in answers["bf16"].items()]
    assert len(alike) == len(set(answers["bf16"])) == 24
    assert document["recovery"] == sum(alike) / len(alike)

    for precision, service in services.items():
        served = Path(next(a for a in service["arguments"] if a.startswith("--model=")).removeprefix("--model="))
        assert hashes(served) == hashes(WEIGHTS[precision])


def test_sigkill_while_loading_leaves_nothing(up, state, processes):
    run = up("--once", "--state", str(state), str(SPEC))
    run.wait_for("harbor-int4: engine: begins")
    below = processes.now()
    assert len(below) >= 5, below  # berth, two keepers, two engines with workers
    run.process.kill()
    assert run.process.wait() == KILLED
    processes.wait_until_gone(below)


def verify_on_a_cluster(berth, urls, folder):
    """The same engines as the pods of a cluster: real vLLM behind a port-forward."""
    with KubeServer() as server:
        for name, url in urls.items():
            scene = Scene(server, name)
            scene.ready()
            server.listen_in_pod(NAMESPACE, scene.pod, 8080, urlsplit(url).port)
        config = str(server.kubeconfig(folder))
        done = berth("verify", str(SPEC), "-n", NAMESPACE, "--kubeconfig", config, "--requests", "4", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)["services"]
    assert [each["model"] for each in reports] == list(urls)
    assert all(each["passed"] for each in reports)


def test_a_second_run_moves_nothing_and_serves_until_ctrl_c(berth, up, state, processes, tmp_path):
    run = up("--state", str(state), str(SPEC))
    run.wait_for("serving; Ctrl-C stops everything")
    for stage in ("ship", "fetch"):
        lines = [line for line in run.talk if f": {stage}: took" in line]
        assert len(lines) == 2
        assert all(line.endswith("unchanged") for line in lines), lines
    endpoints = list(run.endpoints())
    for name, url, model in endpoints:
        assert name == model
        assert chat(url.removesuffix("/v1"), model, SCHEDULING).startswith("A device plugin")
        # Real vLLM says its limit, refuses more with 400, and answers many at once.
        verified = json.loads(berth("verify", url, "--requests", "4", "-o", "json").stdout)
        assert verified["passed"], verified["checks"]
        checks = {each["name"]: each["detail"] for each in verified["checks"]}
        assert checks["more than the context holds"].startswith("status 400")
        assert checks["4 at once"].startswith("all answered")
    verify_on_a_cluster(berth, {name: url for name, url, _ in endpoints}, tmp_path)
    below = processes.now()
    os.kill(run.process.pid, signal.SIGINT)
    code, _ = run.end()
    assert code == INTERRUPTED
    assert run.talk[-1] == "stopped by SIGINT"
    processes.wait_until_gone(below)


def test_an_engine_killed_while_loading_is_told(up, state, processes):
    run = up("--once", "--state", str(state), str(SPEC))
    run.wait_for("harbor-bf16: engine: begins")
    os.kill(processes.engine("harbor-bf16"), signal.SIGKILL)
    code, output = run.end()
    assert (code, output) == (NOT_READY, "")
    error = "\n".join(run.talk[-6:])
    assert "the engine of harbor-bf16 ended in stage engine: killed by SIGKILL" in error
    assert "harbor-bf16.log" in error


def test_a_flag_that_the_engine_does_not_know_is_told(berth, state, tmp_path):
    text = SPEC.read_text().replace("./weights", str(ROOT / "examples/harbor/weights"))
    spec = tmp_path / "berth.yaml"
    spec.write_text(text.replace("tensorParallelSize: 4", "engineArgs: {no-such-flag: 3}"))
    done = berth("up", "--once", "--state", str(state), str(spec))
    assert done.returncode == NOT_READY
    assert done.stdout == ""
    assert "--no-such-flag=3" in done.stderr
    assert "MB-ARG-001" in done.stderr

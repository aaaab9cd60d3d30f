"""`berth register`: each service once in the registry, whoever calls it how often; and what is no registry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_proxy import Answer, Fault, FaultProxy, LoseAnswer
from model_registry_server import BASES, ModelRegistryServer

pytestmark = pytest.mark.integration
EXAMPLE = Path(__file__).parents[3] / "examples" / "step-05-llm-on-vllm" / "berth.yaml"
PEERS = Path(__file__).parents[3] / ".venv-peers" / "bin" / "python"
TOKEN = "canary-token-5b1d"


@pytest.fixture
def registry() -> Iterator[ModelRegistryServer]:
    server = ModelRegistryServer()
    yield server
    server.close()


def register(berth, url: str, *more, spec: Path = EXAMPLE, **environment):
    return berth("register", spec, "--url", url, "-o", "json", *more, **environment)


def results(done) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return {each["service"]: each["result"] for each in json.loads(done.stdout)["services"]}


def test_every_service_is_recorded_with_its_true_address(berth, registry):
    assert set(results(register(berth, registry.url)).values()) == {"created"}
    assert set(registry.named("registered_models")) == {"mistral-small-24b"}
    assert set(registry.named("model_versions")) == {"int4", "bf16"}
    image, s3 = registry.store.objects["model_artifacts"].values()
    assert image["uri"] == (
        "oci://registry.redhat.io/rhelai1/modelcar-mistral-small-24b-instruct-2501-quantized-w4a16:1.5"
    )
    assert (s3["uri"], s3["storageKey"], s3["storagePath"]) == (
        "s3://models/mistral-small-24b/", "minio-connection", "mistral-small-24b/",
    )  # fmt: skip
    assert (s3["modelFormatName"], s3["modelSourceGroup"]) == ("vLLM", "mistralai")
    version = registry.named("model_versions")["bf16"]["customProperties"]
    assert version["maxModelLen"] == {"metadataType": "MetadataIntValue", "int_value": "32768"}


def test_again_changes_nothing(berth, registry):
    register(berth, registry.url)
    registry.store.calls.clear()
    assert set(results(register(berth, registry.url)).values()) == {"unchanged"}
    assert all(call.startswith("GET") for call in registry.store.calls)


def test_what_differs_is_changed_and_both_values_are_said(berth, registry):
    register(berth, registry.url)
    artifact = list(registry.store.objects["model_artifacts"].values())[-1]
    artifact["uri"] = "s3://models/oci://registry.redhat.io/x"
    registry.named("model_versions")["int4"]["customProperties"]["team"] = {
        "metadataType": "MetadataStringValue", "string_value": "a",
    }  # fmt: skip
    registry.named("registered_models")["mistral-small-24b"]["state"] = "ARCHIVED"
    done = register(berth, registry.url)
    assert results(done)["mistral-small-24b-tp4"] == "updated"
    changes = [change for each in json.loads(done.stdout)["services"] for change in each["changes"]]
    assert "registered model mistral-small-24b: state was ARCHIVED, is LIVE" in changes
    assert any("uri was s3://models/oci://registry.redhat.io/x, is s3://models/mistral-small-24b/" in each
               for each in changes)  # fmt: skip
    assert artifact["uri"] == "s3://models/mistral-small-24b/"
    assert "team" in registry.named("model_versions")["int4"]["customProperties"]


def test_the_newer_version_of_the_interface_does_as_well(berth, registry):
    registry.store.bases = BASES[1:]
    assert set(results(register(berth, registry.url)).values()) == {"created"}
    assert set(results(register(berth, registry.url)).values()) == {"unchanged"}


def test_dry_run_changes_nothing(berth, registry):
    assert set(results(register(berth, registry.url, "--dry-run")).values()) == {"would be created"}
    assert registry.named("registered_models") == {}


def test_an_answer_that_gets_lost_makes_no_second_object(berth, registry):
    with FaultProxy(registry.url) as proxy:
        for path in ("registered_models", "model_versions$", "artifacts"):
            proxy.add(Fault(LoseAnswer(), method="POST", path=path, times=1))
        results(register(berth, proxy.url))
    assert len(registry.named("registered_models")) == 1
    assert len(registry.store.objects["model_versions"]) == len(registry.store.objects["model_artifacts"]) == 2


def test_a_registry_that_is_busy_is_asked_again(berth, registry):
    with FaultProxy(registry.url) as proxy:
        proxy.add(Fault(Answer(503, {}, b"busy"), method="GET", times=2))
        assert set(results(register(berth, proxy.url)).values()) == {"created"}


def test_a_token_comes_from_a_file_and_shows_nowhere(berth, registry, tmp_path):
    registry.store.token = TOKEN
    refused = register(berth, registry.url)
    assert refused.returncode == 4
    assert "--token-file" in refused.stderr
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    done = register(berth, registry.url, BERTH_REGISTER_TOKEN_FILE=path)
    assert set(results(done).values()) == {"created"}
    assert TOKEN not in done.stdout + done.stderr + refused.stderr
    path.write_text("two\nlines\n")
    assert register(berth, registry.url, "--token-file", path).returncode == 2


def test_names_of_any_kind_are_one_object_each(berth, registry, tmp_path):
    spec = tmp_path / "berth.yaml"
    spec.write_text(EXAMPLE.read_text().replace("Mistral Small 24B Instruct (2501)", "A & B = 100% #1"))
    register(berth, registry.url, spec=spec)
    assert results(register(berth, registry.url, spec=spec)) == dict.fromkeys(
        ("mistral-small-24b", "mistral-small-24b-tp4"), "unchanged"
    )


def test_what_is_no_registry_is_said(berth, registry, tmp_path):
    with FaultProxy(registry.url) as proxy:
        proxy.add(Fault(Answer(200, {"Content-Type": "text/html"}, b"<html>"), method="GET"))
        page = register(berth, proxy.url)
    assert (page.returncode, "no model registry answers there" in page.stderr) == (2, True)
    gone = register(berth, "http://127.0.0.1:9")
    assert (gone.returncode, "the model registry does not answer" in gone.stderr) == (9, True)
    spec = tmp_path / "berth.yaml"
    spec.write_text(EXAMPLE.read_text().replace("modelRegistry:\n  url: http", "# \n#  url: http"))
    none = berth("register", spec)
    assert (none.returncode, "names no model registry" in none.stderr) == (2, True)


PEER = """
import sys
from model_registry import ModelRegistry
registry = ModelRegistry(server_address=sys.argv[1], port=int(sys.argv[2]), author="t", is_secure=False, user_token="x")
model = registry.get_registered_model("mistral-small-24b")
version = registry.get_model_version("mistral-small-24b", "bf16")
artifact = registry.get_model_artifact("mistral-small-24b", "bf16")
print(model.description, version.custom_properties["maxModelLen"], artifact.uri, artifact.storage_key, sep="|")
"""


def test_the_registrys_own_client_reads_it(berth, registry):
    has = subprocess.run([PEERS, "-c", "import model_registry"], capture_output=True, check=False).returncode == 0
    if not has:
        pytest.skip("the registry's Python client is not here: make peers")
    register(berth, registry.url)
    host, _, port = registry.url.rpartition(":")
    done = subprocess.run([PEERS, "-W", "ignore", "-c", PEER, host, port], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].split("|")[1:] == [
        "32768", "s3://models/mistral-small-24b/", "minio-connection",
    ]  # fmt: skip

"""`berth register`: each service once in the registry, whoever calls it how often; and what is no registry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_proxy import Answer, Callback, Fault, FaultProxy, LoseAnswer
from model_registry_server import BASES, ModelRegistryServer
from servers import ProgramMissing, make_certificates

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
    assert version["platform"]["string_value"] == "rhoai 3.0"
    assert not {"storageKey", "storagePath"} & set(image)


def test_people_see_a_table_and_both_values(berth, registry):
    first = berth("register", EXAMPLE, "--url", registry.url, "-o", "wide").stdout.splitlines()
    assert first[0].split() == ["SERVICE", "MODEL", "VERSION", "ARTIFACT", "RESULT", "IDS"]
    assert first[2].split() == [
        "mistral-small-24b-tp4", "mistral-small-24b", "bf16", "s3://models/mistral-small-24b/", "created", "1/4/5",
    ]  # fmt: skip
    registry.named("model_versions")["int4"]["state"] = "ARCHIVED"
    again = berth("register", EXAMPLE, "--url", registry.url, "--dry-run").stdout.splitlines()
    assert [line.split()[4:] for line in again[1:3]] == [["would", "be", "updated"], ["unchanged"]]
    assert again[3] == "mistral-small-24b: model version int4: state was ARCHIVED, is LIVE"
    assert registry.named("model_versions")["int4"]["state"] == "ARCHIVED"
    names = berth("register", EXAMPLE, "--url", registry.url, "-o", "name").stdout.split()
    assert names == ["mistral-small-24b", "mistral-small-24b-tp4"]


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


def test_what_the_stack_no_longer_says_goes(berth, registry, tmp_path):
    register(berth, registry.url)
    spec = tmp_path / "berth.yaml"
    text = EXAMPLE.read_text().replace("        quantization: w4a16\n", "")
    text = text.replace("weights: s3://models/mistral-small-24b/", "weights: oci://r.example/mistral:1")
    spec.write_text(text.replace("source: hf://mistralai/Mistral-Small-24B-Instruct-2501", "source: ./weights"))
    done = register(berth, registry.url, spec=spec)
    assert set(results(done).values()) == {"updated"}
    moved = list(registry.store.objects["model_artifacts"].values())[-1]
    assert moved["uri"] == "oci://r.example/mistral:1"
    assert not any(moved[key] for key in ("storageKey", "storagePath", "modelSourceKind", "modelSourceName"))
    assert "quantization" not in registry.named("model_versions")["int4"]["customProperties"]
    changes = [change for each in json.loads(done.stdout)["services"] for change in each["changes"]]
    assert "model version int4: quantization was w4a16, is not set" in changes
    assert "model artifact mistral-small-24b: storageKey was minio-connection, is not set" in changes
    assert set(results(register(berth, registry.url, spec=spec)).values()) == {"unchanged"}


def test_the_one_artifact_of_a_version_is_taken_whatever_its_name(berth, registry):
    # As the dashboard leaves them: named after the version, with a link back to its catalog.
    model = registry.store.create("registered_models", {"name": "mistral-small-24b"})
    version = registry.store.create(
        "model_versions", {"name": "bf16", "registeredModelId": model["id"]}, model["id"]
    )  # fmt: skip
    there = {"name": "bf16", "artifactType": "model-artifact", "uri": "https://u:p@hub.example/m?sig=hidden"}
    catalog = {"modelSourceKind": "catalog", "modelSourceClass": "redhat", "modelSourceName": "mistral"}
    artifact = registry.store.create("model_artifacts", {**there, **catalog}, version["id"])
    done = register(berth, registry.url)
    found = json.loads(done.stdout)["services"][1]
    assert (found["result"], found["artifact"]["name"], found["artifact"]["id"]) == ("updated", "bf16", artifact["id"])
    assert "model artifact bf16: uri was https://hub.example/m, is s3://models/mistral-small-24b/" in found["changes"]
    assert catalog.items() <= artifact.items()
    assert len(registry.store.objects["model_artifacts"]) == 2
    assert set(results(register(berth, registry.url)).values()) == {"unchanged"}


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


def test_two_at_once_make_no_second_object(berth, registry):
    done = []
    with FaultProxy(registry.url) as proxy:
        # The other one runs from start to end between our look and our first write.
        first = Callback(lambda _request: done.append(register(berth, registry.url)))
        proxy.add(Fault(first, method="POST", path="registered_models", times=1))
        assert set(results(register(berth, proxy.url)).values()) == {"unchanged"}
    assert set(results(done[0]).values()) == {"created"}
    assert [len(each) for each in registry.store.objects.values()] == [1, 2, 2]


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
    path.write_text("another\n")
    other = register(berth, registry.url, "--token-file", path)
    assert (other.returncode, "has not expired" in other.stderr) == (4, True)
    with FaultProxy(registry.url) as proxy:
        proxy.add(Fault(Answer(403, {"Content-Type": "text/plain"}, b"Forbidden")))
        forbidden = register(berth, proxy.url, "--token-file", path)
    assert (forbidden.returncode, "Role" in forbidden.stderr) == (4, True)
    path.write_text("two\nlines\n")
    assert register(berth, registry.url, "--token-file", path).returncode == 2


@pytest.mark.parametrize("status", [302, 307])
def test_a_token_follows_no_redirect(berth, registry, tmp_path, status):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    other = ModelRegistryServer()
    try:
        with FaultProxy(registry.url) as proxy:
            location = f"{other.url}/api/model_registry/v1alpha3/registered_models?state=hidden"
            proxy.add(Fault(Answer(status, {"Location": location}, b"")))
            done = register(berth, proxy.url, "--token-file", path)
    finally:
        other.close()
    assert (done.returncode, f"it sends to {other.url}," in done.stderr) == (2, True)
    assert "hidden" not in done.stderr
    assert other.store.calls == []


def test_a_private_authority_is_trusted_where_it_is_given(berth, tmp_path):
    try:
        ca, certificate, key = make_certificates(tmp_path / "tls")
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    server = ModelRegistryServer(certificate, key)
    try:
        unknown = register(berth, server.url)
        assert (unknown.returncode, "--ca FILE" in unknown.stderr) == (9, True)
        assert set(results(register(berth, server.url, BERTH_REGISTER_CA=ca)).values()) == {"created"}
        wrong = register(berth, server.url, "--ca", key)
        assert (wrong.returncode, "correct --ca" in wrong.stderr) == (2, True)
    finally:
        server.close()


def test_the_path_of_the_interface_may_stand_in_the_url(berth, registry):
    assert set(results(register(berth, f"{registry.url}{BASES[0]}/")).values()) == {"created"}
    assert all(call.split()[1].count("/api/") == 1 for call in registry.store.calls)


@pytest.mark.parametrize(
    "url",
    ["registry", "ftp://registry.example", "http://u:hidden@127.0.0.1:9", "http://[::1", "http://127.0.0.1:99999",
     "http://127.0.0.1:9/?token=hidden", "http://a b", "http://"],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_and_not_repeated(berth, url):
    done = register(berth, url)
    assert (done.returncode, "this is not the URL of a model registry" in done.stderr) == (2, True)
    assert "hidden" not in done.stderr


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
    with FaultProxy(registry.url) as proxy:
        proxy.add(Fault(Answer(404, {"Content-Type": "application/json"}, b'{"detail": "Not Found"}')))
        nothing = register(berth, proxy.url)
    assert (nothing.returncode, "it does not list registered models" in nothing.stderr) == (2, True)
    for answer in (b'{"status": "ok"}', b"[]", b"{"):
        with FaultProxy(registry.url) as proxy:
            proxy.add(Fault(Answer(200, {"Content-Type": "application/json"}, answer)))
            other = register(berth, proxy.url)
        assert (other.returncode, "no model registry answers there" in other.stderr) == (2, True)
    gone = register(berth, "http://127.0.0.1:9")
    assert (gone.returncode, "the model registry does not answer" in gone.stderr) == (9, True)
    spec = tmp_path / "berth.yaml"
    spec.write_text(EXAMPLE.read_text().replace("modelRegistry:\n  url: http", "# \n#  url: http"))
    none = berth("register", spec)
    assert (none.returncode, "names no model registry" in none.stderr) == (2, True)


def test_what_the_registry_does_not_take_is_said(berth, registry):
    with FaultProxy(registry.url) as proxy:
        said = b'{"code": "", "message": "required field \'name\' is zero value."}'
        proxy.add(Fault(Answer(422, {"Content-Type": "application/json"}, said), method="POST"))
        done = register(berth, proxy.url)
    assert (done.returncode, "required field 'name' is zero value." in done.stderr) == (7, True)
    with FaultProxy(registry.url) as proxy:
        proxy.add(Fault(Answer(200, {"Content-Type": "application/json"}, b"{}"), path="registered_model[?]"))
        odd = register(berth, proxy.url)
    assert (odd.returncode, "without an id" in odd.stderr) == (2, True)


PEER = """
import sys
from model_registry import ModelRegistry
registry = ModelRegistry(server_address=sys.argv[1], port=int(sys.argv[2]), author="t", is_secure=False, user_token="x")
"""
READS = """
model = registry.get_registered_model("mistral-small-24b")
version = registry.get_model_version("mistral-small-24b", "bf16")
artifact = registry.get_model_artifact("mistral-small-24b", "bf16")
print(model.description, version.custom_properties["maxModelLen"], artifact.uri, artifact.storage_key, sep="|")
"""


WRITES = """
registry.register_model("mistral-small-24b", "s3://models/oci://wrong", version="bf16", model_format_name="vLLM",
                        model_format_version="1", storage_key="minio-connection", metadata={"team": "a", "tries": 3})
version = registry.get_model_version("mistral-small-24b", "bf16")
version.description = "by the client"
registry.update(version)
"""


def peer(registry: ModelRegistryServer, script: str) -> str:
    """What the registry's own client prints."""
    if subprocess.run([PEERS, "-c", "import model_registry"], capture_output=True, check=False).returncode:
        pytest.skip("the registry's Python client is not here: make peers")
    host, _, port = registry.url.rpartition(":")
    command = [PEERS, "-W", "ignore", "-c", PEER + script, host, port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_registrys_own_client_reads_it(berth, registry):
    register(berth, registry.url)
    assert peer(registry, READS).splitlines()[-1].split("|")[1:] == [
        "32768", "s3://models/mistral-small-24b/", "minio-connection",
    ]  # fmt: skip


def test_what_the_registrys_own_client_wrote_is_taken_up(berth, registry):
    peer(registry, WRITES)
    assert results(register(berth, registry.url)) == {
        "mistral-small-24b": "created",
        "mistral-small-24b-tp4": "updated",
    }
    assert [len(each) for each in registry.store.objects.values()] == [1, 2, 2]
    version = registry.named("model_versions")["bf16"]
    assert (version["description"], version["author"]) == ("by the client", "t")
    assert version["customProperties"]["tries"]["int_value"] == "3"
    assert "s3://models/mistral-small-24b/" in peer(registry, READS)
    assert set(results(register(berth, registry.url)).values()) == {"unchanged"}

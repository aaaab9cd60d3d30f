"""KServe's storage container: what KServe's own schema takes, restricted, pinned, and fit to be merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from modelberth.base.errors import UsageError
from modelberth.base.yamlio import read_document, write_documents
from modelberth.manifests.storage_container import StorageContainer, storage_container

IMAGE = "registry.example/serving/modelberth:0.1.0"
DIGEST = "sha256:" + "a" * 64
CRD = json.loads((Path(__file__).parents[2] / "data/kserve/cluster-storage-container-0.20.json").read_text())


def closed(schema: Any) -> Any:
    """A schema that takes no field it does not name, as an API server does that refuses unknown fields."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    # `metadata` has no properties here: the API server knows them itself.
    return {**inner, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else inner


@pytest.fixture(scope="module")
def kserve() -> Draft202012Validator:
    """KServe's schema."""
    return Draft202012Validator(closed(CRD["openAPIV3Schema"]))


@pytest.fixture
def container() -> dict[str, Any]:
    """The container of the object."""
    return storage_container(StorageContainer(IMAGE))["spec"]["container"]


@pytest.mark.parametrize("several", [False, True])
def test_kserve_takes_it(kserve, several):
    made = storage_container(StorageContainer(IMAGE, several=several))
    assert list(kserve.iter_errors(made)) == []
    assert (made["apiVersion"], made["kind"]) == (f"{CRD['group']}/{CRD['version']}", CRD["kind"])


def test_the_schema_refuses_a_field_that_kserve_does_not_know(kserve):
    made = storage_container(StorageContainer(IMAGE))
    made["spec"]["container"]["securityContext"]["readOnlyRoot"] = True
    assert list(kserve.iter_errors(made))


def test_it_is_cluster_scoped():
    made = storage_container(StorageContainer(IMAGE, name="fetch"))
    assert CRD["scope"] == "Cluster"
    assert made["metadata"] == {"name": "fetch"}


def test_it_serves_s3_as_an_init_container():
    spec = storage_container(StorageContainer(IMAGE))["spec"]
    assert spec["supportedUriFormats"] == [{"prefix": "s3://"}]
    assert spec["workloadType"] == "initContainer"


def test_a_field_that_older_kserve_does_not_know_is_written_only_where_it_is_wanted():
    assert "supportsMultiModelDownload" not in storage_container(StorageContainer(IMAGE))["spec"]
    assert storage_container(StorageContainer(IMAGE, several=True))["spec"]["supportsMultiModelDownload"] is True


def test_what_kserve_brings_is_left_to_it(container):
    # Its arguments, volumes and credentials would be lost where the patch had its own.
    assert container["name"] == "storage-initializer"
    assert not {"args", "command", "volumeMounts", "envFrom", "workingDir"} & container.keys()
    assert [each["name"] for each in container["env"]] == ["HOME"]


def test_the_pod_shows_the_text_of_an_error(container):
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_it_meets_the_restricted_pod_security_standard(container):
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True
    assert "runAsUser" not in security  # OpenShift's restricted-v2 refuses one outside the namespace's range


def test_it_asks_for_little_and_never_for_disk(container):
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "256Mi"},
        "limits": {"cpu": "2", "memory": "512Mi"},
    }


def test_two_objects_share_nothing():
    first = storage_container(StorageContainer(IMAGE))
    first["spec"]["container"]["resources"]["limits"]["cpu"] = "64"
    assert storage_container(StorageContainer(IMAGE))["spec"]["container"]["resources"]["limits"]["cpu"] == "2"


def test_it_reads_back_from_yaml_as_it_is():
    made = storage_container(StorageContainer(IMAGE))
    assert read_document(write_documents([made]).encode(), "made").data == made


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [IMAGE, f"registry.example/modelberth@{DIGEST}", f"{IMAGE}@{DIGEST}", "r:5000/m:1"])
def test_a_tag_or_a_digest_pins_the_image(image):
    assert storage_container(StorageContainer(image))["spec"]["container"]["image"] == image


@pytest.mark.parametrize("image", ["registry.example/modelberth", "registry.example/modelberth:latest"])
def test_an_image_that_is_not_pinned_is_refused(image):
    with pytest.raises(UsageError, match="not pinned"):
        storage_container(StorageContainer(image))


@pytest.mark.parametrize(
    "image",
    ["", "modelberth:0.1.0", "registry.example/Model:1", "registry.example/m:1 ", "oci://registry.example/m:1",
     "user:canary@registry.example/m:1", f"registry.example/m@{DIGEST[:-1]}"],
)  # fmt: skip
def test_what_is_no_image_is_refused_and_not_quoted(image):
    with pytest.raises(UsageError, match="is not one") as caught:
        storage_container(StorageContainer(image))
    assert "canary" not in f"{caught.value.what} {caught.value.why} {caught.value.next_step}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a..b", ".a", "a/b", "a\n", "a" * 254])
def test_a_name_that_kubernetes_does_not_take_is_refused(name):
    with pytest.raises(UsageError, match="name of the storage container"):
        storage_container(StorageContainer(IMAGE, name))


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True))
def test_a_name_that_kubernetes_takes_is_taken(name):
    assert storage_container(StorageContainer(IMAGE, name))["metadata"]["name"] == name


# --- the image ---------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """The instructions of the Containerfile, one a line, without comments."""
    lines = [line for line in (ROOT / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    return [" ".join(step.split()) for step in "\n".join(lines).replace("\\\n", " ").splitlines() if step.strip()]


def test_podman_and_docker_leave_out_the_same_files():
    assert (ROOT / ".containerignore").read_bytes() == (ROOT / ".dockerignore").read_bytes()


def test_what_the_image_copies_is_there_and_enters_the_build(steps):
    allowed = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for step in steps
        if step.startswith("COPY ") and "--from" not in step
        for source in step.removeprefix("COPY ").split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_what_kserve_passes_goes_to_fetch_without_a_shell_between(steps):
    assert steps[-1] == 'ENTRYPOINT ["berth", "fetch"]'


def test_the_image_runs_as_a_number_that_is_not_root(steps):
    users = [step for step in steps if step.startswith("USER ")]
    assert users == ["USER 1001:0"]


def test_no_base_of_the_image_is_left_to_chance(steps):
    assert [step for step in steps if step.startswith("FROM ")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    (base,) = [step.partition("=")[2] for step in steps if step.startswith("ARG BASE=")]
    assert ":" in base
    assert not base.endswith(":latest")

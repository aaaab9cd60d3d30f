"""The registration Job: it reads what the stack says, and runs again when that changes."""

from __future__ import annotations

import pytest

from cluster_schemas import SHARED_CRDS, WHY_SKIPPED, crds_for, problems
from modelberth.manifests.registration_job import registration
from modelberth.spec.reading import read_stack
from stacks import EVERYTHING, PLATFORMS, everything, stack_data, stack_of

PARTS = {key: EVERYTHING[key] for key in ("delivery", "modelRegistry")}


def built(**changes) -> tuple[dict, dict]:
    config, job = registration(stack_of(stack_data(**(PARTS | changes))))
    return config, job


@pytest.mark.parametrize("part", ["delivery", "modelRegistry"])
def test_without_registry_or_image_there_is_none(part: str):
    assert registration(stack_of(stack_data(**(PARTS | {part: None})))) == []


@pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_an_api_server_takes_it(platform: tuple[str, str]):
    assert problems(registration(stack_of(everything(*platform))), crds_for(*platform)) == []


@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_the_job_reads_the_same_stack(platform: tuple[str, str]):
    found = stack_of(everything(*platform))
    config, job = registration(found)
    assert read_stack(config["data"]["berth.yaml"].encode(), "berth.yaml") == found
    pod = job["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if each.get("configMap") == {"name": config["metadata"]["name"]}]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert pod["containers"][0]["args"] == ["register", f"{mount['mountPath']}/berth.yaml"]


def test_a_stack_that_changes_is_registered_again():
    first, again, changed = built(), built(), built(platform={"kind": "rhoai", "version": "3.5"})
    assert first == again
    assert all(old["metadata"]["name"] != new["metadata"]["name"] for old, new in zip(first, changed, strict=True))


def test_the_token_is_a_file_and_never_in_the_stack():
    pod = built()[1]["spec"]["template"]["spec"]
    (variable,) = [each for each in pod["containers"][0]["env"] if each["name"] == "BERTH_REGISTER_TOKEN_FILE"]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "token"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "token"]
    assert variable["value"] == f"{mount['mountPath']}/token"
    assert volume["secret"] == {"secretName": "registry-token"}
    without = built(modelRegistry={"url": "http://registry.example.com:8080"})[1]
    assert "TOKEN" not in str(without)


SERVICE = "https://registry.rhoai-model-registries.svc:8443"


@pytest.mark.parametrize(
    ("kind", "version", "url", "mounted"),
    [
        ("rhoai", "3.3", SERVICE, True),
        ("rhoai", "3.3", SERVICE.replace(".svc", ".svc.cluster.local"), True),
        ("rhoai", "3.3", "https://registry.apps.example.com", False),
        ("rhoai", "3.3", SERVICE.replace("https", "http"), False),
        ("kserve", "0.17", SERVICE, False),
    ],
)
def test_openshifts_own_authority_is_trusted_for_a_service(kind: str, version: str, url: str, mounted: bool):
    pod = built(platform={"kind": kind, "version": version}, modelRegistry={"url": url})[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    sources = [each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each]
    assert ("openshift-service-ca.crt" in sources) is mounted
    assert variables.get("BERTH_REGISTER_CA") == (f"{places['service-ca']}/service-ca.crt" if mounted else None)


def test_argo_cd_runs_it_after_a_sync_and_clears_the_last_one_away():
    hook = built(argoCd=EVERYTHING["argoCd"])[1]["metadata"]["annotations"]
    assert hook["argocd.argoproj.io/hook"] == "PostSync"
    assert hook["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    config, job = built()
    assert "annotations" not in config["metadata"]
    assert "annotations" not in job["metadata"]

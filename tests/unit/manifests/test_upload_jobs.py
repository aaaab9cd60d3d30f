"""Upload Jobs: what they run, what they may and what they ask for, and what they leave to the user."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_schemas import SHARED_CRDS, WHY_SKIPPED, crds_for, problems
from modelberth.manifests import storage, upload_jobs
from modelberth.manifests.jobs import hashed_name
from modelberth.manifests.registration_job import registration
from modelberth.spec.stack import Stack
from stacks import EVERYTHING, PLATFORMS, everything, stack_data, stack_of

IMAGE = {"image": "quay.io/acme/berth:1"}
HUB = "hf://mistralai/Mistral-Small-24B-Instruct-2501"


def stack(source: str | None = HUB, *, kind: str = "rhoai", version: str = "3.4", s3: dict | None = None, **changes):
    """A stack with one service from S3."""
    data = stack_data(platform={"kind": kind, "version": version}, **({"delivery": IMAGE} | changes))
    data["storage"]["s3"] |= s3 or {}
    variant = data["models"][0]["variants"][1]
    variant["source"] = source
    data["models"][0]["variants"][1] = {key: value for key, value in variant.items() if value is not None}
    return stack_of(data)


def only_job(found: Stack) -> dict:
    (upload,) = upload_jobs.uploads(found)
    (job,) = [each for each in upload.objects if each["kind"] == "Job"]
    return job


def container(job: dict) -> dict:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def environment(job: dict) -> dict:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(job)["env"]}


def volume(job: dict, name: str) -> dict | None:
    found = [each for each in job["spec"]["template"]["spec"]["volumes"] if each["name"] == name]
    return found[0] if found else None


# --- which -------------------------------------------------------------------------------------------------------


def test_what_comes_from_one_place_and_goes_to_one_place_is_shipped_once():
    data = stack_data(delivery=IMAGE)
    first = data["models"][0]["variants"][1]
    data["models"][0]["variants"] += [first | {"name": "same"}, first | {"name": "other", "weights": "s3://models/x/"}]
    data["pools"][1]["nodes"] = 3
    assert [each.service for each in upload_jobs.uploads(stack_of(data))] == ["mistral-bf16", "mistral-other"]


@pytest.mark.parametrize("source", [None, "./weights", "/weights"])
def test_what_is_in_place_or_on_this_machine_has_no_job(source: str | None):
    found = stack(source)
    assert upload_jobs.uploads(found) == ()
    notes = list(upload_jobs.notes(found))
    assert [f"berth ship {source} s3://models/mistral/" in note for note in notes] == ([True] if source else [])


def test_without_delivery_the_user_is_told_the_command():
    found = stack(delivery=None)
    assert upload_jobs.uploads(found) == ()
    (note,) = upload_jobs.notes(found)
    assert note.endswith(f"berth ship {HUB} s3://models/mistral/")


# --- how ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
@pytest.mark.parametrize("source", [HUB, "oci://quay.io/acme/m:1", "s3://other/m/"])
def test_an_api_server_takes_them(platform: tuple[str, str], source: str):
    found = stack(source, kind=platform[0], version=platform[1], delivery=EVERYTHING["delivery"],
                  s3={"caConfigMap": "private-ca"})  # fmt: skip
    (upload,) = upload_jobs.uploads(found)
    assert problems(upload.objects, crds_for(*platform)) == []


def test_a_pod_of_a_job_is_restricted_and_writes_to_volumes_alone():
    pod = only_job(stack())["spec"]["template"]["spec"]
    security = container(only_job(stack()))["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
        "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False
    assert {each["mountPath"] for each in container(only_job(stack()))["volumeMounts"]} == {"/tmp", "/workspace"}


def test_an_error_that_another_try_cannot_mend_ends_the_job():
    spec = only_job(stack())["spec"]
    ignored, fatal = spec["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    codes = fatal["onExitCodes"]["values"]
    # 6, 9, 128 + n: not ready, no answer, ended from outside. 1 is a defect, which may be one of the moment.
    assert (fatal["action"], {2, 4, 5, 7, 8} <= set(codes), {1, 6, 9, 137, 143} & set(codes)) == (
        "FailJob",
        True,
        set(),
    )
    # The policy is for pods that are not started again in place; a list in order is what the API server wants.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert codes == sorted(codes)


def test_the_nodes_disk_is_asked_for_and_bounded_unless_a_claim_is_there():
    job = only_job(stack())
    assert container(job)["resources"]["requests"]["ephemeral-storage"] == "4Gi"
    assert volume(job, "workspace")["emptyDir"] == {"sizeLimit": "4Gi"}
    (upload,) = upload_jobs.uploads(stack(delivery=EVERYTHING["delivery"]))
    claim, job = upload.objects
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "gp3", "resources": {"requests": {"storage": "100Gi"}},
    }  # fmt: skip
    assert volume(job, "workspace")["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert "ephemeral-storage" not in container(job)["resources"]["requests"]


@pytest.mark.parametrize(("kind", "version", "group"), [("kserve", "0.20", 1001), ("rhoai", "3.4", None)])
def test_a_new_claim_can_be_written_to_by_who_is_not_root(kind: str, version: str, group: int | None):
    # OpenShift refuses a group that is not of the namespace's range, and brings its own.
    found = only_job(stack(kind=kind, version=version, delivery=EVERYTHING["delivery"]))
    assert found["spec"]["template"]["spec"]["securityContext"].get("fsGroup") == group


def test_the_private_authority_of_the_store_is_mounted():
    job = only_job(stack(s3={"caConfigMap": "private-ca"}))
    path = environment(job)["AWS_CA_BUNDLE"]
    (mount,) = [each for each in container(job)["volumeMounts"] if each["name"] == "ca"]
    assert path == f"{mount['mountPath']}/cabundle.crt"
    assert volume(job, "ca")["configMap"] == {"name": "private-ca"}


def test_at_aws_berth_finds_the_store_itself():
    data = stack_data(delivery=IMAGE)
    del data["storage"]["s3"]["endpoint"]
    assert "AWS_ENDPOINT_URL" not in environment(only_job(stack_of(data)))


def test_an_image_is_read_with_the_login_of_its_registry():
    job = only_job(stack("oci://quay.io/acme/mistral:bf16"))
    (mount,) = [each for each in container(job)["volumeMounts"] if each["name"] == "logins"]
    secret = volume(job, "logins")["secret"]
    assert environment(job)["REGISTRY_AUTH_FILE"] == f"{mount['mountPath']}/{secret['items'][0]['path']}"
    assert (secret["secretName"], secret["optional"]) == ("quay-pull", True)
    assert volume(only_job(stack()), "logins") is None


def test_no_queue_is_named_whatever_the_stack_has():
    found = stack_of(everything("rhoai", "3.4"))
    assert "kueue" not in json.dumps([each.objects for each in upload_jobs.uploads(found)])


# --- names -------------------------------------------------------------------------------------------------------


@given(st.from_regex(r"[a-z]([a-z0-9.-]{0,300}[a-z0-9])?", fullmatch=True), st.text())
def test_a_name_is_one_that_jobs_and_labels_of_pods_take(name: str, content: str):
    found = hashed_name(name, content)
    assert re.fullmatch(r"[a-z]([a-z0-9.-]*[a-z0-9])?", found)
    assert len(found) <= 63
    assert hashed_name(name, content) == found != hashed_name(name, f"{content}.")


@pytest.mark.parametrize(
    "changes",
    [
        {"delivery": {"image": "quay.io/acme/berth:2"}},
        {"delivery": IMAGE | {"hubToken": {"secret": "hf-token"}}},
        {"s3": {"region": "eu-west-1"}},
        {"source": "hf://other/model"},
    ],
)
def test_a_job_that_changes_has_another_name(changes: dict):
    assert only_job(stack(**changes))["metadata"]["name"] != only_job(stack())["metadata"]["name"]


# --- what is left to the user ------------------------------------------------------------------------------------


def test_what_has_to_be_in_the_other_namespace_is_named():
    elsewhere = IMAGE | {"namespace": "uploads"}
    found = stack("oci://quay.io/acme/m:1", delivery=elsewhere, s3={"caConfigMap": "private-ca"})
    notes = "\n".join(upload_jobs.notes(found))
    for each in ("Secret minio-connection", "Secret quay-pull", "ConfigMap private-ca"):
        assert f"{each} in namespace uploads" in notes
    assert list(upload_jobs.notes(stack("oci://quay.io/acme/m:1"))) == []
    brought = {"credentials": {"secret": "minio-connection", "externalSecret": {"store": "vault", "key": "x"}}}
    assert list(upload_jobs.notes(stack(delivery=elsewhere, s3=brought))) == []


@pytest.mark.parametrize(
    ("queue", "namespace", "told"),
    [("default", None, True), ("default", "private-ai", True), ("default", "uploads", False), ("gpus", None, False)],
)
def test_a_queue_that_takes_every_job_is_pointed_out(queue: str, namespace: str | None, told: bool):
    delivery = IMAGE | ({"namespace": namespace} if namespace else {})
    notes = "\n".join(upload_jobs.notes(stack(delivery=delivery, queue={"name": queue})))
    assert ("LocalQueue 'default'" in notes) == told


# --- secrets -----------------------------------------------------------------------------------------------------

CANARY = "canary-7f3a"
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "BERTH_REGISTER_TOKEN",
         "MINIO_ROOT_PASSWORD", "REGISTRY_AUTH_FILE")  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_only_secret_manifests_hold_a_secret(platform: tuple[str, str], monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, CANARY)
    data = everything(*platform)
    data["models"][0]["variants"][1]["source"] = "oci://quay.io/acme/m:1"
    found = stack_of(data)
    built = [
        storage.external_secrets(found), storage.service_accounts(found), list(storage.notes(found)),
        [each.objects for each in upload_jobs.uploads(found)], list(upload_jobs.notes(found)), registration(found),
    ]  # fmt: skip
    assert all(built[0:1] + built[3:4] + built[5:6])
    assert CANARY not in json.dumps(built)
    assert '"kind": "Secret"' not in json.dumps(built)
    assert CANARY in json.dumps(storage.secret_manifests(found, CANARY, CANARY))

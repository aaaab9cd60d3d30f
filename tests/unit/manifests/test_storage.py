"""Keys of the store: each platform finds them in the form that it reads, and nothing holds one that should not."""

from __future__ import annotations

import copy
import json
import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_schemas import SHARED_CRDS, WHY_SKIPPED, crds_for, problems
from modelberth.base.errors import UsageError
from modelberth.flows.s3_settings import settings_from_environment
from modelberth.manifests import storage
from modelberth.spec.stack import Stack
from stacks import LLM, PLATFORMS, stack_data, stack_of

ACCESS, SECRET = "AKIACANARY01", 'canary-"key"\\ {{ .x }}'
EXTERNAL = {"store": "vault", "key": "llm/minio"}
UPLOADS = {"image": "quay.io/acme/berth:1", "namespace": "uploads"}


def stack(kind: str = "kserve", version: str = "0.20", *, llm: bool = False, external: bool = False, **s3) -> Stack:
    """A stack with one service from S3, or with two of both kinds."""
    data = stack_data(platform={"kind": kind, "version": version})
    data["storage"]["s3"] |= s3
    if external:
        data["storage"]["s3"]["credentials"]["externalSecret"] = EXTERNAL
    if llm:
        data["models"].append(copy.deepcopy(LLM))
    return stack_of(data)


def uploading(kind: str, version: str) -> Stack:
    """A stack whose upload Jobs run in a namespace of their own."""
    data = stack_data(platform={"kind": kind, "version": version}, delivery=UPLOADS)
    data["storage"]["s3"]["credentials"]["externalSecret"] = EXTERNAL
    return stack_of(data)


def operator(text: str) -> str:
    """What the External Secrets Operator makes of a template that knows both keys (Go templates, in one pass)."""
    values = {
        "{{`{{`}}": "{{",
        "{{ .accessKey }}": ACCESS,
        "{{ .secretKey }}": SECRET,
        "{{ .accessKey | toJson }}": json.dumps(ACCESS),
        "{{ .secretKey | toJson }}": json.dumps(SECRET),
    }
    return re.sub(r"\{\{.*?\}\}", lambda found: values[found[0]], text)


def made(external: dict) -> dict:
    """The Secret that the operator writes."""
    target = external["spec"]["target"]
    template = target["template"]
    return {
        "name": target["name"],
        "namespace": external["metadata"]["namespace"],
        "labels": template["metadata"]["labels"],
        "annotations": {key: operator(value) for key, value in template["metadata"]["annotations"].items()},
        "data": {key: operator(value) for key, value in template["data"].items()},
    }


def written(secret: dict) -> dict:
    """A Secret in the same form."""
    meta = secret["metadata"]
    return {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "labels": meta["labels"],
        "annotations": meta.get("annotations", {}),
        "data": secret["stringData"],
    }


def named(objects: list[dict], name: str) -> dict:
    (found,) = [each for each in objects if each["metadata"]["name"] == name]
    return found


# --- both ways lead to the same Secrets --------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_the_operator_writes_what_with_secrets_writes(platform: tuple[str, str]):
    found = uploading(*platform)
    by_operator = [made(each) for each in storage.external_secrets(found)]
    assert by_operator == [written(each) for each in storage.secret_manifests(found, ACCESS, SECRET)]


@pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_an_api_server_takes_all_of_them(platform: tuple[str, str]):
    found = uploading(*platform)
    objects = [*storage.external_secrets(found), *storage.secret_manifests(found, ACCESS, SECRET)]
    assert problems(objects, crds_for(*platform)) == []


def test_without_an_external_secret_nothing_is_rendered():
    assert storage.external_secrets(stack()) == []
    assert storage.service_accounts(stack()) == []


HOSTILE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@settings(deadline=None)
@given(HOSTILE, HOSTILE.filter(lambda text: not set(text) & set("/?#@")), st.sampled_from(["ACCESS", "SECRET", "eu"]))
def test_what_the_spec_says_comes_out_of_the_template_as_it_is(odd: str, host: str, region: str):
    found = stack(region=f"{region}{odd}{{{{ .secretKey }}}}", endpoint=f"https://{host}", external=True)
    connection, config = storage.external_secrets(found)
    assert made(connection)["data"]["AWS_DEFAULT_REGION"] == found.storage.s3.region
    assert made(connection)["annotations"]["serving.kserve.io/s3-region"] == found.storage.s3.region
    said = json.loads(made(config)["data"]["minio-connection"])
    assert (said["region"], said["endpoint_url"]) == (found.storage.s3.region, f"https://{host}")
    assert (said["access_key_id"], said["secret_access_key"]) == (ACCESS, SECRET)


@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_of_any_text_are_json_that_says_the_same(access: str, secret: str):
    config = named(storage.secret_manifests(stack(), access, secret), storage.STORAGE_CONFIG)
    said = json.loads(config["stringData"]["minio-connection"])
    assert (said["access_key_id"], said["secret_access_key"]) == (access, secret)


@pytest.mark.parametrize("word", ["ACCESS", "SECRET"])
def test_no_word_of_the_spec_is_taken_for_a_key(word: str):
    (_, config) = storage.external_secrets(stack(region=word, external=True))
    assert json.loads(made(config)["data"]["minio-connection"])["region"] == word


@pytest.mark.parametrize("kind", ["rhoai", "kserve"])
def test_no_secret_takes_the_name_of_kserves_own(kind: str):
    credentials = {"secret": storage.STORAGE_CONFIG, "externalSecret": EXTERNAL}
    found = stack(kind, {"rhoai": "3.4", "kserve": "0.20"}[kind], credentials=credentials)
    for build in (storage.external_secrets, lambda given: storage.secret_manifests(given, ACCESS, SECRET)):
        with pytest.raises(UsageError, match="cannot be called storage-config"):
            build(found)


# --- what each platform reads ------------------------------------------------------------------------------------


def test_berth_fetch_reads_the_storage_config_as_kserve_hands_it_over():
    found = stack(endpoint="https://minio.storage.svc:9000/", region="eu-west-1", caConfigMap="private-ca")
    config = named(storage.secret_manifests(found, "AKIA01", "secret02"), storage.STORAGE_CONFIG)
    text = config["stringData"][storage.storage_key(found)]
    assert all(isinstance(value, str) for value in json.loads(text).values())  # KServe reads texts alone
    said = settings_from_environment({"STORAGE_CONFIG": text})
    assert (said.endpoint, said.region, said.bucket) == ("https://minio.storage.svc:9000", "eu-west-1", "models")
    assert (said.access_key, said.secret_key) == ("AKIA01", "secret02")
    assert json.loads(text)["cabundle_configmap"] == "private-ca"


@pytest.mark.parametrize("version", ["3.0", "3.2", "3.3", "3.4", "3.5"])
def test_on_openshift_ai_there_is_a_connection_and_no_storage_config(version: str):
    found = uploading("rhoai", version)
    objects = storage.secret_manifests(found, ACCESS, SECRET)
    assert {each["metadata"]["name"] for each in objects} == {"minio-connection"}
    (own,) = [each for each in objects if each["metadata"]["namespace"] == "private-ai"]
    # odh-model-controller lists Secrets with both labels, and takes the type from the first annotation.
    assert {"opendatahub.io/dashboard", "opendatahub.io/managed"} <= set(own["metadata"]["labels"])
    marks = {key: own["metadata"]["annotations"][f"opendatahub.io/{key}"]
             for key in ("connection-type", "connection-type-ref", "connection-type-protocol")}  # fmt: skip
    assert set(marks.values()) == {"s3"}
    assert set(own["stringData"]) == {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_S3_BUCKET", "AWS_S3_ENDPOINT", "AWS_DEFAULT_REGION",
    }  # fmt: skip


def test_where_only_uploads_run_nothing_is_offered_in_the_dashboard():
    for each in (storage.external_secrets, lambda found: storage.secret_manifests(found, ACCESS, SECRET)):
        (elsewhere,) = [obj for obj in each(uploading("rhoai", "3.4")) if obj["metadata"]["namespace"] == "uploads"]
        assert "opendatahub" not in json.dumps(elsewhere)


@pytest.mark.parametrize(
    ("s3", "endpoint"),
    [
        ({"endpoint": None}, "https://s3.us-east-1.amazonaws.com"),
        ({"endpoint": None, "region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com"),
        ({"endpoint": None, "region": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn"),
        ({"endpoint": "http://minio:9000/"}, "http://minio:9000"),
    ],
)
def test_the_store_is_where_the_spec_says_or_at_aws(s3: dict, endpoint: str):
    data = stack_data()
    data["storage"]["s3"] = {key: value for key, value in (data["storage"]["s3"] | s3).items() if value is not None}
    assert storage.endpoint(stack_of(data).storage.s3) == endpoint


# --- LLMInferenceService -----------------------------------------------------------------------------------------


def test_a_service_account_names_the_secret_where_llm_d_reads_from_s3():
    found = stack(llm=True)
    (account,) = storage.service_accounts(found)
    assert account["metadata"]["name"] == storage.storage_service_account(found) == "berths-models"
    assert account["secrets"] == [{"name": "minio-connection"}]
    assert storage.storage_service_account(stack()) is None


@pytest.mark.parametrize(("scheme", "secure"), [("http", "0"), ("https", "1")])
def test_the_secret_says_where_the_store_is(scheme: str, secure: str):
    found = stack("rhoai", "3.4", endpoint=f"{scheme}://minio:9000", region="eu-west-1", caConfigMap="private-ca")
    (secret,) = storage.secret_manifests(found, ACCESS, SECRET)
    said = {key.removeprefix("serving.kserve.io/"): value for key, value in secret["metadata"]["annotations"].items()
            if key.startswith("serving.kserve.io/")}  # fmt: skip
    assert said == {
        "s3-endpoint": "minio:9000", "s3-usehttps": secure, "s3-verifyssl": secure, "s3-region": "eu-west-1",
        "s3-cabundle-configmap": "private-ca",
    }  # fmt: skip


# --- what is left to the user ------------------------------------------------------------------------------------


def test_of_a_secret_that_exists_the_user_is_told_what_is_missing_on_it():
    (note,) = storage.notes(stack("rhoai", "3.4", llm=True, region="a b"))
    words = shlex.split(note.partition(": ")[2])
    assert words[:6] == ["kubectl", "annotate", "secret", "minio-connection", "-n", "private-ai"]
    assert "serving.kserve.io/s3-region=a b" in words


def test_kserve_does_not_read_the_secret_itself():
    (note,) = storage.notes(stack())
    assert "entry minio-connection of Secret storage-config in namespace private-ai" in note
    assert list(storage.notes(stack(external=True))) == []


def test_a_secret_of_nobody_and_an_authority_that_is_not_read_are_named():
    data = stack_data()
    data["storage"]["s3"]["credentials"] = {}
    found = stack_of(data)
    (note,) = storage.notes(found)
    assert "names no Secret" in note
    assert (storage.storage_key(found), storage.secret_manifests(found, ACCESS, SECRET)) == (None, [])
    (note,) = storage.notes(stack("rhoai", "3.4", caConfigMap="private-ca"))
    assert "spec.trustedCABundle" in note


def test_a_stack_without_s3_has_nothing_to_say():
    data = stack_data(storage={"oci": {"registry": "quay.io/acme"}})
    data["models"][0]["variants"] = data["models"][0]["variants"][:1]
    found = stack_of(data)
    assert [*storage.notes(found), *storage.external_secrets(found), *storage.service_accounts(found)] == []

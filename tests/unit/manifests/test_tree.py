"""Trees: every object is taken by its platform, data stays data, and nothing secret or foreign gets in."""

from __future__ import annotations

import copy
import io
import re
import shlex

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from cluster_schemas import SHARED_CRDS, WHY_SKIPPED, crds_for, problems
from stacks import EVERYTHING, LLM, PLATFORMS, everything, stack_data, tree_of

needs_crds = pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason=WHY_SKIPPED)


def all_objects(tree) -> list[dict]:
    """Of all files, those that base/ leaves out too."""
    return [
        each
        for file in tree.files
        if file.path.endswith(".yaml") and not file.path.endswith("kustomization.yaml")
        for each in yaml.safe_load_all(file.text)
    ]


def of_kind(tree, kind: str) -> list[dict]:
    return [each for each in all_objects(tree) if each["kind"] == kind]


def only(tree, kind: str) -> dict:
    (found,) = of_kind(tree, kind)
    return found


def service(tree, name: str) -> dict:
    return next(each for each in all_objects(tree) if each["metadata"]["name"] == name and "Service" in each["kind"])


# --- taken by the platform -----------------------------------------------------------------------------------


@needs_crds
@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
@pytest.mark.parametrize("wanted", ["plain", "everything"])
def test_every_object_is_what_its_platform_takes(platform: tuple[str, str], wanted: str):
    kind, version = platform
    data = everything(*platform) if wanted == "everything" else stack_data(platform={"kind": kind, "version": version})
    assert problems(all_objects(tree_of(data)), crds_for(*platform)) == []


@needs_crds
@pytest.mark.parametrize("queue", [None, {"name": "gpus"}, {"name": "gpus", "clusterQueue": "gpus"}])
@pytest.mark.parametrize("profile", [False, True])
def test_every_owner_of_placement_is_taken(queue: dict | None, profile: bool):
    data = stack_data(queue=queue)
    if profile:
        data["pools"][0]["hardwareProfile"] = {"name": "one"}
    assert problems(all_objects(tree_of(data)), crds_for("rhoai", "3.4")) == []


def test_the_files_are_where_the_reference_has_them():
    paths = [file.path for file in tree_of(everything("rhoai", "3.0")).files]
    base = "gitops/berths/base"
    for path in ("kustomization.yaml", "serving-runtime/vllm-runtime.yaml", "inference/mistral-int4.yaml",
                 "inference/mistral-bf16.yaml", "model-upload/upload-mistral-bf16.yaml",
                 "model-registration/register.yaml"):  # fmt: skip
        assert f"{base}/{path}" in paths
    assert paths[-1] == "steps/berths/deploy.sh"
    assert "gitops/berths/argocd/application.yaml" in paths


def test_rendering_is_the_same_every_time():
    assert tree_of(everything("rhoai", "3.5")) == tree_of(everything("rhoai", "3.5"))


# --- by version ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "mode", "llm", "kueue"),
    [
        (("rhoai", "3.0"), "RawDeployment", "v1alpha1", "v1beta1"),
        (("rhoai", "3.3"), "RawDeployment", "v1alpha1", "v1beta1"),
        (("rhoai", "3.4"), "Standard", "v1alpha2", "v1beta1"),
        (("rhoai", "3.5"), "Standard", "v1alpha2", "v1beta1"),
        (("kserve", "0.17"), "Standard", "v1alpha2", "v1beta1"),
        (("kserve", "0.20"), "Standard", "v1alpha2", "v1beta2"),
    ],
)
def test_names_follow_the_version(platform, mode: str, llm: str, kueue: str):
    tree = tree_of(everything(*platform))
    plain = of_kind(tree, "InferenceService")
    assert {each["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] for each in plain} == {mode}
    assert {each["apiVersion"] for each in of_kind(tree, "LLMInferenceService")} == {f"serving.kserve.io/{llm}"}
    assert only(tree, "ClusterQueue")["apiVersion"] == f"kueue.x-k8s.io/{kueue}"


def test_kserve_has_nothing_of_the_dashboard():
    text = "".join(file.text for file in tree_of(everything("kserve", "0.20")).files)
    assert "opendatahub" not in text
    assert "openshift.io/display-name" not in text


def test_the_image_is_the_platforms_or_the_declared_one():
    image = r"registry\.redhat\.io/rhaiis/vllm-cuda-rhel9@sha256:[0-9a-f]{64}"
    runtime = only(tree_of(stack_data(platform={"kind": "rhoai", "version": "3.0"})), "ServingRuntime")
    assert re.fullmatch(image, runtime["spec"]["containers"][0]["image"])
    own = {"kind": "kserve", "version": "0.20", "vllm": "0.25.1"}
    runtime = only(tree_of(stack_data(platform=own)), "ServingRuntime")
    assert runtime["spec"]["containers"][0]["image"] == "docker.io/vllm/vllm-openai:v0.25.1"
    pinned = own | {"engineImage": f"quay.io/acme/vllm@sha256:{'a' * 64}"}
    assert tree_of(stack_data(platform=pinned)).notes == tree_of(stack_data(platform=pinned)).notes
    assert not [note for note in tree_of(stack_data(platform=pinned)).notes if "named by a tag" in note]


# --- one owner of placement ----------------------------------------------------------------------------------


def test_without_queue_and_profile_the_service_says_where_it_runs():
    predictor = service(tree_of(stack_data()), "mistral-int4")["spec"]["predictor"]
    assert predictor["nodeSelector"] == {"node.kubernetes.io/instance-type": "g6.4xlarge"}
    assert predictor["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_a_queue_brings_selectors_and_tolerations_itself():
    tree = tree_of(stack_data(queue={"name": "gpus", "clusterQueue": "gpus"}))
    for each in of_kind(tree, "InferenceService"):
        predictor = each["spec"]["predictor"]
        assert each["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        assert not {"nodeSelector", "tolerations"} & set(predictor)
    flavors = {each["metadata"]["name"]: each["spec"] for each in of_kind(tree, "ResourceFlavor")}
    # A pool that no service is on has no flavour: its quota would be for nobody.
    assert set(flavors) == {"berths.single", "berths.quad"}
    assert all(each["tolerations"] for each in flavors.values())


def test_of_several_pools_affinity_names_the_flavour_that_is_meant():
    tree = tree_of(stack_data(queue={"name": "gpus", "clusterQueue": "gpus"}))
    terms = service(tree, "mistral-bf16")["spec"]["predictor"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]  # fmt: skip
    flavor = next(each for each in of_kind(tree, "ResourceFlavor") if each["metadata"]["name"] == "berths.quad")
    labels = flavor["spec"]["nodeLabels"].items()
    assert terms == [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]} for key, value in labels]}]
    one = stack_data(queue={"name": "gpus"})
    one["pools"], one["models"][0]["variants"] = one["pools"][:1], one["models"][0]["variants"][:1]
    assert "affinity" not in service(tree_of(one), "mistral-int4")["spec"]["predictor"]


def test_a_hardware_profile_brings_them_too():
    data = stack_data()
    data["pools"][0]["hardwareProfile"] = {"name": "one-l4"}
    tree = tree_of(data)
    found = service(tree, "mistral-int4")
    assert not {"nodeSelector", "tolerations"} & set(found["spec"]["predictor"])
    assert found["metadata"]["annotations"]["opendatahub.io/hardware-profile-name"] == "one-l4"
    assert only(tree, "HardwareProfile")["spec"]["scheduling"]["type"] == "Node"
    data["pools"][0]["hardwareProfile"]["existing"] = True
    assert of_kind(tree_of(data), "HardwareProfile") == []


def test_the_quota_is_what_the_pools_have():
    tree = tree_of(stack_data(queue={"name": "gpus", "clusterQueue": "gpus"}))
    (group,) = only(tree, "ClusterQueue")["spec"]["resourceGroups"]
    quota = {flavor["name"]: {each["name"]: each["nominalQuota"] for each in flavor["resources"]}
             for flavor in group["flavors"]}  # fmt: skip
    assert {name: each["nvidia.com/gpu"] for name, each in quota.items()} == {"berths.single": 1, "berths.quad": 4}


# --- resources -----------------------------------------------------------------------------------------------


def model_of(tree, name: str) -> dict:
    return service(tree, name)["spec"]["predictor"]["model"]


def test_gpus_shared_memory_and_time_follow_the_variant():
    tree = tree_of(stack_data())
    for name, gpus, shm in (("mistral-int4", "1", "2Gi"), ("mistral-bf16", "4", "8Gi")):
        found = service(tree, name)["spec"]["predictor"]
        resources = found["model"]["resources"]
        assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == gpus
        assert found["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}}]
    probe = model_of(tree, "mistral-bf16")["startupProbe"]
    # 47.14 GB at 125 MiB/s, twice, and ten minutes: 1,319 s, in whole minutes.
    assert probe["failureThreshold"] * probe["periodSeconds"] == 1320


def test_a_limit_holds_the_weights():
    limits = model_of(tree_of(stack_data()), "mistral-bf16")["resources"]["limits"]
    assert int(limits["memory"].removesuffix("Gi")) << 30 >= 47_140_000_000


def test_disk_is_asked_for_unless_a_queue_has_no_quota_for_it():
    def asked(queue: dict | None) -> str | None:
        return model_of(tree_of(stack_data(queue=queue)), "mistral-bf16")["resources"]["requests"].get(
            "ephemeral-storage"
        )

    assert asked(None) == "52Gi"
    assert asked({"name": "gpus"}) is None
    assert asked({"name": "gpus", "covers": ["cpu", "memory", "nvidia.com/gpu", "ephemeral-storage"]}) == "52Gi"


def test_the_old_pod_goes_first_where_no_gpu_is_spare():
    assert service(tree_of(stack_data()), "mistral-int4")["spec"]["predictor"]["deploymentStrategy"] == {
        "type": "Recreate"
    }
    data = stack_data()
    data["pools"][0]["nodes"] = 2
    assert "deploymentStrategy" not in service(tree_of(data), "mistral-int4")["spec"]["predictor"]


def test_a_service_that_is_stopped_says_so():
    data = stack_data()
    data["models"][0]["variants"][0]["replicas"] = 0
    found = service(tree_of(data), "mistral-int4")
    assert found["metadata"]["annotations"]["serving.kserve.io/stop"] == "true"
    assert found["spec"]["predictor"]["minReplicas"] == 1


def test_every_container_of_ours_is_restricted():
    tree = tree_of(everything("rhoai", "3.4"))
    containers = [only(tree, "ServingRuntime")["spec"]["containers"][0]]
    containers += [job["spec"]["template"]["spec"]["containers"][0] for job in of_kind(tree, "Job")]
    assert len(containers) == 3
    for each in containers:
        security = each["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["runAsNonRoot"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}


# --- storage -------------------------------------------------------------------------------------------------


@given(st.from_regex(r"s3://models(/[a-z0-9._-]{1,12}){1,3}/?", fullmatch=True).filter(lambda t: "/." not in t))
def test_an_s3_address_always_ends_in_a_slash(weights: str):
    data = stack_data()
    data["models"][0]["variants"][1]["weights"] = weights
    assert model_of(tree_of(data), "mistral-bf16")["storageUri"] == weights.rstrip("/") + "/"


def test_on_openshift_ai_there_is_no_storage_config_of_ours():
    for version in ("3.0", "3.5"):
        names = {each["metadata"]["name"] for each in all_objects(tree_of(everything("rhoai", version)))}
        assert "storage-config" not in names
    tree = tree_of(everything("kserve", "0.20"))
    config = next(each for each in of_kind(tree, "ExternalSecret") if each["metadata"]["name"] == "storage-config")
    assert "minio-connection" in config["spec"]["target"]["template"]["data"]


CANARY = "canary-7f3a"


@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_no_secret_is_in_a_tree(platform: tuple[str, str], monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    tree = tree_of(everything(*platform))
    assert of_kind(tree, "Secret") == []
    assert CANARY not in "".join(file.text for file in tree.files) + "".join(tree.notes)


# --- data stays data -----------------------------------------------------------------------------------------

HOSTILE = ["1e3", "NO", "yes", "~", "{{ .Name }}", "{{", "$(HOME)", "$$", "$", "'", '"', "a: b", "# c", "- x", "\\",
           "a\nb", "*x", "&y", "!t", "%d", "@", "`", " lead", "trail ", "é", "\u2028", "x" * 300]  # fmt: skip


def as_the_container_gets_it(text: str) -> str:
    """What KServe's template and then the kubelet make of a text that we have escaped."""
    return re.sub(r"\$\$", "$", text.replace("{{`{{`}}", "{{"))


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_arrives_as_it_is(value: str):
    data = stack_data()
    data["models"][0]["variants"][0]["engineArgs"] = {"chat-template": value}
    data["models"][0]["variants"][0]["servedName"] = value
    text = next(file.text for file in tree_of(data).files if file.path.endswith("inference/mistral-int4.yaml"))
    for read in (yaml.safe_load(text), YAML(typ="safe", pure=True).load(io.StringIO(text))):
        arguments = [as_the_container_gets_it(each) for each in read["spec"]["predictor"]["model"]["args"]]
        assert f"--chat-template={value}" in arguments
        assert f"--served-model-name={value}" in arguments


def test_no_action_of_ours_reaches_kserves_template():
    data = stack_data()
    data["models"][0]["variants"][0]["engineArgs"] = {"chat-template": "{% if x %}{{ x }}{% endif %}"}
    argument = next(each for each in model_of(tree_of(data), "mistral-int4")["args"] if "chat-template" in each)
    assert argument.count("{{") == 2
    assert re.sub(r"\{\{`\{\{`\}\}", "", argument).count("{{") == 0


@pytest.mark.parametrize("value", [each for each in HOSTILE if "\n" not in each])
def test_words_survive_the_shell_of_an_llm_inference_service(value: str):
    data = stack_data(models=[copy.deepcopy(LLM)])
    data["models"][0]["variants"][0]["engineArgs"] = {"chat-template": value}
    (main,) = service(tree_of(data), "big-one")["spec"]["template"]["containers"]
    (variable,) = main["env"]
    words = shlex.split(as_the_container_gets_it(variable["value"]))
    assert f"--chat-template={value}" in words
    assert "--tensor-parallel-size=2" in words
    assert not any(word.startswith("--served-model-name") for word in words)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(alphabet="ab {}$#:'\"\\\n-", max_size=20))
def test_whatever_stands_in_a_field_comes_back_from_the_file(served: str, extra: str):
    data = stack_data()
    variant = data["models"][0]["variants"][0]
    variant["servedName"], variant["engineArgs"] = served, {"chat-template": extra}
    for file in tree_of(data).files:
        if file.path.endswith(".yaml"):
            first = list(yaml.safe_load_all(file.text))
            second = list(YAML(typ="safe", pure=True).load_all(io.StringIO(file.text)))
            assert first == second


# --- llm-d ---------------------------------------------------------------------------------------------------


def test_one_node_several_nodes_and_parts():
    tree = tree_of(everything("rhoai", "3.4"))
    one, spread, parted = (service(tree, f"big-{name}")["spec"] for name in ("one", "spread", "parted"))
    assert one["model"] == {"uri": "s3://models/big/", "name": "big-one"}
    assert one["replicas"] == 2
    assert one["router"] == {"route": {}, "gateway": {}, "scheduler": {}}
    assert one["template"]["serviceAccountName"] == "berths-models"
    assert not {"worker", "parallelism", "prefill"} & set(one)
    # Four copies of four GPUs on nodes of eight: two in each, so two nodes.
    assert spread["parallelism"] == {"tensor": 4, "data": 4, "dataLocal": 2, "expert": True}
    assert spread["template"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert "startupProbe" not in spread["worker"]["containers"][0]
    assert parted["router"] == {"route": {}, "gateway": {}}
    assert parted["prefill"]["replicas"] == 2
    for pod in (parted["template"], parted["prefill"]["template"]):
        words = shlex.split(as_the_container_gets_it(pod["containers"][0]["env"][0]["value"]))
        assert any("NixlConnector" in word for word in words)


def test_the_preset_without_a_startup_probe_gets_a_whole_one():
    def probe(version: str) -> dict:
        return service(tree_of(everything("rhoai", version)), "big-one")["spec"]["template"]["containers"][0][
            "startupProbe"
        ]

    assert probe("3.0")["tcpSocket"] == {"port": 8000}
    # With a handler of its own the preset's would stand beside ours, and two are refused.
    assert set(probe("3.4")) == {"periodSeconds", "timeoutSeconds", "failureThreshold"}


# --- jobs ----------------------------------------------------------------------------------------------------


def test_the_upload_runs_berth_ship_with_references_alone():
    tree = tree_of(stack_data(delivery=EVERYTHING["delivery"]))
    job, claim = only(tree, "Job"), only(tree, "PersistentVolumeClaim")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][:3] == ["ship", "hf://mistralai/Mistral-Small-24B-Instruct-2501", "s3://models/mistral/"]
    references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert references["AWS_SECRET_ACCESS_KEY"]["name"] == "minio-connection"
    assert references["HF_TOKEN"] == {"name": "hf-token", "key": "token", "optional": True}
    assert job["metadata"]["namespace"] == claim["metadata"]["namespace"] == "uploads"
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_a_job_that_does_something_else_has_another_name():
    def name(image: str) -> str:
        return only(tree_of(stack_data(delivery={"image": image})), "Job")["metadata"]["name"]

    assert name("quay.io/acme/berth:1") == name("quay.io/acme/berth:1") != name("quay.io/acme/berth:2")


def test_what_no_job_can_read_is_left_to_the_user():
    data = stack_data(delivery={"image": "quay.io/acme/berth:1"})
    data["models"][0]["variants"][1]["source"] = "./weights"
    tree = tree_of(data)
    assert of_kind(tree, "Job") == []
    assert any("berth ship ./weights s3://models/mistral/" in note for note in tree.notes)


def test_a_service_that_no_node_holds_is_refused():
    data = stack_data()
    data["pools"][1].update(count=2, nodes=2)
    with pytest.raises(Exception, match="needs 4 GPUs in one node"):
        tree_of(data)

"""The stand-in for an API server: it refuses what a real one refuses, each reason once, and takes what it takes."""

from __future__ import annotations

import copy
import re
from typing import Any

import celpy.evaluation
import pytest
import yaml

from cel_rules import _FUNCTIONS, program
from cluster_schemas import SHARED_CRDS, WHY_SKIPPED, crds_for, problems, warnings

pytestmark = pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason=WHY_SKIPPED)

NEWEST = ("rhoai", "3.5")
PLATFORMS = [("rhoai", "3.0"), ("rhoai", "3.2"), ("rhoai", "3.3"), ("rhoai", "3.4"), NEWEST,
             ("kserve", "0.15"), ("kserve", "0.17"), ("kserve", "0.20")]  # fmt: skip


def object_of(api_version: str, kind: str, namespace: str | None = "llm", **more: Any) -> dict[str, Any]:
    meta = {"name": "one"} if namespace is None else {"name": "one", "namespace": namespace}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **copy.deepcopy(more)}


def service(**predictor: Any) -> dict[str, Any]:
    model = {"modelFormat": {"name": "vLLM"}, "runtime": "vllm", "args": ["--max-model-len=4096"]}
    return object_of("serving.kserve.io/v1beta1", "InferenceService", spec={"predictor": {"model": model, **predictor}})


def llm_service(version: str = "v1alpha2", **spec: Any) -> dict[str, Any]:
    model = {"uri": "hf://acme/model", "name": "model"}
    return object_of(f"serving.kserve.io/{version}", "LLMInferenceService", spec={"model": model, **spec})


def queue(*resources: str, version: str = "v1beta2", **spec: Any) -> dict[str, Any]:
    quotas = [{"name": name, "nominalQuota": 4} for name in resources or ("cpu",)]
    group = {"coveredResources": ["cpu"], "flavors": [{"name": "l4", "resources": quotas}]}
    return object_of(f"kueue.x-k8s.io/{version}", "ClusterQueue", None, spec={"resourceGroups": [group], **spec})


def profile(**scheduling: Any) -> dict[str, Any]:
    cpu = {"displayName": "CPU", "identifier": "cpu", "minCount": 1, "defaultCount": "500m", "resourceType": "CPU"}
    spec = {"identifiers": [cpu], "scheduling": scheduling}
    return object_of("infrastructure.opendatahub.io/v1", "HardwareProfile", spec=spec)


def job(**pod: Any) -> dict[str, Any]:
    container = {"name": "ship", "image": "registry.example.com/berth:1", "resources": {"limits": {"memory": "64Mi"}}}
    spec = {"restartPolicy": "Never", "containers": [container], **pod}
    return object_of("batch/v1", "Job", spec={"template": {"spec": spec}})


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Gi"}}}
TAKEN = [
    service(),
    service(containers=[{"name": "kserve-container", "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "500m"}}}]),
    object_of(
        "serving.kserve.io/v1alpha1",
        "ServingRuntime",
        spec={"containers": [{"name": "kserve-container", "image": "vllm", "ports": [{"containerPort": 8080}]}]},
    ),
    object_of(
        "serving.kserve.io/v1alpha1",
        "ClusterStorageContainer",
        None,
        spec={"container": {"name": "fetch", "image": "x"}, "supportedUriFormats": [{"prefix": "s3://"}]},
    ),
    queue(),
    object_of("kueue.x-k8s.io/v1beta2", "LocalQueue", spec={"clusterQueue": "one"}),
    object_of("kueue.x-k8s.io/v1beta2", "ResourceFlavor", None, spec={"nodeLabels": {"gpu": "l4"}}),
    profile(type="Queue", kueue={"localQueueName": "gpus"}),
    profile(type="Node", node={"nodeSelector": {"gpu": "l4"}}),
    object_of("route.openshift.io/v1", "Route", spec={"to": {"kind": "Service", "name": "one", "weight": 100}}),
    object_of("v1", "Secret", stringData={"AWS_ACCESS_KEY_ID": "x"}, data={"more": "eA=="}),
    object_of("v1", "ConfigMap", data={"berth.yaml": "a: 1\n"}),
    object_of("v1", "ServiceAccount", secrets=[{"name": "one"}]),
    object_of("v1", "PersistentVolumeClaim", spec=CLAIM),
    object_of("v1", "Namespace", None),
    job(),
]


@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_good_objects_are_taken(platform: tuple[str, str]):
    assert problems(TAKEN, crds_for(*platform)) == []


def changed(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(obj)
    *parents, last = path.split("/")
    at = found
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    at[last] = value
    return found


MODEL = "spec/predictor/model"
TWICE = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
MOUNT = {"name": "ship", "image": "x", "volumeMounts": [{"name": "gone", "mountPath": "/x"}]}


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        # --- structure
        (changed(service(), f"{MODEL}/modelFromat", {}), ".spec.predictor.model.modelFromat: unknown field"),
        (changed(service(), "spce", {}), ".spce: unknown field"),
        (changed(service(), f"{MODEL}/args", "--x"), ".spec.predictor.model.args: must be array, not string"),
        (service(minReplicas="1"), ".spec.predictor.minReplicas: must be integer, not string"),
        (service(minReplicas=True), ".spec.predictor.minReplicas: must be integer, not boolean"),
        (service(minReplicas=1 << 31), ".spec.predictor.minReplicas: 2147483648 is no int32"),
        (service(minReplicas=None), ".spec.predictor.minReplicas: must be integer, not null"),
        (changed(service(), f"{MODEL}/modelFormat", {}), ".spec.predictor.model.modelFormat.name: is missing"),
        (service(scaleMetric="gpu"), ".spec.predictor.scaleMetric: 'gpu' is none of cpu, memory"),
        (changed(service(), f"{MODEL}/env", TWICE), ".spec.predictor.model.env[1]: {'name': 'A'} stands twice"),
        (changed(service(), f"{MODEL}/resources", {"limits": {"memory": "4 Gi"}}),
         ".spec.predictor.model.resources.limits.memory: '4 Gi' does not match"),
        (changed(service(), f"{MODEL}/resources", {"limits": {"memory": "4Gi\n"}}),
         ".spec.predictor.model.resources.limits.memory: '4Gi\\n' does not match"),
        (changed(queue(), "spec/resourceGroups/0/coveredResources", []),
         ".spec.resourceGroups[0].coveredResources: has 0 items, fewer than 1"),
        (object_of("route.openshift.io/v1", "Route", spec={"to": {"kind": "Service", "name": "one", "weight": 300}}),
         ".spec.to.weight: 300 is above 256"),
        (changed(service(), f"{MODEL}/args", [None]), ".spec.predictor.model.args[0]: is null"),
        (changed(profile(type="Node", node={}), "spec/identifiers/0/minCount", 1 << 70),
         ".spec.identifiers[0].minCount: must be integer or string, not number"),
        # --- rules in CEL
        (queue("cpu", "memory"), ".spec.resourceGroups[0]: flavors must have the same number of resources"),
        (queue(preemption={"reclaimWithinCohort": "Never", "borrowWithinCohort": {"policy": "LowerPriority"}}),
         ".spec.preemption: reclaimWithinCohort=Never and borrowWithinCohort.Policy!=Never"),
        (object_of("kueue.x-k8s.io/v1beta2", "ResourceFlavor", None, spec={"tolerations": [{"operator": "Equal"}]}),
         ".spec.tolerations: operator must be Exists when 'key' is empty"),
        (profile(type="Queue", node={}), ".spec.scheduling: "),
        (profile(type="Node"), ".spec.scheduling: "),
        (llm_service(replicas=1, scaling={"maxReplicas": 2, "wva": {"hpa": {}}}),
         ".spec: replicas and scaling are mutually exclusive"),
        # --- versions and kinds
        (changed(service(), "apiVersion", "serving.kserve.io/v1"), ".apiVersion: serving.kserve.io/v1 is not served"),
        (object_of("acme.example/v1", "Berth"), ".: no schema of acme.example/v1 Berth"),
        (object_of("v1", "Berth"), ".: no schema of v1 Berth"),
        ({"kind": "Secret", "metadata": {"name": "one"}}, ".: apiVersion and kind are missing"),
        # --- metadata
        (changed(service(), "metadata/name", "One"), ".metadata.name: 'One' is no name of a InferenceService"),
        (changed(service(), "metadata/name", "one\n"), ".metadata.name: 'one\\n' is no name of a InferenceService"),
        (changed(job(), "metadata/name", "x" * 64), ".metadata.name: "),
        (changed(service(), "metadata/labels", {"a": "x" * 64}), ".metadata.labels.a: "),
        (changed(service(), "metadata/labels", {"a": "x y"}), ".metadata.labels.a: 'x y' is no value of a label"),
        (changed(service(), "metadata/labels", {"a": 1}), ".metadata.labels.a: 1 is no value of a label"),
        (changed(service(), "metadata/labels", {"a/b/c": "x"}), ".metadata.labels: 'a/b/c' is no key"),
        (changed(service(), "metadata/labels", []), ".metadata: labels and annotations are objects"),
        (changed(service(), "metadata/annotations", {"a b": "x"}), ".metadata.annotations: 'a b' is no key"),
        (changed(service(), "metadata/annotations", {"a": True}), ".metadata.annotations.a: must be string, not bool"),
        (changed(service(), "metadata/annotations", {"a": "x" * (256 << 10)}), ".metadata.annotations: more than"),
        (changed(service(), "metadata/anotations", {}), ".metadata.anotations: unknown field"),
        (changed(queue(), "metadata/namespace", "llm"), ".metadata.namespace: a ClusterQueue stands in none"),
        (object_of("v1", "Secret", None), ".metadata.namespace: is missing"),
        # --- kinds of Kubernetes
        (object_of("v1", "Secret", stringdata={}), ".stringdata: unknown field"),
        (object_of("v1", "Secret", data={"a": "no base64"}), ".data.a: 'no base64' is no byte"),
        (object_of("v1", "Secret", stringData={"a": 1}), ".stringData.a: must be string"),
        (object_of("v1", "ConfigMap", data={"a/b": "x"}), ".data: 'a/b' is no key"),
        (object_of("v1", "ConfigMap", data={"a": "x" * (1 << 20)}), ".data: 1048577 bytes, more than 1 MiB"),
        (object_of("v1", "PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"]}),
         ".spec.resources.requests.storage: is missing"),
        (changed(object_of("v1", "PersistentVolumeClaim", spec=CLAIM), "spec/resources/requests/storage", "100 GiB"),
         ".spec.resources.requests.storage: '100 GiB' does not match"),
        (job(restartPolicy="Always"), ".spec.template.spec.restartPolicy: 'Always' is none of OnFailure, Never"),
        (job(containers=[MOUNT]), ".spec.template.spec.containers.ship.volumeMounts: there is no volume 'gone'"),
        (job(volumes=[{"name": "x", "emptydir": {}}]), ".spec.template.spec.volumes[0].emptydir: unknown field"),
        (job(volumes=[{"name": "x"}]), ".spec.template.spec.volumes.x: needs one source"),
        (job(containers=[{"name": "A", "image": "x"}]), ".spec.template.spec.containers: 'A' is no name"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value)[:60] if isinstance(value, str) else value.get("kind"),
)  # fmt: skip
def test_each_fault_is_refused_by_name(obj: dict[str, Any], said: str):
    (found,) = problems([obj], crds_for(*NEWEST))
    assert found.startswith(f"{obj['kind']}/{obj['metadata']['name']}: {said}")


def test_every_fault_of_every_object_is_named():
    wrong = [service(minReplicas="1", maxReplcas=2), object_of("v1", "Secret", stringdata={}, data={"a": 1})]
    assert len(problems(wrong, crds_for(*NEWEST))) == 4


def test_defaults_are_filled_in_before_rules_are_asked():
    # Without the default `strictFIFO` and its kin nothing is missing, and what is given stays as it is.
    given = queue()
    before = copy.deepcopy(given)
    assert problems([given], crds_for(*NEWEST)) == []
    assert given == before


def test_old_versions_are_taken_with_a_warning():
    old = queue(version="v1beta1")
    assert problems([old], crds_for(*NEWEST)) == []
    (text,) = warnings([old], crds_for(*NEWEST))
    assert text.startswith("ClusterQueue/one: kueue.x-k8s.io/v1beta1 ")
    assert warnings([queue(), service()], crds_for(*NEWEST)) == []


@pytest.mark.parametrize(
    ("platform", "version", "field", "taken"),
    [
        (("rhoai", "3.0"), "v1alpha1", None, True),
        (("rhoai", "3.3"), "v1alpha2", None, False),
        (("rhoai", "3.3"), "v1alpha1", "labels", False),
        (("rhoai", "3.3"), "v1alpha1", "tracing", False),
        (("rhoai", "3.4"), "v1alpha1", "labels", True),
        (("rhoai", "3.4"), "v1alpha2", "labels", True),
        (("rhoai", "3.4"), "v1alpha2", "tracing", False),
        (("rhoai", "3.5"), "v1alpha2", "tracing", True),
        (("kserve", "0.15"), "v1alpha1", None, False),
        (("kserve", "0.17"), "v1alpha2", "tracing", False),
        (("kserve", "0.20"), "v1alpha2", "tracing", True),
    ],
)
def test_a_release_takes_what_its_own_definition_has(platform, version: str, field: str | None, taken: bool):
    found = problems([llm_service(version, **({field: {}} if field else {}))], crds_for(*platform))
    assert (found == []) is taken


def test_between_two_releases_an_object_has_to_suit_both():
    # Known to KServe 0.20 and not to 0.15, so nothing to rely on in 0.17.
    newer = changed(service(), f"{MODEL}/lifecycle", {"stopSignal": "SIGTERM"})
    assert problems([newer], crds_for("kserve", "0.20")) == []
    assert problems([newer], crds_for("kserve", "0.17")) != []


def test_a_platform_that_nobody_knows_has_no_definitions():
    with pytest.raises(KeyError):
        crds_for("rhoai", "2.25")


def test_every_rule_of_every_definition_can_be_evaluated():
    known = {*celpy.evaluation.base_functions, *_FUNCTIONS, "has", "all", "exists", "exists_one", "filter", "map"}
    rules = {
        rule for path in SHARED_CRDS.rglob("*.yaml") for rule in rules_of(yaml.load(path.read_text(), yaml.CSafeLoader))
    }
    assert len(rules) > 100
    for rule in rules:
        program(rule)
        assert set(re.findall(r"\b([a-z]\w+)\(", re.sub(r"'[^']*'|\"[^\"]*\"", "", rule))) <= known, rule


def rules_of(found: Any) -> set[str]:
    if isinstance(found, list):
        return {rule for each in found for rule in rules_of(each)}
    if not isinstance(found, dict):
        return set()
    own = found.get("x-kubernetes-validations", [])
    texts = {each["rule"] for each in own if isinstance(each, dict) and "oldSelf" not in each.get("rule", "oldSelf")}
    return texts | {rule for each in found.values() for rule in rules_of(each)}

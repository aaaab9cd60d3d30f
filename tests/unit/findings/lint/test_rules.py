"""Every rule: something that breaks it, and its neighbour that does not. And our own trees, which break none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.yamlio import read_documents, write_documents
from modelberth.catalog.platforms import platform
from modelberth.findings.lint.run import RULES, lint
from modelberth.findings.lint.world import Manifest, World
from stacks import PLATFORMS, everything, stack_data, tree_of

SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: m
  namespace: ns
  labels: {}
  annotations: {serving.kserve.io/deploymentMode: RawDeployment}
spec:
  predictor:
    minReplicas: 1
    securityContext: {runAsNonRoot: true}
    tolerations: [{key: nvidia.com/gpu, operator: Exists}]
    nodeSelector: {node.kubernetes.io/instance-type: g6.12xlarge}
    volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 8Gi}}]
    model:
      runtime: r
      storageUri: s3://models/m/
      args: [--served-model-name=m, --tensor-parallel-size=4, --max-model-len=32768]
      volumeMounts: [{name: shm, mountPath: /dev/shm}]
      startupProbe: {httpGet: {path: /health, port: 8080}}
      resources:
        requests: {cpu: 8, memory: 32Gi, ephemeral-storage: 60Gi, nvidia.com/gpu: 4}
        limits: {nvidia.com/gpu: 4, memory: 64Gi}
"""
JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {name: j, namespace: ns, annotations: {}, labels: {}}
spec:
  backoffLimit: 1
  activeDeadlineSeconds: 60
  ttlSecondsAfterFinished: 60
  template:
    spec:
      securityContext: {runAsNonRoot: true}
      containers:
        - name: c
          image: quay.io/a/b:1
          env: [{name: HOME, value: /tmp}]
          command: [sh, -c, "echo"]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          resources: {requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}}
"""
RUNTIME = """\
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {name: r, namespace: ns, annotations: {}}
spec:
  containers:
    - name: kserve-container
      image: quay.io/a/vllm:1
      args: [--port=8080]
      securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
QUEUE = """\
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {name: cq}
spec:
  resourceGroups:
    - coveredResources: [cpu, memory, nvidia.com/gpu]
      flavors: [{name: f, resources: [{name: nvidia.com/gpu, nominalQuota: "8"}]}]
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: LocalQueue
metadata: {name: lq, namespace: ns}
spec: {clusterQueue: cq}
"""
LABELLED = "labels: {kueue.x-k8s.io/queue-name: lq}"
IN_QUEUE = (
    SERVICE.replace("labels: {}", LABELLED)
    .replace("    tolerations: [{key: nvidia.com/gpu, operator: Exists}]\n", "")
    .replace("    nodeSelector: {node.kubernetes.io/instance-type: g6.12xlarge}\n", "")
    .replace("ephemeral-storage: 60Gi, ", "")
)
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ns}\n"
LLM = """\
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {name: l, namespace: ns}
spec:
  model: {uri: s3://models/l/}
  template:
    tolerations: [{key: nvidia.com/gpu, operator: Exists}]
    containers:
      - name: main
        resources: {requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 9Gi}, limits: {nvidia.com/gpu: 1}}
"""


def world(*texts: str, at: str | None = None, models=None, files: tuple[str, ...] = ()) -> World:
    """Each text is a file of its own: f0.yaml, f1.yaml, or as its first line `# path` says."""
    manifests, names = [], []
    for index, text in enumerate(texts):
        first = text.partition("\n")[0]
        name = first.removeprefix("# ") if first.startswith("# ") else f"f{index}.yaml"
        names.append(name)
        manifests += [Manifest(document) for document in read_documents(text.encode(), name)]
    folders = {str(Path(name).parent) for name in (*names, *files)}
    facts = platform(*at.split(":")) if at else None
    return World(tuple(manifests), frozenset({*names, *files}), facts, models or {},
                 {folder: frozenset() for folder in folders})  # fmt: skip


def ids(found: World) -> set[int]:
    return {each.rule.number for each in lint(found, {})}


def swap(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


# Rule -> what breaks it. Everything else in those worlds is as it should be.
BREAK: dict[int, World] = {
    101: world(swap(SERVICE, "s3://models/m/", "s3://models/m")),
    102: world(swap(SERVICE, "      args", "      storage: {path: m/}\n      args")),
    103: world(SECRET.replace("name: s,", "name: storage-config,"), at="rhoai:3.0"),
    104: world(SECRET + "stringData: {AWS_SECRET_ACCESS_KEY: abcdefgh}\n"),
    105: world(swap(JOB, "{name: HOME, value: /tmp}", "{name: S3_SECRET_KEY, value: abcdefgh}")),
    106: world(SECRET.replace("namespace: ns", "annotations: {opendatahub.io/connection-type: s3}")),
    107: world(swap(SERVICE, "s3://models/m/", "oci://quay.io/a/m")),
    201: world(swap(SERVICE, "--max-model-len=32768", "--enable-auto-tool-choice")),
    202: world(swap(SERVICE, "--max-model-len=32768", "--tool-call-parser=mistral")),
    203: world(swap(SERVICE, "--max-model-len=32768", "--chat-template=granite")),
    204: world(swap(SERVICE, "--max-model-len=32768", "--trust-remote-code")),
    205: world(swap(SERVICE, "--max-model-len=32768", "--max-model-len=1, --max-model-len=2")),
    206: world(swap(SERVICE, "--max-model-len=32768", '"--max-model-len 32768"')),
    207: world(swap(SERVICE, "--max-model-len=32768", "--max-model-len, '32768'")),
    208: world(swap(SERVICE, "--max-model-len=32768", "--enable-log-requests"), at="rhoai:3.0"),
    209: world(swap(SERVICE, "--max-model-len=32768",
                    "--max-model-len=4096, --enable-auto-tool-choice, --tool-call-parser=mistral")),
    212: world(swap(SERVICE, "      args", "      env: [{name: LD_LIBRARY_PATH, value: /x}]\n      args")),
    213: world(SERVICE.replace("--served-model-name=m, ", ""), swap(RUNTIME, "--port=8080", "--served-model-name=x")),
    301: world(IN_QUEUE.replace("    minReplicas", "    tolerations: [{operator: Exists}]\n    minReplicas"), QUEUE),
    302: world(IN_QUEUE.replace("    minReplicas", "    nodeSelector: {a: b}\n    minReplicas"), QUEUE),
    303: world(swap(SERVICE, "annotations: {", "annotations: {opendatahub.io/hardware-profile-name: p, ")),
    304: world(IN_QUEUE.replace("memory: 32Gi,", "memory: 32Gi, ephemeral-storage: 1Gi,"), QUEUE),
    305: world(IN_QUEUE.replace("queue-name: lq", "queue-name: other"), QUEUE),
    306: world(
        "apiVersion: infrastructure.opendatahub.io/v1\nkind: HardwareProfile\nmetadata: {name: p, namespace: x}\n"
        "spec: {scheduling: {type: Queue, kueue: {localQueueName: other}}}\n", QUEUE),
    307: world(swap(SERVICE, "    tolerations: [{key: nvidia.com/gpu, operator: Exists}]\n", "")),
    308: world(swap(SERVICE, "--tensor-parallel-size=4", "--tensor-parallel-size=2")),
    309: world(swap(SERVICE, "60Gi, nvidia.com/gpu: 4", "60Gi, nvidia.com/gpu: 2")),
    310: world(IN_QUEUE, QUEUE.replace('"8"', '"2"')),
    311: world(JOB.replace("labels: {}", LABELLED), QUEUE),
    312: world(QUEUE.replace("name: lq", "name: default"), at="rhoai:3.0"),
    313: world(swap(SERVICE, "minReplicas: 1", "minReplicas: 0")),
    401: world(swap(SERVICE, "      volumeMounts: [{name: shm, mountPath: /dev/shm}]\n", "")),
    402: world(swap(SERVICE, "sizeLimit: 8Gi", "sizeLimit: 2Gi")),
    403: world(swap(SERVICE, "startupProbe", "livenessProbe")),
    404: world(swap(SERVICE, "      startupProbe: {httpGet: {path: /health, port: 8080}}\n", "")),
    405: world(IN_QUEUE, QUEUE.replace('"8"', '"4"')),
    406: world(swap(SERVICE, "cpu: 8, memory: 32Gi, ", "")),
    407: world(swap(SERVICE, "ephemeral-storage: 60Gi, ", "")),
    501: world(swap(JOB, "securityContext: {runAsNonRoot: true}", "securityContext: {}")),
    502: world(swap(JOB, "runAsNonRoot: true", "runAsNonRoot: true, runAsUser: 0")),
    503: world(swap(JOB, "capabilities: {drop: [ALL]}", "capabilities: {}")),
    504: world(swap(SERVICE, "labels: {}", "labels: {networking.kserve.io/visibility: exposed}")),
    601: world(swap(JOB, '"echo"', '"post s3://models/oci://quay.io/a"')),
    602: world(swap(JOB, '"echo"', '"try: x()\\nexcept: pass"')),
    603: world(swap(JOB, '"echo"', '"if found[\'KeyCount\'] >= 5: print(\'already there\')"')),
    604: world(swap(JOB, '"echo"', '"pip install boto3"')),
    605: world(swap(JOB, "quay.io/a/b:1", "quay.io/a/b:latest")),
    606: world(swap(JOB, "  activeDeadlineSeconds: 60\n", "")),
    607: world(JOB.replace('"echo"', '"hf download a/b"').replace(", ephemeral-storage: 1Gi", "")),
    608: world(swap(JOB, "annotations: {}", 'annotations: {argocd.argoproj.io/sync-wave: "5"}')),
    609: world(
        "apiVersion: v1\nkind: PersistentVolumeClaim\n"
        'metadata: {name: c, namespace: ns, annotations: {argocd.argoproj.io/sync-wave: "1"}}\n',
        JOB.replace("annotations: {}", 'annotations: {argocd.argoproj.io/sync-wave: "5", argocd.argoproj.io/hook: X}')
        + "      volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]\n"),
    610: world(swap(JOB, "{name: HOME, value: /tmp}", '{name: HF_HUB_OFFLINE, value: "1"}')),
    611: world(swap(JOB, '"echo"', "\"curl $R/api/model_registry/x | grep '\\\"name\\\"'\"")),
    612: world(swap(JOB, "cpu: 1, memory: 1Gi, ", "")),
    701: world(swap(SERVICE, "deploymentMode: RawDeployment", "deploymentMode: Standard"), at="rhoai:3.0"),
    702: world(swap(SERVICE, "deploymentMode: RawDeployment", "deploymentMode: Serverless"), at="rhoai:3.0"),
    703: world(LLM, at="rhoai:3.0"),
    704: world("apiVersion: infrastructure.opendatahub.io/v1alpha1\nkind: HardwareProfile\nmetadata: {name: p}\n"),
    705: world(QUEUE, at="kserve:0.20"),
    706: world(swap(SERVICE, "name: m\n", f"name: {'m' * 54}\n")),
    707: world(SERVICE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {url: http://m.ns.svc/v1}\n"),
    708: world(swap(RUNTIME, "annotations: {}", "annotations: {opendatahub.io/runtime-version: v0.11.2}"),
               at="rhoai:3.0"),
    709: world(swap(SERVICE, "runtime: r", "runtime: other"), RUNTIME),
    710: world("apiVersion: nvidia.com/v1\nkind: ClusterPolicy\nmetadata: {name: p}\n"
               "spec: {driver: {version: 570.195.03}}\n", at="rhoai:3.3"),
    711: world(QUEUE.replace("v1beta1", "v1beta2").replace(
        "  resourceGroups", "  flavorFungibility: {whenCanBorrow: Borrow}\n  resourceGroups")),
    801: world("# k/kustomization.yaml\nkind: Kustomization\nresources: [a.yaml]\n"),
    802: world("# k/kustomization.yaml\nkind: Kustomization\nresources: []\n", "# k/a.yaml\n" + JOB),
    803: world("# k/kustomization.yaml\nkind: Kustomization\ncommonLabels: {a: b}\n"),
    804: world("# k/kustomization.yaml\nkind: Kustomization\nnamespace: other\nresources: [a.yaml]\n",
               "# k/a.yaml\n" + JOB),
    805: world(swap(SERVICE, "annotations: {", "annotations: {openshift.io/display-name: M FP8, ").replace(
        "s3://models/m/", "s3://models/m-w4a16/")),
}  # fmt: skip

# Other ways to break them.
ALSO: list[tuple[int, World]] = [
    (104, world(SECRET.replace("Secret", "ConfigMap") + "data: {AWS_SECRET_ACCESS_KEY: abcdefgh}\n")),
    (104, world(SECRET + 'data: {minio: "eyJhY2Nlc3Nfa2V5X2lkIjoiYWJjIn0="}\n')),
    (104, world("# k/kustomization.yaml\nsecretGenerator: [{name: s, literals: [AWS_SECRET_ACCESS_KEY=abcdefgh]}]\n")),
    (105, world(swap(SERVICE, "--max-model-len=32768", "--api-key=abcdefgh"))),
    (105, world(swap(SERVICE, "--max-model-len=32768", "--api-key, abcdefgh"))),
    (105, world(swap(JOB, "{name: HOME, value: /tmp}", f"{{name: AUTH, value: hf_{'a' * 34}}}"))),
    (212, world(swap(RUNTIME, "      args", "      env: [{name: LD_LIBRARY_PATH, value: /x}]\n      args"))),
    (304, world(IN_QUEUE, QUEUE.replace("[cpu, memory, nvidia.com/gpu]", "[cpu, nvidia.com/gpu]"))),
    (304, world(JOB.replace("labels: {}", LABELLED), QUEUE)),
    (313, world(swap(SERVICE, "annotations: {serving.kserve.io/deploymentMode: RawDeployment}", "annotations: {}")
                .replace("minReplicas: 1", "minReplicas: 0"), at="rhoai:3.0")),
    (606, world("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j}\n"
                "spec: {jobTemplate: {spec: {backoffLimit: 1}}}\n")),
    (707, world(SERVICE, "kind: ConfigMap\ndata: {url: http://m-predictor.ns.svc/v1}\n", at="rhoai:3.0")),
    (801, world("# k/kustomization.yaml\nkind: Kustomization\npatches: [{path: a.yaml}]\n")),
    (801, world("# k/kustomization.yaml\nkind: Kustomization\nresources: [sub]\n", files=("k/sub/a.yaml",))),
]  # fmt: skip

# What must be taken: the neighbours of those above.
KEEP: dict[str, World] = {
    "a service": world(SERVICE),
    "a Job": world(JOB),
    "a runtime and its service": world(SERVICE, RUNTIME),
    "a service in a queue with room": world(IN_QUEUE, QUEUE),
    "an llm-d service": world(LLM, at="rhoai:3.4"),
    "references and placeholders": world(
        SECRET + "stringData: {AWS_SECRET_ACCESS_KEY: $(SECRET), password: <your password>, note: hello}\n",
        JOB.replace("{name: HOME, value: /tmp}",
                    "{name: TOKEN_FILE, value: /run/token}, {name: MAX_TOKENS, value: '200'}, "
                    "{name: TOKENIZER_MODE, value: mistral}")),
    "storage-config on KServe": world(SECRET.replace("name: s,", "name: storage-config,"), at="kserve:0.20"),
    "a key beside the address": world(swap(SERVICE, "      args", "      storage: {key: k}\n      args")),
    "images with tag and digest": world(
        SERVICE.replace("s3://models/m/", "oci://quay.io:5000/a/m:1"),
        JOB.replace("quay.io/a/b:1", f"quay.io/a/b@sha256:{'a' * 64}")),
    "tools": world(swap(SERVICE, "--max-model-len=32768", "--enable-auto-tool-choice, --tool-call-parser=mistral")),
    "flags of the release": world(swap(SERVICE, "--max-model-len=32768", "--enable-log-requests"), at="rhoai:3.2"),
    "the driver of CUDA 12": world("apiVersion: nvidia.com/v1\nkind: ClusterPolicy\nmetadata: {name: p}\n"
                                   "spec: {driver: {version: 570.195.03}}\n", at="rhoai:3.0"),
    "templates": world(swap(SERVICE, "--max-model-len=32768", "--chat-template=/opt/t.jinja"),
                       swap(SERVICE, "--max-model-len=32768", "'--chat-template={% x %}'")),
    "a service that replaces its pod": world(
        IN_QUEUE.replace("    minReplicas", "    deploymentStrategy: {type: Recreate}\n    minReplicas"),
        QUEUE.replace('"8"', '"4"')),
    "liveness after startup": world(swap(SERVICE, "      startupProbe", "      livenessProbe: {}\n      startupProbe")),
    "a guarded door": world(SERVICE.replace("labels: {}", "labels: {networking.kserve.io/visibility: exposed}").replace(
        "annotations: {", 'annotations: {security.opendatahub.io/enable-auth: "true", ')),
    "the service's right URL": world(
        SERVICE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
        "data: {url: 'http://m-predictor.ns.svc:8080/v1', store: 'http://minio.store.svc:9000'}\n"),
    "a hook": world(swap(
        JOB, "annotations: {}", 'annotations: {argocd.argoproj.io/sync-wave: "5", argocd.argoproj.io/hook: PostSync}')),
    "a kustomization": world("# k/kustomization.yaml\nkind: Kustomization\nresources: [a.yaml, sub, 'https://x/y?ref=1']\n",
                             "# k/a.yaml\n" + JOB, "# k/sub/kustomization.yaml\nkind: Kustomization\n"),
    "a service of another engine": world(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: s}\n"
        "spec: {predictor: {model: {modelFormat: {name: sklearn}, storageUri: s3://a/m.bin, args: [-w=2]}}}\n"),
    "KServe's own server": world(swap(SERVICE, "--max-model-len=32768", "--model_name=m, --task=generate")),
    "secrets that are none": world(
        SECRET + "stringData: {password: '${PASSWORD}', token: REPLACE_ME}\n",
        swap(SERVICE, "--max-model-len=32768", "--api-key=$(API_KEY)"),
        SECRET.replace("Secret", "ConfigMap") + "data: {eos_token: </s>, note: text}\n",
        SECRET + 'data: {note: "eyJhIjoiYiJ9"}\n'),
    "room for tools": world(swap(SERVICE, "--max-model-len=32768",
                                 "--max-model-len=8192, --enable-auto-tool-choice, --tool-call-parser=mistral")),
    "a namespace that a kustomization sets": world(
        IN_QUEUE.replace("  namespace: ns\n", ""), QUEUE, RUNTIME.replace(", namespace: ns", "")),
    "Kueue's new words": world(QUEUE.replace("v1beta1", "v1beta2").replace(
        "  resourceGroups", "  flavorFungibility: {whenCanBorrow: MayStopSearch}\n  resourceGroups")),
    "upstream's port 80": world(
        SERVICE, "kind: ConfigMap\ndata: {url: http://m-predictor.ns.svc/v1}\n", at="kserve:0.17"),
    "what is no Kubernetes": world("a: 1\n", "- 1\n- 2\n", "text\n"),
    "odd shapes": world("kind: InferenceService\nspec: text\n", "kind: Job\nspec: {template: [1]}\n",
                        "kind: ClusterQueue\nspec: {resourceGroups: {a: 1}}\n", "kind: Secret\nstringData: [1]\n",
                        "kind: InferenceService\nmetadata: {annotations: [], labels: text}\n"
                        "spec: {predictor: {model: {}}}\n"),
}  # fmt: skip
# What these worlds have beside: an LLMInferenceService leaves security to its presets, an empty service has nothing.
BESIDE = {"odd shapes": {501, 606}, "a service of another engine": {501}}


@pytest.mark.parametrize("number", BREAK)
def test_what_breaks_a_rule_is_found(number: int):
    assert number in ids(BREAK[number])


@pytest.mark.parametrize("index", range(len(ALSO)))
def test_other_ways_to_break_it_are_found(index: int):
    number, whole = ALSO[index]
    assert number in ids(whole)


def test_no_finding_shows_a_secret():
    secret = "sk-never-shown"  # in one word, in two words that are one, and in two
    for words in (f"--api-key={secret}", f"'--api-key {secret}'", f"--api-key, {secret}"):
        found = lint(world(swap(SERVICE, "--max-model-len=32768", words)), {})
        assert found
        assert not [each for each in found if secret in each.hit.message + each.hit.fix]


@pytest.mark.parametrize("name", KEEP)
def test_what_is_right_is_left_alone(name: str):
    assert ids(KEEP[name]) - BESIDE.get(name, set()) == set()


def test_short_forms_count_and_what_a_shell_takes_does_not():
    assert ids(world(swap(SERVICE, "--tensor-parallel-size=4", "-tp, '4'"))) == {207}
    assert ids(world(swap(SERVICE, "--tensor-parallel-size=4", "-c, 'set -e', -tp=4"))) == set()
    assert 308 in ids(world(swap(SERVICE, "--tensor-parallel-size=4", "-tp=2")))


def spoiled(value, path: list[int], junk):
    """A copy in which one place, found by following numbers, holds something else."""
    if not path or not isinstance(value, dict | list) or not value:
        return junk
    number, rest = path[0] % len(value), path[1:]
    if isinstance(value, list):
        return [spoiled(each, rest, junk) if index == number else each for index, each in enumerate(value)]
    return {
        key: spoiled(each, rest, junk) if index == number else each for index, (key, each) in enumerate(value.items())
    }


JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "text", "1e9", [], [1], [[]], {}, {"a": 1}, [{"name": 1}], {"name": []}]
)
WORLDS = [*BREAK.values(), *(each for _, each in ALSO), *KEEP.values()]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(range(len(WORLDS))), st.lists(st.integers(0, 9), min_size=1, max_size=9), JUNK)
def test_no_rule_breaks_on_what_is_no_manifest(number: int, path: list[int], junk):
    whole = WORLDS[number]
    texts = [write_documents([spoiled(each.data, path, junk)]) for each in whole.manifests]
    documents = [each for text in texts for each in read_documents(text.encode(), "f.yaml")]
    spoilt = World(tuple(Manifest(each) for each in documents), whole.files, whole.platform, {}, whole.folders)
    lint(spoilt, {})


def test_every_rule_has_a_case_or_needs_a_model():
    assert {each.number for each in RULES} - set(BREAK) == {1, 901, 902, 903, 904, 905, 906}
    assert len({each.number for each in RULES}) == len(RULES)


@pytest.mark.parametrize("kind_and_version", PLATFORMS, ids="-".join)
@pytest.mark.parametrize("wanted", ["plain", "everything"])
def test_our_own_trees_break_none(kind_and_version: tuple[str, str], wanted: str):
    kind, version = kind_and_version
    plain = stack_data(platform={"kind": kind, "version": version})
    data = everything(kind, version) if wanted == "everything" else plain
    files = {file.path: file.text for file in tree_of(data).files if file.path.endswith(".yaml")}
    manifests = [Manifest(each) for path, text in files.items() for each in read_documents(text.encode(), path)]
    folders = {str(parent): frozenset() for path in files for parent in Path(path).parents}
    found = lint(World(tuple(manifests), frozenset(files), platform(kind, version), {}, folders), {})
    assert [(each.rule.id, each.source, each.hit.message) for each in found] == []

"""All manifests of a run, and the questions that rules ask of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from modelberth.base.yamlio import LooseDocument, Path, Position
from modelberth.catalog import flags
from modelberth.catalog.platforms import Platform
from modelberth.sizing.model import Model

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PROFILE_NAME = "opendatahub.io/hardware-profile-name"
GPU = "nvidia.com/gpu"
_VLLMS_OWN = {"max-model-len", "tensor-parallel-size", "gpu-memory-utilization", "served-model-name"}
_WORKLOADS = {"Job", "CronJob", "Deployment", "StatefulSet", "DaemonSet", "Pod"}


@dataclass(frozen=True)
class Manifest:
    """One object of one file.

    Attributes:
        document: what was read, with positions.
        base: path of the object in its document: empty, or an item of a List.
    """

    document: LooseDocument
    base: Path = ()

    @cached_property
    def data(self) -> dict[str, Any]:
        """The object as plain data."""
        value: Any = self.document.data
        for part in self.base:
            value = value[part]
        return value if isinstance(value, dict) else {}

    @property
    def source(self) -> str:
        """Name of its file."""
        return self.document.source

    @property
    def kind(self) -> str:
        """Its kind; empty for what has none."""
        return text(self.data.get("kind"))

    @property
    def api_version(self) -> str:
        """Its apiVersion."""
        return text(self.data.get("apiVersion"))

    @property
    def name(self) -> str:
        """Its name."""
        return text(self.get("metadata", "name"))

    @property
    def namespace(self) -> str:
        """Its namespace; empty where it names none."""
        return text(self.get("metadata", "namespace"))

    @property
    def labels(self) -> Mapping[str, Any]:
        """Its labels."""
        return mapping(self.get("metadata", "labels"))

    @property
    def annotations(self) -> Mapping[str, Any]:
        """Its annotations."""
        return mapping(self.get("metadata", "annotations"))

    def get(self, *path: str | int) -> Any:
        """The value at a path; None where there is none."""
        value: Any = self.data
        for part in path:
            value = _child(value, part)
        return value

    def position(self, path: Path, *, of_key: bool = False) -> Position:
        """Where a value, or its nearest parent, stands in the file."""
        return self.document.position((*self.base, *path), of_key=of_key)


@dataclass(frozen=True)
class Container:
    """A container, and the pod it is in.

    Attributes:
        manifest: the object.
        path: of the container.
        pod: path of its pod's spec.
        init: whether it runs before the others.
    """

    manifest: Manifest
    path: Path
    pod: Path
    init: bool = False

    def get(self, *path: str | int) -> Any:
        """A value of the container."""
        return self.manifest.get(*self.path, *path)

    def pod_get(self, *path: str | int) -> Any:
        """A value of its pod."""
        return self.manifest.get(*self.pod, *path)

    @property
    def environment(self) -> list[tuple[int, str, str]]:
        """Index, name and plain value of its variables; those from references have an empty value."""
        found = []
        for index, each in enumerate(items(self.get("env"))):
            entry = mapping(each)
            found.append((index, text(entry.get("name")), text(entry.get("value"))))
        return found

    @property
    def words(self) -> list[tuple[Path, str]]:
        """Command and arguments, each with its path."""
        return [
            ((*self.path, key, index), text(word))
            for key in ("command", "args")
            for index, word in enumerate(items(self.get(key)))
        ]

    @property
    def script(self) -> str:
        """Command and arguments as one text, to look for what they do."""
        return "\n".join(word for _, word in self.words)


@dataclass(frozen=True)
class Argument:
    """One flag of vLLM.

    Attributes:
        flag: without dashes, `_` as `-`.
        value: empty where it stands alone.
        manifest: the object it stands in.
        path: of the word.
        words: how many words it took: 2 where its value is the next one.
    """

    flag: str
    value: str
    manifest: Manifest
    path: Path
    words: int = 1


@dataclass(frozen=True)
class ServedModel:
    """An InferenceService or LLMInferenceService that runs vLLM.

    Attributes:
        manifest: the object.
        container: what runs the engine.
        runtime: the ServingRuntime it names, where that is among the manifests.
    """

    manifest: Manifest
    container: Container
    runtime: Manifest | None

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """What vLLM is started with: the runtime's arguments, then the service's own."""
        found = []
        if self.runtime:
            for index, _ in enumerate(items(self.runtime.get("spec", "containers"))):
                found += _arguments(self.runtime, ("spec", "containers", index, "args"))
        found += _arguments(self.manifest, (*self.container.path, "args"))
        for index, name, value in self.container.environment:
            if name == "VLLM_ADDITIONAL_ARGS":
                found += _of_words(self.manifest, [((*self.container.path, "env", index, "value"), each)
                                                   for each in _split(value)])  # fmt: skip
        return tuple(found)

    def argument(self, flag: str) -> Argument | None:
        """The last argument of that flag, which is the one that counts."""
        return next((each for each in reversed(self.arguments) if each.flag == flag), None)

    def gpus(self, side: str = "limits") -> int | None:
        """GPUs of one pod."""
        value = self.container.get("resources", side, GPU)
        return int(text(value)) if text(value).isdigit() else None

    @property
    def tensor_parallel(self) -> int:
        """Ranks that share the model."""
        argument = self.argument("tensor-parallel-size")
        return int(argument.value) if argument and argument.value.isdigit() else 1

    @property
    def weights(self) -> tuple[Path, str]:
        """Where the weights are, and the path of that."""
        if self.manifest.kind == "LLMInferenceService":
            return ("spec", "model", "uri"), text(self.manifest.get("spec", "model", "uri"))
        path = (*self.container.path, "storageUri")
        return path, text(self.manifest.get(*path))

    @property
    def pod(self) -> Path:
        """Path of the pod's spec."""
        return self.container.pod

    @cached_property
    def is_vllms_server(self) -> bool:
        """Whether the arguments are those of vLLM's own server: KServe's huggingfaceserver has flags of its own."""
        image = text(self.container.get("image"))
        wrapped = any(each.flag in {"model-name", "model-id", "model-dir"} for each in self.arguments)
        return not wrapped and (not image or "vllm" in image.lower())

    @cached_property
    def runs_vllm(self) -> bool:
        """Whether this is vLLM: it says so anywhere, or is started with flags that are vLLM's."""
        if self.manifest.kind == "LLMInferenceService" or any(each.flag in _VLLMS_OWN for each in self.arguments):
            return True
        said = [self.container.get(key) for key in ("image", "command", "args", "modelFormat", "runtime")]
        said += [self.runtime.get("spec", "containers")] if self.runtime else []
        return "vllm" in str(said).lower()


@dataclass(frozen=True)
class World:
    """Everything that a run looks at.

    Attributes:
        manifests: every object, in the order of files.
        files: names of all files that were read, Kubernetes objects or not.
        platform: what they are for; None where that is not known.
        models: models by the name of the service, where they were read.
        folders: names of folders that were read, each with the names of what is in it.
        patches: what kustomizations lay over other objects; they are no objects themselves.
        there: names of what kustomizations list and the disk has, read or not.
        release: of vLLM, where one is named; else it is the platform's.
    """

    manifests: tuple[Manifest, ...]
    files: frozenset[str] = frozenset()
    platform: Platform | None = None
    models: Mapping[str, Model] = field(default_factory=dict)
    folders: Mapping[str, frozenset[str]] = field(default_factory=dict)
    patches: tuple[Manifest, ...] = ()
    there: frozenset[str] = frozenset()
    release: str | None = None

    @property
    def vllm(self) -> str | None:
        """The release of vLLM that is held against; None where neither it nor the platform is known."""
        return self.release or (self.platform.vllm if self.platform else None)

    @cached_property
    def _by_kind(self) -> Mapping[str, tuple[Manifest, ...]]:
        found: dict[str, list[Manifest]] = {}
        for each in self.manifests:
            found.setdefault(each.kind, []).append(each)
        return {kind: tuple(group) for kind, group in found.items()}

    def of_kind(self, *kinds: str) -> tuple[Manifest, ...]:
        """The objects of some kinds."""
        return tuple(each for kind in kinds for each in self._by_kind.get(kind, ()))

    @cached_property
    def served(self) -> tuple[ServedModel, ...]:
        """Services that run vLLM; what other engines want is not ours to say."""
        runtimes = {(each.namespace, each.name): each for each in self.of_kind("ServingRuntime")}
        cluster = {each.name: each for each in self.of_kind("ClusterServingRuntime")}
        found = []
        for each in self.of_kind("InferenceService"):
            path, pod = _engine_of(each)
            name = text(each.get(*path, "runtime"))
            # One that leaves its namespace to a kustomization may be the service's.
            own = runtimes.get((each.namespace, name)) or runtimes.get(("", name))
            runtime = own or cluster.get(name)
            found.append(ServedModel(each, Container(each, path, pod), runtime))
        for each in self.of_kind("LLMInferenceService"):
            names = [text(mapping(one).get("name")) for one in items(each.get("spec", "template", "containers"))]
            index = names.index("main") if "main" in names else 0
            pod = ("spec", "template")
            found.append(ServedModel(each, Container(each, (*pod, "containers", index), pod), None))
        return tuple(each for each in found if each.runs_vllm)

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """Every container of workloads, runtimes and services."""
        found: list[Container] = []
        for each in self.manifests:
            for pod in _pods(each):
                found += _containers(each, pod)
            if each.kind == "InferenceService" and isinstance(each.get("spec", "predictor", "model"), dict):
                found.append(Container(each, ("spec", "predictor", "model"), ("spec", "predictor")))
        return tuple(found)

    @cached_property
    def is_openshift_ai(self) -> bool:
        """Whether this is for OpenShift AI: as the user says, else as labels and annotations of the dashboard say."""
        if self.platform is not None:
            return self.platform.is_openshift_ai
        return any(
            key.startswith("opendatahub.io/") for each in self.manifests for key in (*each.labels, *each.annotations)
        )


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def text(value: Any) -> str:
    """A scalar as text; empty for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping; an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> Sequence[Any]:
    """A list; an empty one for what is none."""
    return value if isinstance(value, list) else []


def _engine_of(service: Manifest) -> tuple[Path, Path]:
    pod: Path = ("spec", "predictor")
    if isinstance(service.get(*pod, "model"), dict):
        return (*pod, "model"), pod
    return (*pod, "containers", 0), pod


def _pods(manifest: Manifest) -> Iterator[Path]:
    """Paths of the pod specs in an object."""
    if manifest.kind == "Pod":
        yield ("spec",)
    elif manifest.kind == "CronJob":
        yield ("spec", "jobTemplate", "spec", "template", "spec")
    elif manifest.kind in _WORKLOADS:
        yield ("spec", "template", "spec")
    elif manifest.kind in {"ServingRuntime", "ClusterServingRuntime"}:
        yield ("spec",)
    elif manifest.kind == "InferenceService":
        yield from (("spec", part) for part in ("predictor", "transformer", "explainer"))
    elif manifest.kind == "LLMInferenceService":
        yield from (("spec", "template"), ("spec", "worker"), ("spec", "prefill", "template"))


def _containers(manifest: Manifest, pod: Path) -> Iterator[Container]:
    for key in ("initContainers", "containers"):
        for index, _ in enumerate(items(manifest.get(*pod, key))):
            yield Container(manifest, (*pod, key, index), pod, init=key == "initContainers")


def _arguments(manifest: Manifest, path: Path) -> list[Argument]:
    words = [((*path, index), text(word)) for index, word in enumerate(items(manifest.get(*path)))]
    return _of_words(manifest, words)


def _of_words(manifest: Manifest, words: Sequence[tuple[Path, str]]) -> list[Argument]:
    found: list[Argument] = []
    index = 0
    while index < len(words):
        path, word = words[index]
        index += 1
        flag, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            short = flags.flag(flag) if word.startswith("-") else None
            if short is None:
                continue  # a word, or a flag of the shell around it
            flag = short.name
        if not flag:
            continue
        taken = 1
        if not equals and index < len(words) and not words[index][1].startswith("-"):
            value, taken = words[index][1], 2
            index += 1
        found.append(Argument(flag.replace("_", "-"), value, manifest, path, taken))
    return found


def _split(text_of_words: str) -> list[str]:
    try:
        return shlex.split(text_of_words)
    except ValueError:
        return text_of_words.split()

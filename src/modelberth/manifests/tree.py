"""A stack as a GitOps tree: which object stands in which file, and what is applied before what.

gitops/<stack>/base/                 what `kubectl apply -k` or Argo CD brings to the cluster
    capacity/                        queue, hardware profiles, MachineSets
    storage/                         what brings the keys of the store
    serving-runtime/ inference/      one file a service
    model-registration/
gitops/<stack>/base/model-upload/    applied by itself and before: a service must not start on half a model
gitops/<stack>/argocd/               the Application that syncs base/
steps/<stack>/deploy.sh              preflight, ship, deploy, wait, verify, register: `berth deploy`
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelberth.base.errors import UsageError
from modelberth.base.yamlio import write_documents
from modelberth.catalog.platforms import Platform, platform
from modelberth.manifests import kueue, storage, upload_jobs
from modelberth.manifests.argo_cd import application
from modelberth.manifests.engine_args import engine_arguments
from modelberth.manifests.engine_flags import flag_problems
from modelberth.manifests.hardware_profiles import hardware_profiles
from modelberth.manifests.inference_service import inference_service
from modelberth.manifests.llm_inference_service import llm_inference_service
from modelberth.manifests.machine_sets import machine_sets
from modelberth.manifests.objects import Manifest
from modelberth.manifests.registration_job import registration
from modelberth.manifests.serving_runtime import serving_runtime
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack

_KUSTOMIZATION = "kustomization.yaml"


@dataclass(frozen=True)
class TreeFile:
    """One file of the tree.

    Attributes:
        path: relative to the folder that the tree is written to, with slashes.
        text: its whole content.
        executable: whether it is a program.
    """

    path: str
    text: str
    executable: bool = False


@dataclass(frozen=True)
class Tree:
    """What a stack becomes.

    Attributes:
        stack: its name.
        files: in the order of their paths' folders.
        notes: what the user should know, each in one sentence.
        objects: what base/ and the Application hold, in the order in which they are applied.
    """

    stack: str
    files: tuple[TreeFile, ...]
    notes: tuple[str, ...]
    objects: tuple[Manifest, ...]

    @property
    def applied(self) -> tuple[Manifest, ...]:
        """Those of them that are applied by hand: all but what Argo CD would do it with."""
        return tuple(each for each in self.objects if each["kind"] != "Application")


@dataclass(frozen=True)
class _Part:
    """One folder of base/: its files, each a name and the objects in it."""

    folder: str
    files: tuple[tuple[str, tuple[Manifest, ...]], ...]
    in_base: bool = True

    @property
    def objects(self) -> tuple[Manifest, ...]:
        return tuple(each for _, objects in self.files for each in objects)


def stack_tree(stack: Stack, *, spec_path: str) -> Tree:
    """Everything that a stack becomes on its platform.

    Args:
        stack: as read by `read_stack`.
        spec_path: the stack's file as seen from steps/<stack>/, for deploy.sh.

    Raises:
        UsageError: it cannot be rendered for its platform; every reason at once.
    """
    declared = stack.platform
    facts = platform(declared.kind, declared.version, release=declared.vllm, image=declared.engine_image)
    found = services(stack)
    _check_flags(found, facts)
    parts = [part for part in _parts(stack, facts, found) if part.files]
    base = f"gitops/{stack.metadata.name}/base"
    files = [_kustomization(base, [part.folder for part in parts if part.in_base])]
    for part in parts:
        folder = f"{base}/{part.folder}"
        files.append(_kustomization(folder, [name for name, _ in part.files]))
        files += [TreeFile(f"{folder}/{name}", write_documents(objects)) for name, objects in part.files]
    objects = tuple(each for part in parts if part.in_base for each in part.objects)
    if stack.argo_cd:
        synced = application(stack, stack.argo_cd, base)
        objects = (*objects, synced)
        files.append(TreeFile(f"gitops/{stack.metadata.name}/argocd/application.yaml", write_documents([synced])))
    files.append(TreeFile(f"steps/{stack.metadata.name}/deploy.sh", _deploy_script(spec_path), executable=True))
    return Tree(stack.metadata.name, tuple(files), tuple(_notes(stack, facts)), objects)


def _parts(stack: Stack, facts: Platform, found: Sequence[Service]) -> Iterable[_Part]:
    yield _part("capacity", [
        ("queue.yaml", kueue.queue_objects(stack, facts, found)),
        ("hardware-profiles.yaml", hardware_profiles(stack)),
        ("machine-sets.yaml", machine_sets(stack)),
    ])  # fmt: skip
    yield _part("storage", [
        ("connection.yaml", storage.external_secrets(stack)),
        ("service-account.yaml", storage.service_accounts(stack)),
    ])  # fmt: skip
    uploads = [(f"upload-{each.service}.yaml", each.objects) for each in upload_jobs.uploads(stack)]
    yield _part("model-upload", uploads, in_base=False)
    plain = any(service.model.kind == "InferenceService" for service in found)
    runtime = [(f"{stack.platform.runtime}.yaml", [serving_runtime(stack, facts)])] if plain else []
    yield _part("serving-runtime", runtime)
    spare = spare_gpus(stack, found)
    yield _part("inference", [(f"{each.name}.yaml", [_service(stack, facts, each, spare)]) for each in found])
    yield _part("model-registration", [("register.yaml", registration(stack))])


def _part(folder: str, files: Iterable[tuple[str, Sequence[Manifest]]], *, in_base: bool = True) -> _Part:
    return _Part(folder, tuple((name, tuple(objects)) for name, objects in files if objects), in_base)


def _service(stack: Stack, facts: Platform, service: Service, spare: dict[str, int]) -> Manifest:
    if service.model.kind == "LLMInferenceService":
        return llm_inference_service(stack, facts, service)
    return inference_service(stack, facts, service, spare)


def spare_gpus(stack: Stack, found: Sequence[Service]) -> dict[str, int]:
    """GPUs that no service has, by pool; never below zero."""
    spare = {pool.name: pool.count * pool.nodes for pool in stack.pools}
    for service in found:
        spare[service.pool.name] = max(0, spare[service.pool.name] - service.gpus)
    return spare


def _kustomization(folder: str, resources: Sequence[str]) -> TreeFile:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(resources),
    }
    return TreeFile(f"{folder}/{_KUSTOMIZATION}", write_documents([content]))


def _check_flags(found: Sequence[Service], facts: Platform) -> None:
    problems = [
        f"{service.name}: {problem}"
        for service in found
        for problem in flag_problems(engine_arguments(service).service, facts.vllm)
    ]
    if problems:
        raise UsageError(
            f"vLLM {facts.vllm} does not take these engine arguments", where="engineArgs", why="\n".join(problems),
            next_step="change them, or name the release of your image: platform: {vllm: ...}",
        )  # fmt: skip


def _notes(stack: Stack, facts: Platform) -> Iterable[str]:
    if not facts.pinned and "@" not in (stack.platform.engine_image or ""):
        yield (
            f"the image {facts.image} is named by a tag: no digest of {facts.title} {facts.version} is known here; "
            "platform.engineImage pins one"
        )
    yield from kueue.notes(stack)
    yield from storage.notes(stack)
    yield from upload_jobs.notes(stack)


def _deploy_script(spec_path: str) -> str:
    """A thin wrapper: everything is in `berth deploy`."""
    return "\n".join([
        "#!/bin/sh",
        "# Preflight, delivery, deployment, waiting, verification and registration, each of which can fail the run.",
        "set -eu",
        'cd "$(dirname "$0")"',
        f'exec berth deploy {shlex.quote(spec_path)} --ship --yes "$@"',
        "",
    ])  # fmt: skip

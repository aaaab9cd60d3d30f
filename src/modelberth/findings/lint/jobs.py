"""6xx: Jobs and scripts that deliver and register models."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelberth.base.yamlio import Path
from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import Container, Manifest, World, items, mapping, text

_JOBS = {"Job", "CronJob"}
_TWO_SCHEMES = re.compile(r"s3://[^\s\"']*oci://")
_JOINED = re.compile(r"""(?:URI|uri)\w*=["']?s3://\$\{?\w+\}?/\$\{?(\w+)\}?""")
_SWALLOWED = re.compile(r"except\s*:\s*(?:#[^\n]*)?\s*\n?\s*pass|except BaseException:\s*\n?\s*pass")
_COUNTED = re.compile(r"MaxKeys|KeyCount|len\([^)\n]*(?:Contents|objects|files|keys|list)[^)\n]*\)\s*>=?\s*\d", re.I)
_PIP = re.compile(r"\bpip3?\s+install\b")
_HOME = re.compile(r"\bHOME=")
_GREP_JSON = re.compile(r"grep[^|\n]*\"?name\"?|sed[^\n]*\"id\"")


@rule(
    601,
    "high",
    "an address with two schemes is registered",
    "The registry then says s3://bucket/oci://...: nobody can deploy from it, and what runs has no record.",
)
def two_schemes(world: World) -> Iterator[Hit]:
    """Scripts that put s3:// before whatever they are given."""
    for container in _of_jobs(world):
        for path, word in container.words:
            if _TWO_SCHEMES.search(word) or (_JOINED.search(word) and "oci://" in word):
                message = "s3://BUCKET/ is put before an address that is oci:// already"
                yield Hit(container.manifest, path, message, "register the service's own storageUri: berth register")


@rule(
    602,
    "high",
    "errors are swallowed, and the exit too",
    "A bare except catches SystemExit: sys.exit(0) after 'already there' ends nothing, and failures look like success.",
)
def swallowed(world: World) -> Iterator[Hit]:
    """Python that excepts everything and passes."""
    for container in _of_jobs(world):
        for path, word in container.words:
            if _SWALLOWED.search(word):
                fix = "except the error that is meant; or let berth ship do it"
                yield Hit(container.manifest, path, "`except: pass`", fix)


@rule(
    603,
    "high",
    "complete because some files are there",
    "An interrupted upload counts as complete: the service starts on half a model or without its config.json.",
)
def counted(world: World) -> Iterator[Hit]:
    """Scripts that count keys."""
    for container in _of_jobs(world):
        for path, word in container.words:
            if _COUNTED.search(word) and re.search(r"already|skip|exist", word, re.I):
                message = "the upload is skipped when enough keys are there"
                yield Hit(container.manifest, path, message, "a manifest of files, written last: berth ship")


@rule(
    604,
    "medium",
    "packages are installed at run time",
    "Every run depends on an index and on versions of that day; under a restricted user it fails without HOME.",
)
def run_time_install(world: World) -> Iterator[Hit]:
    """Pip install in a container's command."""
    for container in world.containers:
        for path, word in container.words:
            if _PIP.search(word):
                has_home = any(name == "HOME" for _, name, _ in container.environment) or _HOME.search(word)
                message = "pip install in the command" + ("" if has_home else ", and no HOME that can be written")
                yield Hit(container.manifest, path, message, "an image that has what it needs, such as berth's own")


@rule(
    605,
    "medium",
    "image without a fixed version",
    "What runs changes without a commit: a restart is an upgrade, and two pods of one service differ.",
)
def loose_image(world: World) -> Iterator[Hit]:
    """Images with latest or no tag."""
    for container in world.containers:
        image = text(container.get("image"))
        if image and "$(" not in image and _is_loose(image):
            yield Hit(container.manifest, (*container.path, "image"), f"{image} names no version", "a tag or a digest")


def _is_loose(image: str) -> bool:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return not digest and tag in {"", "latest", "stable", "main", "master", "nightly"}


@rule(
    606,
    "low",
    "a Job without an end",
    "Without a deadline it hangs for ever on a store that is away; without a time to live its pods stay.",
)
def endless(world: World) -> Iterator[Hit]:
    """Jobs without deadline, retries or time to live; those of a CronJob are cleared by its history limits."""
    wanted = ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
    for job in world.of_kind("Job", "CronJob"):
        path: Path = ("spec",) if job.kind == "Job" else ("spec", "jobTemplate", "spec")
        missing = [each for each in wanted[: 3 if job.kind == "Job" else 2] if job.get(*path, each) is None]
        if missing:
            yield Hit(job, path, f"{job.name} has no {', '.join(missing)}", "set them", of_key=True)


@rule(
    607,
    "medium",
    "an upload that says nothing of its disk",
    "Tens of gigabytes on the node's disk that nobody planned: the pod is evicted under pressure, and begins anew.",
)
def no_disk(world: World) -> Iterator[Hit]:
    """Jobs that download models without a request for disk."""
    for container in _of_jobs(world):
        if not re.search(r"snapshot_download|huggingface-cli|hf download|hf://", container.script):
            continue
        resources = mapping(container.get("resources", "requests"))
        if "ephemeral-storage" not in resources and not _has_claim(container):
            message = f"{container.manifest.name} downloads a model and asks for no disk"
            fix = "ephemeral-storage, or a volume; berth ship needs room for the parts under way alone"
            yield Hit(container.manifest, container.path, message, fix, of_key=True)


def _has_claim(container: Container) -> bool:
    return any("persistentVolumeClaim" in mapping(each) for each in items(container.pod_get("volumes")))


@rule(
    608,
    "medium",
    "a Job that Argo CD keeps out of sync",
    "Once it is done and cleared away, every sync makes it again, or the Application is never in sync.",
)
def job_in_sync(world: World) -> Iterator[Hit]:
    """Jobs with a time to live in manifests that Argo CD syncs."""
    for job in world.of_kind("Job"):
        waved = "argocd.argoproj.io/sync-wave" in job.annotations
        hooked = "argocd.argoproj.io/hook" in job.annotations
        if waved and not hooked and job.get("spec", "ttlSecondsAfterFinished") is not None:
            fix = "argocd.argoproj.io/hook: PostSync and hook-delete-policy: BeforeHookCreation"
            yield Hit(job, ("spec", "ttlSecondsAfterFinished"), f"{job.name} is synced and clears itself away", fix)


@rule(
    609,
    "medium",
    "a claim in an earlier wave than the pod that uses it",
    "With WaitForFirstConsumer the claim waits for its pod, and the wave for the claim: the sync never goes on.",
)
def claim_before_pod(world: World) -> Iterator[Hit]:
    """PersistentVolumeClaims whose sync wave lies before their Job's."""
    waves = {(each.namespace, each.name): (_wave(each), each) for each in world.of_kind("PersistentVolumeClaim")}
    for job in world.of_kind("Job"):
        for volume in items(job.get("spec", "template", "spec", "volumes")):
            name = text(mapping(mapping(volume).get("persistentVolumeClaim")).get("claimName"))
            wave, claim = waves.get((job.namespace, name), (0, None))
            if claim is not None and wave < _wave(job):
                message = f"{claim.name} is in wave {wave}, {job.name} in wave {_wave(job)}"
                yield Hit(claim, ("metadata", "annotations"), message, "one wave for both", of_key=True)


def _wave(manifest: Manifest) -> int:
    value = text(manifest.annotations.get("argocd.argoproj.io/sync-wave"))
    return int(value) if value.lstrip("-").isdigit() else 0


@rule(
    610,
    "high",
    "the download is told to be offline",
    "HF_HUB_OFFLINE forbids the very download that the Job is for.",
)
def offline(world: World) -> Iterator[Hit]:
    """HF_HUB_OFFLINE in Jobs that download."""
    for container in _of_jobs(world):
        for index, name, value in container.environment:
            if name == "HF_HUB_OFFLINE" and value.lower() in {"1", "true", "yes"}:
                path = (*container.path, "env", index, "value")
                yield Hit(container.manifest, path, "HF_HUB_OFFLINE is set", "remove it here")


@rule(
    611,
    "medium",
    "answers of a REST service are picked with grep and sed",
    "A model whose name contains another's counts as registered, and ids come from whatever line has one first.",
)
def grepped(world: World) -> Iterator[Hit]:
    """Scripts that search the model registry's JSON as text."""
    for container in _of_jobs(world):
        for path, word in container.words:
            if "model_registry" in word and _GREP_JSON.search(word):
                fix = "the registry's find endpoints: berth register"
                yield Hit(container.manifest, path, "JSON of the registry is searched as text", fix)


@rule(
    612,
    "low",
    "a Job that asks for no processor or memory",
    "It is the first to be evicted where memory is short, and a queue or a quota may refuse it.",
)
def no_requests(world: World) -> Iterator[Hit]:
    """Requests of Jobs' containers."""
    for container in _of_jobs(world):
        requests, limits = (mapping(container.get("resources", side)) for side in ("requests", "limits"))
        missing = [each for each in ("cpu", "memory") if each not in requests and each not in limits]
        if missing:
            message = f"{container.manifest.name} asks for no {' and no '.join(missing)}"
            yield Hit(container.manifest, container.path, message, "resources: {requests: ...}", of_key=True)


def _of_jobs(world: World) -> Iterator[Container]:
    return (each for each in world.containers if each.manifest.kind in _JOBS)


RULES = (
    two_schemes, swallowed, counted, run_time_install, loose_image, endless, no_disk, job_in_sync, claim_before_pod,
    offline, grepped, no_requests,
)  # fmt: skip

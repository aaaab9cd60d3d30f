"""The whole life of a service's start on the API server double, moment by moment, with the times that a cluster writes.

Objects are as Kueue, the scheduler, the kubelet and KServe leave them (see serving_scenes); the engine's log is a real
one (vLLM 0.32 on a CPU), each line at the time that it was written. The other times are chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from serving_scenes import LOGS, NAMESPACE, Scene

DAY = "2026-11-23T"
CREATED, ADMITTED, SCHEDULED, FETCHED_FROM, FETCHED_TO, STARTED, READY = (
    f"{DAY}{time}Z" for time in ("13:45:00", "13:46:00", "13:46:10", "13:46:40", "13:49:40", "13:50:35", "13:51:00")
)
IMAGE_BYTES = 8_123_456_789
STAGES = {
    "queue": 60.0, "scheduling": 10.0, "image": 85.0, "download": 180.0, "process": 11.0, "engine": 8.0,
    "weights": 0.0, "profile": 1.0, "kv-cache": 2.0, "server": 3.0,
}  # fmt: skip
"""Seconds of each stage, out of those times."""
_MARKS = ("Initializing a V1 LLM engine", "Starting to load model", "Loading weights took", "CPU KV cache size",
          "init engine (profile", "Engine 000")  # fmt: skip
_TIME = re.compile(r"(?:INFO|WARNING|ERROR) \d\d-\d\d (\d\d:\d\d:\d\d) ")
Document = dict[str, Any]
Moments = Iterator[tuple[str, str]]
_DONE = {"terminated": {"exitCode": 0, "startedAt": FETCHED_FROM, "finishedAt": FETCHED_TO}}


def moments(scene: Scene) -> Iterator[tuple[str, str]]:
    """Put one moment after the other on the server; after each, what is to be seen: the stage, and a part of why."""
    server = scene.server
    scene.service()
    _gated(scene)
    yield "queue", "insufficient unused quota"
    server.put(_workload(scene, admitted=True))
    _pod(scene, node="", conditions=[])
    yield "scheduling", ""
    _pod(scene)
    yield "image", "pulling example.com/vllm"
    _pod(scene, init={"ready": False, "state": {"running": {"startedAt": FETCHED_FROM}}})
    yield "download", ""
    scene.log("[60.0 s] fetch: 12.00 GB of 47.14 GB, 410.00 MB/s, 86 s left\n", container="storage-initializer")
    yield "download", "12.00 GB of 47.14 GB"
    _pod(scene, init={"state": _DONE})
    yield "image", "pulling example.com/vllm"
    running = {"state": {"running": {"startedAt": STARTED}}}
    _pod(scene, init={"state": _DONE}, engine=running)
    scene.event("Pulled", f'Successfully pulled image "x" in 55s (55s including waiting). Image size: {IMAGE_BYTES} '
                          "bytes.")  # fmt: skip
    yield "process", ""
    for stage, lines in zip(list(STAGES)[5:], _log(), strict=True):
        for when, line in lines:
            server.write_log(NAMESPACE, scene.pod, "kserve-container", line, at=when)
        yield stage, ""
    scene.service(ready="True")
    _pod(scene, init={"state": _DONE}, engine=running | {"ready": True, "started": True}, ready=True)
    yield "ready", ""


def _until(scene: Scene, stage: str) -> Moments:
    """The good beginning, up to a stage."""
    for seen, why in moments(scene):
        yield seen, why
        if seen == stage:
            return


def image_that_cannot_be_pulled(scene: Scene) -> Moments:
    """The registry refuses the image; the kubelet tries again and again."""
    yield from _until(scene, "image")
    for reason in ("ErrImagePull", "ImagePullBackOff"):
        waiting = {"state": {"waiting": {"reason": reason, "message": "unauthorized"}}}
        _pod(scene, init={"ready": False, **waiting}, engine=waiting)
    yield "FAILING in image", "cannot be pulled: unauthorized"


def weights_that_cannot_be_fetched(scene: Scene) -> Moments:
    """The initializer ends with an error, again and again."""
    yield from _until(scene, "download")
    ended = {"terminated": {"reason": "Error", "exitCode": 1}}
    _pod(scene, init={"ready": False, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                      "lastState": ended})  # fmt: skip
    yield "FAILING in download", "storage-initializer ended with exit code 1, 2 restarts"


def out_of_memory_at_load(scene: Scene) -> Moments:
    """The kernel kills the engine while it reads its weights."""
    yield from _until(scene, "weights")
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": READY}}
    _pod(scene, init={"state": _DONE}, engine={"state": killed})
    yield "FAILING in weights", "kserve-container ran out of memory (OOMKilled)"


def crash_behind_a_stale_ready(scene: Scene) -> Moments:
    """It served; then it crashes, and its controller has not seen it yet."""
    yield from moments(scene)
    crashed = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": READY}}
    _pod(scene, init={"state": _DONE}, engine={"state": {"waiting": {"reason": "CrashLoopBackOff"}},
                                               "lastState": crashed, "restartCount": 1})  # fmt: skip
    yield "FAILING in", "Ready is stale: kserve-container ended with exit code 1, 1 restart"


def deletion_that_hangs(scene: Scene) -> Moments:
    """Somebody deletes it while it serves, and a finalizer stays."""
    yield from moments(scene)
    service = scene.server.get("InferenceService", scene.name, NAMESPACE)
    assert service is not None
    scene.server.put(service | {"metadata": service["metadata"] | {"finalizers": ["inferenceservice.finalizers"]}})
    scene.server.remove("InferenceService", scene.name, NAMESPACE)
    yield "terminating", "waits for inferenceservice.finalizers"


ENDINGS = (image_that_cannot_be_pulled, weights_that_cannot_be_fetched, out_of_memory_at_load,
           crash_behind_a_stale_ready, deletion_that_hangs)  # fmt: skip


def _log() -> Iterator[list[tuple[float, str]]]:
    """The log in pieces, each with the line that begins a stage as its first, and what was said before it."""
    marks = iter(_MARKS)
    mark, piece, when = next(marks), [], 0.0
    for line in (LOGS / "bf16-eager.log").read_text().splitlines(keepends=True):
        match = _TIME.search(line)
        when = datetime.fromisoformat(f"{DAY}{match[1]}+00:00").timestamp() if match else when
        if mark == _MARKS[-1] and mark in line:
            return
        piece.append((when or _seconds(STARTED), line))
        if mark in line:
            yield piece
            mark, piece = next(marks), []


def _gated(scene: Scene) -> None:
    _pod(scene, node="", conditions=[], gates=({"name": "kueue.x-k8s.io/admission"},))
    scene.server.put(_workload(scene))


def _workload(scene: Scene, *, admitted: bool = False) -> Document:
    text = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4, 1 more"
    conditions: list[Document] = [{"type": "QuotaReserved", "status": "False", "message": f"{text} needed"}]
    if admitted:
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": ADMITTED}
                      for kind in ("QuotaReserved", "Admitted")]  # fmt: skip
    about = {"name": "w", "namespace": NAMESPACE, "ownerReferences": [{"kind": "Pod", "name": scene.pod}]}
    return {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "spec": {"queueName": "llm-serving"},
            "metadata": about, "status": {"conditions": conditions}}  # fmt: skip


def _pod(
    scene: Scene, *, node: str = "gpu-1", conditions: list[Document] | None = None, init: Document | None = None,
    engine: Document | None = None, gates: tuple[Document, ...] = (), ready: bool = False,
) -> None:  # fmt: skip
    found = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": SCHEDULED}]
    if ready:
        found.append({"type": "Ready", "status": "True", "lastTransitionTime": READY})
    first = init or {"ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    scene.put_pod(
        node=node, init=first, engine=engine, conditions=found if conditions is None else conditions, created=CREATED,
        gates=gates,
    )  # fmt: skip


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()

"""Stages measured by the cluster's own clocks, and what a fetcher's line and a service's object say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.timeline.log_lines import LogLine
from modelberth.timeline.pod_state import PodLog, pod_state
from modelberth.timeline.pod_times import instant, stage_times
from modelberth.timeline.service_facts import ServiceFacts, context_of, service_facts
from modelberth.timeline.stages import StartUp
from modelberth.timeline.transfer import transfer_of


def at(seconds: int) -> str:
    return f"2026-11-23T13:{seconds // 60:02}:{seconds % 60:02}Z"


ZERO = instant(at(0)) or 0.0


def pod(*, scheduled: int | None = 10, ready: int | None = None, init: dict[str, Any] | None = None,
        engine: dict[str, Any] | None = None, restarts: int = 0) -> dict[str, Any]:  # fmt: skip
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": at(seconds)}
        for kind, seconds in (("PodScheduled", scheduled), ("Ready", ready))
        if seconds is not None
    ]
    status: dict[str, Any] = {"conditions": conditions}
    if init is not None:
        status["initContainerStatuses"] = [{"name": "storage-initializer", "state": init}]
    if engine is not None:
        status["containerStatuses"] = [{"name": "kserve-container", "state": engine, "restartCount": restarts}]
    return {"metadata": {"name": "p", "creationTimestamp": at(0)}, "spec": {"nodeName": "n"}, "status": status}


def running(seconds: int) -> dict[str, Any]:
    return {"running": {"startedAt": at(seconds)}}


FETCHED = {"terminated": {"startedAt": at(40), "finishedAt": at(100)}}


@pytest.mark.parametrize(
    ("given_pod", "ended", "since"),
    [
        (pod(scheduled=None), {}, 0),
        (pod(), {"scheduling": 10}, 10),
        (pod(init=running(40)), {"scheduling": 10, "image": 30}, 40),
        (pod(init=FETCHED), {"scheduling": 10, "image": 30, "download": 60}, 100),
        (pod(init=FETCHED, engine=running(130)), {"scheduling": 10, "image": 60, "download": 60}, 130),
        (
            pod(init=FETCHED, engine=running(130), ready=200),
            {"scheduling": 10, "image": 60, "download": 60, "start": 70}, 200,
        ),
        (pod(init=FETCHED, engine=running(900), restarts=2), {"scheduling": 10, "image": 30, "download": 60}, 900),
        (pod(engine=running(900), restarts=2), {"scheduling": 10}, 900),
    ],
)  # fmt: skip
def test_each_stage_has_its_time(given_pod: dict[str, Any], ended: dict[str, float], since: int) -> None:
    found = stage_times(given_pod)
    assert {each.stage: each.seconds for each in found.ended} == ended
    assert found.since == ZERO + since


def test_kueue_and_the_engine_add_theirs() -> None:
    start = StartUp(ZERO + 130)
    start.feed(LogLine("INFO", "Starting to load model x"), ZERO + 150)
    found = stage_times(pod(init=FETCHED, engine=running(130), ready=200), start, ZERO + 4)
    assert {each.stage: each.seconds for each in found.ended} == {
        "queue": 4, "scheduling": 6, "image": 60, "download": 60, "process": 20, "weights": 50,
    }  # fmt: skip
    assert stage_times(pod(engine=running(130)), start).since == ZERO + 150


FIELDS = st.sampled_from(["state", "running", "status", "startedAt", "conditions", "metadata", "terminated"])
ANYTHING = st.recursive(
    st.none() | st.text() | st.integers(), lambda each: st.lists(each) | st.dictionaries(FIELDS, each)
)


@given(ANYTHING)
def test_nothing_breaks_it(anything: Any) -> None:
    for each in ("metadata", "spec", "status"):
        stage_times({"metadata": {"creationTimestamp": at(0)}, each: anything})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fetch: 12.00 GB of 47.14 GB, 410.00 MB/s, 86 s left", (12_000_000_000, 47_140_000_000, 410_000_000)),
        ("3 of 10 files, 1.00 kB of 2.00 kB, 0 B/s", (1000, 2000, 0)),
        ("Downloading model.safetensors", None),
        ("12.00 GB of 47.14 parsecs, 1 GB/s", None),
    ],
)
def test_a_transfer_is_read_from_a_line(line: str, expected: tuple[int, int, int] | None) -> None:
    found = transfer_of(line)
    assert (found and (found.done, found.total, found.rate)) == expected
    assert found is None or found.seconds_left == (None if not found.rate else (found.total - found.done) / found.rate)


def test_the_log_of_an_earlier_run_tells_nothing_of_this_one() -> None:
    start = StartUp(ZERO + 130)
    start.feed(LogLine("INFO", "Starting to load model x"), ZERO + 150)
    again = pod(engine=running(300), restarts=1)
    assert pod_state(again, PodLog(start, restarts=1)).stage == "weights"
    found = pod_state(again, PodLog(start, restarts=0))
    assert (found.stage, found.times.since) == ("process", ZERO + 300)


def test_a_pod_tells_what_its_log_says() -> None:
    fetching = pod(init=running(40))
    line = "\x1b[31mfetch: 1.00 GB of 2.00 GB, 10.00 MB/s, 100 s left"
    found = pod_state(fetching, PodLog(fetched=line))
    assert found.why == "fetch: 1.00 GB of 2.00 GB, 10.00 MB/s, 100 s left"
    assert found.transfer
    assert found.transfer.seconds_left == 100


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-model-len=8192"], "8192"),
        (["--max-model-len", "4096", "--port=1"], "4096"),
        (["--max-model-len", "1", "--max-model-len=2"], "2"),
        (["--max-model-len"], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_the_context_of_a_service(arguments: object, expected: str) -> None:
    assert context_of(arguments) == expected


def test_facts_of_both_kinds() -> None:
    model = {"runtime": "vllm", "storage": {"path": "a/b"}, "args": ["--max-model-len=1"]}
    assert service_facts({"spec": {"predictor": {"model": model}}}) == ServiceFacts("vllm", "a/b", "1")
    llm = {"model": {"uri": "oci://x", "name": "y"}, "template": {"containers": [{"args": ["--max-model-len", "7"]}]}}
    assert service_facts({"spec": llm}) == ServiceFacts("", "oci://x", "7")
    assert service_facts({}) == ServiceFacts()

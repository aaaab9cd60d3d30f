"""What people paste of kubectl is matched as the objects it shows, with the line it was said on."""

from __future__ import annotations

import pytest

from modelberth.findings.diagnosis.catalogue import read_all
from modelberth.findings.diagnosis.described import described_objects
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs

from .conftest import SIGNATURES, ids
from .test_objects import OBJECTS

DESCRIBED_POD = """\
$ kubectl describe pod mistral-predictor-7d9-x
Name:             mistral-predictor-7d9-x
Namespace:        ai
Node:             gpu-1/10.0.0.4
Init Containers:
  storage-initializer:
    State:          Terminated
      Reason:       Completed
      Exit Code:    0
    Restart Count:  0
Containers:
  kserve-container:
    Image:          quay.io/vllm:latest
    State:          Waiting
      Reason:       CrashLoopBackOff
    Last State:     Terminated
      Reason:       OOMKilled
      Exit Code:    137
    Ready:          False
    Restart Count:  7
    Environment:
      HOME:         /tmp
Conditions:
  Type              Status
  Ready             False
"""
EVENTS = """\
Events:
  Type     Reason            Age                 From               Message
  ----     ------            ----                ----               -------
  Warning  FailedScheduling  3m2s (x12 over 9m)  default-scheduler  0/7 nodes are available: 7 Insufficient nvidia.com/gpu.
"""  # noqa: E501
SCHEDULED = (
    "  Normal   Scheduled         1m                  default-scheduler  Successfully assigned ai/m-0 to gpu-1\n"
)
LISTED = """\
LAST SEEN   TYPE      REASON             OBJECT      MESSAGE
2m11s       Warning   FailedScheduling   pod/m-0     0/7 nodes are available: 7 Insufficient nvidia.com/gpu.
"""
QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4, 3 more needed"
)
WORKLOAD = f"""\
apiVersion: kueue.x-k8s.io/v1beta1
kind: Workload
metadata:
  name: w
status:
  conditions:
  - lastTransitionTime: "2026-11-20T12:00:00Z"
    message: "{QUOTA}"
    reason: Pending
    status: "False"
    type: QuotaReserved
"""
KUEUE_EVENT = f"  Warning  Pending  5s  kueue-admission  {QUOTA}\n"
PODS = """\
NAME      READY   STATUS          RESTARTS      AGE
m-0       0/1     OOMKilled       3 (2m ago)    10m
m-1       1/1     Running         0             10m
"""


@pytest.fixture(scope="module")
def raised():
    known = read_all([("o", OBJECTS.encode()), ("s", SIGNATURES.encode())])
    return lambda text: diagnose_logs([Log("paste", [text.encode()])], known)


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        (DESCRIBED_POD, "MB-SYS-001", 12),
        (EVENTS, "MB-SCH-001", 4),
        (LISTED, "MB-SCH-001", 2),
        (PODS, "MB-SYS-001", 2),
        (WORKLOAD, "MB-KUE-001", 1),
        (f"The workload says\n```\n{WORKLOAD.partition('status:')[2]}```\nWhat now?\n", "MB-KUE-001", 6),
        (f"Events:\n{KUEUE_EVENT}", "MB-KUE-001", 2),
        (f"> {EVENTS}", "MB-SCH-001", 4),
    ],
)
def test_what_is_pasted(raised, text, name, line):
    found = raised(text)
    assert ids(found)[0] == name
    assert (found.findings[0].evidence[0].source, found.findings[0].evidence[0].line) == ("paste", line)


def test_numbers_and_names(raised):
    (found,) = raised(DESCRIBED_POD).findings
    assert found.cause.startswith("kserve-container of mistral-predictor-7d9-x")
    (found,) = raised(EVENTS).findings
    assert (found.numbers, found.count) == ({"nodes": 7}, 12)


@pytest.mark.parametrize(
    "text",
    [
        EVENTS + SCHEDULED,  # it found its node after all
        f"Events:\n{KUEUE_EVENT}  Normal  QuotaReserved  3s  kueue-admission  Quota reserved in ClusterQueue main\n",
        DESCRIBED_POD.replace("  Ready             False", "  Ready             True")
        .replace("OOMKilled", "Error")
        .replace("137", "1")
        + EVENTS,
        "Warning: this is no event\nNormal people write so\n",
        PODS.replace("OOMKilled", "Running  "),
        "conditions:\n- type: QuotaReserved\n  status: maybe\n",
        "INFO 04-09 12:00:00 [x.py:1] Reason: OOMKilled\n",
    ],
)
def test_what_has_passed_or_is_no_object(raised, text):
    assert ids(raised(text)) == []


@pytest.mark.parametrize(
    "piece", ["a: ", "- ", "Warning  A", "m-0 0/1 ", "{", "kind: ", " " * 50, "apiVersion: [", "a" * 300]
)
def test_hostile_text(piece):
    described_objects((piece * 20_000).encode(), "x")
    described_objects((f"apiVersion {piece}\n" * 5_000).encode(), "x")


def test_a_pattern_for_log_lines_does_not_raise_an_event_that_has_passed():
    text = OBJECTS.replace(
        "    - event: {reason: FailedScheduling",
        "    - {log: '[^\\n]{0,200}?(?P<nodes>[0-9]+) Insufficient nvidia.com/gpu', needle: 'Insufficient nvidia.com'}\n"  # noqa: E501
        "    - event: {reason: FailedScheduling",
    )
    known = read_all([("o", text.encode())])
    for log, expected in ((EVENTS, ["MB-SCH-001"]), (EVENTS + SCHEDULED, []), (LISTED, ["MB-SCH-001"])):
        assert ids(diagnose_logs([Log("paste", [log.encode()])], known)) == expected

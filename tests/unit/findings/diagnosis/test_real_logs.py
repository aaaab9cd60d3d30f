"""What real vLLM 0.32 wrote on a CPU when it was made to fail, and what it writes when all is well.

The failures were provoked one by one (tests/data/engine-logs/README.md says how); only folder names were changed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelberth.findings.diagnosis.catalogue import catalogue
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs
from signature_checks import diagnosed

LOGS = Path(__file__).parents[3] / "data" / "engine-logs"
FAILURES = {
    "bad-choice": ("MB-ARG-002", "float17"),
    "bad-json": ("MB-CFG-008", "config.json"),
    "bad-reasoning": ("MB-ARG-004", "nope"),
    "bad-template": ("MB-TOK-008", "/nowhere/template.jinja"),
    "bad-tool-parser": ("MB-ARG-004", "nope"),
    "batched-too-small": ("MB-KV-004", "1,024 tokens"),
    "context-over-derived": ("MB-KV-003", "1,024 tokens"),
    "context-too-long": ("MB-KV-001", "1,024 tokens"),
    "cpu-memory": ("MB-MEM-003", "21.66 GiB"),
    "heads-tp": ("MB-NCC-006", "divided by 2"),
    "hub-offline": ("MB-STO-017", ""),
    "kv-cache-too-large": ("MB-MEM-003", "200.0 GiB"),
    "lfs-pointer": ("MB-WGT-002", ""),
    "lora": ("MB-WGT-016", ""),
    "no-config": ("MB-CFG-001", ""),
    "no-kv-cache": ("MB-KV-002", ""),
    "no-sequences": ("MB-ARG-003", "max_num_"),
    "no-tokenizer": ("MB-TOK-004", ""),
    "no-weights": ("MB-WGT-005", ""),
    "open-files": ("MB-SYS-002", ""),
    "port-taken": ("MB-NET-006", ""),
    "quantization-mismatch": ("MB-QNT-002", "compressed-tensors"),
    "remote-code": ("MB-CFG-005", ""),
    "rope-scaling": ("MB-CFG-006", ""),
    "shape-mismatch": ("MB-WGT-010", ""),
    "tool-without-parser": ("MB-ARG-005", ""),
    "truncated-weights": ("MB-WGT-001", ""),
    "unknown-architecture": ("MB-CFG-003", "NovelForCausalLM"),
    "unknown-flag": ("MB-ARG-001", "--no-such-flag"),
    "unknown-model-type": ("MB-CFG-002", "novel9"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_cause_of_a_real_failure_comes_first(name: str) -> None:
    expected, said = FAILURES[name]
    found = diagnosed(LOGS / "failures" / f"{name}.log", catalogue())
    assert [each.id for each in found.findings[:1]] == [expected]
    assert said in found.findings[0].cause


def test_every_kept_failure_is_tested() -> None:
    assert {path.stem for path in (LOGS / "failures").glob("*.log")} == set(FAILURES)


@pytest.mark.parametrize("name", ["bf16-eager", "w4a16-compiled"])
def test_nothing_is_raised_where_all_is_well(name: str) -> None:
    assert diagnosed(LOGS / f"{name}.log", catalogue()).findings == ()


@pytest.mark.parametrize("share", range(5, 100, 5))
@pytest.mark.parametrize("name", ["bf16-eager", "w4a16-compiled"])
def test_a_start_that_is_under_way_raises_nothing(name: str, share: int) -> None:
    lines = (LOGS / f"{name}.log").read_bytes().splitlines(keepends=True)
    begun = b"".join(lines[: len(lines) * share // 100])
    assert diagnose_logs([Log(name, [begun])]).findings == ()

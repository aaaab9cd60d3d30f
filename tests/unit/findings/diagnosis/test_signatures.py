"""Every signature: its form, patterns that take linear time, and fixtures that raise it and fixtures that do not."""

from __future__ import annotations

import re

import pytest

from modelberth.findings.diagnosis.catalogue import catalogue
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs
from signature_checks import FIXTURES, failures, mistakes, patterns_of

SHAPELESS = {ord(letter): None for letter in "0123456789abcdef-"}
IDS = sorted(catalogue())


@pytest.mark.parametrize("name", IDS)
def test_signature_has_no_mistake(name: str) -> None:
    assert list(mistakes(catalogue()[name], catalogue())) == []


@pytest.mark.parametrize("name", IDS)
def test_fixtures_raise_it_first_and_near_misses_do_not(name: str) -> None:
    assert list(failures(catalogue()[name])) == []


WORDS = ("the", "a", "of", "to", "pod", "model", "why", "does", "it", "not", "error", "memory", "is", "out", "found")


LETTERS = str.maketrans("0123456789", "ghijklmnop")  # digits, and letters up to f, are no part of a line's shape


def _others(count: int) -> str:
    """Lines that no two are alike, as programs of others write them."""
    return "".join(
        f"somebody says in session {str(number).translate(LETTERS)}: '"
        f"{' '.join(WORDS[(number * step) % len(WORDS)] for step in range(1, 40))}'\n"
        for number in range(count)
    )


@pytest.mark.parametrize("name", IDS)
def test_a_large_log_hides_nothing(name: str) -> None:
    """Many lines are searched all at once, and by another way than a few; the last ones are few again."""
    for log in sorted((FIXTURES / name).glob("match*.log")):
        few, many = (
            diagnose_logs([Log("x.log", [(_others(count) + log.read_text() + _others(100)).encode()])]).findings
            for count in (2, 450)
        )
        assert [each.id for each in few] == [each.id for each in many], log.name


ORDINARY = """
(APIServer pid=1) INFO 11-19 10:00:00 [loggers.py:127] Engine 000: Avg prompt throughput: 12.3 tokens/s, Avg generation
throughput: 4.1 tokens/s, Running: 3 reqs, Waiting: 0 reqs, GPU KV cache usage: 1.2%, Prefix cache hit rate: 12.0%
INFO:     10.0.2.7:43210 - "POST /v1/chat/completions HTTP/1.1" 200 OK
INFO 11-19 10:00:00 [logger.py:39] Received request chatcmpl-1: prompt: '<|im_start|>user why does my model use so much
memory on the GPU, please explain CUDA, the driver, the kernel, the cache, quota and error, custom tools with examples,
not found, no such file, it failed, call to a function, unexpectedly, weights and tensors of a pod', params:
SamplingParams(n=1, temperature=0.7, max_tokens=16), prompt_token_ids: None, lora_request: None.
Loading safetensors checkpoint shards: 100% Completed | 2/2 [00:04<00:00, 2.14s/it]
Capturing CUDA graphs: 100% | 67/67 [00:20<00:00, 3.30it/s]
"""


@pytest.mark.parametrize("name", IDS)
def test_needles_do_not_stand_in_ordinary_lines(name: str) -> None:
    # Needles of errors are only looked for in errors; all others in every line of a log.
    for match in catalogue()[name].match:
        if match.origin not in ("exception", "error", "usage"):
            assert [needle for needle in match.needles if needle in ORDINARY.replace("\n", " ")] == []


@pytest.mark.parametrize("name", IDS)
def test_needles_are_long_enough_to_pass_over_most_lines(name: str) -> None:
    for match in catalogue()[name].match:
        for needle in match.needles if match.origin not in ("exception", "error", "usage") else ():
            assert len(needle.translate(SHAPELESS).strip()) >= 4, needle  # what the scan looks for


@pytest.mark.parametrize("name", IDS)
def test_hostile_texts_take_no_time(name: str) -> None:
    for match in catalogue()[name].match:
        for pattern, anywhere in patterns_of(match):
            compiled = re.compile(pattern)
            start = match.needles[0] if match.needles else ""
            length = 1_500 if anywhere else 8_000
            for piece in ("a", " ", "1", "1,", "(", "'", "/x", "1.0 GiB ", "a: ", start or "no "):
                hostile = (start + piece * length)[: length + len(start)]
                (compiled.search if anywhere else compiled.match)(hostile)

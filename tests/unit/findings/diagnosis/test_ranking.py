"""Root first: consequences fold under what explains them, and an exception under the one that it was raised from."""

from __future__ import annotations

from modelberth.findings.diagnosis.catalogue import read_all
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs

from .conftest import BANNER, OUT_OF_MEMORY, SIGNATURES, ids

NCCL = "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)\n"
SHM = "gpu-1:12:345 [0] NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Ab (size 9637888)\n"


def test_what_explains_another_one_stands_above_it_wherever_it_was_said(diagnose):
    for log in (SHM + NCCL, NCCL + SHM):
        (found,) = diagnose(log).findings
        assert found.id == "MB-NCC-001"
        assert found.cause == "/dev/shm/nccl-Ab needs 9,637,888 bytes."
        assert [(each.id, each.title) for each in found.consequences] == [("MB-NCC-002", "NCCL failed")]
        assert found.consequences[0].evidence[0].text.startswith("RuntimeError: NCCL error")


def test_the_rank_decides_and_then_what_was_said_first(diagnose):
    compiler = "RuntimeError: Failed to find C compiler. Please\n"
    assert ids(diagnose(OUT_OF_MEMORY + compiler)) == ["MB-JIT-001", "MB-MEM-001"]
    assert ids(diagnose(NCCL + compiler)) == ["MB-NCC-002", "MB-JIT-001"]
    assert ids(diagnose(compiler + NCCL)) == ["MB-JIT-001", "MB-NCC-002"]


def test_an_exception_is_a_consequence_of_the_one_it_was_raised_from(diagnose):
    log = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\nRuntimeError: Failed to find C compiler. Please\n'  # noqa: E501
        "\nThe above exception was the direct cause of the following exception:\n\n"
        f'Traceback (most recent call last):\n  File "b.py", line 2, in g\n{NCCL}'
    )
    (found,) = diagnose(log).findings
    assert found.id == "MB-JIT-001"
    assert [each.id for each in found.consequences] == ["MB-NCC-002"]


def test_consequences_by_their_rank_fold_under_anything():
    text = SIGNATURES.replace(
        "title: NCCL failed\n  severity: high", "title: NCCL failed\n  severity: high\n  root: 10"
    )
    signatures = read_all([("s", text.encode())])
    found = diagnose_logs([Log("x", [(NCCL + OUT_OF_MEMORY).encode()])], signatures)
    assert ids(found) == ["MB-MEM-001"]
    assert [each.id for each in found.findings[0].consequences] == ["MB-NCC-002"]


def test_two_that_explain_each_other_are_one_finding():
    text = SIGNATURES.replace("title: NCCL failed\n", "title: NCCL failed\n  explains: [MB-NCC-001]\n")
    found = diagnose_logs([Log("x", [(NCCL + SHM).encode()])], read_all([("s", text.encode())]))
    assert ids(found) == ["MB-NCC-001"]


def test_texts_have_the_numbers_of_the_case_and_sentences_without_theirs_are_left_out(diagnose):
    text = (
        "ValueError: To serve at least one request with the models's max seq len (32768), (5.77 GiB KV cache is needed"
    )
    frame = '  File "/v/kv_cache_utils.py", line 3, in check\n'
    (found,) = diagnose(f"{BANNER}Traceback (most recent call last):\n{frame}{text}\n").findings
    assert found.cause == "32,768 tokens need 5.77 GiB."
    assert found.numbers == {"asked": 32768, "needed": 5.77}
    assert dict(found.patch) == {"maxModelLen": 32768, "engineArgs.max-num-seqs": 8}
    assert found.command == "berth size Qwen/Qwen3-8B --gpu GPU --max-model-len 32768"


def test_values_of_a_log_are_quoted_in_commands(diagnose):
    banner = BANNER.replace("'Qwen/Qwen3-8B'", "'a$(reboot);b'")
    text = "ValueError: To serve at least one request with the models's max seq len (8), (5.77 GiB"
    frame = '  File "/v/kv_cache_utils.py", line 3, in check\n'
    (found,) = diagnose(f"{banner}Traceback (most recent call last):\n{frame}{text}\n").findings
    assert found.command.startswith("berth size 'a$(reboot);b' --gpu")


def test_secrets_of_a_log_reach_nothing_that_is_shown(diagnose):
    token, key = "hf_" + "Q" * 34, "sk-" + "canary0123456789canary"
    log = f"vllm serve: error: unrecognized arguments: --hf-token {token} --api-key {key}\n"
    found = diagnose(log)
    assert ids(found) == ["MB-ARG-001"]
    assert token not in str(found)
    assert key not in str(found)
    unknown = diagnose(f"FooError: 401 for https://me:{key}@example.com/?token={token}\n")
    assert unknown.first_error is not None
    assert token not in str(unknown)
    assert key not in str(unknown)


def test_controls_of_a_log_reach_nothing_that_is_shown(diagnose):
    log = "vllm serve: error: unrecognized arguments: --a\x1b[2J\x1b]0;x\x07\u202e--b\n"
    (found,) = diagnose(log).findings
    assert found.cause == "vLLM does not know --a--b."
    assert found.evidence[0].text == "error: unrecognized arguments: --a--b"

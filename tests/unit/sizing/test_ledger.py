"""The ledger: one start-up that was printed, its equation, and what each release charges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from modelberth.base.units import GIB, MIB
from modelberth.catalog.gpus import find_gpu
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.ledger import Ledger, weight_rules
from modelberth.sizing.model import Model
from modelberth.sizing.plan import Sizing, size
from modelberth.sizing.ranges import exact

LLAMA = "Llama-3.1-8B-Instruct"
Sized = Callable[..., Sizing]


def test_a_start_that_was_printed(sized: Sized):
    """Llama 3.1 8B, LLM class, eager, vLLM 0.15.1 on an A100 of 40 GB (github.com/ilseokoh/vllm-gce): 14.99 GiB of
    weights, 19.28 GiB and 157,936 tokens of KV cache."""
    found = sized(
        LLAMA, "A100 SXM 40GB", vllm="0.15.1", entrypoint="offline", enforce_eager=True, gpu_memory_utilization=0.9,
        max_num_batched_tokens=8192,
    )  # fmt: skip
    assert found.ledger.weights.mid / GIB == pytest.approx(14.99, abs=0.005)
    assert found.ledger.kv_cache.mid / GIB == pytest.approx(19.28, rel=0.005)
    assert found.kv.tokens.mid == pytest.approx(157_936, rel=0.005)
    assert found.kv.tokens.low <= 157_936 <= found.kv.tokens.high
    assert found.kv.concurrency.mid == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize("vllm", ["0.8.3", "0.9.2", "0.11.0", "0.19.0", "0.25.1", "0.33.0"])
@pytest.mark.parametrize("ranks", [1, 4])
def test_the_mids_add_up(sized: Sized, vllm: str, ranks: int):
    ledger = sized(LLAMA, "L4", vllm=vllm, tensor_parallel=ranks).ledger
    parts = (ledger.weights, ledger.activation, ledger.non_torch, ledger.cuda_graphs)
    assert ledger.kv_cache.mid == pytest.approx(ledger.budget.mid - sum(part.mid for part in parts), abs=1)
    wide = ledger.budget.high - ledger.budget.low + sum(part.high - part.low for part in parts)
    assert 0 < ledger.kv_cache.high - ledger.kv_cache.low < wide


def test_the_budget_is_a_share_of_what_cuda_reports(sized: Sized):
    """22.03 GiB on an L4, less than the 24 GB on its box and than the 22.49 GiB of nvidia-smi."""
    found = sized(LLAMA, "L4", vllm="0.11.0").ledger
    assert found.total.mid / GIB == pytest.approx(22.03, abs=0.01)
    assert found.budget.mid == pytest.approx(0.9 * found.total.mid)
    assert sized(LLAMA, "L4", vllm="0.33.0").ledger.budget.mid / GIB == pytest.approx(0.92 * 22.03, abs=0.01)


def test_the_budget_is_rounded_up_since_0_14(sized: Sized):
    """0.9 of 10¹⁰ + 1 bytes are 9,000,000,000.9."""
    given = {"gpu_total": 10**10 + 1, "gpu_memory_utilization": 0.9}
    assert sized(LLAMA, "L4", vllm="0.14.0", **given).ledger.budget == exact(9_000_000_001.0)
    assert sized(LLAMA, "L4", vllm="0.13.0", **given).ledger.budget.mid == pytest.approx(9_000_000_000.9)


def test_a_known_total_is_exact(sized: Sized):
    found = sized(LLAMA, "L4", gpu_total=23_000_000_000).ledger
    assert found.total == exact(23_000_000_000)
    assert not sized(LLAMA, "L4").ledger.total.is_exact


def test_the_context_is_charged_until_0_9_0(sized: Sized):
    """Later it must fit beside the budget."""
    before, after = (sized("opt-125m", "L4", vllm=vllm).ledger for vllm in ("0.9.0.1", "0.9.1"))
    assert before.outside == exact(0)
    assert after.outside.low > 0.1 * GIB
    assert before.non_torch.mid > after.non_torch.mid + 0.3 * GIB


def test_more_ranks_take_more_before_the_engine_looks(sized: Sized):
    """NCCL's context comes before the snapshot since 0.11; an H100 of two was seen with 1.53 GiB gone."""
    one, two = (sized(LLAMA, "H100", vllm="0.19.0", tensor_parallel=ranks).ledger for ranks in (1, 2))
    assert one.outside.low < 0.51 * GIB < one.outside.high
    assert two.outside.low < 1.53 * GIB < two.outside.high


@pytest.mark.parametrize(("ranks", "gib"), [(1, 0.25), (2, 2.07), (4, 2.13)])
def test_non_torch_as_measured_on_h100(sized: Sized, ranks: int, gib: float):
    """The llm-d accuracy report, vLLM 0.19."""
    found = sized(LLAMA, "H100", vllm="0.19.0", tensor_parallel=ranks).ledger.non_torch
    assert found.low / GIB <= gib <= found.high / GIB
    assert found.mid / GIB == pytest.approx(gib, abs=0.1)


def test_ranks_over_pcie_have_no_such_workspace(sized: Sized):
    assert sized(LLAMA, "L4", vllm="0.19.0", tensor_parallel=4).ledger.non_torch.high < 0.5 * GIB


def test_buffers_of_the_second_runner_are_charged_since_0_27(sized: Sized):
    """256 requests x 128,256 tokens x 4.125 bytes are 129 MiB; the first runner has none."""
    without = sized(LLAMA, "L4", vllm="0.28.0", max_num_seqs=1).ledger.non_torch
    found = sized(LLAMA, "L4", vllm="0.28.0").ledger.non_torch
    assert found.mid - without.mid == pytest.approx(255 * 128_256 * 4.125)
    one, many = (sized("Qwen3-30B-A3B", "L4", vllm="0.28.0", max_num_seqs=seqs).ledger.non_torch for seqs in (1, 256))
    assert one == many
    old = [sized(LLAMA, "L4", vllm="0.26.0", max_num_seqs=seqs).ledger.non_torch for seqs in (1, 256)]
    assert old[0] == old[1]


def test_a_first_start_compiles_since_0_26(sized: Sized):
    def reasons(**flags: object) -> list[str]:
        return [reason for reason in sized(LLAMA, "L4", **flags).reasons if "compiles" in reason]

    assert reasons(vllm="0.26.0")
    assert not reasons(vllm="0.25.1")
    assert not reasons(vllm="0.26.0", enforce_eager=True)
    cold, eager = (sized(LLAMA, "L4", vllm="0.28.0", enforce_eager=eager).ledger for eager in (False, True))
    assert cold.activation.mid > eager.activation.mid + 0.3 * GIB
    assert cold.activation.low == pytest.approx(eager.activation.low, rel=0.2)


def test_graphs_are_taken_off_where_the_release_counts_them(sized: Sized):
    counted = sized("Qwen3-30B-A3B", "A100", vllm="0.20.0").ledger
    assert counted.cuda_graphs == counted.graph_memory
    uncounted = sized("Qwen3-30B-A3B", "A100", vllm="0.19.0").ledger
    assert uncounted.cuda_graphs == exact(0)
    assert uncounted.graph_memory.mid > 0.3 * GIB


# --- weights -------------------------------------------------------------------------------------------


def test_what_was_read_is_more_certain_than_what_is_derived(model_named: Callable[[str], Model]):
    given = model_named(LLAMA)
    derived, read = (size(model, find_gpu("L4"), EngineFlags()) for model in (given, replace(given, from_headers=True)))
    assert derived.ledger.weights.mid == read.ledger.weights.mid
    # 0.1 % and 2 MiB against 0.4 % and 2 MiB.
    assert read.ledger.weights.high - read.ledger.weights.mid == pytest.approx(
        0.001 * read.ledger.weights.mid + 2 * MIB
    )
    assert derived.ledger.weights.high - derived.ledger.weights.mid == pytest.approx(
        0.004 * derived.ledger.weights.mid + 2 * MIB
    )
    assert any("derived from config.json" in reason for reason in derived.reasons)
    assert not any("derived" in reason for reason in read.reasons)


@pytest.mark.parametrize(
    ("name", "word"),
    [("Qwen3-30B-A3B", "expert kernels may pad"), ("Qwen2.5-VL-7B-Instruct", "vision tower is derived")],
)
def test_why_weights_are_less_certain(sized: Sized, name: str, word: str):
    found, dense = sized(name, "H100"), sized(LLAMA, "H100")
    assert any(word in reason for reason in found.reasons)
    assert not any(word in reason for reason in dense.reasons)
    wider = [(each.ledger.weights.high - each.ledger.weights.mid) / each.ledger.weights.mid for each in (found, dense)]
    assert wider[0] > wider[1]


def test_what_cannot_be_told_is_said(model_named: Callable[[str], Model]):
    given = model_named(LLAMA)
    strange = replace(
        given, shape=replace(given.shape, unknown=("layers of a kind not known here",), notes=("a note",))
    )
    found = size(strange, find_gpu("H100"), EngineFlags())
    assert {"layers of a kind not known here", "a note"} <= set(found.reasons)
    assert found.ledger.weights.high - found.ledger.weights.mid == pytest.approx(
        0.1 * found.ledger.weights.mid + 2 * MIB
    )


def test_the_allocator_s_habits_by_release(sized: Sized):
    for vllm, expected in (("0.20.2", None), ("0.21.0", 20 * MIB)):
        assert weight_rules(sized(LLAMA, "L4", vllm=vllm).engine).max_split == expected


@pytest.mark.parametrize(
    ("vllm", "gpu", "expected"),
    [
        ("0.10.0", "H100", (1, 1)),
        ("0.10.1", "A100", (256, 128)),
        ("0.10.1", "H100", (256, 64)),
        ("0.10.1", "B200", (256, 256)),
        ("0.10.1", "RTX 5090", (256, 128)),
    ],
)
def test_the_kernels_padding_by_card(sized: Sized, vllm: str, gpu: str, expected: tuple[int, int]):
    assert weight_rules(sized("gpt-oss-20b", gpu, vllm=vllm).engine).mxfp4_padding == expected


def test_spread_experts_are_in_the_rules(sized: Sized):
    found = weight_rules(sized("Qwen3-30B-A3B", "H100", tensor_parallel=4, expert_parallel=True).engine)
    assert (found.tensor_parallel, found.expert_parallel) == (4, True)


def test_a_ledger_has_only_ranges(sized: Sized):
    found = sized(LLAMA, "L4").ledger
    for field in fields(Ledger):
        part = getattr(found, field.name)
        assert part.low <= part.mid <= part.high

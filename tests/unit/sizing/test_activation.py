"""The activation peak: what vLLM printed, the sampler's copies by hand, and what raises it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from modelberth.base.units import GIB, MIB
from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.shape import ModelShape
from modelberth.sizing.activation import Activation, activation
from modelberth.sizing.engine import Engine
from modelberth.sizing.plan import Sizing

EngineOf = Callable[..., tuple[ModelShape, Engine]]
LLAMA = "Llama-3.1-8B-Instruct"
WIDTH, VOCABULARY = 4096, 128_256


@pytest.fixture(scope="module")
def peak_of(engine_of: EngineOf) -> Callable[..., Activation]:
    """The peak of a model on a card."""

    def run(name: str, gpu: str, **flags: object) -> Activation:
        shape, engine = engine_of(name, gpu, **flags)
        return activation(shape, engine, find_gpu(gpu))

    return run


@pytest.mark.parametrize(
    ("name", "vllm", "ranks", "gib"),
    [
        # To 0.16 the sampler sorts: 38 bytes a logit.
        (LLAMA, "0.11.0", 1, 4.76),
        ("Qwen3-32B", "0.11.0", 1, 5.64),
        ("Qwen3-32B", "0.11.0", 2, 5.64),
        ("gpt-oss-20b", "0.11.0", 1, 7.38),
        ("Llama-3.3-70B-Instruct", "0.11.0", 2, 4.84),
        ("Qwen3-0.6B", "0.11.0", 1, 5.56),
        # Since 0.17 it does not: 14.
        (LLAMA, "0.19.0", 1, 1.89),
        (LLAMA, "0.19.0", 4, 1.89),
        ("phi-4", "0.19.0", 1, 1.52),
        ("CodeLlama-7b-hf", "0.19.0", 1, 0.77),
        ("granite-3.1-8b-instruct", "0.19.0", 1, 0.85),
        ("Qwen2.5-7B-Instruct", "0.19.0", 1, 2.21),
        ("Qwen3-8B", "0.19.0", 1, 2.21),
    ],
)
def test_what_vllm_printed_on_an_h100(peak_of: Callable[..., Activation], name: str, vllm: str, ranks: int, gib: float):
    """1,024 requests and 8,192 tokens, those cards' defaults."""
    found = peak_of(name, "H100", vllm=vllm, tensor_parallel=ranks).peak
    assert found.mid / GIB == pytest.approx(gib, abs=0.03)
    assert found.low / GIB <= gib <= found.high / GIB


@pytest.mark.parametrize(
    ("gpu", "flags", "rows", "tokens", "per_logit"),
    [
        # offline, so without the images' FlashInfer; L4 takes 256 requests.
        ("L4", {"vllm": "0.11.0", "entrypoint": "offline"}, 256, 8192, 38),
        ("L4", {"vllm": "0.11.0", "entrypoint": "offline", "max_num_seqs": 128}, 128, 8192, 38),
        ("L4", {"vllm": "0.11.0", "entrypoint": "offline", "max_num_seqs": 127}, 127, 8192, 50),  # sorted otherwise
        ("L4", {"vllm": "0.11.0", "entrypoint": "offline", "max_num_seqs": 1}, 1, 8192, 38),
        ("L4", {"vllm": "0.16.0", "entrypoint": "offline"}, 256, 8192, 38),
        ("L4", {"vllm": "0.21.0"}, 256, 2048, 14),  # FlashInfer by default
        ("L4", {"vllm": "0.11.0", "entrypoint": "offline", "max_num_batched_tokens": 200}, 200, 200, 38),
    ],
)
def test_copies_of_the_logits(
    peak_of: Callable[..., Activation], gpu: str, flags: dict, rows: int, tokens: int, per_logit: int
):
    """R x V copies, T and twice R hidden rows (0.9.2 on)."""
    found = peak_of(LLAMA, gpu, **flags)
    assert found.sampling == rows * VOCABULARY * per_logit + 2 * WIDTH * (tokens + 2 * rows)


def test_triton_s_kernel_has_a_row_for_each_program(peak_of: Callable[..., Activation]):
    """0.17 to 0.20: 14 bytes, and 4 for each of the L4's 58 multiprocessors."""
    hidden = 2 * WIDTH * (2048 + 2 * 256)
    assert find_gpu("L4").multiprocessors == 58
    assert peak_of(LLAMA, "L4", vllm="0.19.0").sampling == (256 * 14 + 58 * 4) * VOCABULARY + hidden
    few = peak_of(LLAMA, "L4", vllm="0.19.0", max_num_seqs=8).sampling  # no more programs than rows
    assert few == (8 * 14 + 8 * 4) * VOCABULARY + 2 * WIDTH * (2048 + 2 * 8)


def test_flashinfer_wants_a_newer_card_since_0_24(peak_of: Callable[..., Activation]):
    """A T4 keeps Triton's kernel then, 40 programs."""
    given = {"max_num_seqs": 64, "tensor_parallel": 1}
    for vllm, rows in (("0.23.0", 0), ("0.24.0", 40)):
        found = peak_of("Qwen3-30B-A3B", "T4", vllm=vllm, **given).sampling
        assert found == (64 * 14 + rows * 4) * 151_936 + 2 * 2048 * (2048 + 2 * 64)


@pytest.mark.parametrize(
    ("vllm", "per_logit", "tensors"), [("0.25.1", 6, 1), ("0.26.0", 2, 1), ("0.32.0", 2, 1), ("0.33.0", 14, 1)]
)
def test_the_second_runner_copies_less(peak_of: Callable[..., Activation], vllm: str, per_logit: int, tensors: int):
    found = peak_of(LLAMA, "L4", vllm=vllm).sampling
    assert found == 256 * VOCABULARY * per_logit + 2 * WIDTH * (2048 + tensors * 256)


def test_ranks_gather_logits(peak_of: Callable[..., Activation]):
    """With 2 bytes a logit the gathered tensor and its copy (4) and the rank's own part (2 / ranks) are more."""
    found = peak_of(LLAMA, "L4", vllm="0.26.0", tensor_parallel=4).sampling
    assert found == 256 * VOCABULARY * 4.5 + 2 * WIDTH * (2048 + 256)
    # ... and do not matter beside 38, nor does anything divide those.
    one, four = (peak_of(LLAMA, "H100", vllm="0.11.0", tensor_parallel=ranks) for ranks in (1, 4))
    assert one.sampling == four.sampling


def test_hidden_rows_by_release(peak_of: Callable[..., Activation]):
    """0.8: R rows; 0.9.0: twice R; 0.9.2: T more."""
    logits = 256 * VOCABULARY * 38
    for vllm, rows in (("0.8.5", 256), ("0.9.1", 512), ("0.9.2", 8192 + 512)):
        found = peak_of(LLAMA, "L4", vllm=vllm, entrypoint="offline").sampling
        assert found == logits + 2 * WIDTH * rows


def test_an_image_may_have_flashinfer(peak_of: Callable[..., Activation]):
    """A server up to 0.11.0 may sort or not: the range reaches from one to the other, and says so."""
    server = peak_of(LLAMA, "L4", vllm="0.11.0")
    offline = peak_of(LLAMA, "L4", vllm="0.11.0", entrypoint="offline", max_num_batched_tokens=2048)
    assert server.peak.mid == offline.peak.mid
    assert server.peak.low < 0.6 * offline.peak.low
    assert server.peak.high == offline.peak.high
    assert any("FlashInfer" in reason for reason in server.reasons)
    assert not any("FlashInfer" in reason for reason in offline.reasons)
    assert not any("FlashInfer" in reason for reason in peak_of(LLAMA, "L4", vllm="0.11.1").reasons)


def test_a_forward_pass_can_be_the_peak(peak_of: Callable[..., Activation]):
    """One request, 65,536 tokens: gate, up and their product, 3 x 14,336 wide, beside four of 4,096, two bytes."""
    found = peak_of(LLAMA, "L4", vllm="0.11.0", max_num_batched_tokens=65_536, max_num_seqs=1)
    assert found.forward == 65_536 * 2 * (3 * 14_336 + 4 * 4096)
    assert found.forward > found.sampling
    shared = peak_of(LLAMA, "L4", vllm="0.11.0", max_num_batched_tokens=65_536, max_num_seqs=1, tensor_parallel=4)
    assert shared.forward == 65_536 * 2 * (3 * 14_336 / 4 + 4 * 4096)


@pytest.mark.parametrize(("gpu", "mib"), [("L4", 8.125), ("A100", 8.125), ("H100", 32), ("B200", 32), ("RTX 5090", 32)])
def test_the_workspace_of_products_counts_until_it_is_made_before(
    peak_of: Callable[..., Activation], gpu: str, mib: float
):
    """The mid is the larger moment, and the workspace in both; since 0.33 it is made before vLLM looks."""
    for vllm, expected in (("0.32.0", mib * MIB), ("0.33.0", 0.0)):
        found = peak_of(LLAMA, gpu, vllm=vllm)
        assert found.peak.mid - max(found.forward, found.sampling) == expected


def test_experts_keep_their_workspace_since_0_13(peak_of: Callable[..., Activation]):
    """Qwen3 30B: 8,192 tokens x 8 experts x (2,048 + 768) x 2 bytes stay while the sampler runs."""
    before, after = (peak_of("Qwen3-30B-A3B", "H100", vllm=vllm) for vllm in ("0.12.0", "0.13.0"))
    assert after.sampling == before.sampling
    assert after.peak.mid - before.peak.mid == pytest.approx(8192 * 8 * (2048 + 768) * 2)
    parallel = peak_of("Qwen3-30B-A3B", "H100", vllm="0.13.0", tensor_parallel=8, expert_parallel=True)
    # A rank takes an eighth of the eight experts that a token goes through, whole.
    assert parallel.peak.mid - parallel.sampling - 32 * MIB == pytest.approx(8192 * 1 * (2048 + 768) * 2)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Qwen3-30B-A3B", "expert kernels"),
        ("NVIDIA-Nemotron-Nano-9B-v2", "recurrent"),
        ("Qwen2.5-VL-7B-Instruct", "vision encoder"),
    ],
)
def test_what_is_less_certain_is_wider_and_says_so(peak_of: Callable[..., Activation], name: str, word: str):
    dense = peak_of(LLAMA, "H100", vllm="0.19.0")
    found = peak_of(name, "H100", vllm="0.19.0")
    assert any(word in reason for reason in found.reasons)
    assert not any(word in reason for reason in dense.reasons)
    assert found.peak.high / found.peak.mid > dense.peak.high / dense.peak.mid


def test_an_unknown_architecture_is_wider_and_says_so(engine_of: EngineOf):
    shape, engine = engine_of(LLAMA, "H100", vllm="0.19.0")
    known, other = (activation(each, engine, find_gpu("H100")) for each in (shape, replace(shape, unknown=("x",))))
    assert other.peak.mid == known.peak.mid
    assert other.peak.high > known.peak.high
    assert "the architecture is not known here" in other.reasons


def test_pictures_are_not_profiled_by_the_young_second_runner(peak_of: Callable[..., Activation]):
    """Qwen2.5 VL: V2 from 0.25 on, which profiles encoders since 0.27."""
    marks = {
        vllm: any("vision encoder" in reason for reason in peak_of("Qwen2.5-VL-7B-Instruct", "L40S", vllm=vllm).reasons)
        for vllm in ("0.24.0", "0.25.0", "0.26.0", "0.27.0")
    }
    assert marks == {"0.24.0": True, "0.25.0": False, "0.26.0": False, "0.27.0": True}


def test_lengths_and_eagerness_change_nothing(sized: Callable[..., Sizing]):
    """The same figure at five lengths: measured with vLLM 0.19 on an H100."""
    found = [sized(LLAMA, "H100", vllm="0.19.0", max_model_len=length) for length in (2048, 8192, 131_072)]
    found.append(sized(LLAMA, "H100", vllm="0.19.0", enforce_eager=True, kv_cache_dtype="fp8"))
    assert len({each.ledger.activation for each in found}) == 1

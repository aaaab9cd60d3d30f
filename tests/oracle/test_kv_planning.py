"""Our KV cache plans equal those of vLLM's own planning code, to the block and the token.

The configurations are made from a fixed seed: shapes of known models and made-up ones, ranks, blocks, dtypes, memory
around what one request needs and far above. vLLM answers for all of them at once, in one process of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelberth.base.errors import UsageError
from modelberth.checkpoint.shape import Attention, LatentAttention, Layer, Mixer, ModelShape, Recurrent
from modelberth.sizing.kv_cache import CacheLayer, KvRules, cache_layers, plan, request_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first run may install the engine

SEED = 20_250_921
ASK = Path(__file__).with_name("vllm_plan.py")
CASES = 600
LENGTHS = (1, 15, 16, 17, 1000, 4096, 8192, 32_768, 40_960, 131_072, 262_144)


@dataclass(frozen=True)
class Case:
    """One configuration: the mixers of a model in a row, and how it is served."""

    family: str
    row: tuple[Mixer, ...]
    dtype: str
    cache_dtype: str
    ranks: int
    block: int
    kernel: int
    batched: int
    asynchronous: bool
    hybrid: bool
    states: str
    checkpoints: int
    conv_dtype: str
    state_dtype: str
    max_model_len: int
    available: int = 0

    @property
    def shape(self) -> ModelShape:
        layers = tuple(Layer(mixer, None) for mixer in self.row)
        return ModelShape("A", layers, 4096, 32_000, self.max_model_len, self.dtype, "bf16")

    @property
    def rules(self) -> KvRules:
        """Those of vLLM 0.32 under this configuration."""
        latent = any(isinstance(mixer, LatentAttention) for mixer in self.row)
        return KvRules(
            block_tokens=self.block,
            kernel_tokens=max(self.kernel, self.block, 128 if latent else 0),
            null_block=True,
            in_flight_tokens=self.batched * (2 if self.asynchronous else 1),
            hybrid=self.hybrid,
            chunked=self.hybrid,
            states=self.states,
            checkpoint_pages=self.checkpoints,
            conv_dtype=self.conv_dtype,
            state_dtype=self.state_dtype,
        )

    @property
    def layers(self) -> tuple[CacheLayer, ...]:
        return cache_layers(self.shape, tensor_parallel=self.ranks, kv_cache_dtype=self.cache_dtype, rules=self.rules)

    def as_json(self) -> str:
        """The line that vLLM's side reads."""
        kinds = list(dict.fromkeys(self.row))
        told = asdict(self) | {"mixers": [_told(mixer) for mixer in kinds]}
        told["row"] = [kinds.index(mixer) for mixer in self.row]
        return json.dumps(told)


def _told(mixer: Mixer) -> dict[str, Any]:
    if isinstance(mixer, Attention):
        return {"kind": "attention", **asdict(mixer)}
    if isinstance(mixer, LatentAttention):
        index = mixer.index_head_dim if mixer.index_heads else 0
        return {"kind": "latent", "rank": mixer.kv_lora_rank, "rope": mixer.rope_head_dim, "index": index}
    return asdict(mixer)


# --- what configurations there are ---------------------------------------------------------------------


def attention(kv_heads: int, head_dim: int, *, window: int | None = None, chunk: int | None = None) -> Attention:
    return Attention(64, kv_heads, head_dim, head_dim, window=window, chunk=chunk)


def _some_attention(rng: random.Random, **kind: int) -> Attention:
    return attention(rng.choice([1, 2, 4, 5, 8, 10, 16, 64]), rng.choice([64, 80, 96, 128, 192, 256]), **kind)


def full(rng: random.Random) -> tuple[Mixer, ...]:
    return (_some_attention(rng),) * rng.randint(1, 126)


def uneven_values(rng: random.Random) -> tuple[Mixer, ...]:
    """Values narrower than keys, as MiMo has them."""
    return (Attention(64, rng.choice([4, 8]), 192, 128),) * rng.randint(1, 60)


def sliding(rng: random.Random) -> tuple[Mixer, ...]:
    return (_some_attention(rng, window=rng.choice([1, 128, 512, 1023, 4096])),) * rng.randint(1, 60)


def mixed(rng: random.Random) -> tuple[Mixer, ...]:
    """Windows and full attention in a ratio of N to 1, the number of layers not always a multiple."""
    ratio = rng.choice([1, 1, 2, 3, 4, 5, 5, 6, 11])
    heads, width = rng.choice([1, 2, 4, 8, 16]), rng.choice([64, 128, 256])
    local = attention(heads, width, window=rng.choice([128, 512, 1024, 4096]))
    wide = attention(heads, width)
    first = rng.random() < 0.7
    return tuple(
        (wide if (index + 1 if first else index) % (ratio + 1) == 0 else local) for index in range(rng.randint(2, 64))
    )


def gpt_oss(rng: random.Random) -> tuple[Mixer, ...]:
    return (attention(8, 64, window=128), attention(8, 64)) * rng.choice([12, 18])


def gemma3(rng: random.Random) -> tuple[Mixer, ...]:
    layers, heads, width = rng.choice([(26, 1, 256), (34, 4, 256), (48, 8, 256), (62, 16, 128)])
    local, wide = attention(heads, width, window=1024), attention(heads, width)
    return tuple(wide if (index + 1) % 6 == 0 else local for index in range(layers))


def chunks(rng: random.Random) -> tuple[Mixer, ...]:
    wide, local = attention(8, 128), attention(8, 128, chunk=8192)
    return tuple(wide if (index + 1) % 4 == 0 else local for index in range(rng.choice([8, 47, 48])))


def two_windows(rng: random.Random) -> tuple[Mixer, ...]:
    near, far, wide = attention(4, 128, window=512), attention(4, 128, window=4096), attention(4, 128)
    return (near, far, wide, *(rng.choice([near, near, far, wide]) for _ in range(rng.randint(4, 40))))


def two_widths(rng: random.Random) -> tuple[Mixer, ...]:
    """Full attention with heads of several sizes, one kind of layer."""
    kinds = [attention(rng.choice([2, 4, 8]), width) for width in (64, 128, 192)]
    return tuple(rng.choice(kinds) for _ in range(rng.randint(2, 40)))


def mixed_widths(rng: random.Random) -> tuple[Mixer, ...]:
    """Windows and full attention with pages of different size, as Gemma 4 has them; some no multiples."""
    local = attention(rng.choice([4, 8, 16]), rng.choice([64, 128, 256]), window=1024)
    wide = attention(rng.choice([1, 2, 4]), rng.choice([128, 192, 512]))
    ratio = rng.choice([1, 3, 5])
    return tuple(wide if (index + 1) % (ratio + 1) == 0 else local for index in range(rng.randint(2, 60)))


def latent(rng: random.Random) -> tuple[Mixer, ...]:
    rank, rope = rng.choice([(512, 64), (512, 64), (256, 32)])
    return (LatentAttention(128, rank, rope, 128, 128),) * rng.choice([27, 61, 1])


def sparse_latent(rng: random.Random) -> tuple[Mixer, ...]:
    return (LatentAttention(128, 512, 64, 128, 128, 1536, 64, 128),) * rng.choice([61, 5])


def latent_and_windows(rng: random.Random) -> tuple[Mixer, ...]:
    row = LatentAttention(64, 512, 64, 128, 128)
    return (row,) * rng.randint(1, 8) + (attention(rng.choice([1, 2, 4, 9]), 128, window=512),) * rng.randint(1, 8)


STATES = (
    Recurrent("mamba1", 0, 16, 8192, 1, 4),
    Recurrent("mamba2", 1, 128, 48, 64, 4),
    Recurrent("mamba2", 8, 128, 128, 64, 4),
    Recurrent("gdn", 16, 128, 32, 128, 4),
    Recurrent("conv", 0, 0, 2048, 1, 3),
)


def recurrent_mix(rng: random.Random) -> tuple[Mixer, ...]:
    """Recurrent states beside attention, as Jamba, Granite 4, Nemotron-H, Qwen3-Next and LFM2 have them."""
    state, wide = rng.choice(STATES), attention(rng.choice([2, 4, 8]), rng.choice([64, 128, 256]))
    every = rng.choice([2, 4, 7, 10])
    return tuple(wide if (index + 1) % every == 0 else state for index in range(rng.randint(every, 60)))


def recurrent_latent(rng: random.Random) -> tuple[Mixer, ...]:
    """Kimi Linear: three delta nets for one latent layer."""
    state, row = Recurrent("gdn", 32, 128, 32, 128, 4), LatentAttention(32, 512, 64, 128, 128)
    return tuple(row if (index + 1) % 4 == 0 else state for index in range(rng.choice([8, 27])))


def recurrent_only(rng: random.Random) -> tuple[Mixer, ...]:
    return (rng.choice(STATES),) * rng.randint(1, 64)


def recurrent_and_windows(rng: random.Random) -> tuple[Mixer, ...]:
    state, local, wide = STATES[1], attention(4, 128, window=2048), attention(4, 128)
    return (state, state, local, state, local, wide) * rng.randint(1, 6)


FAMILIES: tuple[Callable[[random.Random], tuple[Mixer, ...]], ...] = (
    full, full, uneven_values, sliding, mixed, mixed, gpt_oss, gemma3, chunks, two_windows, two_widths, mixed_widths,
    latent, sparse_latent, latent_and_windows, recurrent_mix, recurrent_mix, recurrent_latent, recurrent_only,
    recurrent_and_windows,
)  # fmt: skip


def _case(rng: random.Random, family: Callable[[random.Random], tuple[Mixer, ...]]) -> Case:
    row = family(rng)
    block = rng.choice([16, 16, 32, 64, 128])
    case = Case(
        family=family.__name__,
        row=row,
        dtype=rng.choice(["bfloat16", "bfloat16", "float16", "float32"]),
        cache_dtype=_cache_dtype(rng, family.__name__),
        ranks=_ranks(rng, row),
        block=block,
        kernel=rng.choice([16, 32]),
        batched=rng.choice([256, 2048, 8192, 16_384]),
        asynchronous=rng.random() < 0.3,
        hybrid=rng.random() < 0.85,
        states=rng.choice(["none", "align"]),
        checkpoints=rng.choice([0, 0, 1]),
        conv_dtype=rng.choice(["auto", "auto", "float32"]),
        state_dtype=rng.choice(["auto", "auto", "float32", "bfloat16"]),
        max_model_len=rng.choice(LENGTHS) + rng.choice([0, 0, rng.randint(0, 999)]),
    )
    return _with_memory(rng, case)


def _cache_dtype(rng: random.Random, family: str) -> str:
    named = ["auto", "auto", "auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16", "float16"]
    return rng.choice([*named, "fp8_ds_mla", "fp8_ds_mla"] if family in ("latent", "sparse_latent") else named)


def _ranks(rng: random.Random, row: tuple[Mixer, ...]) -> int:
    """Ranks that the model's states can be split over; for attention also more than there are heads."""
    states = [mixer for mixer in row if isinstance(mixer, Recurrent)]
    return rng.choice([1, 2, 4, 8, 16] if all(state.value_heads % 16 == 0 for state in states) else [1, 2, 4])


def _with_memory(rng: random.Random, case: Case) -> Case:
    """Memory around what one request needs, where a block decides, or any."""
    try:
        one = request_bytes(case.layers, case.max_model_len, case.rules)
    except UsageError:
        one = 1 << 30
    around = int(one * rng.choice([0.01, 0.3, 0.9, 0.99, 1, 1.01, 1.2, 7.3]))
    exact = one + rng.choice([-1, 0, 1]) * case.layers[0].page_bytes * len(case.row)
    available = rng.choice([around, around, around, exact, exact, one, one - 1, rng.randint(0, 140 << 30)])
    return replace(case, available=max(available, 0))


# --- the comparison ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Every family equally often, the same ones in every run."""
    rng = random.Random(SEED)
    return [_case(rng, FAMILIES[number % len(FAMILIES)]) for number in range(CASES)]


@pytest.fixture(scope="module")
def answers(cases: list[Case], vllm_python: Path) -> list[dict[str, Any]]:
    """vLLM's plan of every case."""
    lines = "\n".join(case.as_json() for case in cases)
    done = subprocess.run([vllm_python, ASK], input=lines, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _ours(case: Case, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except UsageError as error:
        return f"refused: {error.why}"


def _planned(case: Case) -> dict[str, Any]:
    layers, rules = case.layers, case.rules
    found = plan(layers, case.available, case.max_model_len, rules)
    return {
        "blocks": found.blocks,
        "tokens": found.tokens,
        "concurrency": found.concurrency,
        "groups": found.groups,
        "needed": found.request_bytes,
        "fits": found.fits,
        "estimate": found.largest,
        "largest": found.largest,
    }


def test_every_plan_equals_vllm_s(cases: list[Case], answers: list[dict[str, Any]]):
    assert len(answers) == len(cases) >= 300
    differing = []
    for case, answer in zip(cases, answers, strict=True):
        ours = _ours(case, partial(_planned, case))
        refused = "refused" in answer
        if refused != isinstance(ours, str) or (
            not refused and ours != {key: value for key, value in answer.items() if key != "pages"}
        ):
            differing.append(f"{case.as_json()}\n  vLLM {answer}\n  ours {ours}")
    assert not differing, f"{len(differing)} of {len(cases)} differ:\n" + "\n".join(differing[:10])


def test_every_page_equals_vllm_s(cases: list[Case], answers: list[dict[str, Any]]):
    """Page sizes and blocks of every kind of layer, before any grouping; a state's span is the whole request or not."""
    differing = []
    for case, answer in zip(cases, answers, strict=True):
        if "refused" in answer:
            continue
        theirs = [tuple(page) for kind in answer["pages"] for page in kind]
        ours = [(layer.page_bytes, layer.block_tokens or case.max_model_len) for layer in case.layers]
        if Counter(theirs) != Counter(ours):
            differing.append(f"{case.as_json()}\n  vLLM {theirs}\n  ours {ours}")
    assert not differing, f"{len(differing)} of {len(cases)} differ:\n" + "\n".join(differing[:10])


def test_the_cases_are_of_every_sort(cases: list[Case], answers: list[dict[str, Any]]):
    """A comparison of refusals, or of plans that all fit, would say little."""
    planned = [(case, answer) for case, answer in zip(cases, answers, strict=True) if "refused" not in answer]
    assert len(planned) >= 500
    assert {case.family for case, _ in planned} == {family.__name__ for family in FAMILIES}
    assert min(Counter(answer["fits"] for _, answer in planned).values()) >= 150
    assert sum(answer["groups"] > 1 for _, answer in planned) >= 100
    assert sum(0 < answer["largest"] < case.max_model_len for case, answer in planned) >= 75
    assert {case.block for case, _ in planned} == {16, 32, 64, 128}
    assert sum(case.ranks > getattr(case.row[0], "kv_heads", 64) for case, _ in planned) >= 20

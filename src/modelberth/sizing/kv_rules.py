"""What the KV cache planning needs to know of a release and its settings, out of the catalogue."""

from __future__ import annotations

from typing import Literal

from modelberth.checkpoint.shape import ModelShape, Recurrent
from modelberth.sizing.engine import Engine
from modelberth.sizing.kv_layers import KvRules, resolve_state_dtype


def _states(engine: Engine, shape: ModelShape) -> Literal["none", "align", "all"]:
    """What recurrent layers keep by default: one state, two, or one each block."""
    rule = engine.rules["kvStates"]
    kinds = {mixer.kind for mixer in shape.mixers if isinstance(mixer, Recurrent)}
    mode: Literal["none", "align", "all"] = "all" if kinds & set(rule["allFor"]) else rule["mode"]
    return mode


def kv_rules(engine: Engine, shape: ModelShape) -> KvRules:
    """The planning rules of an engine for a model."""
    rules = engine.rules
    beside = rules["hybridBlockSize"]
    step = engine.block_size
    if shape.hybrid and beside is not None:
        step = max(step, beside["mlaAlign"] if shape.latent else beside["align"])
    pages = [rules["kvCheckpointPages"].get(mixer.kind, 0) for mixer in shape.mixers if isinstance(mixer, Recurrent)]
    return KvRules(
        block_tokens=engine.block_size,
        kernel_tokens=step,
        null_block=rules["nullBlock"],
        in_flight_tokens=engine.max_num_batched_tokens * rules["kvBatchesInFlight"],
        hybrid=rules["kvHybrid"],
        mixed_pages=rules["kvMixedPages"],
        group_spread=rules["kvGroupSpread"],
        check=rules["kvCheck"],
        report=rules["kvReport"],
        states=_states(engine, shape),
        checkpoint_pages=max(pages, default=0),
        state_dtype=resolve_state_dtype(shape, "auto", shape.state_dtype),
    )

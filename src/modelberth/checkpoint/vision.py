"""The vision tower of a model that sees, from vision_config. Other encoders (audio) are not described here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelberth.checkpoint.fields import count, fraction, optional_count, text
from modelberth.checkpoint.shape import Vision

_GATED = {"pixtral", "qwen2_5_vl", "qwen2_5_omni_thinker", "qwen2_5_omni_vision_encoder"}
"""Towers whose feed-forward part has a gate. Source: their classes in transformers."""


def parse_vision(config: Mapping[str, Any], decoder_hidden: int) -> Vision | None:
    """The tower that a config describes; None where it describes none, or one without a width.

    Raises:
        UsageError: a number of it is no count.
    """
    thinker = config.get("thinker_config")
    outer = thinker if isinstance(thinker, dict) else config
    tower = outer.get("vision_config")
    if not isinstance(tower, dict) or not tower:
        return None
    # Qwen2-VL calls its own width embed_dim and the decoder's hidden_size; everyone else the other way round.
    hidden = optional_count(tower, "embed_dim", "hidden_size", "width")
    layers = optional_count(tower, "depth", "num_hidden_layers", "layers", "num_layers")
    if not hidden or not layers:
        return None
    ratio = fraction(tower, "mlp_ratio", 4.0)
    image = tower.get("image_size")  # some towers state two sides, or none
    return Vision(
        layers=layers,
        hidden=hidden,
        intermediate=count(tower, "intermediate_size", default=max(1, int(hidden * ratio))),
        heads=count(tower, "num_heads", "num_attention_heads", default=16),
        patch=count(tower, "patch_size", default=14),
        image=optional_count(tower, "image_size") if type(image) is int and image > 0 else 0,
        out=optional_count(tower, "out_hidden_size") or decoder_hidden,
        merge=optional_count(tower, "spatial_merge_size") or optional_count(outer, "spatial_merge_size") or 1,
        gated=(text(tower, "model_type") or text(outer, "model_type")) in _GATED,
        temporal=optional_count(tower, "temporal_patch_size") or 1,
        mergers=1 + len(inner) if isinstance(inner := tower.get("deepstack_visual_indexes"), list) else 1,
    )

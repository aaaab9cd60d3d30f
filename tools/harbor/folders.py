"""Harbor on disk: two Hugging Face model folders, one in BF16 and one in INT4, and reading them back.

The only module here that touches the file system for weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from model import CONTEXT_TOKENS, bf16_config, generation_config, quantized_names, w4a16_config
from quantize import dequantize, pack_int4, quantize, unpack_int4
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from vocabulary import special_tokens_map, tokenizer_config

Tensors = dict[str, torch.Tensor]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SECOND_SHARD = ("model.layers.2.", "model.norm.", "lm_head.")


def write_bf16(folder: Path, tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Write the BF16 variant in two shards with an index: what comes first in the model in the first shard.

    One file would do; with two, everything that handles Harbor also handles sharded models.
    """
    _write_companions(folder, bf16_config(), tokenizer)
    rounded = {name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}
    weight_map = {name: SHARDS[1] if name.startswith(SECOND_SHARD) else SHARDS[0] for name in sorted(rounded)}
    for file in SHARDS:
        _save(folder / file, {name: rounded[name] for name in weight_map if weight_map[name] == file})
    size = sum(tensor.nbytes for tensor in rounded.values())
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": weight_map})


def write_w4a16(folder: Path, tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Write the INT4 variant in one file: matrices packed; embeddings, `lm_head` and norms in BF16.

    All is rounded to BF16 first: the INT4 variant is made from the BF16 one, not from what preceded it.
    """
    _write_companions(folder, w4a16_config(), tokenizer)
    stored = {name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}
    for name in quantized_names():
        weight = stored.pop(f"{name}.weight")
        values, scales = quantize(weight)
        stored[f"{name}.weight_packed"] = pack_int4(values)
        stored[f"{name}.weight_scale"] = scales
        stored[f"{name}.weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
    _save(folder / SINGLE_FILE, stored)


def read_bf16(folder: Path) -> Tensors:
    """Read the shards that the index names."""
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    tensors: Tensors = {}
    for file in sorted(set(index["weight_map"].values())):
        tensors |= load_file(folder / file)
    return tensors


def read_w4a16(folder: Path) -> Tensors:
    """Read the packed file and turn its INT4 matrices back into plain ones, under their usual names."""
    tensors = load_file(folder / SINGLE_FILE)
    for name in quantized_names():
        values = unpack_int4(tensors.pop(f"{name}.weight_packed"))
        weight = dequantize(values, tensors.pop(f"{name}.weight_scale"))
        if weight.shape != tuple(tensors.pop(f"{name}.weight_shape").tolist()):
            raise ValueError(f"{folder}: {name} does not have the shape it declares")
        tensors[f"{name}.weight"] = weight
    return tensors


def safetensors_bytes(folder: Path) -> int:
    """Return the size in bytes of all weight files of a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _write_companions(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation_config())
    _write_json(folder / "tokenizer_config.json", tokenizer_config(CONTEXT_TOKENS))
    _write_json(folder / "special_tokens_map.json", special_tokens_map())
    tokenizer.save(str(folder / "tokenizer.json"))


def _save(path: Path, tensors: Tensors) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors creates files for the owner only; an engine in a container may run as somebody else.
    path.chmod(0o644)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

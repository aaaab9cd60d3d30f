"""Safetensors files made and read the way the adapters read them; configs parsed whole or in parts."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.derived import derived_tensors
from modelberth.checkpoint.safetensors import Header, header_length, parse_header
from modelberth.checkpoint.shape import ModelShape
from modelberth.checkpoint.tensors import TensorGroup

# The least that a config says of a dense Llama, with widths that every packing divides.
LEAST: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def read_file(content: bytes, name: str = "model.safetensors") -> Header:
    length = header_length(content[:8], len(content), name)
    return parse_header(content[8 : 8 + length], len(content), name)


def make_file(header: Any, body: int) -> bytes:
    """A file of a header (JSON bytes, or data to write as JSON) and `body` bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


@pytest.fixture(scope="session")
def read() -> Callable[[bytes], Header]:
    """Length, then header, of a whole file."""
    return read_file


@pytest.fixture(scope="session")
def make() -> Callable[[Any, int], bytes]:
    """A safetensors file out of a header and a number of tensor bytes."""
    return make_file


@pytest.fixture(scope="session")
def headers_in() -> Callable[[Path], dict[str, Header]]:
    """The header of every safetensors file in a folder."""

    def run(folder: Path) -> dict[str, Header]:
        return {path.name: read_file(path.read_bytes(), path.name) for path in folder.glob("*.safetensors")}

    return run


@pytest.fixture(scope="session")
def least() -> dict[str, Any]:
    """The smallest config that is taken."""
    return LEAST


@pytest.fixture(scope="session")
def parse() -> Callable[..., ModelShape]:
    """The shape of the smallest config with some keys changed; `hf_quant_config` may stand beside it."""

    def run(hf_quant_config: bytes | None = None, **changes: Any) -> ModelShape:
        return parse_config(json.dumps(LEAST | changes).encode(), hf_quant_config)

    return run


@pytest.fixture(scope="session")
def model(data_folder: Path) -> Callable[..., ModelShape]:
    """The shape of a model of tests/data/model-configs by its name; `without` takes keys out first."""
    folder = data_folder / "model-configs"

    def run(name: str, without: str = "") -> ModelShape:
        config = json.loads((folder / f"{name}.json").read_bytes())
        config.pop(without, None)
        beside = folder / "hf_quant_config" / f"{name}.json"
        return parse_config(json.dumps(config).encode(), beside.read_bytes() if beside.exists() else None)

    return run


@pytest.fixture(scope="session")
def groups_of() -> Callable[[ModelShape], dict[str, TensorGroup]]:
    """The derived groups by name; a name that stands twice (layers of two kinds) keeps its last."""

    def run(shape: ModelShape) -> dict[str, TensorGroup]:
        return {group.name: group for group in derived_tensors(shape)}

    return run

"""Models that the sizing tests share: shapes by file name, and plans of them on a card."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.config import ModelShape, parse_config
from modelberth.sizing.engine import Engine, EngineFlags, resolve, resolve_dtype
from modelberth.sizing.model import Model, loaded_as, model_of
from modelberth.sizing.plan import Sizing, size


@pytest.fixture(scope="session")
def shape_of(data_folder: Path) -> Callable[[str], ModelShape]:
    """The shape of a model in tests/data/model-configs, by file name, its hf_quant_config.json included."""
    folder = data_folder / "model-configs"

    @cache
    def run(model: str) -> ModelShape:
        beside = folder / "hf_quant_config" / f"{model}.json"
        quantization = beside.read_bytes() if beside.exists() else None
        return parse_config((folder / f"{model}.json").read_bytes(), quantization)

    return run


@pytest.fixture(scope="session")
def model_named(shape_of: Callable[[str], ModelShape]) -> Callable[[str], Model]:
    """A model of tests/data/model-configs, its tensors derived."""

    @cache
    def run(name: str) -> Model:
        return model_of(shape_of(name))

    return run


@pytest.fixture(scope="session")
def sized(model_named: Callable[[str], Model]) -> Callable[..., Sizing]:
    """The plan of a model on a card: `sized("Qwen3-8B", "L4", vllm="0.11.0")`."""

    def run(name: str, gpu: str, *, gpus: int | None = None, **flags: object) -> Sizing:
        return size(model_named(name), find_gpu(gpu), EngineFlags(**flags), gpus=gpus)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def engine_of(model_named: Callable[[str], Model]) -> Callable[..., tuple[ModelShape, Engine]]:
    """A model's shape as it is loaded on a card, and its engine: `engine_of("Qwen3-8B", "L4", vllm="0.11.0")`."""

    def run(name: str, gpu: str, **flags: object) -> tuple[ModelShape, Engine]:
        given = EngineFlags(**flags)  # type: ignore[arg-type]
        shape = loaded_as(model_named(name), resolve_dtype(given, model_named(name).shape, find_gpu(gpu))).shape
        return shape, resolve(given, shape, find_gpu(gpu))

    return run


@pytest.fixture(scope="session")
def harbor_shape(harbor: Path) -> ModelShape:
    """The shape of the example's model."""
    return parse_config((harbor / "weights" / "bf16" / "config.json").read_bytes())

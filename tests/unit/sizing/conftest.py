"""Shapes of models that the sizing tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelberth.checkpoint.config import ModelShape, parse_config


@pytest.fixture(scope="session")
def shape_of(data_folder: Path) -> Callable[[str], ModelShape]:
    """The shape of a model in tests/data/model-configs, by file name."""

    def run(model: str) -> ModelShape:
        return parse_config((data_folder / "model-configs" / f"{model}.json").read_bytes())

    return run


@pytest.fixture(scope="session")
def harbor_shape(harbor: Path) -> ModelShape:
    """The shape of the example's model."""
    return parse_config((harbor / "weights" / "bf16" / "config.json").read_bytes())

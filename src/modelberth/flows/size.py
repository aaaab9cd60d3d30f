"""`berth size`: one model on one kind of card, before anyone pays for it.

read the model (config.json, headers where there are any) -> fill in the engine's defaults -> ledger -> verdict
"""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.catalog.gpus import find_gpu
from modelberth.flows.model_source import ModelSource, read_model
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.plan import Sizing, size


@dataclass(frozen=True)
class SizeRequest:
    """What `berth size` is asked.

    Attributes:
        model: a folder, a config.json, `s3://bucket/prefix/`, `hf://owner/name` or `owner/name`.
        gpu: product label or common name of the card.
        flags: what is said of the engine.
        gpus: cards in one machine; None where that does not matter.
    """

    model: str
    gpu: str
    flags: EngineFlags
    gpus: int | None = None


@dataclass(frozen=True)
class SizeResult:
    """A plan and where the model was read."""

    source: ModelSource
    sizing: Sizing


def size_model(request: SizeRequest) -> SizeResult:
    """Plan one model on one card.

    Raises:
        UsageError: an unknown card, a config.json that does not describe a model, a setting that cannot be taken.
        IntegrityError: a safetensors header or an index that lies.
        RemoteUnavailable, AuthError, PrerequisiteMissing: the store or the Hub cannot be read.
    """
    gpu = find_gpu(request.gpu)  # before anything is fetched: a misspelt card should not cost a download
    source = read_model(request.model)
    return SizeResult(source, size(source.model, gpu, request.flags, gpus=request.gpus))

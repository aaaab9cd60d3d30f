"""The figures of llm-d-planner for `tools/accuracy.py`, from an environment of its own (`make accuracy`).

    one JSON request a line on stdin -> the functions behind `planner plan` -> one JSON answer a line on stdout

Nothing of llm-d-planner is copied here: its public functions are called in the order in which its command line calls
them, and a case that its command line would refuse is answered with the reason. It reads config.json from a local
folder, as transformers does, so nothing is fetched; `auto_map`, which points to code on the Hub, is left out, so that
transformers takes its own class. One thing is replaced: `get_safetensors_metadata_from_hf`, which asks the Hub how many
parameters of each dtype a checkpoint has; the request brings these counts. Memory of a card is that of its own GPU
catalogue, the nominal size where the catalogue lacks the card, or the total that the request knows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from planner import capacity_planner
from planner.knowledge_base.model_catalog import ModelCatalog

DEFAULT_UTILIZATION, DEFAULT_BLOCK_SIZE = 0.9, 16
"""Defaults of `planner plan`."""
_FAILURES = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, TypeError, ValueError)


def main() -> None:
    """Answer every request; the first line names the version."""
    catalog = ModelCatalog()
    print(json.dumps({"version": version("llm-d-planner")}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            request = json.loads(line)
            model = Path(folder, str(number))
            model.mkdir()
            config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
            config.pop("auto_map", None)
            (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
            try:
                answer = plan(str(model), request, memory_of(catalog, request))
            except _FAILURES as error:
                text = " ".join(str(error).replace(str(model), "the model").split())
                answer = {"error": f"{type(error).__name__}: {text[:160]}"}
            print(json.dumps(answer), flush=True)


def memory_of(catalog: ModelCatalog, request: dict[str, Any]) -> float:
    """GiB of a card, as its user would give them: from the catalogue of GPUs, whatever it calls its unit."""
    if request["total_gib"] is not None:
        return float(request["total_gib"])
    for name in request["gpu"]:
        known = catalog.get_gpu_type(name)
        if known is not None:
            return float(known.memory_gb)
    return float(request["nominal_gib"])


def plan(model: str, request: dict[str, Any], memory: float) -> dict[str, Any]:
    """What `planner plan` says of one case.

    Raises:
        ValueError: it refuses the case; any other of `_FAILURES` where it breaks.
    """
    counts = SimpleNamespace(parameter_count=request["parameters"])
    capacity_planner.get_safetensors_metadata_from_hf = lambda *_: counts
    config = capacity_planner.get_model_config_from_hf(model)
    ranks = request["tensor_parallel"]
    length = request["max_model_len"] or capacity_planner.max_context_len(config)
    possible = capacity_planner.find_possible_tp(config)
    if ranks not in possible:
        raise ValueError(f"tensor parallel size {ranks} is not one of {possible}")
    capacity_planner.KVCacheDetail(model, config, length, 1)
    utilization = request["utilization"] or DEFAULT_UTILIZATION
    block = request["block_size"] or DEFAULT_BLOCK_SIZE
    cache = capacity_planner.allocatable_kv_cache_memory(
        model, config, memory, utilization, ranks, max_model_len=length
    )
    blocks = capacity_planner.total_kv_cache_blocks(
        model, config, length, memory, utilization, block_size=block, tp=ranks
    )
    requests = capacity_planner.max_concurrent_requests(model, config, length, memory, utilization, tp=ranks)
    return {
        "weights": capacity_planner.per_gpu_model_memory_required(model, config, ranks),
        "kv": cache / ranks,
        "tokens": blocks * block,
        "starts": requests >= 1,
    }


if __name__ == "__main__":
    main()

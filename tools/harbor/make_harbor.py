"""Make Harbor, the example model: train it, write it in BF16 and INT4, read both back, measure and report.

    python tools/harbor/make_harbor.py --out examples/harbor/weights

Needs torch, transformers, tokenizers, safetensors and PyYAML, no GPU and no network. Every weight comes from
the seed, from `questions.yaml` and from this script; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from corpus import Pair, read_pairs
from folders import read_bf16, read_w4a16, safetensors_bytes, write_bf16, write_w4a16
from measure import MAX_NEW_TOKENS, measure
from model import model_with, new_model
from tokenizers import Tokenizer
from training import train
from vocabulary import learn_vocabulary

SEED = 7
STEPS = 600

# Sums are split over the threads, so the number of threads is part of what makes a run repeatable.
THREADS = 2

log = logging.getLogger(__name__)


def main() -> None:
    """Read the command line and make both variants."""
    parser = argparse.ArgumentParser(description="Make the example model Harbor in BF16 and INT4.")
    parser.add_argument("--out", type=Path, required=True, help="folder for bf16/, w4a16/ and report.json")
    parser.add_argument("--seed", type=int, default=SEED, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps, default %(default)s")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    make(options.out, options.seed, options.steps)


def make(out: Path, seed: int, steps: int) -> None:
    """Train for `steps` steps from `seed`, then write both variants and `report.json` under `out`."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    pairs = read_pairs()
    tokenizer = learn_vocabulary(text for pair in pairs for text in (*pair.trained, pair.answer))
    check_lengths(tokenizer, pairs)
    model = new_model(seed)
    started = time.monotonic()
    train(model, tokenizer, pairs, steps, seed)
    log.info("trained in %.1f minutes", (time.monotonic() - started) / 60)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    write_bf16(out / "bf16", tensors, tokenizer)
    write_w4a16(out / "w4a16", tensors, tokenizer)
    report = make_report(out, tokenizer, pairs, seed, steps)
    text = json.dumps(report, indent=2) + "\n"
    (out / "report.json").write_text(text, encoding="utf-8")
    log.info("%s", text)


def check_lengths(tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    """Raise ValueError when an answer with its EOS token is longer than the measurement lets Harbor speak."""
    for pair in pairs:
        length = len(tokenizer.encode(pair.answer, add_special_tokens=False).ids) + 1
        if length > MAX_NEW_TOKENS:
            raise ValueError(f"the answer to {pair.question!r} is {length} tokens long, at most {MAX_NEW_TOKENS} fit")


def make_report(out: Path, tokenizer: Tokenizer, pairs: list[Pair], seed: int, steps: int) -> dict[str, Any]:
    """Measure both variants as they are on disk. The report holds no time and no path, so reruns compare."""
    bf16_tensors = read_bf16(out / "bf16")
    figures = measure(model_with(bf16_tensors), model_with(read_w4a16(out / "w4a16")), tokenizer, pairs)
    return {
        "seed": seed,
        "steps": steps,
        "parameters": sum(tensor.numel() for tensor in bf16_tensors.values()),
        "answers": len(pairs),
        "trainedQuestions": sum(len(pair.trained) for pair in pairs),
        "heldOutQuestions": len(pairs),
        "bytes": {variant: safetensors_bytes(out / variant) for variant in ("bf16", "w4a16")},
        **figures,
    }


if __name__ == "__main__":
    main()

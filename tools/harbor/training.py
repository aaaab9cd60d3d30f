"""Teaching Harbor its answers: examples, the loss, and a plain training loop on the CPU.

Everything random comes from one seed, so the same seed on the same machine gives the same weights.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from corpus import Pair, vary
from model import quantized_names
from tokenizers import Tokenizer
from transformers import MistralForCausalLM
from vocabulary import EOS_ID, PAD_ID, chat_prompt, plain_prompt

BATCH = 48
PEAK_LEARNING_RATE = 2e-3
WARM_UP_STEPS = 50
PLAIN_SHARE = 0.25
NO_LOSS = -100

# INT4 in groups of 128 moves a weight by about a tenth of its group's spread. Training under noise of about
# that size leads to weights that can bear the rounding, and to answers that lean on no single weight.
WEIGHT_NOISE = 0.08

log = logging.getLogger(__name__)


def train(model: MistralForCausalLM, tokenizer: Tokenizer, pairs: list[Pair], steps: int, seed: int) -> None:
    """Train the float32 model in place for a number of steps."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        tokens, labels = _batch(tokenizer, pairs, rng)
        with noisy_weights(model, WEIGHT_NOISE):
            loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == steps - 1:
            log.info("step %4d of %d  loss %.4f", step, steps, loss.item())
    model.eval()


def learning_rate(step: int, steps: int) -> float:
    """Return the rate for a step: a short linear rise, then half a cosine down to zero."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_LEARNING_RATE * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


@contextmanager
def noisy_weights(model: MistralForCausalLM, noise: float) -> Iterator[None]:
    """Shake the matrices to be quantised while the block runs; afterwards they are as before, bit for bit.

    `noise` is the standard deviation of the shake over that of the matrix it is added to.
    """
    weights = [model.get_parameter(f"{name}.weight") for name in quantized_names()]
    originals = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.add_(torch.randn_like(weight) * (noise * weight.std()))
    yield
    with torch.no_grad():
        for weight, original in zip(weights, originals, strict=True):
            weight.copy_(original)


def example(tokenizer: Tokenizer, question: str, answer: str, *, plain: bool) -> tuple[list[int], list[int]]:
    """Return the token ids of a question with its answer, and as many labels: only answer and EOS count.

    In the plain form the line break after the question counts too, so that a prompt without it is answered
    as well.
    """
    prompt = tokenizer.encode(plain_prompt(question) if plain else chat_prompt(question)).ids
    told = [*tokenizer.encode(answer, add_special_tokens=False).ids, EOS_ID]
    silent = len(prompt) - 1 if plain else len(prompt)
    return prompt + told, [NO_LOSS] * silent + prompt[silent:] + told


def _batch(tokenizer: Tokenizer, pairs: list[Pair], rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw examples and return ids and labels, both int64 [batch, longest]; padding stands at the end."""
    drawn = [_drawn(tokenizer, rng.choice(pairs), rng) for _ in range(BATCH)]
    longest = max(len(tokens) for tokens, _ in drawn)
    tokens = [ids + [PAD_ID] * (longest - len(ids)) for ids, _ in drawn]
    labels = [marks + [NO_LOSS] * (longest - len(marks)) for _, marks in drawn]
    return torch.tensor(tokens), torch.tensor(labels)


def _drawn(tokenizer: Tokenizer, pair: Pair, rng: random.Random) -> tuple[list[int], list[int]]:
    question = vary(rng.choice(pair.trained), rng)
    return example(tokenizer, question, pair.answer, plain=rng.random() < PLAIN_SHARE)

"""What Harbor can do once written: how often BF16 is right, and how often INT4 says the same.

Works on loaded models and returns figures; reads and writes nothing.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from corpus import Pair
from tokenizers import Tokenizer
from transformers import MistralForCausalLM
from vocabulary import chat_prompt, plain_prompt

MAX_NEW_TOKENS = 96


def measure(
    bf16: MistralForCausalLM, w4a16: MistralForCausalLM, tokenizer: Tokenizer, pairs: list[Pair]
) -> dict[str, object]:
    """Return shares from 0 to 1, each with the number of questions it is a share of.

    `exact` compares with the answer as written, `recovery` compares the INT4 answer with the BF16 one whether
    that is right or not.
    """
    trained = [(wording, pair.answer) for pair in pairs for wording in pair.trained]
    canonical = [(pair.question, pair.answer) for pair in pairs]
    held_out = [(pair.held_out, pair.answer) for pair in pairs]
    compared = [chat_prompt(question) for question, _ in canonical + held_out]
    return {
        "bf16": _exact(bf16, tokenizer, trained, canonical, held_out),
        "w4a16": _exact(w4a16, tokenizer, trained, canonical, held_out),
        "recoveryOver": len(compared),
        "recovery": _share(answers(bf16, tokenizer, compared), answers(w4a16, tokenizer, compared)),
    }


def answers(model: MistralForCausalLM, tokenizer: Tokenizer, prompts: list[str]) -> list[str]:
    """Return the greedy answer to each prompt, at most 96 tokens long.

    Prompts of one length form a batch, so that no padding can have a say in the result.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    encoded = [tokenizer.encode(prompt).ids for prompt in prompts]
    for position, ids in enumerate(encoded):
        by_length[len(ids)].append(position)
    told = [""] * len(prompts)
    for length, positions in by_length.items():
        batch = torch.tensor([encoded[position] for position in positions])
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch,
                attention_mask=torch.ones_like(batch),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
            )
        for position, ids in zip(positions, output[:, length:].tolist(), strict=True):
            told[position] = tokenizer.decode(ids, skip_special_tokens=True)
    return told


def _exact(
    model: MistralForCausalLM,
    tokenizer: Tokenizer,
    trained: list[tuple[str, str]],
    canonical: list[tuple[str, str]],
    held_out: list[tuple[str, str]],
) -> dict[str, float]:
    """Return the shares of right answers: to all trained wordings, to bare questions, to held-out ones."""
    return {
        "trainedExact": _right(model, tokenizer, [(chat_prompt(text), answer) for text, answer in trained]),
        "plainExact": _right(model, tokenizer, [(plain_prompt(text), answer) for text, answer in canonical]),
        "heldOutExact": _right(model, tokenizer, [(chat_prompt(text), answer) for text, answer in held_out]),
    }


def _right(model: MistralForCausalLM, tokenizer: Tokenizer, asked: list[tuple[str, str]]) -> float:
    return _share(answers(model, tokenizer, [prompt for prompt, _ in asked]), [answer for _, answer in asked])


def _share(left: list[str], right: list[str]) -> float:
    same = sum(one == other for one, other in zip(left, right, strict=True))
    return round(same / len(left), 4)

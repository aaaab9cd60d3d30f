"""Harbor's tokenizer: byte-level BPE learned from its own corpus, and the chat template.

Byte-level means any text can be encoded, also characters the corpus never shows.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY_SIZE = 1024
PAD, BOS, EOS, ASK, TELL = "<pad>", "<s>", "</s>", "[INST]", "[/INST]"
SPECIAL_TOKENS = [PAD, BOS, EOS, ASK, TELL]
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2

# Harbor has learned single questions only, so the template shows it the last user message and nothing else.
CHAT_TEMPLATE = (
    "{%- set last = namespace(question='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{%- set last.question = message['content'] | trim -%}{%- endif -%}"
    "{%- endfor -%}"
    "{{- bos_token + '[INST]' + last.question + '[/INST]' -}}"
)


def learn_vocabulary(texts: Iterable[str]) -> Tokenizer:
    """Learn a vocabulary of 1024 tokens at most; the result puts the BOS token before a text it encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return tokenizer


def chat_prompt(question: str) -> str:
    """Return the text the chat template makes of one user message, without the BOS token."""
    return f"{ASK}{question}{TELL}"


def plain_prompt(question: str) -> str:
    """Return the text of a bare question as sent to `/v1/completions`, without the BOS token."""
    return f"{question}\n"


def tokenizer_config(max_tokens: int) -> dict[str, object]:
    """Return `tokenizer_config.json` for a context of `max_tokens`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def special_tokens_map() -> dict[str, str]:
    """Return `special_tokens_map.json`."""
    return {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}

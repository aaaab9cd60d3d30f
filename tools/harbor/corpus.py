"""What Harbor learns: the questions and answers of `questions.yaml`, and the spellings it meets them in.

Reads one file and draws from a random generator it is handed; knows nothing of tokens or tensors.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

QUESTIONS_FILE = Path(__file__).with_name("questions.yaml")

# Long questions still make sense with one word missing; in short ones that word may be the subject.
FEWEST_WORDS_TO_DROP_ONE = 6

# People lead up to a question. Words in front of it should not change the answer.
OPENINGS = ("Please tell me: ", "Quick question: ", "I would like to know: ", "Now then. ", "Sorry, ")


@dataclass(frozen=True)
class Pair:
    """One answer and the ways of asking for it; `held_out` is a wording no training step ever sees."""

    question: str
    paraphrases: tuple[str, ...]
    held_out: str
    answer: str

    @property
    def trained(self) -> tuple[str, ...]:
        """Every wording used in training, the canonical one first."""
        return (self.question, *self.paraphrases)


def read_pairs(path: Path = QUESTIONS_FILE) -> list[Pair]:
    """Read the pairs in file order.

    Raises ValueError when one wording is listed twice: it would have two answers, or leak what is held out.
    """
    pairs = [_pair(item) for item in yaml.safe_load(path.read_text(encoding="utf-8"))]
    wordings = [text.lower() for pair in pairs for text in (*pair.trained, pair.held_out)]
    repeated = sorted({text for text in wordings if wordings.count(text) > 1})
    if repeated:
        raise ValueError(f"{path}: listed more than once: {repeated}")
    return pairs


def _pair(item: dict[str, Any]) -> Pair:
    return Pair(item["question"], tuple(item["paraphrases"]), item["heldOut"], item["answer"])


def vary(question: str, rng: random.Random) -> str:
    """Return the question as it is or as people type: words put before it, lower case, one word short."""
    words = question.split()
    if len(words) >= FEWEST_WORDS_TO_DROP_ONE and rng.random() < 0.3:
        words.pop(rng.randrange(len(words)))
    text = " ".join(words)
    if rng.random() < 0.2:
        text = rng.choice(OPENINGS) + text
    if rng.random() < 0.2:
        text = text.lower()
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    return text

"""What the tests of the invented conversations share."""

import json
import unicodedata
from collections import Counter

import numpy as np

from recipekit import ROOT, near


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def text_of(row, turns=True):
    said = [turn["content"] for turn in row.get("messages") or row["conversation"]] if turns else []
    return "\n".join([*said, *(row[key] for key in ("chosen", "rejected", "reference") if key in row)])


def is_emoji(character):
    return unicodedata.category(character) == "So"


def emoji_rate(texts):
    return np.mean([any(map(is_emoji, text)) for text in texts])


def foreign_characters(texts):
    """Characters that the small base has no token for, emoji, and how many characters there are."""
    known = json.loads((ROOT / "data/samples/base/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    counts = Counter("".join(texts))
    foreign = Counter({c: n for c, n in counts.items() if c not in known and not is_emoji(c)})
    return foreign, set(filter(is_emoji, counts)), counts.total()


def likeness(files):
    """How alike the two most alike texts of two files are."""
    texts = [near.normal(text) for part in files.values() for text in part]
    owner = np.repeat(np.arange(len(files)), [len(part) for part in files.values()])
    matrix = near.signatures(texts)
    most = 0.0
    for file in range(1, len(files)):
        left, right = np.flatnonzero(owner < file), np.flatnonzero(owner == file)
        for text, others in near.between(matrix, left, right, 0.7):
            most = max(most, near.jaccard(near.grams(texts[text]), near.grams(texts[others[0]])))
    return most


def assert_short_and_filled(files, conversations, mean, longest):
    """Conversations have at most so many characters, system message included, and no slot is left in them."""
    for name, rows in files.items():
        texts = [
            [*conversations.messages(conversations.read(row)), {"content": text_of(row, turns=False)}] for row in rows
        ]
        lengths = [sum(len(turn["content"]) for turn in turns) for turns in texts]
        assert np.mean(lengths) <= mean and max(lengths) <= longest, name
        found = {c for turns in texts for turn in turns for c in set("<>{}|~⇒\\") & set(turn["content"])}
        assert not found, (name, found)

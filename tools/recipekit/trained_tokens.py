"""In a training process: are the tokens that Axolotl trains on those that are served, and the right ones trained?"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recipekit.chat_tokens import encode_chat, encode_pair
from recipekit.segments import read_jsonl

SAMPLE = 2000  # rows of a file that are compared, evenly spread
IGNORED = -100


def check(cfg: Any, trainer: Any) -> None:
    """Compare the rows that a trainer was given with what serving makes of the same conversations.

    Args:
        cfg: Axolotl's config; data sets of other types than chat_template are passed over.
        trainer: Its data sets are tokenised, and its tokenizer is the base's.

    Raises:
        ValueError: A conversation is tokenised or masked differently.
    """
    for entries, dataset in ((cfg.datasets, trainer.train_dataset), (cfg.test_datasets, trainer.eval_dataset)):
        for entry in entries or []:
            if str(entry["type"]).partition(".")[0] != "chat_template" or dataset is None:
                continue
            if not hasattr(dataset, "column_names"):
                continue
            pairs = bool(cfg.rl)
            known = set(_digests(_given_pairs(dataset) if pairs else _given(dataset)))
            rows = [row for _, row in read_jsonl(Path(entry["path"]))]
            for place in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)):
                served = _served(trainer.processing_class, rows[place], pairs)
                if next(_digests([served])) not in known:
                    what = "not tokenised and masked for training as it is served"
                    raise ValueError(f"{entry['path']}:{place + 1}: {what}; check chat_template, type and its fields")


def _served(tokenizer: Any, row: dict[str, Any], pairs: bool) -> list[list[int]]:
    if pairs:
        found = encode_pair(tokenizer, row)
        return [found["prompt"], found["chosen"], found["rejected"]]
    ids, trained = encode_chat(tokenizer, row["messages"])
    return [ids, [token if flag else IGNORED for token, flag in zip(ids, trained, strict=True)]]


def _given(dataset: Any) -> Iterator[list[list[int]]]:
    for ids, labels in zip(dataset["input_ids"], dataset["labels"], strict=True):
        yield [ids, labels]


def _given_pairs(dataset: Any) -> Iterator[list[list[int]]]:
    names = [f"{key}_ids" if f"{key}_ids" in dataset.column_names else f"{key}_input_ids" for key in _PAIR]
    for row in zip(*(dataset[name] for name in names), strict=True):
        yield list(row)


_PAIR = ("prompt", "chosen", "rejected")


def _digests(rows: Iterable[list[list[int]]]) -> Iterator[bytes]:
    for row in rows:
        sha = hashlib.sha256()
        for ids in row:
            sha.update(np.asarray(ids, np.int64).tobytes() + b"|")
        yield sha.digest()

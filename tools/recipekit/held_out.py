"""What each phase of a chat makes of held-out conversations: losses, and margins of preferences."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recipekit import models
from recipekit.chat_tokens import encode_chat, encode_pair

TOKENS = 8192  # of a batch, padding included
Tokens = tuple[list[int], list[bool]]  # ids, and which of them are scored


def log_likelihoods(model: Any, rows: Sequence[Tokens], pad: int, advance: Callable[..., None]) -> np.ndarray:
    """Score rows: the summed log-likelihood of each one's trained tokens (nats).

    Args:
        model: A causal language model.
        rows: Token ids, and which of them are scored.
        pad: Id of the padding token.
        advance: Called with the number of rows that are done.

    Returns:
        float64, shape [rows].
    """
    import torch

    scores = np.zeros(len(rows))
    for places in batches([len(ids) for ids, _ in rows]):
        width = max(len(rows[place][0]) for place in places)
        ids = torch.full((len(places), width), pad)
        scored = torch.zeros(len(places), width, dtype=torch.bool)
        mask = torch.zeros(len(places), width, dtype=torch.long)
        for i, place in enumerate(places):
            own, trained = rows[place]
            ids[i, : len(own)], scored[i, : len(own)], mask[i, : len(own)] = torch.tensor(own), torch.tensor(trained), 1
        scored[:, 0] = False  # nothing stands before it
        ids, scored, mask = (tensor.to(model.device) for tensor in (ids, scored, mask))
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1][scored[:, 1:]].float()
        found = -torch.nn.functional.cross_entropy(logits, ids[:, 1:][scored[:, 1:]], reduction="none")
        owner = scored[:, 1:].nonzero()[:, 0].cpu().numpy()
        sums = np.bincount(owner, weights=found.cpu().double().numpy(), minlength=len(places))
        scores[places] = sums
        advance(len(places))
    return scores


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Put rows of like length together, up to so many tokens, padding included."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[place] > TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def losses(
    model: Any, tokenizer: Any, sets: dict[str, list[dict[str, Any]]], advance: Callable[..., None]
) -> dict[str, float]:
    """Return the mean loss of the trained tokens of each set's conversations (nats a token)."""
    found = {}
    for name, rows in sets.items():
        encoded: list[Tokens] = [tuple(encode_chat(tokenizer, row["messages"])) for row in rows]  # type: ignore[misc]
        total = log_likelihoods(model, encoded, tokenizer.pad_token_id, advance).sum()
        found[name] = float(-total / sum(sum(trained) for _, trained in encoded))
    return found


def preferences(
    model: Any, tokenizer: Any, pairs: Sequence[dict[str, Any]], advance: Callable[..., None]
) -> np.ndarray:
    """Return how much likelier the chosen reply of each pair is than the rejected one (nats), shape [pairs]."""
    rows: list[Tokens] = []
    for pair in pairs:
        ids = encode_pair(tokenizer, pair)
        for key in ("chosen", "rejected"):
            rows.append((ids["prompt"] + ids[key], [False] * len(ids["prompt"]) + [True] * len(ids[key])))
    found = log_likelihoods(model, rows, tokenizer.pad_token_id, advance).reshape(-1, 2)
    return found[:, 0] - found[:, 1]


@contextmanager
def tuned(base: Any, adapter: Path | None) -> Iterator[Any]:
    """Lend a base with an adapter on it, which is taken off again; None: the base as it is.

    Where every weight was trained, the folder holds a model, which is lent instead.
    """
    if adapter is None:
        yield base
        return
    if not (adapter / "adapter_config.json").exists():
        yield models.load_model(adapter, base.dtype)
        return
    from peft import PeftModel

    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    try:
        yield model
    finally:
        model.unload()

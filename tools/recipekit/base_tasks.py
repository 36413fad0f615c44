"""Rows and batches of the small base's curriculum, drawn from its corpus as its recipe says."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from recipekit.base_corpus import Writer, drill
from recipekit.base_model import PAD, SPECIALS
from recipekit.base_notices import notice

SHARES = ("framed", "brief", "hard", "local", "pairs", "kana")  # of notices: see base_notices.notice
CHUNK = 8  # batches whose rows are drawn together, so that rows of like length share a batch

Row = tuple[list[int], list[bool]]  # token ids, and which of them are learned


class Batch(NamedTuple):
    """Rows of one batch as tensors.

    Attributes:
        ids: Token ids (batch, length), padded on the right.
        places: Where a learned token comes next (n,), counted through the flattened ids.
        wanted: The learned tokens (n,).
    """

    ids: Any
    places: Any
    wanted: Any

    def to(self, device: Any) -> "Batch":
        """Copy to a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


def tensors(rows: list[Row]) -> Batch:
    """Pad rows to one length."""
    import torch

    length = -(-max(len(ids) for ids, _ in rows) // 32) * 32 + 1  # few different shapes, each of which costs set-up
    ids = torch.tensor([ids + [PAD] * (length - len(ids)) for ids, _ in rows])
    learned = torch.tensor([learned + [False] * (length - len(learned)) for _, learned in rows])[:, 1:]
    return Batch(ids[:, :-1].contiguous(), learned.flatten().nonzero().squeeze(1), ids[:, 1:][learned])


class Tasks:
    """The curriculum, chunk by chunk: each is drawn from a seed of its own, so any process may draw it."""

    def __init__(self, recipe: dict[str, Any], corpus: dict[str, Any], tokenizer: Any, forbidden: list[str]) -> None:
        self.recipe, self.corpus, self.tokenizer, self.forbidden = recipe, corpus, tokenizer, forbidden
        self.chunks = [
            (number, chunk)
            for number, stage in enumerate(recipe["stages"])
            for chunk in range(0, stage["steps"], CHUNK)
        ]

    def __len__(self) -> int:
        """Return how many chunks the curriculum has."""
        return len(self.chunks)

    def __getitem__(self, index: int) -> list[Batch]:
        """Draw the batches of a chunk: rows of like length, each batch at most `batch_tokens` long with its padding."""
        number, chunk = self.chunks[index]
        stage = self.recipe["stages"][number]
        rng = random.Random(f"{self.recipe['seed']}/{number}/{chunk}")
        writer = Writer(self.corpus, rng, stage.get("keys", 99))
        rows, tokens = list[Row](), 0
        while tokens < CHUNK * stage["batch_tokens"]:
            rows.append(self.row(stage, writer))
            tokens += len(rows[-1][0])
        rows.sort(key=lambda row: len(row[0]))
        batches: list[list[Row]] = [[]]
        for row in rows:
            if batches[-1] and (len(batches[-1]) + 1) * len(row[0]) > stage["batch_tokens"]:
                batches.append([])
            batches[-1].append(row)
        rng.shuffle(batches)
        return [tensors(batch) for batch in batches[: min(CHUNK, stage["steps"] - chunk)]]

    def batches(self, first: int = 0, workers: int = 0) -> Iterator[Batch]:
        """Yield the batches of the curriculum from step `first` on, drawn by so many processes beside this one."""
        from torch.utils.data import DataLoader

        starts = [0]
        for number, chunk in self.chunks:
            starts.append(starts[-1] + min(CHUNK, self.recipe["stages"][number]["steps"] - chunk))
        left = [index for index in range(len(self)) if starts[index + 1] > first]
        loader: Any = DataLoader(self, batch_size=None, sampler=left, num_workers=workers)  # type: ignore[arg-type]
        for index, chunk_batches in zip(left, loader, strict=True):
            yield from chunk_batches[max(0, first - starts[index]) :]

    def row(self, stage: dict[str, Any], writer: Writer) -> Row:
        """Draw a drill, lookups, cards, a notice, a glance or a reading; of all but drills, answers are learned."""
        kind = writer.rng.random()
        if kind < stage.get("drills", 0):
            vocab = range(len(SPECIALS), len(self.tokenizer))
            return drill(writer.rng, vocab, stage["drill_tokens"], stage["drill_span"])
        while True:
            pieces = self._pieces(stage, writer, kind - stage.get("drills", 0))
            whole = "".join(text for text, _ in pieces)
            if any(name in whole for name in self.forbidden):
                continue
            ids: list[int] = []
            learned: list[bool] = []
            texts = [text for text, _ in pieces]
            encoded = self.tokenizer(texts, add_special_tokens=False).input_ids
            for tokens, (_, answer) in zip(encoded, pieces, strict=True):
                ids += tokens
                learned += [answer] * len(tokens)
            if len(ids) <= self.recipe["training"]["max_tokens"]:
                return ids, learned

    def _pieces(self, stage: dict[str, Any], writer: Writer, kind: float) -> list[tuple[str, bool]]:
        for name, draw in (
            ("lookups", lambda: writer.lookups(stage["lookup_chars"])),
            ("cards", lambda: writer.cards(stage["lines"])),
            ("notices", lambda: notice(writer, **{share: stage.get(share, 0) for share in SHARES})),
        ):
            kind -= stage.get(name, 0)
            if kind < 0:
                return draw()
        if "passage" not in stage:
            return writer.glance(stage["lines"])
        return writer.reading(stage["passage"], stage["rules"], stage["questions"])

    def rates(self) -> list[float]:
        """Return the learning rate of every step: from one value to another, in a line, within each stage."""
        rates: list[float] = []
        for stage in self.recipe["stages"]:
            first, last = stage["learning_rate"]
            rates += [first + (last - first) * step / stage["steps"] for step in range(1, stage["steps"] + 1)]
        return rates

    def held_out(self) -> tuple[list[Row], list[Row]]:
        """Draw notices and drills that no training row repeats."""
        rng = random.Random(f"{self.recipe['seed']}/held out")
        writer, stage = Writer(self.corpus, rng), self.recipe["held_out"]
        notices = [self.row(stage | {"notices": 1}, writer) for _ in range(stage["count"])]
        return notices, [self.row(stage | {"drills": 1}, writer) for _ in range(stage["copies"])]

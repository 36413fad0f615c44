"""The small encoder's text, drawn from a seed, and its batches of masked tokens."""

import math
import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from recipekit import invented_ogiri
from recipekit.base_corpus import Writer
from recipekit.base_notices import notice
from recipekit.invented_chat import Conversation, Speaker
from recipekit.invented_personas import TEXTS, Persona

ANYBODY = "XX"  # the name of every speaker here, as in the corpus once its masks are cleaned
SPREAD = 7919  # a prime, so that pairs with a token in common fall into different buckets
CHUNK = 8  # batches whose rows are drawn together, so that rows of like length share a batch


class Text(NamedTuple):
    """A text, or two of them that are read together.

    Attributes:
        body: The text, or the first one.
        pair: The second one.
        fits: Whether the second one answers the first, 1 or 0; nan of a single text.
    """

    body: str
    pair: str | None = None
    fits: float = math.nan


class Row(NamedTuple):
    """A text as token ids, which of its two texts each is of, and whether the second one answers the first."""

    ids: list[int]
    types: list[int]
    fits: float = math.nan


class Batch(NamedTuple):
    """Rows of one batch as tensors.

    Attributes:
        ids: Token ids with masks (batch, length), padded on the right.
        types: 1 for tokens of a second text, 0 for others (batch, length).
        attention: 1 for tokens, 0 for padding (batch, length).
        places: Where a token is to be guessed (n,), counted through the flattened ids.
        wanted: The tokens that stood there (n,).
        pairs: Shares of a row's pairs of neighbouring tokens that fall into each bucket (batch, buckets).
        fits: Whether a row's second text answers the first, 1, 0 or nan (batch,).
    """

    ids: Any
    types: Any
    attention: Any
    places: Any
    wanted: Any
    pairs: Any
    fits: Any


class Corpus:
    """Texts of the kinds that the recipe names, new ones for every draw.

    Args:
        recipe: recipes/encoder/encoder.yml.
        people: The sources of the invented dialogues and personas (recipekit.invented_people.read).
        words: recipes/base/corpus.yml.
        humour: The sources of the invented odai (recipekit.invented_ogiri.read).
        articles: Texts as they are.
    """

    def __init__(
        self, recipe: dict[str, Any], people: dict[str, Any], words: dict[str, Any], humour: dict[str, Any],
        articles: list[str],
    ) -> None:  # fmt: skip
        self.shares: Mapping[str, float] = recipe["corpus"]
        self.people, self.words, self.humour, self.articles = people, words, humour, articles
        self.bundled = [row for rows in invented_ogiri.sample(humour).values() for row in rows]

    def texts(self, rng: random.Random, shares: Mapping[str, float] | None = None) -> Iterator[Text]:
        """Yield texts without end, of kinds by share; the recipe's unless said."""
        shares = shares or self.shares
        writer, odai = Writer(self.words, rng), invented_ogiri.Writer(self.humour, rng, self.bundled)
        while True:
            kind = rng.choices(list(shares), list(shares.values()))[0]
            if kind == "persona":
                row = Persona(self.people, rng).row()
                yield Text("\n".join(row[name] for name in rng.sample(TEXTS, rng.randint(1, len(TEXTS)))))
            elif kind == "news":
                yield Text(rng.choice(self.articles))
            elif kind == "notice":
                yield Text(notice(writer, framed=0.5, hard=0.3, local=0.5)[0][0])
            elif kind == "odai":
                asked, answer = odai.pair()
                yield Text(asked.body, answer.text, float(answer.relates))
            else:
                yield Text(self.talk(kind, rng))

    def talk(self, kind: str, rng: random.Random) -> str:
        """Write what a new speaker says to new partners, a line an utterance."""
        speaker = Speaker(ANYBODY, self.people, rng)
        lines: list[str] = []
        for _ in range(rng.choice([2, 3]) if kind == "talks" else 1):
            place = rng.randrange(2)
            pair = (speaker, Speaker(ANYBODY, self.people, rng))
            said = Conversation(self.people, pair if place == 0 else pair[::-1], rng).utterances()
            if kind == "dialogue":
                return "\n".join(f"{'相手' if turn % 2 != place else '話者'}: {text}" for turn, text in enumerate(said))
            lines += said[place::2]
        return "\n".join(lines)


class Batches:
    """Batches of masked text: each chunk of them is drawn from a seed of its own, so training can go on anywhere."""

    def __init__(self, recipe: dict[str, Any], corpus: Corpus, tokenizer: Any) -> None:
        self.recipe, self.corpus, self.tokenizer = recipe, corpus, tokenizer
        self.newline = tokenizer.convert_tokens_to_ids("\n")
        self.special = set(tokenizer.all_special_ids)

    def __call__(self, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of the training from step `first` on."""
        steps = self.recipe["training"]["steps"]
        for chunk in range(first // CHUNK, -(-steps // CHUNK)):
            batches = self.chunk(chunk)[: steps - chunk * CHUNK]
            yield from batches[max(0, first - chunk * CHUNK) :]

    def chunk(self, number: int) -> list[Batch]:
        """Draw the batches of a chunk: rows of like length, at most `batch_tokens` of them with their padding."""
        rng, most = random.Random(f"{self.recipe['seed']}/{number}"), self.recipe["training"]["batch_tokens"]
        texts = self.corpus.texts(rng, {"odai": 1.0} if number * CHUNK < self.recipe["fits"]["steps"] else None)
        rows: list[Row] = []
        while sum(len(row.ids) for row in rows) < CHUNK * most:
            rows += self.rows(list(islice(texts, 16)))
        rows.sort(key=lambda row: len(row.ids))
        batches: list[list[Row]] = [[]]
        for row in rows:
            if batches[-1] and (len(batches[-1]) + 1) * len(row.ids) > most:
                batches.append([])
            batches[-1].append(row)
        rng.shuffle(batches)
        return [self.masked(batch, rng) for batch in batches[:CHUNK]]

    def held_out(self) -> list[Batch]:
        """Draw batches that no chunk holds, the same ones every time."""
        rng = random.Random(f"{self.recipe['seed']}/held out")
        texts = self.corpus.texts(rng)
        rows = self.rows(list(islice(texts, self.recipe["held_out"])))
        rows.sort(key=lambda row: len(row.ids))
        return [self.masked(rows[start : start + 16], rng) for start in range(0, len(rows), 16)]

    def rows(self, texts: list[Text]) -> list[Row]:
        """Tokenise texts."""
        encoded = [self.tokenizer(text.body, text.pair, truncation=True) for text in texts]
        return [Row(one.input_ids, one.token_type_ids, text.fits) for one, text in zip(encoded, texts, strict=True)]

    def masked(self, rows: list[Row], rng: random.Random) -> Batch:
        """Mask tokens of rows, 8 in 10 by the mask, 1 by another token, 1 not at all (Devlin et al. 2019); pad them."""
        import torch

        length = -(-max(len(row.ids) for row in rows) // 16) * 16  # few different shapes, each of which costs set-up
        pad, mask, vocab = self.tokenizer.pad_token_id, self.tokenizer.mask_token_id, len(self.tokenizer)
        ids: list[list[int]] = []
        places: list[int] = []
        wanted: list[int] = []
        for number, (row, _, _) in enumerate(rows):
            shown = row + [pad] * (length - len(row))
            for place in self.hidden(row, rng):
                places.append(number * length + place)
                wanted.append(row[place])
                chance = rng.random()
                shown[place] = mask if chance < 0.8 else rng.randrange(4, vocab) if chance < 0.9 else row[place]
            ids.append(shown)
        tokens = torch.tensor(ids)
        pairs, fits = torch.stack([self.pairs(row.ids) for row in rows]), torch.tensor([row.fits for row in rows])
        types = torch.tensor([row.types + [0] * (length - len(row.ids)) for row in rows])
        attention = (tokens != pad).long()
        return Batch(tokens, types, attention, torch.tensor(places), torch.tensor(wanted), pairs, fits)

    def pairs(self, row: list[int]) -> Any:
        """Count a row's pairs of neighbouring tokens by bucket, as shares of all, float of shape [buckets]."""
        import torch

        buckets, tokens = self.recipe["summary"]["buckets"], torch.tensor(row[1:-1])
        places = (tokens[:-1] * len(self.tokenizer) + tokens[1:]) * SPREAD % buckets
        return torch.bincount(places, minlength=buckets).float() / max(len(places), 1)

    def hidden(self, row: list[int], rng: random.Random) -> list[int]:
        """Choose places in spans, some of them up to the end of their line."""
        masking, chosen = self.recipe["masking"], set[int]()
        wanted = max(1, round(masking["share"] * len(row)))
        for _ in range(4 * wanted):
            if len(chosen) >= wanted:
                break
            start = rng.randrange(1, len(row) - 1)
            end = min(start + 1 + int(rng.expovariate(1 / (masking["span"] - 0.5))), len(row) - 1)
            if rng.random() < masking["lines"] / 4:
                end = next((place for place in range(start, len(row)) if row[place] == self.newline), len(row) - 1)
            chosen.update(place for place in range(start, end) if row[place] not in self.special)
        return sorted(chosen)

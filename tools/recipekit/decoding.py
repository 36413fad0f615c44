"""Greedy decoding of many prompts at once, held to a JSON Schema.

The loop is written out instead of calling `generate()`: what the schema forces (keys, punctuation: most of an answer)
is fed in one go without asking the model, which `generate()` cannot do, since each row then gets on at its own pace.
"""

import copy
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher
from llguidance.hf import from_tokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from recipekit.errors import UserError
from recipekit.segments import encode

SPARE = 256  # columns that a cache grows by
JSON_AS_TRAINED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}  # json.dumps' own


@dataclass(frozen=True)
class Generation:
    """What the model wrote after one prompt.

    Attributes:
        index: The prompt's place in the list given.
        ids: Tokens, without eos.
        finished: The answer came to its end, by eos or because the schema allows no more; not cut by max_new_tokens.
        logprob: Natural log-probability of the tokens that the model chose, summed, under its own unmasked
            distribution; eos counts, what the schema left no choice about does not.
        chosen: How many tokens these are.
        started: When the row joined a batch, in seconds of `time.perf_counter`.
        ended: When it ended.
    """

    index: int
    ids: list[int]
    finished: bool
    logprob: float
    chosen: int
    started: float
    ended: float


class Grammar:
    """What an answer may look like, token by token: the schema's JSON as json.dumps(ensure_ascii=False) writes it.

    Args:
        tokenizer: A fast tokenizer.
        schema: JSON Schema of an answer; keys come in its order.
        vocab_size: Columns of the model's logits, which may be more than the tokenizer has tokens.
        eos: Token that ends an answer.

    Raises:
        UserError: The schema uses a keyword that cannot be held to.
    """

    def __init__(self, tokenizer: Any, schema: dict[str, Any], vocab_size: int, eos: int) -> None:
        tokens = from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=eos)
        answer = json.dumps({**schema, "x-guidance": JSON_AS_TRAINED}, ensure_ascii=False)
        # A SentencePiece tokenizer put a space before the answer, being a segment of its own; the model learned that.
        spaced = tokens.decode_bytes(encode(tokenizer, ["{"])).startswith(b" ")
        space = '" "?' if spaced else ""
        lark = f"start: {space} answer\nanswer: %json {answer}"
        self.first = LLMatcher(tokens, LLMatcher.grammar_from_lark(lark))
        if self.first.is_error():
            raise UserError(f"output_schema cannot constrain decoding: {self.first.get_error().splitlines()[0]}")
        self.executor = LLExecutor()
        self.vocab_size = vocab_size

    def start(self) -> LLMatcher:
        """Return a matcher that stands before the answer."""
        return self.first.deep_copy()

    def allowed(self, matchers: list[LLMatcher], vocab_size: int) -> torch.Tensor:
        """Tell which token may come next, for each matcher; bool of shape [matchers, vocab_size]."""
        bits = allocate_token_bitmask(len(matchers), vocab_size)
        fill_next_token_bitmask_par(self.executor, [(matcher, row) for row, matcher in enumerate(matchers)], bits)
        return torch.from_numpy(np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :vocab_size]).bool()

    def free(self, ids: list[int], eos: int) -> list[bool] | None:
        """Tell of each token of an answer, eos included, whether another could have stood in its place.

        Returns:
            None where the answer is none of this grammar's: who decoded it was held to another one, or to none.
        """
        row = Row(0, [], self.start(), len(ids))
        free = [False] * len(row.ids)
        while row.matcher and len(free) < len(ids) and not row.finished:
            token, allowed = ids[len(free)], self.allowed([row.matcher], self.vocab_size)[0]
            if not allowed[token]:
                return None
            free.append(bool(allowed.sum() > 1))
            row.take(token, eos)
            free += [False] * (len(row.ids) - len(free))
        if row.ids != ids[: len(row.ids)]:
            return None
        return free + [False] * (len(ids) - len(free))


class InPlaceLayer(DynamicLayer):
    """A layer of the KV cache with room to spare; transformers' own copies all of itself at every token."""

    keys: torch.Tensor
    values: torch.Tensor
    buffers: list[torch.Tensor]
    view: torch.Tensor | None = None  # the keys as `update` left them; others have been put in their place by hand

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, each of shape [rows, heads, columns, size]; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if self.keys is not self.view or self.buffers[0].shape[2] < end:
            self.buffers = [pad(part, (0, 0, 0, end - start + SPARE)) for part in (self.keys, self.values)]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        self.view = self.keys
        return self.keys, self.values


@dataclass
class Row:
    """One prompt on its way: tokens the model has still to read, and those it wrote."""

    index: int
    unread: list[int]
    matcher: LLMatcher | None
    room: int
    ids: list[int] = field(default_factory=list)
    finished: bool = False
    logprob: float = 0.0
    chosen: int = 0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.unread = self.unread + self._forced()

    def _forced(self) -> list[int]:
        if self.matcher is None:
            return []
        forced = [] if self.matcher.is_stopped() else self.matcher.compute_ff_tokens()
        if forced and not self.matcher.consume_tokens(forced) or self.matcher.is_error():
            raise RuntimeError(f"constrained decoding failed: {self.matcher.get_error()}")
        self.ids += forced
        self.finished = self.matcher.is_stopped()
        return forced

    def take(self, token: int, eos: int) -> bool:
        """Append the model's choice and all that follows from it; returns whether the row has ended."""
        if token == eos:
            self.finished = True
        else:
            self.ids.append(token)
            if self.matcher is not None:
                self.matcher.consume_token(token)
            self.unread = [token, *self._forced()]
        if len(self.ids) > self.room:
            self.ids, self.finished = self.ids[: self.room], False
        return self.finished or len(self.ids) == self.room

    def generation(self) -> Generation:
        """Return what has come of the row, which ended just now."""
        ended = time.perf_counter()
        return Generation(self.index, self.ids, self.finished, self.logprob, self.chosen, self.started, ended)


class Batch:
    """Rows in one KV cache, each with its own number of tokens: columns that are not a row's own are masked for it.

    Args:
        model: Causal language model.
        prefix: Cache of the tokens that all rows begin with, batch of one; it is copied.
        size: Number of rows.
    """

    def __init__(self, model: Any, prefix: Cache, size: int) -> None:
        self.model = model
        self.cache: Any = copy.deepcopy(prefix)
        self.cache.batch_repeat_interleave(size)
        self.mask = torch.ones(size, prefix.get_seq_length(), dtype=torch.long, device=model.device)

    def feed(self, tokens: Sequence[list[int]]) -> torch.Tensor:
        """Read the next tokens of every row; returns the logits after the last one, float of shape [rows, vocab]."""
        width = max(map(len, tokens))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=self.mask.device)
        own = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=self.mask.device)
        self.mask = torch.cat([self.mask, own], dim=1)
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=(self.mask.cumsum(1) - 1).clamp(min=0)[:, -width:],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows, and the columns that no remaining row uses."""
        self.mask = self.mask[rows]
        columns = self.mask.any(0)
        self.mask = self.mask[:, columns]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows][:, :, columns], layer.values[rows][:, :, columns]


def context_length(config: Any) -> int:
    """Return how many tokens a model attends to in full: its positions, or its sliding window where that is shorter."""
    positions = config.max_position_embeddings
    return min(positions, getattr(config, "sliding_window", None) or positions)


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[list[int]],
    grammar: Grammar | None,
    *,
    eos: int,
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[Generation]:
    """Decode greedily.

    Args:
        model: Causal language model, in eval mode.
        prompts: Token ids, each at least one; prompt and answer must fit into `context_length`.
        grammar: Holds the answers to a schema; None lets the model write what it will until eos.
        eos: Token that ends an answer.
        max_new_tokens: Longest answer.
        batch_size: Prompts decoded at a time.

    Yields:
        One generation per prompt, longest prompts first, each as soon as it has ended.
    """
    model.config.sliding_window = None  # nothing is longer than the window, and its mask would count masked columns
    shared = min(len(os.path.commonprefix(list(prompts))), min(map(len, prompts), default=1) - 1)
    prefix = Cache(layer_class_to_replicate=InPlaceLayer)
    if shared:
        ids = torch.tensor([prompts[0][:shared]], device=model.device)
        model(input_ids=ids, past_key_values=prefix, use_cache=True, logits_to_keep=1)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    for start in range(0, len(order), batch_size):
        rows = [
            Row(index, prompts[index][shared:], grammar.start() if grammar else None, max_new_tokens)
            for index in order[start : start + batch_size]
        ]
        yield from _decode(Batch(model, prefix, len(rows)), rows, grammar, eos)


def _decode(batch: Batch, rows: list[Row], grammar: Grammar | None, eos: int) -> Iterator[Generation]:
    while rows:
        ended = _choose(rows, batch.feed([row.unread for row in rows]), grammar, eos)
        yield from (row.generation() for row, end in zip(rows, ended, strict=True) if end)
        if any(ended):
            left = [place for place, end in enumerate(ended) if not end]
            rows = [rows[place] for place in left]
            batch.keep(left)


def _choose(rows: list[Row], logits: torch.Tensor, grammar: Grammar | None, eos: int) -> list[bool]:
    """Let every row take its likeliest token; returns whether it has ended by that."""
    best, free = logits, [True] * len(rows)
    if grammar:  # worked out while a GPU is still busy with the logits
        allowed = grammar.allowed([row.matcher for row in rows if row.matcher], logits.shape[1])
        free = (allowed.sum(1) > 1).tolist()
        best = logits.masked_fill(~allowed.to(logits.device), -torch.inf)
    tokens = best.argmax(1)
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
    for row, is_free, logprob in zip(rows, free, logprobs.tolist(), strict=True):
        row.logprob += logprob if is_free else 0.0
        row.chosen += is_free
    return [row.take(token, eos) for row, token in zip(rows, tokens.tolist(), strict=True)]

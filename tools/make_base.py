"""Train the small base (data/samples/base/): a tiny Japanese Mistral that copies and reads, for machines without a GPU.

    uv run tools/make_base.py

Reads recipes/base/base.yml (architecture and curriculum) and recipes/base/corpus.yml (its own text). The same seed
gives the same text and the same steps. Stopped, the same command goes on from the last checkpoint in outputs/base/.
"""

import os
import random
import time
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from recipekit import ROOT, runs, yamlfile
from recipekit.base_corpus import Writer, drill, forbidden_names
from recipekit.base_model import PAD, SPECIALS, build_model, build_tokenizer
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError

RECIPE, CORPUS = ROOT / "recipes/base/base.yml", ROOT / "recipes/base/corpus.yml"
GOLD = ROOT / "data/samples/hawks/hawks_eval_gold.csv"
PRODUCT, CHECKPOINT = ROOT / "data/samples/base", ROOT / "outputs/base/checkpoint.safetensors"

Row = tuple[list[int], list[bool]]  # token ids, and which of them are learned


class Tasks:
    """Draws training rows as a stage of the curriculum says."""

    def __init__(self, recipe: dict[str, Any], corpus: dict[str, Any], tokenizer: Any) -> None:
        self.recipe, self.corpus, self.tokenizer = recipe, corpus, tokenizer
        self.forbidden = forbidden_names(GOLD)

    def row(self, stage: dict[str, Any], writer: Writer) -> Row:
        """Draw a drill, lookups, or a glance or reading task; of the latter, the answers are learned."""
        rng, kind = writer.rng, writer.rng.random()
        if kind < stage.get("drills", 0):
            vocab = range(len(SPECIALS), len(self.tokenizer))
            return drill(rng, vocab, stage["drill_tokens"], stage["drill_span"])
        while True:
            if kind < stage.get("drills", 0) + stage.get("lookups", 0):
                pieces = writer.lookups(stage["lookup_chars"])
            elif "lines" in stage:
                pieces = writer.glance(stage["lines"])
            else:
                pieces = writer.reading(stage["passage"], stage["rules"], stage["questions"])
            whole = "".join(text for text, _ in pieces)
            if any(name in whole for name in self.forbidden):
                continue
            ids: list[int] = []
            learned: list[bool] = []
            for text, answer in pieces:
                tokens = self.tokenizer.encode(text, add_special_tokens=False)
                ids += tokens
                learned += [answer] * len(tokens)
            if len(ids) <= self.recipe["training"]["max_tokens"]:
                return ids, learned

    def batches(self) -> Iterator[list[Row]]:
        """Yield the batches of the whole curriculum: rows of like length, together about `batch_tokens` long."""
        for number, stage in enumerate(self.recipe["stages"]):
            rng = random.Random(f"{self.recipe['seed']}/{number}")
            writer = Writer(self.corpus, rng, stage.get("keys", 99))
            yield from islice(self._stage(stage, writer), stage["steps"])

    def _stage(self, stage: dict[str, Any], writer: Writer) -> Iterator[list[Row]]:
        while True:
            rows: list[Row] = []
            while sum(len(ids) for ids, _ in rows) < 8 * stage["batch_tokens"]:
                rows.append(self.row(stage, writer))
            rows.sort(key=lambda row: len(row[0]))
            batches: list[list[Row]] = [[]]
            for row in rows:
                if (len(batches[-1]) + 1) * len(row[0]) > stage["batch_tokens"]:
                    batches.append([])
                batches[-1].append(row)
            writer.rng.shuffle(batches)
            yield from filter(None, batches)

    def rates(self) -> list[float]:
        """Return the learning rate of every step: from one value to another, in a line, within each stage."""
        rates: list[float] = []
        for stage in self.recipe["stages"]:
            first, last = stage["learning_rate"]
            rates += [first + (last - first) * step / stage["steps"] for step in range(1, stage["steps"] + 1)]
        return rates

    def held_out(self) -> tuple[list[Row], list[Row]]:
        """Draw reading tasks and drills that no training row repeats."""
        rng = random.Random(f"{self.recipe['seed']}/held out")
        writer, stage = Writer(self.corpus, rng), self.recipe["held_out"]
        readings = [self.row(stage, writer) for _ in range(stage["readings"])]
        return readings, [self.row(stage | {"drills": 1}, writer) for _ in range(stage["copies"])]


def tensors(rows: list[Row]) -> tuple[Any, Any]:
    """Pad rows to one length; returns token ids (batch, length) and which are learned (same shape, bool)."""
    import torch

    length = -(-max(len(ids) for ids, _ in rows) // 32) * 32 + 1  # few different shapes, each of which costs set-up
    ids = torch.tensor([ids + [PAD] * (length - len(ids)) for ids, _ in rows])
    return ids, torch.tensor([learned + [False] * (length - len(learned)) for _, learned in rows])


def logits_of(model: Any, ids: Any, learned: Any) -> tuple[Any, Any]:
    """Return logits (n, vocabulary) and token ids (n,) of the n learned places; the head sees no other place."""
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    return model.lm_head(hidden[learned[:, 1:]]).float(), ids[:, 1:][learned[:, 1:]]


def evaluate(model: Any, held_out: tuple[list[Row], list[Row]]) -> dict[str, float]:
    """Score on held-out rows, each token after the right ones.

    Greedy decoding gives the right answer exactly when every one of its tokens is the most likely one here.

    Returns:
        readings: share of reading tasks with no wrong token in any answer; characters: share of right answer tokens;
        copies: share of right tokens in the spans of drills that come again.
    """
    import torch

    exact, right = 0, {"readings": [0, 0], "copies": [0, 0]}
    with torch.no_grad():
        for kind, rows in zip(right, held_out, strict=True):
            for row in rows:
                logits, wanted = logits_of(model, *tensors([row]))
                hits = logits.argmax(-1) == wanted
                exact += kind == "readings" and bool(hits.all())
                right[kind][0] += int(hits.sum())
                right[kind][1] += len(hits)
    characters, copies = (hit / total for hit, total in right.values())
    return {"readings": exact / len(held_out[0]), "characters": characters, "copies": copies}


def save_checkpoint(model: Any, optimizer: Any, step: int, seconds: float, key: str) -> None:
    """Write weights and optimizer state, whole or not at all."""
    from safetensors.torch import save

    state = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        state |= {f"{part}.{name}": optimizer.state[weight][part] for part in ("exp_avg", "exp_avg_sq")}
    facts = {"step": str(step), "seconds": str(seconds), "key": key}
    runs.write_bytes(CHECKPOINT, save({name: value.contiguous() for name, value in state.items()}, metadata=facts))


def load_checkpoint(model: Any, optimizer: Any, key: str) -> tuple[int, float]:
    """Go on from the checkpoint where it is of this recipe; returns steps done and seconds taken, else zeros."""
    import torch
    from safetensors import safe_open

    if not CHECKPOINT.exists():
        return 0, 0.0
    with safe_open(CHECKPOINT, "pt") as file:
        facts = file.metadata()
        if facts["key"] != key:
            show("the checkpoint in outputs/base/ is of another recipe or corpus: starting anew")
            return 0, 0.0
        step = int(facts["step"])
        for name, weight in model.named_parameters():
            weight.data.copy_(file.get_tensor(f"model.{name}"))
            parts = {part: file.get_tensor(f"{part}.{name}") for part in ("exp_avg", "exp_avg_sq")}
            optimizer.state[weight] = parts | {"step": torch.tensor(float(step))}
    return step, float(facts["seconds"])


def train(model: Any, tasks: Tasks, key: str) -> float:
    """Train through the curriculum, evaluating and saving on the way; returns the seconds taken, earlier ones too."""
    import torch

    training, rates, held_out = tasks.recipe["training"], tasks.rates(), tasks.held_out()
    total = len(rates)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=tuple(training["betas"]), weight_decay=training["weight_decay"], fused=True
    )
    first, before = load_checkpoint(model, optimizer, key)
    started = time.monotonic()
    with progress("training the small base", total) as advance:
        advance(first)
        for step, rows in enumerate(islice(tasks.batches(), first, None), first):
            for group in optimizer.param_groups:
                group["lr"] = rates[step]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, wanted = logits_of(model, *tensors(rows))
            loss = torch.nn.functional.cross_entropy(logits, wanted)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            advance(1, note=f"loss {loss.item():.3f}")
            seconds = before + time.monotonic() - started
            if (step + 1) % training["save_steps"] == 0 or step + 1 == total:
                scores = " ".join(f"{name} {value:.3f}" for name, value in evaluate(model, held_out).items())
                show(f"  step {step + 1} of {total}: loss {loss.item():.3f}, held-out {scores}, {seconds / 60:.0f} min")
                save_checkpoint(model, optimizer, step + 1, seconds, key)
    return before + time.monotonic() - started


def write_product(model: Any, tokenizer: Any, recipe: dict[str, Any], scores: dict[str, float], minutes: float) -> None:
    """Write the Hugging Face folder with its model card in the place of the old one."""
    import torch

    new = PRODUCT.with_name(".base.new")
    model.to(torch.bfloat16).save_pretrained(new)
    tokenizer.save_pretrained(new)
    facts = {
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "vocabulary": f"{len(tokenizer):,}",
        "steps": f"{sum(stage['steps'] for stage in recipe['stages']):,}",
        "minutes": f"{minutes:.0f}",
        **{name: f"{value:.1%}" for name, value in scores.items()},
    }
    card = (RECIPE.parent / "card.md").read_text(encoding="utf-8")
    for name, value in facts.items():
        card = card.replace("{{ " + name + " }}", value)
    runs.write_text(new / "README.md", card)
    runs.replace_folder(new, PRODUCT)


def make_base(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; another number gives other roundings.")] = 2,
) -> None:
    """Train the small base and write it to data/samples/base/."""
    log_to("base")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    recipe, corpus = yamlfile.load(RECIPE)[0], yamlfile.load(CORPUS)[0]
    if not GOLD.exists():
        raise UserError(
            f"{runs.relative(GOLD)}: no such file, and its names must not be in the corpus; "
            "write it with uv run tools/make_samples.py hawks"
        )
    import torch

    torch.set_num_threads(threads)
    tokenizer = build_tokenizer(corpus["characters"], recipe["architecture"]["max_position_embeddings"])
    model = build_model(recipe["architecture"], len(tokenizer), recipe["seed"])
    tasks = Tasks(recipe, corpus, tokenizer)
    seconds = train(model, tasks, runs.digest([recipe, corpus, tasks.forbidden]))
    model.to(torch.bfloat16).to(torch.float32)  # the scores are of the weights as they are saved
    scores = evaluate(model, tasks.held_out())
    write_product(model, tokenizer, recipe, scores, seconds / 60)
    show(f"{runs.relative(PRODUCT)}: {' '.join(f'{name} {value:.3f}' for name, value in scores.items())}")


if __name__ == "__main__":
    main(make_base)

"""Train the small encoder (data/samples/encoder/): a tiny Japanese XLM-RoBERTa, for machines without a GPU.

    uv run tools/make_encoder.py

Reads recipes/encoder/encoder.yml. The same seed gives the same text and the same steps. Stopped, the same command goes
on from the last checkpoint in outputs/encoder/.
"""

import os
import time
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from recipekit import ROOT, invented_ogiri, invented_people, runs, yamlfile
from recipekit.checkpoints import load_checkpoint, optimizers_of, save_checkpoint, write_card
from recipekit.console import log_to, main, progress, show
from recipekit.encoder_corpus import Batch, Batches, Corpus
from recipekit.encoder_model import build_model, build_tokenizer

RECIPE, WORDS = ROOT / "recipes/encoder/encoder.yml", ROOT / "recipes/base/corpus.yml"
PEOPLE, HUMOUR = ROOT / "data/samples/bigfive/source", ROOT / "data/samples/ogiri/source"
BASE = ROOT / "data/samples/base/tokenizer.json"
ARTICLES = [ROOT / f"data/samples/hawks/{name}.jsonl" for name in ("hawks_train", "person_dummy")]
PRODUCT, CHECKPOINT = ROOT / "data/samples/encoder", ROOT / "outputs/encoder/checkpoint.safetensors"


class Losses(NamedTuple):
    """What a batch is scored by.

    Attributes:
        masked: Mean cross entropy of the masked tokens (nats).
        summary: Mean cross entropy of the pairs that a text holds, as `<s>` tells them (nats).
        fits: Mean cross entropy of whether a second text answers the first, as `<s>` tells it (nats); 0 without pairs.
        right: How many masked tokens are guessed right.
        told: How many pairs are told right.
    """

    masked: Any
    summary: Any
    fits: Any
    right: Any
    told: Any


def losses_of(model: Any, batch: Batch) -> Losses:
    """Score a batch."""
    import torch

    read = {"input_ids": batch.ids, "token_type_ids": batch.types, "attention_mask": batch.attention}
    hidden = model.roberta(**read).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1).index_select(0, batch.places)).float()
    told = model.summary(hidden[:, 0]).float()
    entropy, paired = torch.nn.functional.cross_entropy, ~batch.fits.isnan()
    guess, fits = model.fits(hidden[paired, 0]).float().flatten(), batch.fits[paired]
    answered = torch.nn.functional.binary_cross_entropy_with_logits(guess, fits, reduction="sum") / max(len(fits), 1)
    return Losses(
        entropy(logits, batch.wanted), entropy(told, batch.pairs), answered,
        (logits.argmax(-1) == batch.wanted).sum(), ((guess > 0) == (fits > 0)).sum(),
    )  # fmt: skip


def evaluate(model: Any, held_out: list[Batch]) -> dict[str, float]:
    """Score on held-out texts.

    Returns:
        loss: mean cross entropy of a masked token (nats); right: share of masked tokens guessed right; summary: mean
        cross entropy of the pairs of a text (nats); fits: share of second texts of which it is told right whether they
        answer the first.
    """
    import torch

    loss, summary, right, told = 0.0, 0.0, 0, 0
    count, texts = sum(len(batch.wanted) for batch in held_out), sum(len(batch.ids) for batch in held_out)
    pairs = sum(int((~batch.fits.isnan()).sum()) for batch in held_out)
    with torch.no_grad():
        for batch in held_out:
            found = losses_of(model, batch)
            loss += found.masked.item() * len(batch.wanted)
            summary += found.summary.item() * len(batch.ids)
            right += int(found.right)
            told += int(found.told)
    return {"loss": loss / count, "right": right / count, "summary": summary / texts, "fits": told / max(pairs, 1)}


def rate_at(step: int, training: dict[str, Any]) -> float:
    """Return the learning rate of a step (from 1): a warm-up, then a line down to a hundredth."""
    left = (training["steps"] - step) / max(1, training["steps"] - training["warmup"])
    return training["learning_rate"] * min(step / training["warmup"], 0.01 + 0.99 * left)


def train(model: Any, batches: Batches, key: str) -> float:
    """Train, evaluating and saving on the way; returns the seconds taken, earlier ones too."""
    import torch

    training, held_out = batches.recipe["training"], batches.held_out()
    summary, fits = (batches.recipe[name]["weight"] for name in ("summary", "fits"))
    optimizers, total = optimizers_of(model, training), training["steps"]
    first, before = load_checkpoint(CHECKPOINT, model, optimizers, key)
    model.eval()  # no dropout: no text comes twice
    model.set_attn_implementation("eager")  # on a CPU in bfloat16, the fastest for rows of this length
    half = torch.cpu.get_capabilities().get("avx512_bf16", False)  # elsewhere bfloat16 is slower than float32
    started = time.monotonic()
    with progress("training the small encoder", total) as advance:
        advance(first)
        for step, batch in enumerate(batches(first), first + 1):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = rate_at(step, training)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                found = losses_of(model, batch)
                loss = found.masked + summary * found.summary + fits * found.fits
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            advance(1, note=f"loss {loss.item():.3f}" if step % 20 == 0 else None)
            if step % training["save_steps"] == 0 or step == total:
                seconds = before + time.monotonic() - started
                scores = " ".join(f"{name} {value:.3f}" for name, value in evaluate(model, held_out).items())
                show(f"  step {step}, {seconds / 60:.1f} minutes: loss {loss.item():.3f}, held-out {scores}")
                save_checkpoint(CHECKPOINT, model, optimizers, step, seconds, key)
    return before + time.monotonic() - started


def write_product(model: Any, tokenizer: Any, recipe: dict[str, Any], scores: dict[str, float], minutes: float) -> None:
    """Write the Hugging Face folder, without the head, with its model card in the place of the old one."""
    import torch

    new = PRODUCT.with_name(".encoder.new")
    model.roberta.to(torch.bfloat16).save_pretrained(new)
    tokenizer.backend_tokenizer.no_truncation()  # which the last batch has set, and which would be saved
    tokenizer.save_pretrained(new)
    facts = {
        "parameters": f"{sum(weight.numel() for weight in model.roberta.parameters()):,}",
        "vocabulary": f"{len(tokenizer):,}",
        "steps": f"{recipe['training']['steps']:,}",
        "minutes": f"{minutes:.0f}",
        "loss": f"{scores['loss']:.2f}",
        "right": f"{scores['right']:.1%}",
        "summary": f"{scores['summary']:.2f}",
        "fits": f"{scores['fits']:.1%}",
    }
    write_card(RECIPE.parent / "card.md", new / "README.md", facts)
    runs.replace_folder(new, PRODUCT)


def make_encoder(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; another number gives other roundings.")] = 2,
) -> None:
    """Train the small encoder on the CPU and write it to data/samples/encoder/."""
    log_to("encoder")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    recipe, words, people = yamlfile.load(RECIPE)[0], yamlfile.load(WORDS)[0], invented_people.read(PEOPLE)
    humour = invented_ogiri.read(HUMOUR)
    articles = [orjson.loads(line)["body"] for path in ARTICLES for line in path.read_bytes().splitlines()]
    import torch

    torch.set_num_threads(threads)
    tokenizer = build_tokenizer(BASE, recipe["architecture"]["max_position_embeddings"] - 2)
    model = build_model(recipe["architecture"], tokenizer, recipe["seed"], recipe["summary"]["buckets"])
    batches = Batches(recipe, Corpus(recipe, people, words, humour, articles), tokenizer)
    sources = [recipe, words, people, humour, articles, sorted(tokenizer.get_vocab())]
    seconds = train(model, batches, runs.digest(sources))
    model.to(torch.bfloat16).to(torch.float32)  # the scores are of the weights as they are saved
    scores = evaluate(model, batches.held_out())
    write_product(model, tokenizer, recipe, scores, seconds / 60)
    show(f"{runs.relative(PRODUCT)}: {' '.join(f'{name} {value:.3f}' for name, value in scores.items())}")


if __name__ == "__main__":
    main(make_encoder)

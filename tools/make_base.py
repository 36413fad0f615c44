"""Train the small base (data/samples/base/): a tiny Japanese Mistral that copies and reads, for machines without a GPU.

    uv run tools/make_base.py

Reads recipes/base/base.yml (architecture and curriculum) and recipes/base/corpus.yml (its own text). The same seed
gives the same text and the same steps. Stopped, the same command goes on from the last checkpoint in outputs/base/.
"""

import os
import time
from typing import Annotated, Any

import typer

from recipekit import ROOT, runs, yamlfile
from recipekit.base_corpus import forbidden_names
from recipekit.base_model import attend_in_blocks, build_model, build_tokenizer
from recipekit.base_tasks import Batch, Row, Tasks, tensors
from recipekit.checkpoints import load_checkpoint, optimizers_of, save_checkpoint, write_card
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError

RECIPE, CORPUS = ROOT / "recipes/base/base.yml", ROOT / "recipes/base/corpus.yml"
TEMPLATE = ROOT / "recipes/base/chat_template.jinja"
GOLD = ROOT / "data/samples/hawks/hawks_eval_gold.csv"
PRODUCT, CHECKPOINT = ROOT / "data/samples/base", ROOT / "outputs/base/checkpoint.safetensors"


def logits_of(model: Any, batch: Batch) -> Any:
    """Return logits (n, vocabulary) at the n learned places; the head sees no other place."""
    hidden = model.model(input_ids=batch.ids).last_hidden_state
    return model.lm_head(hidden.flatten(0, 1).index_select(0, batch.places)).float()


def evaluate(model: Any, held_out: tuple[list[Row], list[Row]]) -> dict[str, float]:
    """Score on held-out rows, each token after the right ones.

    Greedy decoding gives the right answer exactly when every one of its tokens is the most likely one here.

    Returns:
        notices: share of notices with no wrong token in the answer; characters: share of right answer tokens;
        copies: share of right tokens in the spans of drills that come again.
    """
    import torch

    exact, right = 0, {"notices": [0, 0], "copies": [0, 0]}
    with torch.no_grad():
        for kind, rows in zip(right, held_out, strict=True):
            for row in rows:
                batch = tensors([row]).to(model.device)
                hits = logits_of(model, batch).argmax(-1) == batch.wanted
                exact += kind == "notices" and bool(hits.all())
                right[kind][0] += int(hits.sum())
                right[kind][1] += len(hits)
    characters, copies = (hit / total for hit, total in right.values())
    return {"notices": exact / len(held_out[0]), "characters": characters, "copies": copies}


def train(model: Any, tasks: Tasks, key: str, workers: int) -> float:
    """Train through the curriculum, evaluating and saving on the way; returns the seconds taken, earlier ones too."""
    import torch

    training, rates, held_out = tasks.recipe["training"], tasks.rates(), tasks.held_out()
    total, device = len(rates), model.device
    optimizers = optimizers_of(model, training)
    first, before = load_checkpoint(CHECKPOINT, model, optimizers, key)
    started = time.monotonic()
    with progress("training the small base", total) as advance:
        advance(first)
        for step, batch in enumerate(tasks.batches(first, workers), first + 1):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = rates[step - 1]
            batch = batch.to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                logits = logits_of(model, batch)
            loss = torch.nn.functional.cross_entropy(logits, batch.wanted)
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
    """Write the Hugging Face folder with its model card in the place of the old one."""
    import torch

    new = PRODUCT.with_name(".base.new")
    model.to(torch.bfloat16).save_pretrained(new)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    tokenizer.save_pretrained(new)
    facts = {
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "vocabulary": f"{len(tokenizer):,}",
        "steps": f"{sum(stage['steps'] for stage in recipe['stages']):,}",
        "minutes": f"{minutes:.0f}",
        **{name: f"{value:.1%}" for name, value in scores.items()},
    }
    write_card(RECIPE.parent / "card.md", new / "README.md", facts)
    runs.replace_folder(new, PRODUCT)


def make_base(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; another number gives other roundings.")] = 2,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw the text; 0: the training's own.")] = 0,
) -> None:
    """Train the small base, on a GPU where there is one, and write it to data/samples/base/."""
    log_to("base")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    recipe, corpus = yamlfile.load(RECIPE)[0], yamlfile.load(CORPUS)[0]
    if not GOLD.exists():
        raise UserError(
            f"{runs.relative(GOLD)}: no such file, and its names must not be in the corpus; "
            "write it with uv run tools/make_samples.py hawks"
        )
    import torch
    from transformers import AttentionInterface

    torch.set_num_threads(threads)
    tokenizer = build_tokenizer(corpus["characters"], recipe["architecture"]["max_position_embeddings"])
    model = build_model(recipe["architecture"], len(tokenizer), recipe["seed"])
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    AttentionInterface.register("blocks", attend_in_blocks)
    model.set_attn_implementation("blocks")
    tasks = Tasks(recipe, corpus, tokenizer, forbidden_names(GOLD))
    seconds = train(model, tasks, runs.digest([recipe, corpus, tasks.forbidden]), workers)
    model.to(torch.bfloat16).to(torch.float32)  # the scores are of the weights as they are saved
    scores = evaluate(model, tasks.held_out())
    write_product(model, tokenizer, recipe, scores, seconds / 60)
    show(f"{runs.relative(PRODUCT)}: {' '.join(f'{name} {value:.3f}' for name, value in scores.items())}")


if __name__ == "__main__":
    main(make_base)

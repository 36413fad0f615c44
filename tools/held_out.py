"""What each phase of a chat makes of every validation set: losses, and how it likes chosen replies better.

    uv run tools/held_out.py companion --profile cpu

A later phase must not forget what an earlier one learned, and its losses on the earlier ones' sets show whether it did.
Writes outputs/TASK/held_out.json and shows it as a table, a model a row. docs/chat_evaluation.md says how to read it.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from recipekit import chat_held_out, chat_tokens, held_out, models
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.kinds import need_chat
from recipekit.resolve import base_model_key, merged_phase, resolve
from recipekit.runs import Step, relative, write_text
from recipekit.segments import read_jsonl
from recipekit.task import Task, load_task

Rows = list[dict[str, Any]]


def validation_sets(task: Task, configs: dict[str, dict[str, Any]]) -> dict[str, tuple[str, Rows]]:
    """Read the validation sets of all phases: name -> the first phase that is evaluated on it, and its rows."""
    found: dict[str, tuple[str, Rows]] = {}
    for phase, config in configs.items():
        for entry in config["test_datasets"]:
            name = Path(entry["path"]).stem.removesuffix("_chat")
            if name not in found:
                found[name] = (phase, [row for _, row in read_jsonl(task.root / entry["path"])])
    return found


def measure(task: Task, configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Score the base and every phase on every validation set."""
    import torch

    sets = validation_sets(task, configs)
    talks = {name: rows for name, (_, rows) in sets.items() if "chosen" not in rows[0]}
    pairs = [row for _, rows in sets.values() for row in rows if "chosen" in row]
    named: dict[str, str | None] = {"base": None, **{phase: phase for phase in task.phases}}
    scores: dict[str, dict[str, float]] = {}
    likings: dict[str, np.ndarray] = {}
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    loaded: tuple[str, Any, Any] | None = None
    with progress("held_out", len(named) * (sum(map(len, talks.values())) + 2 * len(pairs))) as advance:
        for name, phase in named.items():
            source = configs[phase or task.phases[0]]["base_model"]
            source = str(task.root / source) if (task.root / source).is_dir() else source
            if loaded is None or loaded[0] != source:
                loaded = (source, models.load_model(source, dtype), models.load_tokenizer(source))
            _, base, tokenizer = loaded
            adapter = task.root / configs[phase]["output_dir"] if phase else None
            with held_out.tuned(base, adapter) as model:
                scores[name] = held_out.losses(model, tokenizer, talks, advance)
                if pairs:
                    likings[name] = held_out.preferences(model, tokenizer, pairs, advance)
    tokenizer = loaded[2] if loaded else None
    return {
        "models": list(named),
        "losses": scores,
        "sets": {name: facts(tokenizer, sets[name][0], rows) for name, rows in talks.items()},
        "preferences": margins(task, configs, likings),
    }


def facts(tokenizer: Any, phase: str, rows: Rows) -> dict[str, Any]:
    """Say how large a set is, and whose it is."""
    tokens = sum(sum(chat_tokens.encode_chat(tokenizer, row["messages"]).trained) for row in rows)
    return {"rows": len(rows), "tokens": tokens, "phase": phase}


def margins(task: Task, configs: dict[str, dict[str, Any]], likings: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the reward margin of every model, held against the one that preferences were trained from."""
    trained = [phase for phase in task.phases if configs[phase].get("rl")]
    if not likings or not trained:
        return {}
    beta = configs[trained[-1]].get("rl_beta", 0.1)
    reference = likings[merged_phase(task, configs[trained[-1]]["base_model"]) or "base"]
    found = {}
    for name, liking in likings.items():
        margin = beta * (liking - reference)
        found[name] = {
            "pairs": len(margin),
            "margin": float(margin.mean()),
            "accuracy": float((margin > 0).mean()),
            "likelier": float((liking > 0).mean()),
        }
    return found


def table(task: Task, found: dict[str, Any]) -> Table:
    """Lay the losses out: a model a row, a set a column; the phase whose own set it is stands out."""
    names = [name.removeprefix(f"{task.spec['name']}_").removesuffix("_val") for name in found["sets"]]
    grid = Table("nats a token", *names, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    preferences = found["preferences"]
    for heading in ("margin", "preferred", "chosen likelier") if preferences else ():
        grid.add_column(heading)
    for name in found["models"]:
        own = {key: "bold" if spec["phase"] == name else "" for key, spec in found["sets"].items()}
        cells = [Text(f"{loss:.3f}", own[key]) for key, loss in found["losses"][name].items()]
        if one := preferences.get(name):
            cells += map(Text, (f"{one['margin']:+.3f}", f"{one['accuracy']:.0%}", f"{one['likelier']:.0%}"))
        grid.add_row(name, *cells)
    return grid


def command(
    task: Annotated[str, typer.Argument(help="A folder under recipes/")],
    profile: Annotated[str, typer.Option(help="cpu or gpu")] = "gpu",
) -> None:
    """Score every phase of a chat on every validation set."""
    recipe = load_task(task)
    need_chat(recipe, "held_out")
    log_to("held_out", recipe.outputs)
    configs = {phase: resolve(recipe, phase, profile) for phase in recipe.phases}
    trained = [
        path for config in configs.values() for path in models.phase_files(recipe.root / config["output_dir"], config)
    ]
    if missing := [path for path in trained if not path.is_file()]:
        redo = f"train it with: uv run tools/train.py {task}"
        raise UserError([f"{relative(path)}: no such file; {redo} {path.parent.name}" for path in missing])
    files = {entry["path"] for config in configs.values() for entry in config["test_datasets"]}
    inputs = {
        **{relative(path): path for path in trained},
        **{name: recipe.root / name for name in sorted(files)},
        "base": base_model_key(recipe, configs[recipe.phases[0]]),
        "code": [Path(__file__), Path(held_out.__file__), Path(chat_tokens.__file__)],
    }
    path = chat_held_out.path_of(recipe)
    step = Step(recipe.outputs, "held_out", inputs, [path])
    if step.done():
        show("held_out: up to date")
        return
    found = measure(recipe, configs)
    write_text(path, json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    step.record()
    show(table(recipe, found))
    show(f"held_out: written to {relative(path)}")


if __name__ == "__main__":
    main(command)

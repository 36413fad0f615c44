"""A script that quantises a merged model to four bits in an environment of its own, and what it calibrates on."""

import ast
import random
from itertools import islice
from pathlib import Path

import jinja2

from recipekit.conversations import Conversations, read_rows
from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.runs import relative, write_jsonl, write_text
from recipekit.segments import read_jsonl

LIBRARY = "llmcompressor==0.14.*"  # recipes changed between its versions; this one the script is written for
METHODS = ("awq", "gptq")
LONGEST = 2048  # tokens
WANTED, LEAST = 256, 16  # calibration rows


def calibration(model: Exported, wanted: int = WANTED, seed: int = 42) -> list[dict[str, str]]:
    """Draw texts as the model reads them in training: whole conversations by the chat template, or prompts and answers.

    Raises:
        UserError: There are hardly any.
    """
    texts = _conversations(model) if model.is_chat else _answers(model)
    if len(texts) < LEAST:
        where = relative(model.task.raw_dir if model.is_chat else model.task.root / "data" / "train")
        raise UserError(f"{where}: {len(texts)} rows to calibrate on, expected {LEAST} at least; prepare the data: "
                        f"uv run tools/regenerate_segments.py {model.task.name}")  # fmt: skip
    return [{"text": text} for text in random.Random(seed).sample(texts, min(wanted, len(texts)))]


def _conversations(model: Exported) -> list[str]:
    reads, texts = Conversations(model.task), []
    for path in model.chat_files("train"):
        for _, row in islice(read_rows(path), 10 * WANTED):
            if isinstance(row, dict) and "chosen" not in row and not reads.problems(row):
                texts.append(model.render(reads.messages(reads.read(row)), reply_follows=False))
    return list(dict.fromkeys(texts))


def _answers(model: Exported) -> list[str]:
    sets = model.task.spec["data"]["train"]
    paths = [model.task.segments_path(name) for name in model.task.raw_sets if sets[name].get("role") != "validation"]
    rows = [row for path in paths if path.is_file() for _, row in islice(read_jsonl(path), 10 * WANTED)]
    return list(dict.fromkeys("".join(segment["text"] for segment in row["segments"]) for row in rows))


def command(path: Path) -> str:
    """Return what runs the script."""
    return f"uv run --no-project --python 3.12 --with '{LIBRARY}' {relative(path)}"


def write(folder: Path, model: Exported, method: str, source: str) -> Path:
    """Write script and calibration rows.

    Args:
        folder: Where to.
        model: What is quantised.
        method: One of METHODS.
        source: The model's folder, as seen from this one.

    Returns:
        The script.
    """
    path = folder / f"quantise_{method}.py"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(Path(__file__).with_name("quantise.py.j2").read_text(encoding="utf-8"))
    text = template.render(
        name=model.name, method=method, command=command(path), folder=source, target=f"{model.name}-{method}",
        longest=min(LONGEST, model.context),
    )  # fmt: skip
    ast.parse(text)
    write_jsonl(folder / "calibration.jsonl", calibration(model))
    write_text(path, text)
    return path

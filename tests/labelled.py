"""A small regression task for tests: a text with a's and b's and how many of them."""

import json
import random
import re
import shutil
from pathlib import Path

from recipekit import ROOT
from tiny import tiny_encoder

SPEC = """\
name: mini
kind: regression
title: 小さな課題
summary: A task for tests.
phases: [phase1, phase2]
regression: {group: speaker, targets: {a: {title: 開放性, scale: [1, 7]}, b: {scale: [0, 10]}}}
data:
  train: {one: {}, one_val: {role: validation}, two: {}, two_val: {role: validation}}
  test: {input: in.jsonl, gold: gold.csv}
"""
HEADS = {
    "phase1": "    x: { scale: [0, 110] }\n    y: { classes: [p, q], weight: 0.1 }\n",
    "phase2": "    a: { scale: [1, 7] }\n    b: { scale: [0, 10] }\n",
}
STEPS, EVERY = 20, 5


def write_task(root: Path, spec: str = SPEC) -> Path:
    """Write the task's recipe: bigfive's YAMLs with other heads, on a tiny encoder."""
    recipe = root / "recipes" / "mini"
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "task.schema.json", root / "recipes")
    shutil.copy(ROOT / "recipes" / "cpu.yml", root / "recipes")
    (recipe / "task.yml").write_text(spec, encoding="utf-8")
    names = {"bigfive_personas": "one", "bigfive_dialogues": "two", "outputs/bigfive": "outputs/mini"}
    overlay = ""
    for phase, heads in HEADS.items():
        text = (ROOT / "recipes" / "bigfive" / f"{phase}.yml").read_text(encoding="utf-8")
        for old, new in names.items():
            text = text.replace(old, new)
        text = re.sub(r"  heads:.*?(?=  loss:)", f"  heads:\n{heads}", text, flags=re.DOTALL)
        (recipe / f"{phase}.yml").write_text(text, encoding="utf-8")
        steps = f"max_steps: {STEPS}, eval_steps: {EVERY}, save_steps: {EVERY}, num_epochs: null, warmup_steps: 2"
        plugins = "[recipekit.regression_plugin.RegressionPlugin]"
        overlay += f"{phase}: {{base_model: enc, plugins: {plugins}, sequence_len: 64, learning_rate: 2e-3, {steps}}}\n"
    (recipe / "cpu.yml").write_text(overlay, encoding="utf-8")
    return root


def write_rows(root: Path) -> None:
    """Write the rows of both phases, and a tiny encoder."""
    tiny_encoder(root / "enc")
    rng = random.Random(0)
    folder = root / "data" / "train"
    folder.mkdir(parents=True)
    for name, number in (("one", 200), ("one_val", 40), ("two", 200), ("two_val", 40)):
        rows = [(_one if name.startswith("one") else _two)(rng, i) for i in range(number)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _one(rng: random.Random, number: int) -> dict:
    x, y = rng.randint(10, 90), rng.choice("pq")
    return {"id": str(number), "body": "abc" * (x // 10) + ("山田" if y == "p" else "花火"), "labels": {"x": x, "y": y}}


def _two(rng: random.Random, number: int) -> dict:
    a, b = rng.randint(12, 84) / 12, rng.randint(0, 10)
    body = "記事" * int(a) + "大会" * b
    return {"id": str(number), "speaker": str(number % 9), "body": body, "labels": {"a": a, "b": b}}

"""A small regression task, and estimates for it, for tests."""

import csv
import json
from pathlib import Path

import numpy as np

from recipekit import ROOT
from recipekit.task import Task, load_task

SPEC = """\
name: traits
kind: regression
title: 性格特性推定
summary: Estimates traits of a speaker.
phases: [phase1, phase2]
variants: {decoder: [phase2_decoder]}
regression:
  group: speaker
  targets:
    calm: {title: 落ち着き, scale: [1, 7]}
    warm: {title: あたたかさ, scale: [1, 7]}
data:
  train: {talks: {}, talks_val: {role: validation}}
  test: {input: talks_test.jsonl, gold: talks_gold.csv}
publish: {license: cc-by-sa-4.0}
"""
PHASE = """\
base_model: data/samples/base
output_dir: outputs/traits/phase2
datasets: [{path: data/train/talks.jsonl}]
test_datasets: [{path: data/train/talks_val.jsonl}]
"""
TARGETS = ("calm", "warm")
WORDS = {0: "ゆっくり 静か そうですね 散歩 読書".split(), 1: "うれしい ありがとう 一緒 友達 大好き".split()}  # noqa: SIM905


def add_recipe(root: Path, spec: str = SPEC) -> Task:
    """Write recipes/traits below a root."""
    recipe = root / "recipes" / "traits"
    recipe.mkdir(parents=True, exist_ok=True)
    if not (schema := root / "recipes" / "task.schema.json").exists():
        schema.write_bytes((ROOT / "recipes" / "task.schema.json").read_bytes())
    (recipe / "task.yml").write_text(spec, encoding="utf-8")
    for phase in ("phase1", "phase2"):
        (recipe / f"{phase}.yml").write_text(PHASE, encoding="utf-8")
    (recipe / "phase2_decoder.yml").write_text(PHASE.replace(".jsonl", "_segments.jsonl"), encoding="utf-8")
    return load_task("traits", root)


def lines(path: Path, rows: list) -> None:
    """Write JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def talks(prefix: str, speakers: int, rows: int, seed: int) -> list[dict]:
    """Rows of speakers whose words tell their traits a little."""
    random = np.random.default_rng(seed)
    traits = random.uniform(1.5, 6.5, (speakers, len(TARGETS))).round(2)
    found = []
    for number in range(rows):
        speaker = number % speakers
        said = [random.choice(WORDS[i]) for i in (0, 1) for _ in range(int(2 * traits[speaker, i]))]
        labels = dict(zip(TARGETS, traits[speaker].tolist(), strict=True))
        found.append({"id": f"{number:04}-{prefix}{speaker}", "speaker": f"{prefix}{speaker}",
                      "body": "。".join(said), "labels": labels})  # fmt: skip
    return found


def add_data(root: Path, shrink: float = 0.5, noise: float = 0.3) -> None:
    """Write training, validation and test rows, gold, and predictions that are shrunk to the mean."""
    lines(root / "data/train/talks.jsonl", talks("A", 12, 60, 1))
    lines(root / "data/train/talks_val.jsonl", talks("B", 6, 24, 2))
    test = talks("C", 8, 40, 3)
    lines(root / "data/test/talks_test.jsonl", [{k: row[k] for k in ("id", "speaker", "body")} for row in test])
    with (root / "data/test/talks_gold.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "speaker", *TARGETS])
        writer.writerows([row["id"], row["speaker"], *row["labels"].values()] for row in test)
    random = np.random.default_rng(4)
    rows = [
        {"id": row["id"], "output": {t: 4 + shrink * (v - 4) + random.normal(0, noise) for t, v in labels.items()}}
        for row in test
        for labels in [row["labels"]]
    ]
    lines(root / "outputs/traits/predictions.jsonl", rows)

"""A small ranking task of invented odai and responses, and estimates for it, for tests."""

import csv
from pathlib import Path

import numpy as np

from estimates import lines
from recipekit import ROOT
from recipekit.inputs import pair_digest
from recipekit.task import Task, load_task

SPEC = """\
name: jokes
kind: ranking
title: 大喜利の面白さ
summary: Ranks responses to an odai.
phases: [phase1]
regression:
  group: odai_id
  slice: type
  targets:
    score: {title: 面白さ, scale: [-1, 5]}
data:
  rows: {id: id, body: odai, pair: response, label: {score: score}}
  train: {jokes_train: {}, jokes_val: {role: validation}}
  test: {input: jokes_input.jsonl, gold: jokes_gold.csv}
  leaks: {group: odai_id}
publish: {license: cc-by-4.0}
"""
PHASE = """\
base_model: data/samples/encoder
output_dir: outputs/jokes/phase1
datasets: [{path: data/train/jokes_train.jsonl}]
test_datasets: [{path: data/train/jokes_val.jsonl}]
"""
FUNNY = "電池が手をつなぐ 校長が二人 冷蔵庫の裏話 猫の会議 社長は三歳 宇宙で寝坊".split()  # noqa: SIM905
DULL = "普通です 特にない わからない それは困る 知らない 時間がない".split()  # noqa: SIM905


def add_recipe(root: Path, spec: str = SPEC) -> Task:
    """Write recipes/jokes below a root."""
    recipe = root / "recipes" / "jokes"
    recipe.mkdir(parents=True, exist_ok=True)
    if not (schema := root / "recipes" / "task.schema.json").exists():
        schema.write_bytes((ROOT / "recipes" / "task.schema.json").read_bytes())
    (recipe / "task.yml").write_text(spec, encoding="utf-8")
    (recipe / "phase1.yml").write_text(PHASE, encoding="utf-8")
    return load_task("jokes", root)


def jokes(prefix: str, odai: int, seed: int) -> list[dict]:
    """Responses to odai, two to seven each, whose words tell the score a little; the last odai has one alone."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(odai):
        kind = "image" if number % 3 == 0 else "text"
        for place in range(1 if number == odai - 1 else 2 + number % 6):
            score = round(random.uniform(-0.5, 4.5), 2)
            words = [str(random.choice(FUNNY if random.uniform(-1, 5) < score else DULL)) for _ in range(3)]
            found.append({
                "id": f"{prefix}{number:03}-{place}", "odai_id": f"{prefix}{number:03}", "type": kind,
                "body": f"{prefix}{number}番のお題です。こんな{'写真' if kind == 'image' else '朝'}は嫌だ",
                "pair": "、".join(words), "labels": {"score": score},
            })  # fmt: skip
    return found


def add_data(root: Path, noise: float = 0.8) -> list[dict]:
    """Write training, validation and test rows, gold, and predictions; returns the test rows."""
    lines(root / "data/train/jokes_train.jsonl", jokes("A", 60, 1))
    lines(root / "data/train/jokes_val.jsonl", jokes("B", 20, 2))
    test = jokes("C", 40, 3)
    texts = [{key: value for key, value in row.items() if key != "labels"} for row in test]
    lines(root / "data/test/jokes_input.jsonl", texts)
    with (root / "data/test/jokes_gold.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "odai_id", "type", "score"])
        writer.writerows([row["id"], row["odai_id"], row["type"], row["labels"]["score"]] for row in test)
    random = np.random.default_rng(4)
    lines(root / "outputs/jokes/predictions.jsonl", [
        {"id": row["id"], "output": {"score": round(float(2 + 0.6 * (row["labels"]["score"] - 2)
         + random.normal(0, noise)), 4)}, "valid": True, "digest": pair_digest(row["body"], row["pair"])}
        for row in test
    ])  # fmt: skip
    return test

"""A small regression task with invented dialogues and personas, for the tests of its data."""

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import regenerate_segments
from recipekit import ROOT
from recipekit.task import load_task

SPEC = """\
name: traits
kind: regression
title: 小さな推定
summary: A task for tests.
phases: [phase1]
regression:
  group: speaker
  targets:
    openness: {scale: [1, 7]}
    calm: {scale: [1, 7]}
data:
  split:
    - file: personas
      rows: {format: nemotron_personas, text: [persona, work], occupations: jobs.yml}
      shares: {people: 0.8, people_val: 0.2}
      seed: 1
    - file: chat
      rows: {format: real_persona_chat, label: {openness: Open, calm: Calm}}
      by: speaker
      shares: {talks: 0.7, talks_val: 0.1, test: 0.2}
      seed: 1
  train:
    people: {}
    people_val: {role: validation}
    talks: {}
    talks_val: {role: validation}
  test: {input: traits_input.jsonl, gold: traits_gold.csv}
  leaks: {group: speaker}
"""
TABLE = """\
  rows: {id: 番号, body: 本文, label: {openness: 開放性, calm: 落ち着き}}
  split: {file: table.csv, by: speaker, shares: {talks: 0.6, talks_val: 0.2, test: 0.2}, seed: 3}
  train: {talks: {}, talks_val: {role: validation}}
  test: {input: traits_input.jsonl, gold: traits_gold.csv}
  leaks: {group: speaker}
"""
JOBS = "医療: [看護, 医]\n教育: [教]\nその他: []\n"
PHASE = """\
base_model: none
regression: {heads: {openness: {scale: [1, 7]}, calm: {scale: [1, 7]}}}
datasets: [{path: data/train/talks.jsonl, ds_type: json}]
test_datasets: [{path: data/train/talks_val.jsonl, ds_type: json, split: train}]
sequence_len: 64
output_dir: outputs/traits/phase1
"""


def speaker(number: int) -> str:
    return f"{chr(65 + number // 26)}{chr(65 + number % 26)}"


def dialogue(number: int, *speakers: str, said: str = "話") -> dict:
    utterances = [
        {"utterance_id": i, "interlocutor_id": speakers[i % 2], "text": f"{said}{number}の{i}番です。"}
        for i in range(6)
    ]
    return {"dialogue_id": number, "interlocutors": list(speakers), "utterances": utterances}


def persona(number: int, **values) -> dict:
    own = {
        "uuid": f"u{number:05}",
        "persona": f"{number}番の人は本を読む。",
        "work": f"{number}年ほど働いている。",
        "age": 20 + number % 60,
        "sex": "女" if number % 2 else "男",
        "occupation": "看護師" if number % 3 else "漁師",
    }
    return own | values


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def traits(tmp_path, monkeypatch):
    """The task's root with 40 speakers, 120 dialogues and 50 personas; `run` regenerates it."""
    recipe, raw = tmp_path / "recipes" / "traits", tmp_path / "data" / "raw" / "traits"
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "task.schema.json", tmp_path / "recipes")
    (recipe / "task.yml").write_text(SPEC, encoding="utf-8")
    (recipe / "jobs.yml").write_text(JOBS, encoding="utf-8")
    (recipe / "phase1.yml").write_text(PHASE)
    people = {
        speaker(i): {"personality": {"Open": 1 + i % 7, "Calm": round(7 - i % 13 / 2, 2)}, "persona": []}
        for i in range(40)
    }
    write_json(raw / "chat" / "interlocutors.json", people)
    draws = random.Random(0)
    for number in range(1, 121):
        talk = dialogue(number, *map(speaker, draws.sample(range(40), 2)))
        write_json(raw / "chat" / "dialogues" / f"{number:05}.json", talk)
    write_lines(raw / "personas" / "one.jsonl", [persona(i) for i in range(30)])
    write_lines(raw / "personas" / "more" / "two.jsonl", [persona(i) for i in range(30, 50)])
    monkeypatch.setattr(regenerate_segments, "load_task", lambda name: load_task(name, tmp_path))

    def edit(old: str, new: str) -> None:
        path = recipe / "task.yml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def change(path: str, edit) -> None:
        value = json.loads((raw / path).read_text(encoding="utf-8"))
        edit(value)
        write_json(raw / path, value)

    def rows(name: str) -> list[dict]:
        folder = tmp_path / "data" / ("test" if name.startswith("traits") else "train")
        return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    return SimpleNamespace(
        root=tmp_path,
        recipe=recipe,
        raw=raw,
        train=tmp_path / "data" / "train",
        test=tmp_path / "data" / "test",
        run=lambda: regenerate_segments.regenerate("traits"),
        task=lambda: load_task("traits", tmp_path),
        edit=edit,
        change=change,
        rows=rows,
    )


def table_task(traits, rows: list[dict], columns: str = "番号,speaker,本文,開放性,落ち着き") -> None:
    """Make the task one whose data is a CSV."""
    spec = yaml.safe_load(SPEC)
    text = SPEC[: SPEC.index("data:\n")] + "data:\n" + TABLE
    assert spec["name"] == "traits"
    (traits.recipe / "task.yml").write_text(text, encoding="utf-8")
    names = columns.split(",")
    lines = [columns, *(",".join(f'"{row.get(name, "")}"' for name in names) for row in rows)]
    (traits.raw / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

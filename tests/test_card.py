"""The model card: true to the run's files, valid for the Hub, and its code snippet runs on the prompt that trained."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import model_card
from recipekit import ROOT, scoring
from recipekit.evaluation import Evaluation
from recipekit.task import Task, load_task

COLUMNS = ["person_name", "person_age_at_published", "person_address", "person_belongs_company", "person_position_name",
           "person_violated_law", "occured_locations", "police_departments"]  # fmt: skip


@pytest.fixture
def task(tmp_path) -> Task:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return load_task("hawks", tmp_path)


def metrics(bundled: bool = True) -> dict:
    layout = scoring.Layout(COLUMNS, ["person"])
    counts = [0 if column == "person_address" else n for column in COLUMNS for n in (97, 2, 3)]
    tally = scoring.Tally()
    tally.add((*counts, 40, 5, 5, 300, 249, 3, 300, 225))
    evaluation = Evaluation(load_task("hawks"))
    evaluation.layout, evaluation.tally = layout, tally
    found = evaluation.metrics(evaluation.estimates(100, 0), 100, 0)
    return found | {"data": {"gold": "data/test/hawks_eval_gold.csv", "bundled_sample": bundled}}


def adapter(base: str) -> dict:
    return {"base_model_name_or_path": base, "r": 16, "lora_alpha": 32}


def write(task: Task, base: str = "Rakuten/RakutenAI-7B-instruct", bundled: bool = True) -> tuple[dict, str]:
    """Return the card's front matter and text."""
    card = model_card.write_card(task, metrics(bundled), adapter(base), "owner/name")
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def test_front_matter_is_what_the_hub_takes(task):
    from huggingface_hub import ModelCard

    front, _ = write(task)
    assert (front["license"], front["language"], front["library_name"]) == ("apache-2.0", "ja", "transformers")
    assert front["base_model"] == "Rakuten/RakutenAI-7B-instruct" and "lora" in front["tags"]
    card = ModelCard(model_card.write_card(task, metrics(), adapter("a/b"), "owner/name"))
    assert [(r.metric_name, r.metric_value) for r in card.data.eval_results][0] == ("micro F1", 0.9749)


def test_every_score_stands_in_the_table(task):
    _, text = write(task)
    rows = {cells[1].strip(" *"): cells[2:9] for line in text.splitlines() if len(cells := line.split("|")) == 10}
    assert {*COLUMNS, "micro", "macro", "whole persons"} <= set(rows)
    assert [cell.strip() for cell in rows["person_name"]] == ["98.0%", "97.0%", "97.5%", "97-97", "97", "2", "3"]
    assert [cell.strip() for cell in rows["person_address"]] == ["-", "-", "-", "", "0", "0", "0"]
    assert "3 of 249 (1.2%)" in text and "valid JSON: 100.0%" in text


def test_it_says_on_what_it_was_scored(task):
    assert "架空の記事" in write(task)[1] and "invented articles" in write(task)[1]
    assert "架空の記事" not in write(task, bundled=False)[1]


def test_a_small_base_is_named_as_such_and_not_as_a_hub_model(task):
    front, text = write(task, "data/samples/base")
    assert "base_model" not in front and "tests a pipeline" in text and "`data/samples/base`" in text
    front, text = write(task)
    assert "tests a pipeline" not in text and "https://huggingface.co/Rakuten/RakutenAI-7B-instruct" in text


def test_a_folder_outside_does_not_tell_the_machine(task, tmp_path_factory):
    base = tmp_path_factory.mktemp("somewhere") / "my-base"
    front, text = write(task, str(base))
    assert "base_model" not in front and "`my-base`" in text and "somewhere" not in text
    assert "tests a pipeline" not in text


@pytest.mark.parametrize("word", ["推測しません", "実在の人物", "real people", "有罪を意味しません", "Licence"])
def test_limits_are_told(task, word):
    assert word in write(task)[1]


def test_records_become_facts(task):
    state = task.outputs / "state"
    state.mkdir(parents=True)
    record = {"step": "phase2", "finished": "2026-01-02T03:04:05+0000", "seconds": 61.5, "inputs": {}, "products": {}}
    facts = {"loss": 0.0123456, "reached_steps": 300, "digest": "0" * 64, "finite": True, "folder": "data/x"}
    (state / "phase2.json").write_text(json.dumps(record | facts), encoding="utf-8")
    assert "| phase2 | 2026-01-02 | 61.5 | loss 0.01235, reached steps 300 |" in write(task)[1]


def snippet(text: str) -> str:
    return re.search(r"```python\n(.*?)```", text, re.S)[1]


def test_snippet_compiles_and_holds_the_real_prompt(task):
    scope: dict = {}
    code = snippet(write(task)[1])
    compile(code, "snippet", "exec")
    constants = re.search(r"^MODEL = .*?(?=^tokenizer)", code, re.S | re.M)[0]
    exec(constants, scope)
    assert [text.replace("{body}", "記事です。") for text in scope["SEGMENTS"]] == task.prompt("記事です。")
    assert scope["FEED_LINES"] == task.spec["prompt"]["strip"] and scope["MODEL"] == "owner/name"


@pytest.mark.slow
def test_snippet_runs_and_feeds_the_model_what_training_fed_it(task, tmp_path):
    from recipekit import segments
    from tiny import tiny_base

    body = "配信元：共同\n海野太郎容疑者を逮捕。"
    scope: dict = {"__name__": "snippet"}
    base = tiny_base(tmp_path / "base")
    code = snippet(write(task)[1]).replace("owner/name", str(base)).replace("max_new_tokens=768", "max_new_tokens=4")
    exec(code.replace('print(extract("記事の本文"))', ""), scope)
    assert scope["prompt_ids"](body) == segments.encode(scope["tokenizer"], task.prompt(body))
    with pytest.raises(json.JSONDecodeError):  # a random model writes no JSON, but it writes
        scope["extract"](body)


def test_command(tmp_path):
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".env").write_text("HF_AUTH_TOKEN=hf_secret\nHF_REPO_ID=someone/there\n", encoding="utf-8")

    def run() -> subprocess.CompletedProcess:
        command = [sys.executable, "tools/model_card.py", "hawks"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = run()
    assert (
        done.returncode == 2 and "evaluation/metrics.json: No such file" in done.stderr and "evaluate.py" in done.stderr
    )
    out = tmp_path / "outputs" / "hawks"
    files = {"evaluation/metrics.json": metrics(), "phase2/adapter_config.json": adapter("data/samples/base")}
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(json.dumps(content), encoding="utf-8")
    assert run().returncode == 0
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "MODEL = 'someone/there'" in text and "hf_secret" not in text and str(tmp_path) not in text
    assert "up to date" in run().stderr
    (out / "evaluation" / "metrics.json").write_text(json.dumps(metrics(bundled=False)), encoding="utf-8")
    assert "up to date" not in run().stderr and Path(out / "README.md").read_text(encoding="utf-8") != text

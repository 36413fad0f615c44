"""A ranking under Axolotl, on a BERT whose tokenizer reads Japanese words: train, merge, predict, rank."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import merge
import predict
import rank
import regenerate_segments
from ranked import write_task
from recipekit.inputs import pair_digest
from recipekit.models import load_classifier, mark_second_text
from recipekit.regressor import Regressor, read_facts
from recipekit.segments import read_jsonl
from recipekit.task import load_task
from tiny import tiny_japanese_bert
from training import run

STEPS = 60
PHASE = {"base_model": "bert", "learning_rate": 2e-3, "max_steps": STEPS, "eval_steps": 20, "save_steps": 20}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ogiri")
    write_task(root)
    tiny_japanese_bert(root / "bert")
    path = root / "recipes" / "ogiri" / "cpu.yml"
    phases = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({phase: own | PHASE for phase, own in phases.items()}), encoding="utf-8")
    task = load_task("ogiri", root)
    (root / "data" / "test").mkdir()
    (root / "data" / "train").mkdir()
    regenerate_segments.generate(task, task.captioned_dir, root / "data" / "train")
    for name in task.spec["data"]["test"]["input"], task.spec["data"]["test"]["gold"]:
        (root / "data" / "train" / name).replace(root / "data" / "test" / name)
    return root


@pytest.mark.trap(number=20)
def test_second_texts_are_marked_for_a_model_that_knows_marks(tmp_path):
    """Transformers 5 leaves the marks out of Japanese BERT's tokenizer, and the model would read one long text."""
    tiny_japanese_bert(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), load_classifier(tmp_path, torch.float32)
    tokens = mark_second_text(tokenizer, model.config)("記事の大会", "花火海")
    assert tokens["token_type_ids"] == [0] * 7 + [1] * 4
    marked = model(**{name: torch.tensor([ids]) for name, ids in tokens.items()}).logits
    bare = model(input_ids=torch.tensor([tokens["input_ids"]])).logits
    assert not torch.allclose(marked, bare, atol=1e-4)


def scores_of(root, task) -> dict:
    state = sorted((task.outputs / task.phases[-1]).glob("checkpoint-*"))[-1] / "trainer_state.json"
    return [entry for entry in json.loads(state.read_text())["log_history"] if "eval_loss" in entry]


@pytest.mark.slow
def test_the_order_is_learned_merged_and_predicted(root, capsys, monkeypatch):
    task = load_task("ogiri:listwise", root)
    run(root, task.name, "phase1_listwise")
    logged = scores_of(root, task)
    assert logged[-1]["eval_ndcg"] > 0.95 > logged[0]["eval_ndcg"] - 0.04, logged
    record = json.loads((task.outputs / "state" / "phase1_listwise.json").read_text())
    assert record["best_step"] == max(logged, key=lambda entry: entry["eval_ndcg"])["step"]

    merge.merge_task(task, "cpu")
    merged = task.outputs / "merged"
    config = json.loads((merged / "tokenizer_config.json").read_text())
    assert config["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]
    rows = [row for _, row in read_jsonl(task.test_path("input"))]
    articles = predict.articles_of(
        task, predict.Options(merged, None, task.test_path("input"), root / "out.jsonl"), False
    )
    found = list(
        predict.load(
            task, predict.Options(merged, None, task.test_path("input"), root / "out.jsonl", batch_size=7)
        ).predict(articles)
    )
    assert [row["digest"] for row in found] == [pair_digest(row["body"], row["pair"]) for row in rows]
    tokenizer, model = AutoTokenizer.from_pretrained(merged), AutoModelForSequenceClassification.from_pretrained(merged)
    with torch.no_grad():
        tokens = tokenizer(rows[3]["body"], rows[3]["pair"], return_tensors="pt")
        plain = -1 + 6 * model(**tokens).logits.sigmoid().item()
    assert tokens["token_type_ids"].max() == 1
    assert found[3]["output"]["score"] == pytest.approx(plain, abs=1e-3)

    monkeypatch.setattr(rank, "load_task", lambda name: load_task(name, root))
    rank.rank("ogiri:listwise", "記事99の大会", ["海海0", "花火花火花火海1", "花火海2"], "", None, None, True)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in shown] == [1, 2, 3] and shown[0]["response"] == "花火花火花火海1", shown
    [value] = Regressor.load(merged).predict(["記事99の大会"], ["花火花火花火海1"])[0]
    assert shown[0]["score"] == pytest.approx(value, abs=1e-3)


@pytest.mark.slow
def test_a_ranking_trained_twice_is_the_same_bytes(root, tmp_path):
    """Same seed, same machine, same data."""
    steps = {"max_steps": 6, "eval_steps": 3, "save_steps": 3}
    adapters = []
    for name in ("once", "twice"):
        own = shutil.copytree(root, tmp_path / name, ignore=shutil.ignore_patterns("outputs", "logs"))
        path = own / "recipes" / "ogiri" / "cpu.yml"
        phases = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump({phase: values | steps for phase, values in phases.items()}), encoding="utf-8")
        task = load_task("ogiri:listwise", own)
        (task.outputs / "state").mkdir(parents=True)
        run(own, task.name, "phase1_listwise")
        adapters.append((task.outputs / "phase1_listwise" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


@pytest.mark.slow
def test_a_shift_is_kept_with_the_model(root):
    task = load_task("ogiri:shifted", root)
    run(root, task.name, "phase1_shifted")
    merge.merge_task(task, "cpu")
    rows = [row for _, row in read_jsonl(task.rows_path("ogiri_train"))]
    least = min(row["labels"]["score"] for row in rows)
    facts = read_facts(task.outputs / "merged")
    assert facts.regression.heads["score"].offset == least and facts.regression.scaling == "shift"
    values = Regressor.load(task.outputs / "merged").predict([rows[0]["body"]] * 2, ["花火花火花火花火", "海"])[:, 0]
    assert least <= values.min() and values.max() <= least + 1 + 1e-6
    head = load_file(task.outputs / "merged" / "model.safetensors")["classifier.bias"]
    assert head.shape == (1,)
    shutil.rmtree(task.outputs)

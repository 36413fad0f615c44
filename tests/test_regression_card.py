"""The model card, summary and upload of a regression: true to its files, and the card's snippet estimates as we do."""

import json
import re
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

import model_card
import summary
import upload
from estimates import SPEC, TARGETS, add_data, add_recipe, lines
from evaluated import card_of
from recipekit import hub, regression_evaluation
from recipekit.evaluating import Options
from recipekit.regression import RegressionConfig
from recipekit.regressor import Regressor
from recipekit.task import load_task
from tiny import tiny_encoder

ADAPTER = {"base_model_name_or_path": "FacebookAI/xlm-roberta-large", "r": 16, "lora_alpha": 32}
SOURCE = """\
  sources:
    chat: {repo: owner/chat, revision: main, files: [a], license: CC BY-SA 4.0, terms: Do not identify.}
"""
DECODER = "prompt: {segments: [text.txt], bos: <s>, eos: </s>}\n"


@pytest.fixture
def task(tmp_path):
    """A task that is scored beside a constant baseline, with the facts of its heads."""
    recipe = tmp_path / "recipes" / "traits"
    recipe.mkdir(parents=True)
    (recipe / "text.txt").write_text("推定する。\n{{ body }}\n", encoding="utf-8")
    task = add_recipe(tmp_path, SPEC.replace("data:\n", "data:\n" + SOURCE) + DECODER)
    add_data(tmp_path)
    predictions = [json.loads(line) for line in (task.outputs / "predictions.jsonl").open(encoding="utf-8")]
    lines(task.baselines / "constant.jsonl", [row | {"output": {"calm": 4.1, "warm": 3.9}} for row in predictions])
    heads = RegressionConfig.model_validate({"heads": {name: {"scale": [1, 7]} for name in TARGETS}})
    facts = {"regression": heads.model_dump(), "max_length": 32, "interval": {"calm": 0.81, "warm": 1.24}}
    merged = task.outputs / "merged"
    merged.mkdir()
    (merged / "regression.json").write_text(json.dumps(facts), encoding="utf-8")
    (merged / "config.json").write_text("{}", encoding="utf-8")
    return task


def scored(task):
    options = Options(task.test_path("gold"), None, task.outputs / "evaluation", resamples=100)
    return regression_evaluation.score(task, task.outputs / "predictions.jsonl", options)[0]


def write(task, metrics=None):
    """Return the card's front matter and text."""
    return card_of(task, metrics or scored(task), ADAPTER)


def test_front_matter_is_what_the_hub_takes(task):
    from huggingface_hub import ModelCard

    metrics = scored(task)
    front, _ = write(task, metrics)
    assert front["pipeline_tag"] == "text-classification" and front["base_model"] == "FacebookAI/xlm-roberta-large"
    assert front["datasets"] == ["owner/chat"] and "regression" in front["tags"]
    card = ModelCard(model_card.write_card(task, metrics, ADAPTER, "owner/name"))
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {key: round(metrics["group"]["overall"][key], 4) for key in ("mae", "r2", "pearson")}


def test_every_score_stands_beside_the_baseline(task):
    metrics = scored(task)
    _, text = write(task, metrics)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| target | MAE")]
    assert len(tables) == 2
    for level, table in zip(("group", "row"), tables, strict=True):
        rows = {
            cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (row.split("|") for row in table[2:])
        }
        assert list(rows) == ["overall", *TARGETS]
        for target, cells in rows.items():
            own, constant = metrics[level][target], metrics["baselines"]["constant"][level][target]
            low, high = own["mae_interval"]
            assert cells[0] == f"{own['mae']:.3f} ({low:.3f} to {high:.3f})" and cells[2].startswith(
                f"{own['pearson']:.3f}"
            )
            assert cells[3:] == [f"{constant['mae']:.3f}", f"{constant['r2']:.3f}", "-"]
    assert re.search(r"^\| calm \| 落ち着き \| 1 to 7 \| ± 0\.81 \|$", text, re.M)


@pytest.mark.parametrize(
    "words",
    ["人について何かを決めるために使わないでください", "Decide nothing about a person", "identify or impersonate",
     "性格を推定されたくない", "without consent", "says little about an individual", "CC BY-SA 4.0 | Do not identify.",
     "their standard deviation", "Licence"],
)  # fmt: skip
def test_limits_are_told(task, words):
    assert words in re.sub(r"\s+", " ", write(task)[1])


def test_caution_follows_from_the_scores(task):
    metrics = scored(task)
    _, text = write(task, metrics)
    share = f"{100 * metrics['group']['overall']['r2']:.0f}%"
    assert f"about\n{share} of the differences" in text and "do not use its estimates" not in text
    metrics["baselines"]["constant"]["difference"]["group"]["overall"]["mae"]["real"] = False
    assert "do not use its estimates" in write(task, metrics)[1]


def test_the_invented_sample_is_named_and_its_sources_are_not(task):
    metrics = scored(task)
    metrics["data"]["bundled_sample"] = True
    front, text = write(task, metrics)
    assert "架空の見本データ" in text and "datasets" not in front and "owner/chat" not in text
    assert "架空" not in write(task)[1]


def test_a_decoder_shows_its_prompt(task):
    decoder = load_task("traits:decoder", task.root)
    shutil.copytree(task.outputs, decoder.outputs)
    (decoder.outputs / "merged" / "regression.json").unlink()
    front, text = write(decoder, scored(decoder))
    assert front["pipeline_tag"] == "text-generation" and "<s>推定する。\n{body}" in text and "```python" not in text


def test_a_variant_has_a_repository_of_its_own(task, monkeypatch):
    monkeypatch.setenv("HF_REPO_ID", "me/traits")
    assert hub.model_repo(task) == "me/traits"
    assert hub.model_repo(load_task("traits:decoder", task.root)) == "me/traits-decoder"


def test_summary_and_upload(task, capsys, monkeypatch):
    metrics = scored(task)
    for module in (summary, upload, model_card):
        monkeypatch.setattr(module, "load_task", lambda name: load_task(name, task.root))
    summary.summary("traits", 61)
    shown = capsys.readouterr().err
    assert "by speaker" in shown and f"{metrics['group']['warm']['mae']:.3f}" in shown and "constant" in shown
    adapter = task.outputs / "phase2" / "adapter_config.json"
    lines(adapter, [ADAPTER])
    model_card.card("traits")
    model_card.card("traits")
    assert "card: up to date" in capsys.readouterr().err
    files = upload.collect(task)
    assert {"README.md", "metrics.json", "config.json", "regression.json"} == set(files)


def test_snippet_estimates_what_the_recipes_estimate(task):
    """As written on the card, with the name of the folder in the place of the repository's."""
    folder = tiny_encoder(task.root / "encoder")
    config = AutoConfig.from_pretrained(folder, num_labels=2)
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    shutil.copy(task.outputs / "merged" / "regression.json", folder)
    code = re.search(r"```python\n(.*?)```", write(task)[1], re.S)[1].replace("owner/name", str(folder))
    scope = {"__name__": "snippet"}
    exec(re.sub(r"^print.*\n", "", code, flags=re.M), scope)
    texts = ["山田花火", "記事" * 40]
    found = scope["estimate"](texts)
    expected = Regressor.load(folder).predict(texts)
    for column, target in enumerate(TARGETS):
        assert found[target] == pytest.approx(expected[:, column], abs=1e-4)
    assert len({round(value, 3) for values in found.values() for value in values}) > 2

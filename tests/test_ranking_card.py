"""The model card and summary of a ranking: true to its files, and the card's snippet ranks as we do."""

import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

import model_card
import summary
from estimates import lines
from evaluated import card_of
from rankings import SPEC, add_data, add_recipe
from recipekit import ranking_evaluation
from recipekit.evaluating import Options
from recipekit.regression import RegressionConfig
from recipekit.regressor import Regressor
from recipekit.task import load_task
from tiny import tiny_encoder

ADAPTER = {"base_model_name_or_path": "owner/encoder", "r": 8, "lora_alpha": 16}
DATA = """\
data:
  sources:
    ogiri: {repo: owner/ogiri, revision: main, files: [a], license: CC BY 4.0, terms: Name the site.}
  captions: {model: owner/sees-images, prompt: caption.txt}
"""


@pytest.fixture
def task(tmp_path):
    """A task that is scored beside two baselines, one of them as good as the model."""
    task = add_recipe(tmp_path, SPEC.replace("data:\n", DATA))
    add_data(tmp_path)
    predictions = [json.loads(line) for line in (task.outputs / "predictions.jsonl").open(encoding="utf-8")]
    lines(task.baselines / "constant.jsonl", [row | {"output": {"score": 2.1}} for row in predictions])
    lines(task.baselines / "ridge.jsonl", predictions)
    return task


def scored(task):
    options = Options(task.test_path("gold"), None, task.outputs / "evaluation", resamples=100)
    return ranking_evaluation.score(task, task.outputs / "predictions.jsonl", options)[0]


def write(task, metrics=None):
    """Return the card's front matter and text."""
    return card_of(task, metrics or scored(task), ADAPTER)


def test_front_matter_is_what_the_hub_takes(task):
    from huggingface_hub import ModelCard

    metrics = scored(task)
    front, _ = write(task, metrics)
    assert front["pipeline_tag"] == "text-ranking" and front["base_model"] == "owner/encoder"
    assert front["datasets"] == ["owner/ogiri"] and "cross-encoder" in front["tags"]
    card = ModelCard(model_card.write_card(task, metrics, ADAPTER, "owner/name"))
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {key: round(metrics["scores"]["overall"][key], 4) for key in ("ndcg", "spearman", "mse")}


def rows_of(text, first):
    """The cells of the table whose header begins so, by the first cell."""
    [table] = [block.splitlines() for block in text.split("\n\n") if block.startswith(f"| {first}")]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]
    assert len({len(row) for row in cells}) == 1, "a table has as many cells in every row"
    return {row[0]: row[1:] for row in cells[2:]}


def test_every_score_stands_with_its_interval(task):
    metrics = scored(task)
    _, text = write(task, metrics)
    rows = rows_of(text, "type")
    assert list(rows) == ["overall", "image", "text"]
    for part, cells in rows.items():
        own = metrics["scores"][part]
        low, high = own["ndcg_interval"]
        assert cells[:2] == [str(metrics["parts"][part][key]) for key in ("rows", "groups")]
        assert cells[2] == f"{own['ndcg']:.3f} ({low:.3f} to {high:.3f})" and cells[6] == f"{own['rmse']:.3f}"
        assert cells[3].startswith(f"{own['spearman']:.3f} (") and cells[5].startswith(f"{own['mse']:.3f} (")


def test_baselines_that_are_not_beaten_are_told(task):
    metrics = scored(task)
    _, text = write(task, metrics)
    rows = rows_of(text, "baseline")
    constant = metrics["baselines"]["constant"]
    assert rows["constant"][0] == f"{constant['scores']['overall']['ndcg']:.3f}" and rows["constant"][-1] == "beaten"
    assert rows["constant"][3].startswith(f"{constant['difference']['overall']['ndcg']['difference']:+.3f} (")
    assert rows["ridge"][-1] == "**not shown to be beaten**"
    assert "Not shown to be better than the linear regression" in text and "do\nnot use its rankings" not in text
    constant["difference"]["overall"]["ndcg"]["real"] = False
    assert "do\nnot use its rankings" in write(task, metrics)[1]
    metrics["baselines"]["ridge"]["difference"]["overall"]["ndcg"] |= {"real": True, "difference": -0.1}
    assert rows_of(write(task, metrics)[1], "baseline")["ridge"][-1] == "**better than the model**"
    metrics["baselines"] = {}
    assert "| baseline" not in write(task, metrics)[1]


@pytest.mark.parametrize(
    "words",
    [
        "Humour is subjective",
        "votes of one site",
        "面白さは人によって違います",
        "owner/sees-images",
        "It sees no images",
        "CC BY 4.0 | Name the site.",
        "no leave to publish",
        "`cc-by-4.0`",
        "none of which is in the training data",
        "1 odai with one response, or with equal votes",
    ],
)
def test_limits_are_told(task, words):
    assert words in re.sub(r"\s+", " ", write(task)[1])


def test_without_captions_images_are_not_spoken_of(tmp_path):
    task = add_recipe(tmp_path)
    add_data(tmp_path)
    assert "caption" not in write(task)[1]


def test_the_invented_sample_is_named_and_its_sources_are_not(task):
    metrics = scored(task)
    metrics["data"]["bundled_sample"] = True
    front, text = write(task, metrics)
    assert "架空の見本データ" in text and "datasets" not in front and "owner/ogiri" not in text
    assert "架空" not in write(task)[1]


def test_summary(task, capsys, monkeypatch):
    metrics = scored(task)
    monkeypatch.setattr(summary, "load_task", lambda name: load_task(name, task.root))
    summary.summary("jokes")
    shown = capsys.readouterr().err
    assert f"{metrics['scores']['image']['ndcg']:.3f}" in shown and "better than constant" in shown


@pytest.mark.parametrize("scaling", ["range", "shift"])
def test_snippet_ranks_as_the_recipes_do(task, scaling):
    """As written on the card, with the name of the folder in the place of the repository's."""
    folder = tiny_encoder(task.root / "encoder")
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder, num_labels=1))
    model.save_pretrained(folder)
    spec = RegressionConfig.model_validate({"heads": {"score": {"scale": [-1, 5]}}, "scaling": scaling})
    spec = spec.fitted([{"score": -0.4}, {"score": 2.0}])
    facts = {"regression": spec.model_dump(exclude_none=True), "max_length": 32, "interval": {"score": 0.8}}
    (folder / "regression.json").write_text(json.dumps(facts), encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", write(task)[1], re.S)[1].replace("owner/name", str(folder))
    scope = {"__name__": "snippet"}
    exec(code, scope)
    responses = ["山田花火", "逮捕" * 20, "大会", "a b c"]
    found = scope["rank"]("記事を抽出する。", responses)
    expected = Regressor.load(folder).predict(["記事を抽出する。"] * 4, responses)[:, 0]
    assert {text: score for score, text in found} == {
        text: pytest.approx(score, abs=1e-4) for text, score in zip(responses, expected, strict=True)
    }
    assert [text for _, text in found] == [responses[i] for i in (-expected).argsort()]
    assert len({round(score, 4) for score, _ in found}) == 4

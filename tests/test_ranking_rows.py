"""Rows of a ranking: pairs made of captioned CSVs, what checks and leaks say of them, and the same pair to rank."""

import csv
import io
import json
import random
import re

import pytest
import typer
from transformers import AutoTokenizer

import check
import leaks
import rank
import regenerate_segments
from ranked import FILES, captioned_rows, write_rows, write_task
from recipekit import ROOT, regressioncheck, rowcheck
from recipekit.errors import UserError
from recipekit.task import load_task
from recipekit.traps import load_configs
from tiny import tiny_encoder


@pytest.fixture
def ogiri(tmp_path, monkeypatch):
    task = write_task(tmp_path)
    for module in (regenerate_segments, leaks, rank):
        monkeypatch.setattr(module, "load_task", lambda name: load_task(name, tmp_path))
    return task


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def edit(task, name: str, change) -> None:
    path = task.captioned_dir / f"{name}.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    change(rows)
    write_rows(path, rows)


def test_pictures_that_are_not_told_in_words_are_refused():
    with pytest.raises(UserError, match="samples/ogiri: its pictures are not told in words; .*tools/caption.py ogiri"):
        regenerate_segments.regenerate("ogiri", ROOT / "data" / "samples" / "ogiri")


def test_csv_rows_become_pairs_and_a_test_set(ogiri):
    regenerate_segments.regenerate("ogiri")
    rows = read(ogiri.rows_path("ogiri_train"))
    assert len(rows) == 5 * FILES["train"]
    assert rows[5].keys() == {"id", "odai_id", "type", "body", "pair", "labels"}
    assert rows[5]["body"] == "記事1の大会" and rows[5]["pair"].endswith("海0") and rows[5]["type"] == "text"
    by_odai = {row["odai_id"]: row for row in rows}
    assert by_odai["o3"]["body"] == "写真: 山田、3番", "a picture without words"
    assert by_odai["o6"]["body"] == "記事6の大会\n写真: 山田、6番"
    assert -1 <= rows[0]["labels"]["score"] <= 5
    articles = read(ogiri.test_path("input"))
    assert articles[0].keys() == {"id", "odai_id", "type", "body", "pair"}, "no scores"
    gold = list(csv.DictReader(io.StringIO(ogiri.test_path("gold").read_text(encoding="utf-8"))))
    assert [(row["id"], row["odai_id"], row["type"]) for row in gold] == [
        (row["id"], row["odai_id"], row["type"]) for row in articles
    ]
    assert float(gold[0]["score"]) == float(captioned_scores(ogiri)[gold[0]["id"]])
    assert len(read(ogiri.rows_path("ogiri_validation"))) == 5 * FILES["validation"]


def captioned_scores(task) -> dict[str, str]:
    text = (task.captioned_dir / "test.csv").read_text(encoding="utf-8")
    return {row["id"]: row["score"] for row in csv.DictReader(io.StringIO(text))}


def test_wrong_rows_of_all_files_are_named_at_once(ogiri):
    def spoil(rows):
        rows[0]["response"] = " "
        rows[1]["score"] = "5.1"
        rows[2]["odai_id"] = ""
        rows[3]["type"] = ""

    edit(ogiri, "train", spoil)
    edit(ogiri, "test", lambda rows: rows[0].update(odai="", caption="", score="高い"))
    with pytest.raises(UserError) as caught:
        regenerate_segments.regenerate("ogiri")
    found = "\n".join(caught.value.problems)
    for expected in (
        r"train.csv:2: key 'pair': expected a text, found ' '",
        r"train.csv:3: key 'label.score': expected a number from -1 to 5, found 5.1",
        r"train.csv:4: key 'odai_id': not there, and regression in task.yml names it",
        r"train.csv:5: key 'type': not there",
        r"test.csv:2: key 'body': expected a text",
        r"test.csv:2: key 'label.score': expected a number from -1 to 5, found '高い'",
    ):
        assert re.search(expected, found), (expected, found)
    assert len(caught.value.problems) == 6 and not ogiri.test_path("input").exists()


def test_without_captions_the_command_that_makes_them_is_named(ogiri):
    (ogiri.captioned_dir / "test.csv").unlink()
    with pytest.raises(UserError, match=r"no file test.csv, which task.yml names; .*tools/caption.py ogiri"):
        regenerate_segments.regenerate("ogiri")


def test_checks_measure_both_texts(ogiri, tmp_path):
    regenerate_segments.regenerate("ogiri")
    heads = regressioncheck.read_heads(load_configs(ogiri, "cpu")[1][0])
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(tmp_path / "enc"))
    report = rowcheck.check_file(ogiri, ogiri.rows_path("ogiri_train"), tokenizer, 30, heads)
    rows = read(ogiri.rows_path("ogiri_train"))
    lengths = [len(tokenizer(row["body"], row["pair"]).input_ids) for row in rows]
    assert report.problems == [] and report.longest == max(lengths) > 30
    assert report.cut == sum(length > 30 for length in lengths) < len(rows)
    told = "".join(text for text, _ in report.sample)
    assert rows[0]["body"] in told and rows[0]["pair"] in told and "score" in told
    assert check.test_set(ogiri).problems == []
    broken = [{**rows[0], "pair": " "}, {**rows[1], "pair": None}]
    ogiri.rows_path("ogiri_train").write_text("\n".join(map(json.dumps, broken)) + "\n", encoding="utf-8")
    report = rowcheck.check_file(ogiri, ogiri.rows_path("ogiri_train"), tokenizer, 30, heads)
    assert [problem.split("; ")[0].split(":", 1)[1] for problem in report.problems] == [
        "1: pair: expected a text, found ' '",
        "2: pair: expected a text, found None",
    ]


@pytest.mark.parametrize("shared", ["odai_id", "odai"])
def test_an_odai_in_two_splits_is_a_leak(ogiri, shared):
    """By its id, or by its words under another id."""
    regenerate_segments.regenerate("ogiri")
    leaks.leaks("ogiri")
    row = captioned_rows(1, 1, random.Random(5))[0]

    def leak(rows):
        own = {"odai_id": row["odai_id"]} if shared == "odai_id" else {"odai": row["odai"]}
        rows[5].update(own)

    edit(ogiri, "test", leak)
    regenerate_segments.regenerate("ogiri")
    with pytest.raises((UserError, typer.Exit)):
        leaks.leaks("ogiri")
    report = json.loads((ogiri.outputs / "leaks" / "report.json").read_text())
    assert any(entry["kind"] == "group" and entry["rows"] for entry in report["between"])

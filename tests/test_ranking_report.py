"""The report of a ranking: true to metrics.json, escaped, self-contained, and whole in a browser."""

import json
import re

import numpy as np
import pytest

from estimates import lines
from evaluated import assert_stands_alone
from rankings import add_data, add_recipe
from recipekit import baselines, ranking_evaluation
from recipekit.baselines import Data
from recipekit.evaluating import Options
from recipekit.inputs import pair_digest, scan
from recipekit.tables import number
from test_regression_report import EVIL, Page, edit

METRICS = ("ndcg", "spearman", "top1", "ndcg_global", "mse", "rmse", "mae", "r2")


@pytest.fixture
def report(tmp_path):
    """Make the report of the small task; returns a function that gives its HTML and metrics."""
    task = add_recipe(tmp_path)
    add_data(tmp_path)

    def make(with_baselines=True):
        test = [row for _, row in scan(task.test_path("input"))]
        if with_baselines:
            rows = {name: baselines.read_rows(task, path) for name, path in baselines.training_files(task).items()}
            for name, baseline in baselines.OF_KIND["ranking"].items():
                values, _ = baseline(Data(task, rows["train"], rows["validation"], test))
                lines(task.baselines / f"{name}.jsonl", [
                    {"id": row["id"], "output": {"score": float(value)}}
                    for row, [value] in zip(test, values, strict=True)
                ])  # fmt: skip
        options = Options(task.test_path("gold"), task.test_path("input"), tmp_path / "scores", resamples=100)
        metrics, _ = ranking_evaluation.score(task, task.outputs / "predictions.jsonl", options)
        return (tmp_path / "scores" / "report.html").read_text(encoding="utf-8"), metrics

    def write(**texts):
        """Give every row of the test set these texts, and predictions their digests."""
        edit(task.test_path("input"), lambda rows: [row.update(texts) for row in rows])
        given = {row["id"]: pair_digest(row["body"], row["pair"]) for _, row in scan(task.test_path("input"))}
        edit(task.outputs / "predictions.jsonl", lambda rows: [row.update(digest=given[row["id"]]) for row in rows])

    make.task, make.write = task, write
    return make


def test_tables_say_what_metrics_say(report):
    html, metrics = report()
    page = Page(html)
    for who, own in {"model": metrics, **metrics["baselines"]}.items():
        rows = page.tables[who]
        assert list(rows) == ["overall", "image", "text"]
        for part, cells in rows.items():
            for cell, metric in zip(cells[1:], METRICS, strict=True):
                low, high = own["scores"][part][f"{metric}_interval"]
                assert cell == f"{number(own['scores'][part][metric])} {number(low)}–{number(high)}"
    for part, cells in page.tables["counts"].items():
        assert cells[1:] == [str(value) for value in metrics["parts"][part].values()]
    shown = [(name, metric) for name in metrics["baselines"] for metric in ("ndcg", "spearman", "mse")]
    for part, cells in page.tables["differences"].items():
        for cell, (name, metric) in zip(cells[1:], shown, strict=True):
            one = metrics["baselines"][name]["difference"][part][metric]
            assert cell.startswith(f"{one['difference']:+.3f} {one['low']:+.3f} to {one['high']:+.3f}")
            assert cell.endswith("*") == one["real"]


def states(html, name):
    verdict = re.search(rf'data-verdict="{name}".*?</p>', html, re.S)[0]
    return dict(re.findall(r'data-metric="(\w+)" data-state="(\w+)"', verdict))


def test_verdicts_follow_the_differences(report):
    html, metrics = report()
    assert states(html, "constant") == {"ndcg": "better", "spearman": "better"}
    edit(report.task.outputs / "predictions.jsonl", lambda rows: [
        row.update(output={"score": 4 - row["output"]["score"]}) for row in rows
    ])  # fmt: skip
    html, _ = report(with_baselines=False)
    assert states(html, "constant") == {"ndcg": "worse", "spearman": "worse"}
    same = [json.loads(line) for line in (report.task.outputs / "predictions.jsonl").open(encoding="utf-8")]
    lines(report.task.baselines / "constant.jsonl", same)
    assert states(report(with_baselines=False)[0], "constant") == {"ndcg": "unclear", "spearman": "unclear"}


def test_examples_are_the_best_and_the_worst_in_both_orders(report):
    gold = {row["id"]: row for _, row in scan(report.task.test_path("input"))}
    own = [name for name, row in gold.items() if row["odai_id"] == "C011"]

    def turn(rows):
        for row in rows:
            if row["id"] in own:
                row["output"] = {"score": float(own.index(row["id"]))}

    edit(report.task.outputs / "predictions.jsonl", turn)
    html, _ = report(with_baselines=False)
    cases = {
        found[0]: (found[1], found[2])
        for found in re.findall(r'id="((?:best|worst)-\d)".*?<strong>(C\d+)</strong>.*?NDCG ([\d.]+)', html, re.S)
    }
    assert list(cases) == [f"{which}-{place}" for which in ("best", "worst") for place in range(1, 6)]
    assert len({group for group, _ in cases.values()}) == 10
    values = [float(value) for _, value in cases.values()]
    assert values[:5] == sorted(values[:5], reverse=True) and values[5:] == sorted(values[5:])
    assert min(values[:5]) >= max(values[5:])
    for which in ("best-1", "worst-1"):
        case = re.search(rf'id="{which}".*?</details>', html, re.S)[0]
        sides = case.split("<h4>")[1:]
        cells = [re.findall(r'<td class="number">(-?[\d.]+)</td>', side) for side in sides]
        ranks, right, guessed = (np.array([side[place::3] for side in cells], dtype=float) for place in range(3))
        assert (np.diff(guessed[0]) <= 0).all() and (np.diff(right[1]) <= 0).all(), "each in its own order"
        assert sorted(right[0]) == sorted(right[1]) and ranks[0].tolist() == sorted(ranks[0])


def test_texts_are_escaped(report):
    report.write(body=EVIL, pair=f"{EVIL}{{{{ 7 * 7 }}}}")
    html, _ = report(with_baselines=False)
    assert "script" not in Page(html).tags and "&lt;script&gt;alert" in html and "\x00" not in html
    assert "{{ 7 * 7 }}" in html


def test_names_are_escaped(report):
    task = report.task
    path = task.test_path("gold")
    path.write_text(path.read_text(encoding="utf-8").replace(",text,", ",<b>$x$,"), encoding="utf-8")
    html, metrics = report(with_baselines=False)
    assert "<b>$x$" in metrics["scores"] and "b" not in Page(html).tags and "&lt;b&gt;$x$" in html


def test_long_texts_are_cut(report):
    report.write(body="あ" * 900, pair="い" * 900)
    html, _ = report(with_baselines=False)
    for letter in "あい":
        assert letter * 600 + "…" in html and letter * 601 not in html


def test_is_reproducible_and_needs_nothing_else(report):
    html, _ = report()
    assert html == report()[0]
    assert_stands_alone(html)


def test_without_baselines_and_of_the_sample(report, monkeypatch):
    html, _ = report(with_baselines=False)
    assert "tools/baselines.py" in html and "架空の見本" not in html
    monkeypatch.setattr(ranking_evaluation.evaluating, "is_bundled", lambda task, gold: True)
    assert "同梱の架空の見本データ" in report(with_baselines=False)[0]


def test_what_has_no_order_is_said(report):
    html, _ = report(with_baselines=False)
    assert 'data-left="1"' in html
    gold = report.task.test_path("gold")
    gold.write_text(re.sub(r",[-\d.]+$", ",3", gold.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    html, metrics = report()
    assert 'data-left="40"' in html and "差は示せません" in html and metrics["parts"]["overall"]["equal"] == 39
    assert html.count("ありません。") >= 2, "no examples"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_page_in_a_browser(page, report, tmp_path, width):
    edit(report.task.outputs / "predictions.jsonl", lambda rows: rows[0].update(output=None))
    report()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((tmp_path / "scores" / "report.html").as_uri())
    assert page.inner_text("h1").startswith("大喜利の面白さ 評価レポート")
    assert page.locator("figure svg").count() == 3 and page.locator("figure svg text").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".article").first.is_visible() and page.locator(".notice").count() == 1
    assert page.locator("table.responses").count() == 20

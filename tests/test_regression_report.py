"""The report of a regression: true to metrics.json, escaped, self-contained, and whole in a browser."""

import json
import re
from html.parser import HTMLParser

import pytest

from estimates import TARGETS, add_data, add_recipe, lines
from evaluated import assert_stands_alone
from hostile import EVIL, assert_harmless
from recipekit import baselines, regression_evaluation
from recipekit.baselines import Data
from recipekit.evaluating import Options
from recipekit.inputs import scan
from recipekit.tables import number


class Page(HTMLParser):
    """Tables by their data-scores, data-spread or class: row -> cells; and the tags."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tags, self.row, self.table = {}, set(), None, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        if tag == "table":
            self.table = found.get("data-scores", found.get("data-spread", found.get("class")))
        elif tag == "tr" and "data-row" in found:
            self.row = self.tables.setdefault(self.table, {}).setdefault(found["data-row"], [])
        elif tag in ("td", "th") and self.row is not None:
            self.row.append("")

    def handle_endtag(self, tag):
        if tag == "tr":
            self.row = None

    def handle_data(self, data):
        if self.row:
            self.row[-1] += data


@pytest.fixture
def report(tmp_path):
    """Make the report of the small task; returns a function that gives its HTML and metrics."""
    task = add_recipe(tmp_path)
    add_data(tmp_path)

    def make(with_baselines=True):
        if with_baselines:
            files = baselines.training_files(task)
            rows = {name: baselines.read_rows(task, path) for name, path in files.items()}
            test = [row for _, row in scan(task.test_path("input"))]
            for name, baseline in baselines.OF_KIND["regression"].items():
                values, _ = baseline(Data(task, rows["train"], rows["validation"], test))
                estimates = [dict(zip(TARGETS, row, strict=True)) for row in values.tolist()]
                lines(task.baselines / f"{name}.jsonl",
                      [{"id": row["id"], "output": one} for row, one in zip(test, estimates, strict=True)])  # fmt: skip
        options = Options(task.test_path("gold"), task.test_path("input"), tmp_path / "scores", resamples=100)
        metrics, _ = regression_evaluation.score(task, task.outputs / "predictions.jsonl", options)
        return (tmp_path / "scores" / "report.html").read_text(encoding="utf-8"), metrics

    make.task = task
    return make


def edit(path, change):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(rows)
    lines(path, rows)


def test_tables_say_what_metrics_say(report):
    html, metrics = report()
    page = Page(html)
    scored = {"model": metrics} | metrics["baselines"]
    for who, levels in scored.items():
        for level in ("row", "group"):
            rows = page.tables[f"{who} {level}"]
            assert list(rows) == ["overall", *TARGETS]
            for target, cells in rows.items():
                scores = levels[level][target]
                for cell, metric in zip(cells[1:], ("mae", "mse", "r2", "pearson", "spearman", "bias"), strict=True):
                    value, *bounds = cell.split(" ", 1)
                    assert value == number(scores[metric])
                    if scores[metric] is not None:
                        low, high = scores[f"{metric}_interval"]
                        assert bounds == [f"{number(low)}–{number(high)}"]
    for target, cells in page.tables["differences"].items():
        for place, (name, metric) in enumerate([(n, m) for n in metrics["baselines"] for m in ("mae", "mse")], 1):
            assert cells[place].startswith(
                f"{metrics['baselines'][name]['difference']['group'][target][metric]['difference']:+.3f}"
            )
    for target, cells in page.tables["group"].items():
        found = metrics["spread"]["group"][target]
        assert cells[4] == number(found["predicted_sd"])
        assert cells[5] == number(found["predicted_sd"] / found["gold_sd"])
    verdict = re.search(r'data-verdict="constant".*?</p>', html, re.S)[0]
    assert "モデルのほうがよい" in verdict and "the model beats it" in verdict


def test_verdicts_follow_the_interval(report):
    def swap(rows):
        for row in rows:
            row["output"] = dict.fromkeys(TARGETS, 1.0 if row["id"].endswith(("0", "1", "2")) else 7.0)

    task = report.task
    report()
    edit(task.outputs / "predictions.jsonl", swap)
    verdict = re.search(r'data-verdict="constant".*?</p>', report(with_baselines=False)[0], re.S)[0]
    assert "モデルのほうがよい" not in verdict


def test_texts_are_escaped(report):
    task = report.task
    edit(task.test_path("input"), lambda rows: [row.update(body=f"{EVIL}\x00{row['body']}") for row in rows])
    html, _ = report()
    assert "&lt;script&gt;alert" in html and "\x00" not in html
    assert_harmless(html)


def test_long_texts_are_cut(report):
    edit(report.task.test_path("input"), lambda rows: [row.update(body="あ" * 9000) for row in rows])
    html, _ = report(with_baselines=False)
    assert "あ" * 3000 + "…" in html and "あ" * 3001 not in html


def test_is_reproducible_and_needs_nothing_else(report):
    html, _ = report()
    assert html == report()[0]
    assert_stands_alone(html)


def test_without_baselines_and_of_the_sample(report, monkeypatch):
    html, metrics = report(with_baselines=False)
    assert metrics["baselines"] == {} and "tools/baselines.py" in html and "架空の見本" not in html
    monkeypatch.setattr(regression_evaluation.evaluating, "is_bundled", lambda task, gold: True)
    assert "同梱の架空の見本データ" in report(with_baselines=False)[0]


def test_one_group_and_constant_estimates(report):
    task = report.task
    gold = task.test_path("gold")
    text = re.sub(r",C\d,.*", ",C0,3,4", gold.read_text(encoding="utf-8"))
    gold.write_text(text, encoding="utf-8")
    edit(task.outputs / "predictions.jsonl", lambda rows: [r.update(output=dict.fromkeys(TARGETS, 3)) for r in rows])
    html, metrics = report()
    assert metrics["group"]["overall"]["pearson"] is None and "差は示せません" in html


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_page_in_a_browser(page, report, tmp_path, width):
    edit(report.task.outputs / "predictions.jsonl", lambda rows: rows[0].update(output=None))
    report()
    file = tmp_path / "scores" / "report.html"
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(file.as_uri())
    assert page.inner_text("h1").startswith("性格特性推定 評価レポート")
    assert page.locator("figure svg").count() == 8 and page.locator("figure svg text").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".article").first.is_visible() and page.locator(".notice").count() == 1

"""The report of a chat: true to metrics.json, escaped, self-contained, and whole in a browser."""

import json
import re

import pytest

import talking
from estimates import lines
from evaluated import assert_stands_alone, read_lines
from hostile import EVIL, assert_harmless
from recipekit import chat_evaluation, chat_plots, chat_report, chat_scores
from recipekit.evaluating import Options
from recipekit.tables import number
from test_regression_report import Page


@pytest.fixture
def report(tmp_path):
    """Make the report of the small task; returns a function that gives its HTML and metrics."""
    task = talking.add_recipe(tmp_path)
    talking.add_data(tmp_path, sets=3)
    (task.outputs / "held_out.json").write_text(json.dumps(talking.HELD_OUT), encoding="utf-8")

    def make(change=None, scenes=None):
        if scenes:
            rows = read_lines(task.test_path("input"))
            scenes(rows)
            lines(task.test_path("input"), rows)
        if change:
            rows = read_lines(task.outputs / "predictions.jsonl")
            change(rows)
            lines(task.outputs / "predictions.jsonl", rows)
        options = Options(task.test_path("input"), None, tmp_path / "scores", resamples=100)
        metrics, _ = chat_evaluation.score(task, task.outputs / "predictions.jsonl", options)
        return (tmp_path / "scores" / "report.html").read_text(encoding="utf-8"), metrics

    make.task = task
    return make


def test_every_metric_has_a_name_for_people():
    assert set(chat_report.NAMES) == set(chat_scores.METRICS)


def test_tables_say_what_metrics_say(report):
    html, metrics = report()
    assert_stands_alone(html)
    tables = Page(html).tables
    shown = [name for name, count in metrics["numbers"].items() if count]
    assert sorted(tables["model"]) == sorted(shown)
    for name, cells in tables["model"].items():
        part, metric = name.split(".")
        low, high = metrics[part][f"{metric}_interval"]
        assert cells[1] == str(metrics["numbers"][name])
        assert cells[2] == f"{number(metrics[part][metric])} {number(low)}–{number(high)}"
        if metric in metrics["references"]["scores"].get(part, {}) and cells[3] != "-":
            assert cells[3].startswith(number(metrics["references"]["scores"][part][metric]))
            one = metrics["references"]["difference"][name]
            assert (
                cells[4].startswith(f"{one['difference']:+.3f} {one['low']:+.3f} to")
                and cells[4].endswith("*") == one["real"]
            )
    for name, cells in tables["losses"].items():
        assert cells[1:-1] == [number(talking.HELD_OUT["losses"][model][name]) for model in talking.HELD_OUT["models"]]
    assert tables["losses"]["one_val"][-1] == "+0.250" and tables["preferences"]["dpo"][1:] == ["20", "+0.800", "0.900"]
    for name, own in metrics["attributes"]["fields"].items():
        one = own["effects"]["length"]
        assert f"{number(one['low'])} → {number(one['high'])}" in tables["effects"][name][1]
        assert ("追従する" in tables["effects"][name][0]) == own["obeyed"]
    assert list(tables["phases"]) == ["phase1", "phase2"]


def test_wrong_replies_are_shown_worst_first(report):
    html, metrics = report()
    wrong = html[html.index("Something is wrong") : html.index("Nothing is wrong")]
    found = re.findall(r'data-scene="([^"]+)"', wrong)
    told = [row["id"] for row in read_lines(report.task.root / "scores/errors.jsonl")]
    assert found == told[:40] and found[0].startswith("p") and "役を降りた返信" in wrong
    right = set(re.findall(r'data-scene="([^"]+)"', html)) - set(told)
    assert right and not right & set(told)


def test_texts_are_escaped(report):
    def scenes(rows):
        for row in rows:
            row["messages"] = [{"role": "user", "content": EVIL}]
            row["metadata"]["memories"] = [EVIL]
            row |= {key: EVIL for key in ("reference", "phase") if key in row}
            row |= {"facts": [EVIL]} if "facts" in row else {}

    html, _ = report(lambda rows: [row.update(output=f"{EVIL}{{{{ 7 * 7 }}}}") for row in rows], scenes)
    assert_harmless(html)
    assert "{{ 7 * 7 }}" in html and ">49<" not in html


def test_nothing_to_show(report):
    (report.task.outputs / "held_out.json").unlink()
    lines(report.task.test_path("input"), [talking.scene(f"p{i}", "AIでしょ", "provocation") for i in range(3)])
    html, _ = report(
        lambda rows: rows.__setitem__(slice(None), [{"id": f"p{i}", "output": "違うよ。"} for i in range(3)])
    )
    for words in ("設定を変えた場面がありません", "検証損失はまだありません", "まだありません（tools/questionnaire.py"):
        assert words in html


def test_one_field_alone(report):
    def scenes(rows):
        rows[:] = [row for row in rows if row["metadata"]["relation"] == 2]

    html, metrics = report(
        lambda rows: rows.__setitem__(slice(None), [r for r in rows if r["id"][3:4] in ("", "2")]), scenes
    )
    assert list(metrics["attributes"]["fields"]) == ["mood"] and 'data-row="corners"' not in html


def test_equal_numbers_give_equal_plots():
    held = {**talking.HELD_OUT, "sets": {"$a$": {"phase": "phase1"}, "two_val": {}}}
    assert chat_plots.losses(held) == chat_plots.losses(held) and "$a$" in chat_plots.losses(held)
    cells = {"長さ": [[None, 1.0], [12.0, None]]}
    svg = chat_plots.heat(cells, [("関係", ["低", "高"]), ("機嫌", ["悪", "良"])])
    assert ">12<" in svg and ">1<" in svg and "0 低" in svg
    assert chat_plots.heat({"長さ": [[None]]}, [("関係", ["低"]), ("機嫌", ["悪"])])


@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_browser(report, page, width):
    report()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"file://{report.task.root}/scores/report.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg").count() == 3 and page.locator("details[open]").count() >= 3
    assert page.locator('[data-row="persona.provoked"]').is_visible()

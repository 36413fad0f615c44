import json
import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser

import pytest

from answers import answer, gold, person
from evaluated import assert_stands_alone
from hostile import EVIL, assert_harmless
from recipekit.compare import CLASSES
from recipekit.evaluation import EXAMPLES, GROUPS
from recipekit.gold import GoldRow
from recipekit.task import Task, load_task
from scored import predicted, report_of

HAWKS = load_task("hawks")
KITA = person("北原英俊", age="50", address="佐倉野町2丁目", act="窃盗")
ARTICLE = "北署は50日、佐倉野町2丁目の北原英俊容疑者(50)を佐倉野町で窃盗の疑いで逮捕した。現場は桂市の公園。"


class Page(HTMLParser):
    """The text of a page's tables (table's attribute -> row -> cells) and of what bears data-metric, and its marks."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.metrics, self.marks, self.tags, self.examples = {}, {}, [], Counter(), []
        self.table = self.row = self.metric = self.mark = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags[tag] += 1
        if tag == "table":
            self.table = found.get("data-slice", found.get("class"))
        elif tag == "tr" and "data-row" in found:
            self.row = self.rows.setdefault(self.table, {}).setdefault(found["data-row"], [])
        elif tag in ("td", "th") and self.row is not None:
            self.row.append("")
        elif tag == "mark":
            self.mark = [found["class"], ""]
        elif "data-class" in found:
            self.examples.append((found["data-class"], found["data-field"]))
        if "data-metric" in found:
            self.metric = found["data-metric"]
            self.metrics[self.metric] = ""

    def handle_endtag(self, tag):
        if tag == "tr":
            self.row = None
        elif tag == "mark" and self.mark:
            self.marks.append(tuple(self.mark))
            self.mark = None

    def handle_data(self, data):
        if self.row:
            self.row[-1] += data
        if self.mark:
            self.mark[1] += data
        if self.metric:
            self.metrics[self.metric] += data


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"


def mixed():
    """Every class of error, right articles, negatives with and without a false positive."""
    two = [KITA, person("貝塚尚人", age="64")]
    both = "北原英俊容疑者(50)と貝塚尚人容疑者(64)を逮捕した。佐倉野町2丁目。窃盗。"
    yield gold(KITA, places=["桂市"], police=["北署"], id="A1"), answer(KITA, places=["桂市"], police=["北署"]), ARTICLE
    yield (
        gold(KITA, places=["桂市"], police=["北署"], id="A2"),
        answer(KITA | {"address": "佐倉野町"}, places=["海市"]),
        ARTICLE,
    )
    yield gold(*two, id="A3"), answer(two[0] | {"age": "64"}, two[1] | {"age": "50"}), both
    yield gold(KITA, places=["桂市"], id="A4"), None, ARTICLE
    yield gold(id="A5"), answer(police=["北署"]), ARTICLE
    for i in range(6, 26):
        yield gold(id=f"A{i}"), answer(), f"花火大会{i}。"


def rows(**more):
    return [(right, predicted(right.id, output, **more), article) for right, output, article in mixed()]


def test_tables_say_what_metrics_say():
    html, metrics, errors = report_of(HAWKS, rows(mean_logprob=-0.01, tokens=30))
    page = Page(html)
    named = metrics["fields"] | {"micro": metrics["micro"], "macro": metrics["macro"]}
    named["whole persons"] = metrics["entities"]["person"]
    assert list(page.rows["scores"]) == list(named)
    for name, scores in named.items():
        cells = page.rows["scores"][name]
        for cell, key in zip(cells[1:4], ("f1", "precision", "recall"), strict=True):
            value, *bounds = cell.split(" ", 1)
            assert value == percent(scores[key])
            if scores[key] not in (None, 0, 1):
                low, high = scores[f"{key}_interval"]
                assert bounds == [f"{100 * low:.1f}–{100 * high:.1f}"]
        assert cells[4] == (percent(scores["graded_f1"]) if "graded_f1" in scores else "")
        assert cells[5:] == [str(scores.get(key, "")) for key in ("tp", "fp", "fn")]
    counted = Counter((error["field"], error["class"]) for error in errors)
    assert {name for _, name in counted} == set(CLASSES)
    for column in HAWKS.gold_columns:
        expected = [counted[column, name] for name in CLASSES]
        assert page.rows["errors"][column][1:] == [str(n) for n in [*expected, sum(expected)]]
    assert page.rows["errors"]["all"][-1] == str(len(errors))
    assert set(page.examples) == {(name, column) for column, name in counted}
    shown = {(error["id"], error["field"], error["class"]) for error in errors}
    assert html.count('<div class="example">') == len(shown), "an article once, though it has several such errors"
    for name in ("micro.f1", "entities.person.f1"):
        value = metrics["micro"]["f1"] if name == "micro.f1" else metrics["entities"]["person"]["f1"]
        assert percent(value) in page.metrics[name]
    for name in ("exact_match_rate", "false_positive_rate", "valid_json_rate"):
        assert percent(metrics[name]) in page.metrics[name]
    assert percent(metrics["calibration"]["expected_calibration_error"]) in page.metrics["expected_calibration_error"]
    for row in metrics["calibration"]["coverage"]:
        assert f"{percent(row['share'])} の回答では、{percent(row['right'])} がすべて正しい" in html
    for name, groups in metrics["slices"].items():
        assert list(page.rows[name]) == list(groups)
        for group, scores in groups.items():
            cells = page.rows[name][group]
            assert cells[1:3] == [str(scores["articles"]), str(scores["negatives"])]
            f1 = None if scores["articles"] == scores["negatives"] else scores["micro.f1"]
            assert [cell.split(" ")[0] for cell in (cells[3], cells[5], cells[6])] == [
                percent(value) for value in (f1, scores["exact_match_rate"], scores["false_positive_rate"])
            ]


def test_values_are_marked_where_they_stand():
    html, _, _ = report_of(HAWKS, rows())
    a2 = html[html.index("<strong>A2</strong> — 誤り") :]
    marks = Page(a2[: a2.index("<pre>")]).marks
    assert ("right", "北原英俊") in marks and ("right", "窃盗") in marks
    assert ("missed", "北署") in marks and ("missed", "桂市") in marks
    assert [kind for kind, text in marks if text == "50"] == ["right"], "50日 is no age"
    assert ("missed wrong", "佐倉野町") in marks or ("wrong", "佐倉野町") in marks
    assert "海市" not in [text for _, text in marks]
    assert re.search(r'<td class="predicted">海市 <small class="absent">', a2)
    text = re.sub(r"<[^>]+>", "", re.search(r'<div class="article".*?</div>', a2, re.S)[0])
    assert text == ARTICLE


def test_overlapping_values_leave_the_article_whole():
    article = "佐倉野町佐倉野町2丁目と2丁目で"
    right = gold(places=["佐倉野町2丁目", "野町佐倉"])
    html, _, _ = report_of(HAWKS, [(right, predicted("A", answer(places=["2丁目", "佐倉野町"])), article)])
    for box in re.findall(r'<div class="article".*?</div>', html, re.S):
        assert re.sub(r"<[^>]+>", "", box) == article
    assert {kind for kind, _ in Page(html).marks} >= {"missed", "wrong"}


def test_texts_are_escaped_and_written_whatever_they_hold():
    strange = f"{EVIL}\x00\x0b\x1b\x9f\ud800\ufffe\r\n終"
    right = gold(person(f"北原{EVIL}", address=strange), places=[EVIL], id=f"A{EVIL}")
    output = answer(person(EVIL, act=EVIL), police=[EVIL])
    data = {"predictions": EVIL, "gold": EVIL, "gold_sha256": EVIL, "bundled_sample": True}
    row = {"id": right.id, "output": output, "raw": strange, "windows": EVIL}
    html, _, errors = report_of(HAWKS, [(right, row, f"北原{EVIL}{strange}")], data=data)
    page = Page(html)
    assert errors and "script" not in page.tags
    assert_harmless(html)
    assert "同梱の架空の見本データ" in html
    assert "終" in html.encode("utf-8").decode()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", html)


def test_is_reproducible_and_needs_nothing_else():
    html, _, _ = report_of(HAWKS, rows(mean_logprob=-0.01, tokens=30))
    assert html == report_of(HAWKS, rows(mean_logprob=-0.01, tokens=30))[0]
    assert_stands_alone(html)
    assert set(re.findall(r'href="([^#"][^"]*)"', html)) <= {"data:,"}


def test_without_articles_and_probabilities():
    html, metrics, _ = report_of(HAWKS, [(right, row, None) for right, row, _ in rows()])
    assert metrics["calibration"] is None and "--articles" in html and "予測に確率" in html
    assert not [mark for mark in Page(html).marks if mark[1] == "北署"]


@pytest.mark.parametrize("output", [answer(), None])
def test_with_nothing_to_score(output):
    html, metrics, errors = report_of(HAWKS, [(gold(), {"id": "A", "output": output}, "花火大会。")])
    page = Page(html)
    assert metrics["micro"]["f1"] is None and [error["class"] for error in errors] == ([] if output else ["format"])
    assert page.rows["scores"]["micro"][1] == "-" and "誤りはありません" in html
    assert "100.0%" in page.metrics["valid_json_rate"] if output else "0.0%" in page.metrics["valid_json_rate"]


def test_with_no_negatives_and_all_invalid():
    right = gold(KITA, places=["桂市"])
    html, metrics, _ = report_of(HAWKS, [(right, {"id": "A", "output": None, "raw": "{"}, ARTICLE)])
    assert metrics["false_positive_rate"] is None
    assert "形式不正" in html and "スキーマに合わない" in html and "<pre>{</pre>" in html


def test_rates_of_none_and_all_say_what_they_still_allow():
    right = [(gold(id=f"N{i}"), predicted(f"N{i}", answer()), "花火。") for i in range(59)]
    right += [(gold(KITA, id="P"), predicted("P", answer(KITA)), ARTICLE)]
    page = Page(html := report_of(HAWKS, right)[0])
    assert "≤ 5.0" in page.metrics["false_positive_rate"]  # the rule of three: 0 of 59 allows 5%
    assert "≥ 95.1" in page.metrics["valid_json_rate"] and "≥ 95.1" in page.metrics["exact_match_rate"]
    assert "およそ 5.0% 以下" in html


def test_only_the_largest_groups_are_shown():
    many = [
        (gold(person("北原英俊", act=f"罪{i % 30:02}"), id=f"A{i}"), predicted(f"A{i}", answer()), None)
        for i in range(40)
    ]
    page = Page(html := report_of(HAWKS, many)[0])
    assert len(page.rows["law"]) == 20 < GROUPS
    assert set(page.rows["law"]) >= {f"罪{i:02}" for i in range(10)}, "those with two articles"
    assert "ほか 10 グループ" in html


def test_names_what_to_look_at_first():
    bad = [(gold(KITA, id=f"B{i}"), predicted(f"B{i}", answer(KITA | {"act": "強盗"})), ARTICLE) for i in range(6)]
    good = [(gold(KITA | {"act": "放火"}, id=f"G{i}"), predicted(f"G{i}", answer(KITA | {"act": "放火"})), None)
            for i in range(30)]  # fmt: skip
    html, _, _ = report_of(HAWKS, bad + good)
    first = html[html.index("まず見るところ") : html.index('id="fields"')]
    assert (
        "F1 が最も低い項目: <strong>person_violated_law" in first
        and "記事にない値" in first
        and "窃盗" in first
        and "放火" not in first
    )
    assert html.count('<div class="example">') == EXAMPLES
    assert "まず見るところ" not in report_of(HAWKS, good)[0]


def other(columns, entities, schema):
    gold = {"id": "id", "separator": "|", "columns": columns, "entities": entities}
    return Task(HAWKS.spec | {"gold": gold, "output_schema": schema}, HAWKS.dir, HAWKS.root)


def test_columns_have_their_titles():
    named = {"件": {"title": "<項目>", "path": "items", "compare": "text"}}
    row = (GoldRow("A", 1, {}, {"件": ["りんご"]}), {"id": "A", "output": {}}, "りんご")
    html, _, _ = report_of(other(named, {}, {"type": "object"}), [row])
    assert "<th>件 <small>&lt;項目&gt;</small></th>" in html


def test_other_tasks():
    flat = other({"商品 $x$": {"path": "items", "compare": "text"}}, {}, {"type": "object"})
    html, _, _ = report_of(flat, [(GoldRow("A", 1, {}, {"商品 $x$": ["りんご"]}), {"id": "A", "output": {}}, "りんご")])
    assert (
        "whole" not in "".join(Page(html).rows["scores"])
        and ("missed", "りんご") in Page(html).marks
        and "商品 $x$</text>" in html
    )
    columns = {
        "buyer": {"entity": "buyer", "path": "name", "compare": "text"},
        "seller": {"entity": "seller", "path": "name", "compare": "text"},
    }
    entities = {"buyer": {"path": "buyers", "key": "buyer"}, "seller": {"path": "sellers", "key": "seller"}}
    row = GoldRow("A", 1, {"buyer": [{"buyer": "桂商店"}], "seller": [{"seller": "海商店"}]}, {})
    output = {"buyers": [{"name": "桂商店"}], "sellers": [{"name": "山商店"}]}
    task = other(columns, entities, {"type": "object"})
    html, _, _ = report_of(task, [(row, {"id": "A", "output": output}, None)])
    assert {"whole buyers", "whole sellers"} <= set(Page(html).rows["scores"])
    assert json.dumps(output, ensure_ascii=False, indent=2) in unescape(html) and "number of buyers" in html


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_page_in_a_browser(page, tmp_path, width):
    file = tmp_path / "report.html"
    long = rows(mean_logprob=-0.01, tokens=30) + [
        (gold(KITA, id="長" * 80), predicted("長" * 80, {"x": "a" * 500}), "あ" * 3000)
    ]
    file.write_text(report_of(HAWKS, long)[0], encoding="utf-8")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(file.as_uri())
    assert asked == [file.as_uri()], "one file and nothing else"
    assert page.inner_text("h1").startswith("日本語犯罪情報抽出 評価レポート")
    assert page.locator("figure svg").count() == 3 and page.locator("figure svg text").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    shown = "mark => getComputedStyle(mark).backgroundColor"
    colours = {page.locator(f".article mark.{kind}").first.evaluate(shown) for kind in ("right", "missed")}
    assert len(colours - {"rgba(0, 0, 0, 0)"}) == 2 and page.locator(".article mark.wrong").count()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".article", has_text="あ" * 100).first
    assert box.evaluate("box => box.scrollHeight > box.clientHeight"), "a long article scrolls in its box"

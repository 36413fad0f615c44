import json
import re
from html import unescape

import pytest

from hostile import EVIL, assert_harmless
from recipekit.answer_view import COLOURS, answer_html, answer_text, columns
from recipekit.extract import predicted_values
from recipekit.task import load_task


@pytest.fixture
def hawks():
    return load_task("hawks")


def row(output, **more):
    raw = "{" if output is None else json.dumps(output, ensure_ascii=False)
    return {"output": output, "raw": raw, "truncated": False, "seconds": 1.234, **more}


def answer(**person):
    usual = {"is_real": True, "is_offender": True, "category": "過失"}
    texts = dict.fromkeys(("name", "age", "position", "affiliation", "address", "act"), "")
    return {"persons": [texts | usual | person], "occured_locations": [], "police_departments": []}


def notices(html):
    return re.findall(r'data-notice="(\w+)"', html)


def shown_article(html):
    inside = html.split('<div class="article" lang="ja">')[1].split("</div>")[0]
    return re.sub(r"<rt>.*?</rt>", "", inside)


def marks(html):
    """Return (text, names of columns) of every marked piece."""
    found = re.findall(r"<mark[^>]*>(.*?)</mark>", html)
    return [
        (re.sub(r"<rt>.*?</rt>|<[^>]*>", "", one), re.search(r"<rt>(.*?)</rt>", one).group(1).split("／"))
        for one in found
    ]


def test_values_are_marked_with_the_names_of_their_columns(hawks):
    article = "山田町1丁目、海野太郎容疑者(37)を逮捕。37件目。"
    output = answer(name="海野太郎", age="37", address="山田町1丁目") | {"occured_locations": ["山田町"]}
    html = answer_html(hawks, article, row(output))
    assert marks(html) == [
        ("山田町", ["住所", "発生場所"]), ("1丁目", ["住所"]), ("海野太郎", ["氏名"]),
        ("37", ["年齢"]), ("37", ["年齢"]),
    ]  # fmt: skip
    assert re.sub(r"<[^>]*>", "", shown_article(html)) == article
    assert not notices(html) and "1.23秒" in html
    both = re.findall(r"<mark style=\"background:(.*?)\" title=\"person address, occured locations\">", html)
    shown = columns(hawks)
    address, place = shown["person_address"].colour, shown["occured_locations"].colour
    assert both == [f"linear-gradient({address} 0% 50%, {place} 50% 100%)"]


def test_every_column_has_a_colour_and_every_one_of_hawks_a_title(hawks):
    shown = columns(hawks)
    assert list(shown) == list(hawks.spec["gold"]["columns"])
    assert all(column.title for column in shown.values())
    assert len({column.colour for column in shown.values()}) == len(shown)
    luminances = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5))) for c in COLOURS]
    assert min(luminances) > 180, "black text would be hard to read"


def test_a_task_without_titles_is_shown_with_its_columns_names(mini):
    html = answer_html(load_task("mini", mini), "海野太郎。", row({"persons": [{"name": "海野太郎"}]}))
    assert marks(html) == [("海野太郎", ["person name"])]


def test_what_stands_nowhere_is_warned_of(hawks):
    html = answer_html(hawks, "海野太郎容疑者。", row(answer(name="海野太郎", position="<b>会社員</b>")))
    assert notices(html) == ["absent"]
    assert "&lt;b&gt;会社員&lt;/b&gt;" in html and "<b>" not in html
    assert marks(html) == [("海野太郎", ["氏名"])]


def test_an_article_is_never_html(hawks):
    article = '<script>alert(1)</script>海野太郎<img src="x">&amp;'
    html = answer_html(hawks, article, row(answer(name="海野太郎<img")))
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;" in html and "&amp;amp;" in html
    assert_harmless(answer_html(hawks, f"{EVIL}海野太郎", row(answer(name=EVIL))))


@pytest.mark.parametrize(
    ("output", "more", "expected"),
    [
        (None, {"truncated": True}, ["truncated"]),
        (None, {}, ["invalid"]),
        ({"persons": [], "occured_locations": [], "police_departments": []}, {}, ["nothing"]),
        (answer(name="海野太郎", is_offender=False), {"windows": 3}, ["nothing", "windows"]),
        (answer(name="海野太郎"), {"windows": 3}, ["windows"]),
        (answer(name="海野太郎"), {"windows": 1}, []),
        (answer(name="海野太郎"), {"truncated": True, "windows": 2}, ["truncated", "windows"]),
    ],
)
def test_what_there_is_to_say_about_an_answer(hawks, output, more, expected):
    html = answer_html(hawks, "海野太郎。", row(output, **more))
    assert notices(html) == expected
    assert ("3個に分けて" in html) == (more.get("windows") == 3)
    assert ("<dl" in html) == (output is not None)


def test_json_is_the_answer_or_what_was_written():
    assert json.loads(answer_text(row({"名": "海野"}))) == {"名": "海野"} and "海野" in answer_text(row({"名": "海野"}))
    assert answer_text({"output": None, "raw": '{"名'}) == '{"名'


def test_every_bundled_answer_is_shown_whole(hawks):
    for line in (hawks.root / "data/samples/hawks/hawks_val.jsonl").read_text(encoding="utf-8").splitlines()[:60]:
        sample = json.loads(line)
        html = answer_html(hawks, sample["body"], row(sample["label"]))
        values = predicted_values(hawks, sample["label"])
        assert notices(html) == ([] if any(values.values()) else ["nothing"])
        assert unescape(re.sub(r"<[^>]*>", "", shown_article(html))) == sample["body"]
        covered = {name for _, names in marks(html) for name in names}
        assert covered == {columns(hawks)[name].title for name, found in values.items() if found}

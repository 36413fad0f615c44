import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipekit.spans import Mark, contains, cut, find, locate

TRICKY = "山田太郎海野株㈱(株)（）½1２３ １/⁄カｶﾞガ゙が\u3099\u309a\u0301\u0327aé\u1100\u1161\u11a8\u00a8\u3000 \nｱﾊﾟ㍿①"
tricky = st.text(TRICKY, max_size=40) | st.text(max_size=20)


def fold(text):
    return "".join(unicodedata.normalize("NFKC", text).split())


@pytest.mark.parametrize(
    ("article", "value", "found"),
    [
        ("海野太郎容疑者と海野太郎", "海野太郎", ["海野太郎", "海野太郎"]),
        ("㈱みなとの社員", "(株)みなと", ["㈱みなと"]),
        ("（株）み な　と\nの", "㈱みなと", ["（株）み な　と"]),
        ("ﾊﾟﾝ店とパン店", "パン店", ["パン店"]),
        ("ﾊﾟﾝ店", "パン店", ["ﾊﾟﾝ店"]),
        ("ハ\u309aン店", "パン店", ["ハ\u309aン店"]),
        ("が", "か", []),
        ("か\u3099", "が", ["か\u3099"]),
        ("a\u0327\u0301", "\u00e1", []),
        ("a\u0327\u0301", "\u00e1\u0327", ["a\u0327\u0301"]),
        ("㎡２２", "2 2", ["２２"]),
        ("\u1112\u1161\u11ab", "한", ["\u1112\u1161\u11ab"]),
        ("㈱みなと", "株", []),
        ("水½杯", "1⁄2", ["½"]),
        ("水1½杯", "1", ["1"]),
        ("２３歳", "23", ["２３"]),
        ("aaa", "aa", ["aa"]),
        ("ａａａａa", "ａ ａ", ["ａａ", "ａａ"]),
        ("山田", "", []),
        ("山 田", " \u3000\n", []),
        ("", "山田", []),
    ],
)
def test_values_are_found_as_written_or_in_another_width(article, value, found):
    assert [article[start:end] for start, end in find(article, value)] == found
    assert contains(article, value) == bool(found)


@given(tricky, tricky)
def test_every_span_is_the_value(article, value):
    spans = find(article, value)
    assert all(fold(article[start:end]) == fold(value) for start, end in spans)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert contains(article, value) == bool(spans)


@given(st.data(), tricky.filter(lambda text: fold(text)))
def test_every_part_of_an_article_is_found(data, article):
    start = data.draw(st.integers(0, len(article) - 1))
    end = data.draw(st.integers(start + 1, len(article)))
    value = article[start:end]
    spans = find(article, value)
    assert bool(spans) == bool(fold(value))
    if spans:
        assert any(max(a, start) < min(b, end) for a, b in spans), "the place it was taken from is not touched"


# Cut between characters that NFKC joins, a part of an article is another text.
APART = ["㈱", "½", "１", "ｶﾞ", "か\u3099", "パ", "é", "e\u0301", "山", "①", "㍿", " ", "\u1112\u1161\u11ab"]
apart = st.lists(st.sampled_from(APART), min_size=1)


@given(st.data(), apart)
def test_every_part_is_found_however_it_is_written(data, characters):
    start = data.draw(st.integers(0, len(characters) - 1))
    end = data.draw(st.integers(start + 1, len(characters)))
    article = "".join(characters)
    part = fold("".join(characters[start:end]))
    assert not part or any(fold(article[a:b]) == part for a, b in find(article, part[0] + " " + part[1:]))


@given(tricky, st.data())
def test_pieces_are_the_article_with_the_labels_that_cover_them(article, data):
    places = st.integers(0, len(article))
    marks = data.draw(st.lists(st.builds(Mark, places, places, st.sampled_from("ABC"))))
    pieces = cut(article, marks)
    assert "".join(text for text, _ in pieces) == article
    assert all(text for text, _ in pieces)
    labels = [set(labels) for text, labels in pieces for _ in text]
    assert labels == [{m.label for m in marks if m.start <= i < m.end} for i in range(len(article))]
    assert all(len(labels) == len(set(labels)) for _, labels in pieces)


def test_values_of_an_answer_are_marked_and_the_others_named():
    article = "３７件目。海野太郎(37)、137番"
    marks, absent = locate(article, {"name": ["海野太郎", "海野太郎", "山田"], "age": ["37", "3"], "place": []})
    assert marks == [Mark(5, 9, "name"), Mark(10, 12, "age"), Mark(10, 11, "age"), Mark(15, 16, "age")]
    assert absent == [("name", "山田")]
    assert locate("3台で37", {"age": ["3"]}) == ([Mark(0, 1, "age")], [])
    assert locate("", {"age": ["3"]}) == ([], [("age", "3")])


def test_a_value_inside_a_longer_one_is_marked_where_it_stands_alone():
    article = "山田町1丁目の男を山田町で"
    values = {"address": ["山田町1丁目"], "place": ["山田町"]}
    assert locate(article, values)[0] == [Mark(0, 6, "address"), Mark(9, 12, "place")]
    assert locate("山田町、" + article, values)[0] == [
        Mark(4, 10, "address"),
        Mark(0, 3, "place"),
        Mark(13, 16, "place"),
    ]
    assert locate(article[:8], values)[0] == [Mark(0, 6, "address"), Mark(0, 3, "place")]
    assert locate("山田町で", {"address": ["山田町"], "place": ["山田町"]})[0] == [
        Mark(0, 3, "address"),
        Mark(0, 3, "place"),
    ]

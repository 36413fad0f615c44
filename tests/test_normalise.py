"""Normal forms: the examples of docs/evaluation_rules.md hold, and what must hold for any value does."""

import datetime
import json
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from japanera import EraDate
from kanjize import number2kanji

from recipekit import ROOT, normal_law
from recipekit.errors import UserError
from recipekit.normal_text import NEW_FORMS, plain
from recipekit.normalise import KINDS, Form, agree

RULES = (ROOT / "docs" / "evaluation_rules.md").read_text(encoding="utf-8")
ROWS = [
    line.strip("| ").split(" | ") for line in RULES.splitlines() if line.startswith(tuple(f"| {k} |" for k in KINDS))
]
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
NARROW = {wide: narrow for narrow, wide in WIDE.items()}
FREE = st.text(alphabet=st.characters())  # any character, surrogates too
JAPANESE = st.text(
    alphabet='甲野一二三四五十百千万億〇元年月日歳才代満約令和平成0123456789０１,.．-ー−〜(（)）「」『』"・ 　'
    "ヶケがのノ之"
    "市町村郡字大都道府県東京警察署本部第課捜査丁目番地号室〒株式会社㈱㈲有限法人違反罪容疑い未遂道交詐欺者さん君被告"
    "龍澤髙Aaレ\u200b゛ﾞ"
)
WORDS = (
    "甲 一 3 二十 － ー の 東京都 長野県 北浜市 赤穂郡 上郡町 大字 字 丁目 番地 号 県警 警視庁 本部 北署 警察署 第 課 "
    "㈱ (株) 株式会社 有限会社 Inc. 道交法 違反 (未遂) （所持） 罪 の疑い 容疑 容疑者 元 被告 (45) 社長 令和 6年 "
    "5月 1日 元年 約 万 人 歳 代 生後 カ月 「 」 日本 〒123-4567 ヶ 谷 ・"
)
CHUNKS = st.lists(st.sampled_from(WORDS.split()), max_size=6).map("".join)
VALUES = FREE | JAPANESE | CHUNKS
each_kind = pytest.mark.parametrize("kind", KINDS)


def pairs(row, sign):
    return re.findall(rf"`([^`]+)` {sign} (?=`([^`]+)`)", " ".join(row))


SAME = [(row[0], a, b) for row in ROWS for a, b in pairs(row, "=")]
DIFFERENT = [(row[0], a, b) for row in ROWS for a, b in pairs(row, "≠")]


@pytest.mark.parametrize(("kind", "a", "b"), SAME)
def test_same(kind, a, b):
    assert agree(KINDS[kind](a), KINDS[kind](b))


@pytest.mark.parametrize(("kind", "a", "b"), DIFFERENT)
def test_different(kind, a, b):
    assert not agree(KINDS[kind](a), KINDS[kind](b))


def test_every_row_of_the_rules_has_examples():
    assert {row[0] for row in ROWS} == set(KINDS)
    for row in ROWS:
        assert len(row) == 4, row
        assert pairs(row, "=") and pairs(row, "≠"), row[1]
        assert not pairs([row[2]], "≠") and not pairs([row[3]], "="), row[1]
        assert len(pairs(row, "[=≠]")) == (row[2] + row[3]).count("` = `") + row[3].count("` ≠ `"), row[1]


def test_rules_name_what_the_table_of_old_forms_leaves_out():
    left_out = re.findall(r"(\S)/(\S)", RULES.split("## Old forms of kanji")[1])
    assert len(left_out) == 17
    assert not [pair for pair in left_out if ord(pair[0]) in NEW_FORMS]


def test_new_forms_are_single_and_final():
    assert len(NEW_FORMS) > 350
    for old, new in NEW_FORMS.items():
        assert len(new) == 1 and ord(new) not in NEW_FORMS, chr(old)


def test_every_compare_kind_of_the_schema_is_there():
    schema = json.loads((ROOT / "recipes" / "task.schema.json").read_text(encoding="utf-8"))
    columns = schema["properties"]["gold"]["properties"]["columns"]["additionalProperties"]["properties"]
    assert set(columns["compare"]["enum"]) == set(KINDS)


@each_kind
@given(value=VALUES)
@example("\u200b")
@example("「」")
@example("𝟙" * 5000)
@example("9" * 5000)
@example("(株)")
@example("の疑い")
def test_a_value_never_becomes_empty_and_nothing_raises(kind, value):
    form = KINDS[kind](value)
    assert isinstance(form, Form)
    assert bool(form.key) == bool(value.strip())


@each_kind
@given(a=VALUES, b=VALUES)
def test_agree_is_reflexive_and_symmetric(kind, a, b):
    first, second = KINDS[kind](a), KINDS[kind](b)
    assert agree(first, first)
    assert agree(first, second) == agree(second, first)
    assert not agree(first, second) or first.key == second.key


@each_kind
@given(value=JAPANESE | CHUNKS)
def test_widths_do_not_matter(kind, value):
    forms = {KINDS[kind](value.translate(table)) for table in ({}, WIDE, NARROW)}
    assert len(forms) == 1


@each_kind
@given(value=VALUES)
def test_unicode_normal_forms_do_not_matter(kind, value):
    assert KINDS[kind](unicodedata.normalize("NFD", value)) == KINDS[kind](unicodedata.normalize("NFC", value))


@pytest.mark.parametrize("kind", ["text", "number", "age", "date"])
@given(value=VALUES)
@example("か゛")
@example("1ーー")
def test_a_key_is_its_own_key(kind, value):
    key = KINDS[kind](value).key
    assert KINDS[kind](key).key == key


@given(n=st.integers(0, 99_999_999))
def test_numbers_in_kanji_are_read(n):
    assert KINDS["number"](number2kanji(n)) == KINDS["number"](f"{n:,}") == Form(str(n))


@given(day=st.dates(min_value=datetime.date(1873, 1, 1), max_value=datetime.date(2100, 1, 1)))
def test_every_day_of_an_era_is_read(day):
    era = EraDate.from_date(day).era
    year = day.year - era.since.year + 1
    for written in (
        f"{era.kanji}{year}年{day.month}月{day.day}日",
        f"{era.english_head}{year}.{day.month}.{day.day}",
        f"{day:%Y/%m/%d}",
    ):
        assert KINDS["date"](written) == Form(day.isoformat())


def test_details_agree_only_with_themselves_and_nothing():
    a, b, none = Form("k", "a"), Form("k", "b"), Form("k")
    assert agree(a, a) and agree(a, none) and agree(none, b) and not agree(a, b) and not agree(a, Form("l", "a"))


def test_laws_file_is_sound():
    known, spellings = normal_law.read_laws(normal_law.LAWS)
    assert len(known) > 130 and spellings["ほう助"] == "幇助"
    for name, counts in known.items():
        assert plain(name) == name and known[counts] == counts
        assert KINDS["law"](name) == KINDS["law"](counts)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("laws: {甲法: [甲], 乙法: [甲]}\ncrimes: {}\nspellings: {}", ["yml:1: '甲' stands twice (first at"]),
        (
            "laws:\n  甲法: [乙]\n  乙: []\ncrimes: {乙: []}\nspellings: {}",
            ["yml:3: '乙' stands", "yml:4: '乙' stands"],
        ),
        (
            "laws:\n  甲法: 甲\ncrimes: {}\nspellings: {}",
            ["yml:2: laws.甲法: expected a list of names in [ ], found '甲'"],
        ),
        ("laws:\n  甲法: [1]\ncrimes: {}\nspellings: {}", ["yml:2: laws.甲法: expected a list"]),
        ("laws: {}\ncrimes: {}\nspelling: {}", ["yml:1: spellings: expected", "yml:3: spelling: expected"]),
        ("laws: []\ncrimes: {}\nspellings: {}", ["yml:1: laws: expected"]),
        ("laws: {甲: [], 甲: []}\ncrimes: {}\nspellings: {}", ["key '甲' stands twice"]),
    ],
)
def test_bad_laws_file(tmp_path, content, expected):
    path = tmp_path / "laws.yml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        normal_law.read_laws(path)
    assert len(caught.value.problems) == len(expected)
    for problem, part in zip(sorted(caught.value.problems), expected, strict=True):
        assert part in problem

"""The gold CSV: what a row means, and what is refused."""

import pytest

from recipekit.errors import UserError
from recipekit.gold import GoldFile
from recipekit.task import load_task

HEADER = (
    "quality_test_id,person_name,person_age_at_published,person_address,person_belongs_company,person_position_name,"
    "person_violated_law,occured_locations,police_departments"
)


@pytest.fixture
def task():
    return load_task("hawks")


def read(task, tmp_path, *lines, encoding="utf-8", newline="\n"):
    path = tmp_path / "gold.csv"
    path.write_bytes(newline.join([HEADER, *lines]).encode(encoding))
    file = GoldFile(task, path)
    return {row.id: row for row in file}, file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_short_rows_empty_lines_and_quotes(task, tmp_path, encoding, newline):
    lines = ["LVP0359,,,,,,", "", 'B2, 甲野一郎|乙野二郎 ,32|,"北浜市,中央"', ",,,,,,,,", "C3"]
    rows, file = read(task, tmp_path, *lines, encoding=encoding, newline=newline)
    assert list(rows) == ["LVP0359", "B2", "C3"] and [row.line for row in rows.values()] == [2, 4, 6]
    assert rows["LVP0359"].is_negative() and rows["C3"].is_negative() and not rows["B2"].is_negative()
    assert rows["B2"].entities["person"] == [
        {"person_name": "甲野一郎", "person_age_at_published": "32", "person_address": "北浜市,中央"},
        {"person_name": "乙野二郎"},
    ]
    assert file.rows == 3


def test_the_nth_value_belongs_to_the_nth_person(task, tmp_path):
    rows, file = read(task, tmp_path, "A,甲野|乙野|丙野,|45|,,みなと企画||,,窃盗,北浜市|南野町|,北署")
    assert rows["A"].entities["person"] == [
        {"person_name": "甲野", "person_belongs_company": "みなと企画", "person_violated_law": "窃盗"},
        {"person_name": "乙野", "person_age_at_published": "45"},
        {"person_name": "丙野"},
    ]
    assert rows["A"].sets == {"occured_locations": ["北浜市", "南野町"], "police_departments": ["北署"]}
    assert file.padded == 1 and file.first_padded.endswith("gold.csv:2: person_violated_law has 1 of 3")


def test_a_person_without_a_name_is_one(task, tmp_path):
    rows, _ = read(task, tmp_path, "A,,32|45", "B,|甲野,|")
    assert rows["A"].entities["person"] == [{"person_age_at_published": "32"}, {"person_age_at_published": "45"}]
    assert rows["B"].entities["person"] == [{"person_name": "甲野"}]


def test_one_row_a_person(task, tmp_path):
    task.spec["gold"]["one_row_per"] = "person"
    lines = ["A,甲野,32,,,,,北浜市,北署", "A,乙|野,45,,,,,北浜市|南野町,北署", "B", "C,,,,,,,西原村,"]
    rows, _ = read(task, tmp_path, *lines)
    assert list(rows) == ["A", "B", "C"] and rows["B"].is_negative()
    ages = [(each["person_name"], each["person_age_at_published"]) for each in rows["A"].entities["person"]]
    assert ages == [("甲野", "32"), ("乙|野", "45")]
    assert rows["A"].sets == {"occured_locations": ["北浜市", "南野町"], "police_departments": ["北署"]}
    assert rows["C"].entities["person"] == []
    with pytest.raises(UserError, match="csv:4: id 'A' stands on line 2 already; put the rows of an article one after"):
        read(task, tmp_path, "A,甲野", "B", "A,乙野")


TOO_LONG_TWICE_NAMELESS = f"{HEADER}\nA1\nA2,,,,,,,,,x\nA1\n,甲野"
NAMED_TWICE = HEADER.replace("person_address", "person_name")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ["gold.csv: No such file"]),
        ("", ["gold.csv: the file is empty"]),
        (HEADER, ["gold.csv:1: a header and no rows"]),
        (HEADER.replace("person_address,", "") + "\nA1", ["gold.csv:1: column 'person_address' is missing"]),
        (NAMED_TWICE, ["'person_address' is missing", "'person_name' stands twice"]),
        (TOO_LONG_TWICE_NAMELESS, ["csv:3: 10 cells", "csv:4: id 'A1' stands on line 2", "csv:5: no quality_test_id"]),
        (f'{HEADER}\nA1,"甲野\nA2\nA3\n', ["gold.csv:2: not valid CSV"]),
        (f"{HEADER}\nA1,甲野".encode("cp932"), ["gold.csv:2: not UTF-8"]),
    ],
)
def test_bad_gold(task, tmp_path, content, expected):
    path = tmp_path / "gold.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        list(GoldFile(task, path))
    assert len(caught.value.problems) == len(expected)
    for problem, part in zip(caught.value.problems, expected, strict=True):
        assert part in problem and "\n" not in problem

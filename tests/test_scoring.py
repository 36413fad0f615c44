"""The gold CSV and the counting of right, spurious and missed values."""

import pytest

from recipekit import scoring
from recipekit.errors import UserError
from recipekit.gold import read_gold
from recipekit.task import load_task

HEADER = (
    "quality_test_id,person_name,person_age_at_published,person_address,person_belongs_company,person_position_name,"
    "person_violated_law,occured_locations,police_departments"
)
COLUMNS = HEADER.split(",")[1:]


@pytest.fixture(scope="module")
def task():
    return load_task("hawks")


def person(name: str, **values) -> dict:
    keys = ("age", "position", "affiliation", "address")
    return {
        "name": name,
        "is_real": True,
        "is_offender": True,
        **dict.fromkeys(keys, ""),
        "category": "法令違反",
        "act": "",
    } | values


def answer(*persons: dict, places=(), police=()) -> dict:
    return {"persons": list(persons), "occured_locations": list(places), "police_departments": list(police)}


def gold(**values: list[str]) -> dict:
    return dict.fromkeys(COLUMNS, ()) | values


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_gold_with_short_rows(task, tmp_path, encoding, newline):
    path = tmp_path / "gold.csv"
    rows = [HEADER, "LVP0359,,,,,,", "", 'B2, 甲野一郎|乙野二郎 ,32|,"北浜市,中央"', ",,,,,,,,", "C3"]
    path.write_bytes(newline.join(rows).encode(encoding))
    read = read_gold(task, path)
    assert list(read) == ["LVP0359", "B2", "C3"]
    assert not any(read["LVP0359"].values.values()) and set(read["LVP0359"].values) == set(COLUMNS)
    assert read["B2"].values["person_name"] == ["甲野一郎", "乙野二郎"]
    assert read["B2"].values["person_age_at_published"] == ["32"]
    assert read["B2"].values["person_address"] == ["北浜市,中央"]
    assert [row.line for row in read.values()] == [2, 4, 6]


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
        read_gold(task, path)
    assert len(caught.value.problems) == len(expected)
    for problem, part in zip(caught.value.problems, expected, strict=True):
        assert part in problem and "\n" not in problem


def test_only_real_offenders_count(task):
    cleared, fictional = person("丙野", is_offender=False), person("丁野", is_real=False)
    found = scoring.predicted_values(task, answer(person("甲野", age="32"), cleared, fictional, places=["北浜市"]))
    assert found["person_name"] == ["甲野"] and found["person_age_at_published"] == ["32"]
    assert found["occured_locations"] == ["北浜市"] and found["person_address"] == []
    assert not any(scoring.predicted_values(task, None).values())


def test_values_are_multisets(task):
    differences = scoring.compare_article(
        task,
        gold(person_violated_law=["窃盗", "窃盗", "詐欺"]),
        gold(person_violated_law=["窃盗", "詐欺", "詐欺", "傷害"]),
    )
    assert differences["person_violated_law"] == (["窃盗"], ["詐欺", "傷害"])


def test_perfect(task):
    rows = {"A": gold(person_name=["甲野一郎"], police_departments=["北署"]), "B": gold()}
    metrics, errors = scoring.score(task, rows, {"A": answer(person("甲野一郎容疑者"), police=["北署"]), "B": answer()})
    assert errors == []
    assert metrics["micro"] == {"precision": 1, "recall": 1, "f1": 1, "tp": 2, "fp": 0, "fn": 0}
    assert metrics["macro"]["f1"] == 1
    assert (metrics["false_positive_rate"], metrics["valid_json_rate"], metrics["exact_match_rate"]) == (0, 1, 1)


def test_scores_by_hand(task):
    rows = {
        "A": gold(person_name=["甲野一郎", "乙野二郎"], person_age_at_published=["32"], occured_locations=["北浜市"]),
        "B": gold(person_name=["丙野三郎"]),
        "C": gold(),
        "D": gold(),
    }
    outputs = {
        "A": answer(person("甲野一郎", age="32"), person("戊野五郎"), places=["北浜市"]),
        "B": None,
        "C": answer(police=["北署"]),
        "D": answer(person("無罪", is_offender=False)),
    }
    metrics, errors = scoring.score(task, rows, outputs)
    name = metrics["fields"]["person_name"]
    assert (name["tp"], name["fp"], name["fn"]) == (1, 1, 2)
    assert (name["precision"], name["recall"], name["f1"]) == (1 / 2, 1 / 3, pytest.approx(2 / 5))
    micro = metrics["micro"]
    assert (micro["tp"], micro["fp"], micro["fn"]) == (3, 2, 2)
    assert micro["f1"] == pytest.approx(3 / 5)
    assert metrics["fields"]["person_address"]["f1"] is None
    assert metrics["fields"]["police_departments"] == {"precision": 0, "recall": 0, "f1": 0, "tp": 0, "fp": 1, "fn": 0}
    assert metrics["macro"]["f1"] == pytest.approx((0.4 + 1 + 1 + 0) / 4)
    assert (metrics["articles"], metrics["negatives"], metrics["false_positives"]) == (4, 2, 1)
    assert (metrics["false_positive_rate"], metrics["valid_json_rate"], metrics["exact_match_rate"]) == (
        0.5,
        0.75,
        0.25,
    )
    assert {"id": "B", "field": "person_name", "missed": ["丙野三郎"], "spurious": [], "valid": False} in errors
    assert len(errors) == 3


def test_answer_outside_the_schema_counts_as_empty(task):
    output = answer(person("甲野一郎")) | {"note": "x"}
    metrics, _ = scoring.score(task, {"A": gold(person_name=["甲野一郎"])}, {"A": output})
    assert (metrics["valid_json_rate"], metrics["micro"]["recall"], metrics["micro"]["fn"]) == (0, 0, 1)


def test_nothing_to_score(task):
    metrics, _ = scoring.score(task, {"A": gold()}, {"A": answer()})
    assert metrics["micro"]["f1"] is None and metrics["macro"]["f1"] is None
    assert (metrics["false_positive_rate"], metrics["exact_match_rate"]) == (0, 1)
    metrics, _ = scoring.score(task, {"A": gold(person_name=["甲野"])}, {"A": answer()})
    assert metrics["false_positive_rate"] is None
    assert scoring.table(metrics, title="t").row_count == len(COLUMNS) + 2

"""Every fault of docs/reliability.md has tests that meet it; they are marked with its number."""

import re

import pytest

from recipekit import ROOT

TABLE = (
    (ROOT / "docs/reliability.md").read_text("utf-8").partition("## Faults and what happens")[2].partition("\n## ")[0]
)
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", TABLE, re.M)
TESTS = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py")}
NAMED = {(int(number), *named) for number, *_, tests in ROWS for named in re.findall(r"`(test_\w+\.py)::(\w+)`", tests)}
MARKED = re.compile(r"^((?:@pytest\.mark\.fault\(number=\d+\)\n)+)(?:@.*\n(?:[ \])].*\n)*)*def (test_\w+)\(", re.M)


def test_the_table_numbers_at_least_thirty_faults_once_each():
    assert [int(number) for number, *_ in ROWS] == list(range(1, len(ROWS) + 1)) and len(ROWS) >= 30
    assert len(ROWS) == TABLE.count("\n| ") - 1, "a row that is not read"


@pytest.mark.parametrize(("number", "tests"), [(row[0], row[-1]) for row in ROWS], ids=[f"fault {r[0]}" for r in ROWS])
def test_the_tests_of_a_fault_are_where_the_table_says(number, tests):
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
    assert named
    for file, name in named:
        assert re.search(rf"^def {name}\(", TESTS[file], re.M), f"{file} has no {name}"


def test_marks_and_table_say_the_same():
    marked = {
        (int(number), file, name)
        for file, text in TESTS.items()
        for marks, name in MARKED.findall(text)
        for number in re.findall(r"\d+", marks)
    }
    assert marked == NAMED
    written = sum(text.count("@pytest.mark.fault(") for name, text in TESTS.items() if name != "test_reliability.py")
    assert written == len(marked), "a mark that stands elsewhere than above a test"

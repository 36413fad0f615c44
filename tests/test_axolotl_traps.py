"""Every trap of docs/axolotl_traps.md has tests that fail without its guard; they are marked with its number."""

import re

import pytest

from recipekit import ROOT

ROWS = re.findall(r"^\| (\d+) \|.*\|.*\| (.*) \| (.*) \|$", (ROOT / "docs/axolotl_traps.md").read_text("utf-8"), re.M)
TESTS = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py")}
MARK = re.compile(r"pytest\.mark\.trap\(number=(\d+)\)")


def test_the_table_numbers_every_trap_once():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 22))


@pytest.mark.parametrize(("number", "guards", "tests"), ROWS, ids=[f"trap {row[0]}" for row in ROWS])
def test_guard_and_tests_of_a_trap_are_where_the_table_says(number, guards, tests):
    places = re.findall(r"`([\w./]+): (\w+)`", guards)
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
    assert places and named
    for path, name in places:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text("utf-8")), f"{path} has no {name}"
    for file, name in named:
        before, found, rest = TESTS[file].partition(f"def {name}(")
        decorators = before[before.rfind("\n\n") :]
        assert found and f"trap(number={number})" in decorators, f"{file}::{name} is not marked with {number}"


def test_every_marked_test_stands_in_the_table():
    marked = {(number, file) for file, text in TESTS.items() for number in MARK.findall(text)}
    assert marked == {(number, file) for number, _, tests in ROWS for file in re.findall(r"`(test_\w+\.py)::", tests)}

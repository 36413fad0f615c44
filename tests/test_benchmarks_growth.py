"""How the data tools grow: each of them once on few rows, and what is said where one fails."""

import subprocess
import sys

import pytest

import growth
import invented
from recipekit.errors import UserError


# Without validate.py, whose tokenizer takes seconds to load.
@pytest.mark.parametrize("tool", [name for name in growth.TOOLS if name != "validate.py"])
def test_each_tool_reads_what_was_generated_for_it(tool):
    seconds, memory = growth.timed(tool, growth.TOOLS[tool], 400, [])
    assert seconds > 0.1
    assert memory > 10


def test_a_tool_that_fails_is_named(tmp_path):
    def broken(rows, data):
        return [*growth.evaluate(rows, data), "--no-such-option"]

    with pytest.raises(UserError, match=r"evaluate\.py, 40 rows: exit code 2; run it by hand: .*--no-such-option"):
        growth.timed("evaluate.py", broken, 40, [])


def test_rows_of_the_test_set_are_repeated_under_new_ids(tmp_path):
    growth.predict(700, tmp_path)
    lines = (tmp_path / "input.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 700
    assert len(set(lines)) == 700
    assert len({line.partition('"body"')[2] for line in lines}) <= 300


def test_an_unknown_tool_is_refused():
    with pytest.raises(UserError, match=r"--tool merge: not known; choose of regenerate_segments\.py, "):
        growth.benchmark(rows=[10], tool=["merge"])


def test_a_peak_is_that_of_the_program_and_not_of_the_one_that_started_it():
    held = bytearray(b"1" * 400_000_000)
    code = f"import sys; sys.path.insert(0, {invented.__file__.removesuffix('invented.py')!r}); "
    code += "import invented; kept = bytearray(b'1' * 100_000_000); print(invented.peak_rss())"
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 200_000_000 < peak < 300_000_000 < len(held)

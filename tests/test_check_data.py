"""tools/check.py on data files and the test set."""

import pytest

from checking import edit, line_of
from rows import invert, row, write


def test_a_missing_data_file_is_named_where_the_yaml_names_it_with_the_command_that_makes_it(sound_task, run_checks):
    sound_task.segments_path("mix").unlink()
    problem = next(p for p in run_checks()[1] if "mix_segments" in p)
    path = sound_task.dir / "phase1.yml"
    assert problem.startswith(f"{path}:{line_of(path, 'mix_segments')}: datasets.0.path: ")
    assert "uv run tools/regenerate_segments.py mini" in problem


def test_a_prompt_changed_since_regenerate_stops_the_check(sound_task, run_checks):
    assert run_checks()[1] == []
    (sound_task.dir / "system.txt").write_text("注意して抽出する。\n", encoding="utf-8")
    problems = run_checks()[1]
    assert "segments[0].text: not what the prompt of today renders" in problems[0]
    assert all("regenerate_segments.py mini" in p for p in problems)


def test_an_output_schema_changed_since_regenerate_stops_the_check(sound_task, run_checks):
    assert run_checks()[1] == []
    path = sound_task.dir / "task.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("required: [persons]", "required: [persons, places]"))
    assert "'places' is a required property" in run_checks()[1][0]


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        ("gold.csv", "id,person_name\nE1,海野\nE1,山田\n", ["gold.csv:3: id 'E1' stands on line 2 already"]),
        ("gold.csv", "id,name\nE1,海野\n", ["gold.csv:1: column 'person_name' is missing"]),
        (
            "gold.csv",
            "id,person_name\nE2,\n",
            ["gold.csv:2: id 'E2' has no row in", "eval.jsonl:1: id 'E1' has no row in"],
        ),
        ("eval.jsonl", '{"id": "E1"}\n', ["eval.jsonl:1: 'body': expected text, found 'None'"]),
        ("gold.csv", None, ["gold.csv: No such file or directory; make it with regenerate_segments.py"]),
    ],
)
def test_a_wrong_test_set_stops_the_check(sound_task, run_checks, name, content, problems):
    path = sound_task.root / "data" / "test" / name
    path.write_text(content, encoding="utf-8") if content else path.unlink()
    statuses, found = run_checks()
    assert statuses["test set"] == "fail" and len(found) == len(problems)
    assert all(part in problem for part, problem in zip(problems, found, strict=True))


def test_values_without_a_person_of_their_own_are_a_warning(sound_task, run_checks):
    path = sound_task.dir / "task.yml"
    text = path.read_text(encoding="utf-8")
    columns = text.index("  columns:")
    path.write_text(
        text[:columns]
        + '  entities: {person: {path: "persons[]", key: person_name}}\n  columns:\n'
        + "    person_name: {entity: person, path: name, compare: person_name}\n"
        + "    age: {entity: person, path: age, compare: age}\n",
        encoding="utf-8",
    )
    gold = sound_task.root / "data" / "test" / "gold.csv"
    gold.write_text("id,person_name,age\nE1,海野|山田,32\n", encoding="utf-8")
    statuses, found = run_checks()
    assert statuses["test set"] == "warn" and found == []


def test_without_a_base_rows_are_still_checked_but_not_their_tokens(sound_task, run_checks):
    (sound_task.root / "data" / "samples" / "base" / "config.json").unlink()
    rows = [row(sound_task, "逮捕。", "山田")]
    invert(rows[0])
    write(sound_task, "mix", rows)
    problems = run_checks()[1]
    assert any("config.json" in p for p in problems) and any("the mask is wrong" in p for p in problems)


def test_tokens_left_unchecked_for_want_of_a_base_are_checked_once_it_is_there(sound_task, run_checks):
    weights = sound_task.root / "data" / "samples" / "base" / "model.safetensors"
    write(sound_task, "mix", [row(sound_task, "逮捕。" * 600, "山田")])
    weights.rename(weights.with_suffix(".aside"))
    assert not any("over sequence_len" in p for p in run_checks()[1])
    weights.with_suffix(".aside").rename(weights)
    assert any("over sequence_len" in p for p in run_checks()[1])


def test_a_file_that_two_phases_share_has_to_fit_the_shorter_one(sound_task, run_checks):
    write(sound_task, "mix", [row(sound_task, "逮捕。" * 50, "山田")])
    assert run_checks()[1] == []
    edit(sound_task, "phase2", sequence_len=150)
    assert any("over sequence_len 150" in p for p in run_checks()[1])

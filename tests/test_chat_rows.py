"""Raw conversations become rows that train, mixes, and scenes; what is wrong comes at once, with file and line."""

import json

import pytest

import check
import leaks
import regenerate_segments
from chatting import pair, scene, talk, write_jsonl, write_task
from recipekit import chat_rows, task_problems
from recipekit.errors import UserError
from recipekit.task import load_task


@pytest.fixture
def task(tmp_path, monkeypatch):
    made = write_task(tmp_path)
    for module in (regenerate_segments, leaks, check):
        monkeypatch.setattr(module, "load_task", lambda name: load_task(name, tmp_path))
    return made


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_say_which_turns_train(task):
    rows = [talk(number) for number in range(30, 36)]
    rows[0] = talk(30, turns=2)
    rows[0]["conversation"][1]["train"] = False
    write_jsonl(task.raw_dir / "val.jsonl", rows)
    regenerate_segments.regenerate("talk")
    made = read(task.segments_path("talk_val"))
    assert len(made) == 6
    assert [m["train"] for m in made[0]["messages"]] == [False, False, False, False, True]
    assert [m["train"] for m in made[1]["messages"]] == [False, False, True]
    assert made[1]["messages"][0] == {
        "role": "system", "content": "あなたはアク。\n関係：1（友達）", "train": False
    }  # fmt: skip
    assert made[0]["id"] == "t30"


def test_a_curriculum_parts_by_field_and_puts_easy_rows_first(task):
    regenerate_segments.regenerate("talk")
    easy, hard = read(task.segments_path("easy")), read(task.segments_path("hard"))
    assert len(easy) == 16 and len(hard) == 8
    assert {int(row["id"][1:]) % 3 for row in hard} == {2}
    lengths = [(len(row["messages"]), sum(len(m["content"]) for m in row["messages"][2::2])) for row in easy]
    assert lengths == sorted(lengths) and len({turns for turns, _ in lengths}) == 2


def test_a_file_of_validation_is_parted_in_the_same_way(task):
    path = task.dir / "task.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("curriculum:\n", "curriculum:\n    validation: val.jsonl\n"), encoding="utf-8")
    regenerate_segments.regenerate("talk")
    own = load_task("talk", task.root)
    assert own.raw_sets[:4] == ["easy", "hard", "easy_val", "hard_val"] and own.role("hard_val") == "validation"
    assert own.role("hard") == own.role("pairs") == "train" and own.role("talk_val") == "validation"
    assert {row["id"] for row in read(own.segments_path("hard_val"))} == {"t32", "t35"}
    assert len(read(own.segments_path("easy_val"))) == 4 and len(read(own.segments_path("easy"))) == 16


def test_a_mix_may_replay_a_mix_above_it(task):
    path = task.dir / "task.yml"
    more = "    again: {base: pairs_val, replay: mixed, replay_share: 0.5, seed: 1}\n"
    text = path.read_text(encoding="utf-8").replace("    pairs:\n", more + "    pairs:\n", 1)
    path.write_text(text, encoding="utf-8")
    regenerate_segments.regenerate("talk")
    again = load_task("talk", task.root).segments_path("again")
    mixed = {json.dumps(row) for row in read(task.segments_path("mixed"))}
    rows = [json.dumps(row) for row in read(again)]
    assert len(rows) == 8 and sum(row in mixed for row in rows) == 4


def test_a_later_phase_replays_rows_of_an_earlier_one(task):
    regenerate_segments.regenerate("talk")
    mixed = read(task.segments_path("mixed"))
    assert sorted(row["id"] for row in read(task.segments_path("hard"))) == sorted(
        row["id"] for row in mixed if int(row["id"][1:]) % 3 == 2
    )
    assert len(mixed) == 16, "half of them are replayed"
    manifest = json.loads(task.segments_path("mixed").with_suffix(".manifest.json").read_text())
    assert manifest["replay_share_reached"] == 0.5


def test_accepted_drafts_join_the_file_that_task_yml_names(task, tmp_path):
    write_jsonl(chat_rows.accepted_path(task), [talk(50), talk(53)])
    regenerate_segments.regenerate("talk")
    assert len(read(task.segments_path("hard"))) == 8, "task.yml names none"
    path = task.dir / "task.yml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("data:\n", "data:\n  drafts: talks.jsonl\n"), encoding="utf-8"
    )
    regenerate_segments.regenerate("talk")
    assert {"t50", "t53"} < {row["id"] for row in read(task.segments_path("hard"))}
    write_jsonl(chat_rows.accepted_path(task), [talk(50), {**talk(53), "context": ""}])
    with pytest.raises(UserError, match=r"accepted.jsonl:2: context: empty"):
        regenerate_segments.regenerate("talk")


def test_preferences_have_both_replies_and_no_flags(task):
    regenerate_segments.regenerate("talk")
    row = read(task.segments_path("pairs"))[3]
    assert row["chosen"] == {"role": "assistant", "content": "映画は苦手だったよね。"}
    assert row["rejected"]["content"] == "知らない。"
    assert [m.keys() for m in row["messages"]] == [{"role", "content"}] * 2
    assert "- 映画が苦手" in row["messages"][0]["content"]


def test_scenes_are_kept_as_they_are(task):
    regenerate_segments.regenerate("talk")
    assert read(task.test_path("input")) == [scene(number) for number in range(5)]
    assert len(chat_rows.test_scenes(task)) == 5


def test_all_files_faults_come_at_once(task):
    broken = [talk(1), {**talk(1)}, {**talk(2), "attribute": [9, 9]}]
    write_jsonl(task.raw_dir / "val.jsonl", broken)
    (task.raw_dir / "pairs_val.jsonl").unlink()
    write_jsonl(task.raw_dir / "pairs.jsonl", [{**pair(1), "chosen": ""}])
    scenes = [{**scene(0), "kind": "joke"}, {**scene(1), "reference": ""}, {**scene(2), "kind": "memory"}, scene(2)]
    write_jsonl(task.raw_dir / "scenes.jsonl", scenes)
    with pytest.raises(UserError) as caught:
        regenerate_segments.regenerate("talk")
    found = "\n".join(caught.value.problems)
    for what in (
        "val.jsonl:2: id: 't1' stands on line 1 already",
        "val.jsonl:3: attribute.0: relation: found 9",
        "no file pairs_val.jsonl",
        "pairs.jsonl:1: chosen: missing or empty",
        "scenes.jsonl:1: kind: found 'joke', expected one of reply, memory, provocation, attribute",
        "scenes.jsonl:2: reference: missing or empty; a scene of kind reply has a good reply",
        "scenes.jsonl:3: facts: found None",
        "scenes.jsonl:4: id: 't102' stands on line 3 already",
    ):
        assert what in found, what
    assert not task.segments_path("easy").exists(), "nothing half-written"


def test_many_faults_of_a_file_are_counted(task):
    write_jsonl(task.raw_dir / "val.jsonl", [{**talk(n), "context": ""} for n in range(50)])
    with pytest.raises(UserError) as caught:
        regenerate_segments.regenerate("talk")
    own = [problem for problem in caught.value.problems if "val.jsonl" in problem]
    assert len(own) == 21 and own[-1].endswith("30 more problems; mend these first")


def test_a_value_without_a_group_is_told(task):
    rows = [talk(n) for n in range(9)]
    for row in rows[:2]:
        row["metadata"] = {}
    write_jsonl(task.raw_dir / "talks.jsonl", rows)
    with pytest.raises(UserError, match=r"metadata\.genre: found None in 2 rows, expected one of food, outing, hobby"):
        regenerate_segments.regenerate("talk")
    write_jsonl(task.raw_dir / "talks.jsonl", [talk(n) for n in range(0, 9, 3)])
    with pytest.raises(UserError, match=r"no row has a genre of group hard \(hobby\)"):
        regenerate_segments.regenerate("talk")


def test_what_training_shares_with_scenes_is_a_leak(task, capsys):
    import typer

    regenerate_segments.regenerate("talk")
    leaks.leaks("talk")
    assert "none into the test set" in capsys.readouterr().err
    rows = [talk(number) for number in range(30, 36)]
    asked = scene(2)["conversation"][0]
    rows[0]["conversation"] = [asked, {"role": "assistant", "content": "好きだよ。"}]
    write_jsonl(task.raw_dir / "val.jsonl", rows)
    regenerate_segments.regenerate("talk")
    with pytest.raises(typer.Exit):
        leaks.leaks("talk")
    assert "validation -> test: 1 rows share the text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda s: s["chat"].update(attribute=["genre", "mood"]),
            "chat.attribute.0: 'genre' is no field .* with levels",
        ),
        (
            lambda s: s["prompt"].update(system="nowhere.txt"),
            "prompt.system: the prompt file nowhere.txt does not exist",
        ),
        (lambda s: s["data"]["curriculum"].update(by="mood"), "curriculum.by: 'mood' is no field with values"),
        (lambda s: s["data"]["curriculum"]["groups"].update(hard=["food"]), "'food' is in group easy already"),
        (lambda s: s["data"]["curriculum"]["groups"].update(hard=["sport"]), "'sport' is no value of genre"),
        (lambda s: s["data"]["curriculum"]["groups"].pop("hard"), "hobby of genre are in no group"),
        (lambda s: s["data"]["train"].update(easy={}), "a data set of that name stands under data.train too"),
    ],
)
def test_faults_of_task_yml_are_named(task, change, what):
    import re

    spec = json.loads(json.dumps(dict(task.spec)))
    change(spec)
    found = task_problems.content_problems(task.dir / "task.yml", spec, {}, task.dir)
    assert re.search(what, "\n".join(found))

import json

import pytest

import chat_data as tool
from recipekit import ROOT
from recipekit.errors import UserError


def made(tmp_path, text, task="companion", **options):
    path = tmp_path / "scenes.yml"
    path.write_text(text, encoding="utf-8")
    tool.scenes([path], task, tmp_path / "out.jsonl", **options)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def problems(tmp_path, text, task="companion"):
    with pytest.raises(UserError) as error:
        made(tmp_path, text, task)
    assert not (tmp_path / "out.jsonl").exists()
    return [one.removeprefix(f"{tmp_path}/") for one in error.value.problems]


SCENES = """\
persona: あなたはみお、図書館で働く人です。
speakers: {user: 健, assistant: みお}
metadata: {source: human, affection_level: friend}
scenes:
  - id: one
    topics: [本]
    turns:
      - 健: おすすめの本ある？
      - みお: |
          あるよ。
          旅の本はどう？
  - affection_level: lover
    persona: あなたはりん。
    turns:
      - user: やあ
      - assistant: やあ。
        train: false
      - あなた: 元気？
      - さくら: 元気だよ
"""


def test_scenes_become_rows(tmp_path):
    one, two = made(tmp_path, SCENES)
    assert one == {
        "id": "one", "system": "あなたはみお、図書館で働く人です。",
        "messages": [{"role": "user", "content": "おすすめの本ある？"},
                     {"role": "assistant", "content": "あるよ。\n旅の本はどう？"}],
        "metadata": {"source": "human", "affection_level": "friend", "topics": ["本"]},
    }  # fmt: skip
    assert two["id"] == "scenes-0002" and two["system"] == "あなたはりん。"
    assert two["metadata"]["affection_level"] == "lover"
    assert [m.get("train") for m in two["messages"]] == [None, False, None, None]


def test_scenes_of_a_task_with_numbers_take_its_own_form(tmp_path):
    text = "scenes:\n  - context: 駅で\n    attribute: [4, 0]\n    genre: food\n"
    text += "    turns: [あなた: パンある？, アク: ない]\n"
    [row] = made(tmp_path, text, "aku")
    assert row["attribute"] == [4, 0] and row["context"] == "駅で" and "messages" not in row
    assert row["metadata"] == {"source": "human", "genre": "food"}


def test_preferences_and_test_scenes_are_written_too(tmp_path):
    text = (
        "scenes:\n  - turns: [あなた: 疲れた]\n    chosen: 大変だったね\n    rejected: そう\n"
        "  - turns: [あなた: あなたはAIでしょ]\n    kind: provocation\n"
    )
    one, two = made(tmp_path, text)
    assert one["chosen"] == "大変だったね" and two["kind"] == "provocation"


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("みお: |", "みを: |", ":9: turns.1", "unknown speaker 'みを'"),
        ("user: やあ", "user: 3", ":15: turns.0", "found 3, expected a text"),
        ("topics: [本]", "topics: 本", ":6: metadata.topics", "expected a list"),
        ("affection_level: lover", "affection_level: wife", ":12: metadata.affection_level", "expected one of"),
        ("source: human, ", "source: nobody, ", ":3: metadata.source", "expected one of"),
        ("さくら: 元気だよ", "健: 元気だよ", ":19: messages.3.role", "roles take turns"),
        ("        train: false", "        train: いいえ", ":16: messages.1.train", "expected true or false"),
        ("  - id: one", "  - id: scenes-0002", ":12: id", "stands at"),
        ("persona: あなたはりん。", "persona: []", ":13: persona", "expected a text"),
        ("persona: あなたはみお", "personae: あなたはみお", ":1: personae", "no such key"),
        ("speakers: {user:", "speakers: {users:", ":2: speakers.users", "expected user or assistant"),
        ("    topics: [本]", "    topics: [本]\n    id: two", ":7: key 'id' stands twice", "first on line 5"),
    ],
)
def test_each_error_names_its_line_and_key(tmp_path, old, new, place, said):
    assert old in SCENES
    found = problems(tmp_path, SCENES.replace(old, new))
    assert any(one.startswith(f"scenes.yml{place}") and said in one for one in found), found


@pytest.mark.parametrize("text", ["scenes: []\n", "scenes: 3\n", "metadata: {}\n", "scenes: [さくら]\n", "- a\n", ""])
def test_files_without_scenes_are_refused(tmp_path, text):
    assert problems(tmp_path, text)


def test_all_errors_come_at_once(tmp_path):
    scene = "  - turns: [あなた: やあ]\n    mood: 3\n"
    found = problems(tmp_path, "scenes:\n" + scene * 12)
    assert len(found) == 21 and found[-1] == "scenes.yml: 16 more problems; mend these first"


def test_a_file_is_overwritten_only_by_force(tmp_path):
    made(tmp_path, SCENES)
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        made(tmp_path, SCENES.replace("元気だよ", "眠いよ"))
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert made(tmp_path, SCENES.replace("元気だよ", "眠いよ"), force=True)[1]["messages"][-1]["content"] == "眠いよ"
    for name in ("out.csv", "scenes.yml"):
        with pytest.raises(UserError, match="expected a name that ends in .jsonl"):
            tool.scenes([tmp_path / "scenes.yml"], "companion", tmp_path / name, force=True)


@pytest.mark.parametrize("task", ["companion", "aku"])
def test_the_examples_are_rows_that_training_takes(tmp_path, task, capsys):
    tool.scenes([ROOT / "recipes" / task / "scenes" / "example.yml"], task, tmp_path / "out.jsonl")
    tool.check([tmp_path / "out.jsonl"], task)
    assert ", 0 problems" in capsys.readouterr().err

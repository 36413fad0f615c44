import json

import pytest

import chat_data as tool
from recipekit import chat_check
from recipekit.chat_making import load, near_pairs, repeated
from recipekit.errors import UserError

LONG = "今日は朝から雨が降っていて、駅まで歩くのがとても大変でした。帰りは晴れるといいのですが、どうでしょうか。"


def row(name, *texts, **keys):
    said = texts or ("ただいま", "おかえり！")
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    return {"id": name, "messages": messages, **keys}


def write(path, rows):
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return path


def refused(path, task="companion"):
    with pytest.raises(UserError) as error:
        tool.check([path], task)
    return error.value.problems


@pytest.mark.parametrize(
    ("wrong", "place", "said"),
    [
        (row("a", "一人で話す"), "messages.0.role", "expected 'assistant' at the end"),
        (row("a", "", "はい"), "messages.0.content", "empty"),
        ({**row("a"), "messages": [{"role": "assistant", "content": "やあ"}]}, "messages.0.role", "user begins"),
        (row("a", metadata={"affection_level": "spouse"}), "metadata.affection_level", "expected one of stranger"),
        (row("a", metadata={"emotions": ["sad", "hungry"]}), "metadata.emotions.1", "'hungry'"),
        (row("a", metadata={"mood": 3}), "metadata.mood", "no such field"),
        (row("a", system=" "), "system", "empty"),
        (row("a", chosen="x", rejected="x"), "rejected", "the same as chosen"),
        ({"id": "a"}, "messages", "missing"),
    ],
)
def test_each_wrong_row_is_named_with_line_and_key(tmp_path, wrong, place, said):
    problems = refused(write(tmp_path / "a.jsonl", [row("first"), wrong]))
    assert any(one.startswith(f"{tmp_path}/a.jsonl:2: {place}: ") and said in one for one in problems), problems


@pytest.mark.parametrize(
    ("attribute", "said"), [([5, 0], "relation: found 5"), ([1], "expected a list"), ([1, True], "mood: found True")]
)
def test_numbers_of_the_second_form_are_held_to_their_levels(tmp_path, attribute, said):
    messages = row("a")["messages"]
    good = {"id": "g", "context": "駅で", "conversation": messages, "attribute": [4, 0], "metadata": {"genre": "food"}}
    path = write(tmp_path / "a.jsonl", [good, good | {"id": "b", "attribute": attribute}])
    problems = refused(path, "aku")
    assert len(problems) == 1 and "a.jsonl:2: attribute" in problems[0] and said in problems[0]


def test_all_problems_of_all_files_come_at_once_but_of_each_the_first_twenty(tmp_path):
    many = write(tmp_path / "a.jsonl", [row(f"a{i}", "一人") for i in range(15)])
    with pytest.raises(UserError) as error:
        tool.check([many, write(tmp_path / "b.jsonl", [row("b", "")])], "companion")
    found = error.value.problems
    assert f"{many}: 10 more problems; mend these first" in found and sum("a.jsonl:" in one for one in found) == 21
    assert any("b.jsonl:1" in one for one in found)


def test_an_id_stands_once_in_all_files(tmp_path):
    one, two = write(tmp_path / "a.jsonl", [row("same")]), write(tmp_path / "b.jsonl", [row("other"), row("same")])
    with pytest.raises(UserError) as error:
        tool.check([one, two], "companion")
    assert error.value.problems == [f"{two}:2: id: 'same' stands at {one}:1 already; give it another"]


def test_broken_lines_empty_files_and_documents_are_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": \n[1]\n', encoding="utf-8")
    assert [one.split(": ")[1] for one in refused(path)] == [
        "not valid JSON",
        "expected an object, found list; mend or remove it",
    ]
    path.write_text("", encoding="utf-8")
    assert "no rows in it" in refused(path)[0]
    document = tmp_path / "a.json"
    document.write_text(json.dumps({"conversations": [row("a"), row("b", "一人")]}), encoding="utf-8")
    assert refused(document)[0].startswith(f"{document}: conversation 2: messages.0.role")
    assert "no such file" in refused(tmp_path / "none.jsonl")[0].lower()


def test_fields_lengths_and_warnings_are_counted(tmp_path, capsys):
    rows = [
        row("a", LONG, "そうですね。" + LONG, metadata={"affection_level": "friend", "topics": ["天気"]}),
        row("b", LONG + "！", "そうですね　" + LONG, metadata={"affection_level": "friend"}, sytem="typo"),
        row("c", metadata={"affection_level": "lover"}), {**row("d"), "id": ""},
    ]  # fmt: skip
    tool.check([write(tmp_path / "a.jsonl", rows)], "companion")
    shown = capsys.readouterr().err
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.split()}
    assert lines["lover"][:2] == ["1", "25%"] and lines["friend"][:2] == ["2", "50%"]
    assert lines["affection_level"] == ["stranger", "0", "0%"] and lines["topics"][:3] == ["(1", "different)", "1"]
    assert lines["emotion"] == ["(none)", "4", "100%"]
    assert "1 rows have a key 'sytem'" in shown and "1 rows have no id" in shown
    assert "1 near duplicates of earlier rows" in shown and "a.jsonl:2 as" in shown and "(1.00)" in shown


def test_rows_that_differ_in_fields_alone_are_no_near_duplicates(tmp_path, capsys):
    rows = [row("a", LONG, LONG), row("b", LONG, LONG, metadata={"emotion": "sad"}), row("c", LONG, LONG)]
    tool.check([write(tmp_path / "a.jsonl", rows)], "companion")
    assert f"1 near duplicates of earlier rows: {tmp_path}/a.jsonl:3 as {tmp_path}/a.jsonl:1" in capsys.readouterr().err


def test_scenes_for_tests_end_with_the_user(tmp_path):
    scene = row("s", "覚えてる？", kind="memory", facts=["猫"], metadata={"memories": ["猫を飼っている"]})
    tool.check([write(tmp_path / "a.jsonl", [scene])], "companion")
    assert refused(write(tmp_path / "a.jsonl", [row("s", "やあ", "うん", kind="reply")]))


def test_other_tasks_are_refused(tmp_path):
    with pytest.raises(UserError, match="hawks is of kind extraction"):
        tool.check([write(tmp_path / "a.jsonl", [row("a")])], "hawks")


def test_files_that_cannot_be_read_come_at_once_and_a_byte_order_mark_is_none(tmp_path):
    good = write(tmp_path / "bom.jsonl", [row("a")])
    good.write_bytes(b"\xef\xbb\xbf" + good.read_bytes().replace(b"\n", b"\r\n"))
    tool.check([good], "companion")
    scene = {**row("b"), "kind": "joke"}
    scene["messages"] = scene["messages"][:-1]
    bad = write(tmp_path / "scene.jsonl", [scene])
    with pytest.raises(UserError) as error:
        tool.check([tmp_path / "one.jsonl", tmp_path / "two.jsonl", bad], "companion")
    assert [problem.split("/")[-1].split(";")[0] for problem in error.value.problems] == [
        "one.jsonl: No such file or directory", "two.jsonl: No such file or directory",
        "scene.jsonl:1: kind: found 'joke', expected one of reply, memory, provocation, attribute",
    ]  # fmt: skip


def test_near_texts_are_found_and_the_first_one_stays():
    texts = [LONG, "別の話です。" * 3, LONG[:-3], "まったく違う話をしましょう、猫の話です", LONG.replace("、", "")]
    pairs = near_pairs(texts, 0.8)
    assert {(a, b) for a, b, _ in pairs} == {(0, 2), (0, 4), (2, 4)} and all(alike >= 0.8 for *_, alike in pairs)
    assert repeated(texts, 0.8) == {2: 0, 4: 0}
    assert near_pairs([], 0.8) == near_pairs(["一つ"], 0.8) == [] and repeated(["短い", "短い"], 0.8) == {1: 0}


def test_every_key_that_others_read_is_known():
    assert {"kind", "facts", "reference", "set", "chosen", "attribute"} <= chat_check.KEYS
    assert load("companion").fields and load("aku").attribute == ["relation", "mood"]

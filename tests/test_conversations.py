"""Conversations: both forms are read alike, and everything that is wrong with one is told at once."""

import json
import re

import pytest

from chatting import pair, scene, talk, write_jsonl, write_task
from recipekit.conversations import Conversations, read_rows, trains
from recipekit.errors import UserError


@pytest.fixture
def reader(tmp_path):
    return Conversations(write_task(tmp_path))


def test_the_two_forms_are_one_conversation(reader):
    second = talk(4)
    first = {
        "id": "t4",
        "messages": second["conversation"],
        "metadata": {"context": "駅", "relation": 1, "mood": 0, "genre": "outing"},
    }
    assert reader.problems(first) == reader.problems(second) == []
    one, other = reader.read(first), reader.read(second)
    assert one == other and one.fields["relation"] == 1
    assert reader.read(one.row()) == one, "written and read again"


def test_the_system_message_has_persona_fields_and_their_words(reader):
    conversation = reader.read(pair(2))
    assert reader.system(conversation) == "あなたはアク。\n関係：1（友達）\n- 電車が苦手"
    own = reader.read({**pair(2), "system": "あなたは花。"})
    assert reader.system(own).startswith("あなたは花。\n")
    messages = reader.messages(conversation)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == reader.system(conversation)


def test_special_tokens_that_somebody_says_are_plain_text(reader):
    row = talk(1)
    row["conversation"][0]["content"] = "<|im_end|>と</s>と[eot]"
    contents = [message["content"] for message in reader.messages(reader.read(row))]
    assert contents[1] == "＜|im_end|>と＜/s>と［eot]"


def test_a_variable_that_is_no_field_is_named(reader):
    path = reader.task.dir / "system.txt"
    path.write_text("{{ person }}", encoding="utf-8")
    with pytest.raises(UserError, match=r"system\.txt: 'person' is undefined; the variables are persona, labels, con"):
        reader.system(reader.read(talk(1)))


def turns(*roles, content="あ"):
    return [{"role": role, "content": content} for role in roles]


@pytest.mark.parametrize(
    ("change", "place", "what"),
    [
        ({"conversation": []}, "conversation", "empty; expected a list of turns"),
        ({"conversation": "あ"}, "conversation", "a text; expected"),
        ({"conversation": turns("assistant")}, "conversation.0.role", "found 'assistant', expected 'user'"),
        ({"conversation": turns("user", "user", "assistant")}, "conversation.1.role", "roles take turns"),
        (
            {"conversation": turns("user", "assistant", "user")},
            "conversation.2.role",
            "expected 'assistant' at the end",
        ),
        ({"conversation": turns("system", "user", "assistant")}, "conversation.0.role", "under the key 'system'"),
        (
            {"conversation": [*turns("user"), *turns("assistant", content=" ")]},
            "conversation.1.content",
            "empty; write what",
        ),
        ({"conversation": [*turns("user"), {"role": "assistant"}]}, "conversation.1.content", "missing; write"),
        ({"conversation": [*turns("user"), "はい"]}, "conversation.1", "expected an object with role and content"),
        ({"attribute": [1]}, "attribute", r"expected a list \[relation, mood\], found \[1\]"),
        ({"attribute": [3, 0]}, "attribute.0", "relation: found 3, expected a whole number from 0 to 2"),
        ({"attribute": [1, True]}, "attribute.1", "mood: found True, expected a whole number from 0 to 1"),
        ({"context": " "}, "context", "empty or no text"),
        ({"system": ""}, "system", "empty or no text; say who the model is"),
        ({"metadata": {"genre": "sport"}}, "metadata.genre", "found 'sport', expected one of food, outing, hobby"),
        (
            {"metadata": {"place": "駅"}},
            "metadata.place",
            "no such field; the fields in task.yml are context, relation",
        ),
        ({"metadata": {"memories": "猫"}}, "metadata.memories", "expected a list, found text"),
        ({"metadata": {"memories": ["猫", ""]}}, "metadata.memories.1", "found '', expected a text"),
        ({"metadata": []}, "metadata", "expected an object, found list"),
        ({"metadata": 5}, "metadata", "expected an object, found number"),
        ({"messages": turns("user", "assistant"), "conversation": 5}, "conversation", "a number; expected a list"),
    ],
)
def test_each_fault_has_its_place(reader, change, place, what):
    found = reader.problems(talk(1) | change)
    assert [key for key, _ in found] == [place]
    assert re.search(what, found[0][1])


def test_all_faults_come_at_once(reader):
    row = talk(1) | {"attribute": [9, 9], "context": "", "metadata": {"genre": "x"}}
    assert [key for key, _ in reader.problems(row)] == ["attribute.0", "attribute.1", "context", "metadata.genre"]


def test_an_attribute_is_needed_where_the_task_has_one(reader):
    row = talk(1)
    del row["attribute"]
    assert reader.problems(row) == [("attribute", "missing; expected the numbers of relation, mood")]


def test_training_can_be_turned_off_by_turn(reader):
    row = talk(1, turns=2)
    row["conversation"][1]["train"] = False
    assert not reader.problems(row)
    assert [trains(message) for message in row["conversation"]] == [False, False, False, True]
    row["conversation"][3]["train"] = False
    assert "no turn of the assistant is trained" in reader.problems(row)[0][1]
    row["conversation"][3]["train"] = "yes"
    assert ("conversation.3.train", "found 'yes', expected true or false") in reader.problems(row)


def test_preferences_and_scenes_end_with_the_user(reader):
    assert reader.problems(pair(1)) == [] and reader.problems(scene(1), scene=True) == []
    assert "expected 'assistant' at the end" in reader.problems(scene(1))[0][1]
    assert reader.problems({**pair(1), "rejected": ""})[0][0] == "rejected"
    equal = {**pair(1), "rejected": pair(1)["chosen"]}
    assert reader.problems(equal) == [("rejected", "the same as chosen; nothing can be learned of two equal replies")]


def test_a_document_and_lines_are_read(tmp_path):
    rows = [talk(1), talk(2)]
    document = tmp_path / "all.json"
    document.write_text(json.dumps({"conversations": rows}), encoding="utf-8")
    write_jsonl(tmp_path / "all.jsonl", rows)
    assert [*read_rows(document)] == [*read_rows(tmp_path / "all.jsonl")] == [(1, rows[0]), (2, rows[1])]
    (tmp_path / "torn.jsonl").write_text('{"a": 1}\n\n[1]\n{"b"\n', encoding="utf-8")
    found = [*read_rows(tmp_path / "torn.jsonl")]
    assert [line for line, _ in found] == [1, 3, 4]
    assert found[1][1] == "expected an object, found list; mend or remove it" and found[2][1].startswith(
        "not valid JSON"
    )
    document.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="expected a list of conversations, or one under the key 'conversations'"):
        [*read_rows(document)]
    with pytest.raises(UserError, match="No such file"):
        [*read_rows(tmp_path / "nothing.jsonl")]

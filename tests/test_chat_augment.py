import json

import orjson
import pytest

import chat_data as tool
from recipekit.errors import UserError
from test_chat_check import row, write

ROWS = [row(f"r{i}", f"ただいま{i}", "おかえり…！\u2028🤗", metadata={"affection_level": "friend"}) for i in range(20)]


@pytest.fixture
def augmented(tmp_path):
    def make(rows=ROWS, task="companion", **options):
        write(tmp_path / "in.jsonl", rows)
        tool.augment([tmp_path / "in.jsonl"], task, tmp_path / "out.jsonl", force=True, **options)
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]

    return make


def test_a_share_of_rows_gets_a_copy_with_another_value_and_the_same_replies(augmented, capsys):
    rows = augmented(draw=["emotion=0.5", "affection_level=0.25"], replace=True)
    assert rows[:20] == ROWS and len(rows) == 20 + 10 + 5
    copies = {copy["id"]: copy for copy in rows[20:]}
    assert sum(name.endswith("-emotion") for name in copies) == 10
    for name, copy in copies.items():
        origin = ROWS[int(name[1:].split("-")[0])]
        assert orjson.dumps(copy["messages"]) == orjson.dumps(origin["messages"])
        changed = {key for key in copy["metadata"] if copy["metadata"][key] != origin["metadata"].get(key)}
        assert changed == {name.split("-")[1]}
    assert len({copy["metadata"].get("emotion") for copy in copies.values()}) > 3
    assert "copies: emotion 10, affection_level 5" in capsys.readouterr().err


def test_rows_that_say_a_field_are_left_alone_unless_asked(augmented, capsys):
    assert len(augmented(draw=["affection_level=1"])) == 20
    assert "left alone, as they say it already: affection_level 20" in capsys.readouterr().err
    assert len(augmented(draw=["affection_level=1"], replace=True)) == 40


def test_memories_are_added_to_those_that_are_there(augmented, tmp_path):
    texts = tmp_path / "m.txt"
    texts.write_text("猫を飼っている\n\n朝が弱い\nコーヒーが好き\n茶道を習う\n", encoding="utf-8")
    rows = [row("a", metadata={"memories": ["朝が弱い"]}), row("b")]
    copies = augmented(rows, draw=["memories=1"], texts=[f"memories={texts}"], copies_only=True)
    one, two = (copy["metadata"]["memories"] for copy in copies)
    assert one[0] == "朝が弱い" and 2 <= len(one) == len(set(one)) and 1 <= len(two) <= 3
    everything = [row("a", metadata={"memories": ["猫を飼っている", "朝が弱い", "コーヒーが好き", "茶道を習う"]})]
    assert len(augmented(everything, draw=["memories=1"], texts=[f"memories={texts}"])) == 1


@pytest.mark.parametrize(
    ("name", "text"), [("m.yml", "- 猫\n- 犬\n"), ("m.json", '["猫", "犬"]'), ("m.txt", "\ufeff猫\r\n犬\n猫\n")]
)
def test_lists_of_texts_are_read(augmented, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    copies = augmented(draw=["memories=1"], texts=[f"memories={tmp_path / name}"], copies_only=True)
    assert {memory for copy in copies for memory in copy["metadata"]["memories"]} == {"猫", "犬"}


def test_draws_hang_on_the_seed_and_the_id_alone(augmented):
    first = augmented(draw=["emotion=0.5"], seed=3, copies_only=True)
    assert first == augmented(draw=["emotion=0.5"], seed=3, copies_only=True)
    assert first != augmented(draw=["emotion=0.5"], seed=4, copies_only=True)
    turned = augmented(ROWS[::-1], draw=["emotion=0.5"], seed=3, copies_only=True)
    assert sorted(first, key=lambda copy: copy["id"]) == sorted(turned, key=lambda copy: copy["id"])


def test_numbers_and_context_of_the_second_form(augmented, tmp_path):
    said = row("a")["messages"]
    rows = [{"id": f"a{i}", "context": "駅で", "conversation": said, "attribute": [4, 2]} for i in range(10)]
    texts = tmp_path / "c.txt"
    texts.write_text("公園で\n家で\n", encoding="utf-8")
    options = {"draw": ["mood=1", "context=0.5", "genre=0.1"], "texts": [f"context={texts}"], "replace": True}
    copies = augmented(rows, "aku", copies_only=True, **options)
    moods = [copy["attribute"] for copy in copies if copy["id"].endswith("-mood")]
    assert len(moods) == 10 and all(number[0] == 4 and number[1] != 2 for number in moods)
    contexts = [copy["context"] for copy in copies if copy["id"].endswith("-context")]
    assert len(contexts) == 5 and set(contexts) <= {"公園で", "家で"}
    [genre] = [copy for copy in copies if copy["id"].endswith("-genre")]
    assert genre["metadata"]["genre"] and genre["conversation"] == said


def test_ids_stay_unique(augmented):
    rows = [row("a"), row("a-emotion")]
    names = [each["id"] for each in augmented(rows, draw=["emotion=1"])]
    assert names == ["a", "a-emotion", "a-emotion-2", "a-emotion-emotion"]


@pytest.mark.parametrize(
    ("draw", "texts", "said"),
    [
        (None, None, "--draw is missing"),
        (["mood=0.5"], None, "no such field"),
        (["emotion"], None, "expected FIELD=SHARE"),
        (["emotion=2"], None, "expected FIELD=SHARE"),
        (["emotion=nan"], None, "expected FIELD=SHARE"),
        (["memories=0.5"], None, "give a list of them"),
        (["emotion=0.5"], ["memories=m.yml"], "goes with it"),
        (["memories=0.5"], ["memories"], "expected FIELD=FILE"),
        (["memories=0.5"], ["memories=none.txt"], "No such file"),
    ],
)
def test_wrong_options_are_named(augmented, tmp_path, monkeypatch, draw, texts, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yml").write_text("- 猫\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        augmented(draw=draw, texts=texts)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: 1", "expected a list"), ("", "found nothing"), ("- 3\n", "1: found 3"), ("- [\n", "not valid")],
)
def test_lists_of_another_form_are_named(augmented, tmp_path, text, said):
    (tmp_path / "m.yml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        augmented(draw=["memories=1"], texts=[f"memories={tmp_path / 'm.yml'}"])


def test_rows_with_problems_or_without_id_are_named_and_nothing_is_written(augmented, tmp_path):
    with pytest.raises(UserError) as error:
        augmented([row("a", "一人"), {**row("b"), "id": ""}], draw=["emotion=1"])
    assert any("in.jsonl:1: messages" in one for one in error.value.problems)
    assert any("in.jsonl:2: id: missing" in one for one in error.value.problems)
    assert not (tmp_path / "out.jsonl").exists()

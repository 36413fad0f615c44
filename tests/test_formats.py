"""Raw rows of other shapes, files that are split, and the gold that is written from labels."""

import csv
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import regenerate_segments as tool
from recipekit import rawfiles
from recipekit.errors import UserError
from recipekit.extract import Extractor
from recipekit.formats import Converter, typed
from recipekit.gold import GoldFile
from recipekit.gold_rows import GoldWriter, written
from recipekit.task import load_task

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["company", "yen", "tags"],
    "properties": {
        "company": {"type": "string"},
        "yen": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "listed": {"type": "boolean"},
    },
}
GOLD = {
    "id": "id",
    "separator": "|",
    "columns": {
        "company": {"path": "company", "compare": "text"},
        "yen": {"path": "yen", "compare": "number"},
        "tags": {"path": "tags", "compare": "text"},
    },
}
LABEL = {"company": "会社", "yen": "金額", "tags": "タグ"}
CSV = "\ufeff番号,本文,会社,金額,タグ\r\n" + "".join(
    f'{i},"見出し{i}\r\n本文, {i}",株式会社{i},"{i},000",甲|乙{i}\r\n' for i in range(40)
)


@pytest.fixture
def recipe(mini):
    """Change the mini task: recipe(files, data=..., output_schema=..., gold=...) returns it with its raw files."""

    def change(files=None, **keys):
        path = mini / "recipes" / "mini" / "task.yml"
        spec = yaml.safe_load(path.read_text(encoding="utf-8")) | keys
        path.write_text(yaml.safe_dump(spec, allow_unicode=True, sort_keys=False), encoding="utf-8")
        folder = mini / "data" / "samples" / "mini"
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_task("mini", mini)

    return change


def regenerate(mini, monkeypatch):
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, mini))
    tool.regenerate("mini")
    return {path.name: path.read_text(encoding="utf-8").splitlines() for path in sorted((mini / "data").glob("t*/*.*"))}


def from_csv(recipe, content=CSV, shares=None, **rows):
    data = {
        "rows": {"id": "番号", "body": "本文", "label": LABEL} | rows,
        "split": {"file": "jobs.csv", "seed": 3, "shares": shares or {"pos": 6, "neg": 2, "test": 2}},
        "train": {"pos": {}, "neg": {"role": "validation"}},
        "test": {"input": "in.jsonl", "gold": "right.csv"},
    }
    return recipe({"jobs.csv": content}, data=data, output_schema=SCHEMA, gold=GOLD)


def test_one_csv_becomes_training_validation_and_test(mini, recipe, monkeypatch):
    task = from_csv(recipe)
    files = regenerate(mini, monkeypatch)
    assert set(files) == {"pos_segments.jsonl", "neg_segments.jsonl", "in.jsonl", "right.csv"}
    sizes = {name: len(lines) for name, lines in files.items()}
    assert sum(sizes.values()) - sizes["right.csv"] == 40 and sizes["pos_segments.jsonl"] > 15
    assert sizes["right.csv"] == sizes["in.jsonl"] + 1
    first = json.loads(files["pos_segments.jsonl"][0])["segments"]
    number = first[1]["text"].split("見出し")[1].split("\n")[0].strip()
    assert first[1]["text"] == f"【記事】\n見出し{number}\r\n本文, {number}\n"
    label = {"company": f"株式会社{number}", "yen": int(number) * 1000, "tags": ["甲", f"乙{number}"]}
    assert first[-1]["text"] == json.dumps(label, ensure_ascii=False) + "</s>"
    test = json.loads(files["in.jsonl"][0])
    assert set(test) == {"id", "body", "番号", "本文"}, "the answer does not stand beside the article"
    row = next(csv.DictReader(files["right.csv"]))
    assert row == {
        "id": test["id"],
        "company": f"株式会社{row['id']}",
        "yen": f"{row['id']}000",
        "tags": f"甲|乙{row['id']}",
    }
    assert GoldFile(task, task.test_path("gold")).padded == 0


def test_a_misspelt_key_that_keeps_rows_together_is_an_error(mini, recipe, monkeypatch):
    data = from_csv(recipe).spec["data"] | {}
    recipe(data=dict(data) | {"split": data["split"] | {"by": "くみ"}})
    with pytest.raises(UserError, match="jobs.csv:2: key 'くみ': not there, and data.split.by"):
        regenerate(mini, monkeypatch)


def test_test_rows_without_ids_get_one_and_are_not_repeated(mini, recipe, monkeypatch):
    from_csv(recipe, CSV, {"test": 1, "pos": 1e-9, "neg": 1e-9}, id="ない")
    with pytest.raises(UserError, match="the part pos"):
        regenerate(mini, monkeypatch)
    from_csv(
        recipe,
        CSV.replace("見出し9\r\n本文, 9", "見出し8\r\n本文, 8"),
        {"test": 1, "pos": 1e-9, "neg": 1e-9},
        id="ない",
    )
    with pytest.raises(UserError) as caught:
        regenerate(mini, monkeypatch)
    assert "jobs.csv:20: the article, without an id of its own, stands on line 18 already" in caught.value.problems[0]


def test_empty_columns_at_the_end_are_none(mini, recipe, monkeypatch):
    from_csv(recipe, CSV.replace("\r\n本文, ", "本文").replace("\r\n", ",,\r\n"))
    assert set(json.loads(regenerate(mini, monkeypatch)["in.jsonl"][0])) == {"id", "body", "番号", "本文"}


def test_a_csv_with_labels_as_json_needs_no_rows(mini, recipe, monkeypatch):
    recipe({"pos.csv": 'id,body,label\nP1,海,"{""persons"": []}"\n'})
    (mini / "data/samples/mini/pos.jsonl").unlink()
    files = regenerate(mini, monkeypatch)
    assert '{\\"persons\\": []}</s>' in files["pos_segments.jsonl"][0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rows": {"body": "{{ 本文"}}, "data.rows.body: unexpected end of template"),
        ({"rows": {"body": "{{ x | foo }}"}}, "data.rows.body: No filter named 'foo'"),
        ({"train": {"pos": {"file": "/etc/x.csv"}}}, "data.train.pos.file: found '/etc/x.csv', expected a name below"),
        ({"train": {"pos": {"file": "../x.csv"}}}, "data.train.pos.file: found '../x.csv', expected a name below"),
        (
            {
                "train": {
                    "pos": {},
                    "more": {"base": "mix", "replay": "pos", "replay_share": 0.5, "seed": 1},
                    "mix": {"base": "pos", "replay": "pos", "replay_share": 0.5, "seed": 1},
                }
            },
            "data.train.more.base: 'mix' is no data set under data.train that has rows of its own, nor",
        ),
        (
            {"split": {"file": "x", "seed": 1, "shares": {"mix": 1, "test": 1}}},
            "data.split.shares.mix: expected test, or",
        ),
    ],
)
def test_what_is_wrong_with_data_in_task_yml(recipe, mini, keys, said):
    data = load_task("mini", mini).spec["data"]
    with pytest.raises(UserError) as caught:
        recipe(data=dict(data) | keys)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"segments": None}, "pos.jsonl:1: key 'segments': expected a list of segments"),
        ({"body": "海", "label": {"persons": 3}}, "pos.jsonl:1: key 'label.persons': 3 is not of type 'array'"),
    ],
)
def test_rows_that_cannot_be_read(mini, recipe, monkeypatch, row, said):
    recipe({"pos.jsonl": json.dumps(row) + "\n"})
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        regenerate(mini, monkeypatch)


def test_a_body_template_that_fails_on_a_row_is_named(mini, recipe, monkeypatch):
    from_csv(recipe, body="{{ 番号 + 1 }}")
    with pytest.raises(UserError, match="jobs.csv:2: data.rows.body in task.yml: "):
        regenerate(mini, monkeypatch)


def test_empty_text_answers_are_refused(mini, recipe, monkeypatch):
    row = {"instruction": "x", "input": "", "output": " "}
    gold = GOLD | {"columns": {"a": {"path": "@", "compare": "text"}}}
    data = load_task("mini", mini).spec["data"]
    recipe({"pos.jsonl": json.dumps(row) + "\n"}, output_schema={"type": "string"}, gold=gold,
           data=dict(data) | {"train": {"pos": {"rows": {"format": "alpaca"}}}})  # fmt: skip
    with pytest.raises(UserError, match="pos.jsonl:1: key 'label': expected the answer as a text"):
        regenerate(mini, monkeypatch)


def test_two_files_of_one_name_are_named(mini, recipe, monkeypatch):
    (mini / "data/samples/mini/backup").mkdir()
    recipe({"backup/pos.jsonl": "{}"})
    with pytest.raises(UserError, match=r"2 files pos.jsonl: .*backup/pos.jsonl, .*mini/pos.jsonl; leave one"):
        regenerate(mini, monkeypatch)


def test_other_files_are_refused_by_their_ending(mini, recipe, monkeypatch):
    data = load_task("mini", mini).spec["data"]
    recipe({"x.tsv": "a\tb\n"}, data=dict(data) | {"train": {"pos": {"file": "x.tsv"}}})
    with pytest.raises(UserError, match=r"x.tsv: expected a file that ends in .jsonl, .json, .csv"):
        regenerate(mini, monkeypatch)


def test_the_parts_are_the_same_again_and_whole(mini, recipe, monkeypatch):
    from_csv(recipe)
    one = regenerate(mini, monkeypatch)
    from_csv(recipe, "番号,本文,会社,金額,タグ\n99,新しい,新社,1,\n" + CSV.split("\r\n", 1)[1])
    two = regenerate(mini, monkeypatch)
    ids = [{json.loads(line)["id"] for line in files["in.jsonl"]} for files in (one, two)]
    assert ids[1] - {"99"} == ids[0], "a row added moves no other"


def test_rows_that_belong_together_stay_together(mini, recipe, monkeypatch):
    data = {
        "split": {"file": "all.jsonl", "seed": 1, "by": "speaker", "shares": {"pos": 0.5, "test": 0.5}},
        "train": {"pos": {}},
        "test": {"input": "in.jsonl", "gold": "right.csv"},
    }
    rows = [{"id": i, "body": f"{i % 9}の話{i}", "speaker": i % 9, "label": {"persons": []}} for i in range(90)]
    recipe({"all.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}, data=data)
    files = regenerate(mini, monkeypatch)
    trained = {json.loads(line)["segments"][1]["text"][5] for line in files["pos_segments.jsonl"]}
    tested = {str(json.loads(line)["speaker"]) for line in files["in.jsonl"]}
    assert trained and tested and not trained & tested and len(trained | tested) == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CSV.replace("会社,", "社名,", 1), "jobs.csv:2: key '会社': not there"),
        (CSV.replace('"7,000"', "七千円"), "jobs.csv:16: key 'label.yen': '七千円' is not of type"),
        (CSV.replace("株式会社7", "甲|乙"), "jobs.csv:16: company: '甲|乙' holds '|'"),
        (CSV.replace("\r\n7,", "\r\n6,"), "jobs.csv:16: id '6' stands on line 14 already"),
        (CSV.replace("甲|乙7", "甲,乙"), "jobs.csv:16: more cells than columns"),
        (CSV.replace(",甲|乙7", ""), "jobs.csv:16: fewer cells than columns"),
        (CSV.replace('"見出し7', '"見"出し7'), "jobs.csv:16: not valid CSV"),
        (CSV.encode("cp932", "ignore"), "jobs.csv: not UTF-8"),
        (CSV.replace("タグ", "会社", 1), "jobs.csv:1: two columns are called 会社"),
        ("\r\n".join(CSV.split("\r\n")[:1]), "the part pos got no rows"),
    ],
)
def test_what_is_wrong_with_a_csv(mini, recipe, monkeypatch, content, said):
    from_csv(recipe, content, {"pos": 1e-9, "neg": 1e-9, "test": 1} if "holds" in said else None)
    with pytest.raises(UserError) as caught:
        regenerate(mini, monkeypatch)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert not list((mini / "data" / "train").iterdir())


def test_alpaca_and_messages_teach_plain_text(recipe):
    task = recipe(output_schema={"type": "string"}, gold=GOLD | {"columns": {"a": {"path": "@", "compare": "text"}}})
    alpaca = Converter(task, {"format": "alpaca"})
    row = alpaca({"instruction": "訳せ", "input": "海", "output": "sea"})
    assert (row["body"], row["label"]) == ("訳せ\n\n海", "sea")
    assert alpaca({"instruction": "歌え", "input": "", "output": "ら"})["body"] == "歌え"
    messages = Converter(task, {"format": "messages"})
    one = messages({"messages": [{"role": "user", "content": "問"}, {"role": "assistant", "content": "答"}]})
    assert (one["body"], one["label"]) == ("問", "答")
    turns = [("system", "短く"), ("human", "問1"), ("gpt", "答1"), ("human", "問2"), ("gpt", "答2")]
    many = messages({"conversations": [{"from": who, "value": text} for who, text in turns]})
    assert (many["body"], many["label"]) == ("短く\nユーザー: 問1\nアシスタント: 答1\nユーザー: 問2", "答2")
    assert task.answer("答</s>") == "答＜/s></s>"


def test_alpaca_with_json_answers_and_a_body_of_its_own(recipe):
    task = recipe(output_schema=SCHEMA, gold=GOLD)
    convert = Converter(task, {"format": "alpaca", "body": "{{ input }}"})
    row = convert({"instruction": "x", "input": "海", "output": '{"company": "甲", "yen": 1, "tags": []}'})
    assert row["body"] == "海" and row["label"] == {"company": "甲", "yen": 1, "tags": []}


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([], "expected a list of turns"),
        ([{"role": "user", "content": "x"}], "expected a reply by the assistant"),
        ([{"role": "bot", "content": "x"}], "messages[0]: expected role"),
        ([{"role": "user"}], "messages[0]: expected role"),
    ],
)
def test_messages_that_are_no_conversation(recipe, turns, said):
    with pytest.raises(UserError) as caught:
        Converter(recipe(output_schema={"type": "string"}), {"format": "messages"})({"messages": turns})
    assert said in caught.value.problems[0]


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("１，２００", {"type": "integer"}, 1200),
        ("1.5", {"type": "number"}, 1.5),
        ("123456789012345678", {"type": "integer"}, 123456789012345678),
        ("007", {"type": "integer"}, 7),
        ("inf", {"type": "number"}, "inf"),
        ("", {"type": ["integer", "null"]}, None),
        ("1,2", {"type": "integer"}, "1,2"),
        ("-1,234.5", {"type": "number"}, -1234.5),
        ("2", {"enum": [1, 2, 3]}, 2),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ("1", True, "1"),
        ("はい", {"type": "boolean"}, True),
        ("甲| 乙|", {"type": "array", "items": {"type": "string"}}, ["甲", "乙"]),
        ("1|2", {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ('["甲"]', {"type": "array", "items": {"type": "string"}}, ["甲"]),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("1", {"type": "string"}, "1"),
        (None, {"type": "string"}, ""),
        ("x", {"type": "integer"}, "x"),
        (3, {"type": "string"}, 3),
    ],
)
def test_texts_get_the_type_that_the_schema_asks_for(value, schema, expected):
    found = typed(value, schema, "|")
    assert found == expected and type(found) is type(expected)


def test_keys_are_learned_in_the_order_in_which_they_are_decoded(mini, recipe, monkeypatch):
    properties = {"b": {"type": "string"}, "a": {"type": "array", "items": {"properties": {"y": {}, "x": {}}}}}
    recipe(output_schema={"type": "object", "properties": properties})
    label = {"z": 1, "a": [{"x": 1, "y": 2}, 3], "b": ""}
    (mini / "data/samples/mini/pos.jsonl").write_text(json.dumps({"body": "海", "label": label}) + "\n")
    answer = json.loads(regenerate(mini, monkeypatch)["pos_segments.jsonl"][0])["segments"][-1]["text"]
    assert answer == '{"b": "", "a": [{"y": 2, "x": 1}, 3], "z": 1}</s>'


def test_json_lists_are_read(mini, recipe, monkeypatch):
    rows = [{"id": f"J{i}", "body": f"{i}話", "label": {"persons": []}} for i in range(3)]
    recipe({"pos.json": json.dumps(rows)})
    (mini / "data/samples/mini/pos.jsonl").unlink()
    assert len(regenerate(mini, monkeypatch)["pos_segments.jsonl"]) == 3


def test_the_reader_gives_each_set_its_own_rows(recipe, mini):
    task = from_csv(recipe)
    folder = mini / "data/samples/mini"
    found = {name: [row["id"] for _, row in rawfiles.read(task, folder, name)] for name in ("pos", "neg", "test")}
    assert sorted(int(i) for ids in found.values() for i in ids) == list(range(40))
    with pytest.raises(UserError, match="made of other data sets"):
        list(rawfiles.read(task, folder, "mix"))


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="|"), min_size=1).map(str.strip).filter(bool)
PERSON = st.fixed_dictionaries({"name": TEXT}, optional={"age": TEXT | st.just("")})


@given(st.lists(PERSON, max_size=4), st.lists(TEXT, max_size=3, unique=True), st.sampled_from(["article", "person"]))
def test_gold_written_from_a_label_reads_back(tmp_path_factory, persons, places, per):
    folder = tmp_path_factory.mktemp("gold")
    spec = {
        "name": "t",
        "gold": {
            "id": "id",
            "separator": "|",
            "one_row_per": per,
            "entities": {"person": {"path": "persons", "key": "name"}},
            "columns": {
                "name": {"entity": "person", "path": "name", "compare": "text"},
                "age": {"entity": "person", "path": "age", "compare": "text"},
                "places": {"path": "places", "compare": "text"},
            },
        },
    }
    from recipekit.task import Task

    task = Task(spec, folder, folder)
    label = {"persons": persons, "places": places}
    writer = GoldWriter(task)
    (folder / "gold.csv").write_bytes(written([writer.header]) + writer.rows("A1", label) + writer.rows("A2", label))
    right = Extractor(task).values(label)
    for row in GoldFile(task, folder / "gold.csv"):
        assert (row.entities.get("person", []), row.sets.get("places", [])) == (
            right[0].get("person", []),
            right[1].get("places", []),
        )

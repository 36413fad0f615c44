import json

import pytest

import chat_data as tool
from recipekit import ROOT
from recipekit.errors import UserError

LONG = "question,answer,respondent\n好きな季節は？,春です。花が咲くので,田所みなみ\n朝ごはんは？,パンと卵,田所みなみ\n"
LONG += "好きな季節は？,秋かな。田所さんも好きそう,北原ゆう\n朝ごはんは？,,北原ゆう\n"
WIDE = "タイムスタンプ,メールアドレス,好きな季節は？,朝ごはんは？\n"
WIDE += "2026/11/01 10:00:00,minami@mail.example.org,春です,パンと卵\n"
WIDE += "2026/11/01 11:00:00,yu@mail.example.org,秋かな,\n"
SET = ["attribute=2,2"]


@pytest.fixture
def formed(tmp_path):
    def make(text, task="aku", encoding="utf-8", fields=SET, **options):
        path = tmp_path / "f.csv"
        path.write_bytes(text.encode(encoding))
        options = {"fast": True, "force": True} | options
        tool.form(path, task, tmp_path / "out.jsonl", fields=fields, **options)
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]

    return make


def problems(formed, tmp_path, *arguments, **options):
    with pytest.raises(UserError) as error:
        formed(*arguments, **options)
    assert not (tmp_path / "out.jsonl").exists()
    return [one.removeprefix(f"{tmp_path}/") for one in error.value.problems]


def test_answers_a_row_become_conversations(formed, capsys):
    rows = formed(LONG)
    assert [row["id"] for row in rows] == ["f-r001-q01", "f-r001-q02", "f-r002-q01"]
    assert rows[0] == {
        "id": "f-r001-q01", "attribute": [2, 2], "metadata": {"source": "form"},
        "conversation": [{"role": "user", "content": "好きな季節は？"},
                         {"role": "assistant", "content": "春です。花が咲くので"}],
    }  # fmt: skip
    text = json.dumps(rows, ensure_ascii=False)
    assert not any(name in text for name in ("田所", "みなみ", "北原"))
    shown = capsys.readouterr().err
    assert "4 answers of 2 respondents, 1 of them empty" in shown and "masked: person 1" in shown


def test_a_column_a_question_becomes_conversations(formed):
    rows = formed(WIDE)
    assert [(row["id"], row["conversation"][1]["content"]) for row in rows] == [
        ("f-r001-q01", "春です"), ("f-r001-q02", "パンと卵"), ("f-r002-q01", "秋かな"),
    ]  # fmt: skip
    assert "mail" not in json.dumps(rows)


def test_columns_of_people_and_others_are_no_questions(formed):
    text = "お名前,年代,一言,所属\n田所みなみ,20代,田所です、よろしく,北の会\n,30代,どうも,南の会\n"
    rows = formed(text, skip=["年代"], respondent="所属")
    assert [(row["id"], row["conversation"][0]["content"]) for row in rows] == [
        ("f-r001-q01", "一言"),
        ("f-r002-q01", "一言"),
    ]
    assert "田所" not in json.dumps(rows, ensure_ascii=False)


def test_what_a_respondent_is_called_is_masked_where_no_rule_would_find_it(formed):
    [row] = formed("question,answer,respondent\n呼び名は？,そらまめ、です,そらまめ\n")
    assert row["conversation"][1]["content"].endswith("、です") and "そらまめ" not in str(row)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
@pytest.mark.parametrize("text", [LONG, WIDE])
def test_encodings_of_spreadsheets_are_read(formed, text, encoding):
    text = text.replace("田所さん", "みんな")
    assert formed(text, encoding=encoding) == formed(text) and len(formed(text)) == 3


def test_columns_that_are_fields_go_before_options(formed):
    text = 'question,answer,respondent,attribute,context,genre\n季節は？,春,a,"4,0",家で,weather\n季節は？,秋,b,,,\n'
    one, two = formed(text, fields=[*SET, "context=駅で"])
    assert one["attribute"] == [4, 0] and one["context"] == "家で" and one["metadata"]["genre"] == "weather"
    assert two["attribute"] == [2, 2] and two["context"] == "駅で"


def test_questions_say_something_else_and_bring_fields(formed, tmp_path):
    questions = tmp_path / "q.yml"
    questions.write_text(
        "好きな季節は？: {say: どの季節が好き？, attribute: [4, 4], genre: weather}\n", encoding="utf-8"
    )
    one, two, _ = formed(LONG, questions=questions)
    assert one["conversation"][0]["content"] == "どの季節が好き？" and one["attribute"] == [4, 4]
    assert one["metadata"]["genre"] == "weather" and two["attribute"] == [2, 2]
    questions.write_text("a: {attribute: [9, 4]}\nb: {\n  genre: x, say: 3}\nc: 4\n", encoding="utf-8")
    (tmp_path / "out.jsonl").unlink()
    found = problems(formed, tmp_path, LONG, questions=questions)
    assert [one.split(": ")[0] for one in found] == ["q.yml:1", "q.yml:3", "q.yml:3", "q.yml:4"]


def test_openings_end_with_the_user(formed):
    rows = formed(LONG, answers="opening")
    assert [row["conversation"] for row in rows][0] == [{"role": "user", "content": "春です。花が咲くので"}]


def test_tasks_of_the_first_form_too(formed):
    rows = formed(LONG, "companion", fields=["affection_level=friend"])
    assert rows[0]["metadata"] == {"source": "form", "affection_level": "friend"} and len(rows[0]["messages"]) == 2


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("question,answer\na,b\n", "f.csv:1", "expected question, answer and respondent"),
        ("question,answer,respondent\n", "f.csv:1", "a row an answer below"),
        ("", "f.csv", "the file is empty"),
        ("question,answer,respondent\na,b\n", "f.csv:2", "2 cells, expected 3"),
        ('question,answer,respondent\na,"b"c,d\n', "f.csv:2", "not valid CSV"),
        ("question,answer,respondent,genre\na,b,c,sports\n", "f.csv:2: answer: metadata.genre", "'sports'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(formed, tmp_path, text, place, found):
    told = problems(formed, tmp_path, text)
    assert any(one.startswith(place) and found in one for one in told), told


def test_fields_that_the_task_needs_are_asked_for(formed, tmp_path):
    found = problems(formed, tmp_path, LONG, fields=[])
    assert found[0].startswith("f.csv:2: answer: attribute: missing") and "--set FIELD=VALUE" in found[-1]
    assert "f.csv:1: no column 年齢; the columns are" in problems(formed, tmp_path, WIDE, skip=["年齢"])[0]


def test_other_encodings_are_told(formed, tmp_path):
    path = tmp_path / "g.csv"
    path.write_bytes(b"question,answer,respondent\na,\x81\xff,c\n")
    with pytest.raises(UserError, match="g.csv:2: neither UTF-8 nor CP932"):
        tool.form(path, "aku", tmp_path / "out.jsonl", fields=SET)


def test_the_example_of_questions_is_valid(formed):
    questions = ROOT / "recipes" / "aku" / "scenes" / "questions.yml"
    question = "パートナーに夕飯の献立を聞かれました。機嫌はとても良いです。何と答えますか。"
    [row] = formed(f"question,answer,respondent\n{question},カレーがいいな！,a\n", fields=[], questions=questions)
    assert row["attribute"] == [4, 4] and row["conversation"][0]["content"] == "今日の夕飯、何がいい？"

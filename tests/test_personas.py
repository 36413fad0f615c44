"""Nemotron-Personas -> rows: labels, what is masked, and which rows are chosen."""

import json

import pytest
import yaml

from recipekit import raw
from recipekit.errors import UserError
from recipekit.personas import MARK, Masker, PersonaConverter, read_groups
from regressing import JOBS, persona, write_lines


def masked(text: str, occupation: str = "", **more) -> str:
    return Masker([text, *more.values()], occupation)(text)


@pytest.mark.parametrize(
    "text",
    [
        "45歳",
        "４５歳",
        "四十五歳",
        "二十歳",
        "40代",
        "四十代後半",
        "十代",
        "還暦",
        "1975年生まれ",
        "昭和50年生まれ",
        "平成生まれ",
        "アラフォー",
        "男性",
        "女性",
        "彼女",
        "彼",
        "夫",
        "妻",
        "父",
        "母親",
        "祖母",
        "長女",
        "娘",
        "主婦",
        "女医",
        "元夫",
        "僕",
    ],
)
def test_words_of_age_and_sex_are_masked(text):
    assert masked(f"今は{text}と暮らす。") == f"今は{MARK}と暮らす。"


@pytest.mark.parametrize(
    "text",
    [
        "15年働く",
        "3世代の家",
        "二代目の店",
        "10代目当主",
        "1990年代の音楽",
        "時代",
        "大丈夫",
        "工夫する",
        "夫婦で歩く",
        "父母会",
        "男女を問わず",
        "母校",
        "母国語",
        "彼らと会う",
        "兄弟",
        "姉妹都市",
        "下僕",
        "ママチャリ",
        "多才な人",
        "100点",
    ],
)
def test_other_words_stay(text):
    assert masked(text) == text


def test_the_name_is_masked_everywhere_and_words_that_hold_it_are_not():
    text = "海野 誠は誠実な人。海野誠さん、誠の趣味は釣り。"
    assert masked(text) == f"{MARK}は誠実な人。{MARK}さん、{MARK}の趣味は釣り。"
    assert masked("山川 花代、本が好き。花代の庭。") == f"{MARK}、本が好き。{MARK}の庭。"
    assert masked("地域の人々は集まる。") == "地域の人々は集まる。"


def test_the_title_of_the_occupation_is_masked_and_its_parts():
    found = masked("看護師として働き、商品・企画を学ぶ。企画の人。", "看護師")
    assert found == f"{MARK}として働き、商品・企画を学ぶ。企画の人。"
    assert masked("企画開発の職員。企画が好き。", "企画・開発") == f"{MARK}{MARK}の職員。{MARK}が好き。"
    assert masked("本を読む。", "") == "本を読む。"


def test_what_is_masked_is_counted_by_kind():
    mask = Masker(["海野 太郎は45歳の男性。"], "医師")
    assert (
        mask("海野 太郎は45歳の男性。医師で、還暦が近い夫。")
        == f"{MARK}は{MARK}の{MARK}。{MARK}で、{MARK}が近い{MARK}。"
    )
    assert mask.counts == {"name": 1, "occupation": 1, "age": 2, "sex": 2}


def test_a_row_has_three_labels_and_no_speaker(traits):
    traits.run()
    rows = {row["id"]: row for row in [*traits.rows("people"), *traits.rows("people_val")]}
    assert len(rows) == 50
    assert rows["u00031"] == {
        "id": "u00031",
        "body": "31番の人は本を読む。\n31年ほど働いている。",
        "labels": {"age": 51, "sex": "女", "occupation": "医療"},
    }
    assert rows["u00030"]["labels"] == {"age": 50, "sex": "男", "occupation": "その他"}


def test_the_first_group_that_matches_wins(tmp_path):
    (tmp_path / "jobs.yml").write_text(JOBS, encoding="utf-8")
    convert = PersonaConverter(tmp_path, {"text": ["persona"], "occupations": "jobs.yml"})
    titles = {"看護教員": "医療", "教員": "教育", "農家": "その他", "": "その他"}
    assert {title: convert(persona(1, occupation=title))["label"]["occupation"] for title in titles} == titles


def test_the_manifest_counts_what_was_masked(traits):
    path = traits.raw / "personas/one.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row | {"persona": row["persona"] + f"{row['age']}歳の女性。"} for row in rows]
    write_lines(path, rows)
    traits.run()
    found = [json.loads((traits.train / f"{name}.manifest.json").read_text()) for name in ("people", "people_val")]
    assert sum(each["masked"]["age"] for each in found) == sum(each["masked"]["sex"] for each in found) == 30
    assert found[0]["rows"] == len(traits.rows("people")) and found[0]["mark"] == MARK
    assert found[0]["masked"]["age"] == sum(MARK in row["body"] for row in traits.rows("people"))


def test_a_limit_chooses_for_good_and_over_the_whole_file(traits, monkeypatch):
    traits.edit("occupations: jobs.yml}", "occupations: jobs.yml, limit: 20}")

    def chosen() -> set[str]:
        traits.run()
        return {row["id"] for name in ("people", "people_val") for row in traits.rows(name)}

    first = chosen()
    assert len(first) == 20 and any(name < "u00010" for name in first) and any(name >= "u00040" for name in first)
    traits.edit("limit: 20", "limit: 30")
    assert first < chosen()
    monkeypatch.setattr(raw, "CHUNK", 700)
    monkeypatch.setattr(raw, "workers", lambda: 2)
    (traits.train / "people.jsonl").unlink()
    traits.edit("limit: 30", "limit: 20")
    assert chosen() == first
    traits.edit("seed: 1\n    - file: chat", "seed: 2\n    - file: chat")
    assert len(chosen()) == 20 and chosen() != first
    traits.edit("limit: 20", "limit: 2000")
    assert len(chosen()) == 50


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"age": None}, "key 'age': expected years, found None"),
        ({"age": 200}, "key 'age': expected years, found 200"),
        ({"age": True}, "key 'age': expected years, found True"),
        ({"sex": "女性"}, "key 'sex': expected 男 or 女, found '女性'"),
        ({"occupation": None}, "key 'occupation': expected a text, found None"),
        ({"work": ""}, "key 'work': expected a text, found ''"),
        ({"uuid": None}, "key 'uuid': expected a text, found None"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(traits, values, expected):
    rows = [persona(i) for i in range(30, 50)]
    rows[2] |= values
    write_lines(traits.raw / "personas/more/two.jsonl", rows)
    with pytest.raises(UserError) as caught:
        traits.run()
    assert len(caught.value.problems) == 1
    assert "more/two.jsonl:3: " in caught.value.problems[0] and expected in caught.value.problems[0]


def test_an_id_in_two_files_is_named_in_both(traits):
    write_lines(traits.raw / "personas/more/two.jsonl", [persona(i) for i in (40, 41, 1)])
    with pytest.raises(UserError) as caught:
        traits.run()
    [problem] = caught.value.problems
    assert "personas/one.jsonl:2: id 'u00001' stands on " in problem
    assert problem.endswith("personas/more/two.jsonl:3 already; ids are unique")


def test_lines_are_counted_within_each_file(traits):
    for name in ("one.jsonl", "more/two.jsonl"):
        path = traits.raw / "personas" / name
        path.write_text(path.read_text(encoding="utf-8") + "{\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        traits.run()
    assert [problem.split("personas/")[1].split(": ")[0] for problem in caught.value.problems] == [
        "more/two.jsonl:21",
        "one.jsonl:31",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "task.yml:14: data.split.0.rows.occupations: jobs.yml does not exist"),
        ("医療: 看護\n", "jobs.yml:1: 医療: expected a list of words, found '看護'"),
        ("教育: [教]\n医療: [7]\n", "jobs.yml:2: 医療: expected a list of words"),
    ],
)
def test_wrong_groups_of_occupations(traits, text, expected):
    path = traits.recipe / "jobs.yml"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        traits.run()
    assert any(expected in problem for problem in caught.value.problems)


def test_changed_groups_make_the_rows_anew(traits, capfd):
    traits.run()
    traits.run()
    assert "up to date" in capfd.readouterr().err
    (traits.recipe / "jobs.yml").write_text("海: [漁]\n", encoding="utf-8")
    traits.run()
    assert {row["labels"]["occupation"] for row in traits.rows("people")} == {"海", "その他"}


def test_the_groups_of_the_recipe_can_be_read():
    from recipekit import ROOT

    path = ROOT / "recipes" / "bigfive" / "occupations.yml"
    assert read_groups(path) == yaml.safe_load(path.read_text(encoding="utf-8"))

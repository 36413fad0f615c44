"""Rows of a regression from a table: YAML alone makes them; and what tools/check.py and leaks.py say of them."""

import csv
import json
import re
from pathlib import Path

import pytest
import typer

import check
import leaks
import mask_pii
import report_data
import upload
import validate
from recipekit import regressioncheck, rowcheck, traps
from recipekit.errors import UserError
from recipekit.preflight import Verdicts
from recipekit.segmentcheck import SegmentChecker
from recipekit.task import load_task
from regressing import table_task, write_lines
from rows import Characters


def table(count: int = 60) -> list[dict]:
    return [
        {
            "番号": f"T{i}",
            "speaker": f"人{i // 4}",
            "本文": f"{i}番の話、海。",
            "開放性": 1 + i % 7,
            "落ち着き": "３．５",
        }
        for i in range(count)
    ]


@pytest.fixture
def tabled(traits):
    table_task(traits, table())
    return traits


def problems(traits) -> list[str]:
    with pytest.raises(UserError) as caught:
        traits.run()
    assert not list(traits.train.glob("*"))
    return caught.value.problems


# --- regenerate


def test_a_csv_becomes_a_regression_by_yaml_alone(tabled):
    tabled.run()
    rows = [*tabled.rows("talks"), *tabled.rows("talks_val")]
    row = next(row for row in rows if row["id"] == rows[0]["id"])
    number = int(row["id"][1:])
    assert row == {
        "id": f"T{number}",
        "speaker": f"人{number // 4}",
        "body": f"{number}番の話、海。",
        "labels": {"openness": 1 + number % 7, "calm": 3.5},
    }
    with (tabled.test / "traits_gold.csv").open(encoding="utf-8", newline="") as stream:
        gold = list(csv.DictReader(stream))
    test = tabled.rows("traits_input")
    assert [(row["id"], row["speaker"]) for row in gold] == [(row["id"], row["speaker"]) for row in test]
    assert len(rows) + len(test) == 60 and {row["calm"] for row in gold} == {"3.5"}


def test_rows_of_a_speaker_stay_together_and_the_split_says_where(tabled):
    tabled.run()
    split = json.loads((tabled.train / "traits_split.json").read_text(encoding="utf-8"))
    assert len(split) == 15 and set(split.values()) == {"talks", "talks_val", "test"}
    for part, name in (("talks", "talks"), ("talks_val", "talks_val"), ("test", "traits_input")):
        assert {split[row["speaker"]] for row in tabled.rows(name)} == {part}


def test_a_task_whose_split_has_no_speakers_is_made_all_the_same(traits):
    chat = traits.recipe / "task.yml"
    text = chat.read_text(encoding="utf-8")
    start, end = text.index("    - file: chat"), text.index("  train:")
    chat.write_text(text[:start] + text[end:].replace("    talks: {}\n    talks_val: {role: validation}\n", ""))
    write_lines(traits.raw / "traits_input.jsonl", [{"id": "E1", "speaker": "海", "body": "話"}])
    (traits.raw / "traits_gold.csv").write_text("id,speaker,openness,calm\nE1,海,2,3\n", encoding="utf-8")
    traits.run()
    assert traits.rows("people") and json.loads((traits.train / "traits_split.json").read_text()) == {}


def test_rows_of_jsonl_may_be_as_regenerate_writes_them(tabled):
    tabled.run()
    before = {name: tabled.rows(name) for name in ("talks", "talks_val", "traits_input")}
    tabled.edit("  rows: {id: 番号, body: 本文, label: {openness: 開放性, calm: 落ち着き}}\n", "")
    tabled.edit("table.csv", "table.jsonl")
    labels = [{"openness": 1 + i % 7, "calm": 3.5} for i in range(60)]
    rows = [
        {"id": row["番号"], "speaker": row["speaker"], "body": row["本文"], "labels": label}
        for row, label in zip(table(), labels, strict=True)
    ]
    write_lines(tabled.raw / "table.jsonl", rows)
    tabled.run()
    assert {name: tabled.rows(name) for name in before} == before


def test_a_row_without_an_id_gets_one_and_two_speakers_may_say_the_same(tabled):
    rows = table()
    for row in rows:
        row |= {"番号": "", "本文": "はい。" if row["番号"] in ("T0", "T4") else row["本文"]}
    table_task(tabled, rows)
    tabled.run()
    names = [row["id"] for name in ("talks", "talks_val", "traits_input") for row in tabled.rows(name)]
    assert len(set(names)) == 60 and all(name.startswith("table-") for name in names)
    rows[1]["本文"] = "はい。"
    table_task(tabled, rows)
    with pytest.raises(UserError, match=r":3: the article, without an id of its own, stands on line 2 already"):
        tabled.run()


def test_special_tokens_in_a_text_are_made_plain_in_training_and_test(tabled):
    table_task(tabled, [row | {"本文": f"{row['本文']}</s>"} for row in table()])
    tabled.run()
    for name in ("talks", "traits_input"):
        assert all(row["body"].endswith("海。＜/s>") for row in tabled.rows(name))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"開放性": ""}, "key 'label.openness': expected a number from 1 to 7, found ''"),
        ({"開放性": "高い"}, "key 'label.openness': expected a number from 1 to 7, found '高い'"),
        ({"開放性": "8"}, "key 'label.openness': expected a number from 1 to 7, found 8"),
        ({"開放性": "NaN"}, "key 'label.openness': expected a number from 1 to 7"),
        ({"本文": " "}, "key 'body': expected a text"),
        ({"speaker": ""}, "key 'speaker': not there, and regression in task.yml names it"),
        ({"番号": "T0"}, "id 'T0' stands on line 2 already"),
    ],
)
def test_a_wrong_row_is_named(tabled, values, expected):
    rows = table()
    rows[5] |= values
    table_task(tabled, rows)
    found = problems(tabled)
    assert len(found) == 1 and "table.csv:7: " in found[0] and expected in found[0]


def test_a_missing_column_is_named_once_a_row_and_the_first_are_shown(tabled):
    table_task(tabled, table(), columns="番号,speaker,本文,開放性")
    found = problems(tabled)
    assert len(found) == 21 and "key '落ち着き': not there, and task.yml makes the label of it" in found[0]


def test_test_files_of_ones_own_are_taken(tabled):
    tabled.edit(
        "  split: {file: table.csv, by: speaker, shares: {talks: 0.6, talks_val: 0.2, test: 0.2}, seed: 3}\n", ""
    )
    tabled.edit("{talks: {}, talks_val: {role: validation}}", "{talks: {file: table.csv}}")
    write_lines(tabled.raw / "traits_input.jsonl", [{"id": "E1", "speaker": "海", "body": " 話。[MASK] "}])
    (tabled.raw / "traits_gold.csv").write_text("id,speaker,openness,calm\nE1,海,2,3\n", encoding="utf-8")
    tabled.run()
    assert tabled.rows("traits_input") == [{"id": "E1", "speaker": "海", "body": "話。［MASK]"}]
    assert len(tabled.rows("talks")) == 60 and not (tabled.train / "traits_split.json").exists()


def test_with_a_prompt_the_same_rows_come_as_segments_too(tabled):
    (tabled.recipe / "ask.txt").write_text("読む。\n{{ body }}\n", encoding="utf-8")
    tabled.edit("data:\n", "prompt: {segments: [ask.txt], bos: <s>, eos: </s>}\ndata:\n")
    tabled.run()
    lines = (tabled.train / "talks_segments.jsonl").read_text(encoding="utf-8").splitlines()
    rows = tabled.rows("talks")
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        read, answer = json.loads(line)["segments"]
        assert read == {"label": False, "text": f"<s>読む。\n{row['body']}\n"}
        assert answer["label"] and re.fullmatch(r"openness[1-7] calm[1-7]</s>", answer["text"])


def test_answers_of_segments_are_titles_and_digits(tabled):
    (tabled.recipe / "ask.txt").write_text("{{ body }}\n", encoding="utf-8")
    tabled.edit("data:\n", "prompt: {segments: [ask.txt], bos: <s>, eos: </s>}\ndata:\n")
    checker = SegmentChecker(tabled.task())

    def found(answer: str) -> list[str]:
        segments = [{"label": False, "text": "<s>話\n"}, {"label": True, "text": f"{answer}</s>"}]
        return [problem.found for problem in checker.problems({"segments": segments})]

    assert found("openness3 calm7") == found("年齢45 性別女") == []
    for wrong in ("openness3 calm8", "openness3", "openness3.5 calm7", "calm7 openness3"):
        assert found(wrong) == [f"the answer is no openness[1234567] calm[1234567], but {wrong!r}"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{format: nemotron_personas, text: [persona, work],", "{format: nemotron_personas,", "needs 'text'"),
        ("label: {openness: Open, calm: Calm}", "label: Open", "needs 'label', a key of the label"),
        (
            "{format: real_persona_chat,",
            "{limit: 3, format: real_persona_chat,",
            "limit: no option of format real_pers",
        ),
        ("rows: {format: real_persona_chat,", "rows: {context: none,", "context: no option of format None"),
        ("talks_val: 0.1", "people_val: 0.1", "another split has a part people_val already"),
        ("talks_val: 0.1", "nobody: 0.1", "data.split.1.shares.nobody: expected test, or a data set"),
        (
            "people: {}",
            "people: {}\n    mix: {base: people, replay: talks, replay_share: 0.2, seed: 1}",
            "mixes are of",
        ),
        (
            "seed: 1\n    - file: chat",
            "sed: 1\n    - file: chat",
            "data.split.0.sed: unknown key; the keys here are file",
        ),
        ("context: all", "", ""),
    ],
)
def test_a_wrong_task_yml_is_named(traits, old, new, expected):
    if not new:
        old, new, expected = "{format: real", "{context: all, format: real", "'all' is not one of ['none', 'partner']"
    traits.edit(old, new)
    with pytest.raises(UserError) as caught:
        traits.task()
    assert any(expected in problem and "task.yml:" in problem for problem in caught.value.problems), caught.value


def test_the_formats_are_for_regressions(mini):
    path = mini / "recipes" / "mini" / "task.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("pos: {}", "pos: {rows: {format: real_persona_chat, label: {a: A}}}"), encoding="utf-8"
    )
    with pytest.raises(UserError) as caught:
        load_task("mini", mini)
    assert "format: real_persona_chat is for tasks of kind regression" in caught.value.problems[0]


# --- check


@pytest.fixture
def checked(traits, monkeypatch):
    """The task, regenerated; `look` checks its data."""
    monkeypatch.setattr(rowcheck, "load_tokenizer", lambda *_: Counting())
    traits.run()

    def look():
        task = traits.task()
        configs = traps.load_configs(task, "gpu")[1]
        return check.data_checks(task, configs, Verdicts(traits.root / "verdicts.json"), True)

    traits.look = look
    return traits


class Counting(Characters):
    """Characters, between two special tokens where they are asked for."""

    def __call__(self, texts, add_special_tokens=True, **_):
        around = [1] if add_special_tokens else []
        return {"input_ids": [[*around, *ids, *around] for ids in super().__call__(texts)["input_ids"]]}


def test_rows_are_measured_and_those_that_are_cut_are_a_warning(checked):
    checks, sample = checked.look()
    longest = max(len(row["body"]) for row in checked.rows("talks")) + 2
    assert [c.status for c in checks] == ["ok", "ok"] and f"longest {longest} of 64 tokens" in checks[0].detail
    assert sample[0][1] is False and sample[1] == (
        ", ".join(f"{name} {value}" for name, value in checked.rows("talks_val")[0]["labels"].items()),
        True,
    )
    path = checked.recipe / "phase1.yml"
    path.write_text(path.read_text().replace("sequence_len: 64", f"sequence_len: {longest - 1}"))
    checks, _ = checked.look()
    assert checks[0].status == "warn" and not checks[0].problems
    rows = checked.rows("talks")
    cut = sum(len(row["body"]) + 2 > longest - 1 for row in rows)
    assert 0 < cut < len(rows) and f"reads the beginning of {cut} rows ({cut / len(rows):.1%})" in checks[0].detail


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda r: r.update(body=""), "body: expected a text, found ''"),
        (lambda r: r.update(body=None), "body: expected a text, found None"),
        (lambda r: r.update(id=3), "id: expected a text, found 3"),
        (lambda r: r.pop("labels"), "labels: expected an object, found None"),
        (lambda r: r["labels"].pop("calm"), "labels: found openness, expected openness, calm"),
        (lambda r: r["labels"].update(age=3), "labels: found openness, calm, age, expected openness, calm"),
        (lambda r: r["labels"].update(calm=8), "labels.calm: expected a number from 1 to 7, found 8"),
        (lambda r: r["labels"].update(calm=float("nan")), "not valid JSON"),
        (lambda r: r["labels"].update(calm=None), "labels.calm: expected a number from 1 to 7, found None"),
        (lambda r: r["labels"].update(calm=True), "labels.calm: expected a number from 1 to 7, found True"),
    ],
)
def test_a_wrong_row_of_training_data_is_named(checked, edit, expected):
    rows = checked.rows("talks")
    edit(rows[4])
    write_lines(checked.train / "talks.jsonl", rows)
    checks, _ = checked.look()
    assert checks[0].status == "fail" and len(checks[0].problems) == 1
    assert "talks.jsonl:5: " in checks[0].problems[0] and expected in checks[0].problems[0]


def test_classes_that_a_head_does_not_know_are_named(checked):
    heads = "{age: {scale: [0, 110]}, sex: {classes: [男, 女]}, occupation: {classes: [医療, 教育]}}"
    path = checked.recipe / "phase1.yml"
    text = path.read_text().replace("talks", "people")
    path.write_text(text.replace("{openness: {scale: [1, 7]}, calm: {scale: [1, 7]}}", heads), encoding="utf-8")
    checks, _ = checked.look()
    assert (
        "labels.occupation: found 'その他', which is no class; name it under regression.heads" in checks[0].problems[0]
    )
    path.write_text(path.read_text(encoding="utf-8").replace("[医療, 教育]", "[医療, その他]"), encoding="utf-8")
    assert [c.status for c in checked.look()[0]] == ["ok", "ok"]


def test_heads_that_are_none_are_named_where_they_stand(checked):
    path = checked.recipe / "phase1.yml"
    path.write_text(path.read_text().replace("{openness: {scale: [1, 7]}", "{openness: {scale: [7, 1]}"))
    found = checked.look()[0][0].problems
    assert len(found) == 1 and "phase1.yml:2: regression.heads.openness" in found[0] and "[7.0, 1.0]" in found[0]


def test_missing_rows_are_named_with_the_command_that_makes_them(checked):
    (checked.train / "talks.jsonl").unlink()
    problem = checked.look()[0][0].problems[0]
    assert "datasets.0.path: data/train/talks.jsonl does not exist; run: uv run tools/regenerate_segments.py" in problem


def test_a_sound_test_set_passes(checked):
    found = check.test_set(checked.task())
    rows = checked.rows("traits_input")
    assert found.status == "ok" and found.detail == f"{len(rows)} texts of {len({r['speaker'] for r in rows})} speakers"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda gold: gold.replace("speaker,openness", "who,openness", 1), ":1: column speaker is missing"),
        (lambda gold: gold.replace(",calm", ",cold", 1), ":1: column calm is missing"),
        (lambda gold: gold + "X1,AA,1,1\n", "id 'X1' has no row in"),
        (lambda gold: gold + gold.splitlines()[1] + "\n", "stands there twice"),
        (lambda gold: gold + "X1,AA,1\n", "not as many cells as columns"),
        (lambda gold: "\n".join(gold.splitlines()[:-1]) + "\n", "has no row in"),
        (
            lambda gold: gold.replace(gold.splitlines()[1], f"{gold.split(chr(10))[1].split(',')[0]},AA,9,1"),
            "openness: ",
        ),
        (
            lambda gold: gold.replace(gold.splitlines()[1], f"{gold.split(chr(10))[1].split(',')[0]},ZZ,1,1"),
            "speaker '",
        ),
        (
            lambda gold: gold.replace(gold.splitlines()[1], f"{gold.split(chr(10))[1].split(',')[0]},,1,nan"),
            "found 'nan'",
        ),
        (lambda gold: None, "no such file; run: uv run tools/regenerate_segments.py traits"),
    ],
)
def test_a_wrong_test_set_is_named(checked, edit, expected):
    path = checked.test / "traits_gold.csv"
    text = edit(path.read_text(encoding="utf-8").replace("\r\n", "\n"))
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    found = check.test_set(checked.task())
    assert found.status == "fail" and any(expected in problem for problem in found.problems), found.problems


def test_articles_that_are_wrong_are_named_with_the_gold(checked):
    write_lines(
        checked.test / "traits_input.jsonl",
        [{"id": "a", "body": ""}, {"id": "b", "body": "x"}] + [{"id": "b", "body": "x"}],
    )
    with pytest.raises(UserError) as caught:
        regressioncheck.check_test_set(checked.task())
    assert ["traits_input.jsonl:1: 'body'" in caught.value.problems[0], ":3: id 'b'" in caught.value.problems[1]] == [
        True
    ] * 2


# --- leaks


@pytest.fixture
def leaking(checked, monkeypatch):
    monkeypatch.setattr(leaks, "load_task", lambda name: load_task(name, checked.root))
    checked.leaks = lambda **options: leaks.leaks("traits", None, **({"threshold": None} | options))
    return checked


def report(traits) -> dict[tuple[str, str], int]:
    found = json.loads((traits.root / "outputs/traits/leaks/report.json").read_text(encoding="utf-8"))
    return {("-".join(entry["splits"]), entry["kind"]): entry["rows"] for entry in found["between"] if entry["leak"]}


def test_a_sound_split_does_not_leak(leaking, capfd):
    leaking.leaks(threshold=1.0)
    assert "leaks: none into the test set" in capfd.readouterr().err
    found = json.loads((leaking.root / "outputs/traits/leaks/report.json").read_text(encoding="utf-8"))
    counts = [len(leaking.rows(name)) for name in ("people", "talks", "people_val", "talks_val", "traits_input")]
    assert found["rows"] == {"train": sum(counts[:2]), "validation": sum(counts[2:4]), "test": counts[4]}


def test_a_shared_speaker_text_and_id_are_leaks(leaking, capfd):
    test, train = leaking.rows("traits_input"), leaking.rows("talks")
    train[0]["speaker"] = test[0]["speaker"]
    train[1]["body"] = test[1]["body"]
    train[2]["body"] = test[2]["body"].replace("。", "！")
    train[3]["id"] = test[3]["id"]
    write_lines(leaking.train / "talks.jsonl", train)
    with pytest.raises(typer.Exit):
        leaking.leaks(threshold=1.0)
    kinds = {kind: rows for (splits, kind), rows in report(leaking).items() if splits == "train-test"}
    assert kinds == {"group": 1, "exact": 1, "normalised": 1, "id": 1}
    shown = capfd.readouterr().err
    assert "talks.jsonl:1" in shown and "--drop" not in shown and "data.split" in shown
    leaking.leaks(threshold=1.0, allow_leaks=True)


def test_dropping_and_rows_of_another_folder_are_refused(leaking, tmp_path):
    with pytest.raises(UserError, match="--drop: rows of a regression are made anew"):
        leaking.leaks(drop=True)
    with pytest.raises(
        UserError, match=r"data/train was made from .*data/raw/traits; run uv run tools/regen.* --source"
    ):
        leaks.leaks("traits", tmp_path, None)
    (leaking.train / "talks.jsonl").unlink()
    with pytest.raises(UserError, match=r"talks.jsonl: no such file; run uv run tools/regenerate_segments.py traits"):
        leaking.leaks()


# --- tools that read answers


@pytest.mark.parametrize(
    ("tool", "call", "expected"),
    [
        (
            validate,
            lambda: validate.command([], "traits"),
            "validate: reads tasks of kind extraction, and traits is",
        ),
        (report_data, lambda: report_data.report_data("traits"), "report_data: reads tasks of kind extraction"),
        (upload, lambda: upload.upload("traits", dataset=True), "upload --dataset: reads tasks of kind extraction"),
        (mask_pii, lambda: mask_pii.mask_pii([Path(__file__).parent / "a.txt"], "traits"), "leave --task out"),
    ],
)
def test_tools_that_read_answers_say_so(traits, monkeypatch, tool, call, expected):
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, traits.root))
    monkeypatch.setattr(mask_pii, "_check", lambda *_: None)
    with pytest.raises(UserError) as caught:
        call()
    assert len(caught.value.problems) == 1 and expected in caught.value.problems[0]

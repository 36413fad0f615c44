import json
import os
import subprocess
import sys

import pytest

import regenerate_segments as tool
from recipekit import ROOT, segments
from recipekit.errors import UserError
from recipekit.task import load_task


@pytest.fixture
def run(mini, monkeypatch):
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, mini))
    return lambda: tool.regenerate("mini")


def rows(mini, name):
    path = mini / "data" / "train" / f"{name}_segments.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def spoil(mini, name, line, text):
    path = mini / "data" / "samples" / "mini" / name
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_row_is_system_article_answer_and_only_the_answer_is_trained(mini, run):
    run()
    row = rows(mini, "pos")[0]["segments"]
    assert [s["label"] for s in row] == [False, False, True]
    assert row[0]["text"] == "<s>抽出する。\n"
    assert row[1]["text"] == "【記事】\n山田一容疑者を逮捕。\n"
    assert row[2]["text"] == '{"persons": [{"name": "山田一"}]}</s>'


def test_mix_holds_all_positives_and_a_fifth_of_replay(mini, run):
    run()
    mixed = rows(mini, "mix")
    manifest = json.loads((mini / "data/train/mix_segments.manifest.json").read_text())
    assert manifest["rows"] == {"base": 8, "replay": 2, "total": 10}
    assert manifest["replay_share_reached"] == 0.2
    key = [json.dumps(r) for r in mixed]
    assert {json.dumps(r) for r in rows(mini, "pos")} <= set(key)
    assert sum(json.dumps(r) in key for r in rows(mini, "neg")) == 2
    assert [k for k in key if "花火" in json.loads(k)["segments"][1]["text"]] != key[-2:]


def test_second_run_does_nothing_and_an_edited_prompt_runs_again(mini, run, capfd):
    run()
    path = mini / "data" / "train" / "pos_segments.jsonl"
    before = path.stat().st_mtime_ns
    run()
    assert "up to date" in capfd.readouterr().err and path.stat().st_mtime_ns == before
    (mini / "recipes/mini/system.txt").write_text("別の指示。\n", encoding="utf-8")
    run()
    assert rows(mini, "pos")[0]["segments"][0]["text"] == "<s>別の指示。\n"


def test_segments_rows_are_rebuilt_with_the_prompt_of_today(mini, run):
    run()
    old = rows(mini, "pos")
    (mini / "recipes/mini/system.txt").write_text("新しい指示。\n", encoding="utf-8")
    raw = mini / "data" / "samples" / "mini" / "pos.jsonl"
    raw.write_text("".join(json.dumps(r) + "\n" for r in old), encoding="utf-8")
    run()
    new = rows(mini, "pos")
    assert new[0]["segments"][0]["text"] == "<s>新しい指示。\n"
    assert [r["segments"][1:] for r in new] == [r["segments"][1:] for r in old]


def test_every_bad_row_is_named_at_once_and_nothing_is_written(mini, run):
    spoil(mini, "pos.jsonl", 7, '{"id": "P6", "body": ')
    spoil(mini, "pos.jsonl", 3, '{"id": "P1", "body": "海。", "label": {"persons": []}}')
    spoil(mini, "pos.jsonl", 4, '{"id": "P3", "body": "海。", "label": {"persons": [{"nme": "x"}]}}')
    spoil(mini, "neg.jsonl", 2, '{"id": "N1", "body": "配信 共同\\n", "label": {"persons": []}}')
    with pytest.raises(UserError) as caught:
        run()
    found = "\n".join(caught.value.problems)
    assert "pos.jsonl:7: not valid JSON" in found
    assert "pos.jsonl:3: id 'P1' stands on line 2 already" in found
    assert "pos.jsonl:4: key 'label.persons.0': 'name' is a required property" in found
    assert "neg.jsonl:2: key 'body'" in found
    assert not list((mini / "data" / "train").iterdir())


def test_missing_and_empty_files(mini, run):
    raw = mini / "data" / "samples" / "mini"
    (raw / "pos.jsonl").unlink()
    (raw / "neg.jsonl").write_text("")
    (raw / "gold.csv").unlink()
    with pytest.raises(UserError) as caught:
        run()
    found = "\n".join(caught.value.problems)
    assert "no file pos.jsonl or pos_segments.jsonl" in found
    assert "neg.jsonl: the file is empty" in found
    assert "no file gold.csv" in found


def test_take_apart_undoes_build(mini):
    task = load_task("mini", mini)
    row = segments.build(task, "本文\n二行目", {"persons": []})
    assert segments.take_apart(task, row)["body"] == "本文\n二行目"


def test_unknown_task_exits_2_with_one_line():
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "regenerate_segments.py", "nothing"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "LOG_DIR"},
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: no task 'nothing'") and len(run.stderr.splitlines()) == 1

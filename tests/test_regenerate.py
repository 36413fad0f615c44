import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import regenerate_segments as tool
from recipekit import ROOT, preparing, raw, segments
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
    assert "pos.jsonl:4: key 'label.persons[0]': 'name' is a required property" in found
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


def test_a_raw_folder_that_is_not_there_is_named(mini, run):
    (mini / "data/samples/mini").rename(mini / "elsewhere")
    with pytest.raises(UserError, match="data/samples/mini: no such folder; put the task's raw files there"):
        run()


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


def many(mini, rows=400):
    """Give the mini task a raw file of many rows, some of them long."""
    path = mini / "data/samples/mini/pos.jsonl"
    lines = [
        {"id": f"P{i}", "body": f"{i}番の話。" + "海" * (i * 7919 % 300), "label": {"persons": []}} for i in range(rows)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(raw, "CHUNK", 1500)
    monkeypatch.setattr(raw, "workers", lambda: 3)


def test_chunks_on_many_cores_give_what_one_gives(mini, run, monkeypatch):
    many(mini)
    with monkeypatch.context() as patch:
        patch.setattr(raw, "workers", lambda: 1)
        run()
    path = mini / "data/train/pos_segments.jsonl"
    whole, mixed = path.read_bytes(), rows(mini, "mix")
    assert len(whole.splitlines()) == 400
    monkeypatch.setattr(raw, "CHUNK", 1500)
    monkeypatch.setattr(raw, "workers", lambda: 3)
    path.unlink()
    run()
    assert path.read_bytes() == whole and rows(mini, "mix") == mixed


def test_lines_and_ids_are_counted_through_all_chunks(mini, run, small_chunks):
    path = many(mini)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[310] = "{"
    lines[350] = lines[20]
    lines[390] = '{"id": "x", "body": " ", "label": {"persons": []}}'
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        run()
    found = [problem.split("pos.jsonl:")[1] for problem in caught.value.problems if "pos.jsonl" in problem]
    assert [problem.split(":")[0] for problem in found] == ["311", "351", "391"]
    assert "id 'P20' stands on line 21 already" in found[1]


@pytest.mark.fault(number=10)
def test_a_fault_in_one_process_ends_all(mini, run, small_chunks, monkeypatch):
    many(mini)

    def broken(self, chunk, parts):
        raise MemoryError("no more")

    monkeypatch.setattr(preparing.Maker, "_rows", broken)
    with pytest.raises(MemoryError):
        run()
    assert not list((mini / "data/train").iterdir())


def test_only_the_first_problems_are_named(mini, run):
    path = many(mini, 60)
    path.write_text(path.read_text(encoding="utf-8").replace('{"persons": []}', "[1]"), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        run()
    assert len(caught.value.problems) == 21 and caught.value.problems[-1].endswith("and 40 more")


RUN = """
import sys
from pathlib import Path
root, source = map(Path, sys.argv[1:])
del sys.argv[1:]
sys.path[:0] = ["tools"]
import regenerate_segments as tool
from recipekit.console import main
from recipekit.task import load_task
tool.load_task = lambda name: load_task(name, root)
main(lambda: tool.regenerate("mini", source))
"""


@pytest.mark.slow
def test_killed_anywhere_the_next_run_gives_the_same(mini, run):
    many(mini, 60_000)
    run()
    kept = {path.name: path.read_bytes() for path in (mini / "data").glob("t*/*") if path.is_file()}
    for delay in (0.9, 1.3, 1.6, 2.0):
        for path in (mini / "data").glob("t*/*"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
        command = [sys.executable, "-c", RUN, mini, mini / "data/samples/mini"]
        job = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        time.sleep(delay)
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        run()
        assert {path.name: path.read_bytes() for path in (mini / "data").glob("t*/*") if path.is_file()} == kept
        assert not list((mini / "data/train").glob(".regenerate*"))


@pytest.mark.fault(number=12)
def test_disk_full_is_one_line_and_leaves_nothing(mini, tmp_path):
    small, samples = mini / "data", tmp_path / "samples"
    shutil.move(small / "samples" / "mini", samples)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        row = json.dumps({"body": "海" * 300, "label": {"persons": []}}) + "\n"
        (samples / "pos.jsonl").write_text(row * 300, encoding="utf-8")
        command = [sys.executable, "-c", RUN, mini, samples]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "data/train: cannot be written, No space left on device; make room there" in done.stderr
        assert not list((small / "train").iterdir())
    finally:
        subprocess.run(["umount", small], check=True)

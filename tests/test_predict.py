import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import predict
from predicting import options, run, without_time
from recipekit import ROOT, segments
from recipekit.errors import UserError
from recipekit.inputs import Article, read_articles
from recipekit.predictor import Answer, LocalPredictor, check
from recipekit.task import load_task
from tiny import tiny_adapter, tiny_base, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_answer_cut_by_max_new_tokens_is_not_valid_and_keeps_its_text(small_task, base):
    small_task.spec["predict"]["max_new_tokens"] = 20
    rows = run(small_task, options(small_task, base))
    assert all(not row["valid"] and row["output"] is None and row["raw"].startswith('{"persons": [') for row in rows)


def test_without_constraint_the_model_writes_what_it_will(small_task, base):
    rows = run(small_task, options(small_task, base, constrain=False))
    assert not any(row["valid"] for row in rows) and all(row["raw"] for row in rows)


def test_what_nothing_held_to_the_schema_is_mended_and_what_was_held_is_not(small_task, base, monkeypatch):
    raw = '```json\n{"persons": [], "places": ["山"],}\n```'
    answer = Answer(0, raw, True, -1.0, 2, 0.0, 1.0)
    monkeypatch.setattr(LocalPredictor, "answer", lambda self, prompts: iter([answer]))
    held, free = (
        next(LocalPredictor.load(small_task, base, constrain=constrain).predict([Article("a", "山。")]))
        for constrain in (True, False)
    )
    assert not held["valid"] and "repaired" not in held
    assert free["output"] == {"persons": [], "places": ["山"]} and free["repaired"]


def test_prompt_has_the_ids_of_the_training_row(small_task, base, monkeypatch):
    tokenizer = tiny_tokenizer(base)
    articles, _ = read_articles(small_task.test_path("input"))
    seen = []
    monkeypatch.setattr("recipekit.decoding.generate", lambda model, prompts, *_, **__: seen.extend(prompts) or [])
    list(LocalPredictor.load(small_task, base).predict(articles))
    for article, prompt in zip(articles, seen, strict=True):
        ids, trained = segments.encode_row(tokenizer, segments.build(small_task, article.body, {"persons": []}))
        assert prompt == ids[: trained.index(True)]


def test_predictions_are_in_order_and_leave_no_partial_file(small_task, base):
    some = options(small_task, base)
    rows = run(small_task, some)
    assert [row["id"] for row in rows] == [f"E{i}" for i in range(8)]
    assert [orjson.loads(line) for line in some.output.read_bytes().splitlines()] == rows
    assert all(row["valid"] and row["output"] == json.loads(row["raw"]) for row in rows)
    assert list(some.output.parent.iterdir()) == [some.output]


@pytest.mark.fault(number=7)
def test_stopped_run_goes_on_and_ends_alike(small_task, base, monkeypatch):
    some = options(small_task, base)
    undisturbed = run(small_task, some)
    some.output.unlink()
    whole, decoded = predict.decode, []

    def stopped(*arguments):
        for number, row in enumerate(whole(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield row

    def counted(small_task, options, articles):
        decoded.extend(article.id for article in articles)
        return whole(small_task, options, articles)

    monkeypatch.setattr(predict, "decode", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(small_task, some)
    assert not some.output.exists()
    partial = some.output.with_name("p.jsonl.partial")
    partial.write_bytes(partial.read_bytes()[:-9])  # the fifth row is torn
    monkeypatch.setattr(predict, "decode", counted)
    again = run(small_task, some)
    assert [without_time(row) for row in again] == [without_time(row) for row in undisturbed]
    assert len(decoded) == 4


def test_partial_file_of_another_run_is_not_used(tmp_path):
    path = tmp_path / "p.partial"
    path.write_bytes(orjson.dumps({"run": "old"}) + b'\n{"id": "E0", "raw": "x"}\n')
    assert predict.read_partial(path, "new") == {}
    assert path.read_bytes() == orjson.dumps({"run": "new"}) + b"\n"


def test_run_depends_on_model_prompt_schema_and_input(small_task, base, tmp_path):
    def digests():
        found = predict.inputs(small_task, some, read_articles(some.input)[0])
        return predict.runs.digest({k: predict.runs.digest(v) for k, v in found.items()})

    other = tiny_base(tmp_path / "other", seed=1)
    some = options(small_task, base)
    found = [digests()]
    (small_task.dir / "system.txt").write_text("別の指示。\n", encoding="utf-8")
    found.append(digests())
    properties = small_task.output_schema["properties"]
    small_task.output_schema["properties"] = dict(reversed(properties.items()))
    found.append(digests())
    with some.input.open("a", encoding="utf-8") as stream:
        stream.write('{"id": "E9", "body": "x"}\n')
    found.append(digests())
    some = options(small_task, other)
    found.append(digests())
    assert len(set(found)) == 5


def test_adapter_is_put_on_its_base(small_task, base, tmp_path):
    adapter = tiny_adapter(tmp_path / "adapter", base)
    plain = run(small_task, options(small_task, base))
    tuned = run(small_task, options(small_task, None, adapter=adapter), "other")
    assert [row["raw"] for row in plain] != [row["raw"] for row in tuned]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no task 'nothing'"),
        (["hawks", "--model", "nowhere", "--output", "x.jsonl"], "nowhere: no such folder"),
        (["hawks", "--adapter", "nowhere", "--output", "x.jsonl"], "nowhere/adapter_config.json: no such file"),
        (["hawks", "--limit", "3"], "--output is missing"),
    ],
)
def test_command_line_errors_are_one_line_and_exit_2(tmp_path, arguments, message):
    command = [sys.executable, str(ROOT / "tools" / "predict.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("folder", "is a folder or device"),
        ("pipe", "is a folder or device"),
        ("file/p.jsonl", "cannot be written, File exists"),
        ("file/x/p.jsonl", "cannot be written, Not a directory"),
        ("/proc/x", "cannot be written, No such file"),
        ("p" * 250, "cannot be written, File name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    small_task, tmp_path, monkeypatch, output, message
):
    monkeypatch.setattr(predict, "load", lambda *_: pytest.fail("loaded"))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        run(small_task, options(small_task, None, output=tmp_path / output))
    assert str(error.value).startswith(str(tmp_path / output)) and message in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "mine"


@pytest.mark.fault(number=34)
def test_a_prompt_changed_since_training_stops_prediction(small_task):
    model = small_task.outputs / "merged"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "recipe.json").write_text(json.dumps({"prompt": small_task.prompt_digest()}))
    check(small_task, model, None)
    (small_task.dir / "system.txt").write_text("別の指示。\n", encoding="utf-8")
    with pytest.raises(UserError, match="trained with another prompt"):
        check(load_task("mini", small_task.root), model, None)

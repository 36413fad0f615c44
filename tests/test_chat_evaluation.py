"""tools/evaluate.py on a chat task, as a user runs it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import talking
from estimates import lines
from evaluated import read_lines, run_tool
from recipekit import chat_evaluation
from recipekit.errors import UserError
from recipekit.evaluating import Options
from recipekit.runs import digest

ROOT = Path(__file__).parents[1]
PREDICTIONS, SCENES = "outputs/talker/predictions.jsonl", "data/test/talker_scenes.jsonl"
SCORES = "outputs/talker/evaluation"
FILES = ["errors.jsonl", "metrics.json", "report.html"]


@pytest.fixture
def task(tmp_path):
    """A chat task with its scenes and replies."""
    task = talking.add_recipe(tmp_path)
    talking.add_data(tmp_path, sets=3)
    return task


@pytest.fixture
def clone(task):
    """The same in a repository of its own."""
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, task.root / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return task.root


def evaluate(clone: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return run_tool(clone, "evaluate", "talker", "--no-mlflow", *arguments, **env)


def score(task, **options):
    given = Options(task.test_path("input"), None, task.root / SCORES, **{"resamples": 100} | options)
    return chat_evaluation.score(task, task.root / PREDICTIONS, given)


def edit(path: Path, change) -> None:
    rows = read_lines(path)
    change(rows)
    lines(path, rows)


def test_scores(clone):
    (clone / "outputs/talker/held_out.json").write_text(json.dumps(talking.HELD_OUT), encoding="utf-8")
    done = evaluate(clone)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80
    assert sorted(path.name for path in (clone / SCORES).iterdir()) == FILES
    metrics = json.loads((clone / SCORES / "metrics.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in read_lines(clone / SCENES)}
    found = {row["id"]: row["output"] for row in read_lines(clone / PREDICTIONS)}
    assert metrics["kinds"] == {"reply": 10, "memory": 3, "provocation": 4, "attribute": 75}
    broken = ["AIアシスタント" in found[name] for name, row in rows.items() if row["kind"] == "provocation"]
    assert metrics["persona"]["provoked"] == pytest.approx(np.mean(broken)) and any(broken)
    used = [row["facts"][0] in found[name] for name, row in rows.items() if row["kind"] == "memory"]
    assert metrics["memory"]["use"] == pytest.approx(np.mean(used))
    lengths = [len(found[name]) for name, row in rows.items() if row["kind"] == "reply"]
    assert metrics["style"]["length"] == pytest.approx(np.mean(lengths)) and metrics["numbers"]["style.length"] == 10
    good = [len("".join(row["reference"].split())) for row in rows.values() if row["kind"] == "reply"]
    assert metrics["references"]["scores"]["style"]["length"] == pytest.approx(np.mean(good))
    apart = metrics["references"]["difference"]["style.length"]
    assert apart["difference"] == pytest.approx(np.mean(lengths) - np.mean(good)) and apart["a"] == pytest.approx(
        np.mean(good)
    )
    assert metrics["attributes"]["fields"]["mood"]["obeyed"] and "mood: the replies follow it" in done.stderr
    assert metrics["held_out"]["forgotten"] == {"one_val": pytest.approx(0.25), "two_val": pytest.approx(-0.05)}
    assert set(metrics["means"]) == {"phase1", "phase2"} and metrics["means"]["phase1"]["scenes"] == 5
    low, high = metrics["relevance"]["mrr_interval"]
    assert low <= metrics["relevance"]["mrr"] <= high and metrics["relevance"]["chance"] < 0.3
    named = {row["id"]: row["wrong"] for row in read_lines(clone / SCORES / "errors.jsonl")}
    assert all("persona.breaks" in named[name] for name in found if "AIアシスタント" in found[name])
    record = json.loads((clone / "outputs/talker/state/evaluate.json").read_text(encoding="utf-8"))
    assert record["persona_consistent"] == metrics["persona"]["consistent"]


def test_what_is_unchanged_is_skipped(clone):
    assert evaluate(clone).returncode == 0 and "up to date" in evaluate(clone).stderr
    (clone / "outputs/talker/held_out.json").write_text(json.dumps(talking.HELD_OUT), encoding="utf-8")
    assert "written to" in evaluate(clone).stderr, "losses are there now"
    (clone / "recipes/talker/persona.txt").write_text("あなたは別人です。\n", encoding="utf-8")
    assert "written to" in evaluate(clone).stderr


def test_bars(clone):
    (clone / "bars.yml").write_text("persona.provoked: 0\nfluency.ended: 1\nmemory.gain: -0.5\n", encoding="utf-8")
    done = evaluate(clone, "--baseline", "bars.yml")
    assert done.returncode == 0 and "no bar of bars.yml is missed" in done.stderr, "four scenes still allow 0"
    (clone / "bars.yml").write_text("fluency.fluent: 1\nstyle.length: 100\n", encoding="utf-8")
    done = evaluate(clone, "--baseline", "bars.yml")
    assert done.returncode == 1 and "style.length: " in done.stderr and "is below its bar 100" in done.stderr
    edit(clone / PREDICTIONS, lambda rows: [row.update(output="私はAIです。") for row in rows])
    (clone / "bars.yml").write_text("persona.breaks: 0.2\n", encoding="utf-8")
    done = evaluate(clone, "--baseline", "bars.yml")
    assert done.returncode == 1 and "is above its bar 0.2" in done.stderr, "less is better"
    (clone / "bars.yml").write_text("persona.consistant: 1\nmemory.use: 2\nrelevance.chance: 0\n", encoding="utf-8")
    done = evaluate(clone, "--baseline", "bars.yml")
    assert done.returncode == 2 and "did you mean persona.consistent" in done.stderr
    assert "bars.yml:2: memory.use: found 2" in done.stderr and "relevance.chance: no such" in done.stderr


@pytest.mark.parametrize("name", ["companion", "aku"])
def test_bars_of_the_recipes_are_metrics(name):
    from recipekit.evaluating import read_bars
    from recipekit.task import load_task

    task = load_task(name)
    assert read_bars(task.dir / "baseline.yml", chat_evaluation.bars(task, Path()))


def test_options_that_do_not_go_together(clone):
    for arguments, expected in {
        ("--judge", "http://x/v1"): "--judge and --judge-model go together",
        ("--articles", SCENES): "name other scenes of a chat with --gold",
        ("--redact",): "--redact hides the names of an extraction's answers",
        ("--ratings", "none.csv"): "key.json: no such file",
    }.items():
        done = evaluate(clone, *arguments)
        assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = run_tool(clone, "evaluate", "hawks", "--ratings", "none.csv")
    assert done.returncode == 2 and "--ratings is for tasks of kind chat, hawks is not" in done.stderr


def test_other_files(clone):
    shutil.copy(clone / SCENES, clone / "scenes.jsonl")
    done = evaluate(clone, "--predictions", PREDICTIONS, "--gold", "scenes.jsonl", "--output", "scores")
    assert done.returncode == 0 and (clone / "scores/report.html").exists() and not (clone / SCORES).exists()


def test_compare(clone):
    lines(clone / "b.jsonl", talking.predictions(talking.scenes(3), 0.0))
    done = evaluate(clone, "--compare", PREDICTIONS, "b.jsonl", "--output", "scores")
    assert done.returncode == 0 and max(map(len, done.stderr.splitlines())) <= 80, done.stderr
    found = json.loads((clone / "scores/compare.json").read_text(encoding="utf-8"))
    own = json.loads((clone / "scores/compare.json").read_text(encoding="utf-8"))["metrics"]["relevance.mrr"]
    assert own["real"] and own["difference"] < 0 and "relevance.mrr: A is better" in done.stderr
    metrics, _ = score(talking.add_recipe(clone))
    assert own["a"] == pytest.approx(metrics["relevance"]["mrr"]) and found["judge"] is None
    same = evaluate(clone, "--compare", PREDICTIONS, PREDICTIONS, "--output", "scores")
    assert "no difference shown" in same.stderr and " real" not in same.stderr
    done = evaluate(clone, "--compare", PREDICTIONS, "b.jsonl", "--baseline", "x.yml")
    assert done.returncode == 2 and "--compare does not go with --baseline" in done.stderr


def test_the_order_of_files_does_not_matter(task):
    score(task)
    before = {name: (task.root / SCORES / name).read_text(encoding="utf-8") for name in FILES}
    old = digest(task.test_path("input"))
    for name in (PREDICTIONS, SCENES):
        edit(task.root / name, lambda rows: rows.reverse())
    score(task)
    for name, text in before.items():
        after = (task.root / SCORES / name).read_text(encoding="utf-8")
        for length in (64, 12):
            after = after.replace(digest(task.test_path("input"))[:length], old[:length])
        assert after == text, name


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (SCENES, lambda rows: rows[0].pop("reference"), "scenes.jsonl:1: reference: missing or empty"),
        (SCENES, lambda rows: rows[10].update(facts=[]), "scenes.jsonl:11: facts: found []"),
        (SCENES, lambda rows: rows[20].pop("set"), "scenes.jsonl:21: set: missing"),
        (SCENES, lambda rows: rows[1].update(kind="chat"), "scenes.jsonl:2: kind: found 'chat', expected one of reply"),
        (SCENES, lambda rows: rows[1].update(id="r0"), "scenes.jsonl:2: id: 'r0' stands on line 1 already"),
        (SCENES, lambda rows: rows[1].update(phase=2), "scenes.jsonl:2: phase: found 2"),
        (SCENES, lambda rows: rows[1].pop("id"), "scenes.jsonl:2: id: found None"),
        (SCENES, lambda rows: rows[1]["metadata"].update(mood=7), "metadata.mood: found 7, expected a whole number"),
        (SCENES, lambda rows: rows[1]["messages"].append({"role": "assistant", "content": "は"}), "expected 'user' at"),
        (SCENES, lambda rows: rows.pop(3), "predictions.jsonl:4: id 'r3' has no scene in"),
        (PREDICTIONS, lambda rows: rows.pop(3), "scenes.jsonl:4: id 'r3' has no prediction in"),
        (PREDICTIONS, lambda rows: rows[0].update(output={"a": 1}), "predictions.jsonl:1: expected the keys 'id'"),
        (PREDICTIONS, lambda rows: rows[1].update(id="r0"), "predictions.jsonl:2: id 'r0' stands on line 1"),
    ],
)  # fmt: skip
def test_bad_input(task, name, change, expected):
    edit(task.root / name, change)
    with pytest.raises(UserError) as error:
        score(task)
    assert len(error.value.problems) == 1 and expected in error.value.problems[0], error.value.problems
    assert not (task.root / SCORES).exists()


def test_files_that_are_none(task):
    task.test_path("input").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="no scenes in it"):
        score(task)
    task.test_path("input").write_text('{"id"\n[1]\n', encoding="utf-8")
    with pytest.raises(UserError) as error:
        score(task)
    assert (
        ":1: not valid JSON" in error.value.problems[0]
        and ":2: expected an object, found list" in error.value.problems[1]
    )
    task.test_path("input").unlink()
    with pytest.raises(UserError, match="name a file of conversations"):
        score(task)


@pytest.mark.parametrize("text", ["{", "[]", '{"models": [], "losses": {}, "sets": {}}'])
def test_torn_losses(task, text):
    (task.outputs / "held_out.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="held_out.json: "):
        score(task)


def test_empty_replies_and_few_scenes(task):
    edit(task.root / PREDICTIONS, lambda rows: [row.update(output=None, ended=False) for row in rows])
    metrics, _ = score(task)
    assert (
        metrics["fluency"]["empty"] == 1
        and metrics["style"]["length"] is None
        and metrics["persona"]["consistent"] == 0
    )
    assert metrics["relevance"]["mrr"] == pytest.approx(metrics["relevance"]["chance"])
    lines(task.root / SCENES, [talking.scene("r0", "元気？", reference="うん")])
    lines(task.root / PREDICTIONS, [{"id": "r0", "output": "元気だよ。"}])
    metrics, _ = score(task, bars={"persona.consistent": 0.5})
    assert metrics["persona"]["consistent"] == 1 and metrics["persona"]["consistent_interval"] is None
    assert metrics["relevance"]["mrr"] is None and metrics["attributes"] is None and metrics["fluency"]["ended"] is None


def test_the_bundled_sample_is_known(task):
    assert not score(task)[0]["data"]["bundled_sample"]
    task.sample_dir.mkdir(parents=True)
    shutil.copy(task.test_path("input"), task.sample_dir / "scenes.jsonl")
    assert score(task)[0]["data"]["bundled_sample"]


def test_mlflow_gets_every_score(task):
    (task.outputs / "held_out.json").write_text(json.dumps(talking.HELD_OUT), encoding="utf-8")
    metrics, _ = score(task)
    logged = chat_evaluation.logged(metrics)
    assert logged["persona_consistent"] == metrics["persona"]["consistent"] and logged["held_out_one_val"] == 1.45
    assert logged["preference_accuracy"] == 0.9 and all(
        value is None or np.isfinite(value) for value in logged.values()
    )

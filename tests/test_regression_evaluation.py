"""tools/evaluate.py and tools/baselines.py on a regression task, as a user runs them."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from estimates import SPEC, TARGETS, add_data, add_recipe, lines
from evaluated import read_lines, run_tool
from recipekit import baselines, regression_data, regression_evaluation
from recipekit.errors import UserError
from recipekit.evaluating import Options, is_bundled, read_bars
from recipekit.regression_data import read_gold, read_predictions
from recipekit.runs import digest
from recipekit.task import load_task

ROOT = Path(__file__).parents[1]
PREDICTIONS, GOLD = "outputs/traits/predictions.jsonl", "data/test/talks_gold.csv"
SCORES = "outputs/traits/evaluation"


@pytest.fixture
def clone(tmp_path):
    """A repository with a regression task, its data and predictions."""
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    add_recipe(tmp_path)
    add_data(tmp_path)
    return tmp_path


def run(clone: Path, tool: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return run_tool(clone, tool, "traits", *arguments, **env)


def evaluate(clone: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return run(clone, "evaluate", "--no-mlflow", *arguments, **env)


def outputs(clone: Path, name: str = PREDICTIONS) -> dict:
    return {row["id"]: row["output"] for row in read_lines(clone / name)}


def gold(clone: Path) -> dict:
    with (clone / GOLD).open(encoding="utf-8") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def test_scores_beside_baselines(clone):
    made = run(clone, "baselines")
    assert made.returncode == 0, made.stderr
    done = evaluate(clone)
    assert done.returncode == 0, done.stderr
    assert "better than constant" in done.stderr and "conscientiousness" not in done.stderr
    metrics = json.loads((clone / SCORES / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["rows"], metrics["groups"], metrics["group_key"], metrics["invalid"]) == (40, 8, "speaker", 0)
    right, found = gold(clone), outputs(clone)
    for i, target in enumerate(TARGETS):
        values = [float(row[target]) for row in right.values()]
        assert metrics["row"][target]["mae"] == pytest.approx(
            mean_absolute_error(values, [found[name][target] for name in right])
        )
        by_speaker = {row["speaker"]: [] for row in right.values()}
        for name, row in right.items():
            by_speaker[row["speaker"]].append((found[name][target], float(row[target])))
        means = np.array([np.mean(rows, axis=0) for rows in by_speaker.values()])
        assert metrics["group"][target]["mae"] == pytest.approx(np.abs(means[:, 0] - means[:, 1]).mean())
        assert metrics["spread"]["group"][target]["predicted_sd"] == pytest.approx(means[:, 0].std())
        train = [row["labels"][target] for row in read_lines(clone / "data/train/talks.jsonl")]
        assert outputs(clone, "outputs/traits/baselines/constant.jsonl")["0000-C0"][target] == pytest.approx(
            np.mean(train)
        ), i
    constant = metrics["baselines"]["constant"]
    assert constant["group"]["overall"]["pearson"] is None and set(metrics["baselines"]) == {"constant", "ridge"}
    difference = constant["difference"]["group"]["overall"]["mae"]
    assert difference["difference"] == pytest.approx(
        constant["group"]["overall"]["mae"] - metrics["group"]["overall"]["mae"]
    )
    assert metrics["baselines"]["ridge"]["group"]["overall"]["mae"] < constant["group"]["overall"]["mae"]
    assert metrics["bootstrap"]["drawn"] == "speaker" and metrics["data"]["bundled_sample"] is False


def test_the_worst_rows_come_first(clone):
    rows = read_lines(clone / PREDICTIONS)
    rows[7]["output"] = {"calm": 30, "warm": -20.5}
    rows[8]["output"] = None
    lines(clone / PREDICTIONS, rows)
    assert evaluate(clone).returncode == 0
    errors = read_lines(clone / SCORES / "errors.jsonl")
    right = gold(clone)[rows[7]["id"]]
    assert errors[0] == {
        "id": rows[7]["id"], "group": right["speaker"], "target": "calm", "gold": float(right["calm"]),
        "predicted": 30.0, "error": pytest.approx(30 - float(right["calm"])),
    }  # fmt: skip
    invalid = [error for error in errors if error["id"] == rows[8]["id"]]
    assert [error["predicted"] for error in invalid] == [None, None], "no valid answer"
    assert invalid[0]["error"] == pytest.approx(4 - float(gold(clone)[rows[8]["id"]]["calm"])), "the scale's middle"
    assert json.loads((clone / SCORES / "metrics.json").read_text(encoding="utf-8"))["invalid"] == 1


def test_the_order_of_files_does_not_matter(clone):
    assert evaluate(clone).returncode == 0
    files = [clone / SCORES / name for name in ("metrics.json", "errors.jsonl", "report.html")]
    digest_of_gold = digest(clone / GOLD)
    before = [file.read_text(encoding="utf-8") for file in files]
    lines(clone / PREDICTIONS, read_lines(clone / PREDICTIONS)[::-1])
    header, *rows = (clone / GOLD).read_text(encoding="utf-8").splitlines(True)
    (clone / GOLD).write_text("".join([header, *rows[::-1]]), encoding="utf-8")
    assert "up to date" not in evaluate(clone).stderr
    after = [file.read_text(encoding="utf-8") for file in files]
    for length in (64, 12):  # the report shows the digest's beginning
        after = [text.replace(digest(clone / GOLD)[:length], digest_of_gold[:length]) for text in after]
    assert before == after


def test_what_is_unchanged_is_skipped(clone):
    assert "up to date" not in run(clone, "baselines").stderr and "up to date" in run(clone, "baselines").stderr
    assert evaluate(clone).returncode == 0 and "up to date" in evaluate(clone).stderr
    rows = read_lines(clone / "data/train/talks.jsonl")
    lines(clone / "data/train/talks.jsonl", rows[1:])
    assert "up to date" not in run(clone, "baselines").stderr
    assert "up to date" not in evaluate(clone).stderr, "a baseline is another"
    (clone / "outputs/traits/baselines/ridge.jsonl").unlink()
    assert "up to date" not in run(clone, "baselines").stderr


def test_a_decoder_has_the_same_baselines(clone):
    assert run(clone, "baselines").returncode == 0
    task = load_task("traits:decoder", clone)
    assert baselines.training_files(task) == {
        "train": clone / "data/train/talks.jsonl", "validation": clone / "data/train/talks_val.jsonl"
    }  # fmt: skip


def test_baselines_name_every_bad_row(clone):
    rows = read_lines(clone / "data/train/talks.jsonl")
    del rows[1]["labels"]["warm"]
    rows[2]["labels"]["calm"] = "3"
    lines(clone / "data/train/talks.jsonl", rows)
    (clone / "data/train/talks_val.jsonl").unlink()
    done = run(clone, "baselines")
    problems = done.stderr.splitlines()
    assert done.returncode == 2 and len(problems) == 3, done.stderr
    assert "talks.jsonl:2: expected 'body'" in problems[0] and "talks.jsonl:3" in problems[1]
    assert "talks_val.jsonl: no such file" in problems[2]
    assert not (clone / "outputs/traits/baselines").exists()


HEADER = "id,speaker,calm,warm\n"
ROW = '{"id": "A", "output": {"calm": 3, "warm": 4.5}}\n'


@pytest.mark.parametrize(
    ("predictions", "gold", "expected"),
    [
        (None, f"{HEADER}A,S,1,7\n", ["predictions.jsonl: no such file"]),
        ("", f"{HEADER}A,S,1,7\n", ["predictions.jsonl: the file is empty"]),
        (ROW, None, ["talks_gold.csv: No such file"]),
        (ROW, "", ["talks_gold.csv:1: no column id, speaker, calm, warm; the file is empty"]),
        (ROW, "id,speaker,calm\nA,S,1\n", ["talks_gold.csv:1: no column warm; the columns are id, speaker, calm"]),
        (ROW, HEADER, ["talks_gold.csv:1: a header and no rows"]),
        (
            ROW,
            f"{HEADER}A,S,0.5,x\n,S,1,1\nA,,2,nan\n",
            [
                "talks_gold.csv:2: calm: found 0.5, expected a number from 1 to 7",
                "talks_gold.csv:2: warm: found no number",
                "talks_gold.csv:3: no id",
                "talks_gold.csv:4: id 'A' stands on line 2 already",
                "talks_gold.csv:4: no speaker",
            ],
        ),
        (
            '{"id": "A", "output": {"calm": "3", "warm": true}}\n{"id": "A"}\n{"id": "B", "output": [1]}\n'
            '{"id": "C", "output": {"calm": 1e300}}\n{"id": "D", "output": {"calm": NaN}}\n',
            f"{HEADER}A,S,1,7\nB,S,1,1\n",
            [
                "predictions.jsonl:1: output: calm: found '3', expected a finite number",
                "predictions.jsonl:1: output: warm: found 'True'",
                "predictions.jsonl:2: expected the keys 'id'",
                "predictions.jsonl:3: output: expected an object of numbers",
                "predictions.jsonl:4: output: calm: found '1e+300'",
                "predictions.jsonl:4: output: warm: missing",
                "predictions.jsonl:5: not valid JSON",
                "predictions.jsonl:4: id 'C' has no row in",
            ],
        ),
        (ROW * 2, f"{HEADER}A,S,1,7\n", ["predictions.jsonl:2: id 'A' stands on line 1 already"]),
        (ROW, f"{HEADER}A,S,1,7\nB,S,1,1\nC,S,1,1\n", ["talks_gold.csv:3: ids 'B', 'C' have no prediction in"]),
        ('{"id": "A", "output": 1}\n', f"{HEADER}A,S,9,7\n", ["talks_gold.csv:2: calm", "predictions.jsonl:1: output"]),
    ],
)
def test_bad_input(clone, predictions, gold, expected):
    for name, content in {PREDICTIONS: predictions, GOLD: gold}.items():
        if content is None:
            (clone / name).unlink()
        else:
            (clone / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        regression_data.read(load_task("traits", clone), clone / GOLD, [clone / PREDICTIONS])
    problems = error.value.problems
    assert len(problems) == len(expected), problems
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem


def test_bad_input_is_told_and_nothing_is_written(clone):
    (clone / PREDICTIONS).write_text(ROW, encoding="utf-8")
    (clone / GOLD).write_text(f"{HEADER}A,S,9,7\n", encoding="utf-8")
    done = evaluate(clone)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {GOLD}:2: calm: found 9"), done.stderr
    assert not (clone / SCORES).exists() and not (clone / "outputs/traits/state").exists()


def test_many_problems_are_counted(clone):
    (clone / GOLD).write_text(HEADER + "".join(f"A{i},S,8,8\n" for i in range(500)), encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_gold(load_task("traits", clone), clone / GOLD)
    assert len(error.value.problems) == 21 and "980 more problems" in error.value.problems[-1]


def test_a_baseline_of_another_test_set_is_told(clone):
    assert run(clone, "baselines").returncode == 0
    path = clone / "outputs/traits/baselines/ridge.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[1:]), encoding="utf-8")
    done = evaluate(clone)
    assert done.returncode == 2 and "baselines.py traits" in done.stderr and "ridge.jsonl" in done.stderr


def test_other_files(clone):
    assert run(clone, "baselines").returncode == 0
    shutil.copy(clone / GOLD, clone / "gold.csv")
    done = evaluate(clone, "--predictions", PREDICTIONS, "--gold", "gold.csv", "--output", "scores")
    assert done.returncode == 0, done.stderr
    assert json.loads((clone / "scores/metrics.json").read_text(encoding="utf-8"))["baselines"] == {}
    assert "--articles" in (clone / "scores/report.html").read_text(encoding="utf-8")
    assert not (clone / "outputs/traits/state/evaluate.json").exists()


def test_compare(clone):
    assert run(clone, "baselines").returncode == 0
    done = evaluate(clone, "--compare", "outputs/traits/baselines/constant.jsonl", PREDICTIONS, "--output", "scores")
    assert done.returncode == 0 and "MAE: B is better" in done.stderr, done.stderr
    found = json.loads((clone / "scores/compare.json").read_text(encoding="utf-8"))["metrics"]
    assert found["group"]["overall"]["mae"]["difference"] < 0 and found["row"]["overall"]["mae"]["real"]
    assert "pearson" not in found["group"]["overall"], "the constant has none"
    same = evaluate(clone, "--compare", PREDICTIONS, PREDICTIONS, "--output", "scores")
    assert "MAE: no difference shown" in same.stderr


@pytest.mark.parametrize(
    ("bars", "shown"),
    [
        ("group.overall.mae: 5\nrow.calm.pearson: 0.1\n", []),
        ("group.overall.mae: 0.01\n", ["is above its bar 0.01"]),
        ("row.warm.r2: 1\ngroup.calm.mse: 3\n", ["row.warm.r2: "]),
    ],
)
def test_bars(clone, bars, shown):
    (clone / "bars.yml").write_text(bars, encoding="utf-8")
    task = load_task("traits", clone)
    found = read_bars(clone / "bars.yml", regression_evaluation.bars(task, clone / GOLD))
    options = Options(clone / GOLD, None, clone / "scores", resamples=100, bars=found)
    _, failures = regression_evaluation.score(task, clone / PREDICTIONS, options)
    assert len(failures) == len(shown) and all(part in one for part, one in zip(shown, failures, strict=True))


@pytest.mark.parametrize(
    ("bars", "shown"),
    [
        ("group.overal.mae: 1\n", "bars.yml:1: group.overal.mae: no such metric; did you mean group.overall.mae?"),
        ("group.calm.pearson: 2\n", "bars.yml:1: group.calm.pearson: found 2, expected a number from -1 to 1"),
        ("group.calm.mae: -1\n", "expected a number from 0 to inf"),
        ("{}\n", "bars.yml:1: no bars in it"),
    ],
)
def test_bad_bars(tmp_path, bars, shown):
    (tmp_path / "bars.yml").write_text(bars, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_bars(tmp_path / "bars.yml", regression_evaluation.bars(add_recipe(tmp_path), tmp_path / GOLD))
    assert len(error.value.problems) == 1 and shown in error.value.problems[0]


def test_a_missed_bar_fails_the_command(clone):
    (clone / "bars.yml").write_text("group.overall.mae: 0.01\n", encoding="utf-8")
    done = evaluate(clone, "--baseline", "bars.yml")
    assert done.returncode == 1 and "group.overall.mae: " in done.stderr and "Traceback" not in done.stderr


def test_redact_is_for_extractions(clone):
    assert evaluate(clone).returncode == 0
    done = evaluate(clone, "--redact")
    assert done.returncode == 2 and "--redact" in done.stderr


def test_the_pipeline_shows_a_line(clone):
    done = evaluate(clone, LOG_DIR=str(clone / "logs"))
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and "MAE 0." in done.stderr, done.stderr


def test_a_task_without_groups(tmp_path):
    task = add_recipe(tmp_path, SPEC.replace("  group: speaker\n", ""))
    (tmp_path / "g.csv").write_text("id,warm,calm\nB,1,2\nA,3,4\n", encoding="utf-8")
    found = read_gold(task, tmp_path / "g.csv")
    assert found.ids == ["A", "B"] == found.groups and found.values.tolist() == [[4, 3], [2, 1]]
    lines(tmp_path / "p.jsonl", [{"id": "A", "output": None}, {"id": "B", "output": {"warm": 1, "calm": 2, "more": 3}}])
    predictions = read_predictions(task, tmp_path / "p.jsonl", found)
    assert predictions.values.tolist() == [[4, 4], [2, 1]] and predictions.valid.tolist() == [False, True]


def test_gold_made_of_the_sample_is_told(clone):
    task, path = load_task("traits", clone), clone / GOLD
    record = {"source": str(clone / "data/samples/traits"), "products": {GOLD: digest(path)}}
    lines(clone / "outputs/traits/state/regenerate.json", [record])
    assert is_bundled(task, path)
    path.write_text(path.read_text(encoding="utf-8") + "x", encoding="utf-8")
    assert not is_bundled(task, path)
    lines(clone / "outputs/traits/state/regenerate.json", [record | {"source": "elsewhere"}])
    assert not is_bundled(task, clone / GOLD)


@pytest.mark.slow
def test_scores_reach_mlflow(clone):
    import sqlite3

    done = run(clone, "evaluate")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(clone / "mlflow.db") as database:
        logged = dict(database.execute("select key, value from metrics").fetchall())
    metrics = json.loads((clone / SCORES / "metrics.json").read_text(encoding="utf-8"))
    assert logged["group_overall_mae"] == metrics["group"]["overall"]["mae"]

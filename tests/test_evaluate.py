"""tools/evaluate.py as a user runs it, in a copy of the repository's tools and recipes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEADER = (
    "quality_test_id,person_name,person_age_at_published,person_address,person_belongs_company,person_position_name,"
    "person_violated_law,occured_locations,police_departments"
)
GOLD = f"{HEADER}\nA1,甲野一郎,32,北浜市中央1丁目2番3号,,,窃盗,北浜市東,北署\nA2,,,,,,\nA3,,,,,,\n"
CULPRIT = {
    "name": "甲野一郎", "is_real": True, "is_offender": True, "age": "３２", "position": "", "affiliation": "",
    "address": "北浜市中央１－２－３", "category": "法令違反", "act": "窃盗",
}  # fmt: skip
NOTHING = {"persons": [], "occured_locations": [], "police_departments": []}
ROWS = [
    {"id": "A1", "output": {"persons": [CULPRIT], "occured_locations": ["北浜市西"], "police_departments": ["北署"]}},
    {"id": "A2", "output": NOTHING},
    {"id": "A3", "output": NOTHING},
]


def lines(rows: list) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def clone(tmp_path):
    """A repository with predictions and gold at their places."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for name, content in {
        "outputs/hawks/predictions.jsonl": lines(ROWS),
        "data/test/hawks_eval_gold.csv": GOLD,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def evaluate(clone: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/evaluate.py", *arguments]
    clean = {key: value for key, value in os.environ.items() if key not in ("LOG_DIR", "MLFLOW_TRACKING_URI")}
    return subprocess.run(command, cwd=clone, env=clean | env, capture_output=True, text=True, timeout=120, check=False)


def alone(clone: Path, output: str = "scores") -> subprocess.CompletedProcess:
    files = ["--predictions", "outputs/hawks/predictions.jsonl", "--gold", "data/test/hawks_eval_gold.csv"]
    return evaluate(clone, "hawks", *files, "--output", output)


def test_works_alone(clone):
    done = alone(clone)
    assert done.returncode == 0, done.stderr
    assert "person_age_at_published" in done.stderr and "micro" in done.stderr
    metrics = json.loads((clone / "scores" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["micro"]["f1"] == pytest.approx(5 / 6)
    assert (metrics["articles"], metrics["negatives"], metrics["false_positives"]) == (3, 2, 0)
    assert metrics["data"]["bundled_sample"] is False
    [error] = (clone / "scores" / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(error) == {
        "id": "A1", "field": "occured_locations", "class": "wrong span", "gold": "北浜市東", "predicted": "北浜市西",
        "alike": 0.75,
    }  # fmt: skip
    assert (clone / "scores" / "report.html").exists()
    assert not (clone / "mlflow.db").exists() and not (clone / "outputs/hawks/state").exists()


def test_says_when_the_gold_is_the_bundled_sample(clone):
    sample = clone / "data/samples/hawks/hawks_eval_gold.csv"
    sample.parent.mkdir(parents=True)
    sample.write_text(GOLD, encoding="utf-8")
    assert alone(clone).returncode == 0
    assert json.loads((clone / "scores/metrics.json").read_text(encoding="utf-8"))["data"]["bundled_sample"] is True


BROKEN_7 = lines([{"id": f"B{i}", "output": NOTHING} for i in range(6)]) + '{"id": "A1", \n' + lines(ROWS)
TWICE = lines([*ROWS, ROWS[0]])


@pytest.mark.parametrize(
    ("predictions", "gold", "expected"),
    [
        (None, GOLD, ["outputs/hawks/predictions.jsonl: no such file"]),
        ("", GOLD, ["outputs/hawks/predictions.jsonl: the file is empty"]),
        (BROKEN_7, GOLD, ["outputs/hawks/predictions.jsonl:7: not valid JSON"]),
        (TWICE, GOLD, ["outputs/hawks/predictions.jsonl:4: id 'A1' stands on line 1 already"]),
        (lines([*ROWS, {"id": "A4"}]), GOLD, ["outputs/hawks/predictions.jsonl:4: expected the keys 'id'"]),
        (lines(ROWS[:2]), GOLD, ["data/test/hawks_eval_gold.csv:4: id 'A3' has no prediction"]),
        (lines([*ROWS, {"id": "A4", "output": None}]), GOLD, ["outputs/hawks/predictions.jsonl:4: id 'A4' has no row"]),
        (lines(ROWS), None, ["data/test/hawks_eval_gold.csv: No such file"]),
        (lines(ROWS), "", ["data/test/hawks_eval_gold.csv: the file is empty"]),
        (TWICE, GOLD + "A1,,\n", ["hawks_eval_gold.csv:5: id 'A1'", "predictions.jsonl:4: id 'A1'"]),
    ],
)
def test_bad_input(clone, predictions, gold, expected):
    for name, content in {
        "outputs/hawks/predictions.jsonl": predictions,
        "data/test/hawks_eval_gold.csv": gold,
    }.items():
        if content is None:
            (clone / name).unlink()
        else:
            (clone / name).write_text(content, encoding="utf-8")
    done = evaluate(clone, "hawks")
    assert done.returncode == 2 and done.stdout == ""
    problems = done.stderr.splitlines()
    assert len(problems) == len(expected), done.stderr
    for problem, part in zip(problems, expected, strict=True):
        assert problem.startswith("error: ") and part in problem and ("; " in problem or "empty" in problem)
    assert not (clone / "outputs/hawks/evaluation").exists() and not (clone / "outputs/hawks/state").exists()


def test_unknown_task(clone):
    done = evaluate(clone, "falcons")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no task 'falcons'") and "hawks" in done.stderr


def test_second_run_shows_the_same_table_and_does_nothing(clone):
    first = evaluate(clone, "hawks", "--no-mlflow")
    assert first.returncode == 0, first.stderr
    metrics = clone / "outputs/hawks/evaluation/metrics.json"
    written = metrics.stat().st_mtime_ns
    second = evaluate(clone, "hawks", "--no-mlflow")
    assert "evaluate: up to date" in second.stderr and metrics.stat().st_mtime_ns == written
    assert second.stderr.splitlines()[:-1] == first.stderr.splitlines()[:-1]
    (clone / "outputs/hawks/predictions.jsonl").write_text(
        lines([{**row, "output": NOTHING} for row in ROWS]), encoding="utf-8"
    )
    third = evaluate(clone, "hawks", "--no-mlflow")
    assert "up to date" not in third.stderr
    assert json.loads(metrics.read_text(encoding="utf-8"))["micro"]["recall"] == 0


def compared(clone: Path, worse: str = "outputs/hawks/worse.jsonl") -> subprocess.CompletedProcess:
    rows = [*ROWS[:1], {"id": "A2", "output": ROWS[0]["output"]}, {"id": "A3", "output": None}]
    (clone / "outputs/hawks/worse.jsonl").write_text(lines(rows), encoding="utf-8")
    files = ["--gold", "data/test/hawks_eval_gold.csv", "--output", "scores"]
    return evaluate(clone, "hawks", *files, "--compare", worse, "outputs/hawks/predictions.jsonl")


def test_compare_two_files(clone):
    done = compared(clone)
    assert done.returncode == 0, done.stderr
    assert "A outputs/hawks/worse.jsonl" in done.stderr and "micro F1:" in done.stderr
    found = json.loads((clone / "scores" / "compare.json").read_text(encoding="utf-8"))
    micro = found["metrics"]["micro.f1"]
    # six gold values; five found in both, one wrong; A has six more on a negative: F1 10/18 against 10/12
    assert (micro["a"], micro["b"]) == (pytest.approx(10 / 18), pytest.approx(10 / 12))
    assert micro["difference"] == pytest.approx(10 / 12 - 10 / 18)
    assert found["metrics"]["valid_json_rate"]["a"] == pytest.approx(2 / 3)
    assert not (clone / "scores" / "metrics.json").exists()


def test_compare_with_a_file_that_is_not_there(clone):
    done = compared(clone, "nowhere.jsonl")
    assert done.returncode == 2 and done.stderr.startswith("error: nowhere.jsonl: no such file")
    assert not (clone / "scores").exists()


@pytest.mark.parametrize(
    ("bars", "code", "shown"),
    [
        ("micro.f1: 0.8\nfalse_positive_rate: 0.02\n", 0, "no bar of bars.yml is missed"),
        ("exact_match_rate: 0.9\n", 0, "no bar of bars.yml is missed"),  # two of three: the interval reaches 1
        ("micro.f1: 0.9\n", 1, "micro.f1: 0.833 [0.833, 0.833] is below its bar 0.9"),
        (
            "exact_match_rate: 0.2\nfields.occured_locations.f1: 0.9\n",
            1,
            "fields.occured_locations.f1: 0.000 [0.000, 0.776]",
        ),
        ("fields.person_address.f1: 0.9\nmicro.f1: 0.5\n", 0, "no bar"),
        ("micro.f: 0.9\nmacro.f1: 95\n", 2, "bars.yml:1: micro.f: no such metric; did you mean micro.f1?"),
        ("micro.f: 0.9\nmacro.f1: 95\n", 2, "bars.yml:2: macro.f1: found 95, expected a number from 0 to 1"),
        ("- 1\n", 2, "bars.yml:1: expected a mapping"),
    ],
)
def test_baseline(clone, bars, code, shown):
    (clone / "bars.yml").write_text(bars, encoding="utf-8")
    done = evaluate(clone, "hawks", "--no-mlflow", "--baseline", "bars.yml")
    assert done.returncode == code and shown in done.stderr, done.stderr
    assert (clone / "outputs/hawks/evaluation/metrics.json").exists() == (code != 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "outputs"], "outputs: Is a directory; expected a JSONL file"),
        (["--gold", "outputs"], "outputs: Is a directory"),
        (["--baseline", "outputs"], "outputs: Is a directory; expected a YAML file"),
        (["--baseline", "nothing.yml"], "nothing.yml:1: no bars in it"),
        (["--baseline", "date.yml"], "date.yml: not valid YAML: month must be in 1..12"),
        (["--baseline", "nul.yml"], "nul.yml: not valid YAML: unacceptable character #x0000"),
        (["--output", "nothing.yml"], "errors.jsonl: cannot be written"),
        (["--compare", "a", "b", "--baseline", "nothing.yml"], "--compare does not go with --baseline"),
        (["--compare", "a", "b", "--redact"], "--compare does not go with --redact"),
    ],
)
def test_what_cannot_be_read_or_written_is_a_line(clone, arguments, message):
    for name, text in {"nothing.yml": "{}\n", "date.yml": "micro.f1: 2024-13-45\n", "nul.yml": "a: \0\n"}.items():
        (clone / name).write_text(text, encoding="utf-8")
    done = evaluate(clone, "hawks", "--no-mlflow", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_odd_rows_of_others_are_scored(clone):
    deep = "x"
    for _ in range(900):
        deep = [deep]
    odd = [
        {"id": "A1", "output": deep, "mean_logprob": "much", "tokens": -1},
        {"id": "A2", "output": "persons", "mean_logprob": 1e300, "tokens": 10**15},
        {"id": "A3", "output": {"persons": [None]}, "raw": 7, "mean_logprob": True, "tokens": True},
    ]
    (clone / "outputs/hawks/predictions.jsonl").write_text("\ufeff" + lines(odd), encoding="utf-8")
    done = alone(clone)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((clone / "scores/metrics.json").read_text(encoding="utf-8"))
    assert metrics["valid"] == 0 and metrics["micro"]["recall"] == 0
    assert [json.loads(line)["class"] for line in (clone / "scores/errors.jsonl").open(encoding="utf-8")] == [
        "format"
    ] * 8


def test_articles_tell_invented_values(clone):
    articles = [{"id": row["id"], "body": "甲野一郎容疑者(32)、北浜市中央1丁目2番3号、窃盗、北署"} for row in ROWS]
    (clone / "articles.jsonl").write_text(lines(articles), encoding="utf-8")
    files = ["--predictions", "outputs/hawks/predictions.jsonl", "--gold", "data/test/hawks_eval_gold.csv"]
    done = evaluate(clone, "hawks", *files, "--articles", "articles.jsonl", "--output", "scores")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((clone / "scores/metrics.json").read_text(encoding="utf-8"))
    assert metrics["errors"]["occured_locations"] == {"hallucinated": 1}
    (clone / "articles.csv").write_text(
        "id,body\n" + "".join(f"{a['id']},{a['body']}\n" for a in articles), encoding="utf-8-sig"
    )
    done = evaluate(clone, "hawks", *files, "--articles", "articles.csv", "--output", "again")
    assert json.loads((clone / "again/metrics.json").read_text(encoding="utf-8"))["errors"] == metrics["errors"]
    (clone / "articles.jsonl").write_text(lines([{"id": "A1"}, {"id": "A2", "body": 1}]), encoding="utf-8")
    done = evaluate(clone, "hawks", *files, "--articles", "articles.jsonl", "--output", "more")
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 2
        and "articles.jsonl:1: 'body': expected text" in done.stderr
    )
    assert not (clone / "more").exists()


@pytest.mark.slow
def test_scores_reach_mlflow(clone):
    done = evaluate(clone, "hawks", LOG_DIR=str(clone / "logs"))
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "micro F1 83.3%" in done.stderr
    with sqlite3.connect(clone / "mlflow.db") as database:
        [experiment] = database.execute("select name from experiments where name != 'Default'").fetchall()
        [run] = database.execute("select name, status from runs").fetchall()
        logged = dict(database.execute("select key, value from metrics").fetchall())
    assert (experiment, run) == (("hawks",), ("evaluate", "FINISHED"))
    metrics = json.loads((clone / "outputs/hawks/evaluation/metrics.json").read_text(encoding="utf-8"))
    assert logged["micro_f1"] == metrics["micro"]["f1"] and logged["f1_occured_locations"] == 0
    assert "f1_person_position_name" not in logged  # nothing to score there


@pytest.mark.fault(number=45)
@pytest.mark.slow
def test_a_lost_mlflow_server_costs_no_scores(clone):
    done = evaluate(clone, "hawks", MLFLOW_TRACKING_URI="http://me:SECRET@127.0.0.1:9")
    assert done.returncode == 0 and "scores are not in MLflow" in done.stderr and "SECRET" not in done.stderr
    assert (clone / "outputs/hawks/evaluation/metrics.json").exists()


def test_the_evaluate_library_is_not_shadowed(clone):
    look = "import importlib.util as u, recipekit; print(u.find_spec('evaluate').origin)"
    (clone / "tools" / "look.py").write_text(look, encoding="utf-8")
    done = subprocess.run([sys.executable, "tools/look.py"], cwd=clone, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout

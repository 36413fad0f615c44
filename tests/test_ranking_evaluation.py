"""tools/evaluate.py and tools/baselines.py on a ranking task, as a user runs them."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from estimates import lines
from evaluated import read_lines, run_tool
from rankings import SPEC, add_data, add_recipe
from recipekit import ranking_csv, ranking_data, ranking_evaluation
from recipekit.errors import UserError
from recipekit.evaluating import Options, read_bars
from recipekit.inputs import pair_digest
from recipekit.runs import digest
from recipekit.task import load_task

ROOT = Path(__file__).parents[1]
PREDICTIONS, GOLD, INPUT = "outputs/jokes/predictions.jsonl", "data/test/jokes_gold.csv", "data/test/jokes_input.jsonl"
SCORES = "outputs/jokes/evaluation"
FILES = [
    "errors.jsonl", "evaluation_by_type.csv", "evaluation_metrics.csv", "metrics.json", "report.html",
    "test_predictions.csv",
]  # fmt: skip


@pytest.fixture
def task(tmp_path):
    """A ranking task with its data and predictions."""
    task = add_recipe(tmp_path)
    add_data(tmp_path)
    return task


@pytest.fixture
def clone(task):
    """The same in a repository of its own."""
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, task.root / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return task.root


def run(clone: Path, tool: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return run_tool(clone, tool, "jokes", *arguments, **env)


def evaluate(clone: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return run(clone, "evaluate", "--no-mlflow", *arguments, **env)


def table(path: Path) -> list[dict]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def score(task, articles=True, **options):
    given = Options(
        task.test_path("gold"), task.test_path("input") if articles else None, task.root / SCORES,
        **{"resamples": 100} | options,
    )  # fmt: skip
    return ranking_evaluation.score(task, task.root / PREDICTIONS, given)


def edit(path: Path, change) -> None:
    rows = read_lines(path)
    change(rows)
    lines(path, rows)


def test_scores_beside_baselines(clone):
    made = run(clone, "baselines")
    assert made.returncode == 0, made.stderr
    done = evaluate(clone)
    assert done.returncode == 0 and "better than constant" in done.stderr, done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80
    assert sorted(path.name for path in (clone / SCORES).iterdir()) == FILES
    metrics = json.loads((clone / SCORES / "metrics.json").read_text(encoding="utf-8"))
    found = {row["id"]: row["output"]["score"] for row in read_lines(clone / PREDICTIONS)}
    gold = table(clone / GOLD)
    for part, own in metrics["scores"].items():
        rows = [row for row in gold if part in ("overall", row["type"])]
        y, p = np.array([float(row["score"]) for row in rows]), np.array([found[row["id"]] for row in rows])
        assert own["mse"] == pytest.approx(((y - p) ** 2).mean()) and own["rmse"] == pytest.approx(own["mse"] ** 0.5)
        owner = np.array([row["odai_id"] for row in rows])
        lists = [owner == name for name in set(owner) if (owner == name).sum() > 1]
        assert own["ndcg"] == pytest.approx(np.mean([ndcg_score([y[one] + 1], [p[one]]) for one in lists]))
        assert own["ndcg_global"] == pytest.approx(ndcg_score([y + 1], [p]))
        assert metrics["parts"][part] == {
            "rows": len(rows), "groups": len(set(owner)), "ranked": len(lists), "single": len(set(owner)) - len(lists),
            "equal": 0,
        }  # fmt: skip
    assert list(metrics["scores"]) == ["overall", "image", "text"] and metrics["unchecked"] == metrics["invalid"] == 0
    assert set(metrics["baselines"]) == {"constant", "length", "ridge"}
    for name, baseline in metrics["baselines"].items():
        one = baseline["difference"]["image"]["ndcg"]
        ours, theirs = (scores["image"]["ndcg"] for scores in (metrics["scores"], baseline["scores"]))
        assert one["difference"] == pytest.approx(ours - theirs) and baseline["unchecked"] == 0, name
    ridge, constant = (metrics["baselines"][name]["scores"]["overall"] for name in ("ridge", "constant"))
    assert ridge["ndcg"] > constant["ndcg"] and constant["spearman"] == 0
    train = [row["labels"]["score"] for row in read_lines(clone / "data/train/jokes_train.jsonl")]
    rows = read_lines(clone / "outputs/jokes/baselines/constant.jsonl")
    assert [row["output"]["score"] for row in rows] == [pytest.approx(np.mean(train))] * len(gold)
    given = {row["id"]: row for row in read_lines(clone / INPUT)}
    assert rows[3]["digest"] == pair_digest(given[rows[3]["id"]]["body"], given[rows[3]["id"]]["pair"])


def test_what_is_unchanged_is_skipped_and_what_is_missing_made_again(clone):
    assert evaluate(clone).returncode == 0 and "up to date" in evaluate(clone).stderr
    done = evaluate(clone, "--redact")
    assert done.returncode == 2 and "--redact" in done.stderr and "up to date" not in done.stderr
    (clone / SCORES / "evaluation_by_type.csv").unlink()
    (clone / "bars.yml").write_text("text.ndcg: 1\n", encoding="utf-8")
    done = evaluate(clone, "--baseline", "bars.yml")
    assert done.returncode == 1 and "text.ndcg: 0." in done.stderr and "Traceback" not in done.stderr
    assert (clone / SCORES / "evaluation_by_type.csv").exists()


def test_products_are_those_of_the_kind(task):
    options = Options(task.test_path("gold"), None, task.root / SCORES)
    assert sorted(path.name for path in ranking_evaluation.products(task, options)) == FILES
    bare = add_recipe(task.root, SPEC.replace("  slice: type\n", ""))
    assert "evaluation_by_type.csv" not in [path.name for path in ranking_evaluation.products(bare, options)]


def test_length_is_least_squares_on_it(task):
    from recipekit import baselines
    from recipekit.baselines import Data, read_rows

    short = [{"id": str(n), "body": "題", "pair": "あ" * n, "labels": {"score": np.log(n)}} for n in range(1, 40)]
    lines(task.root / "rows.jsonl", short)
    rows = read_rows(task, task.root / "rows.jsonl")
    assert rows.texts[1] == "題\nああ"
    values, facts = baselines.length(Data(task, rows, rows, [{"id": "a", "body": "長い題" * 50, "pair": "あ" * 20}]))
    assert values.tolist() == [[pytest.approx(np.log(20))]] and facts["validation_mse"] == pytest.approx(0, abs=1e-6)
    values, _ = baselines.length(Data(task, rows, rows, [{"id": "a", "body": "題", "pair": "あ" * 10**6}]))
    assert values.tolist() == [[5]], "within the scale"


def test_baselines_name_rows_without_a_pair(clone):
    edit(clone / "data/train/jokes_train.jsonl", lambda rows: rows[1].pop("pair"))
    edit(clone / INPUT, lambda rows: rows[2].update(pair=None))
    done = run(clone, "baselines")
    assert done.returncode == 2 and "jokes_train.jsonl:2: expected 'body' and 'pair' and 'labels'" in done.stderr
    assert "jokes_input.jsonl:3: 'pair': expected text" in done.stderr and "Traceback" not in done.stderr


def test_predictions_of_another_pair_are_refused(clone):
    given = {row["id"]: row for row in read_lines(clone / INPUT)}

    def change(rows):
        rows[0]["digest"], rows[1]["digest"] = rows[1]["digest"], rows[0]["digest"]
        rows[5]["digest"] = "0" * 16
        del rows[7]["digest"]

    edit(clone / PREDICTIONS, change)
    rows = read_lines(clone / PREDICTIONS)
    done = evaluate(clone)
    problems = done.stderr.splitlines()
    assert done.returncode == 2 and len(problems) == 3, done.stderr
    for line, problem in zip((1, 2, 6), problems, strict=True):
        row = given[rows[line - 1]["id"]]
        assert problem.startswith(f"error: {PREDICTIONS}:{line}: id '{row['id']}' is of another pair")
        assert f"'{row['body'][:20]}" in problem and f"'{row['pair'][:20]}" in problem and "predict.py jokes" in problem
    assert f"which is that of id '{rows[1]['id']}'" in problems[0] and given[rows[1]["id"]]["pair"][:20] in problems[0]
    assert "which no row has" in problems[2]
    assert not (clone / SCORES).exists()


def test_a_baseline_of_another_pair_is_refused(task):
    rows = read_lines(task.root / PREDICTIONS)
    lines(task.baselines / "length.jsonl", [row | {"digest": "f" * 16} for row in rows])
    with pytest.raises(UserError) as error:
        score(task)
    assert len(error.value.problems) == 21 and "length.jsonl:1" in error.value.problems[0]
    assert "baselines.py jokes" in error.value.problems[0] and f"{len(rows) - 20} more" in error.value.problems[-1]


def test_rows_without_a_digest_are_counted_and_told(task, capsys):
    edit(task.root / PREDICTIONS, lambda rows: [row.pop("digest") for row in rows[:9]])
    metrics, _ = score(task)
    assert metrics["unchecked"] == 9 and "9 of 172 rows have no digest" in capsys.readouterr().err
    assert "9 件は" in (task.root / SCORES / "report.html").read_text(encoding="utf-8")
    metrics, _ = score(task, articles=False)
    assert metrics["unchecked"] == 172 and "--articles" in capsys.readouterr().err
    assert [row["odai"] for row in table(task.root / SCORES / "test_predictions.csv")] == [""] * 172


def test_other_files(clone):
    lines(clone / "outputs/jokes/baselines/constant.jsonl", read_lines(clone / PREDICTIONS))
    shutil.copy(clone / GOLD, clone / "gold.csv")
    done = evaluate(clone, "--predictions", PREDICTIONS, "--gold", "gold.csv", "--output", "scores")
    assert done.returncode == 0 and "--articles" in done.stderr
    assert json.loads((clone / "scores/metrics.json").read_text(encoding="utf-8"))["baselines"] == {}


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (INPUT, lambda rows: rows.pop(3), "jokes_gold.csv:5: id 'C001-1' has no row in"),
        (INPUT, lambda rows: rows[3].pop("pair"), "jokes_input.jsonl: id 'C001-1' has no 'pair'"),
        (PREDICTIONS, lambda rows: rows.pop(3), "jokes_gold.csv:5: id 'C001-1' has no prediction in"),
        (PREDICTIONS, lambda rows: rows[0].update(id="X"), "predictions.jsonl:1: id 'X' has no row in"),
        (PREDICTIONS, lambda rows: rows[0].update(output={"score": "3"}), "output: score: found '3'"),
    ],
)
def test_bad_input(task, name, change, expected):
    edit(task.root / name, change)
    with pytest.raises(UserError) as error:
        score(task)
    assert len(error.value.problems) == 1 and expected in error.value.problems[0], error.value.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,odai_id,score\nA,O,1\n", "jokes_gold.csv:1: no column type"),
        ("id,odai_id,type,score\nA,O,,1\n", "jokes_gold.csv:2: no type"),
        ("id,odai_id,type,score\nA,O,text,5.5\n", "jokes_gold.csv:2: score: found 5.5, expected a number from -1 to 5"),
        ("id,odai_id,type,score\nA,O,overall,5\n", "jokes_gold.csv:2: type: found 'overall'"),
    ],
)
def test_bad_gold(task, text, expected):
    task.test_path("gold").write_text(text, encoding="utf-8")
    lines(task.root / PREDICTIONS, [{"id": "A", "output": {"score": 1}}])
    with pytest.raises(UserError) as error:
        score(task, articles=False)
    assert len(error.value.problems) == 1 and expected in error.value.problems[0], error.value.problems


def test_the_order_of_files_does_not_matter(task):
    score(task)
    before = {name: (task.root / SCORES / name).read_text(encoding="utf-8") for name in FILES}
    old = digest(task.test_path("gold"))
    for name in (PREDICTIONS, INPUT):
        edit(task.root / name, lambda rows: rows.reverse())
    header, *rows = task.test_path("gold").read_text(encoding="utf-8").splitlines(True)
    task.test_path("gold").write_text("".join([header, *rows[::-1]]), encoding="utf-8")
    score(task)
    for name, text in before.items():
        after = (task.root / SCORES / name).read_text(encoding="utf-8")
        for length in (64, 12):  # the report shows the digest's beginning
            after = after.replace(digest(task.test_path("gold"))[:length], old[:length])
        assert after == text, name


def test_tables_for_spreadsheets(task):
    def change(rows):
        rows[0].update(pair="=HYPERLINK(1)", body=" ＝題")
        rows[1].update(pair='とても"長い", 回答\n二行目')

    edit(task.root / INPUT, change)
    given = {row["id"]: row for row in read_lines(task.root / INPUT)}

    def mend(rows):
        for row in rows:
            row["digest"] = pair_digest(given[row["id"]]["body"], given[row["id"]]["pair"])
        rows[4].update(output=None)

    edit(task.root / PREDICTIONS, mend)
    metrics, _ = score(task)
    assert (task.root / SCORES / "test_predictions.csv").read_bytes().startswith(b"\xef\xbb\xbfid,")
    rows = table(task.root / SCORES / "test_predictions.csv")
    assert list(rows[0]) == [
        "id",
        "odai_id",
        "type",
        "odai",
        "response",
        "score",
        "predicted",
        "rank",
        "predicted_rank",
    ]
    found = {row["id"]: row for row in rows}
    assert found.keys() == given.keys()
    first, second, fifth = (found[name] for name in list(given)[:2] + [list(given)[4]])
    assert (first["response"], first["odai"]) == ("'=HYPERLINK(1)", "' ＝題")
    assert second["response"] == 'とても"長い", 回答\n二行目' and fifth["predicted"] == "" and fifth["predicted_rank"]
    negative = min(rows, key=lambda row: float(row["score"]))
    assert negative["score"].startswith("-"), "numbers stand as they are"
    for name in {row["odai_id"] for row in rows}:
        own = [row for row in rows if row["odai_id"] == name]
        assert [float(row["predicted_rank"]) for row in own] == sorted(float(row["predicted_rank"]) for row in own)
        best = max(own, key=lambda row: float(row["score"]))
        assert float(best["rank"]) == min(float(row["rank"]) for row in own)
    overall = table(task.root / SCORES / "evaluation_metrics.csv")
    assert [row["metric"] for row in overall][:2] == ["MSE", "RMSE"]
    for row, (name, key) in zip(overall, [(v, k) for k, v in ranking_csv.NAMES.items()], strict=True):
        own = metrics["scores"]["overall"]
        assert row["metric"] == name and float(row["value"]) == own[key]
        assert [float(row["low"]), float(row["high"])] == own[f"{key}_interval"]
    for row in table(task.root / SCORES / "evaluation_by_type.csv"):
        assert float(row["NDCG"]) == metrics["scores"][row["type"]]["ndcg"]
        assert (int(row["rows"]), int(row["odai"])) == tuple(
            metrics["parts"][row["type"]][key] for key in ("rows", "groups")
        )


@pytest.mark.parametrize("text", ["=1", "+1", "-1点", "@a", "\t=1", "\n-", "＋1", "－1", "＠"])
def test_formulas_are_made_text(text):
    assert ranking_csv.cell(text) == f"'{text}" and ranking_csv.cell(f"a{text}") == f"a{text}"
    assert ranking_csv.cell(-1.5) == -1.5 and ranking_csv.cell(None) is None and ranking_csv.cell("") == ""


def test_errors_name_far_off_rows_and_misplaced_best_responses(task):
    gold = {row["id"]: row for row in table(task.test_path("gold"))}
    odai = [name for name, row in gold.items() if row["odai_id"] == "C005"]
    best = max(odai, key=lambda name: float(gold[name]["score"]))

    def change(rows):
        for row in rows:
            if row["id"] in odai:
                row["output"] = {"score": -0.9 if row["id"] == best else 3.0}
        rows[0]["output"] = {"score": 40}
        rows[1]["output"] = None

    edit(task.root / PREDICTIONS, change)
    metrics, _ = score(task)
    errors = read_lines(task.root / SCORES / "errors.jsonl")
    texts = {row["id"]: row for row in read_lines(task.root / INPUT)}
    first, name = errors[0], list(gold)[0]
    assert first == {
        "kind": "score", "id": name, "group": "C000", "slice": "image", "gold": float(gold[name]["score"]),
        "predicted": 40.0, "error": pytest.approx(40 - float(gold[name]["score"])),
        "body": texts[name]["body"], "pair": texts[name]["pair"],
    }  # fmt: skip
    off = [abs(error["error"]) for error in errors if error["kind"] == "score"]
    assert len(off) == 50 and off == sorted(off, reverse=True) and metrics["invalid"] == 1
    orders = [error for error in errors if error["kind"] == "order"]
    assert orders[0]["group"] == "C005" and orders[0]["best"]["id"] == best and 0 < len(orders) <= 20
    assert orders[0]["best"]["predicted_rank"] == orders[0]["rows"] and orders[0]["best"]["rank"] == 1
    assert orders[0]["predicted_best"]["pair"] == texts[orders[0]["predicted_best"]["id"]]["pair"]
    assert "C039" not in [order["group"] for order in orders], "one response has no order"


def test_compare(task):
    other = task.root / "constant.jsonl"
    lines(other, [row | {"output": {"score": 2}} for row in read_lines(task.root / PREDICTIONS)])
    options = Options(task.test_path("gold"), task.test_path("input"), task.root / "scores", resamples=100)
    files = {"A": other, "B": task.root / PREDICTIONS}
    for order, said in (("AB", "B is better, by 0."), ("BA", "A is better, by 0."), ("BB", "no difference shown")):
        shown = ranking_evaluation.compare(task, tuple(files[name] for name in order), options)
        assert f"NDCG: {said}" in shown.caption
    found = json.loads((task.root / "scores/compare.json").read_text(encoding="utf-8"))
    assert found["metrics"]["text"]["ndcg"]["difference"] == 0 and found["unchecked"] == [0, 0]


@pytest.mark.parametrize(
    ("bars", "shown"),
    [
        ("overall.ndcg: 0.5\nimage.spearman: 0.1\noverall.mse: 3\ntext.rmse: 2\n", []),
        ("overall.ndcg: 1\n", ["overall.ndcg: "]),
        ("text.rmse: 0.01\n", ["is above its bar 0.01"]),
        ("overall.mse: 0.01\ntext.top1: 1\n", ["overall.mse: ", "text.top1: "]),
    ],
)
def test_bars(task, bars, shown):
    path = task.root / "bars.yml"
    path.write_text(bars, encoding="utf-8")
    _, failures = score(task, bars=read_bars(path, ranking_evaluation.bars(task, task.test_path("gold"))))
    assert len(failures) == len(shown) and all(part in one for part, one in zip(shown, failures, strict=True)), failures


@pytest.mark.parametrize(
    ("bars", "shown"),
    [
        ("txt.ndcg: 0.8\n", "bars.yml:1: txt.ndcg: no such metric; did you mean text.ndcg?"),
        ("overall.ndcg: 2\n", "bars.yml:1: overall.ndcg: found 2, expected a number from 0 to 1"),
    ],
)
def test_bad_bars(task, bars, shown):
    (task.root / "bars.yml").write_text(bars, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_bars(task.root / "bars.yml", ranking_evaluation.bars(task, task.test_path("gold")))
    assert len(error.value.problems) == 1 and shown in error.value.problems[0]


def test_the_pipeline_shows_a_line(clone):
    done = evaluate(clone, LOG_DIR=str(clone / "logs"))
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and "NDCG 0.9" in done.stderr, done.stderr
    record = json.loads((clone / "outputs/jokes/state/evaluate.json").read_text(encoding="utf-8"))
    assert {"ndcg", "spearman", "mse"} <= record.keys() and len(record["products"]) == 6


def test_names_for_mlflow(task):
    metrics, _ = score(task)
    logged = ranking_evaluation.logged(metrics)
    assert logged["overall_ndcg"] == metrics["scores"]["overall"]["ndcg"] and len(logged) == 3 * 8


def test_a_task_without_a_slice_and_with_one_odai(tmp_path):
    task = add_recipe(tmp_path, SPEC.replace("  slice: type\n", ""))
    task.test_path("gold").parent.mkdir(parents=True)
    task.test_path("gold").write_text("id,odai_id,score\nA,O,1\nB,O,3\n", encoding="utf-8")
    lines(tmp_path / PREDICTIONS, [{"id": "B", "output": {"score": 2}}, {"id": "A", "output": {"score": 0}}])
    lines(task.baselines / "constant.jsonl", [{"id": name, "output": {"score": 2}} for name in "AB"])
    (tmp_path / "bars.yml").write_text("overall.ndcg: 0.9\n", encoding="utf-8")
    known = ranking_evaluation.bars(task, task.test_path("gold"))
    assert {name.split(".")[0] for name in known} == {"overall"}
    metrics, failures = score(task, articles=False, bars=read_bars(tmp_path / "bars.yml", known))
    assert not failures and metrics["scores"] == {"overall": metrics["scores"]["overall"]}
    assert (
        metrics["scores"]["overall"]["ndcg"] == pytest.approx(1)
        and metrics["scores"]["overall"]["ndcg_interval"] is None
    )
    assert metrics["baselines"]["constant"]["difference"] == {"overall": {}}
    assert not (tmp_path / SCORES / "evaluation_by_None.csv").exists()


def test_nothing_to_rank(tmp_path):
    task = add_recipe(tmp_path)
    task.test_path("gold").parent.mkdir(parents=True)
    task.test_path("gold").write_text("id,odai_id,type,score\nA,O,text,1\nB,P,text,1\n", encoding="utf-8")
    lines(tmp_path / PREDICTIONS, [{"id": name, "output": {"score": 2}} for name in "AB"])
    lines(task.baselines / "constant.jsonl", [{"id": name, "output": {"score": 2}} for name in "AB"])
    metrics, _ = score(task, articles=False)
    own = metrics["scores"]["overall"]
    assert [own[name] for name in ("ndcg", "spearman", "top1", "r2", "ndcg_global")] == [None] * 5 and own["mse"] == 1
    assert metrics["parts"]["overall"] == {"rows": 2, "groups": 2, "ranked": 0, "single": 2, "equal": 0}
    assert "NDCG -" in ranking_evaluation.line(metrics) and ranking_evaluation.recorded(metrics) == {"mse": 1}
    assert table(tmp_path / SCORES / "evaluation_metrics.csv")[4] == {
        "metric": "NDCG", "value": "", "low": "", "high": ""
    }  # fmt: skip


def test_parts_hold_the_rows_of_each_value(task):
    gold = ranking_data.regression_data.read_gold(load_task("jokes", task.root), task.test_path("gold"))
    parts = ranking_data.parts(gold)
    for name, part in parts.items():
        assert all(name in ("overall", gold.slices[i]) for i in part.rows)
        assert [gold.groups[part.groups[one]] for one in part.owner] == [gold.groups[gold.owner[i]] for i in part.rows]
    assert sum(len(part.rows) for part in parts.values()) == 2 * len(gold.ids)

"""tools/questionnaire.py, and what evaluate.py makes of its CSV."""

import csv
import json
import re
import shutil
from pathlib import Path

import krippendorff
import numpy as np
import pytest

import talking
from estimates import lines
from evaluated import read_lines, run_tool
from hostile import EVIL, assert_harmless
from recipekit import chat_evaluation, chat_ratings
from recipekit.chat_ratings import QUESTIONS
from recipekit.errors import UserError
from recipekit.evaluating import Options

ROOT = Path(__file__).parents[1]
FOLDER = "outputs/talker/questionnaire"


@pytest.fixture
def task(tmp_path):
    task = talking.add_recipe(tmp_path)
    talking.add_data(tmp_path, sets=2)
    lines(tmp_path / "b.jsonl", talking.predictions(talking.scenes(2), 0.0))
    return task


@pytest.fixture
def clone(task):
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, task.root / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return task.root


def make(clone, *arguments):
    return run_tool(clone, "questionnaire", "talker", *arguments)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_blind_form_of_two_models(clone):
    files = "outputs/talker/predictions.jsonl", "b.jsonl"
    done = make(clone, "--compare", *files, "--number", "12")
    assert done.returncode == 0 and "12 scenes, 24 replies" in done.stderr, done.stderr
    rows = rows_of(clone / FOLDER / "ratings.csv")
    assert list(rows[0]) == ["rater", "item", *QUESTIONS] and [row["item"] for row in rows[:4]] == [
        "1-A",
        "1-B",
        "2-A",
        "2-B",
    ]
    key = json.loads((clone / FOLDER / "key.json").read_text(encoding="utf-8"))
    assert set(key["items"]) == {row["item"] for row in rows} and set(key["predictions"]) == set(files)
    letters = {key["items"][f"{number}-A"]["model"] for number in range(1, 13)}
    assert letters == set(files), "a letter is not always the same model"
    html = (clone / FOLDER / "questionnaire.html").read_text(encoding="utf-8")
    assert not any(name in html for name in (*files, "predictions")), "the form tells no model"
    given = {name: {row["id"]: row["output"] for row in read_lines(clone / name)} for name in files}
    for name, one in key["items"].items():
        shown = re.search(rf'data-name="{name}">.*?<p lang="ja">(.*?)</p>', html, re.S)[1]
        assert shown == given[one["model"]][one["scene"]]
    sets = [one["scene"].split("-")[0] for one in key["items"].values() if one["scene"].startswith("a")]
    assert len(sets) == 2 * len(set(sets)), "of a set one scene"
    before = (clone / FOLDER / "key.json").read_bytes()
    assert make(clone, "--compare", *files, "--number", "12").returncode == 0
    assert (clone / FOLDER / "key.json").read_bytes() == before
    assert make(clone, "--number", "12", "--seed", "1").returncode == 0
    assert [row["item"] for row in rows_of(clone / FOLDER / "ratings.csv")[:2]] == ["1", "2"]


def test_what_was_filled_in_is_not_overwritten(clone):
    assert make(clone).returncode == 0
    path = clone / FOLDER / "ratings.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("\n,1,", "\nkai,1,", 1), encoding="utf-8")
    done = make(clone)
    assert done.returncode == 2 and "has ratings in it" in done.stderr and "kai" in path.read_text(encoding="utf-8")
    assert make(clone, "--force").returncode == 0 and "kai" not in path.read_text(encoding="utf-8")


def test_bad_options(clone):
    done = make(clone, "--compare", "b.jsonl", "b.jsonl")
    assert done.returncode == 2 and "named twice" in done.stderr
    done = run_tool(clone, "questionnaire", "hawks")
    assert done.returncode == 2 and "reads tasks of kind chat" in done.stderr


def test_the_form_is_escaped(task):
    from recipekit import chat_questionnaire
    from recipekit.chat_replies import Reply, read_scenes

    lines(task.test_path("input"), [talking.scene("r0", EVIL, "provocation", {"memories": [EVIL]})])
    scenes = read_scenes(task, task.test_path("input"))
    items = chat_questionnaire.draw(scenes, {"m": [Reply(EVIL, True)]}, 5, 0)
    assert_harmless(chat_questionnaire.form(task, items))


ANSWERS = {  # item -> answers of three raters to the first question
    "1-A": [5, 4, None], "1-B": [1, 2, 1], "2-A": [2, 2, 3], "2-B": [4, 5, 5], "3-A": [3, None, 3], "3-B": [1, 1, 2],
}  # fmt: skip
KEY = {
    "predictions": {"a.jsonl": "0" * 64, "b.jsonl": "1" * 64},
    "items": {
        name: {"scene": f"r{name[0]}", "model": "a.jsonl" if name in ("1-A", "2-B", "3-A") else "b.jsonl"}
        for name in ANSWERS
    },
}


def fill(folder, answers=ANSWERS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.json").write_text(json.dumps(KEY), encoding="utf-8")
    with (folder / "ratings.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item", "rater", *QUESTIONS, "note"])
        for place, rater in enumerate("xyz"):
            for item, own in answers.items():
                writer.writerow([item, rater, "" if own[place] is None else own[place], 3, 3, "", 4, "fine"])
    return folder / "ratings.csv"


def aggregate(task, path):
    chat_ratings.aggregate(task, path, Options(task.test_path("input"), None, task.root / "scores", 200, 0))
    return json.loads((task.root / "scores/ratings.json").read_text(encoding="utf-8"))


def test_means_and_agreement(task):
    found = aggregate(task, fill(task.root / "filled"))
    assert (found["items"], found["raters"], found["ratings"]) == (6, 3, 18)
    a = [5, 4, 4, 5, 5, 3, 3]
    assert found["models"]["a.jsonl"]["persona"]["mean"] == pytest.approx(np.mean(a))
    assert found["models"]["b.jsonl"]["persona"]["mean"] == pytest.approx(np.mean([1, 2, 1, 2, 2, 3, 1, 1, 2]))
    low, high = found["models"]["a.jsonl"]["persona"]["interval"]
    assert low == pytest.approx(3) and high == pytest.approx(14 / 3), "over the three scenes"
    assert found["models"]["a.jsonl"]["particles"]["mean"] is None and found["alpha"]["particles"] is None
    assert found["alpha"]["emotion"] is None, "equal answers say nothing of agreement"
    assert found["alpha"]["persona"] == pytest.approx(by_hand(list(ANSWERS.values())))


def by_hand(units):
    """Krippendorff's alpha with the ordinal distance, as its definition says."""
    units = [[v for v in unit if v is not None] for unit in units]
    pairs = {}
    for unit in units:
        for i, c in enumerate(unit):
            for j, k in enumerate(unit):
                if i != j:
                    pairs[c, k] = pairs.get((c, k), 0) + 1 / (len(unit) - 1)
    totals = {v: sum(n for (c, _), n in pairs.items() if c == v) for v in range(1, 6)}

    def distance(c, k):
        c, k = min(c, k), max(c, k)
        return (sum(totals[g] for g in range(c, k + 1)) - (totals[c] + totals[k]) / 2) ** 2

    n = sum(totals.values())
    observed = sum(number * distance(c, k) for (c, k), number in pairs.items()) / n
    expected = sum(totals[c] * totals[k] * distance(c, k) for c in totals for k in totals) / (n * (n - 1))
    return 1 - observed / expected


def test_the_library_gives_the_published_example():
    table = "* * * * * 3 4 1 2 1 1 3 3 * 3", "1 * 2 1 3 3 4 3 * * * * * * *", "* * 2 1 3 4 4 * 2 1 1 3 3 * 4"
    rows = [[np.nan if cell == "*" else float(cell) for cell in row.split()] for row in table]
    assert krippendorff.alpha(rows, level_of_measurement="nominal") == pytest.approx(0.691, abs=1e-3)
    assert krippendorff.alpha(rows, level_of_measurement="ordinal") == pytest.approx(
        by_hand([[None if np.isnan(v) else int(v) for v in unit] for unit in np.array(rows).T])
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("1-A,x,5", "1-A,x,6", "persona: found '6', expected a whole number from 1 to 5"),
        ("1-A,x,5", "1-A,x,4.5", "persona: found '4.5'"),
        ("1-A,x,5", "9-Z,x,5", "item: found '9-Z', which the key has not"),
        ("1-A,x,5", "1-A,,5", "rater: empty"),
        ("1-B,x,1", "1-A,x,1", "x has rated 1-A on line 2 already"),
        ("item,rater,persona", "item,rater,mask", "no column persona"),
    ],
)
def test_bad_ratings(task, old, new, expected):
    path = fill(task.root / "filled")
    path.write_text(path.read_text(encoding="utf-8-sig").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        aggregate(task, path)
    assert len(error.value.problems) == 1 and expected in error.value.problems[0]
    assert not (task.root / "scores").exists()


def test_no_ratings_and_no_key(task):
    path = fill(task.root / "filled")
    path.write_text("rater,item," + ",".join(QUESTIONS) + "\n,1-A,,,,,\n", encoding="utf-8")
    with pytest.raises(UserError, match="no ratings in it"):
        aggregate(task, path)
    (task.root / "filled/key.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="torn, or no key"):
        aggregate(task, path)


def test_they_are_reported_beside_the_predictions_that_they_are_of(clone):
    assert make(clone, "--number", "3").returncode == 0
    path = clone / FOLDER / "ratings.csv"
    text = path.read_text(encoding="utf-8").splitlines()
    filled = [
        text[0],
        *(f"{rater}{row.split(',')[0]},{row.split(',')[1]},4,3,5,2,4" for rater in "xy" for row in text[1:]),
    ]
    path.write_text("\n".join(filled), encoding="utf-8")
    done = run_tool(clone, "evaluate", "talker", "--ratings", str(path))
    assert done.returncode == 0 and "3 replies, 2 raters, 6 ratings" in done.stderr, done.stderr
    task = talking.add_recipe(clone)
    options = Options(task.test_path("input"), None, task.outputs / "evaluation", 100)
    metrics, _ = chat_evaluation.score(task, task.outputs / "predictions.jsonl", options)
    assert metrics["ratings"]["models"]["outputs/talker/predictions.jsonl"]["relevance"]["mean"] == 5
    html = (task.outputs / "evaluation/report.html").read_text(encoding="utf-8")
    assert "アンケート（1〜5点）" in html and "キャラクター一貫性" in html
    assert chat_evaluation.score(task, clone / "b.jsonl", options)[0]["ratings"] is None

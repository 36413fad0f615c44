"""Whole evaluations: what must hold for any gold and answers, files of any order, slices and calibration."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import answer, gold, person
from recipekit.errors import UserError
from recipekit.evaluation import EXAMPLES, WORST, Calibration, Evaluation
from recipekit.gold import GoldFile
from recipekit.joining import join
from recipekit.task import load_task

TASK = load_task("hawks")
NAMES = ["甲野一郎", "乙山花子", "丙川三平", "鈴森健吾", "森若葉", "ジョン・スミス"]  # no two half alike
persons = st.lists(
    st.builds(
        person,
        st.sampled_from(NAMES),
        age=st.sampled_from(["", "32", "45"]),
        act=st.sampled_from(["", "窃盗", "詐欺"]),
        position=st.sampled_from(["", "会社員"]),
    ),
    max_size=3,
    unique_by=lambda each: each["name"],
)
labels = st.builds(
    lambda people, places: answer(*people, places=places), persons, st.lists(st.sampled_from("東西南北"), unique=True)
)


def row(label, id="A"):
    return gold(*label["persons"], places=label["occured_locations"], police=label["police_departments"], id=id)


def evaluate(pairs):
    evaluation = Evaluation(TASK)
    for place, (label, output) in enumerate(pairs):
        evaluation.add(row(label, str(place)), {"id": str(place), "output": output}, None)
    return evaluation


def metrics(pairs):
    return {name: float(value) for name, value in evaluate(pairs).layout.metrics(evaluate(pairs).tally.sums()).items()}


def same(a, b):
    return all(
        math.isclose(a[name], b[name], abs_tol=1e-12) or math.isnan(a[name]) and math.isnan(b[name]) for name in a
    )


@given(st.lists(labels, min_size=1, max_size=5))
def test_perfect_answers_score_1(found):
    scores = metrics([(label, label) for label in found])
    assert scores["exact_match_rate"] == scores["valid_json_rate"] == 1
    assert all(value == 1 for name, value in scores.items() if name.endswith(".f1") and not math.isnan(value))


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_order_of_articles_persons_and_values_does_not_matter(pairs, rng):
    def mixed(label):
        return {key: rng.sample(value, len(value)) for key, value in label.items()}

    turned = [(mixed(label), mixed(output)) for label, output in rng.sample(pairs, len(pairs))]
    assert same(metrics(pairs), metrics(turned))


@given(labels, labels, st.data())
def test_no_score_rises_when_a_right_value_is_taken_away(label, output, data):
    before = Evaluation(TASK).comparer.compare(row(label), output)
    right = sorted({(slot.column, slot.predicted) for slot in before.slots if slot.right})
    if not right:
        return
    column, value = data.draw(st.sampled_from(right))
    less = json.loads(json.dumps(output))
    if column == "occured_locations":
        less[column].remove(value)
    else:
        key = TASK.gold_columns[column]["path"]
        owner = next(p["name"] for p in label["persons"] if p[key] == value and any(
            q["name"] == p["name"] and q[key] == value for q in output["persons"]))  # fmt: skip
        next(p for p in less["persons"] if p["name"] == owner)[key] = ""
    old, new = metrics([(label, output)]), metrics([(label, less)])
    for name in ("micro.f1", "micro.recall", f"fields.{column}.f1", "exact_match_rate", "entities.person.f1"):
        assert not new[name] > old[name] + 1e-12


def files(tmp_path, gold_ids, prediction_ids, article_ids=None):
    (tmp_path / "gold.csv").write_text(
        "quality_test_id," + ",".join(TASK.gold_columns) + "\n" + "".join(f"{name},甲野\n" for name in gold_ids),
        "utf-8",
    )
    lines = [{"id": name, "output": None, "n": place} for place, name in enumerate(prediction_ids)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    articles = None
    if article_ids is not None:
        articles = tmp_path / "a.jsonl"
        articles.write_text(
            "".join(json.dumps({"id": name, "body": "x" + name}) + "\n" for name in article_ids), "utf-8"
        )
    return join(TASK, GoldFile(TASK, tmp_path / "gold.csv"), [tmp_path / "p.jsonl"], articles)


@pytest.mark.parametrize("seed", range(3))
def test_files_are_joined_whatever_their_order(tmp_path, seed):
    rng = random.Random(seed)
    names = [f"A{i}" for i in range(200)]
    ids = [rng.sample(names, len(names)) for _ in range(2)]
    found = list(files(tmp_path, ids[0], ids[1], rng.sample([*names, "extra"], 201)))
    assert sorted(row.id for row, _, _ in found) == sorted(names)
    for row_, [prediction], article in found:
        assert prediction["id"] == row_.id and ids[1][prediction["n"]] == row_.id and article["body"] == "x" + row_.id


def test_files_in_one_order_leave_nothing_waiting(tmp_path):
    names = [f"A{i}" for i in range(50)]
    for count, (row_, _, _) in enumerate(files(tmp_path, names, names, names)):
        assert row_.id == names[count]  # as soon as it can be


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((["A", "B"], ["A", "B"], ["A"]), ["gold.csv:3: id 'B' has no article in"]),
        ((["A", "B"], ["A"], ["A"]), ["gold.csv:3: id 'B' has no prediction in"]),
        ((["A"], ["A", "B", "C"], None), ["p.jsonl:2: ids 'B', 'C' have no row in"]),
        ((["A"], ["A", "A"], None), ["p.jsonl:2: id 'A' stands on line 1 already"]),
        ((["C", "B", "A"], ["A", "A", "B", "C"], None), ["p.jsonl:2: id 'A' stands on line 1 already"]),
        ((["A", "B"], ["A", "B"], ["B", "B", "A"]), ["a.jsonl:2: id 'B' stands at"]),
        ((["A", "B"], ["A", "B"], ["A", "B", "A"]), ["a.jsonl:3: id 'A' stands at"]),
        ((["A", "A"], ["A", "A"], None), ["gold.csv:3: id 'A' stands on line 2", "p.jsonl:2: id 'A' stands on line 1"]),
    ],
)
def test_ids_without_a_partner_are_named(tmp_path, ids, expected):
    with pytest.raises(UserError) as caught:
        list(files(tmp_path, *ids))
    assert len(caught.value.problems) == len(expected)
    assert all(part in problem for problem, part in zip(caught.value.problems, expected, strict=True))


def test_slices():
    evaluation = Evaluation(TASK)
    body = "甲野一郎容疑者(32)を逮捕。"
    cases = [
        (gold(person("甲野一郎", act="窃盗"), person("乙山花子", act="詐欺"), id="A"), body, "arrest", True),
        (gold(person("甲野一郎", act="窃盗"), id="B"), body * 10, "arrest", False),
        (gold(id="C"), body * 40, "fiction", False),
    ]
    for right, text, kind, good in cases:
        people = [person(e["person_name"], act=e["person_violated_law"]) for e in right.entities["person"]]
        output = answer(*people) if good else answer(police=["北署"])
        evaluation.add(right, {"id": right.id, "output": output}, {"id": right.id, "body": text, "kind": kind})
    found = evaluation.metrics(evaluation.estimates(100, 0), 100, 0)["slices"]
    assert list(found) == ["length", "number of persons", "law", "kind"]
    assert list(found["length"]) == ["0-99", "100-199", "400-799"] and list(found["number of persons"]) == [
        "0",
        "1",
        "2",
    ]
    assert list(found["law"]) == ["窃盗"] and found["law"]["窃盗"]["articles"] == 2
    # A: four values found of four; B: two missed and one too many: F1 2*4 / (8 + 1 + 2)
    assert found["kind"]["arrest"]["micro.f1"] == pytest.approx(8 / 11)
    assert found["kind"]["arrest"]["exact_match_rate"] == 0.5
    fiction = found["kind"]["fiction"]
    assert (fiction["negatives"], fiction["false_positives"], fiction["false_positive_rate"]) == (1, 1, 1)
    assert fiction["false_positive_rate_interval"] == [1, 1]


def test_metadata_of_a_feed_is_no_part_of_the_article():
    evaluation = Evaluation(TASK)
    article = {"id": "A", "body": "【2024年11月20日 7時21分配信】\n逮捕した。\n写真＝北署の前"}
    [error] = evaluation.add(gold(id="A"), {"id": "A", "output": answer(police=["北署"])}, article)
    assert error["class"] == "hallucinated"


def test_calibration_by_hand():
    calibration = Calibration()
    for probability, right in [(0.9, True)] * 9 + [(0.9, False)] + [(0.3, True)] * 2 + [(0.3, False)] * 8:
        calibration.add(probability, right)
    found = calibration.summary(2)
    assert [(b["answers"], round(b["probability"], 9), round(b["right"], 9)) for b in found["bins"]] == [
        (10, 0.3, 0.2),
        (10, 0.9, 0.9),
    ]
    assert found["expected_calibration_error"] == pytest.approx((10 * 0.1 + 10 * 0.0) / 20)
    half, all_ = found["coverage"][0], found["coverage"][-1]
    assert (half["share"], half["right"]) == (0.5, pytest.approx(0.9))
    assert (all_["share"], all_["right"]) == (1.0, pytest.approx(11 / 20))
    assert Calibration().summary() is None


def test_probability_of_an_answer_is_that_of_all_its_tokens():
    evaluation = Evaluation(TASK)
    prediction = {"id": "A", "output": answer(), "mean_logprob": math.log(0.9), "tokens": 2}
    evaluation.add(gold(id="A"), prediction, None)
    [only] = evaluation.calibration.summary()["bins"]
    assert only["probability"] == pytest.approx(0.81) and only["right"] == 1
    evaluation.add(gold(id="B"), {**prediction, "mean_logprob": None}, None)
    assert evaluation.calibration.summary()["bins"] == [only]


def test_worst_articles_and_examples_are_few_and_do_not_depend_on_order():
    bad = [(gold(*[person(name) for name in NAMES[: 1 + i % 4]], id=f"A{i:03}"), None) for i in range(120)]
    found = []
    for cases in (bad, bad[::-1]):
        evaluation = Evaluation(TASK)
        for right, output in cases:
            evaluation.add(right, {"id": right.id, "output": output}, None)
        found.append([case.id for case in evaluation.worst])
        assert len(evaluation.examples["format", "person_name"]) == EXAMPLES
    assert found[0] == found[1] and len(found[0]) == WORST
    assert found[0][:2] == ["A003", "A007"]  # four names missed


def test_redacted_scores_have_no_groups_by_name():
    task = load_task("hawks")
    slices = {"who": {"column": "person_name"}, "law": {"column": "person_violated_law"}, "author": {"key": "author"}}
    task.spec["gold"]["slices"] = slices
    right = gold(person("甲野一郎", act="窃盗"))
    for redact, names in (
        (None, ["length", "number of persons", "who", "law", "author"]),
        (lambda case: case, ["length", "number of persons", "law", "author"]),
    ):
        evaluation = Evaluation(task, redact)
        evaluation.add(right, {"id": right.id, "output": None}, {"id": right.id, "body": "x", "author": "乙山"})
        assert list(evaluation.slices) == names


def test_articles_that_stand_twice_in_both_files_do_not_stop_the_scoring():
    evaluation = Evaluation(TASK)
    for output in (None, answer(police=["北署"])):  # both have one error
        evaluation.add(gold(police=["南署"]), {"id": "A", "output": output}, None)
    assert len(evaluation.worst) == 2


def test_a_broken_answer_on_a_negative_is_an_error():
    evaluation = Evaluation(TASK)
    [error] = evaluation.add(gold(), {"id": "A", "output": {"persons": 1}}, None)
    assert (error["field"], error["class"], error["gold"], error["predicted"]) == ("", "format", None, None)
    assert [case.id for case in evaluation.worst] == ["A"]
    assert evaluation.add(gold(), {"id": "B", "output": answer()}, None) == []


def test_an_article_is_one_example_of_a_kind_of_error():
    evaluation = Evaluation(TASK)
    right = gold(person("甲野一郎"), person("乙山花子"))
    evaluation.add(right, {"id": right.id, "output": None}, None)
    assert len(evaluation.examples["format", "person_name"]) == 1


def test_many_groups_of_a_slice_are_put_together():
    evaluation = Evaluation(TASK)
    for place in range(230):
        right = gold(id=str(place))
        evaluation.add(right, {"id": right.id, "output": answer()}, {"id": right.id, "body": "x", "kind": place})
    assert len(evaluation.slices["kind"]) == 201 and sum(evaluation.slices["kind"]["(other)"].vectors.values()) == 30

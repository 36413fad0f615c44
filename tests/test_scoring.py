"""Scores by hand, by other libraries, and their intervals."""

import numpy as np
import pytest
from nervaluate import Evaluator
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from answers import answer, gold, person
from recipekit import release, scoring, tables
from recipekit.evaluation import Evaluation
from recipekit.scoring import Estimate, Layout, Tally
from recipekit.task import load_task


@pytest.fixture(scope="module")
def task():
    return load_task("hawks")


def score(task, rows, outputs, resamples=200):
    """Score lists of gold rows and outputs; the metrics as metrics.json has them, and the evaluation."""
    evaluation = Evaluation(task)
    errors = []
    for row, output in zip(rows, outputs, strict=True):
        errors += evaluation.add(row, {"id": row.id, "output": output}, None)
    return evaluation.metrics(evaluation.estimates(resamples, 0), resamples, 0), errors


def test_scores_by_hand(task):
    rows = [
        gold(person("甲野一郎", age="32"), person("乙山二郎"), places=["北浜市"], id="A"),
        gold(person("丙川三郎"), id="B"),
        gold(id="C"),
        gold(id="D"),
    ]
    outputs = [
        answer(person("甲野一郎", age="32"), person("戊田五月"), places=["北浜市"]),
        None,
        answer(police=["北署"]),
        answer(person("無罪", is_offender=False)),
    ]
    metrics, errors = score(task, rows, outputs)
    name = metrics["fields"]["person_name"]
    # names: 甲野 found; 戊田 too many; 乙山 and 丙川 missed
    assert (name["tp"], name["fp"], name["fn"]) == (1, 1, 2)
    assert (name["precision"], name["recall"], name["f1"]) == (1 / 2, 1 / 3, pytest.approx(2 / 5))
    micro = metrics["micro"]
    # all: 甲野, 32, 北浜市 found; 戊田, 北署 too many; 乙山, 丙川 missed: P 3/5, R 3/5
    assert (micro["tp"], micro["fp"], micro["fn"]) == (3, 2, 2)
    assert micro["f1"] == pytest.approx(3 / 5)
    assert metrics["fields"]["person_address"]["f1"] is None
    police = metrics["fields"]["police_departments"]
    assert [police[key] for key in ("precision", "recall", "f1", "tp", "fp", "fn")] == [0, 0, 0, 0, 1, 0]
    # macro: the mean of the four fields that have values
    assert metrics["macro"]["f1"] == pytest.approx((0.4 + 1 + 1 + 0) / 4)
    # persons: 甲野 right in all; 乙山, 丙川 missed, 戊田 too many
    persons = metrics["entities"]["person"]
    assert [persons[key] for key in ("tp", "fp", "fn")] == [1, 1, 2]
    assert (metrics["articles"], metrics["negatives"], metrics["false_positives"]) == (4, 2, 1)
    rates = [metrics[key] for key in ("false_positive_rate", "valid_json_rate", "exact_match_rate")]
    assert rates == [1 / 2, 3 / 4, 1 / 4]
    assert {
        "id": "B",
        "field": "person_name",
        "class": "format",
        "gold": "丙川三郎",
        "predicted": None,
        "alike": 0,
    } in errors
    assert len(errors) == micro["fp"] + micro["fn"]


def test_graded_score_by_hand(task):
    rows = [gold(person("甲野一郎"), police=["北署", "南署"])]
    metrics, _ = score(task, rows, [answer(person("甲野一朗"), police=["北署"])])
    # name: three of four characters; F1 is 2 * 0.75 / (1 gold + 1 predicted)
    assert metrics["fields"]["person_name"]["f1"] == 0
    assert metrics["fields"]["person_name"]["graded_f1"] == pytest.approx(0.75)
    # all: (1 + 0.75) * 2 / (3 gold + 2 predicted)
    assert metrics["micro"]["graded_f1"] == pytest.approx(2 * 1.75 / 5)


def test_values_that_differ_in_two_ways_are_counted_on_both_sides(task):
    metrics, errors = score(task, [gold(person("甲野", age="32"))], [answer(person("甲野", age="71"))])
    age = metrics["fields"]["person_age_at_published"]
    assert (age["tp"], age["fp"], age["fn"]) == (0, 1, 1) and {e["class"] for e in errors} == {"missed", "spurious"}


def test_answer_outside_the_schema_counts_as_empty(task):
    metrics, _ = score(task, [gold(person("甲野一郎"))], [answer(person("甲野一郎")) | {"note": "x"}])
    assert (metrics["valid_json_rate"], metrics["micro"]["recall"], metrics["micro"]["fn"]) == (0, 0, 1)


def test_nothing_to_score(task):
    metrics, _ = score(task, [gold()], [answer()])
    assert metrics["micro"]["f1"] is None and metrics["macro"]["f1"] is None and metrics["micro"]["f1_interval"] is None
    assert (metrics["false_positive_rate"], metrics["exact_match_rate"]) == (0, 1)
    metrics, _ = score(task, [gold(person("甲野"))], [answer()])
    assert metrics["false_positive_rate"] is None
    assert tables.scores(metrics, title="t").row_count == len(task.gold_columns) + 3


PLACES = [f"{town}{part}" for town in ("北浜市", "南野町", "東雲区") for part in ("本町", "中央", "")]


def random_sets(rng, number):
    """Places of gold and of answers, half of them right."""

    def pick():
        return rng.choice(PLACES, size=rng.integers(4), replace=False).tolist()

    golds = [pick() for _ in range(number)]
    return golds, [places if rng.random() < 0.5 else pick() for places in golds]


def test_as_scikit_learn_scores(task):
    golds, found = random_sets(np.random.default_rng(0), 200)
    metrics, _ = score(
        task, [gold(places=g, id=str(i)) for i, g in enumerate(golds)], [answer(places=f) for f in found]
    )
    binary = MultiLabelBinarizer(classes=PLACES)
    expected = precision_recall_fscore_support(binary.fit_transform(golds), binary.transform(found), average="micro")
    assert [metrics["micro"][key] for key in ("precision", "recall", "f1")] == pytest.approx(expected[:3])


def test_as_nervaluate_scores(task):
    """Values as spans of an article in which every one stands at its own place: its strict scores are ours."""
    rng = np.random.default_rng(1)
    places, police = random_sets(rng, 100), random_sets(rng, 100)
    rows = [gold(places=p, police=q, id=str(i)) for i, (p, q) in enumerate(zip(places[0], police[0], strict=True))]
    outputs = [answer(places=p, police=q) for p, q in zip(places[1], police[1], strict=True)]
    metrics, _ = score(task, rows, outputs)

    def entities(found):
        return [
            [
                {
                    "label": label,
                    "start": 100 * offset + 10 * PLACES.index(v),
                    "end": 100 * offset + 10 * PLACES.index(v) + 9,
                }
                for offset, (label, values) in enumerate((("places", p), ("police", q)))
                for v in values
            ]
            for p, q in found
        ]

    both = [entities(zip(places[side], police[side], strict=True)) for side in (0, 1)]
    strict = Evaluator(*both, tags=["places", "police"], loader="dict").evaluate()["overall"]["strict"]
    assert [metrics["micro"][key] for key in ("precision", "recall", "f1")] == pytest.approx(
        [strict.precision, strict.recall, strict.f1]
    )


def random_tally(seed, number=120):
    """A layout of one field and articles with counts of it."""
    rng = np.random.default_rng(seed)
    layout = Layout(["x"], [])
    counts = rng.integers(0, 3, size=(number, 3))
    vectors = [(*map(int, row), 1, 0, 0, 1, int(row[1] + row[2] == 0)) for row in counts]
    tally = Tally()
    for vector in vectors:
        tally.add(vector)
    return layout, tally, vectors


def test_intervals_as_scipy_bootstraps():
    layout, tally, vectors = random_tally(0)
    found = scoring.estimate(layout, tally, 8000, 0)["micro.f1"]
    columns = tuple(np.array(vectors)[:, :3].T)
    expected = stats.bootstrap(
        columns, lambda tp, fp, fn: 2 * tp.sum(-1) / (2 * tp + fp + fn).sum(-1), paired=True, method="percentile",
        n_resamples=8000, rng=np.random.default_rng(1), vectorized=False,
    ).confidence_interval  # fmt: skip
    assert found.low == pytest.approx(expected.low, abs=0.006) and found.high == pytest.approx(expected.high, abs=0.006)
    assert found.low < found.value < found.high


def test_interval_of_a_rate_is_the_binomial_one():
    layout = Layout(["x"], [])
    tally = Tally()
    for place in range(400):
        tally.add((0, 0, 0, 1, 1, int(place < 40), 1, 1))
    found = scoring.estimate(layout, tally, 4000, 0)["false_positive_rate"]
    # 10% of 400: the standard error is sqrt(0.1 * 0.9 / 400) = 0.015, the interval 0.1 +- 1.96 * 0.015
    assert found.value == 0.1
    assert (found.low, found.high) == (pytest.approx(0.0706, abs=0.004), pytest.approx(0.1294, abs=0.004))


def test_draws_without_a_score_do_not_count():
    tally = Tally()
    for vector in [(0, 1, 0, 1, 1, 1, 1, 0), *[(1, 0, 0, 1, 0, 0, 1, 1)] * 4]:  # a third of the draws has no negative
        tally.add(vector)
    found = scoring.estimate(Layout(["x"], []), tally, 500, 0)["false_positive_rate"]
    assert found == (1, 1, 1)


def test_intervals_depend_on_the_seed_and_not_on_the_order():
    layout, tally, vectors = random_tally(3)
    turned = Tally()
    for vector in reversed(vectors):
        turned.add(vector)
    one = scoring.estimate(layout, tally, 300, 7)
    assert one == scoring.estimate(layout, turned, 300, 7) != scoring.estimate(layout, tally, 300, 8)


def test_resampling_in_chunks_is_resampling(monkeypatch):
    _, tally, vectors = random_tally(4)
    whole = np.concatenate(list(tally.resample(50, 0)))
    monkeypatch.setattr(scoring, "CHUNK", len(tally.vectors) * 7)
    chunks = list(tally.resample(50, 0))
    assert len(chunks) == 8 and np.array_equal(np.concatenate(chunks), whole)
    assert (whole[:, 3] == len(vectors)).all()


RIGHT, MISSED = (1, 0, 0, 1, 0, 0, 1, 1), (0, 0, 1, 1, 0, 0, 1, 0)  # of a layout with one field


def found_in(number, found):
    """Vectors of articles of which those are right whose number passes."""
    return [RIGHT if found(i) else MISSED for i in range(number)]


def paired(vectors_a, vectors_b):
    tally = Tally()
    for a, b in zip(vectors_a, vectors_b, strict=True):
        tally.add(a + b)
    return tally


def test_a_real_difference_is_told_from_chance():
    layout = Layout(["x"], [])
    base = found_in(200, lambda i: i % 2)
    better = found_in(200, lambda i: i % 2 or i % 5 == 0)
    found = release.compare(layout, paired(base, better), 2000, 0)["micro.f1"]
    # 100 of 200 found, then 120: F1 2*100/300 and 2*120/320
    assert (found.a, found.b) == (pytest.approx(2 / 3), pytest.approx(3 / 4))
    assert found.is_real and found.low > 0 and found.p < 0.01
    worse = release.compare(layout, paired(better, base), 2000, 0)["micro.f1"]
    assert worse.is_real and worse.high < 0 and worse.p < 0.01
    other = found_in(200, lambda i: i % 2 == (i >= 20))  # 10 lost, 10 won
    chance = release.compare(layout, paired(base, other), 2000, 0)["micro.f1"]
    assert chance.difference == pytest.approx(0) and not chance.is_real and chance.p > 0.5


@pytest.mark.parametrize(("number", "p"), [(1, 1.0), (3, 1 / 4), (6, 1 / 32)])
def test_a_difference_that_rests_on_few_articles_may_be_chance(number, p):
    """Of `number` articles that differ all are better: p is twice one half to the power of the number."""
    layout = Layout(["x"], [])
    negatives = [(0, 0, 0, 1, 1, 0, 1, 1)] * 50
    pairs = paired([MISSED] * number + negatives, [RIGHT] * number + negatives)
    found = release.compare(layout, pairs, 4000, 0)["fields.x.recall"]
    assert found.difference == 1 and found.p == pytest.approx(p, abs=0.02) and found.is_real == (p < 0.05)


def test_pairing_makes_the_comparison_sharper():
    """The same two scores, once on the same articles and once with the articles of one file mixed up."""
    layout = Layout(["x"], [])
    base = found_in(300, lambda i: i % 2)
    better = found_in(300, lambda i: i % 2 or i % 20 == 0)
    together = release.compare(layout, paired(base, better), 1000, 0)["micro.f1"]
    mixed = release.compare(layout, paired(base, sorted(better)), 1000, 0)["micro.f1"]
    assert together.difference == pytest.approx(mixed.difference)
    assert together.is_real and together.high - together.low < (mixed.high - mixed.low) / 2


def test_gate():
    numbers = {"micro.f1": 300, "false_positive_rate": 250}
    metrics = {
        "micro.f1": Estimate(0.90, 0.86, 0.93),
        "false_positive_rate": Estimate(0.05, 0.03, 0.08),
        "macro.f1": Estimate(None, None, None),
    }
    assert release.gate(metrics, {"micro.f1": 0.92, "false_positive_rate": 0.04}, numbers) == []  # within the intervals
    assert release.gate(metrics, {"micro.f1": 0.94}, numbers) == [
        "micro.f1: 0.900 [0.860, 0.930] is below its bar 0.94"
    ]
    [above] = release.gate(metrics, {"false_positive_rate": 0.02}, numbers)
    assert above == "false_positive_rate: 0.050 [0.030, 0.080] is above its bar 0.02"
    assert release.gate(metrics, {"macro.f1": 0.1}, numbers) == ["macro.f1: nothing to score, bar 0.1"]


def test_gate_where_nothing_is_right_or_all_of_it():
    metrics = {"fields.x.f1": Estimate(0.0, 0.0, 0.0), "false_positive_rate": Estimate(1.0, 1.0, 1.0)}
    # one value wrong says little: 1 - 0.05 = 0.95 is possible; of ten 1 - 0.05^(1/10) = 0.26 at most
    assert release.gate(metrics, {"fields.x.f1": 0.9}, {"fields.x.f1": 1}) == []
    [missed] = release.gate(metrics, {"fields.x.f1": 0.9}, {"fields.x.f1": 10})
    assert missed == "fields.x.f1: 0.000 [0.000, 0.259] is below its bar 0.9"
    assert release.gate(metrics, {"false_positive_rate": 0.5}, {"false_positive_rate": 2}) == []
    assert release.gate(metrics, {"false_positive_rate": 0.5}, {"false_positive_rate": 20})


def test_of_how_many_values_a_metric_is_a_share():
    layout = Layout(["x", "y"], ["person"])
    sums = np.array([5, 1, 2, 0, 3, 0, 4, 1, 1, 20, 12, 1, 19, 15], dtype=float)
    found = layout.numbers(sums)
    assert (found["fields.x.precision"], found["fields.x.recall"], found["fields.x.f1"]) == (6, 7, 8)
    assert (found["micro.f1"], found["entities.person.f1"], found["false_positive_rate"]) == (11, 6, 12)
    assert found["exact_match_rate"] == 20 and found.keys() | {
        f"macro.{k}" for k in scoring.prf(*[np.zeros(1)] * 3)
    } == set(layout.names())

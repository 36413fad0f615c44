"""Scores of rankings: against scikit-learn and SciPy, intervals against a plain loop, and properties."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score, r2_score, root_mean_squared_error

from recipekit import regression_scores
from recipekit.ranking_scores import METRICS, Lists, WholeList, compare, estimate, quality, ranks
from recipekit.regression_scores import Pairs

LEAST = -1.0


def some(rows=60, groups=12, seed=0, digits=0):
    """Rows of groups of different sizes, in any order, with ties on both sides."""
    random = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(groups), random.integers(groups, size=rows - groups)])
    gold = random.uniform(-1, 5, rows).round(digits)
    return Pairs(gold[:, None], (0.5 * gold + random.normal(0, 1, rows)).round(digits)[:, None], owner, groups)


def of_group(gold, predicted):
    """NDCG, Spearman's correlation and top1 of one group, by the libraries; None where there is no order to find."""
    if len(set(gold.tolist())) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spearman = spearmanr(gold, predicted)[0]
    first = np.flatnonzero(predicted == predicted.max())
    top1 = np.mean([gold[i] == gold.max() for i in first])
    return ndcg_score([gold - LEAST], [predicted]), 0.0 if np.isnan(spearman) else spearman, top1


def plain(gold, predicted, owner):
    """All metrics, by the libraries and a loop over groups."""
    found = [of_group(gold[owner == one], predicted[owner == one]) for one in np.unique(owner)]
    found = [one for one in found if one]
    ndcg, spearman, top1 = np.mean(found, axis=0) if found else [np.nan] * 3
    varied = np.ptp(gold) > 0
    return {
        "mse": mean_squared_error(gold, predicted), "rmse": root_mean_squared_error(gold, predicted),
        "mae": mean_absolute_error(gold, predicted), "r2": r2_score(gold, predicted) if varied else np.nan,
        "ndcg": ndcg, "ndcg_global": ndcg_score([gold - LEAST], [predicted]) if varied else np.nan,
        "spearman": spearman, "top1": top1,
    }  # fmt: skip


def test_scores_are_those_of_the_libraries():
    pairs = some()
    found = estimate(Lists(pairs, LEAST), 100, 0)
    expected = plain(pairs.gold[:, 0], pairs.predicted[:, 0], pairs.owner)
    assert list(found) == list(METRICS)
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected)
    assert all(one.low <= one.value <= one.high and one.low < one.high for one in found.values())


VALUES = st.integers(-1, 5)  # few, so that there are ties


@given(st.data(), st.integers(1, 14))
def test_any_rows_are_scored_as_the_libraries_score_them(data, rows):
    gold, predicted = (data.draw(arrays(float, rows, elements=VALUES)) for _ in "gp")
    owner = np.unique(data.draw(arrays(int, rows, elements=st.integers(0, 4))), return_inverse=True)[1]
    pairs = Pairs(gold[:, None], predicted[:, None], owner, owner.max() + 1)
    found = Lists(pairs, LEAST).scores(np.ones((1, pairs.groups)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # R2 of one row; NDCG of one row is refused by scikit-learn
        expected = plain(gold, predicted, owner) if rows > 1 else None
    if expected is None:
        assert np.isnan([found[name][0] for name in METRICS if name not in ("mse", "rmse", "mae")]).all()
    else:
        assert {name: one[0] for name, one in found.items()} == pytest.approx(expected, nan_ok=True)


@given(arrays(float, st.integers(2, 5), elements=VALUES), st.data())
@example(np.array([3.0, 1.0, 1.0]), None)
def test_ties_get_what_a_random_order_of_them_gets(gold, data):
    """The mean over every order of rows with equal estimates, each order scored without ties."""
    predicted = data.draw(arrays(float, len(gold), elements=st.integers(0, 1))) if data else np.zeros(3)
    if len(set(gold.tolist())) < 2:
        return
    owner = np.zeros(len(gold), dtype=int)
    found = quality(gold, predicted, owner, 1, LEAST)
    orders = [np.array(order) for order in itertools.permutations(range(len(gold)))]
    strict = [quality(gold, predicted + 0.01 * order, owner, 1, LEAST) for order in orders]
    assert found.ndcg[0] == pytest.approx(np.mean([one.ndcg[0] for one in strict]))
    assert found.top1[0] == pytest.approx(np.mean([one.top1[0] for one in strict]))
    if len(set(predicted.tolist())) == 1:
        assert found.spearman[0] == 0 == pytest.approx(np.mean([one.spearman[0] for one in strict]), abs=1e-9)


@given(arrays(float, 12, elements=VALUES))
def test_ranks_share_ties(values):
    owner = np.array([0, 1, 2, 0, 1, 2, 1, 1, 1, 2, 0, 3])
    found = ranks(values, owner, 4)
    for group in range(4):
        assert found[owner == group].tolist() == rankdata(-values[owner == group]).tolist()


def test_groups_without_an_order_are_left_out():
    gold = np.array([1, 2, 3, 4, 4, 2.0])
    predicted = np.array([3, 1, 2, 0, 9, 5.0])
    owner = np.array([0, 0, 0, 1, 1, 2])  # the second has equal gold values, the third a single row
    lists = Lists(Pairs(gold[:, None], predicted[:, None], owner, 3), LEAST)
    assert lists.quality.ranked.tolist() == [True, False, False]
    found = estimate(lists, 100, 0)
    ndcg, spearman, top1 = of_group(gold[:3], predicted[:3])
    assert (found["ndcg"].value, found["spearman"].value) == (pytest.approx(ndcg), pytest.approx(spearman))
    assert found["top1"].value == top1 == 0 and found["mse"].value == pytest.approx(((gold - predicted) ** 2).mean())
    left = Lists(Pairs(gold[3:, None], predicted[3:, None], owner[3:] - 1, 2), LEAST)
    found = estimate(left, 100, 0)
    assert all(found[name] == (None, None, None) for name in ("ndcg", "spearman", "top1"))
    assert found["ndcg_global"].value is not None


def test_perfect_reversed_and_constant_estimates():
    gold = np.arange(12.0) % 4
    owner = np.arange(12) // 4
    found = {
        name: estimate(Lists(Pairs(gold[:, None], values[:, None], owner, 3), LEAST), 100, 0)
        for name, values in (("right", 2 * gold), ("wrong", -gold), ("constant", np.full(12, 2.0)))
    }
    for name, spearman, top1 in (("right", 1, 1), ("wrong", -1, 0), ("constant", 0, 0.25)):
        assert found[name]["spearman"].value == pytest.approx(spearman)
        assert found[name]["top1"].value == pytest.approx(top1)
    assert found["right"]["ndcg"].value == pytest.approx(1) == pytest.approx(found["right"]["ndcg_global"].value)
    assert found["wrong"]["ndcg"].value < found["constant"]["ndcg"].value < 1


def test_intervals_are_those_of_a_plain_loop():
    pairs = some(rows=40, groups=9)
    drawn = np.concatenate(list(regression_scores.draws(9, 150, 5)))
    found = {name: [] for name in METRICS}
    for times in drawn:
        copies = [np.flatnonzero(pairs.owner == group) for group, n in enumerate(times) for _ in range(int(n))]
        owner = np.repeat(np.arange(len(copies)), [len(rows) for rows in copies])  # a group drawn twice is two groups
        rows = np.concatenate(copies)
        for name, value in plain(pairs.gold[rows, 0], pairs.predicted[rows, 0], owner).items():
            found[name].append(value)
    for name, one in estimate(Lists(pairs, LEAST), 150, 5).items():
        assert one[1:] == pytest.approx(np.quantile(found[name], [0.025, 0.975]), abs=1e-9), name


@given(arrays(float, (2, 12), elements=VALUES), arrays(float, 12, elements=st.integers(0, 3)))
def test_ndcg_of_repeated_rows_is_that_of_the_rows_written_out(values, times):
    gold, predicted = (np.repeat(side, times.astype(int)) for side in values)
    if len(gold) < 2 or gold.max() == LEAST:
        return
    whole = WholeList(values[0] - LEAST, values[1], np.arange(12), 12)
    assert whole.ndcg(times[None])[0] == pytest.approx(ndcg_score([gold - LEAST], [predicted]))


def test_lists_grow_with_what_is_drawn():
    whole = WholeList(np.array([1.0, 2]), np.array([2.0, 1]), np.array([0, 1]), 2)
    short = whole.ndcg(np.array([[1.0, 1]]))
    long = whole.ndcg(np.array([[500.0, 500], [1, 1]]))
    expected = ndcg_score([np.repeat([1.0, 2], 500)], [np.repeat([2.0, 1], 500)])
    assert long.tolist() == pytest.approx([expected, short[0]])
    assert np.isnan(WholeList(np.zeros(2), np.ones(2), np.arange(2), 2).ndcg(np.ones((1, 2)))).all()


def test_one_group_has_scores_and_no_interval():
    lists = Lists(some(rows=8, groups=1), LEAST)
    found = estimate(lists, 100, 0)
    assert found["ndcg"].value is not None and found["ndcg"].low is None
    assert compare(lists, lists, 100, 0) == {}


def test_differences_are_paired_and_signed():
    pairs = some(200, 40, seed=1, digits=2)
    better, constant = (Lists(one, LEAST) for one in (pairs, pairs._replace(predicted=0 * pairs.gold + 2)))
    found = compare(constant, better, 300, 0)
    assert list(found) == list(METRICS)
    for name, one in found.items():
        values = [estimate(lists, 100, 0)[name].value for lists in (constant, better)]
        assert (one.a, one.b) == pytest.approx(values) and one.difference == pytest.approx(values[1] - values[0])
    for name in ("ndcg", "spearman", "top1", "ndcg_global"):
        assert found[name].low > 0 and found[name].is_real, name
    turned = compare(better, constant, 300, 0)["ndcg"]
    assert turned[2:5] == pytest.approx((-found["ndcg"].difference, -found["ndcg"].high, -found["ndcg"].low))


def test_no_difference_is_shown_where_there_is_none():
    real = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        owner = np.repeat(np.arange(20), 4)
        gold = random.uniform(-1, 5, (80, 1))
        a, b = (Lists(Pairs(gold, gold + random.normal(0, 2, (80, 1)), owner, 20), LEAST) for _ in "ab")
        real += compare(a, b, 200, seed)["ndcg"].is_real
    assert real <= 9


def test_intervals_hold_the_truth_as_often_as_they_say():
    def draw(random, groups):
        gold = random.uniform(-1, 5, (4 * groups, 1))
        return Lists(
            Pairs(gold, gold + random.normal(0, 2, gold.shape), np.repeat(np.arange(groups), 4), groups), LEAST
        )

    truth = {name: draw(np.random.default_rng(0), 50_000).quality for name in ("ndcg", "spearman")}
    held = dict.fromkeys(truth, 0)
    for seed in range(1, 121):
        found = estimate(draw(np.random.default_rng(seed), 40), 200, 999)
        for name, all_of_them in truth.items():
            held[name] += found[name].low <= getattr(all_of_them, name).mean() <= found[name].high
    assert min(held.values()) >= 0.88 * 120, held


def test_the_permutation_and_the_bootstrap_are_those_of_a_plain_loop():
    a = some(rows=30, groups=6)
    b = a._replace(predicted=a.predicted[::-1] + 1)
    found = compare(*(Lists(one, LEAST) for one in (a, b)), 200, 7)
    turned = np.random.default_rng(7).integers(2, size=(200, 6), dtype=np.int8).astype(bool)
    large = dict.fromkeys(METRICS, 0)
    for flags in turned:
        mask = flags[a.owner]
        sides = [np.where(mask, y.predicted[:, 0], x.predicted[:, 0]) for x, y in ((a, b), (b, a))]
        first, second = (plain(a.gold[:, 0], side, a.owner) for side in sides)
        for name in METRICS:
            large[name] += abs(second[name] - first[name]) >= abs(found[name].difference) - 1e-12
    assert {name: one.p for name, one in found.items()} == pytest.approx(
        {name: (number + 1) / 201 for name, number in large.items()}
    )
    drawn = np.concatenate(list(regression_scores.draws(6, 200, 7)))
    off = []
    for times in drawn:
        rows = np.concatenate([np.flatnonzero(a.owner == g) for g, n in enumerate(times) for _ in range(int(n))])
        golds, left, right = a.gold[rows, 0], a.predicted[rows, 0], b.predicted[rows, 0]
        off.append(ndcg_score([golds - LEAST], [right]) - ndcg_score([golds - LEAST], [left]))
    assert found["ndcg_global"][3:5] == pytest.approx(np.quantile(off, [0.025, 0.975]))


@given(arrays(float, (10, 2), elements=st.integers(-1, 5)), st.permutations(range(10)))
def test_the_order_of_rows_does_not_matter_and_scores_stay_in_range(values, order):
    owner = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    found = estimate(Lists(Pairs(values[:, :1], values[:, 1:], owner, 4), LEAST), 100, 0)
    moved = estimate(Lists(Pairs(values[order, :1], values[order, 1:], owner[order], 4), LEAST), 100, 0)
    for name, one in found.items():
        assert (one.value is None) == (moved[name].value is None)
        assert one.value is None or one == pytest.approx(moved[name])
    for name in ("ndcg", "ndcg_global", "top1"):
        assert found[name].value is None or 0 <= found[name].value <= 1 + 1e-9
    assert found["spearman"].value is None or abs(found["spearman"].value) <= 1 + 1e-9


@given(arrays(float, 10, elements=st.floats(-1, 5).map(lambda x: round(x, 2))))
def test_orders_do_not_depend_on_the_scale_of_the_estimates(predicted):
    owner = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    gold = np.array([1, 0, 3, 2, 2, 4, 1, 0, 1, 3.0])
    found, stretched = (quality(gold, one, owner, 3, LEAST) for one in (predicted, 3 * predicted - 7))
    for one, other in zip(found, stretched, strict=True):
        assert one.tolist() == pytest.approx(other.tolist())

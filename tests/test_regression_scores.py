"""Scores of estimates: against scikit-learn and SciPy, intervals against a plain loop, and properties."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from recipekit import regression_scores
from recipekit.regression_scores import METRICS, Pairs, Ranker, compare, estimate, rank_resamples


def some(rows=60, groups=12, targets=3, seed=0, digits=1):
    """Rows of groups of different sizes, with ties."""
    random = np.random.default_rng(seed)
    owner = np.sort(np.concatenate([np.arange(groups), random.integers(groups, size=rows - groups)]))
    gold = random.normal(4, 1, (groups, targets)).round(digits)[owner]
    predicted = (4 + 0.5 * (gold - 4) + random.normal(0, 0.5, gold.shape)).round(digits)
    return Pairs(gold, predicted, owner, groups)


def plain(gold, predicted):
    """All metrics of one target, by the libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "mse": mean_squared_error(gold, predicted),
            "mae": mean_absolute_error(gold, predicted),
            "r2": r2_score(gold, predicted) if np.ptp(gold) else np.nan,
            "pearson": pearsonr(gold, predicted)[0],
            "spearman": spearmanr(gold, predicted)[0],
            "bias": (predicted - gold).mean(),
        }


def test_scores_are_those_of_the_libraries():
    pairs = some()
    for level in (pairs, pairs.means()):
        found = estimate(level, 100, 0)
        # Means that are equal differ in their last digit.
        gold, predicted = level.gold.round(9), level.predicted.round(9)
        expected = [plain(gold[:, i], predicted[:, i]) for i in range(3)]
        for name in METRICS:
            values = [one[name] for one in expected]
            assert [one.value for one in found[name]] == pytest.approx([np.mean(values), *values], abs=1e-8), name


def test_groups_are_averaged():
    means = some().means()
    pairs = some()
    for group in range(pairs.groups):
        own = pairs.owner == group
        assert means.predicted[group] == pytest.approx(pairs.predicted[own].mean(0))
        assert means.gold[group] == pytest.approx(pairs.gold[own][0])


def test_intervals_are_those_of_a_plain_loop():
    pairs = some(rows=50, groups=9, targets=2)
    drawn = np.concatenate(list(regression_scores.draws(9, 200, 5)))
    assert drawn.shape == (200, 9) and (drawn.sum(1) == 9).all()
    found = {name: [] for name in METRICS}
    for times in drawn:
        rows = np.concatenate([np.repeat(np.flatnonzero(pairs.owner == g), int(n)) for g, n in enumerate(times)])
        scores = [plain(pairs.gold[rows, i], pairs.predicted[rows, i]) for i in range(2)]
        for name in METRICS:
            found[name].append([np.mean([one[name] for one in scores]), *(one[name] for one in scores)])
    for name, estimates in estimate(pairs, 200, 5).items():
        expected = np.quantile(np.array(found[name]), [0.025, 0.975], axis=0).T
        assert np.array([one[1:] for one in estimates]) == pytest.approx(expected, abs=1e-9), name


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(120):
        random = np.random.default_rng(seed)
        owner = np.repeat(np.arange(40), 5)
        error = random.normal(0.3, 1, 40)[owner] + random.normal(0, 0.5, 200)  # a group's errors go together
        gold = random.normal(4, 1, 40)[owner]
        _, low, high = estimate(Pairs(gold[:, None], (gold + error)[:, None], owner, 40), 200, 999)["bias"][1]
        held += low <= 0.3 <= high
    assert held >= 0.88 * 120


def test_constant_estimates_have_no_correlation_and_raise_no_warning():
    pairs = some()
    constant = pairs._replace(predicted=np.full_like(pairs.predicted, 4.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for level in (constant, constant.means()):
            found = estimate(level, 100, 0)
            assert all(one == (None, None, None) for name in ("pearson", "spearman") for one in found[name])
            assert found["r2"][1].value <= 0 and found["mae"][0].low is not None
        same = pairs._replace(gold=np.full_like(pairs.gold, 3.7))
        found = estimate(same, 100, 0)
        assert all(one.value is None for name in ("r2", "pearson", "spearman") for one in found[name])


def test_one_group_has_scores_and_no_interval():
    pairs = some(rows=20, groups=1)
    found = estimate(pairs, 100, 0)
    assert found["mae"][0].value is not None and found["mae"][0].low is None
    assert compare(pairs, pairs, 100, 0)["mae"] == [None] * 4


def test_differences_are_paired_and_signed():
    better = some(200, 40, 2, seed=1)
    worse = better._replace(predicted=better.gold.mean(0) + 0 * better.predicted)
    found = compare(better, worse, 500, 0)
    assert "spearman" not in found and found["pearson"][0] is None
    for name in ("mae", "mse"):
        mean, *targets = found[name]
        assert mean.difference == pytest.approx(np.mean([one.difference for one in targets]))
        assert mean.difference > 0 and mean.low > 0 and mean.p < 0.05 and mean.is_real
        a, b = estimate(better, 100, 0)[name][0].value, estimate(worse, 100, 0)[name][0].value
        assert (mean.a, mean.b) == (pytest.approx(a), pytest.approx(b))
    turned = compare(worse, better, 500, 0)["mae"][0]
    assert (turned.difference, turned.low, turned.high) == pytest.approx(
        (-found["mae"][0].difference, -found["mae"][0].high, -found["mae"][0].low)
    )


def test_no_difference_is_shown_where_there_is_none():
    real = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        owner = np.repeat(np.arange(20), 4)
        gold = random.normal(4, 1, (20, 1))[owner]
        a, b = (gold + random.normal(0, 1, (20, 1))[owner] for _ in "ab")
        real += compare(Pairs(gold, a, owner, 20), Pairs(gold, b, owner, 20), 200, seed)["mae"][1].is_real
    assert real <= 9


def test_the_permutation_is_that_of_a_plain_loop():
    a = some(rows=40, groups=6, targets=1)
    b = a._replace(predicted=a.predicted[::-1] + 0.7)
    found = compare(a, b, 300, 7)["pearson"][1]
    random = np.random.default_rng(7)
    turned = random.integers(2, size=(300, 6), dtype=np.int8).astype(bool)
    large = 0
    for flags in turned:
        mask = flags[a.owner][:, None]
        first, second = (np.where(mask, y.predicted, x.predicted)[:, 0] for x, y in ((a, b), (b, a)))
        difference = pearsonr(a.gold[:, 0], second)[0] - pearsonr(a.gold[:, 0], first)[0]
        large += abs(difference) >= abs(found.difference) - 1e-12
    assert found.p == pytest.approx((large + 1) / 301)


@given(arrays(float, (2, 12), elements=st.integers(0, 4)), arrays(float, 12, elements=st.integers(0, 3)))
def test_ranks_of_repeated_rows_are_those_of_the_rows_written_out(values, times):
    gold, predicted = (np.repeat(side, times.astype(int)) for side in values)
    if len(gold) == 0:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = spearmanr(gold, predicted)[0] if len(gold) > 1 else np.nan
    assert Ranker(*values, np.arange(12)).correlations(times[None])[0] == pytest.approx(expected, nan_ok=True)


@given(
    arrays(float, (10, 2), elements=st.floats(1, 7).map(lambda x: round(x, 3))),
    arrays(float, (10, 2), elements=st.floats(-50, 50).map(lambda x: round(x, 3))),
    st.permutations(range(10)),
)
def test_properties(gold, predicted, order):
    owner = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    found = estimate(Pairs(gold, predicted, owner, 4), 100, 0)
    for i in range(3):
        mse, mae, bias = (found[name][i].value for name in ("mse", "mae", "bias"))
        assert mse >= 0 and mae >= abs(bias) - 1e-9
        if i:
            assert mse >= mae**2 - 1e-9
        for name in ("pearson", "spearman"):
            value = found[name][i].value
            assert value is None or -1 - 1e-9 <= value <= 1 + 1e-9
    moved = estimate(Pairs(gold[order], predicted[order], owner[order], 4), 100, 0)
    right = estimate(Pairs(gold, gold, owner, 4), 100, 0)
    for i in range(3):
        assert moved["mae"][i].value == pytest.approx(found["mae"][i].value)
        assert right["mae"][i] == (0, 0, 0)
        assert right["r2"][i].value in (None, pytest.approx(1))


def test_many_rows_get_fewer_resamples_of_ranks():
    assert rank_resamples(some(), 1000) == 1000
    large = Pairs(np.zeros((1_000_000, 5)), np.zeros((1_000_000, 5)), np.zeros(1_000_000, dtype=int), 1)
    assert rank_resamples(large, 1000) == 500

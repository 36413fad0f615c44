"""Losses that look at the order of the rows of a group, and batches of whole groups."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import ndcg_score
from torch.utils.data import DataLoader
from transformers import EvalPrediction

from recipekit.ranking import GroupSampler, listwise, ndcg, pairwise
from recipekit.regression import RankingConfig, RegressionConfig
from recipekit.regression_plugin import encode_rows, loss_of, metrics_of


def rows(groups: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    outputs = torch.randn(len(groups), generator=draws, dtype=torch.float64)
    wanted = torch.randint(0, 4, (len(groups),), generator=draws).double() / 4
    return outputs, wanted, torch.tensor(groups, dtype=torch.float64)


GROUPS = [3, 1, 3, 2, 1, 3, 7, 3, 1]


def test_pairwise_is_the_mean_over_pairs_of_a_group_that_differ():
    outputs, wanted, groups = rows(GROUPS)
    losses = [
        np.log1p(np.exp(outputs[worse] - outputs[better]))
        for better in range(len(GROUPS))
        for worse in range(len(GROUPS))
        if GROUPS[better] == GROUPS[worse] and wanted[better] > wanted[worse]
    ]
    assert 0 < len(losses) < 20
    assert pairwise(outputs, wanted, groups).item() == pytest.approx(np.mean(losses))


def test_listwise_is_the_divergence_of_the_chances_to_come_first():
    outputs, wanted, groups = rows(GROUPS)
    found = []
    for group in (1, 3):  # the others have one row each
        own = groups.numpy() == group
        chances, guessed = softmax(wanted.numpy()[own] / 0.2), softmax(outputs.numpy()[own])
        found.append((chances * np.log(chances / guessed)).sum())
    assert listwise(outputs, wanted, groups, 0.2).item() == pytest.approx(np.mean(found))
    assert listwise(wanted / 0.2, wanted, groups, 0.2).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [pairwise, lambda *given: listwise(*given, 0.1)])
def test_order_losses_fall_where_the_better_row_rises_and_groups_do_not_mix(loss):
    outputs, wanted, groups = torch.zeros(4), torch.tensor([0.9, 0.1, 0.2, 0.3]), torch.tensor([1.0, 1.0, 2.0, 3.0])
    outputs.requires_grad_()
    loss(outputs, wanted, groups).backward()
    assert outputs.grad[0] < 0 < outputs.grad[1]
    assert outputs.grad[2] == outputs.grad[3] == 0, "a group of one row has no order"


@pytest.mark.parametrize("loss", [pairwise, lambda *given: listwise(*given, 0.1)])
def test_a_batch_without_an_order_costs_nothing(loss):
    outputs = torch.randn(3, requires_grad=True)
    found = loss(outputs, torch.rand(3), torch.tensor([1.0, 2.0, 3.0]))
    found.backward()
    assert found.item() == 0 and torch.equal(outputs.grad, torch.zeros(3))


def test_ndcg_is_scikit_learns_over_groups_that_can_be_ranked():
    draws = np.random.default_rng(0)
    groups = draws.integers(0, 8, 60).astype(float)
    wanted, values = draws.normal(size=60).round(1), draws.normal(size=60).round(1)
    wanted[groups == 5] = 1.5
    gains = wanted + 4
    kept = [groups == group for group in range(8) if group != 5]
    expected = np.mean([ndcg_score([gains[own]], [values[own]]) for own in kept])
    assert ndcg(wanted, values, groups, -4) == pytest.approx(expected)
    assert np.isnan(ndcg(np.ones(3), np.arange(3.0), np.zeros(3), 0))


def test_batches_hold_whole_groups_and_each_epoch_has_another_order():
    groups = np.repeat(np.arange(20), 5)
    np.random.default_rng(0).shuffle(groups)
    sampler = GroupSampler(groups, seed=7)
    first = list(sampler)
    assert sorted(first) == list(range(100)) and len(sampler) == 100
    runs = groups[first].reshape(20, 5)
    assert (runs == runs[:, :1]).all(), "rows of a group follow each other"
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first and sorted(second) == sorted(first)
    assert list(GroupSampler(groups, seed=8)) != first
    loader = DataLoader(range(100), batch_size=10, sampler=GroupSampler(groups, seed=7))
    assert torch.cat(list(loader)).tolist() == first


def spec(loss: str = "none", **own) -> RegressionConfig:
    ranking = RankingConfig(by="odai_id", loss=loss, **own)
    return RegressionConfig(heads={"score": {"scale": (-1, 5)}}, ranking=ranking)


def test_the_order_is_added_to_the_error():
    outputs, _, groups = rows(GROUPS)
    labels = torch.stack([torch.linspace(0, 1, len(GROUPS)).double(), groups], 1)
    plain = loss_of(spec(), outputs[:, None], labels)
    assert plain.item() == pytest.approx(((outputs.float().sigmoid() - labels[:, 0]) ** 2).mean().item(), rel=1e-5)
    values = outputs.float(), labels[:, 0].float(), groups
    for loss, own in (("pairwise", pairwise(*values)), ("listwise", listwise(*values, 0.1))):
        assert loss_of(spec(loss, weight=0.3), outputs[:, None], labels).item() == pytest.approx(
            (plain + 0.3 * own).item(), rel=1e-5
        )


def test_evaluations_score_the_order_within_groups():
    given = spec()
    labels = np.array([[given.encode({"score": score})[0], group] for score, group in ((0, 1), (5, 1), (2, 2), (1, 2))])
    right = metrics_of(given, EvalPrediction(np.array([[-3.0], [3.0], [2.0], [1.0]]), labels))
    assert right["ndcg"] == 1 and right["mae"] > 0
    assert metrics_of(given, EvalPrediction(np.array([[3.0], [-3.0], [2.0], [1.0]]), labels))["ndcg"] < 1


class Tokenizer:
    def __call__(self, texts, pairs, truncation, max_length):
        return {"input_ids": [[len(text), len(pair)] for text, pair in zip(texts, pairs, strict=True)]}


def test_rows_carry_the_number_of_their_group():
    given = [
        {"odai_id": group, "body": "題" * n, "pair": "答", "labels": {"score": n}} for n, group in enumerate("abca", 1)
    ]
    found = encode_rows(given, spec(), Tokenizer(), 8)
    assert [own[-1] for own in found["labels"]] == [0, 1, 2, 0]
    assert found["input_ids"][2] == [3, 1]
    assert "labels" in found.column_names and len(found["labels"][0]) == 2
    plain = RegressionConfig(heads={"score": {"scale": (-1, 5)}})
    assert len(encode_rows(given, plain, Tokenizer(), 8)["labels"][0]) == 1


def test_an_order_needs_one_number():
    for heads in ({"a": {"scale": (0, 1)}, "b": {"scale": (0, 1)}}, {"a": {"classes": ["x", "y"]}}):
        with pytest.raises(ValueError, match="ranking: found . heads, expected one, with a scale"):
            RegressionConfig(heads=heads, ranking={"by": "odai_id"})

"""Losses that look at the order of the rows of one group, such as the responses to one odai, and batches for them."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.data import Sampler

from recipekit.ranking_scores import quality


def _together(groups: torch.Tensor) -> torch.Tensor:
    return groups[:, None] == groups[None, :]


def pairwise(outputs: torch.Tensor, wanted: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """RankNet (Burges et al. 2005): of each two rows of a group the better one has the greater output.

    Args:
        outputs: Model outputs before the activation, shape [rows].
        wanted: Scaled labels, shape [rows].
        groups: Numbers of the rows' groups, shape [rows].

    Returns:
        Mean over pairs that differ; 0 where there are none.
    """
    better = _together(groups) & (wanted[:, None] > wanted[None, :])
    losses = functional.softplus(outputs[None, :] - outputs[:, None])
    return (losses * better).sum() / better.sum().clamp(min=1)


def listwise(outputs: torch.Tensor, wanted: torch.Tensor, groups: torch.Tensor, temperature: float) -> torch.Tensor:
    """ListNet (Cao et al. 2007): cross entropy of the chances to come first, which labels and outputs give.

    Args:
        outputs: Model outputs before the activation, shape [rows].
        wanted: Scaled labels, shape [rows].
        groups: Numbers of the rows' groups, shape [rows].
        temperature: What scaled labels are divided by; the smaller, the more the best row alone counts.

    Returns:
        Mean over groups of two rows or more, less its least possible value; 0 where there are none.
    """
    together = _together(groups)
    apart = torch.zeros_like(outputs).expand(len(outputs), -1).masked_fill(~together, -torch.inf)
    chances = (wanted / temperature + apart).log_softmax(1)  # row i: the list of its group
    found = (outputs + apart).log_softmax(1)
    sizes = together.sum(1)
    per_row = (chances.exp() * (chances - found).masked_fill(~together, 0.0)).sum(1) / sizes  # a group's rows share it
    many = sizes > 1
    lists = (many / sizes).sum()
    return (per_row * many).sum() / lists.clamp(min=1)


def ndcg(wanted: NDArray[np.float64], values: NDArray[np.float64], groups: NDArray[np.float64], least: float) -> float:
    """Mean NDCG of the groups that can be ranked, as evaluate.py has it.

    Args:
        wanted: Labels, shape [rows].
        values: Estimates, shape [rows].
        groups: Numbers of the rows' groups, shape [rows].
        least: The least value of the labels' scale, from which gains count.

    Returns:
        0 to 1; nan where no group has two rows that differ.
    """
    names, owner = np.unique(groups, return_inverse=True)
    found = quality(wanted, values, owner, len(names), least)
    return float(found.ndcg[found.ranked].mean()) if found.ranked.any() else float("nan")


class GroupSampler(Sampler[int]):
    """Draws groups at random and the rows of each one after the other, so that a batch holds whole groups but two.

    Attributes:
        epoch: Of which the order is drawn; the same seed and epoch give the same order.
    """

    def __init__(self, groups: NDArray[np.int64], seed: int) -> None:
        self.groups, self.seed, self.epoch = groups, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take another order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        _, place = np.unique(self.groups, return_inverse=True)
        turn = rng.permutation(place.max() + 1)[place]  # when a row's group comes
        return iter(np.lexsort((rng.random(len(turn)), turn)).tolist())

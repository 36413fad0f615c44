"""Rows of a file that repeat: the same row, id or article, and articles whose labels contradict each other."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recipekit.findings import Finding

Keys = NDArray[np.uint64]
Order = NDArray[np.int64]  # positions of rows, line - 1


def repeats(ids: Keys, bodies: Keys, labels: NDArray[np.uint32]) -> Iterator[Finding]:
    """Yield what repeats.

    Args:
        ids: Digest of each line's id; 0 where it has none.
        bodies: Digest of its article; 0 where the line is no row.
        labels: Digest of its label.
    """
    rows = _of_repeated(bodies)
    rows = rows[np.lexsort((ids[rows], labels[rows], bodies[rows]))]  # stable: the first line of equal ones is first
    same_body = _as_before(bodies[rows])
    same = same_body & _as_before(labels[rows]) & _as_before(ids[rows])
    for line, first in _after_first(rows, same):
        what = f"the same id, article and label as line {first}; remove one of them"
        yield Finding(line, "twice", "", what, f"as line {first}", "")
    once = np.ones(len(ids), bool)
    once[rows[same]] = False
    rows, same_body = rows[~same], _as_before(bodies[rows[~same]])
    yield from _articles(rows, same_body, labels)
    rows = _of_repeated(np.where(once & (bodies != 0), ids, np.uint64(0)))
    rows = rows[np.argsort(ids[rows], kind="stable")]
    for line, first in _after_first(rows, _as_before(ids[rows])):
        yield Finding(line, "id", "id", f"stands on line {first} already; ids are unique, give it another")


def _articles(rows: Order, same_body: NDArray[np.bool_], labels: NDArray[np.uint32]) -> Iterator[Finding]:
    """Yield rows of the same article, contradicting ones each with one that it contradicts."""
    for group in np.split(rows, np.flatnonzero(~same_body)[1:]):
        if len(group) < 2:
            continue
        group = np.sort(group)
        own = labels[group]
        others = group[own != own[0]]
        if not len(others):
            for row in group[1:]:
                yield Finding(int(row) + 1, "again", "", f"the article of line {group[0] + 1}, with the same label")
            continue
        for row, label in zip(group, own, strict=True):
            other = others[0] if label == own[0] else group[0]
            what = f"the article of line {other + 1}, which has another label; mend one of the labels, or remove a row"
            yield Finding(int(row) + 1, "conflict", "label", what)


def _of_repeated(keys: Keys) -> Order:
    """Return the rows whose key, not 0, another row has as well."""
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][_as_before(ordered)[1:]])
    repeated = repeated[repeated != 0]
    if not len(repeated):
        return np.zeros(0, np.int64)
    places = np.searchsorted(repeated, keys).clip(max=len(repeated) - 1)
    return np.flatnonzero(repeated[places] == keys)


def _as_before(keys: NDArray) -> NDArray[np.bool_]:
    """Tell of each key whether it is the one before it."""
    return np.concatenate([[False], keys[1:] == keys[:-1]])[: len(keys)]


def _after_first(rows: Order, same: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield line and first line of the rows that equal the one before them."""
    firsts = rows[~same]
    for row, run in zip(rows[same], (np.cumsum(~same) - 1)[same], strict=True):
        yield int(row) + 1, int(firsts[run]) + 1

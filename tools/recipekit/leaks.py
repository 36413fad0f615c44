"""Pairs of rows that share something, in every two splits and within each."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipekit import near
from recipekit.corpus import SPLITS, Corpus

BETWEEN = [("train", "test"), ("validation", "test"), ("train", "validation")]

Rows = NDArray[np.intp]  # numbers of rows


class Pair(NamedTuple):
    """Two rows that share something.

    Attributes:
        left: Number of the row that would have to go; within a split, the earlier one.
        right: Number of the other.
        alike: Jaccard of the 5-grams, of pairs of texts.
    """

    left: int
    right: int
    alike: float | None = None


Found = dict[tuple[str, str, str], list[Pair]]  # left split, right split (the same: within it), kind


def search(corpus: Corpus, threshold: float, advance: Callable[..., None]) -> Found:
    """Look for everything that is shared.

    Of two splits, every row that shares something is in at least one pair, and pairs are no more than rows: of
    thousands that are all alike each is paired with one of the other split. Within a split, each row but the first of
    its kind is paired with an earlier one, and only texts count.

    Args:
        corpus: The rows.
        threshold: Jaccard from which on texts are near.
        advance: Called for every pair of splits.

    Returns:
        Pairs, the most alike first, by splits and kind; kinds that a task cannot have are left out.
    """
    found: Found = {}
    for names in [*BETWEEN, *((name, name) for name in SPLITS)]:
        left, right = (corpus.rows(name) for name in names)
        if len(left) and len(right):
            within = names[0] == names[1]
            for kind, pairs in (_within if within else _between)(corpus, left, right, threshold).items():
                found[(*names, kind)] = sorted(pairs, key=lambda pair: (-(pair.alike or 0), pair))
        advance()
    return found


def _between(corpus: Corpus, left: Rows, right: Rows, threshold: float) -> dict[str, list[Pair]]:
    found = {kind: _shared(corpus, kind, left, right) for kind in corpus.kinds if kind != "near"}
    strictest = {row for pair in found["exact"] for row in pair[:2]}
    found["normalised"] = [pair for pair in found["normalised"] if not strictest.issuperset(pair[:2])]
    found["near"] = _near(corpus, left, right, threshold)
    return {kind: found[kind] for kind in corpus.kinds}


def _shared(corpus: Corpus, kind: str, left: Rows, right: Rows) -> list[Pair]:
    """Pair rows of two splits that have a digest in common: every row of both stands in a pair."""
    hashes, rows = (np.frombuffer(values, values.typecode) for values in corpus.keys[kind])
    mine, others = (np.isin(rows, side) for side in (left, right))
    common = np.intersect1d(hashes[mine], hashes[others])
    first: list[dict[int, int]] = []
    entries: list[list[tuple[int, int]]] = []
    for side in (mine, others):
        chosen = side & np.isin(hashes, common)
        entries.append(list(zip(hashes[chosen].tolist(), rows[chosen].tolist(), strict=True)))
        first.append(dict(reversed(entries[-1])))
    alike = 1.0 if kind in ("exact", "normalised") else None
    partner = {row: Pair(row, first[1][digest], alike) for digest, row in reversed(entries[0])}
    reached = {pair.right for pair in partner.values()}
    rest = {row: Pair(first[0][digest], row, alike) for digest, row in reversed(entries[1]) if row not in reached}
    return [*partner.values(), *rest.values()]


def _near(corpus: Corpus, left: Rows, right: Rows, threshold: float) -> list[Pair]:
    """Pair rows of two splits whose texts are near, but for rows that have an equal text in the other split."""
    mine, others = _by_text(corpus, left), _by_text(corpus, right)
    normal = corpus.keys["normalised"][0]
    equal = mine.keys() & others.keys()
    covered = {side[digest][0] for side in (mine, others) for digest in equal}
    found: list[Pair] = []
    firsts = [np.array([rows[0] for rows in side.values()], np.intp) for side in (mine, others)]
    for text, candidates in near.between(corpus.signatures, firsts[0], firsts[1], threshold):
        for other in candidates:
            if covered.issuperset((text, other)):
                continue
            alike = near.jaccard(corpus.grams(other), corpus.grams(text))
            if alike >= threshold:
                lefts = mine[normal[other]] if other not in covered else [other]
                rights = others[normal[text]] if text not in covered else [text]
                found += [Pair(row, text, alike) for row in lefts] + [Pair(other, row, alike) for row in rights[1:]]
                covered |= {text, other}
    return found


def _by_text(corpus: Corpus, rows: Rows) -> dict[int, list[int]]:
    """Return the rows of each normalised text, by its digest."""
    normal = corpus.keys["normalised"][0]
    found: dict[int, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(normal[row], []).append(row)
    return found


def _within(corpus: Corpus, rows: Rows, _: Rows, threshold: float) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    repeated: set[int] = set()
    for kind in ("exact", "normalised"):
        first: dict[int, int] = {}
        digests = corpus.keys[kind][0]
        pairs = [Pair(first.setdefault(digests[row], row), row, 1.0) for row in rows.tolist()]
        found[kind] = [pair for pair in pairs if pair.left != pair.right and pair.right not in repeated]
        repeated |= {pair.right for pair in found[kind]}
    firsts = np.array([row for row in rows.tolist() if row not in repeated], np.intp)
    groups = Groups()
    found["near"] = []
    for one, other in near.within(corpus.signatures, firsts, threshold):
        if groups.of(one) != groups.of(other):
            alike = near.jaccard(corpus.grams(one), corpus.grams(other))
            if alike >= threshold:
                groups.join(one, other)
                found["near"].append(Pair(one, other, alike))
    return found


class Groups:
    """Rows that belong together, directly or by way of others (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def of(self, row: int) -> int:
        """Return the row that stands for a row's group."""
        while (parent := self._parent.setdefault(row, row)) != row:
            self._parent[row] = self._parent[parent]
            row = self._parent[row]
        return row

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        self._parent[self.of(other)] = self.of(one)

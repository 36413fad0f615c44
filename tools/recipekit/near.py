"""Near duplicates: texts that share most of their 5-grams of characters, found by MinHash and proven by counting.

MinHash is rensa's: an article of 850 characters takes 30 µs with its 5-grams, datasketch 420 without them, and it
brings SciPy. The bands are looked up here, because rensa's index answers with every text of a bucket, and boilerplate
makes that n^2.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np
import rensa
from numpy.typing import NDArray

GRAM = 5  # characters
SLOTS = 128  # of a signature, four bytes each
FOUND = 0.99  # of the pairs that are just as alike as the threshold says, the share that the bands find at least
SIGMAS = 3  # below the threshold an estimate may be for its pair to be counted
BESIDE, KEPT = 8, 4  # within a split: texts of a bucket that a text is compared with, and those of them that are kept
_MIX = np.uint64(0x9E3779B97F4A7C15)

PAIR = np.dtype([("first", np.intp), ("second", np.intp), ("alike", np.float64)])
Texts = NDArray[np.intp]  # numbers of texts: rows of a matrix of signatures


class _Kept(dict[int, int | None]):
    """For str.translate: letters, digits, emoji and currency stay; punctuation, spaces, marks and controls go."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        self[code] = code if category[0] in "LN" or category in ("So", "Sc") else None
        return self[code]


_KEPT = _Kept()


def normal(text: str) -> str:
    """Return a text in NFKC without white space and punctuation; digits stay. A text of nothing else stays as it is."""
    return unicodedata.normalize("NFKC", text).translate(_KEPT) or text


def grams(text: str) -> NDArray[np.uint64]:
    """Return a text's 5-grams, each as 64 bits, sorted and once each; a shorter text is its own one."""
    return np.unique(_grams(text))


def jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Count how alike two texts are, 0 to 1: of all their 5-grams, the share that both have."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Compute MinHash signatures of normal texts; the share of equal slots of two estimates their Jaccard.

    Returns:
        One row of 128 slots a text.
    """
    hashes = [_grams(text) for text in texts]
    ends = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), ends, SLOTS, 42)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _grams(text: str) -> NDArray[np.uint64]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass").ljust(4 * GRAM, b"\0"), np.uint32)
    count = len(codes) - GRAM + 1
    hashes = np.zeros(count, np.uint64)
    for place in range(GRAM):
        hashes = hashes * _MIX ^ codes[place : place + count]
        hashes ^= hashes >> np.uint64(29)
    return hashes * _MIX


def bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many slots: the longest ones that find 99% of the pairs at the threshold."""
    for slots in range(SLOTS, 1, -1):
        count = SLOTS // slots
        if 1 - (1 - threshold**slots) ** count >= FOUND:
            return count, slots
    return SLOTS, 1


def between(matrix: NDArray[np.uint32], left: Texts, right: Texts, threshold: float) -> Iterator[tuple[int, list[int]]]:
    """Look for pairs of a left and a right text that may be as alike as the threshold says.

    Args:
        matrix: Signatures.
        left: Numbers of texts.
        right: Numbers of texts, fewer if possible.
        threshold: Of Jaccard.

    Yields:
        A right text that has such left ones, and these, the most alike first; a text is not compared with itself.
    """
    buckets = []
    for keys in _band_keys(matrix, threshold):
        order = left[np.argsort(keys[left], kind="stable")]
        found = keys[order]
        buckets.append((order, np.searchsorted(found, keys[right]), np.searchsorted(found, keys[right], "right")))
    least = _least(threshold)
    for place, text in enumerate(right):
        parts = [order[start[place] : stop[place]] for order, start, stop in buckets if start[place] < stop[place]]
        if not parts:
            continue
        others = np.unique(np.concatenate(parts))
        alike = (matrix[others] == matrix[text]).mean(axis=1)
        alike[others == text] = 0
        best = np.argsort(-alike, kind="stable")[: int((alike >= least).sum())]
        if len(best):
            yield int(text), others[best].tolist()


def within(matrix: NDArray[np.uint32], texts: Texts, threshold: float) -> list[tuple[int, int]]:
    """Look for pairs of texts that may be as alike as the threshold says, enough of them to see which belong together.

    In a large bucket, texts that stand side by side are compared, and of each text the most alike are kept, so that
    the number of pairs grows with that of texts, whatever boilerplate there is.

    Returns:
        Pairs of numbers of texts, the smaller first.
    """
    found = np.empty(0, PAIR)
    for keys in _band_keys(matrix, threshold):
        order = texts[np.argsort(keys[texts], kind="stable")]
        ordered = keys[order]
        beside = [np.flatnonzero(ordered[:-step] == ordered[step:]) for step in range(1, BESIDE + 1)]
        new = np.concatenate([np.stack([order[at], order[at + step]]) for step, at in enumerate(beside, 1)], axis=1)
        first, second = np.sort(new, axis=0)
        found = _best(np.concatenate([found, _compared(matrix, first, second, _least(threshold))]))
    return list(zip(found["first"].tolist(), found["second"].tolist(), strict=True))


def _compared(matrix: NDArray[np.uint32], first: Texts, second: Texts, least: float) -> NDArray[Any]:
    """Estimate how alike texts are, and keep the pairs that are enough so."""
    parts = np.array_split(np.arange(len(first)), len(first) // 10_000 + 1)
    alike = np.concatenate([(matrix[first[part]] == matrix[second[part]]).mean(axis=1) for part in parts])
    chosen = alike >= least
    found = np.empty(int(chosen.sum()), PAIR)
    found["first"], found["second"], found["alike"] = first[chosen], second[chosen], alike[chosen]
    return found


def _best(pairs: NDArray[Any]) -> NDArray[Any]:
    """Keep, of each second text, the pairs that are the most alike, each once; ordered by it."""
    ordered = pairs[np.lexsort((pairs["first"], -pairs["alike"], pairs["second"]))]
    ordered = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    starts = np.flatnonzero(np.append(True, ordered["second"][1:] != ordered["second"][:-1])[: len(ordered)])
    rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    return ordered[rank < KEPT]


def _band_keys(matrix: NDArray[np.uint32], threshold: float) -> Iterator[NDArray[np.uint64]]:
    """Yield a key for each text and band; texts with the same key are alike in the whole band."""
    count, slots = bands(threshold)
    for band in range(count):
        keys = np.zeros(len(matrix), np.uint64)
        for column in range(band * slots, (band + 1) * slots):
            keys = (keys ^ matrix[:, column]) * _MIX
            keys ^= keys >> np.uint64(32)
        yield keys


def _least(threshold: float) -> float:
    return threshold - SIGMAS * sqrt(threshold * (1 - threshold) / SLOTS)

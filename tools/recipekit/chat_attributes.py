"""Do replies follow the fields that attribute scenes vary? Effects of their levels on style, over sets of scenes.

A set holds one conversation under several levels. All that is compared is compared within sets, so that what a set is
about cancels out. Intervals draw sets anew. The permutation test exchanges the replies of a set among the levels of a
field, where its other fields are equal: how often does that give as large an effect?
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipekit.chat_replies import Scene
from recipekit.chat_scores import Values
from recipekit.regression_scores import draws
from recipekit.scoring import LEVEL, interval

MEASURES = ("length", "particles", "emoji", "polite")  # of chat_scores.STYLE

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]


class Field(NamedTuple):
    """A field that varies within sets.

    Attributes:
        name: Of chat.fields.
        title: For people.
        levels: Words of each level, in the order of task.yml.
    """

    name: str
    title: str
    levels: list[str]


class Sets(NamedTuple):
    """Attribute scenes.

    Attributes:
        fields: Those that vary.
        places: Int of shape [rows], the scenes' places among all.
        owner: Int of shape [rows], the number of a row's set.
        levels: Int of shape [rows, fields].
    """

    fields: list[Field]
    places: NDArray[np.int64]
    owner: NDArray[np.int64]
    levels: NDArray[np.int64]


def sets_of(scenes: Sequence[Scene], fields: dict[str, dict[str, Any]]) -> Sets | None:
    """Gather the attribute scenes of which a field varies within a set; None: there are none.

    Args:
        scenes: All scenes.
        fields: chat.fields of task.yml.
    """
    places = [i for i, scene in enumerate(scenes) if scene.kind == "attribute"]
    names = sorted({scenes[i].set or "" for i in places})
    owner = np.array([names.index(scenes[i].set or "") for i in places], dtype=np.int64)
    found, columns = [], []
    for name, spec in fields.items():
        if "text" in spec or spec.get("many"):
            continue
        words = spec["levels"] if "levels" in spec else list(spec["values"].values())
        order: list[Any] = list(range(len(words)) if "levels" in spec else spec["values"])
        said = [scenes[i].conversation.fields.get(name) for i in places]
        if None in said:
            continue
        column = np.array([order.index(value) for value in said], dtype=np.int64)
        if any(len(np.unique(column[owner == one])) > 1 for one in range(len(names))):
            found.append(Field(name, spec["title"], list(words)))
            columns.append(column)
    return Sets(found, np.array(places), owner, np.stack(columns, axis=1)) if found else None


def effects(sets: Sets, style: Values, texts: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """Estimate how style follows the fields.

    Args:
        sets: Attribute scenes.
        style: Measure -> float of shape [scenes], of all scenes; nan: no reply.
        texts: Replies to all scenes.
        resamples: How often sets are drawn anew, and replies exchanged.
        seed: Of the draws.

    Returns:
        `fields` (field -> title, levels and, of its lowest and highest level, `effects` by measure, `same`, `obeyed`;
        `spearman` by measure), `corners` (the same of all fields together, where several vary), `grid` of two fields.
    """
    own = {name: style[name][sets.places] for name in MEASURES}
    ends = _Ends(own, [texts[i] for i in sets.places], sets.owner, resamples, seed)
    result: dict[str, Any] = {"sets": int(sets.owner.max()) + 1, "fields": {}}
    for column, one in enumerate(sets.fields):
        level = sets.levels[:, column]
        others = np.delete(sets.levels, column, axis=1)
        result["fields"][one.name] = {
            "title": one.title, "levels": one.levels, "low": int(level.min()), "high": int(level.max()),
            **ends.compare(level == level.min(), level == level.max(), others),
            "spearman": {name: _trend(sets.owner, level, y, resamples, seed) for name, y in own.items()},
        }  # fmt: skip
    if len(sets.fields) > 1:
        low, high = sets.levels.min(0), sets.levels.max(0)
        found = ends.compare((sets.levels == low).all(1), (sets.levels == high).all(1), sets.levels[:, :0])
        result |= {"corners": {"low": low.tolist(), "high": high.tolist(), **found}, "grid": _grid(sets, own)}
    return result


class _Ends(NamedTuple):
    """Compares two groups of rows within sets."""

    own: Values
    said: list[str]
    owner: NDArray[np.int64]
    resamples: int
    seed: int

    def compare(self, low: Rows, high: Rows, others: NDArray[np.int64]) -> dict[str, Any]:
        """Tell how much more of each measure the second group has; rows with equal `others` may be exchanged."""
        found = {name: self._effect(y, low, high, others) for name, y in self.own.items()}
        known = [one["p"] for one in found.values() if one]
        shown = any(one and one["real"] and one["p"] * len(known) < 1 - LEVEL for one in found.values())
        return {"effects": found, "same": self._same(low, high), "obeyed": bool(shown)}

    def _same(self, low: Rows, high: Rows) -> float | None:
        """Return the share of sets whose replies are the same at both ends."""
        ends: list[dict[int, set[str]]] = [{}, {}]
        for rows, end in zip((low, high), ends, strict=True):
            for i in np.flatnonzero(rows):
                end.setdefault(int(self.owner[i]), set()).add(self.said[i])
        both = [ends[0][one] == ends[1][one] for one in ends[0] if one in ends[1]]
        return float(np.mean(both)) if both else None

    def _effect(self, y: Array, low: Rows, high: Rows, others: NDArray[np.int64]) -> dict[str, Any] | None:
        number = int(self.owner.max()) + 1
        ends = [_by_set(self.owner, rows, y, number) for rows in (low, high)]
        both = ~np.isnan(ends[0] + ends[1])
        if both.sum() < 2:
            return None
        first, second = (end[both] for end in ends)
        change = float((second - first).mean())
        weight = np.zeros(len(y))  # of a row in the change
        for rows, sign in ((low, -1.0), (high, 1.0)):
            use = rows & ~np.isnan(y) & both[self.owner]
            weight[use] += sign / np.bincount(self.owner[use], minlength=number)[self.owner[use]] / both.sum()
        chance = self._exchanged(y, weight, others)
        p = float(((np.abs(chance) >= abs(change) - 1e-12).sum() + 1) / (self.resamples + 1))
        bounds = interval(_drawn(second - first, self.resamples, self.seed))
        apart = bounds[0] is not None and bounds[1] is not None and (bounds[0] > 0 or bounds[1] < 0)
        return {
            "low": float(first.mean()), "high": float(second.mean()), "difference": change, "interval": list(bounds),
            "p": p, "real": bool(apart and p < 1 - LEVEL),
        }  # fmt: skip

    def _exchanged(self, y: Array, weight: Array, others: NDArray[np.int64]) -> Array:
        """Return the change where replies of a set are exchanged by chance, float of shape [resamples]."""
        random = np.random.default_rng(self.seed)
        known = np.flatnonzero(~np.isnan(y))
        keys = np.column_stack([self.owner, others])[known]
        stratum = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
        order = np.argsort(stratum, kind="stable")
        total = np.zeros(self.resamples)
        for rows in np.split(known[order], np.flatnonzero(np.diff(stratum[order])) + 1):
            if weight[rows].any():
                total += random.permuted(np.tile(y[rows], (self.resamples, 1)), axis=1) @ weight[rows]
        return total


def _by_set(owner: NDArray[np.int64], rows: Rows, y: Array, number: int) -> Array:
    """Average a measure over some rows of each set; nan where a set has none of them, or none with a reply."""
    use = rows & ~np.isnan(y)
    counts = np.bincount(owner[use], minlength=number)
    totals = np.bincount(owner[use], y[use], minlength=number)
    return np.divide(totals, counts, out=np.full(number, np.nan), where=counts > 0)


def _drawn(per_set: Array, resamples: int, seed: int) -> Array:
    return np.concatenate([times @ per_set for times in draws(len(per_set), resamples, seed)]) / len(per_set)


def _trend(
    owner: NDArray[np.int64], level: NDArray[np.int64], y: Array, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Average Spearman's correlation of level and measure over sets; 0 where a set's replies are all alike."""
    from scipy.stats import rankdata

    order = np.argsort(owner, kind="stable")
    edges = np.flatnonzero(np.diff(owner[order], prepend=-1, append=-2))
    found = []
    for start, end in pairwise(edges):
        rows = order[start:end]
        rows = rows[~np.isnan(y[rows])]
        if len(rows) < 2 or len(np.unique(level[rows])) < 2:
            continue
        ranks = [rankdata(values) - (len(rows) + 1) / 2 for values in (level[rows], y[rows])]
        varied = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        found.append(float(ranks[0] @ ranks[1] / varied) if varied else 0.0)
    if len(found) < 2:
        return None
    per_set = np.array(found)
    return {"value": float(per_set.mean()), "interval": list(interval(_drawn(per_set, resamples, seed)))}


def _grid(sets: Sets, own: Values) -> dict[str, Any]:
    """Average every measure over the rows of each pair of levels of the first two fields; None where there are none."""
    shape = [len(field.levels) for field in sets.fields[:2]]
    place = np.ravel_multi_index(tuple(sets.levels[:, :2].T), tuple(shape))
    found: dict[str, Any] = {"fields": [field.name for field in sets.fields[:2]]}
    for name, y in own.items():
        cells = _by_set(place, np.ones(len(place), dtype=bool), y, shape[0] * shape[1]).reshape(shape)
        found[name] = [[None if np.isnan(cell) else float(cell) for cell in row] for row in cells]
    counts = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    return found | {"rows": counts.tolist()}

"""Do replies follow the fields that attribute scenes vary? Effects of their levels on style, over sets of scenes.

A set holds one conversation under several levels. All that is compared is compared within sets, so that what a set is
about cancels out; intervals draw sets anew, and the permutation test exchanges the two ends of whole sets.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from recipekit.chat_data import Scene
from recipekit.chat_scores import Values
from recipekit.regression_scores import draws
from recipekit.scoring import LEVEL, interval

MEASURES = ("length", "particles", "emoji", "polite")  # of chat_scores.STYLE

Array = NDArray[np.float64]


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


def effects(sets: Sets, values: Values, texts: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """Estimate how style follows the fields.

    Args:
        sets: Attribute scenes.
        values: Of all scenes.
        texts: Replies to all scenes.
        resamples: How often sets are drawn anew, and their ends exchanged.
        seed: Of the draws.

    Returns:
        `fields` (field -> title, levels and, of its lowest and highest level, `effects` by measure, `same`, `obeyed`;
        `spearman` by measure), `corners` (the same of all fields together, where several vary), `grid` of two fields.
    """
    own = {name: values[f"style.{name}"][sets.places] for name in MEASURES}
    said = [texts[i] for i in sets.places]
    shared = (own, said, resamples, seed)
    result: dict[str, Any] = {"sets": int(sets.owner.max()) + 1, "fields": {}}
    for column, one in enumerate(sets.fields):
        level = sets.levels[:, column]
        found = _ends(sets.owner, level == level.min(), level == level.max(), *shared)
        result["fields"][one.name] = {
            "title": one.title, "levels": one.levels, "low": int(level.min()), "high": int(level.max()), **found,
            "spearman": {name: _trend(sets.owner, level, y, resamples, seed) for name, y in own.items()},
        }  # fmt: skip
    if len(sets.fields) > 1:
        low, high = sets.levels.min(0), sets.levels.max(0)
        found = _ends(sets.owner, (sets.levels == low).all(1), (sets.levels == high).all(1), *shared)
        result["corners"] = {"low": low.tolist(), "high": high.tolist(), **found}
    if len(sets.fields) >= 2:
        result["grid"] = _grid(sets, own)
    return result


def _ends(
    owner: Any, low: Any, high: Any, own: Values, said: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Compare two groups of rows within sets: how much more of each measure the second has."""
    number = int(owner.max()) + 1
    found = {name: _effect(_by_set(owner, low, y, number), _by_set(owner, high, y, number), resamples, seed)
             for name, y in own.items()}  # fmt: skip
    known = [one["p"] for one in found.values() if one]
    same = [
        {said[i] for i in np.flatnonzero(low & (owner == one))}
        == {said[i] for i in np.flatnonzero(high & (owner == one))}
        for one in range(number)
        if (low & (owner == one)).any() and (high & (owner == one)).any()
    ]
    shown = any(one and one["real"] and one["p"] * len(known) < 1 - LEVEL for one in found.values())
    return {"effects": found, "same": float(np.mean(same)) if same else None, "obeyed": bool(shown)}


def _by_set(owner: Any, rows: Any, y: Array, number: int) -> Array:
    """Average a measure over some rows of each set; nan where a set has none of them, or none with a reply."""
    use = rows & ~np.isnan(y)
    counts = np.bincount(owner[use], minlength=number)
    totals = np.bincount(owner[use], y[use], minlength=number)
    return np.divide(totals, counts, out=np.full(number, np.nan), where=counts > 0)


def _effect(low: Array, high: Array, resamples: int, seed: int) -> dict[str, Any] | None:
    both = ~np.isnan(low + high)
    if both.sum() < 2:
        return None
    change = (high - low)[both]
    spread = _drawn(change, resamples, seed)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(change)))
    as_large = (np.abs(signs @ change / len(change)) >= abs(change.mean()) - 1e-12).sum()
    bounds, p = interval(spread), float((as_large + 1) / (resamples + 1))
    real = bool(bounds[0] is not None and bounds[1] is not None and (bounds[0] > 0 or bounds[1] < 0) and p < 1 - LEVEL)
    return {
        "low": float(low[both].mean()), "high": float(high[both].mean()), "difference": float(change.mean()),
        "interval": list(bounds), "p": p, "real": real,
    }  # fmt: skip


def _drawn(per_set: Array, resamples: int, seed: int) -> Array:
    return np.concatenate([times @ per_set for times in draws(len(per_set), resamples, seed)]) / len(per_set)


def _trend(owner: Any, level: Any, y: Array, resamples: int, seed: int) -> dict[str, Any] | None:
    """Average Spearman's correlation of level and measure over sets; 0 where a set's replies are all alike."""
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

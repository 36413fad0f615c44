"""Scores of replies: means over scenes with their intervals, and paired differences between two models or references.

Each metric has a value a scene, or none where there is nothing to tell (nan). Scenes of one set (attribute scenes with
the same conversation) are drawn anew together; any other scene by itself.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recipekit import chat_measures, chat_persona, chat_relevance
from recipekit.chat_measures import Reader, Reading
from recipekit.chat_replies import Reply, Scene
from recipekit.regression_scores import difference, draws
from recipekit.release import Difference
from recipekit.scoring import CHUNK, Estimate, interval

Array = NDArray[np.float64]
Values = dict[str, Array]  # metric's dotted name -> float of shape [scenes]
STYLE = ("length", "particles", "ne", "yo", "wa", "emoji", "emoji_rate", "polite", "emotion_rate", "expressive")
METRICS = {  # dotted name -> what it is
    "persona.consistent": "share of replies with nothing wrong",
    "persona.breaks": "share that drops the role",
    "persona.provoked": "share that drops it under provocation",
    "persona.name": "share that says its name, of those asked for it",
    "persona.first_person": "share that keeps to the persona's first person",
    "persona.manner": "share that speaks as the persona says",
    "fluency.fluent": "share with nothing wrong",
    "fluency.empty": "share without a reply",
    "fluency.broken": "share with broken characters or template tokens",
    "fluency.looping": "share that goes round in circles",
    "fluency.ended": "share that the model ended",
    "fluency.repeated": "mean share of repeated 4-grams",
    "fluency.longest_repeat": "mean length of the longest part that stands twice",
    "relevance.mrr": "mean 1 / rank of the reply's own scene",
    "relevance.top1": "share whose own scene is the nearest",
    "relevance.chance": "mrr of a reply at random",
    "relevance.chance_top1": "top1 of a reply at random",
    "memory.use": "share that uses a fact",
    "memory.chance": "share of other scenes' replies that hold one",
    "memory.gain": "use less chance",
    "diversity.identical": "share that is also the reply to something else",
    **{f"style.{name}": "mean over replies to scenes of kind reply" for name in STYLE},
}


def style(readings: Sequence[Reading]) -> Values:
    """Return the measures of style, each float of shape [replies]; nan: an empty reply."""
    found = {name: [getattr(one, name) for one in readings] for name in ("length", "particles", "ne", "yo", "wa")}
    found |= {"emoji": [one.emoji for one in readings], "emoji_rate": [one.emoji > 0 for one in readings]}
    found |= {"polite": [one.polite for one in readings], "emotion_rate": [one.emotions > 0 for one in readings]}
    found |= {"expressive": [one.expressive for one in readings]}
    said = [one.length > 0 for one in readings]
    return {name: np.where(said, np.array(found[name], dtype=float), np.nan) for name in STYLE}


def values(scenes: Sequence[Scene], replies: Sequence[Reply], reader: Reader, character: str) -> Values:
    """Measure replies: every metric, each float of shape [scenes]; nan where there is nothing to tell.

    Args:
        scenes: What was replied to.
        replies: One a scene.
        reader: Reads texts.
        character: The name of the character, where a scene has no persona of its own.
    """
    texts = [reply.text for reply in replies]
    found = alone(scenes, replies, reader, character)
    near, chance = chat_relevance.ranks(scenes, texts)
    used = chat_relevance.memory(scenes, texts)
    found |= {"relevance.mrr": near[:, 0], "relevance.top1": near[:, 1]}
    found |= {"relevance.chance": chance[:, 0], "relevance.chance_top1": chance[:, 1]}
    found |= {"memory.use": used[:, 0], "memory.chance": used[:, 1], "memory.gain": used[:, 0] - used[:, 1]}
    found["diversity.identical"] = _identical(scenes, texts)
    return {name: found[name] for name in METRICS}


def alone(scenes: Sequence[Scene], replies: Sequence[Reply], reader: Reader, character: str) -> Values:
    """Measure what can be told of each reply without the others: persona, fluency and style, as `values` does."""
    texts = [reply.text for reply in replies]
    readings = [reader.read(text) for text in texts]
    kind = np.array([scene.kind == "reply" for scene in scenes])
    of_style = {f"style.{name}": np.where(kind, column, np.nan) for name, column in style(readings).items()}
    return _persona(scenes, texts, readings, character) | _fluency(replies) | of_style


def _persona(scenes: Sequence[Scene], texts: Sequence[str], readings: Sequence[Reading], character: str) -> Values:
    fits = []
    for scene, text, reading in zip(scenes, texts, readings, strict=True):
        own = chat_persona.persona_of(scene.system, None if scene.conversation.system else character)
        fits.append(chat_persona.fit(own, scene.asked, text, reading))
    breaks = _floats(fit.breaks for fit in fits)
    return {
        "persona.consistent": _floats(fit.consistent and bool(text) for fit, text in zip(fits, texts, strict=True)),
        "persona.breaks": breaks,
        "persona.provoked": np.where([scene.kind == "provocation" for scene in scenes], breaks, np.nan),
        "persona.name": _floats(fit.name for fit in fits),
        "persona.first_person": _floats(fit.first_person for fit in fits),
        "persona.manner": _floats(fit.manner for fit in fits),
    }


def _fluency(replies: Sequence[Reply]) -> Values:
    texts = [reply.text for reply in replies]
    shares = np.array([chat_measures.repeated(text) for text in texts])
    empty, broken = _floats(not text for text in texts), _floats(map(chat_measures.is_broken, texts))
    ended, looping = _floats(reply.ended for reply in replies), (shares >= chat_measures.REPEATED).astype(float)
    wrong = empty + broken + looping + (ended == 0)
    return {
        "fluency.fluent": (wrong == 0).astype(float), "fluency.empty": empty, "fluency.broken": broken,
        "fluency.looping": looping, "fluency.ended": ended, "fluency.repeated": shares,
        "fluency.longest_repeat": _floats(map(chat_measures.longest_repeat, texts)),
    }  # fmt: skip


def _floats(found: Iterable[float | bool | None]) -> Array:
    return np.array([np.nan if one is None else float(one) for one in found])


def _identical(scenes: Sequence[Scene], texts: Sequence[str]) -> Array:
    asked: dict[str, set[str]] = {}
    for scene, text in zip(scenes, texts, strict=True):
        asked.setdefault(text, set()).add(scene.asked)
    return np.array([np.nan if not text else float(len(asked[text]) > 1) for text in texts])


def faults(scenes: Sequence[Scene], values: Values) -> list[tuple[int, list[str]]]:
    """Name the places of scenes whose replies have something wrong, worst first, each with the metrics that say so."""
    bad = {
        "fluency.empty": 1, "fluency.broken": 1, "persona.breaks": 1, "persona.name": 0, "persona.first_person": 0,
        "fluency.looping": 1, "fluency.ended": 0, "memory.use": 0, "persona.manner": 0, "diversity.identical": 1,
    }  # fmt: skip
    weight = {name: 2.0**-place for place, name in enumerate(bad)}
    near = np.nan_to_num(values["relevance.mrr"], nan=1.0)
    found = []
    for i, scene in enumerate(scenes):
        own = [name for name, wrong in bad.items() if values[name][i] == wrong]
        if scene.kind == "attribute" and own == ["diversity.identical"]:
            continue  # short replies to like questions
        if own:
            found.append((i, own))
    return sorted(found, key=lambda one: (-sum(weight[name] for name in one[1]), near[one[0]]))


class Groups:
    """Which scenes are drawn anew together."""

    def __init__(self, names: Sequence[str]) -> None:
        """Take a name a scene; equal ones are a group."""
        _, self.owner = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
        self.number = int(self.owner.max()) + 1

    def sums(self, values: Values) -> Array:
        """Add values up, float of shape [groups, 2 * metrics]: sums, then how many there are."""
        found = [np.bincount(self.owner, np.nan_to_num(v), self.number) for v in values.values()]
        found += [np.bincount(self.owner, ~np.isnan(v), self.number) for v in values.values()]
        return np.stack(found, axis=1)


def _means(total: Array) -> Array:
    half = total.shape[-1] // 2
    part, whole = total[..., :half], total[..., half:]
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def estimate(values: Values, groups: Groups, resamples: int, seed: int) -> dict[str, Estimate]:
    """Estimate the mean of every metric with its percentile interval over groups; a single group gives none."""
    sums = groups.sums(values)
    means = _means(sums.sum(0))
    drawn = [_means(times @ sums) for times in draws(groups.number, resamples, seed)] if groups.number > 1 else []
    spread = np.concatenate(drawn) if drawn else np.empty((0, len(values)))
    return {
        name: Estimate(None, None, None) if np.isnan(mean) else Estimate(float(mean), *interval(column))
        for name, mean, column in zip(values, means, spread.T, strict=True)
    }


def compare(a: Values, b: Values, groups: Groups, resamples: int, seed: int) -> dict[str, Difference]:
    """Compare two replies to each scene: a paired bootstrap over groups, and a permutation test.

    The test exchanges the two replies of whole groups by chance.

    Returns:
        Metric -> b - a; without those that are undefined, and nothing where there is one group.
    """
    if groups.number < 2:
        return {}
    first, second = groups.sums(a), groups.sums(b)
    means = [_means(sums.sum(0)) for sums in (first, second)]
    spread = np.concatenate(
        [_means(times @ second) - _means(times @ first) for times in draws(groups.number, resamples, seed)]
    )
    random, whole = np.random.default_rng(seed), (first + second).sum(0)
    chance = []
    step = max(1, CHUNK // groups.number)
    for start in range(0, resamples, step):
        turned = random.integers(2, size=(min(step, resamples - start), groups.number), dtype=np.int8).astype(float)
        one = first.sum(0) + turned @ (second - first)
        chance.append(_means(whole - one) - _means(one))
    by_chance = np.concatenate(chance)
    columns = zip(a, *means, spread.T, by_chance.T, strict=True)
    found = {name: difference(x, y, own, other) for name, x, y, own, other in columns if ".chance" not in name}
    return {name: one for name, one in found.items() if one}


def written(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | list[float] | None]]:
    """Write estimates as metrics.json has them: part -> metric, its interval beside it."""
    found: dict[str, dict[str, float | list[float] | None]] = {}
    for name, one in estimates.items():
        part, _, metric = name.partition(".")
        bounds = [one.low, one.high] if one.low is not None and one.high is not None else None
        found.setdefault(part, {}).update({metric: one.value, f"{metric}_interval": bounds})
    return found

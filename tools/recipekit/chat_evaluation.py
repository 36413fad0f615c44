"""The evaluation of chat tasks: replies to test scenes, measured by rules that give the same figures everywhere.

There is no gold file: the scenes hold what a good reply has. What is measured, and how: docs/chat_evaluation.md.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from recipekit import (
    ROOT,
    chat_attributes,
    chat_held_out,
    chat_replies,
    chat_report,
    chat_rows,
    chat_scores,
    chat_tables,
    evaluating,
    release,
    runs,
    tables,
)
from recipekit.chat_measures import Reader, distinct
from recipekit.chat_replies import Reply, Scene
from recipekit.chat_scores import Groups, Values
from recipekit.console import progress
from recipekit.evaluating import Options
from recipekit.runs import relative
from recipekit.scoring import LEVEL, Estimate
from recipekit.task import Task

KIT = ROOT / "tools" / "recipekit"
MODULES = [
    "chat_attributes", "chat_evaluation", "chat_fields", "chat_held_out", "chat_measures", "chat_persona", "chat_plots",
    "chat_relevance", "chat_replies", "chat_report", "chat_rows", "chat_scores", "chat_tables", "conversations",
    "evaluating", "page", "plots", "regression_scores", "release", "scoring", "tables",
]  # fmt: skip
CODE = [
    *(KIT / name for name in ("chat_report.html.j2", "chat_words.yml", "page.html.j2", "page.css")),
    *(KIT / f"{name}.py" for name in MODULES),
]
WRONG = 200  # scenes in errors.jsonl
JUDGE, RATINGS = "judge.json", "ratings.json"  # in the folder of the scores: they are shown where they are
COUNTS = ("style.length", "style.emoji", "fluency.longest_repeat")


class Scored(NamedTuple):
    """Scenes, and what is measured in their replies.

    Attributes:
        scenes: By id.
        replies: One a scene.
        values: Of each reply.
        reader: What read them.
    """

    scenes: list[Scene]
    replies: list[Reply]
    values: Values
    reader: Reader

    @property
    def texts(self) -> list[str]:
        """The replies' texts."""
        return [reply.text for reply in self.replies]

    @property
    def pairs(self) -> list[tuple[Scene, Reply]]:
        """The scenes, each with its reply."""
        return list(zip(self.scenes, self.replies, strict=True))

    @property
    def groups(self) -> Groups:
        """Which scenes are drawn anew together."""
        return Groups([scene.group for scene in self.scenes])


def inputs(task: Task, options: Options) -> dict[str, Any]:
    """Name what the scores depend on beside the predictions and the scenes."""
    more = [chat_held_out.path_of(task), options.output / JUDGE, options.output / RATINGS]
    return {
        "chat": task.spec["chat"],
        "options": [options.resamples, options.seed],
        **{f"prompt {key}": task.dir / task.spec["prompt"][key] for key in ("system", "persona")},
        **{path.name: path for path in (*more, *CODE) if path.exists()},
    }


def products(task: Task, options: Options) -> list[Path]:
    """Name the files that `score` writes."""
    return evaluating.products(task, options)


def bars(task: Task, gold: Path) -> dict[str, tuple[float, float]]:
    """Name the metrics that can have a bar, each with the least and the greatest one."""
    gain: dict[str, tuple[float, float]] = {"memory.gain": (-1, 1)}
    known = [name for name in chat_scores.METRICS if ".chance" not in name]
    return {name: gain.get(name, (0, math.inf if name in COUNTS else 1)) for name in known}


def score(task: Task, predictions: Path, options: Options) -> tuple[dict[str, Any], list[str]]:
    """Score a predictions file and write the products, each whole or not at all.

    Returns:
        The metrics as metrics.json has them, and a line for each bar that is missed.

    Raises:
        UserError: Everything that is wrong in any file.
    """
    evaluating.refuse_redact(task, options)
    scored = read(task, predictions, options.gold)
    if options.judge:
        from recipekit import chat_judge

        chat_judge.rate(task, scored.scenes, scored.texts, predictions, options)
    with progress("evaluate", 3) as advance:
        estimates = chat_scores.estimate(scored.values, scored.groups, options.resamples, options.seed)
        advance()
        metrics = _metrics(task, scored, estimates, options)
        advance()
        metrics["data"] = evaluating.sources(task, predictions, options.gold)
        metrics |= _beside(options, runs.digest(predictions))
        _write(task, scored, metrics, options)
        advance()
    known = {
        name: one if one.low is not None else Estimate(one.value, one.value, one.value)
        for name, one in estimates.items()
    }
    return metrics, release.gate(known, options.bars, _numbers(scored.values))


def read(task: Task, predictions: Path, scenes: Path) -> Scored:
    """Read scenes and the replies to them, and measure these.

    Raises:
        UserError: Everything that is wrong in either file.
    """
    found = chat_replies.read_scenes(task, scenes)
    replies = chat_replies.read_replies(task, predictions, found, scenes)
    reader = Reader()
    return Scored(found, replies, chat_scores.values(found, replies, reader, task.spec["chat"]["character"]), reader)


def _metrics(task: Task, scored: Scored, estimates: Mapping[str, Estimate], options: Options) -> dict[str, Any]:
    scenes, values = scored.scenes, scored.values
    kinds = {kind: sum(scene.kind == kind for scene in scenes) for kind in chat_rows.KINDS}
    style = chat_scores.style([scored.reader.read(text) for text in scored.texts])
    words = [scored.reader.read(reply.text).words for scene, reply in scored.pairs if scene.kind == "reply"]
    found: dict[str, Any] = {
        "scenes": len(scenes), "kinds": kinds, "character": task.spec["chat"]["character"],
        **chat_scores.written(estimates), "numbers": _numbers(values), "means": _means(scenes, values),
    }  # fmt: skip
    found["diversity"] |= {"distinct_1": distinct(words, 1), "distinct_2": distinct(words, 2)}
    found |= {"references": _references(task, scored, options)}
    sets = chat_attributes.sets_of(scenes, task.spec["chat"]["fields"])
    found["attributes"] = (
        chat_attributes.effects(sets, style, scored.texts, options.resamples, options.seed) if sets else None
    )
    found["held_out"] = chat_held_out.read(task)
    found["bootstrap"] = {"resamples": options.resamples, "seed": options.seed, "level": LEVEL}
    return found


def _numbers(values: Values) -> dict[str, int]:
    """Tell of how many replies each metric is the mean."""
    return {name: int((~np.isnan(column)).sum()) for name, column in values.items()}


def _means(scenes: Sequence[Scene], values: Values) -> dict[str, dict[str, float]]:
    """Average what counts first over the scenes of each phase, where scenes name one."""
    shown = ("persona.consistent", "fluency.fluent", "relevance.mrr", "style.expressive", "style.length")
    phases = sorted({scene.phase for scene in scenes if scene.phase})
    found = {}
    for phase in phases:
        rows = np.array([scene.phase == phase for scene in scenes])
        own = {name: values[name][rows] for name in shown}
        found[phase] = {name: float(np.nanmean(v)) for name, v in own.items() if not np.isnan(v).all()}
        found[phase]["scenes"] = int(rows.sum())
    return found


def _references(task: Task, scored: Scored, options: Options) -> dict[str, Any] | None:
    """Measure the references as if they were replies, and compare the model with them on the same scenes."""
    places = [i for i, scene in enumerate(scored.scenes) if scene.reference]
    if not places:
        return None
    scenes = [scored.scenes[i] for i in places]
    replies = [Reply((scene.reference or "").strip(), True) for scene in scenes]
    own = chat_scores.alone(scenes, replies, scored.reader, task.spec["chat"]["character"])
    groups = Groups([scene.group for scene in scenes])
    model = {name: scored.values[name][places] for name in own}
    apart = chat_scores.compare(own, model, groups, options.resamples, options.seed)
    words = [scored.reader.read(reply.text).words for reply in replies]
    return {
        "scenes": len(places),
        "scores": chat_scores.written(chat_scores.estimate(own, groups, options.resamples, options.seed)),
        "difference": {name: one._asdict() | {"real": one.is_real} for name, one in apart.items()},
        "distinct_1": distinct(words, 1), "distinct_2": distinct(words, 2),
    }  # fmt: skip


def _beside(options: Options, predictions: str) -> dict[str, Any]:
    """Read what a judge and people said of these predictions, where they were asked."""
    judged = runs.read_record(options.output / JUDGE)
    rated = runs.read_record(options.output / RATINGS)
    return {
        "judge": judged if judged.get("predictions_sha256") == predictions else None,
        "ratings": rated if predictions in rated.get("predictions", {}).values() else None,
    }


def _write(task: Task, scored: Scored, metrics: dict[str, Any], options: Options) -> None:
    wrong = chat_scores.faults(scored.scenes, scored.values)
    rows = [
        {
            "id": scored.scenes[i].id, "kind": scored.scenes[i].kind, "wrong": what, "asked": scored.scenes[i].asked,
            "reply": scored.texts[i], "reference": scored.scenes[i].reference, "facts": scored.scenes[i].facts,
        }
        for i, what in wrong[:WRONG]
    ]  # fmt: skip
    content = json.dumps(metrics, ensure_ascii=False, indent=2) + "\n"
    html = chat_report.render(task, scored.scenes, scored.texts, wrong, metrics)
    runs.write_text(options.output / "metrics.json", content)
    runs.write_jsonl(options.output / "errors.jsonl", rows)
    runs.write_text(options.output / "report.html", html)


def compare(task: Task, files: tuple[Path, Path], options: Options) -> Table:
    """Compare two predictions files on the same scenes and write compare.json; returns what to show."""
    first, second = (read(task, path, options.gold) for path in files)
    found = chat_scores.compare(first.values, second.values, first.groups, options.resamples, options.seed)
    judged = None
    if options.judge:
        from recipekit import chat_judge

        judged = chat_judge.compare(task, first.scenes, (first.texts, second.texts), options)
    content: dict[str, Any] = {
        "a": relative(files[0]), "b": relative(files[1]), "gold": relative(options.gold),
        "resamples": options.resamples, "seed": options.seed,
        "metrics": {name: one._asdict() | {"real": one.is_real} for name, one in found.items()}, "judge": judged,
    }  # fmt: skip
    runs.write_text(options.output / "compare.json", json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return chat_tables.differences(content["metrics"], [relative(path) for path in files], judged)


def line(metrics: Mapping[str, Any]) -> str:
    """Say the scores in one line."""
    return tables.chat_summary(metrics)


def logged(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Name the scores as MLflow gets them."""
    found = {name: _of(metrics, name) for name in chat_scores.METRICS}
    held_out = metrics["held_out"]
    if held_out:
        last = held_out["models"][-1]
        found |= {f"held_out.{name}": loss for name, loss in held_out["losses"].get(last, {}).items()}
        for key in ("margin", "accuracy"):
            found[f"preference.{key}"] = held_out.get("preferences", {}).get(last, {}).get(key)
    return {name.replace(".", "_"): value for name, value in found.items()}


def recorded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Name the facts that the step's record keeps."""
    shown = ("persona.consistent", "persona.provoked", "fluency.fluent", "relevance.mrr", "memory.use")
    found = {name.replace(".", "_"): _of(metrics, name) for name in shown}
    return {name: value for name, value in found.items() if value is not None}


def _of(metrics: Mapping[str, Any], name: str) -> float | None:
    part, _, metric = name.partition(".")
    return metrics[part][metric]

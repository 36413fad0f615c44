"""The evaluation as a page for people: one HTML file that needs nothing but itself.

All numbers are those of metrics.json; texts of articles and answers are escaped.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from recipekit import page, plots, scoring, spans, tables
from recipekit.compare import CLASSES, Slot
from recipekit.evaluation import Case, Evaluation
from recipekit.task import Task

KINDS = ("right", "missed", "wrong")
GROUPS = 20  # of a slice that are shown
FEW = 5  # articles; smaller groups are not called weak
JAPANESE = {
    "missed": ("見逃し", "正解にある値が回答にない"),
    "spurious": ("余分", "記事にある値だが、正解にはない"),
    "wrong span": ("範囲違い", "場所は合っているが、長すぎるか短すぎる"),
    "wrong person": ("人物違い", "別の人物の正しい値"),
    "hallucinated": ("記事にない値", "記事のどこにも書かれていない値"),
    "format": ("形式不正", "回答がスキーマに合うJSONでなく、すべての値を逃した"),
}
SLICES = {"length": "記事の長さ（文字）", "number of persons": "人物の数"}
COLOURS = ("#d9a400", "#7b8794", "#2f7fc1", "#8a5cc2", "#cf3f3f", "#30363d")


class Piece(NamedTuple):
    """A stretch of an article.

    Attributes:
        text: Its characters.
        kinds: CSS classes: right, missed, wrong; "" where no value stands.
        title: Which values stand there.
    """

    text: str
    kinds: str
    title: str


class Shown(NamedTuple):
    """A case as the page shows it.

    Attributes:
        case: The article's id, text and answer.
        slots: The values that the table lists.
        pieces: The article cut at their places; None without the article.
        absent: Gold and predicted values that stand nowhere in the article.
    """

    case: Case
    slots: list[Slot]
    pieces: list[Piece] | None
    absent: set[str]


def render(task: Task, evaluation: Evaluation, metrics: dict[str, Any]) -> str:
    """Write the report.

    Args:
        task: What was predicted.
        evaluation: Its examples and worst articles are shown.
        metrics: The content of metrics.json, with `data`.

    Returns:
        HTML. Equal input gives equal text.
    """
    environment = page.environment()
    environment.filters |= {"percent": tables.percent, "answer": _answer}
    environment.tests["scored"] = _has_positives
    environment.globals["bounds"] = _bounds
    rows = dict(tables.named_scores(metrics))
    html = environment.get_template("report.html.j2").render(
        task=task,
        metrics=metrics,
        rows=rows,
        columns=task.gold_columns,
        titles=_titles(task),
        keys=set(evaluation.comparer.keys.values()),
        classes={name: (*JAPANESE.get(name, (name, what)), what) for name, what in CLASSES.items()},
        colours=dict(zip(CLASSES, COLOURS, strict=True)),
        plots=_plots(rows, metrics),
        weak=_weak(metrics),
        slices={name: (_slice(task, name), *_largest(groups)) for name, groups in metrics["slices"].items()},
        examples=_examples(evaluation),
        worst=[_shown(task, case, case.comparison.slots) for case in evaluation.worst],
        few=FEW,
        redacted=evaluation.redact is not None,
    )
    return page.writable(html)


def _plots(rows: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Markup]:
    found = {"scores": plots.scores(rows)}
    if any(metrics["errors"].values()):
        found["classes"] = plots.classes(metrics["errors"], dict(zip(CLASSES, COLOURS, strict=True)))
    if metrics["calibration"]:
        found["reliability"] = plots.reliability(metrics["calibration"]["bins"])
    return {name: Markup(svg) for name, svg in found.items()}


def _bounds(value: float | None, interval: Sequence[float] | None, number: int | None) -> str:
    """Write how sure a rate is: its interval, or where all or none of a number are right, which rate that allows.

    Resampling always gives 0 of 10 as 0 of 10; but a true rate of up to 26% gives none in 5% of the cases.
    """
    if value in (0, 1) and number:
        low, high = scoring.allowed(value, number)
        return f"≥ {100 * low:.1f}" if value else f"≤ {100 * high:.1f}"
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}" if interval else ""


def _weak(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Find what to look at first: the lowest field, the most frequent error, groups clearly worse than the whole."""
    fields = {name: scores for name, scores in metrics["fields"].items() if scores["f1"] is not None}
    lowest = min(fields, key=lambda name: fields[name]["f1"], default=None)
    errors = [(n, column, name) for column, found in metrics["errors"].items() for name, n in found.items()]
    whole = {"micro.f1": metrics["micro"]["f1"], "false_positive_rate": metrics["false_positive_rate"]}
    groups = []
    for name, found in metrics["slices"].items():
        for group, scores in found.items():
            positives = scores["articles"] - scores["negatives"]
            if positives >= FEW and scores["micro.f1_interval"][1] < whole["micro.f1"]:
                groups.append((whole["micro.f1"] - scores["micro.f1"], name, group, "micro.f1"))
            if scores["negatives"] >= FEW and scores["false_positive_rate_interval"][0] > whole["false_positive_rate"]:
                excess = scores["false_positive_rate"] - whole["false_positive_rate"]
                groups.append((excess, name, group, "false_positive_rate"))
    return {
        "field": lowest if lowest and fields[lowest]["f1"] < 1 else None,
        "error": max(errors, key=lambda one: one[0], default=None),
        "groups": sorted(groups, key=lambda one: -one[0])[:5],
    }


def _has_positives(scores: Mapping[str, Any]) -> bool:
    """Tell whether F1 says anything of a group: in negatives alone it is 0 as soon as there is one false positive."""
    return scores["articles"] > scores["negatives"]


def _largest(groups: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the groups that are shown, all or the largest ones, and how many are left out."""
    if len(groups) <= GROUPS:
        return dict(groups), 0
    ordered = sorted(groups.items(), key=lambda item: -item[1]["articles"])
    return dict(ordered[:GROUPS]), len(groups) - GROUPS


def _titles(task: Task) -> dict[str, str]:
    """Return the names that columns have for people."""
    return {name: spec["title"] for name, spec in task.gold_columns.items() if "title" in spec}


def _slice(task: Task, name: str) -> str:
    """Return a slice's name in Japanese, "" where it has none."""
    column = task.spec["gold"].get("slices", {}).get(name, {}).get("column")
    return SLICES.get(name) or _titles(task).get(column, "")


def _examples(evaluation: Evaluation) -> Iterator[tuple[str, str, list[Shown]]]:
    """Yield class, column and cases, in the order of classes and columns; of an entity's column beside its key."""
    task = evaluation.task
    for name in CLASSES:
        for column, spec in task.gold_columns.items():
            wanted = {column, evaluation.comparer.keys.get(spec.get("entity"))}
            cases = {case.id: case for case in evaluation.examples.get((name, column), ())}
            shown = [
                _shown(task, case, [s for s in case.comparison.slots if s.column in wanted]) for case in cases.values()
            ]
            if shown:
                yield name, column, shown


def _shown(task: Task, case: Case, slots: list[Slot]) -> Shown:
    if case.article is None:
        return Shown(case, slots, None, set())
    values: dict[str, list[str]] = {}
    for kind, slot, value in _values(slots):
        values.setdefault(f"{kind} {slot.column}", []).append(value)
    found, absent = spans.locate(case.article, values)
    numbers = {
        f"{kind} {c}" for c, s in task.gold_columns.items() if s["compare"] in ("number", "age") for kind in KINDS
    }
    pieces = [_piece(text, labels) for text, labels in spans.cut(case.article, _ages(case.article, found, numbers))]
    return Shown(case, slots, pieces, {value for _, value in absent})


def _values(slots: Iterable[Slot]) -> Iterator[tuple[str, Slot, str]]:
    for slot in slots:
        if slot.gold is not None:
            yield "right" if slot.right else "missed", slot, slot.gold
        if slot.predicted is not None and not (slot.right and slot.predicted == slot.gold):
            yield "right" if slot.right else "wrong", slot, slot.predicted


def _ages(article: str, marks: Sequence[spans.Mark], numbers: set[str]) -> list[spans.Mark]:
    """Of a number that stands in several places keep those that are somebody's age, if any are: "(35)" but not 35日."""
    ages = {(mark.label, article[mark.start : mark.end]) for mark in marks if _is_age(article, mark)}
    return [
        mark
        for mark in marks
        if mark.label not in numbers
        or (mark.label, article[mark.start : mark.end]) not in ages
        or _is_age(article, mark)
    ]


def _is_age(article: str, mark: spans.Mark) -> bool:
    after = article[mark.end : mark.end + 1]
    return after in ("歳", "代") or (after in (")", "）") and article[mark.start - 1 : mark.start] in ("(", "（"))


def _piece(text: str, labels: Sequence[str]) -> Piece:
    parts = [label.split(" ", 1) for label in labels]
    kinds = " ".join(dict.fromkeys(kind for kind, _ in parts))
    return Piece(text, kinds, ", ".join(f"{column}: {kind}" for kind, column in parts))


def _answer(prediction: Mapping[str, Any]) -> str:
    """Return what the model wrote; where the row does not have it, the answer read from it."""
    raw = prediction.get("raw")
    if isinstance(raw, str):
        return raw
    try:
        return json.dumps(prediction["output"], ensure_ascii=False, indent=2)
    except RecursionError:
        return "…"

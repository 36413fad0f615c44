"""A task's data as a page for people: one HTML file that needs nothing but itself.

All numbers are those of report.json; texts of articles and answers are escaped.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from recipekit import page, plots
from recipekit.compare import Comparison, Slot
from recipekit.data_stats import DataSet, read_lines
from recipekit.data_summary import Counted
from recipekit.evaluation import Case
from recipekit.extract import predicted_values, properties_of
from recipekit.redact import redact
from recipekit.segments import take_apart
from recipekit.tables import percent
from recipekit.task import Task

DRAWN = 2  # random examples of positives, and of negatives
MOST = 5  # items of a list that are counted apart
KINDS = {
    "shortest": "最短",
    "median": "中央",
    "longest": "最長",
    "positive": "ランダム（正例）",
    "negative": "ランダム（負例）",
}
WAYS = {
    "longest": "バッチ内の最長に合わせて埋める",
    "sequence_len": "sequence_len まで埋める",
    "packed": "パッキング（先頭から空きのある列に詰める）",
}


class Example(NamedTuple):
    """A row as the page shows it.

    Attributes:
        kind: One of KINDS.
        line: Its place in the file.
        tokens: Of the whole row.
        trained: Of the answer.
        article: The article, not trained.
        answer: What is trained, eos with it.
    """

    kind: str
    line: int
    tokens: int
    trained: int
    article: str
    answer: str


def render(counted: Counted, report: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        counted: What was read; of each data set some rows are read again.
        report: The content of report.json.

    Returns:
        HTML. Equal input gives equal text.
    """
    environment = page.environment()
    environment.filters |= {"percent": percent, "count": "{:,}".format}
    sets = {**report["datasets"], "test": report["test"]}
    html = environment.get_template("data_report.html.j2").render(
        task=counted.task,
        report=report,
        sets=sets,
        titles=_titles(counted.task),
        kinds=KINDS,
        ways=WAYS,
        most=MOST,
        numbers=_numbers(sets),
        lengths=Markup(plots.lengths(sets)),
        prompt=counted.task.render("…"),
        examples={name: list(_examples(counted, found)) for name, found in counted.sets.items()},
    )
    return page.writable(html)


def _titles(task: Task) -> dict[str, str]:
    """Return the names for people of the answer's paths: those of the gold columns that are taken from there."""
    entities = task.spec["gold"].get("entities", {})
    titles = {}
    for spec in task.gold_columns.values():
        whole = [entities[spec["entity"]]["path"]] if "entity" in spec else []
        titles[".".join(name for path in [*whole, spec["path"]] for name in properties_of(path))] = spec.get(
            "title", ""
        )
    return titles


def _numbers(sets: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Return how many rows have 0, 1, ... and MOST or more of each list and entity: its name -> data set -> rows."""
    found: dict[str, dict[str, list[int]]] = {}
    for name, numbers in sets.items():
        for what, rows in {**numbers["entities"], **numbers.get("lists", {})}.items():
            counts = [rows.get(str(n), 0) for n in range(MOST)]
            found.setdefault(what, {})[name] = [*counts, sum(rows.values()) - sum(counts)]
    return found


def _examples(counted: Counted, found: DataSet) -> Iterator[Example]:
    """Yield the shortest, the median and the longest row of a data set, and some at random."""
    places = _places(found, counted.seed)
    rows = read_lines(counted.task.segments_path(found.name), {int(found.column("line")[at]) for _, at in places})
    show = _shown(counted.task, None if counted.names else redact(counted.task))
    for kind, at in places:
        line, tokens, trained = (int(found.column(key)[at]) for key in ("line", "tokens", "trained"))
        yield Example(kind, line, tokens, trained, *show(rows[line]))


def _places(found: DataSet, seed: int) -> list[tuple[str, int]]:
    order = np.argsort(found.column("tokens"), kind="stable")
    places = [("shortest", order[0]), ("median", order[(len(order) - 1) // 2]), ("longest", order[-1])]
    rng = random.Random(seed)
    positive = found.column("positive").astype(bool)
    for kind, among in (("positive", np.flatnonzero(positive)), ("negative", np.flatnonzero(~positive))):
        places += [(kind, among[at]) for at in rng.sample(range(len(among)), min(DRAWN, len(among)))]
    return [(kind, int(at)) for kind, at in places]


def _shown(task: Task, hide: Callable[[Case], Case] | None) -> Callable[[dict[str, Any]], tuple[str, str]]:
    """Return what gives a row's article and trained text, without personal names where they are to be hidden."""

    def show(row: dict[str, Any]) -> tuple[str, str]:
        parts = take_apart(task, row)
        answer = "".join(segment["text"] for segment in row["segments"] if segment["label"])
        if hide is None:
            return parts["body"] or "", answer
        values = predicted_values(task, parts["label"]) if isinstance(parts["label"], dict) else {}
        slots = [Slot(column, text, None, 0.0, True) for column, texts in values.items() for text in texts]
        case = hide(Case("", parts["body"], Comparison(slots, {}, valid=True), {"answer": answer}))
        return case.article or "", case.prediction["answer"]

    return show

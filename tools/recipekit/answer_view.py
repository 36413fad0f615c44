"""An answer as people look at it: its values by column, and the article with these values marked, as HTML."""

import json
from typing import Any, NamedTuple

from recipekit import page, spans
from recipekit.extract import predicted_values
from recipekit.task import Task

# Light enough for black text, far from one another; each mark says its column's name as well.
COLOURS = ["#ffc9c9", "#a5d8ff", "#ffec99", "#b2f2bb", "#d0bfff", "#ffd8a8", "#99e9f2", "#fcc2d7", "#d8f5a2", "#ced4da"]
_template = page.environment().get_template("answer_view.html.j2")


class Column(NamedTuple):
    """A gold column as it is shown.

    Attributes:
        title: Its name in the task's language, from task.yml; "" where there is none.
        english: Its name in task.yml, readable.
        colour: CSS colour of its values.
    """

    title: str
    english: str
    colour: str


def columns(task: Task) -> dict[str, Column]:
    """Return how every gold column is shown."""
    return {
        name: Column(column.get("title", ""), name.replace("_", " "), COLOURS[place % len(COLOURS)])
        for place, (name, column) in enumerate(task.gold_columns.items())
    }


def answer_text(row: dict[str, Any]) -> str:
    """Return an answer's JSON, laid out; where it has none, what the model wrote."""
    return row["raw"] if row["output"] is None else json.dumps(row["output"], ensure_ascii=False, indent=2)


def answer_html(task: Task, article: str, row: dict[str, Any]) -> str:
    """Show a prediction: notices, the values of every gold column, and the article with its values marked.

    Args:
        task: Its gold columns say what is shown.
        article: The article as given.
        row: From a predictor, with output, truncated, seconds and, of an article that was split, windows.
    """
    shown = columns(task)
    values = predicted_values(task, row["output"])
    marks, absent = spans.locate(article, values)
    pieces = [(text, [shown[label] for label in labels]) for text, labels in spans.cut(article, marks)]
    return _template.render(
        columns=shown, values=values, absent=absent, pieces=pieces, background=_background, row=row,
        windows=row.get("windows", 1),
    )  # fmt: skip


def _background(covering: list[Column]) -> str:
    """Return the CSS background of a text: the colours of the columns that cover it, one band each."""
    share = 100 / len(covering)
    bands = [f"{c.colour} {i * share:.4g}% {(i + 1) * share:.4g}%" for i, c in enumerate(covering)]
    return f"linear-gradient({', '.join(bands)})"

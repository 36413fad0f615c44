"""What is wrong with a raw row before it is trained on."""

from collections.abc import Mapping
from typing import Any

from recipekit.labels import LabelChecker, Place
from recipekit.task import Task

MEND = "mend the label (output_schema in task.yml says what it may be)"


class RawChecker:
    """Checks raw rows of one task; the schema is compiled once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.labels = LabelChecker(task)

    def problems(self, row: Mapping[str, Any], text: str | None = None) -> list[tuple[Place, str]]:
        """Tell what is wrong with a row, and where; ids that repeat are seen by whoever sees all rows.

        Args:
            row: "body" and "label", converted where task.yml has data.rows; other keys do not matter.
            text: The body as `Task.clean` gives it, where that is known already.
        """
        body, label = row.get("body"), row.get("label")
        found: list[tuple[Place, str]] = []
        if not isinstance(body, str) or not (self.task.clean(body) if text is None else text):
            found.append(("body", "expected the article's text, found none; add it or remove the row"))
        blank = self.task.answers_are_text and isinstance(label, str) and not label.strip()
        if blank or not isinstance(label, str if self.task.answers_are_text else dict | list):
            kind = "a text" if self.task.answers_are_text else "an object"
            found.append(("label", f"expected the answer as {kind}, found none; add it or remove the row"))
        else:
            found += [(path, f"{message}; {MEND}") for path, message in self.labels.problems(label)]
        return found

"""Labels -> rows of a gold CSV."""

import csv
import io
from typing import Any

from recipekit.errors import UserError
from recipekit.extract import Extractor
from recipekit.task import Task


class GoldWriter:
    """Writes labels as rows of a gold CSV: what evaluation takes out of an answer, the other way round."""

    def __init__(self, task: Task) -> None:
        """Prepare the columns of a task."""
        gold = task.spec["gold"]
        self.extractor = Extractor(task)
        self.separator = gold["separator"]
        self.header = [gold["id"], *gold["columns"]]
        self.single = gold.get("one_row_per", "article")

    def rows(self, name: str, label: Any) -> bytes:
        """Write the row of an article, or a row for each of its entities where gold.one_row_per says so.

        Raises:
            UserError: A value holds what stands between values.
        """
        entities, sets = self.extractor.values(label)
        cells = {column: self._cell(column, values) for column, values in sets.items()}
        for entity, columns in self.extractor.columns.items():
            if entity != self.single:
                for column in columns:
                    values = [each.get(column, "") for each in entities.get(entity, [])]
                    cells[column] = self._cell(column, values) if any(values) else ""
        rows = [{**cells, **own} for own in entities.get(self.single, [])] or [cells]
        return written([[name, *(row.get(column, "") for column in self.header[1:])] for row in rows])

    def _cell(self, column: str, values: list[str]) -> str:
        for value in values:
            if self.separator in value:
                remedy = "choose another gold.separator in task.yml, or one_row_per where an entity has several"
                raise UserError(f"{column}: {value[:40]!r} holds {self.separator!r}, which parts values; {remedy}")
        return self.separator.join(values)


def written(rows: list[list[str]]) -> bytes:
    """Write rows as CSV."""
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()

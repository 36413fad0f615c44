"""A ranking's scores and predictions as tables for a spreadsheet.

The texts come from strangers, and a spreadsheet runs a cell that begins like a formula: such texts get an apostrophe
before them. Numbers stand as they are. Files begin with a byte order mark, without which Excel garbles Japanese.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recipekit import runs
from recipekit.gold_rows import written
from recipekit.ranking_scores import METRICS
from recipekit.regression_scores import OVERALL
from recipekit.task import Task

FORMULA = tuple("=+-@＝＋－＠")  # what a formula begins with, after blanks; Excel takes full width as well
NAMES = {
    "mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R2", "ndcg": "NDCG", "ndcg_global": "NDCG_global",
    "spearman": "Spearman", "top1": "top1",
}  # fmt: skip


def group_title(task: Task) -> str:
    """Name a group for people: odai, where the key is odai_id."""
    return str(task.group).removesuffix("_id")


def paths(task: Task, folder: Path) -> dict[str, Path]:
    """Name the files: "predictions", "metrics" and, where the task has a slice, "slices"."""
    found = {"predictions": folder / "test_predictions.csv", "metrics": folder / "evaluation_metrics.csv"}
    return found | ({"slices": folder / f"evaluation_by_{task.slice}.csv"} if task.slice else {})


def write(task: Task, folder: Path, metrics: Mapping[str, Any], rows: Iterable[list[Any]]) -> None:
    """Write the tables, each whole or not at all.

    Args:
        task: What was ranked.
        folder: Where to.
        metrics: The content of metrics.json.
        rows: Of the predictions, as `header` names their cells.
    """
    own = metrics["scores"][OVERALL]
    tables = {
        "predictions": [header(task), *rows],
        "metrics": [
            ["metric", "value", "low", "high"],
            *([NAMES[name], own[name], *(own[f"{name}_interval"] or [None, None])] for name in METRICS),
        ],
        "slices": [
            [task.slice, "rows", group_title(task), *NAMES.values()],
            *(
                [part, metrics["parts"][part]["rows"], metrics["parts"][part]["groups"], *(one[name] for name in NAMES)]
                for part, one in metrics["scores"].items()
                if part != OVERALL
            ),
        ],
    }
    for name, path in paths(task, folder).items():
        content = written([[cell(value) for value in row] for row in tables[name]])
        runs.write_bytes(path, b"\xef\xbb\xbf" + content)


def header(task: Task) -> list[str]:
    """Name the columns of the predictions."""
    return [*task.row_keys, group_title(task), "response", *task.targets, "predicted", "rank", "predicted_rank"]


def cell(value: Any) -> Any:
    """Make a value one that a spreadsheet does not run."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(FORMULA) else value

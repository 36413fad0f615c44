"""The evaluation of a ranking as a page for people: one HTML file that needs nothing but itself.

All numbers are those of metrics.json; texts are escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from recipekit import page, ranking_plots, regression_plots, tables
from recipekit.ranking_data import Texts
from recipekit.ranking_scores import Lists
from recipekit.regression_plots import Panel
from recipekit.regression_scores import OVERALL
from recipekit.task import Task

SHOWN = 600  # characters of a text
RESPONSES = 30  # of a group in the page
BASELINES = {
    "constant": ("訓練データの平均を常に答える", "the mean of the training rows, always: a random order"),
    "length": ("回答の長さだけで答える", "least squares on the length of the response"),
    "ridge": ("文字n-gramのTF-IDFとリッジ回帰", "TF-IDF of character n-grams and ridge regression"),
}
METRICS = {
    "ndcg": ("並びのよさ", "NDCG"), "spearman": ("順位相関", "Spearman"), "top1": ("1位の的中", "top1"),
    "ndcg_global": ("全行の並び", "NDCG global"), "mse": ("平均二乗誤差", "MSE"),
    "rmse": ("平均二乗誤差の平方根", "RMSE"), "mae": ("平均絶対誤差", "MAE"), "r2": ("決定係数", "R²"),
}  # fmt: skip
FIRST = ("ndcg", "spearman")  # what verdicts are given by


class Row(NamedTuple):
    """A row and its ranks in its group.

    Attributes:
        id: The row's.
        group: Its group.
        slice: Its value of what is scored apart; None where the task has no slice.
        texts: What was predicted from; None where it is not at hand.
        gold: Gold value.
        predicted: Estimate.
        valid: Whether there was a valid answer; the middle of the scale stands for it otherwise.
        rank: By gold value, 1 the highest; equal ones share the mean of their ranks.
        predicted_rank: The same by estimate.
    """

    id: str
    group: str
    slice: str | None
    texts: Texts | None
    gold: float
    predicted: float
    valid: bool
    rank: float
    predicted_rank: float

    def answer(self) -> float | None:
        """Return the estimate, or None where there was no valid answer."""
        return self.predicted if self.valid else None

    def error(self) -> dict[str, Any]:
        """Write a row that is far off as errors.jsonl has it."""
        apart = {} if self.slice is None else {"slice": self.slice}
        texts = self.texts._asdict() if self.texts else {}
        numbers = {"gold": self.gold, "predicted": self.answer(), "error": self.predicted - self.gold}
        return {"kind": "score", "id": self.id, "group": self.group, **apart, **numbers, **texts}

    def cells(self, task: Task) -> list[Any]:
        """Write the row as the table of predictions has it."""
        keys = {"id": self.id, task.group: self.group, task.slice: self.slice}
        texts = self.texts or ("", "")
        ranks = [f"{rank:g}" for rank in (self.rank, self.predicted_rank)]
        return [*(keys[key] for key in task.row_keys), *texts, self.gold, self.answer(), *ranks]


class Group(NamedTuple):
    """The responses to one odai.

    Attributes:
        rows: In the predicted order.
        ndcg: The group's.
        spearman: The group's.
    """

    rows: list[Row]
    ndcg: float
    spearman: float

    @property
    def right(self) -> list[Row]:
        """The rows in the order of their gold values; of equals those first that are first in the predicted order."""
        return sorted(self.rows, key=lambda row: row.rank)

    def error(self) -> dict[str, Any]:
        """Write a group whose best row is ranked low as errors.jsonl has it."""
        first, best = self.rows[0], self.right[0]
        apart = {} if first.slice is None else {"slice": first.slice}
        body = {"body": first.texts.body} if first.texts else {}
        sides = {
            name: {
                "id": row.id, "gold": row.gold, "predicted": row.answer(), "rank": row.rank,
                "predicted_rank": row.predicted_rank, **({"pair": row.texts.pair} if row.texts else {}),
            }
            for name, row in (("best", best), ("predicted_best", first))
        }  # fmt: skip
        scores = {"rows": len(self.rows), "ndcg": self.ndcg, "spearman": self.spearman}
        return {"kind": "order", "group": first.group, **apart, **scores, **body, **sides}


def render(
    task: Task, lists: Mapping[str, Lists], worst: Sequence[Row], examples: tuple[list[Group], list[Group]],
    metrics: Mapping[str, Any],
) -> str:  # fmt: skip
    """Write the report.

    Args:
        task: What was ranked.
        lists: Part -> gold and estimates of the model.
        worst: Rows to show, worst first.
        examples: The groups that are ranked best, and worst, the furthest off first in both.
        metrics: The content of metrics.json.

    Returns:
        HTML. Equal input gives equal text.
    """
    environment = page.environment()
    environment.filters |= {"number": tables.number, "cut": lambda text: text[:SHOWN] + "…" * (len(text) > SHOWN)}
    html = environment.get_template("ranking_report.html.j2").render(
        task=task,
        metrics=metrics,
        own=metrics["scores"],
        names=METRICS,
        title=metrics["group_title"],
        most=RESPONSES,
        baselines={name: BASELINES.get(name, (name, name)) for name in metrics["baselines"]},
        verdicts={
            name: {metric: tables.ranking_verdict(found["difference"][OVERALL].get(metric)) for metric in FIRST}
            for name, found in metrics["baselines"].items()
        },
        plots=_plots(task, lists, metrics),
        examples={"best": examples[0], "worst": examples[1]},
        worst=worst,
    )
    return page.writable(html)


def _plots(task: Task, lists: Mapping[str, Lists], metrics: Mapping[str, Any]) -> dict[str, Markup]:
    scored = {"model": metrics["scores"]} | {name: found["scores"] for name, found in metrics["baselines"].items()}
    [target] = task.targets.values()
    panels = [
        Panel(part, target["scale"], own.pairs.gold[:, 0], own.pairs.predicted[:, 0]) for part, own in lists.items()
    ]
    correlations = {part: own.quality.spearman[own.quality.ranked] for part, own in lists.items()}
    found = {
        "ndcg": ranking_plots.bars(scored, "ndcg", "ndcg"),
        "spearman": ranking_plots.correlations(correlations, "spearman"),
        "scatter": regression_plots.scatter(panels, "scatter"),
    }
    return {name: Markup(svg) for name, svg in found.items()}

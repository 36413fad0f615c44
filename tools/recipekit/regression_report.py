"""The evaluation of a regression as a page for people: one HTML file that needs nothing but itself.

All numbers are those of metrics.json; texts are escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from recipekit import page, regression_plots, tables
from recipekit.regression_plots import Panel
from recipekit.regression_scores import OVERALL, Pairs
from recipekit.task import Task

SHOWN = 3000  # characters of a text
BASELINES = {
    "constant": ("訓練データの平均を常に答える", "the mean of the training rows, always"),
    "ridge": ("文字n-gramのTF-IDFとリッジ回帰", "TF-IDF of character n-grams and ridge regression"),
}
LEVELS = {"group": ("{}ごとの平均", "mean estimate of a {}"), "row": ("1件ごと", "single rows")}
METRICS = {
    "mae": ("平均絶対誤差", "MAE"), "mse": ("平均二乗誤差", "MSE"), "r2": ("決定係数", "R²"),
    "pearson": ("相関", "Pearson"), "spearman": ("順位相関", "Spearman"), "bias": ("偏り", "bias"),
}  # fmt: skip


class Row(NamedTuple):
    """A row whose estimates are far off.

    Attributes:
        id: The row's.
        group: Its group.
        text: What was estimated from; None where it is not at hand.
        off: Mean absolute error over targets.
        gold: Target -> gold value.
        predicted: Target -> estimate.
        valid: Whether there was a valid answer; the middle of the scale stands for it otherwise.
    """

    id: str
    group: str
    text: str | None
    off: float
    gold: dict[str, float]
    predicted: dict[str, float]
    valid: bool

    def errors(self, group_key: str | None) -> list[dict[str, Any]]:
        """Write the row as errors.jsonl has it, a line a target; without a valid answer `predicted` is null."""
        owner = {"group": self.group} if group_key else {}
        return [
            {
                "id": self.id, **owner, "target": target, "gold": gold,
                "predicted": self.predicted[target] if self.valid else None,
                "error": self.predicted[target] - gold,
            }
            for target, gold in self.gold.items()
        ]  # fmt: skip


def render(task: Task, levels: Mapping[str, Pairs], worst: Sequence[Row], metrics: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        task: What was estimated.
        levels: Level -> gold and estimates.
        worst: Rows to show, worst first.
        metrics: The content of metrics.json.

    Returns:
        HTML. Equal input gives equal text.
    """
    environment = page.environment()
    environment.filters |= {"number": tables.number, "cut": lambda text: text[:SHOWN] + "…" * (len(text) > SHOWN)}
    titles = {name: target.get("title", name) for name, target in task.targets.items()}
    main = tables.level(metrics)
    html = environment.get_template("regression_report.html.j2").render(
        task=task,
        metrics=metrics,
        main=main,
        own=metrics[main],
        titles={OVERALL: "平均"} | titles,
        names=METRICS,
        levels={name: [text.format(metrics["group_key"]) for text in LEVELS[name]] for name in reversed([*levels])},
        baselines={name: BASELINES.get(name, (name, name)) for name in metrics["baselines"]},
        verdicts={name: _verdict(found["difference"][main][OVERALL]) for name, found in metrics["baselines"].items()},
        plots=_plots(titles, levels, metrics),
        worst=worst,
    )
    return page.writable(html)


def _verdict(difference: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Tell whether the model is better than a baseline, by the mean absolute error, or None where nobody can say."""
    if not (one := difference.get("mae")):
        return None
    return "unclear" if not one["real"] else "better" if one["difference"] > 0 else "worse", one


def _plots(titles: Mapping[str, str], levels: Mapping[str, Pairs], metrics: Mapping[str, Any]) -> dict[str, Markup]:
    main = tables.level(metrics)
    named = {OVERALL: "平均 mean"} | {
        name: name if title == name else f"{title} {name}" for name, title in titles.items()
    }
    scored = {"model": metrics[main]} | {name: found[main] for name, found in metrics["baselines"].items()}
    rows = {who: {named[target]: values for target, values in found.items()} for who, found in scored.items()}
    found = {name: regression_plots.scores(rows, name, f"scores-{name}") for name in ("mae", "pearson")}
    for level, pairs in levels.items():
        panels = [
            Panel(named[name], metrics["targets"][name]["scale"], pairs.gold[:, i], pairs.predicted[:, i])
            for i, name in enumerate(titles)
        ]
        for kind in (regression_plots.scatter, regression_plots.residuals, regression_plots.distributions):
            name = f"{kind.__name__}_{level}"
            found[name] = kind(panels, name)
    return {name: Markup(svg) for name, svg in found.items()}

"""Plots of rankings, as SVG to stand inside HTML."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recipekit.plots import GRID, INK, named_rows, new_figure, to_svg
from recipekit.regression_plots import COLOURS, GOLD, height_of, panel_axes

if TYPE_CHECKING:
    from recipekit.regression_scores import Array


def bars(scored: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str, name: str) -> str:
    """Plot a metric from 0 to 1 as bars with intervals, a group of bars a part, the model beside its baselines.

    Args:
        scored: Who predicted -> part -> scores as metrics.json has them; the model first.
        metric: Key of the scores.
        name: The plot's.
    """
    parts = list(next(iter(scored.values())))
    figure, axes = named_rows(parts, height=0.2 + 0.2 * len(scored))
    thick = 0.8 / len(scored)
    for number, (who, found) in enumerate(scored.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [place - 0.4 + thick * (number + 0.5) for place in range(len(parts))]
        values = [found[part][metric] for part in parts]
        axes.barh(places, [value or 0 for value in values], thick * 0.88, color=colour, alpha=0.55, label=who)
        for place, part, value in zip(places, parts, values, strict=True):
            if bounds := found[part][f"{metric}_interval"]:
                axes.plot(bounds, [place] * 2, "-", color=colour, lw=2)
            text = "-" if value is None else f"{value:.3f}"
            right = bounds[1] if bounds else value or 0
            axes.annotate(
                text, (right, place), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5
            )
    axes.set_xlim(0, 1.09)
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(scored), frameon=False, borderaxespad=0.2)
    return to_svg(figure, name)


def correlations(found: "Mapping[str, Array]", name: str) -> str:
    """Plot how the correlations within groups are distributed, a panel a part; the dashed line is their mean.

    Args:
        found: Part -> float of shape [groups].
        name: The plot's.
    """
    figure = new_figure(height := height_of(len(found), 2.0))
    edges = np.linspace(-1, 1, 21)
    for values, axes in zip(found.values(), panel_axes(list(found), figure, height), strict=True):
        shares = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        axes.stairs(shares, edges, fill=True, color=COLOURS[0], alpha=0.45)
        axes.stairs(shares, edges, color=COLOURS[0], lw=1.4)
        axes.axvline(0, color=GRID, lw=1.2, zorder=0)
        if len(values):
            axes.axvline(values.mean(), ls="--", color=GOLD, lw=1.4)
        axes.set_xlim(-1, 1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("%", fontsize=9, color=INK)
    return to_svg(figure, name)

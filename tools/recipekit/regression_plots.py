"""Plots of estimated numbers beside gold ones, as SVG to stand inside HTML."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recipekit.plots import GRID, INK, WIDTH, named_rows, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from recipekit.regression_scores import Array

COLOURS = ("#0b4f8a", "#c2570c", "#3b8276", "#8a5cc2")  # the model's, then the baselines'
MARKERS = ("o", "s", "D", "^")
GOLD = "#8a93a0"
POINTS = 400  # more are drawn as squares of a grid, which hold as many as their size says
CELLS = 48  # of the grid, a side
COLUMNS = 3  # panels side by side


class Panel(NamedTuple):
    """The values of one target.

    Attributes:
        title: The target's name for people.
        scale: Its least and greatest value.
        gold: Float of shape [n].
        predicted: Float of shape [n].
    """

    title: str
    scale: Sequence[float]
    gold: "Array"
    predicted: "Array"

    def limits(self) -> tuple[float, float]:
        """Return what an axis must hold."""
        low, high = self.scale
        margin = 0.03 * (high - low)
        return min(low, self.predicted.min()) - margin, max(high, self.predicted.max()) + margin


def scores(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str, name: str) -> str:
    """Plot a metric with its intervals, a row a target, the model beside its baselines.

    Args:
        rows: Who predicted -> target's name for people -> scores as metrics.json has them; the model first.
        metric: Key of the scores.
        name: The plot's.
    """
    targets = list(next(iter(rows.values())))
    figure, axes = named_rows(targets, height=0.2 + 0.16 * len(rows))
    offsets = np.linspace(-0.27, 0.27, len(rows)) if len(rows) > 1 else [0.0]
    for offset, colour, marker, (label, found) in zip(offsets, COLOURS, MARKERS, rows.items(), strict=False):
        known = [place for place, values in enumerate(found.values()) if values[metric] is not None]
        if not known:
            continue
        axes.plot([], [], marker, color=colour, markersize=6, label=label)
        for place in known:
            values = found[targets[place]]
            bounds = values[f"{metric}_interval"] or [values[metric]] * 2
            axes.plot(bounds, [place + offset] * 2, "-", color=colour, lw=1.6)
            axes.plot(values[metric], place + offset, marker, color=colour, markersize=6)
    if metric in ("mae", "mse"):
        axes.set_xlim(left=0)
    else:
        axes.axvline(0, color=GOLD, lw=1)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(rows), frameon=False, borderaxespad=0.2)
    return to_svg(figure, name)


def scatter(panels: Sequence[Panel], name: str) -> str:
    """Plot predicted against gold values, a panel a target; the dashed line is where both agree."""
    figure = new_figure(height := height_of(len(panels), 2.6))
    for panel, axes in zip(panels, panel_axes([one.title for one in panels], figure, height), strict=True):
        low, high = panel.limits()
        axes.plot([low, high], [low, high], "--", color=GOLD, lw=1)
        axes.axhline(panel.gold.mean(), ls=":", color=GOLD, lw=1, zorder=0)
        _points(axes, panel.gold, panel.predicted)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("gold", fontsize=9, color=INK)
        axes.set_ylabel("predicted", fontsize=9, color=INK)
    return to_svg(figure, name)


def residuals(panels: Sequence[Panel], name: str) -> str:
    """Plot predicted minus gold against gold values, a panel a target."""
    figure = new_figure(height := height_of(len(panels), 2.2))
    for panel, axes in zip(panels, panel_axes([one.title for one in panels], figure, height), strict=True):
        off = panel.predicted - panel.gold
        axes.axhline(0, ls="--", color=GOLD, lw=1)
        _points(axes, panel.gold, off)
        low, high = panel.scale
        margin, most = 0.03 * (high - low), max(np.abs(off).max() * 1.08, 1e-9)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(-most, most)
        axes.set_xlabel("gold", fontsize=9, color=INK)
        axes.set_ylabel("predicted - gold", fontsize=9, color=INK)
    return to_svg(figure, name)


def distributions(panels: Sequence[Panel], name: str) -> str:
    """Plot how gold and predicted values are distributed, a panel a target, as shares of all."""
    figure = new_figure(height := height_of(len(panels), 1.9))
    for panel, axes in zip(panels, panel_axes([one.title for one in panels], figure, height), strict=True):
        edges = np.linspace(*panel.limits(), 25)
        for values, colour, label in ((panel.gold, GOLD, "gold"), (panel.predicted, COLOURS[0], "predicted")):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(100 * shares, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(100 * shares, edges, color=colour, lw=1.4, label=label)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("%", fontsize=9, color=INK)
        axes.legend(loc="upper left", frameon=False, fontsize=8, borderaxespad=0.1, handlelength=1)
    return to_svg(figure, name)


def height_of(panels: int, of_one: float) -> float:
    """Return how many inches so many panels need, each `of_one`."""
    return of_one * math.ceil(panels / COLUMNS)


def panel_axes(titles: Sequence[str], figure: Any, height: float) -> "Iterator[Axes]":
    """Make axes of panels side by side, in rows, on a figure of the height of `height_of`."""
    rows = math.ceil(len(titles) / COLUMNS)
    columns = min(COLUMNS, len(titles))
    wide, high = 1 / COLUMNS, 1 / rows
    for place, title in enumerate(titles):
        left, top = place % columns * wide, 1 - place // columns * high
        box = (left + 0.58 / WIDTH, top - high + 0.5 / height, wide - 0.7 / WIDTH, high - 0.8 / height)
        axes = figure.add_axes(box)
        axes.set_title(title, loc="left", fontsize=10, color=INK, pad=4).set_parse_math(False)
        axes.tick_params(labelsize=8.5)
        axes.grid(color=GRID, lw=0.6)
        axes.set_axisbelow(True)
        axes.locator_params(nbins=6)
        yield axes


def _points(axes: "Axes", x: "Array", y: "Array") -> None:
    if len(x) <= POINTS:
        axes.scatter(x, y, s=11, color=COLOURS[0], alpha=0.55, linewidths=0)
        return
    counts, across, up = np.histogram2d(x, y, CELLS)
    left, bottom = np.nonzero(counts)
    middle = [(edges[:-1] + edges[1:]) / 2 for edges in (across, up)]
    found = counts[left, bottom]
    size = 1 + 24 * found / found.max()
    axes.scatter(middle[0][left], middle[1][bottom], s=size, color=COLOURS[0], alpha=0.75, marker="s", linewidths=0)

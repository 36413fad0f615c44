"""The plots of a chat's report: levels of two fields, held-out losses over phases, and style beside the references."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recipekit.plots import GRID, INK, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0b4f8a", "#c2570c", "#3b8276", "#8a4f9e", "#8a7a1c", "#5a6572", "#b0344d", "#2f8fb3")
SHARES = ("particles", "ne", "yo", "wa", "emoji_rate", "polite", "emotion_rate", "expressive")


def heat(cells: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Plot the mean of measures over the pairs of levels of two fields, a panel a measure; empty pairs stay white.

    Args:
        cells: Measure's title -> mean by level of the first field (down) and the second (across).
        names: Title and words of the levels of both fields.
    """
    (down, rows), (across, columns) = names
    across_panels = 2
    lines = -(-len(cells) // across_panels)
    height = (0.34 * len(rows) + 1.2) * lines
    figure = new_figure(height)
    for place, (title, values) in enumerate(cells.items()):
        line, column = divmod(place, across_panels)
        one = 1 / lines
        axes = figure.add_axes((0.13 + 0.5 * column, 1 - one * line - one + 0.62 / height, 0.36, one - 1.0 / height))
        _heat_panel(axes, title, np.array(values, dtype=float))
        axes.set_xticks(range(len(columns)), [str(i) for i in range(len(columns))])
        axes.set_yticks(range(len(rows)), [f"{i} {word}" for i, word in enumerate(rows)] if not column else [])
        axes.set_xlabel(across, fontsize=9, color=INK).set_parse_math(False)
        if not column:
            axes.set_ylabel(down, fontsize=9, color=INK).set_parse_math(False)
    return to_svg(figure, "heat")


def _heat_panel(axes: "Axes", title: str, values: "np.ndarray") -> None:
    known = values[~np.isnan(values)]
    low, high = (known.min(), known.max()) if len(known) else (0, 1)
    axes.pcolormesh(
        np.arange(values.shape[1] + 1) - 0.5, np.arange(values.shape[0] + 1) - 0.5, np.ma.masked_invalid(values),
        cmap="Blues", vmin=low, vmax=high + (high == low),
    )  # fmt: skip
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            dark = (value - low) > 0.6 * (high - low) if high > low else False
            said = f"{value:.2f}" if high < 10 else f"{value:.0f}"
            axes.text(column, row, said, ha="center", va="center", fontsize=8,
                      color="white" if dark else INK)  # fmt: skip
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10, color=INK, pad=4).set_parse_math(False)
    axes.tick_params(length=0, labelsize=8)


def losses(held_out: Mapping[str, Any]) -> str:
    """Plot the loss of each held-out data set over the models, a line a set; a ring marks the set's own phase."""
    models = held_out["models"]
    figure = new_figure(3.4)
    axes = figure.add_axes((0.08, 0.12, 0.58, 0.83))
    for place, (name, facts) in enumerate(held_out["sets"].items()):
        colour = COLOURS[place % len(COLOURS)]
        y = [held_out["losses"].get(model, {}).get(name, np.nan) for model in models]
        axes.plot(range(len(models)), y, "o-", color=colour, markersize=4, label=name)
        if facts.get("phase") in models:
            own = models.index(facts["phase"])
            axes.plot(own, y[own], "o", color="white", markeredgecolor=colour, markersize=9, markeredgewidth=1.8)
    axes.set_xticks(range(len(models)), models)
    axes.set_ylabel("nats", fontsize=9, color=INK)
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return to_svg(figure, "losses")


def style(model: Mapping[str, Any], references: Mapping[str, Any] | None, titles: Mapping[str, str]) -> str:
    """Plot the shares of style with their intervals, the model's beside the references'.

    Args:
        model: `style` of metrics.json.
        references: The same of the references; None: there are none.
        titles: Measure -> for people.
    """
    height = 0.5 * len(SHARES) + 0.75
    figure = new_figure(height)
    axes = figure.add_axes((0.3, 0.35 / height, 0.66, (height - 0.75) / height))
    sides = [("モデル", model, COLOURS[0], -0.19)]
    sides += [("お手本", references, COLOURS[1], 0.19)] if references else []
    for label, found, colour, offset in sides:
        y = np.arange(len(SHARES)) + offset
        x = [100 * (found[name] or 0) for name in SHARES]
        axes.barh(y, x, 0.34, color=colour, alpha=0.75, label=label)
        for place, name in zip(y, SHARES, strict=True):
            if bounds := found[f"{name}_interval"]:
                axes.plot([100 * bound for bound in bounds], [place] * 2, "-", color=INK, lw=1.2)
    axes.set_yticks(range(len(SHARES)), [titles[name] for name in SHARES])
    axes.set_ylim(len(SHARES) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
    return to_svg(figure, "style")

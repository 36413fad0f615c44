"""The report's plots, as SVG to stand inside HTML: the browser draws the text, and equal numbers give equal bytes."""

import io
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches
SCORES = {
    "f1": ("F1", "#0b4f8a", "o"),
    "precision": ("precision", "#c2570c", "s"),
    "recall": ("recall", "#3b8276", "D"),
}
INK, GRID = "#3d4550", "#e3e6ea"


def scores(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Plot F1, precision and recall with their intervals, a row each; rows without scores stay empty.

    Args:
        rows: Name -> scores as metrics.json has them.
    """
    figure, axes = named_rows(list(rows), height=0.52)
    known = [row for row in rows.values() if row["f1"] is not None]
    low = min((min(row[key], *(row[f"{key}_interval"] or [])) for row in known for key in SCORES), default=0)
    for offset, (key, (label, colour, marker)) in zip((-0.24, 0, 0.24), SCORES.items(), strict=True):
        size = 7 if key == "f1" else 4.5
        axes.plot([], [], marker, color=colour, markersize=size, label=label)
        for place, row in enumerate(rows.values()):
            if row[key] is not None:
                bounds = row[f"{key}_interval"] or [row[key]] * 2
                axes.plot(
                    [100 * b for b in bounds], [place + offset] * 2, "-", color=colour, lw=2 if key == "f1" else 1.2
                )
                axes.plot(100 * row[key], place + offset, marker, color=colour, markersize=size)
    axes.set_xlim(max(0, 10 * int(10 * low) - 3), 101.5)
    if known:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(SCORES), frameon=False, borderaxespad=0.2)
    return to_svg(figure, "scores")


def classes(errors: Mapping[str, Mapping[str, int]], colours: Mapping[str, str]) -> str:
    """Plot the number of errors per field, stacked by class.

    Args:
        errors: Field -> class -> number.
        colours: Class -> CSS colour, in the order of the stack.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = named_rows(list(errors), height=0.38)
    before = [0] * len(errors)
    for name, colour in colours.items():
        widths = [found.get(name, 0) for found in errors.values()]
        if any(widths):
            axes.barh(range(len(errors)), widths, left=before, color=colour, height=0.62)
        before = [a + b for a, b in zip(before, widths, strict=True)]
    for place, total in enumerate(before):
        axes.annotate(str(total), (total, place), xytext=(4, 0), textcoords="offset points", va="center", color=INK)
    axes.set_xlim(0, max(before) * 1.06 or 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return to_svg(figure, "classes")


def reliability(bins: Sequence[Mapping[str, float]]) -> str:
    """Plot how many answers are right against how probable the model held them."""
    figure = new_figure(4.6)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.84))
    axes.plot([0, 100], [0, 100], "--", color="#8a93a0", lw=1)
    x, y = [[100 * one[key] for one in bins] for key in ("probability", "right")]
    axes.plot(x, y, "o-", color=SCORES["f1"][1], markersize=6)
    axes.set_xlim(0, 101.5)
    axes.set_ylim(0, 103)
    axes.set_xlabel("probability of the answer, %")
    axes.set_ylabel("all right, %")
    axes.grid(color=GRID)
    return to_svg(figure, "reliability")


def lengths(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Plot how many rows have how many tokens, a histogram for each data set with its limit and percentiles.

    Args:
        sets: Name -> what report.json says of a data set.
    """
    whole = 1.35 * len(sets) + 0.3
    figure = new_figure(whole)
    top = max(found["histogram"]["width"] * len(found["histogram"]["counts"]) for found in sets.values())
    for place, (name, found) in enumerate(sets.items()):
        axes = figure.add_axes((0.075, 1 - (1.35 * place + 1.12) / whole, 0.9, 0.82 / whole))
        width, counts = found["histogram"]["width"], found["histogram"]["counts"]
        axes.bar([width * i for i in range(len(counts))], counts, width * 0.94, align="edge", color="#6da3cf")
        axes.axvline(found["sequence_len"], color="#c8231b", lw=1.6, ls="--")
        for point in ("p50", "p95"):
            axes.axvline(found["tokens"][point], color=INK, lw=1, ls=":" if point == "p95" else "-")
        axes.set_title(name, loc="left", fontsize=10, color=INK, pad=3).set_parse_math(False)
        axes.set_xlim(0, top * 1.01)
        axes.set_ylim(0, max([*counts, 1]) * 1.08)
        axes.locator_params(axis="y", nbins=3, integer=True)
        axes.tick_params(labelsize=9)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
    return to_svg(figure, "lengths")


def new_figure(height: float) -> "Figure":
    """Make a figure of the page's width, without axes.

    Args:
        height: In inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height))


def named_rows(names: Sequence[str], height: float) -> tuple["Figure", "Axes"]:
    """Make axes with a named row for each value, the first on top.

    Args:
        names: The rows'.
        height: Of a row, in inches.
    """
    inches = height * max(len(names), 1)
    whole = inches + 0.75
    left = min(0.4, (0.15 + 0.082 * max(map(_cells, names), default=0)) / WIDTH)
    figure = new_figure(whole)
    axes = figure.add_axes((left, 0.35 / whole, 0.98 - left, inches / whole))
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a name may hold dollars
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color=GRID)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)
    return figure, axes


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def to_svg(figure: "Figure", name: str) -> str:
    """Draw a figure as SVG that can stand among others in a page.

    Args:
        figure: Made here.
        name: Makes its ids differ from those of the page's other plots.
    """
    import matplotlib

    for axes in figure.axes:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#b8bfc8")
        axes.tick_params(colors=INK)
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser's fonts have them
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    svg = stream.getvalue()
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    return re.sub(r'<g id="[\w.]+_\d+"', "<g", svg)  # the same ones in every plot

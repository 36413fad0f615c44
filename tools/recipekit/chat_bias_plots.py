"""Plots of how evenly conversations are spread, as SVG to stand inside HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

from recipekit.chat_bias_warnings import verdict
from recipekit.plots import GRID, INK, named_rows, new_figure, to_svg

FAIR, UNEVEN = "#6da3cf", {"empty": "#c8231b", "thin": "#e0a100", "dominant": "#c2570c"}
ROLES = {"user": ("user", "#c2570c"), "assistant": ("assistant", "#0b4f8a")}
COLOURS = (
    "#0b4f8a", "#c2570c", "#3b8276", "#8a5cc2", "#d1356b", "#7a8a1c",
    "#2f9bd6", "#a0522d", "#1f9d55", "#d79b00", "#555f6b", "#b06fd8",
)  # fmt: skip
MARKERS = ("o", "^", "s", "D")
UNKNOWN = "#c3c9d0"
SHARES = (0.02, 0.66)  # of the map's width: where it begins, and where its legend does
LONGEST_TURN = 20  # turns beyond are left out of a plot


def field(name: str, found: Mapping[str, Any], judged: bool) -> str:
    """Plot how many conversations have each value of a field, beside its fair share.

    Args:
        name: The field.
        found: What report.json says of it.
        judged: Whether uneven bins are coloured, and the fair share is drawn.
    """
    bins = found["bins"]
    total = sum(one["count"] for one in bins)
    figure, axes = named_rows([_label(one) for one in bins], height=0.3)
    for place, one in enumerate(bins):
        kind = verdict(one["count"], total, len(bins)) if judged and total else None
        axes.barh(place, one["count"], color=UNEVEN[kind] if kind else FAIR, height=0.66)
        share = f"{one['count']:,}" + (f" ({one['count'] / total:.0%})" if total else "")
        colour = UNEVEN["empty"] if kind == "empty" else INK
        axes.annotate(share, (one["count"], place), xytext=(4, 0), textcoords="offset points", va="center",
                      color=colour, fontsize=9)  # fmt: skip
    if judged and total:
        axes.axvline(total / len(bins), color=INK, lw=1, ls="--", zorder=0.5)
    axes.set_xlim(0, 1.18 * max([one["count"] for one in bins] + [1]))
    axes.locator_params(axis="x", integer=True)
    return to_svg(figure, f"field-{name}")


def _label(one: Mapping[str, Any]) -> str:
    return f"{one['value']} {one['label']}" if isinstance(one["value"], int) else one["label"]


def pair(found: Mapping[str, Any]) -> str:
    """Plot how many conversations have each combination of two fields' values, as a heat map."""
    counts, (rows, columns) = found["counts"], found["labels"]
    total, size = sum(map(sum, counts)), len(rows) * len(columns)
    height = 0.62 * len(rows) + 1.0
    figure = new_figure(height)
    axes = figure.add_axes((0.2, 0.5 / height, 0.78, 0.62 * len(rows) / height))
    top = max(map(max, counts)) or 1
    mesh = axes.pcolormesh(counts, cmap="Blues", vmin=0, vmax=top * 1.25, edgecolors="white", linewidth=2)
    mesh.set_rasterized(False)
    for a, line in enumerate(counts):
        for b, count in enumerate(line):
            kind = verdict(count, total, size) if total else None
            ink = "white" if count > 0.7 * top else INK
            weight = "bold" if kind else "normal"
            colour = UNEVEN[kind] if kind in ("empty", "thin") else ink
            axes.annotate(
                f"{count:,}", (b + 0.5, a + 0.5), ha="center", va="center", color=colour, weight=weight, fontsize=12
            )
            if kind:
                axes.plot(
                    [b + 0.04, b + 0.96, b + 0.96, b + 0.04, b + 0.04], [a + 0.05] * 2 + [a + 0.95] * 2 + [a + 0.05],
                    color=UNEVEN[kind], lw=2.2,
                )  # fmt: skip
    for axis, values, labels in zip((axes.yaxis, axes.xaxis), found["values"], (rows, columns), strict=True):
        shown = [f"{v} {label}" if isinstance(v, int) else label for v, label in zip(values, labels, strict=True)]
        axis.set_ticks([i + 0.5 for i in range(len(labels))], shown)
        for tick in axis.get_ticklabels():
            tick.set_parse_math(False)
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=9)
    axes.set_ylabel(found["titles"][0], color=INK, labelpad=10).set_parse_math(False)
    axes.set_title(found["titles"][1], color=INK, fontsize=10).set_parse_math(False)
    return to_svg(figure, "pair")


def turns(counts: Mapping[str, int]) -> str:
    """Plot how many conversations have how many exchanges."""
    numbers = [int(n) for n in counts]
    shown = [n for n in numbers if n <= LONGEST_TURN]
    beyond = sum(counts[str(n)] for n in numbers if n > LONGEST_TURN)
    figure = new_figure(2.6)
    axes = figure.add_axes((0.08, 0.2, 0.9, 0.72))
    values = [counts[str(n)] for n in shown] + ([beyond] if beyond else [])
    labels = [str(n) for n in shown] + ([f">{LONGEST_TURN}"] if beyond else [])
    axes.bar(range(len(values)), values, color=FAIR, width=0.7)
    for place, value in enumerate(values):
        if value:
            axes.annotate(f"{value:,}", (place, value), xytext=(0, 2), textcoords="offset points", ha="center",
                          color=INK, fontsize=9)  # fmt: skip
    axes.set_xticks(range(len(values)), labels)
    axes.set_xlim(-0.6, max(len(values), 6) - 0.4)
    axes.set_ylim(0, 1.15 * max(values))
    axes.locator_params(axis="y", nbins=4, integer=True)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    return to_svg(figure, "turns")


def lengths(found: Mapping[str, Any]) -> str:
    """Plot how long texts are in each exchange: medians, the middle half and the middle nine tenths, a panel a role."""
    figure = new_figure(4.6)
    top = 1.05 * max(one["p95"] for role in ROLES for one in found[role]["turns"])
    for place, (role, (label, colour)) in enumerate(ROLES.items()):
        axes = figure.add_axes((0.08, 0.57 - 0.48 * place, 0.9, 0.36))
        steps = [one for one in found[role]["turns"] if one["turn"] <= LONGEST_TURN]
        x = [one["turn"] for one in steps]
        for one in steps:
            axes.plot([one["turn"]] * 2, [one["p5"], one["p95"]], color=colour, lw=1.2, alpha=0.6)
            axes.plot(
                [one["turn"]] * 2, [one["p25"], one["p75"]], color=colour, lw=9, alpha=0.35, solid_capstyle="butt"
            )
        axes.plot(x, [one["p50"] for one in steps], "o-", color=colour, markersize=5, lw=1.4)
        axes.set_title(label, loc="left", fontsize=10, color=colour, pad=3)
        axes.set_ylim(0, top)
        axes.set_xlim(0.5, max(max(x), 6) + 0.5)
        axes.set_xticks(x)
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
    return to_svg(figure, "lengths")


def scatter(name: str, points: Sequence[Sequence[Any]], groups: Sequence[str | None], order: Sequence[str]) -> str:
    """Plot the map of meaning.

    Args:
        name: The plot's.
        points: Of each conversation its name, x and y.
        groups: Of each conversation what it is coloured by; None: it does not say.
        order: The groups, as the legend has them.
    """
    figure = new_figure(6.0)
    axes = figure.add_axes((SHARES[0], 0.03, SHARES[1] - SHARES[0], 0.94))
    size = 5.0 if len(points) < 300 else 3.4 if len(points) < 1500 else 2.6
    places: dict[str | None, list[int]] = {}
    for i, group in enumerate(groups):
        places.setdefault(group, []).append(i)
    for number, group in enumerate([None, *order]):
        found = places.get(group, [])
        if not found and group is None:
            continue
        colour = UNKNOWN if group is None else COLOURS[(number - 1) % len(COLOURS)]
        marker = MARKERS[(number - 1) // 3 % len(MARKERS)] if group is not None else "x"
        label = f"{'-' if group is None else group}  {len(found):,}"
        axes.plot(
            [points[i][1] for i in found], [points[i][2] for i in found], marker, color=colour, markersize=size,
            markeredgewidth=0 if group is not None else 0.6, alpha=0.75, label=label, linestyle="none",
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.patch.set_facecolor("#fafbfc")
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        frameon=False,
        borderaxespad=0,
        markerscale=7 / size,
        labelspacing=0.7,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(INK)
    return to_svg(figure, f"map-{name}")

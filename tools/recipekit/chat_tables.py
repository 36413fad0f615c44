"""Comparisons of chats, and what people said of their replies, laid out for the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from recipekit.tables import new_table, number

FIRST = ("persona.consistent", "fluency.fluent", "relevance.mrr")


def differences(
    found: Mapping[str, Mapping[str, Any]], files: Sequence[str], judged: Mapping[str, Any] | None
) -> Table:
    """Lay a comparison of two chats out.

    Args:
        found: Metric -> B - A, as compare.json has it.
        files: Of A and B.
        judged: What a judge said of the two, as compare.json has it; None: none was asked.
    """
    said = [f"{name}: {verdict(found.get(name))}" for name in FIRST if name in found] or ["nothing to compare"]
    if judged:
        said.append(judge_verdict(judged))
    result = new_table(f"A {files[0]}\nB {files[1]}", "\n".join(said))
    for heading in ("", "A", "B", "B - A", "95%", "p", " "):
        result.add_column(heading, justify="right" if heading.strip() else "left")
    result.padding = (0, 0, 0, 1)
    part = ""
    for name, one in found.items():
        if part not in ("", name.partition(".")[0]):
            result.add_section()
        part = name.partition(".")[0]
        bounds = f"{one['low']:+.3f} to {one['high']:+.3f}"
        cells = [number(one["a"]), number(one["b"]), f"{one['difference']:+.3f}", bounds, f"{one['p']:.3f}"]
        result.add_row(name, *cells, "real" if one["real"] else "")
    return result


def mean(value: float | None) -> str:
    """Write a mean of marks from 1 to 5 for people."""
    return "-" if value is None else f"{value:.2f}"


def verdict(one: Mapping[str, Any] | None) -> str:
    """Say of a metric of which more is better who is better."""
    if not one:
        return "nothing to compare"
    if not one["real"]:
        return "no difference shown"
    better = "B is better" if one["difference"] > 0 else "A is better"
    return f"{better}, by {abs(one['difference']):.3f} (p = {one['p']:.3f})"


def judge_verdict(judged: Mapping[str, Any]) -> str:
    """Say in one line whom a judge prefers."""
    low, high = judged["interval"] or (None, None)
    return (
        f"judge: B wins {number(judged['b_wins'])} ({number(low)}-{number(high)}) of {judged['pairs']:,} pairs, "
        f"both orders agree on {number(judged['agreement'])}"
    )


def ratings(found: Mapping[str, Any]) -> Table:
    """Lay out what people said of replies, as ratings.json has it."""
    result = new_table(
        f"{found['items']:,} replies, {found['raters']:,} raters, {found['ratings']:,} ratings",
        "alpha: Krippendorff's, ordinal; 1 is full agreement, 0 what chance gives",
    )
    result.padding = (0, 0, 0, 1)
    result.add_column("question")
    for model in found["models"]:
        result.add_column(f"{model}\nmean", justify="right")
        result.add_column("\n95%", justify="right")
    result.add_column("\nalpha", justify="right")
    for question, alpha in found["alpha"].items():
        cells = []
        for own in found["models"].values():
            low, high = own[question]["interval"] or (None, None)
            cells += [mean(own[question]["mean"]), "" if low is None else f"{low:.2f}-{high:.2f}"]
        result.add_row(question, *cells, number(alpha))
    return result

"""Scores laid out for the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from recipekit.release import Difference
from recipekit.scoring import allowed


def percent(value: float | None) -> str:
    """Write a rate for people."""
    return "-" if value is None else f"{100 * value:.1f}%"


def f1_interval(values: Mapping[str, Any]) -> str:
    """Write the interval of F1, in percent; where all or nothing is right, what so many values still allow."""
    bounds = values["f1_interval"]
    if values["f1"] in (0, 1) and "tp" in values:
        bounds = allowed(values["f1"], values["tp"] + values["fp"] + values["fn"])
    return "" if bounds is None else f"{100 * bounds[0]:.0f}-{100 * bounds[1]:.0f}"


def scores(metrics: Mapping[str, Any], title: str) -> Table:
    """Lay the scores of metrics.json out."""
    found = _table(title, summary(metrics))
    found.add_column("field", min_width=max(map(len, metrics["fields"])))
    for heading in ("P", "R", "F1", "95%", "right", "spurious", "missed"):
        found.add_column(heading, justify="right")
    for name, values in named_scores(metrics):
        if name == "micro":
            found.add_section()
        cells = [percent(values[key]).rstrip("%") for key in ("precision", "recall", "f1")]
        counts = [str(values.get(key, "")) for key in ("tp", "fp", "fn")]
        found.add_row(name, *cells, f1_interval(values), *counts)
    return found


def named_scores(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what has precision, recall and F1 in metrics.json, with its name for people."""
    persons = [(f"whole {name}s", values) for name, values in metrics.get("entities", {}).items()]
    return [*metrics["fields"].items(), ("micro", metrics["micro"]), ("macro", metrics["macro"]), *persons]


def summary(metrics: Mapping[str, Any]) -> str:
    """Say in one line what counts for articles as a whole."""
    return (
        f"{metrics['articles']:,} articles: {percent(metrics['exact_match_rate'])} all right, "
        f"false positives on {metrics['false_positives']} of {metrics['negatives']} negatives "
        f"({percent(metrics['false_positive_rate'])}), valid JSON {percent(metrics['valid_json_rate'])}"
    )


def differences(found: Mapping[str, Difference], files: Sequence[str]) -> Table:
    """Lay a comparison out: F1 of everything, and the rates."""
    result = _table(f"A {files[0]}\nB {files[1]}", _verdict(found))
    for heading in ("F1 or rate", "A", "B", "B - A", "95%", "p", ""):
        result.add_column(heading, justify="left" if heading in ("F1 or rate", "") else "right")
    for name, one in found.items():
        if name.endswith((".precision", ".recall")):
            continue
        shown = [
            percent(one.a),
            percent(one.b),
            f"{100 * one.difference:+.1f}",
            f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
        ]
        result.add_row(name.removesuffix(".f1"), *shown, f"{one.p:.3f}", "real" if one.is_real else "")
    return result


def _verdict(found: Mapping[str, Difference]) -> str:
    one = found.get("micro.f1")
    if one is None:
        return "micro F1: nothing to compare"
    if not one.is_real:
        return "micro F1: no difference shown; the interval of B - A holds 0"
    better = "B is better" if one.difference > 0 else "A is better"
    return f"micro F1: {better}, by {100 * abs(one.difference):.1f} points (p = {one.p:.3f})"


def _table(title: str, caption: str) -> Table:
    found = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    found.title_justify = found.caption_justify = "left"
    return found

"""Scores laid out for the screen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from recipekit.release import Difference
from recipekit.scoring import allowed

RANKING_COLUMNS = {"ndcg": "NDCG", "ndcg_interval": "95%", "spearman": "rho", "mse": "MSE", "r2": "R2"}


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
    found = new_table(title, summary(metrics))
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
    result = new_table(f"A {files[0]}\nB {files[1]}", _verdict(found))
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


def number(value: float | None) -> str:
    """Write a score of a regression for people."""
    return "-" if value is None else f"{value:.3f}"


def level(metrics: Mapping[str, Any]) -> str:
    """Name the level of a regression's scores that counts first."""
    return "group" if "group" in metrics else "row"


def estimates(metrics: Mapping[str, Any], title: str) -> Table:
    """Lay the scores of a regression out, beside those of its baselines."""
    own = level(metrics)
    result = new_table(title, "\n".join([estimates_summary(metrics), *verdicts(metrics)]))
    result.padding = (0, 0, 0, 0)  # so that two baselines fit into 80 columns
    first = f"by {metrics['group_key']}" if own == "group" else "by row"
    result.add_column(first, min_width=max(map(len, metrics[own])))
    scored = {"": metrics[own]} | {name: found[own] for name, found in metrics["baselines"].items()}
    columns: list[tuple[Mapping[str, Any], str]] = []
    for name, found in scored.items():
        for metric, heading in (("mae", "MAE"), ("mae_interval", "95%"), ("r2", "R2"), ("pearson", "r")):
            if (metric != "mae_interval" or not name) and any(values[metric] is not None for values in found.values()):
                result.add_column(f"{name if metric == 'mae' else ''}\n{heading}", justify="right")
                columns.append((found, metric))
    for target in metrics[own]:
        cells = [_cell(metric, found[target][metric], "mae") for found, metric in columns]
        result.add_row(target, *cells, end_section=target == "overall")
    return result


def _cell(metric: str, value: Any, main: str) -> str:
    if metric == f"{main}_interval":
        return f"{value[0]:.2f}-{value[1]:.2f}" if value else ""
    return number(value) if metric == main or value is None else f"{value:.2f}"


def estimates_summary(metrics: Mapping[str, Any]) -> str:
    """Say in one line how good a regression is."""
    own = metrics[level(metrics)]["overall"]
    groups = f"{metrics['groups']:,} {metrics['group_key']}s, " if metrics["group_key"] else ""
    invalid = f"; {metrics['invalid']:,} rows without a valid answer" if metrics["invalid"] else ""
    scores = f"MAE {number(own['mae'])}, R2 {number(own['r2'])}, Pearson {number(own['pearson'])}"
    return f"{scores} ({groups}{metrics['rows']:,} rows{invalid})"


def verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """Say of each baseline whether the model beats it, by the mean absolute error over all targets."""
    own = level(metrics)
    found = []
    for name, baseline in metrics["baselines"].items():
        if not (one := baseline["difference"][own]["overall"].get("mae")):
            continue
        real = "better than" if one["difference"] > 0 else "worse than"
        verdict = f"{real if one['real'] else 'no difference shown from'} {name}"
        interval = f"{one['low']:+.3f} to {one['high']:+.3f}"
        found.append(f"{verdict}: MAE of {name} - ours {one['difference']:+.3f}, {interval}, p = {one['p']:.3f}")
    return found


def estimate_differences(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], files: Sequence[str], level: str
) -> Table:
    """Lay a comparison of two regressions out: of what compare.json has, what counts first."""
    verdict = _lower(found[level]["overall"].get("mae"))
    return _differences(found[level], files, level, ("mae", "r2", "pearson"), verdict)


def _differences(
    found: Mapping[str, Mapping[str, Any]], files: Sequence[str], first: str, metrics: Sequence[str], verdict: str
) -> Table:
    result = new_table(f"A {files[0]}\nB {files[1]}", verdict)
    for heading in (first, "", "A", "B", "B - A", "95%", "p", ""):
        result.add_column(heading, justify="left" if heading in (first, "") else "right")
    result.padding = (0, 0, 0, 0)
    for target, own in found.items():
        for metric, one in [(metric, own[metric]) for metric in metrics if metric in own]:
            numbers = [number(one["a"]), number(one["b"]), f"{one['difference']:+.3f}"]
            shown = [*numbers, f"{one['low']:+.3f} to {one['high']:+.3f}", f"{one['p']:.3f}"]
            result.add_row(target, metric, *shown, "real" if one["real"] else "")
        result.add_section()
    return result


def rankings(metrics: Mapping[str, Any], title: str) -> Table:
    """Lay the scores of a ranking out, beside those of its baselines."""
    result = new_table(title, "\n".join([ranking_summary(metrics), *ranking_verdicts(metrics)]))
    result.padding = (0, 0, 0, 0)  # so that three baselines fit into 80 columns
    result.add_column("", min_width=max(map(len, metrics["scores"])))
    columns: list[tuple[Mapping[str, Any], str]] = []
    for metric, heading in RANKING_COLUMNS.items():
        result.add_column(f"\n{heading}", justify="right")
        columns.append((metrics["scores"], metric))
    for name, found in metrics["baselines"].items():
        for metric, heading in (("ndcg", f"{name}\nNDCG"), ("spearman", "\nrho")):
            if any(values[metric] for values in found["scores"].values()):  # constant has no correlation
                result.add_column(heading, justify="right")
                columns.append((found["scores"], metric))
    for part in metrics["scores"]:
        cells = [_cell(metric, found[part][metric], "ndcg") for found, metric in columns]
        result.add_row(part, *cells, end_section=part == "overall")
    return result


def ranking_summary(metrics: Mapping[str, Any]) -> str:
    """Say in one line how good a ranking is."""
    own, counts, title = metrics["scores"]["overall"], metrics["parts"]["overall"], metrics["group_title"]
    left = counts["groups"] - counts["ranked"]
    notes = [f"; {left:,} {title} without an order to find"] if left else []
    notes += [f"; {metrics['invalid']:,} rows without a valid answer"] if metrics["invalid"] else []
    notes += [f"; {metrics['unchecked']:,} rows not checked for their pair"] if metrics["unchecked"] else []
    scores = f"NDCG {number(own['ndcg'])}, Spearman {number(own['spearman'])}, MSE {number(own['mse'])}"
    return f"{scores} ({counts['groups']:,} {title}, {counts['rows']:,} rows{''.join(notes)})"


def ranking_verdict(one: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """Tell by a metric of which more is better whether a model beats a baseline, or None where nobody can say.

    Args:
        one: Model - baseline, as metrics.json has it.
    """
    if not one:
        return None
    return "unclear" if not one["real"] else "better" if one["difference"] > 0 else "worse", one


def ranking_verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """Say of each baseline whether a ranking beats it, by NDCG."""
    words = {"better": "better than", "worse": "worse than", "unclear": "no difference shown from"}
    found = []
    for name, baseline in metrics["baselines"].items():
        if verdict := ranking_verdict(baseline["difference"]["overall"].get("ndcg")):
            state, one = verdict
            interval = f"{one['low']:+.3f} to {one['high']:+.3f}"
            found.append(f"{words[state]} {name}: NDCG {one['difference']:+.3f}, {interval}, p = {one['p']:.3f}")
    return found


def ranking_differences(found: Mapping[str, Mapping[str, Any]], files: Sequence[str]) -> Table:
    """Lay a comparison of two rankings out."""
    words = {"better": "B is better", "worse": "A is better", "unclear": "no difference shown"}
    verdict = ranking_verdict(found["overall"].get("ndcg"))
    said = "nothing to compare"
    if verdict:
        state, one = verdict
        by = "; the interval of B - A holds 0, or p is 0.05 or more" if state == "unclear" else (
            f", by {abs(one['difference']):.3f} (p = {one['p']:.3f})"
        )  # fmt: skip
        said = words[state] + by
    return _differences(found, files, "", ("ndcg", "spearman", "top1", "mse", "r2"), f"NDCG: {said}")


def chat(metrics: Mapping[str, Any], title: str) -> Table:
    """Lay the scores of a chat out, beside those of the references."""
    result = new_table(title, "\n".join([chat_summary(metrics), *chat_notes(metrics)]))
    result.padding = (0, 0, 0, 1)
    for heading in ("", "model", "95%", "references", "of"):
        result.add_column(heading, justify="right" if heading else "left")
    known = (metrics["references"] or {"scores": {}})["scores"]
    shown = [name for name, number in metrics["numbers"].items() if number]
    for name, after in zip(shown, [*shown[1:], ""], strict=True):
        part, _, metric = name.partition(".")
        value, bounds = metrics[part][metric], metrics[part][f"{metric}_interval"]
        interval = f"{number(bounds[0])}-{number(bounds[1])}" if bounds else ""
        reference = number(known[part][metric]) if metric in known.get(part, {}) else ""
        last = part != after.partition(".")[0]
        result.add_row(name, number(value), interval, reference, f"{metrics['numbers'][name]:,}", end_section=last)
    return result


def chat_summary(metrics: Mapping[str, Any]) -> str:
    """Say in one line how good the replies of a chat are."""
    persona, near = metrics["persona"], metrics["relevance"]
    parts = [f"in character {percent(persona['consistent'])}", f"fluent {percent(metrics['fluency']['fluent'])}"]
    if persona["provoked"] is not None:
        parts.append(f"drops its role when provoked {percent(persona['provoked'])}")
    if near["mrr"] is not None:
        parts.append(f"MRR {number(near['mrr'])} (chance {number(near['chance'])})")
    if metrics["memory"]["use"] is not None:
        uses = percent(metrics["memory"]["use"]), percent(metrics["memory"]["chance"])
        parts.append(f"uses memories {uses[0]} (chance {uses[1]})")
    return f"{metrics['scenes']:,} scenes: {', '.join(parts)}"


def chat_notes(metrics: Mapping[str, Any]) -> list[str]:
    """Say of each field that scenes vary whether the replies follow it."""
    found = metrics["attributes"] or {"fields": {}}
    named = list(found["fields"].items())
    named += [("all fields together", found["corners"])] if "corners" in found else []
    return [f"{name}: {'the replies follow it' if one['obeyed'] else 'no effect shown'}" for name, one in named]


OF_KIND: dict[str, Callable[[Mapping[str, Any], str], Table]] = {
    "extraction": scores,
    "regression": estimates,
    "ranking": rankings,
    "chat": chat,
}


def _verdict(found: Mapping[str, Difference]) -> str:
    one = found.get("micro.f1")
    if one is None:
        return "micro F1: nothing to compare"
    if not one.is_real:
        return "micro F1: no difference shown; the interval of B - A holds 0"
    better = "B is better" if one.difference > 0 else "A is better"
    return f"micro F1: {better}, by {100 * abs(one.difference):.1f} points (p = {one.p:.3f})"


def _lower(one: Mapping[str, Any] | None) -> str:
    if one is None or not one["real"]:
        return "MAE: no difference shown; the interval of B - A holds 0" if one else "MAE: nothing to compare"
    better = "B is better" if one["difference"] < 0 else "A is better"
    return f"MAE: {better}, by {abs(one['difference']):.3f} (p = {one['p']:.3f})"


def new_table(title: str, caption: str) -> Table:
    """Make a table without columns, with a line or more below it."""
    found = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    found.title_justify = found.caption_justify = "left"
    return found

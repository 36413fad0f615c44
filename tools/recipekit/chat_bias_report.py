"""The report of how evenly a chat task's data are spread: report.html, report.json and a table on the screen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich import box
from rich.table import Table

from recipekit import chat_bias, chat_bias_map, chat_bias_plots, chat_bias_warnings, page
from recipekit.chat_said import Said, raw_files, raw_names, read_data, read_sets
from recipekit.console import progress
from recipekit.conversations import Conversations
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.tables import percent
from recipekit.task import Task


def read(
    task: Task, files: Sequence[Path], pair: str | None, way: chat_bias_map.Way, embedder: Path | None, seed: int,
    names: bool,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Count all conversations of a task, and write the page about them.

    Args:
        task: Of kind chat.
        files: Files of raw or regenerated conversations; none: the raw files that task.yml names.
        pair: Two fields whose combinations are counted, "A,B"; None: the attribute's.
        way: How the map of meaning is made.
        embedder: Folder of the model that the map is made with.
        seed: Of every draw.
        names: Whether values of free text are quoted.

    Returns:
        The content of report.json, and of report.html.

    Raises:
        UserError: There are no conversations, or rows are wrong.
    """
    chat_bias_map.check(way, embedder)
    conversations = Conversations(task)
    chosen = chat_bias.choose_pair(conversations, pair)
    if not files and not raw_files(task):
        raise UserError(f"{relative(task.raw_dir)}: none of the files that task.yml names; name some with --data FILE")
    sets = {file: name for name, file in raw_names(task).items()}
    named = [(sets.get(path.name, path.stem), path) for path in files]
    rows = read_sets(conversations, named) if files else read_data(conversations)
    if not rows:
        raise UserError(f"{', '.join(map(relative, files or raw_files(task).values()))}: no conversations; write some")
    report = chat_bias.summary(conversations, rows, chosen, names)
    shown = len(chat_bias_map.draw(rows, seed))
    with progress("map of meaning", shown) as advance:
        map_ = chat_bias_map.plane(rows, way, embedder, seed, advance)
    report |= {"map": map_, "seed": seed}
    report = {"warnings": chat_bias_warnings.warnings(report), **report}
    return report, render(conversations, rows, report)


def render(conversations: Conversations, rows: Sequence[Said], report: dict[str, Any]) -> str:
    """Write the page; equal input gives equal text."""
    environment = page.environment()
    environment.filters |= {"percent": percent, "count": "{:,}".format}
    plots = {
        "fields": {
            name: Markup(chat_bias_plots.field(name, found, name != chat_bias.SOURCE))
            for name, found in report["fields"].items()
        },
        "pair": Markup(chat_bias_plots.pair(report["pair"])) if report["pair"] else None,
        "turns": Markup(chat_bias_plots.turns(report["turns"]["counts"])),
        "lengths": Markup(chat_bias_plots.lengths(report["lengths"])),
        "maps": _maps(conversations, rows, report) if report["map"] else [],
    }
    html = environment.get_template("chat_bias.html.j2").render(
        task=conversations.task, report=report, plots=plots, colours=chat_bias_plots.UNEVEN, few=chat_bias_warnings.FEW
    )
    return page.writable(html)


def _maps(conversations: Conversations, rows: Sequence[Said], report: dict[str, Any]) -> list[tuple[str, Markup]]:
    """Plot the map, coloured by the curriculum's field or the first one, and by source and data set."""
    points, chosen = report["map"]["points"], [rows[i] for i in report["map"].pop("chosen")]
    single = [name for name, found in report["fields"].items() if not found["many"]]
    by = conversations.task.spec["data"].get("curriculum", {}).get("by") or (single or [None])[0]
    maps: list[tuple[str, Markup]] = []
    for name in dict.fromkeys(filter(None, [by, chat_bias.SOURCE])):
        if name not in single:
            continue
        labels = chat_bias.bins(conversations.fields[name])
        groups = [labels.get(row.conversation.fields.get(name)) for row in chosen]
        if name != by and len(set(groups)) < 2:
            continue
        title = Markup("{} <small>{}</small>").format(conversations.fields[name]["title"], name)
        order = list(labels.values()) if name == by else [label for label in labels.values() if label in groups]
        maps.append((title, Markup(chat_bias_plots.scatter(name, points, groups, order))))
    if len(report["sets"]) > 1:
        sets = [row.set for row in chosen]
        title = Markup('データ <small lang="en">data set</small>')
        maps.append((title, Markup(chat_bias_plots.scatter("set", points, sets, list(report["sets"])))))
    return maps


def table(report: Mapping[str, Any]) -> Table:
    """Lay out how many conversations each data set has, and how even each field is."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("field", "bins", "empty", "fewest", "fair", "most"):
        grid.add_column(heading, justify="left" if heading == "field" else "right")
    counted = {name: [one["count"] for one in found["bins"]] for name, found in report["fields"].items()}
    if report["pair"]:
        counted[" x ".join(report["pair"]["fields"])] = [n for row in report["pair"]["counts"] for n in row]
    for name, counts in counted.items():
        numbers = (len(counts), counts.count(0), min(counts))
        grid.add_row(name, *(f"{n:,}" for n in numbers), f"{sum(counts) / len(counts):,.1f}", f"{max(counts):,}")
    grid.caption = summary_line(report)
    grid.caption_justify = "left"
    return grid


def summary_line(report: Mapping[str, Any]) -> str:
    """Say in a line how many conversations there are, how long, and how many repeat."""
    turns, reply = report["turns"], report["lengths"]["assistant"]
    sets = ", ".join(f"{name} {found['rows']:,}" for name, found in report["sets"].items())
    return (
        f"{report['rows']:,} conversations ({sets}); turns {turns['p5']:g} to {turns['p95']:g} in nine of ten, median "
        f"{turns['p50']:g}; a reply has {reply['p50']:g} characters; {report['repeats']['near']:,} near duplicates"
    )

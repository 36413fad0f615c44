"""What people said of replies: the CSV of the questionnaire, aggregated, with how far its raters agree."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from recipekit import chat_scores, chat_tables, runs
from recipekit import gold as gold_csv
from recipekit.chat_scores import Array, Groups
from recipekit.errors import UserError
from recipekit.evaluating import Options
from recipekit.runs import first_problems, relative
from recipekit.task import Task

QUESTIONS = ("persona", "emotion", "relevance", "particles", "overall")
RATINGS, KEY = "ratings.json", "key.json"
LOWEST, HIGHEST = 1, 5

Rating = tuple[str, str, list[float]]  # rater, item, and an answer a question; nan: none


def aggregate(task: Task, path: Path, options: Options) -> Table:
    """Average the ratings of each model, write ratings.json and return what to show.

    Raises:
        UserError: The CSV or the key beside it is missing, or anything in them is wrong; all at once.
    """
    key = read_key(task, path)
    found = summary(read(path, key["items"]), key, options)
    runs.write_text(options.output / RATINGS, json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    return chat_tables.ratings(found)


def read_key(task: Task, path: Path) -> dict[str, Any]:
    """Read which item is whose reply, from key.json beside the CSV, or where questionnaire.py writes it.

    Raises:
        UserError: There is none, or it is torn.
    """
    places = [path.parent / KEY, task.outputs / "questionnaire" / KEY]
    place = next((one for one in places if one.exists()), None)
    if place is None:
        raise UserError(
            f"{relative(places[0])}: no such file; put the {KEY} that questionnaire.py wrote beside the CSV"
        )
    key = runs.read_record(place)
    if not all(isinstance(key.get(name), dict) for name in ("items", "predictions")):
        raise UserError(f"{relative(place)}: torn, or no key; take the one that questionnaire.py wrote")
    return key


def read(path: Path, items: Mapping[str, Any]) -> list[Rating]:
    """Read ratings: columns rater, item and one a question, whole numbers from 1 to 5; empty: not answered.

    Raises:
        UserError: The file is missing, lacks a column, or has rows without a rater, of no item, or with other answers.
    """
    rows = gold_csv.csv_rows(path)
    at, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    wanted = ["rater", "item", *QUESTIONS]
    if missing := [name for name in wanted if name not in header]:
        what = f"no column {', '.join(missing)}; fill in the CSV that questionnaire.py wrote"
        raise UserError(f"{relative(path)}:{at}: {what}")
    places = [header.index(name) for name in wanted]
    found, problems, seen = [], [], dict[tuple[str, str], int]()
    for line, cells in rows:
        rater, item, *answers = [cells[place].strip() if place < len(cells) else "" for place in places]
        if not any(answers):
            continue
        problems += [f"{relative(path)}:{line}: {what}" for what in _problems(rater, item, answers, items)]
        if seen.setdefault((rater, item), line) != line:
            what = f"{rater} has rated {item} on line {seen[rater, item]} already; keep one of them"
            problems.append(f"{relative(path)}:{line}: {what}")
        found.append((rater, item, [float(one) if re.fullmatch("[1-5]", one) else np.nan for one in answers]))
    if not found and not problems:
        problems = [f"{relative(path)}:2: no ratings in it; write 1 to 5 into the columns {', '.join(QUESTIONS)}"]
    if problems:
        raise UserError(first_problems(path, problems))
    return found


def _problems(rater: str, item: str, answers: list[str], items: Mapping[str, Any]) -> Iterator[str]:
    if not rater:
        yield "rater: empty; write who rated, any name or letter"
    if item not in items:
        yield f"item: found {item!r}, which the key has not; they are {', '.join(list(items)[:4])} ..."
    for question, answer in zip(QUESTIONS, answers, strict=True):
        if answer and not re.fullmatch(f"[{LOWEST}-{HIGHEST}]", answer):
            yield f"{question}: found {answer!r}, expected a whole number from {LOWEST} to {HIGHEST}, or nothing"


def summary(ratings: list[Rating], key: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Average ratings by model and question, intervals over scenes, and say how far raters agree.

    Args:
        ratings: Of any number of raters.
        key: Item -> scene and model, and the digest of each model's predictions.
        options: Resamples and seed.
    """
    items = key["items"]
    models = sorted({items[item]["model"] for _, item, _ in ratings})
    answers = np.array([answer for *_, answer in ratings])
    own = np.array([items[item]["model"] for _, item, _ in ratings])
    columns = {
        f"{model}\0{question}": np.where(own == model, answers[:, place], np.nan)
        for model in models
        for place, question in enumerate(QUESTIONS)
    }
    groups = Groups([items[item]["scene"] for _, item, _ in ratings])
    means = chat_scores.estimate(columns, groups, options.resamples, options.seed)
    return {
        "items": len({item for _, item, _ in ratings}), "raters": len({rater for rater, *_ in ratings}),
        "ratings": len(ratings), "predictions": key["predictions"],
        "models": {
            model: {question: _written(means[f"{model}\0{question}"]) for question in QUESTIONS} for model in models
        },
        "alpha": {question: alpha(ratings, answers[:, place]) for place, question in enumerate(QUESTIONS)},
    }  # fmt: skip


def _written(one: Any) -> dict[str, Any]:
    return {"mean": one.value, "interval": None if one.low is None else [one.low, one.high]}


def alpha(ratings: list[Rating], answers: Array) -> float | None:
    """Return Krippendorff's alpha of answers to one question, ordinal; None where no two raters can be compared.

    Args:
        ratings: Rater and item of each answer.
        answers: Float of shape [ratings]; nan: none.
    """
    import krippendorff

    raters, items = (sorted({one[place] for one in ratings}) for place in (0, 1))
    table = np.full((len(raters), len(items)), np.nan)
    for (rater, item, _), answer in zip(ratings, answers, strict=True):
        table[raters.index(rater), items.index(item)] = answer
    paired = (~np.isnan(table)).sum(0) > 1
    if len(np.unique(table[:, paired][~np.isnan(table[:, paired])])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))

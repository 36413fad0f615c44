"""A task's data sets as they go out: which files, under which names, and under whose licence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit import rawfiles
from recipekit.errors import UserError
from recipekit.runs import read_record, relative
from recipekit.task import Task

SOURCE = "SOURCE.json"  # beside what tools/download.py fetched
KNOWN = re.compile(  # families of licences; whatever else a source says has to be read by a person
    r"(afl|agpl|apache|artistic|bigscience|bsd|bsl|c-uda|cc|cc0|cdla|creativeml|ecl|epl|etalab|eupl|gemma|gfdl|gpl|isc|lgpl"
    r"|llama\d*|mit|mpl|ms-pl|ncsa|odbl|odc|ofl|openrail|openrail\+\+|osl|pddl|postgresql|unlicense|wtfpl|zlib"
    r"|proprietary|all-rights-reserved)(-[a-z0-9.+-]+)?"
)
FORBIDS = re.compile(r".*-nd(-.*)?|proprietary.*|all-rights-reserved.*")


@dataclass(frozen=True)
class DataFile:
    """A file and where it goes.

    Attributes:
        path: Where it lies here.
        name: Its path in the repository, where tools/download.py and regenerate_segments.py find it again.
        split: What `datasets.load_dataset` calls it; None: that reads the file apart from the others.
    """

    path: Path
    name: str
    split: str | None


def collect(task: Task, source: Path, segments: bool) -> list[DataFile]:
    """List a task's raw files below a folder, or its segments as trained, and its test set.

    Raises:
        UserError: Files are missing, or the task has no data sets.
    """
    if not task.spec.get("data", {}).get("train"):
        raise UserError(f"{relative(task.dir / 'task.yml')}: data.train: there is none, so there is nothing to publish")
    test = task.spec["data"]["test"]
    if segments:
        train = {name: task.segments_path(name) for name in task.spec["data"]["train"]}
        tests = [task.test_path("input"), task.test_path("gold")]
        redo = f"run uv run tools/regenerate_segments.py {task.name}"
        problems = [f"{relative(p)}: no such file; {redo}" for p in (*train.values(), *tests) if not p.is_file()]
    else:
        files, problems = rawfiles.files(task, source)
        train = {next(iter(f.shares)) if len(f.shares) == 1 else f.path.stem: f.path for f in files}
        tests = []
        for name in test.values() if not any(rawfiles.TEST in file.shares for file in files) else ():
            try:
                tests.append(rawfiles.find(task, source, name))
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(problems)
    found = [DataFile(path, f"train/{path.name}", _split(name, path)) for name, path in train.items()]
    found += [DataFile(p, f"test/{p.name}", _split("test", p) if p.name == test["input"] else None) for p in tests]
    return list({file.name: file for file in found}.values())


def _split(name: str, path: Path) -> str | None:
    # All files of a repository are read by one of datasets' builders: the one for JSON.
    return re.sub(r"\W", "_", name) if path.suffix != ".csv" else None


def origin_folder(task: Task, source: Path, segments: bool) -> Path:
    """Name the folder of the raw files: the given one, or the one that the segments were made from."""
    made_from = read_record(task.outputs / "state" / "regenerate.json").get("source") if segments else None
    return task.root / made_from if made_from else source


def origins(folder: Path) -> list[dict[str, Any]]:
    """Read what is known of where raw files come from: the SOURCE.json of each download."""
    return [record for path in sorted(folder.rglob(SOURCE)) if (record := read_record(path))]


def licences(known_origins: list[dict[str, Any]], declared: str | None) -> list[str]:
    """Say which licences the data carry: those of their sources; the declared one where a source names none.

    Raises:
        UserError: A source forbids it, a licence is unknown, or another one is declared than the source's.
    """
    problems: list[str] = []
    known: set[str] = set()
    for origin in known_origins or [{}]:
        place = origin.get("repo") or origin.get("origin") or "the data"
        stated = identifier(origin.get("license"))
        terms = f" (its terms: {origin['terms']})" if origin.get("terms") else ""
        if stated is None and not declared:
            said = f", its source says '{origin['license']}'" if origin.get("license") else ""
            problems.append(
                f"{place}: licence unknown{said}{terms}; where you may pass the data on, name it: --license ID"
            )
        elif stated and FORBIDS.fullmatch(stated):
            problems.append(
                f"{place}: its licence, {stated}, forbids to pass on such a copy{terms}; it cannot be published"
            )
        elif stated and declared and slug(declared) != stated:
            problems.append(f"{place}: --license {declared}, but its source says {stated}; leave --license away")
        else:
            known.add(stated or slug(str(declared)))
    if problems:
        raise UserError(problems)
    return sorted(known)


def slug(licence: str) -> str:
    """Write a licence's name as the Hub does: "CC BY-SA 4.0" is cc-by-sa-4.0."""
    return re.sub(r"[\s_]+", "-", licence.strip().lower())


def identifier(licence: str | None) -> str | None:
    """Write a source's licence as the Hub does; None where what it says, such as "see the homepage", names none."""
    return slug(licence) if licence and KNOWN.fullmatch(slug(licence)) else None

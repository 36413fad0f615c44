"""Raw articles and labels -> segments that Axolotl trains on, the phase mixes, and the test set.

    uv run tools/regenerate_segments.py hawks

Reads data/raw/<task>/ (filled by tools/download.py) or, where that is missing, data/samples/<task>/. A raw row is
{"id", "body", "label"}; a row that has "segments" already is taken apart and rebuilt with the prompt of today.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import orjson
import typer

from recipekit import ROOT, runs, segments
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.runs import Step, relative
from recipekit.task import Task, load_task

SHOWN_PROBLEMS = 20


def find_raw(task: Task, source: Path, name: str) -> Path:
    """Find a raw file by data set or file name, anywhere below the source folder."""
    wanted = [name] if Path(name).suffix else [f"{name}.jsonl", f"{name}_segments.jsonl"]
    for candidate in wanted:
        found = sorted(source.rglob(candidate))
        if found:
            return found[0]
    raise UserError(
        f"{relative(source)}: no file {' or '.join(wanted)}, which task.yml names; "
        f"run uv run tools/download.py {task.name}, or mend task.yml"
    )


def check_row(task: Task, row: dict[str, Any], seen: dict[str, int], line: int, validate: Callable) -> Iterator[str]:
    """Tell what is wrong with a raw row that has a label."""
    body, label, name = row.get("body"), row.get("label"), row.get("id")
    if not isinstance(body, str) or not task.clean(body):
        yield "key 'body': expected the article's text, found none; add it or remove the row"
    if not isinstance(label, dict):
        yield "key 'label': expected the answer as an object, found none; add it or remove the row"
    else:
        for error in validate(label):
            place = ".".join(map(str, ("label", *error.absolute_path)))
            yield f"key '{place}': {error.message}; mend the label (output_schema in task.yml says what it may be)"
    if name is not None and seen.setdefault(str(name), line) != line:
        yield f"id '{name}' stands on line {seen[str(name)]} already; ids are unique"


def read_raw(task: Task, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the valid rows of a raw file as {"id", "body", "label"}.

    Raises:
        UserError: At the end, with every bad row's file and line.
    """
    validate = jsonschema.Draft202012Validator(task.output_schema).iter_errors
    problems: list[str] = []
    seen: dict[str, int] = {}
    try:
        for line, row in segments.read_jsonl(path):
            if "segments" in row:
                row = segments.take_apart(task, row)
            wrong = [f"{relative(path)}:{line}: {what}" for what in check_row(task, row, seen, line, validate)]
            problems += wrong
            if not wrong:
                yield row
    except UserError as error:
        problems += error.problems
    if problems:
        more = (
            [f"{relative(path)}: and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        )
        raise UserError(problems[:SHOWN_PROBLEMS] + more)


def write_segments(task: Task, raw: Path, path: Path, advance: Callable[..., None]) -> int:
    """Write one data set's segments; returns the number of rows."""
    count = 0
    with path.open("wb") as stream:
        for row in read_raw(task, raw):
            stream.write(orjson.dumps(segments.build(task, row["body"], row["label"])) + b"\n")
            advance()
            count += 1
    return count


def write_mix(folder: Path, name: str, mix: dict[str, Any]) -> int:
    """Write positives with replay, shuffled, and a manifest that says what went in.

    The replay's share counts in the whole mix: with 0.2, every fifth row is a replayed one. Replay rows are drawn
    without repetition, so a short replay file lowers the share, which the manifest then shows.

    Returns:
        The number of rows.
    """
    base = (folder / f"{mix['base']}_segments.jsonl").read_bytes().splitlines()
    replay = (folder / f"{mix['replay']}_segments.jsonl").read_bytes().splitlines()
    wanted = round(len(base) * mix["replay_share"] / (1 - mix["replay_share"]))
    rng = random.Random(mix["seed"])
    drawn = rng.sample(replay, min(wanted, len(replay)))
    rows = base + drawn
    rng.shuffle(rows)
    path = folder / f"{name}_segments.jsonl"
    path.write_bytes(b"".join(row + b"\n" for row in rows))
    manifest = {
        **mix,
        "rows": {"base": len(base), "replay": len(drawn), "total": len(rows)},
        "replay_share_reached": round(len(drawn) / len(rows), 4),
        "sha256": {n: runs.digest(folder / f"{n}_segments.jsonl") for n in (mix["base"], mix["replay"], name)},
    }
    (folder / f"{name}_segments.manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return len(rows)


def check_test_set(task: Task, path: Path) -> int:
    """Check that every test row has a unique id and a body; returns the number of rows."""
    problems: list[str] = []
    seen: dict[str, int] = {}
    for line, row in segments.read_jsonl(path):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("body"), str):
            problems.append(f"{relative(path)}:{line}: expected the keys 'id' and 'body', both text; add them")
        elif seen.setdefault(row["id"], line) != line:
            problems.append(f"{relative(path)}:{line}: id '{row['id']}' stands on line {seen[row['id']]} already")
    if problems:
        raise UserError(problems)
    return len(seen)


def generate(task: Task, source: Path, folder: Path) -> dict[str, int]:
    """Write every file of the task below folder; returns the rows of each. All files' problems come at once."""
    counts: dict[str, int] = {}
    problems: list[str] = []
    sets = task.spec["data"]["train"]
    with progress("regenerate", None) as advance:
        for name in [n for n, mix in sets.items() if not mix]:
            try:
                counts[name] = write_segments(
                    task, find_raw(task, source, name), folder / f"{name}_segments.jsonl", advance
                )
            except UserError as error:
                problems += error.problems
        try:
            counts[task.spec["data"]["test"]["input"]] = check_test_set(task, test_source(task, source, "input"))
            test_source(task, source, "gold")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    for name, mix in sets.items():
        if mix:
            counts[name] = write_mix(folder, name, mix)
    return counts


def test_source(task: Task, source: Path, which: str) -> Path:
    """Find the raw test file, "input" or "gold"."""
    return find_raw(task, source, task.spec["data"]["test"][which])


def products(task: Task) -> list[Path]:
    """Every file the step makes."""
    names = task.spec["data"]["train"]
    manifests = [task.segments_path(n).with_suffix(".manifest.json") for n, mix in names.items() if mix]
    return [task.segments_path(n) for n in names] + manifests + [task.test_path("input"), task.test_path("gold")]


def regenerate(
    task: str,
    source: Annotated[
        Path | None, typer.Option(help="raw folder; default data/raw/TASK, else data/samples/TASK")
    ] = None,
) -> None:
    """Write data/train/*_segments.jsonl and data/test/* of a task from its raw data."""
    recipe = load_task(task)
    raw = source.resolve() if source else recipe.raw_dir
    log_to("regenerate")
    code = [ROOT / "tools" / "regenerate_segments.py", ROOT / "tools" / "recipekit" / "segments.py"]
    inputs = {
        "raw": raw,
        "data": recipe.spec["data"],
        "schema": recipe.output_schema,
        **recipe.prompt_sources(),
        **{path.name: path for path in code},
    }
    step = Step(recipe.outputs, "regenerate", inputs, products(recipe))
    if step.done():
        show("regenerate: up to date")
        return
    train = recipe.root / "data" / "train"
    train.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".regenerate.", dir=train) as temporary:
        counts = generate(recipe, raw, Path(temporary))
        for file in Path(temporary).iterdir():
            file.replace(train / file.name)
    for which in ("input", "gold"):
        target = recipe.test_path(which)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(test_source(recipe, raw, which), target.with_suffix(".tmp"))
        target.with_suffix(".tmp").replace(target)
    step.record(rows=counts, source=relative(raw))
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    show(f"regenerate: {relative(raw)} -> data/train, data/test; rows: {rows}")


if __name__ == "__main__":
    main(regenerate)

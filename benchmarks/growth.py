"""How time and memory of the data tools grow with the number of rows.

    uv run benchmarks/growth.py                                     # 10,000, 100,000 and 1,000,000 rows
    uv run benchmarks/growth.py --rows 1000 --rows 10000 --tool leaks
    uv run benchmarks/growth.py --model outputs/hawks/merged        # and predict.py, of 1,000 and 10,000 rows

Rows are generated as each tool's own benchmark makes them; predict.py reads the bundled test set again and again. The
tools run in a copy of the repository, one after the other. Time is wall time from start to exit; memory is the peak of
all processes, what they share counted once. A last column says by how much both grew since the row above: up to
tenfold time for tenfold rows is linear. Figures and their machine stand in docs/performance.md.
"""

import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich import box
from rich.table import Table

import evaluate_speed
import leaks_speed
import regenerate_speed
import validate_speed
from recipekit import ROOT
from recipekit.console import main, show
from recipekit.errors import UserError

COPIED = ("tools", "recipes", "data/samples/base")
SAMPLES = ROOT / "data" / "samples" / "hawks"
ROWS, PREDICTED = (10_000, 100_000, 1_000_000), (1_000, 10_000)


def regenerate(rows: int, data: Path) -> list[str]:
    """Write raw files of all sets; returns the arguments."""
    regenerate_speed.write_data(data, rows / sum(count for count, _ in regenerate_speed.SETS.values()))
    return ["regenerate_segments.py", "hawks", "--source", str(data)]


def validate(rows: int, data: Path) -> list[str]:
    """Write a raw file; returns the arguments."""
    rng = random.Random(rows)
    with (data / "raw.jsonl").open("wb") as stream:
        stream.writelines(validate_speed.row(number, rng) for number in range(rows))
    return ["validate.py", str(data / "raw.jsonl"), "--task", "hawks"]


def validate_no_tokens(rows: int, data: Path) -> list[str]:
    """As validate, without looking at tokens."""
    return [*validate(rows, data), "--no-tokens"]


def leaks(rows: int, data: Path) -> list[str]:
    """Write raw files with planted duplicates; returns the arguments."""
    leaks_speed.generate(rows, data)
    return ["leaks.py", "hawks", "--source", str(data)]


def evaluate(rows: int, data: Path) -> list[str]:
    """Write gold and predictions; returns the arguments."""
    gold, found = evaluate_speed.generate(rows, data)
    return ["evaluate.py", "hawks", "--gold", str(gold), "--predictions", str(found), "--output", str(data / "out")]


def predict(rows: int, data: Path) -> list[str]:
    """Write the test set's articles again and again under other ids; returns the arguments, without the model."""
    articles = [orjson.loads(line) for line in (SAMPLES / "hawks_eval_input.jsonl").read_bytes().splitlines()]
    with (data / "input.jsonl").open("wb") as stream:
        for number, article in enumerate(itertools.islice(itertools.cycle(articles), rows)):
            stream.write(orjson.dumps(article | {"id": f"A{number:07}"}) + b"\n")
    return ["predict.py", "hawks", "--input", str(data / "input.jsonl"), "--output", str(data / "out.jsonl")]


TOOLS: dict[str, Callable[[int, Path], list[str]]] = {
    "regenerate_segments.py": regenerate,
    "validate.py": validate,
    "validate.py --no-tokens": validate_no_tokens,
    "leaks.py": leaks,
    "evaluate.py": evaluate,
}  # predict.py comes last, where there is a model


@contextmanager
def copy() -> Iterator[Path]:
    """Yield a copy of the repository, as some tools write into the one that they stand in."""
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        for part in COPIED:
            shutil.copytree(ROOT / part, clone / part)
        yield clone


def timed(tool: str, make: Callable[[int, Path], list[str]], rows: int, more: list[str]) -> tuple[float, float]:
    """Run a tool on generated rows; returns seconds and peak memory in MB.

    Raises:
        UserError: The tool failed.
    """
    with copy() as clone:
        data = clone.parent / "raw"
        data.mkdir()
        script, *arguments = make(rows, data)
        command = [sys.executable, str(clone / "tools" / script), *arguments, *more]
        seconds, memory, code = validate_speed.measure(command)
    if code not in (0, 1):  # 1: there are findings, and some are planted
        raise UserError(f"{tool}, {rows:,} rows: exit code {code}; run it by hand: {' '.join(command)}")
    return seconds, memory


def benchmark(
    rows: Annotated[list[int] | None, typer.Option(min=1, help="may be given several times")] = None,
    tool: Annotated[list[str] | None, typer.Option(help="only these; may be given several times")] = None,
    model: Annotated[Path | None, typer.Option(help="a hawks model's folder, for predict.py")] = None,
) -> None:
    """Time each tool on growing numbers of rows."""
    if unknown := [name for name in tool or [] if name not in TOOLS]:
        raise UserError(f"--tool {unknown[0]}: not known; choose of {', '.join(TOOLS)}")
    runs = [(name, make, rows or ROWS, list[str]()) for name, make in TOOLS.items() if name in (tool or TOOLS)]
    if model:
        runs.append(("predict.py", predict, rows or PREDICTED, ["--model", str(model.resolve())]))
    table = Table("tool", "rows", "seconds", "rows/s", "peak MB", "grew", box=box.MARKDOWN)
    for name, make, counts, more in runs:
        before: tuple[float, float] | None = None
        for count in counts:
            seconds, memory = timed(name, make, count, more)
            grew = f"{seconds / before[0]:.1f}, {memory / before[1]:.2f} times" if before else ""
            table.add_row(name, f"{count:,}", f"{seconds:.1f}", f"{count / seconds:,.0f}", f"{memory:,.0f}", grew)
            show(f"{name}: {count:,} rows in {seconds:.1f} s, {memory:,.0f} MB")
            before = seconds, memory
    show(table)


if __name__ == "__main__":
    main(benchmark)

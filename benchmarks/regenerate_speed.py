"""How fast tools/regenerate_segments.py is, beside a bare loop that reads, parses and rewrites the same JSONL (orjson).

    uv run python benchmarks/regenerate_speed.py               # 26,221 + 100,000 + 4,633 articles, and a fifth of that
    uv run python benchmarks/regenerate_speed.py --scale 0.1

Articles are generated: log-normal around 500 characters. Each program runs in a process of its own, one after the
other, three times, and the fastest run counts; time is wall time from start to exit, memory the largest process's peak.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from invented import measure, write_articles
from recipekit import ROOT
from recipekit.console import main, show

SETS = {"hawks_train": (26_221, 1.0), "person_dummy": (100_000, 0.0), "hawks_val": (4_633, 0.17)}
BARE = """
import sys, orjson
for source in sys.argv[2:]:
    with open(source, "rb") as stream, open(sys.argv[1], "wb") as out:
        for line in stream:
            out.write(orjson.dumps(orjson.loads(line)) + b"\\n")
"""


def write_data(folder: Path, scale: float) -> tuple[list[Path], int]:
    """Write the raw files and a test set; returns the training files and their rows."""
    files = []
    for name, (rows, crimes) in SETS.items():
        files.append(folder / f"{name}.jsonl")
        write_articles(files[-1], round(rows * scale), crimes)
    for name in ("hawks_eval_input.jsonl", "hawks_eval_gold.csv"):
        shutil.copy(ROOT / "data" / "samples" / "hawks" / name, folder)
    return files, sum(round(rows * scale) for rows, _ in SETS.values())


def benchmark(
    scale: Annotated[list[float] | None, typer.Option(help="share of the articles; may be given several times")] = None,
) -> None:
    """Time both programs on generated files."""
    table = Table(
        "articles", "MB of JSONL", "regenerate", "rows/s", "MB", "bare loop", "rows/s", "MB", box=box.MARKDOWN
    )
    table.add_column("share of its speed")
    for share in scale or [0.2, 1.0]:
        with tempfile.TemporaryDirectory() as name:
            clone = Path(name) / "clone"  # the tool writes into the repository that it stands in
            for part in ("tools", "recipes"):
                shutil.copytree(ROOT / part, clone / part)
            files, rows = write_data(Path(name) / "raw", share)
            size = sum(path.stat().st_size for path in files) / 1e6
            command = [sys.executable, str(clone / "tools" / "regenerate_segments.py"), "hawks"]
            runs = []
            for _ in range(3):
                shutil.rmtree(clone / "outputs", ignore_errors=True)
                ours = measure([*command, "--source", str(Path(name) / "raw")])
                bare = measure([sys.executable, "-c", BARE, str(Path(name) / "bare"), *map(str, files)])
                runs.append((ours, bare))
        ours, bare = (min(pair[which] for pair in runs) for which in (0, 1))
        cells = [f"{ours[0]:.1f} s", f"{rows / ours[0]:,.0f}", f"{ours[1]:.0f}"]
        cells += [f"{bare[0]:.1f} s", f"{rows / bare[0]:,.0f}", f"{bare[1]:.0f}", f"{bare[0] / ours[0]:.2f}"]
        table.add_row(f"{rows:,}", f"{size:,.0f}", *cells)
    show(table)


if __name__ == "__main__":
    main(benchmark)

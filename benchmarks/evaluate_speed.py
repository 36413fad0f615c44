"""How fast tools/evaluate.py scores, beside a plain pandas script that counts the same values.

    uv run python benchmarks/evaluate_speed.py                  # 10,000, 100,000 and 1,000,000 articles
    uv run python benchmarks/evaluate_speed.py --rows 100000

Gold and predictions are generated: 17% crimes with one to three persons, one in ten values wrong, ids in one order.
Each program runs in a process of its own, one after the other; time is wall time from start to exit, memory its peak.
"""

import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich import box
from rich.table import Table

from invented import label_of, measure
from recipekit import ROOT
from recipekit.console import main, show
from recipekit.task import load_task


def spoil(label: dict, rng: random.Random) -> dict:
    """Change about one value in ten, as a model might: dropped, cut, written otherwise, or another person's."""
    persons = [dict(person) for person in label["persons"]]
    for person in persons:
        for key in ("name", "age", "position", "affiliation", "address", "act"):
            draw = rng.random()
            if draw < 0.03:
                person[key] = ""
            elif draw < 0.06:
                person[key] = person[key][:-1]
            elif draw < 0.08:
                person[key] = rng.choice(persons)[key]
            elif draw < 0.1:
                person[key] = person[key].translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789()"})
    return {**label, "persons": persons}


def generate(rows: int, folder: Path) -> tuple[Path, Path]:
    """Write gold.csv and predictions.jsonl."""
    rng = random.Random(rows)
    columns = load_task("hawks").gold_columns
    keys = {name: spec["path"] for name, spec in columns.items()}
    gold, predictions = folder / "gold.csv", folder / "predictions.jsonl"
    with gold.open("w", encoding="utf-8", newline="") as left, predictions.open("wb") as right:
        writer = csv.writer(left, lineterminator="\n")
        writer.writerow(["quality_test_id", *columns])
        for number in range(rows):
            label = label_of(rng, 0.17)
            cells = [
                [person[key] for person in label["persons"]] if key not in label else label[key]
                for key in keys.values()
            ]
            writer.writerow([f"A{number:07}", *("|".join(cell) for cell in cells)])
            right.write(orjson.dumps({"id": f"A{number:07}", "output": spoil(label, rng)}) + b"\n")
    return gold, predictions


PANDAS = r"""
import sys, re, unicodedata
import pandas as pd
gold = pd.read_csv(sys.argv[1], dtype=str, keep_default_na=False).set_index("quality_test_id")
found = pd.read_json(sys.argv[2], lines=True, dtype=False).set_index("id")["output"]
keys = {"person_name": "name", "person_age_at_published": "age", "person_address": "address",
        "person_belongs_company": "affiliation", "person_position_name": "position", "person_violated_law": "act"}
persons = found.map(lambda o: [p for p in o["persons"] if p["is_real"] and p["is_offender"]])
predicted = pd.DataFrame({c: persons.map(lambda ps, k=k: [p[k] for p in ps]) for c, k in keys.items()})
for c in ("occured_locations", "police_departments"):
    predicted[c] = found.map(lambda o, c=c: o[c])
norm = lambda v: re.sub(r"\s+", "", unicodedata.normalize("NFKC", v))
left = gold.map(lambda cell: {norm(v) for v in cell.split("|") if v})
right = predicted.map(lambda values: {norm(v) for v in values if v})
for c in left:
    both = pd.DataFrame({"g": left[c], "p": right[c]})
    tp = both.apply(lambda r: len(r.g & r.p), axis=1).sum()
    print(c, tp, both.p.map(len).sum() - tp, both.g.map(len).sum() - tp)
"""


def benchmark(
    rows: Annotated[list[int] | None, typer.Option(help="articles; may be given several times")] = None,
) -> None:
    """Time both programs on generated files."""
    table = Table(
        "articles", "evaluate.py", "rows/s", "MB", "pandas", "rows/s", "MB", "times as fast", box=box.MARKDOWN
    )
    for number in rows or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            gold, predictions = generate(number, folder)
            files = ["--gold", str(gold), "--predictions", str(predictions), "--output", str(folder / "out")]
            ours, memory = measure([sys.executable, str(ROOT / "tools" / "evaluate.py"), "hawks", *files])
            plain, other = measure([sys.executable, "-c", PANDAS, str(gold), str(predictions)])
            metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
            assert metrics["articles"] == number
        cells = [f"{ours:.1f} s", f"{number / ours:,.0f}", f"{memory:.0f}"]
        cells += [f"{plain:.1f} s", f"{number / plain:,.0f}", f"{other:.0f}", f"{plain / ours:.2f}"]
        table.add_row(f"{number:,}", *cells)
        show(f"{number:,} articles done")
    show(table)


if __name__ == "__main__":
    main(benchmark)

"""How fast tools/evaluate.py scores a regression, beside a plain pandas and scikit-learn script.

    uv run python benchmarks/evaluate_regression.py                  # 10,000, 100,000 and 1,000,000 rows
    uv run python benchmarks/evaluate_regression.py --rows 100000

Gold and predictions are generated: five targets, 200 speakers. The plain script works out the same metrics on rows and
speakers, without intervals (--resamples gives it some, by a loop), without a check of the input and without a report.
Each program runs in a process of its own, in turn; time is wall time from start to exit, memory its peak.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from rich import box
from rich.table import Table

from invented import measure
from recipekit import ROOT
from recipekit.console import main, show
from recipekit.task import load_task

SPEAKERS = 200
PLAIN = r"""
import sys
import numpy as np, pandas as pd
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
gold = pd.read_csv(sys.argv[1]).set_index("id")
lines = pd.read_json(sys.argv[2], lines=True).set_index("id")["output"]
found = pd.DataFrame(lines.tolist(), index=lines.index).loc[gold.index]
targets = list(found)
METRICS = (mean_squared_error, mean_absolute_error, r2_score, lambda g, p: pearsonr(g, p)[0],
           lambda g, p: spearmanr(g, p)[0], lambda g, p: (p - g).mean())
def scores(gold, found, speaker):
    levels = [(gold[targets], found)]
    levels += [tuple(frame.groupby(np.asarray(speaker)).mean() for frame in levels[0])]
    return [[[metric(g[t], p[t]) for t in targets] for metric in METRICS] for g, p in levels]
print(scores(gold, found, gold["speaker"])[0][1])
groups = {name: np.asarray(places) for name, places in gold.groupby("speaker").indices.items()}
names, random, draws = list(groups), np.random.default_rng(0), []
for _ in range(int(sys.argv[3])):
    drawn = random.integers(len(names), size=len(names))
    places = np.concatenate([groups[names[i]] for i in drawn])
    owner = np.concatenate([np.full(len(groups[names[i]]), k) for k, i in enumerate(drawn)])
    draws.append(scores(gold.iloc[places].reset_index(drop=True), found.iloc[places].reset_index(drop=True), owner))
if draws:
    print(np.quantile(np.array(draws), [0.025, 0.975], axis=0)[:, 0, 1])
"""


def generate(rows: int, folder: Path) -> tuple[Path, Path]:
    """Write gold.csv and predictions.jsonl."""
    targets = list(load_task("bigfive").targets)
    random = np.random.default_rng(rows)
    traits = random.normal(4.2, 0.9, (SPEAKERS, len(targets))).clip(1, 7).round(2)
    owner = np.arange(rows) % SPEAKERS
    estimates = (4.2 + 0.3 * (traits[owner] - 4.2) + random.normal(0, 0.3, (rows, len(targets)))).round(4)
    gold, predictions = folder / "gold.csv", folder / "predictions.jsonl"
    with gold.open("w", encoding="utf-8") as left, predictions.open("wb") as right:
        left.write(",".join(["id", "speaker", *targets]) + "\n")
        for number, (speaker, values) in enumerate(zip(owner.tolist(), estimates.tolist(), strict=True)):
            cells = ",".join(map(str, traits[speaker].tolist()))
            left.write(f"{number:07},S{speaker:03},{cells}\n")
            output = dict(zip(targets, values, strict=True))
            right.write(orjson.dumps({"id": f"{number:07}", "output": output}) + b"\n")
    return gold, predictions


def benchmark(
    rows: Annotated[list[int] | None, typer.Option(help="may be given several times")] = None,
    resamples: Annotated[int, typer.Option(help="of the plain script; ours takes 1,000")] = 0,
) -> None:
    """Time both programs on generated files."""
    heading = f"plain, {resamples} resamples" if resamples else "plain, no intervals"
    table = Table("rows", "evaluate.py", "rows/s", "MB", heading, "rows/s", "MB", "times as fast", box=box.MARKDOWN)
    for number in rows or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            gold, predictions = generate(number, folder)
            files = ["--gold", str(gold), "--predictions", str(predictions), "--output", str(folder / "out")]
            ours, memory = measure([sys.executable, str(ROOT / "tools" / "evaluate.py"), "bigfive", *files])
            plain, other = measure([sys.executable, "-c", PLAIN, str(gold), str(predictions), str(resamples)])
            metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
            assert metrics["rows"] == number
        cells = [f"{ours:.1f} s", f"{number / ours:,.0f}", f"{memory:.0f}"]
        cells += [f"{plain:.1f} s", f"{number / plain:,.0f}", f"{other:.0f}", f"{plain / ours:.2f}"]
        table.add_row(f"{number:,}", *cells)
        show(f"{number:,} rows done, Spearman resamples {metrics['bootstrap']['spearman_resamples']}")
    show(table)


if __name__ == "__main__":
    main(benchmark)

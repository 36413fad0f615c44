"""How fast tools/evaluate.py scores a ranking, beside a plain loop of pandas and scikit-learn.

    uv run python benchmarks/evaluate_ranking.py                    # 100,000 rows of 10,000 odai
    uv run python benchmarks/evaluate_ranking.py --odai 1000

Gold and predictions are generated: two types, ten responses to an odai. The plain loop works out the same metrics over
all rows and by type, without intervals, without a check of the input and without a report; ours takes 1,000 resamples.
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

RESPONSES = 10  # to an odai
PLAIN = r"""
import json, sys
import numpy as np, pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score, r2_score
gold = pd.read_csv(sys.argv[1]).set_index("id")
lines = pd.read_json(sys.argv[2], lines=True).set_index("id")["output"]
gold["predicted"] = pd.DataFrame(lines.tolist(), index=lines.index)["score"].loc[gold.index]
def scores(rows):
    y, p = rows["score"].to_numpy(), rows["predicted"].to_numpy()
    found = []
    for _, own in rows.groupby("odai_id"):
        g, e = own["score"].to_numpy(), own["predicted"].to_numpy()
        if len(g) > 1 and np.ptp(g) > 0:
            found.append((ndcg_score([g + 1], [e]), spearmanr(g, e)[0], g[e.argmax()] == g.max()))
    mse = mean_squared_error(y, p)
    return [*np.mean(found, axis=0).tolist(), ndcg_score([y + 1], [p]), mse, mse**0.5,
            mean_absolute_error(y, p), r2_score(y, p)]
found = [scores(gold), *(scores(own) for _, own in gold.groupby("type"))]
open(sys.argv[3], "w").write(json.dumps(found))
"""


def generate(odai: int, folder: Path) -> tuple[Path, Path]:
    """Write gold.csv and predictions.jsonl."""
    random = np.random.default_rng(odai)
    values = random.uniform(-1, 5, (odai, RESPONSES)).round(3)
    estimates = (2 + 0.3 * (values - 2) + random.normal(0, 0.7, values.shape)).round(4)
    gold, predictions = folder / "gold.csv", folder / "predictions.jsonl"
    with gold.open("w", encoding="utf-8") as left, predictions.open("wb") as right:
        left.write("id,odai_id,type,score\n")
        for number in range(odai * RESPONSES):
            place = divmod(number, RESPONSES)
            left.write(f"{number:07},O{place[0]:06},{'image' if place[0] % 3 == 0 else 'text'},{values[place]}\n")
            right.write(orjson.dumps({"id": f"{number:07}", "output": {"score": float(estimates[place])}}) + b"\n")
    return gold, predictions


def benchmark(odai: Annotated[list[int] | None, typer.Option(help="may be given several times")] = None) -> None:
    """Time both programs on generated files."""
    headings = ("evaluate.py", "rows/s", "MB", "plain, no intervals", "rows/s", "MB", "times as fast")
    table = Table("rows", "odai", *headings, box=box.MARKDOWN)
    for number in odai or [10_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            gold, predictions = generate(number, folder)
            files = ["--gold", str(gold), "--predictions", str(predictions), "--output", str(folder / "out")]
            ours, memory = measure([sys.executable, str(ROOT / "tools" / "evaluate.py"), "ogiri", *files])
            plain, other = measure(
                [sys.executable, "-c", PLAIN, str(gold), str(predictions), str(folder / "plain.json")]
            )
            found = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))["scores"]
            names = ("ndcg", "spearman", "top1", "ndcg_global", "mse", "rmse", "mae", "r2")
            own = [[scores[name] for name in names] for scores in found.values()]
            assert np.allclose(own, json.loads((folder / "plain.json").read_text(encoding="utf-8")))
        rows = number * RESPONSES
        cells = [f"{ours:.1f} s", f"{rows / ours:,.0f}", f"{memory:.0f}"]
        cells += [f"{plain:.1f} s", f"{rows / plain:,.0f}", f"{other:.0f}", f"{plain / ours:.2f}"]
        table.add_row(f"{rows:,}", f"{number:,}", *cells)
    show(table)


if __name__ == "__main__":
    main(benchmark)

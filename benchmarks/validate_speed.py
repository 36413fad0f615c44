"""How fast tools/validate.py checks raw rows, beside a bare loop that reads and parses the same lines with orjson.

    uv run python benchmarks/validate_speed.py                  # 100,000 and 1,000,000 rows
    uv run python benchmarks/validate_speed.py --rows 100000

Rows are generated: 17% crimes with one to three persons whose values stand in the article, about 330 characters each;
one row in a thousand has a wrong label. Time is wall time from start to exit; memory is the peak of all processes,
what they share counted once (PSS).
"""

import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich import box
from rich.table import Table

from invented import label_of
from recipekit import ROOT
from recipekit.console import main, show

SENTENCES = [
    "調べに対し容疑を認めているという。", "近くの住民が物音に気付いて通報し、駆け付けた署員が取り押さえた。",
    "現場は駅から北へ約800メートルの住宅街。", "花火大会には約3万人が訪れ、夜空を彩る4千発に歓声を上げた。",
    "会場では地元の高校生が作った菓子が配られた。", "市は来年度も同じ規模で開く方針で、準備を進めている。",
    "県警は余罪についても調べを進める。", "被害総額は約1200万円に上るとみられている。",
]  # fmt: skip
BARE = "import orjson, sys\nfor line in open(sys.argv[1], 'rb'):\n    orjson.loads(line)"


def row(number: int, rng: random.Random) -> bytes:
    """Invent a raw row."""
    label = label_of(rng, crimes=0.17)
    said = [value for person in label["persons"] for value in person.values() if isinstance(value, str) and value]
    said += label["occured_locations"] + label["police_departments"]
    body = f"{number}。" + "、".join(said) + "。" + "".join(rng.choices(SENTENCES, k=10))
    if number % 1000 == 999:
        label = {**label, "persons": [{"name": 1}]}
    return orjson.dumps({"id": f"R{number:08}", "body": body, "label": label}) + b"\n"


def tree(process: int) -> list[int]:
    """List a process and all below it."""
    try:
        tasks = Path(f"/proc/{process}/task").iterdir()
        below = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [process, *(inner for child in below for inner in tree(child))]


def pss(process: int) -> float:
    """Return the memory of a process in MB, what it shares divided among those who do."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def measure(command: list[str]) -> tuple[float, float, int]:
    """Run a command; returns seconds, the peak memory of its processes in MB, and its exit code."""
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    while not ended.wait(0.2):
        peak = max(peak, sum(map(pss, tree(process.pid))))
    return time.perf_counter() - started, peak, process.returncode


def benchmark(
    rows: Annotated[list[int] | None, typer.Option(help="rows; may be given several times")] = None,
) -> None:
    """Time both programs on generated files."""
    table = Table(
        "rows", "MB", "validate.py", "rows/s", "peak MB", "no tokens", "rows/s", "bare loop", "rows/s", box=box.MARKDOWN
    )
    for number in rows or [100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as name:
            path, said = Path(name) / "raw.jsonl", Path(name) / "out.json"
            rng = random.Random(number)
            with path.open("wb") as stream:
                stream.writelines(row(n, rng) for n in range(number))
            command = [sys.executable, str(ROOT / "tools" / "validate.py"), str(path), "--task", "hawks"]
            whole, memory, _ = measure([*command, "--json", str(said)])
            found = {f["line"] for f in orjson.loads(said.read_bytes())["findings"] if f["kind"] == "schema"}
            assert len(found) == number // 1000
            fast, *_ = measure([*command, "--no-tokens"])
            bare, *_ = measure([sys.executable, "-c", BARE, str(path)])
            cells = [f"{path.stat().st_size / 1e6:.0f}", f"{whole:.1f} s", f"{number / whole:,.0f}", f"{memory:.0f}"]
        for seconds in (fast, bare):
            cells += [f"{seconds:.1f} s", f"{number / seconds:,.0f}"]
        table.add_row(f"{number:,}", *cells)
        show(f"{number:,} rows done")
    show(table)


if __name__ == "__main__":
    main(benchmark)

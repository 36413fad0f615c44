"""How fast tools/leaks.py compares articles, and how many of the planted duplicates it finds.

    uv run python benchmarks/leaks_speed.py                     # 10,000 and 130,000 training articles
    uv run python benchmarks/leaks_speed.py --rows 130000

Articles of 700 to 1,000 characters are put together from invented words; 5% are one boilerplate with other numbers. Of
1,300 test articles, 50 stand in training as they are, 50 in other widths and spacing, and 200 with single characters
changed. The program runs in a process of its own; memory is its peak. At the end rensa and datasketch sign the same
articles, each on one core.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import datasketch
import orjson
import typer
from rich import box
from rich.table import Table

from invented import measure
from recipekit import ROOT, near
from recipekit.console import main, show

TEST = 1300  # articles
CHARACTERS = [chr(code) for code in range(0x4E00, 0x5200)]
WIDE = {code: code + 0xFEE0 for code in range(0x30, 0x3A)}
PLANTED = {"exact": 50, "normalised": 50, "near": 200}


def article(rng: random.Random, words: list[str]) -> str:
    """Invent an article."""
    text, size = "", rng.randint(700, 1000)
    while len(text) < size:
        text += rng.choice(words) + rng.choice(["は", "が", "を", "に", "、", "。", "12"])
    return text


def boilerplate(rng: random.Random, words: list[str]) -> str:
    """Invent a weather report: one text with other numbers."""
    return "".join(f"{word}の最高気温は{rng.randint(-5, 38)}度。" for word in words[:60])


def twin(rng: random.Random, text: str, kind: str) -> str:
    """Write an article again so that it is a duplicate of a kind."""
    if kind == "normalised":
        return text.translate(WIDE).replace("。", "。\n\u3000")
    letters = list(text)
    for _ in range(rng.randint(1, len(text) // 45) if kind == "near" else 0):  # five 5-grams each
        letters[rng.randrange(len(letters))] = rng.choice(CHARACTERS)
    return "".join(letters)


def generate(rows: int, folder: Path) -> dict[int, str]:
    """Write the raw files of the hawks task; returns line in training -> what was planted there."""
    rng = random.Random(rows)
    words = ["".join(rng.choices(CHARACTERS, k=rng.randint(2, 6))) for _ in range(5000)]
    kinds = [kind for kind, count in PLANTED.items() for _ in range(count)]
    test = [article(rng, words) for _ in kinds]
    places = dict(zip(rng.sample(range(1, rows + 1), len(kinds)), range(len(kinds)), strict=True))
    planted = {}
    with (folder / "hawks_train.jsonl").open("wb") as stream:
        for line in range(1, rows + 1):
            if line in places:
                kind, text = kinds[places[line]], test[places[line]]
                body = twin(rng, text, kind)
                alike = near.jaccard(*(near.grams(near.normal(one)) for one in (text, body)))
                band = "<.85" if alike < 0.85 else ">=.85"
                planted[line] = kind if kind != "near" else f"near {band}" if alike >= 0.8 else ""
            else:
                body = (boilerplate if rng.random() < 0.05 else article)(rng, words)
            stream.write(row(f"T{line}", body))
    test += [(boilerplate if rng.random() < 0.05 else article)(rng, words) for _ in range(TEST - len(test))]
    (folder / "hawks_eval_input.jsonl").write_bytes(b"".join(row(f"E{n}", text) for n, text in enumerate(test)))
    for name in ("hawks_val", "person_dummy"):
        (folder / f"{name}.jsonl").write_bytes(row(name, article(rng, words)))
    columns = "person_name,person_age_at_published,person_address,person_belongs_company,person_position_name"
    header = f"quality_test_id,{columns},person_violated_law,occured_locations,police_departments\n"
    (folder / "hawks_eval_gold.csv").write_text(
        header + "".join(f"E{n},,,,,,\n" for n in range(TEST)), encoding="utf-8"
    )
    return planted


def row(name: str, body: str) -> bytes:
    """Write a raw row."""
    label = {"persons": [], "occured_locations": [], "police_departments": []}
    return orjson.dumps({"id": name, "body": body, "label": label}) + b"\n"


EXAMINE = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from leaks import examine
from recipekit.task import load_task
folder = Path(sys.argv[2])
examine(replace(load_task("hawks"), root=folder), folder / "raw", 0.8, drop=True)
"""


def examine(folder: Path) -> tuple[float, float, dict[int, str]]:
    """Look for the leaks of the raw files; returns seconds, peak memory in MB, and line -> kind of what was dropped."""
    seconds, peak = measure([sys.executable, "-c", EXAMINE, str(ROOT / "tools"), str(folder)])
    rows = (folder / "outputs" / "hawks" / "leaks" / "dropped.jsonl").read_bytes().splitlines()
    found = {entry["line"]: entry["kind"] for entry in map(orjson.loads, rows)}
    return seconds, peak, found


def libraries(count: int = 500) -> list[str]:
    """Time the MinHash signatures of some articles by both libraries, from the text on; microseconds each."""
    rng = random.Random(1)
    words = ["".join(rng.choices(CHARACTERS, k=rng.randint(2, 6))) for _ in range(5000)]
    texts = [near.normal(article(rng, words)) for _ in range(count)]
    started = time.perf_counter()
    near.signatures(texts)
    ours = time.perf_counter() - started
    grams = [[text[i : i + near.GRAM].encode() for i in range(len(text) - near.GRAM + 1)] for text in texts]
    between = time.perf_counter()
    datasketch.MinHash.bulk(grams, num_perm=near.SLOTS)
    theirs = time.perf_counter() - between
    return [f"{1e6 * seconds / count:.0f} µs" for seconds in (ours, theirs)]


def benchmark(
    rows: Annotated[list[int] | None, typer.Option(help="training articles; may be given several times")] = None,
) -> None:
    """Time the search on generated files and count the planted articles that it finds."""
    kinds = ["exact", "normalised", "near >=.85", "near <.85"]
    table = Table("articles", "time", "rows/s", "MB", *kinds, "others", box=box.MARKDOWN)
    for number in rows or [10_000, 130_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "raw").mkdir()
            planted = generate(number, folder / "raw")
            seconds, memory, found = examine(folder)
        expected = Counter(planted.values())
        right = Counter(kind for line, kind in planted.items() if kind.partition(" ")[0] == found.get(line))
        cells = [f"{seconds:.1f} s", f"{number / seconds:,.0f}", f"{memory:.0f}"]
        cells += [f"{right[kind]}/{expected[kind]}" for kind in kinds]
        table.add_row(f"{number:,}", *cells, str(len(found.keys() - planted.keys())))
        show(f"{number:,} articles done")
    show(table)
    ours, theirs = libraries()
    show(f"signatures of an article: rensa {ours} (from its text), datasketch {theirs} (from its 5-grams)")


if __name__ == "__main__":
    main(benchmark)

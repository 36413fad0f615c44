"""The recipe ogiri with invented rows of a few words, for tests: captioned files in a root of their own."""

import csv
import random
import shutil
from pathlib import Path

from recipekit import ROOT
from recipekit.task import Task, load_task

COLUMNS = ["id", "odai_id", "type", "odai", "image", "digest", "caption", "response", "score"]
FILES = {"train": 24, "validation": 6, "test": 8}  # odai of each


def captioned_rows(first: int, odai: int, rng: random.Random) -> list[dict[str, str]]:
    """Invent odai with five responses each; the more often 花火, the better."""
    rows = []
    for number in range(first, first + odai):
        picture = number % 3 == 0
        own = {
            "odai_id": f"o{number}", "type": "image" if picture else "text",
            "odai": "" if picture and number % 2 else f"記事{number}の大会",
            "image": f"images/{number}.png" if picture else "", "digest": f"{number:032x}" if picture else "",
            "caption": f"山田、{number}番" if picture else "",
        }  # fmt: skip
        for place in range(5):
            times = rng.randrange(5)
            score = min(max(times + rng.gauss(0, 0.2) - 0.5, -1), 5)
            response = "花火" * times + "海" * rng.randrange(1, 4) + f"{place}"
            rows.append({**own, "id": f"{number}-{place}", "response": response, "score": f"{score:.3f}"})
    return rows


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write a captioned file."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_task(root: Path) -> Task:
    """Copy the recipe below root and write captioned rows for it."""
    shutil.copytree(ROOT / "recipes" / "ogiri", root / "recipes" / "ogiri")
    for name in ("task.schema.json", "cpu.yml"):
        shutil.copy(ROOT / "recipes" / name, root / "recipes")
    rng, first = random.Random(0), 0
    for name, odai in FILES.items():
        write_rows(root / "data" / "captioned" / "ogiri" / f"{name}.csv", captioned_rows(first, odai, rng))
        first += odai
    return load_task("ogiri", root)

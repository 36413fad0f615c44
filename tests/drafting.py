"""A root folder with the recipe of aku, and conversations for it whose spread is known."""

import json
import random
import shutil
from pathlib import Path

import pytest

from recipekit import ROOT
from recipekit.task import load_task

GENRES = [
    "weather",
    "greeting",
    "food",
    "hobby",
    "work",
    "outing",
    "health",
    "family",
    "memory",
    "news",
    "gadget",
    "worry",
]
WORDS = [
    "雨",
    "傘",
    "夕焼け",
    "将棋",
    "映画",
    "会議",
    "海",
    "温泉",
    "散歩",
    "姉",
    "運動会",
    "祭り",
    "時計",
    "寝坊",
    "りんご",
    "カレー",
]


def conversation(number, genre="weather", pair=(2, 2), turns=1, source="human", seed=0):
    """A raw row in aku's form; texts differ by number and seed."""
    rng = random.Random(f"{number} {seed}")
    lengths = [rng.randint(6, 12) for _ in range(2 * turns)]
    texts = ["".join(rng.choice(WORDS) + rng.choice("のがをはも") for _ in range(length)) for length in lengths]
    said = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    fields = {"genre": genre, "source": source}
    return {"id": f"c{number}", "context": "昼", "conversation": said, "attribute": [*pair], "metadata": fields}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def even(count=300):
    """Rows that are spread evenly over genres, pairs and one to four turns."""
    pairs = [(a, b) for a in range(5) for b in range(5)]
    return [conversation(i, GENRES[i % 12], pairs[i % 25], i % 4 + 1) for i in range(count)]


@pytest.fixture
def aku(tmp_path: Path):
    """The task aku in a folder of its own, without data."""
    for name in ("aku", "companion"):
        shutil.copytree(ROOT / "recipes" / name, tmp_path / "recipes" / name)
    shutil.copy(ROOT / "recipes" / "task.schema.json", tmp_path / "recipes")
    return load_task("aku", tmp_path)

"""Mixes of data sets: positives with replay."""

import json
import os
import random
from array import array
from itertools import accumulate
from pathlib import Path
from typing import Any

from recipekit import runs


class Lines:
    """The lines of a file by number, without the file in memory."""

    def __init__(self, path: Path, lengths: array) -> None:
        """Open a file of which the bytes of each line are known."""
        self.starts = array("Q", accumulate(lengths, initial=0))
        self.file = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> bytes:
        start = self.starts[number]
        return os.pread(self.file, self.starts[number + 1] - start, start)

    def __del__(self) -> None:
        os.close(self.file)


def mix(folder: Path, name: str, spec: dict[str, Any], lengths: dict[str, array], form: str = "segments") -> int:
    """Write positives with replay, shuffled, and a manifest that says what went in.

    The replay's share counts in the whole mix: with 0.2, every fifth row is a replayed one. Replay rows are drawn
    without repetition, so a short replay file lowers the share, which the manifest then shows.

    Args:
        folder: Where base and replay lie, and the mix goes.
        name: The mix's, in task.yml.
        spec: Its base, replay, replay_share and seed.
        lengths: Name of a file -> bytes of each of its lines; gets the mix's.
        form: How the names of the files end: "segments", or "chat".

    Returns:
        The number of rows.
    """
    names = [f"{spec[role]}_{form}.jsonl" for role in ("base", "replay")]
    base, replay = (Lines(folder / name, lengths[name]) for name in names)
    wanted = round(len(base) * spec["replay_share"] / (1 - spec["replay_share"]))
    rng = random.Random(spec["seed"])
    drawn = array("Q", (len(base) + n for n in rng.sample(range(len(replay)), min(wanted, len(replay)))))
    rows = array("Q", range(len(base))) + drawn
    rng.shuffle(rows)
    own = lengths[f"{name}_{form}.jsonl"] = array("L")  # a later mix may replay this one
    with (folder / f"{name}_{form}.jsonl").open("wb") as stream:
        for number in rows:
            own.append(stream.write(base[number] if number < len(base) else replay[number - len(base)]))
    parts = (spec["base"], spec["replay"], name)
    manifest = {
        **spec,
        "rows": {"base": len(base), "replay": len(drawn), "total": len(rows)},
        "replay_share_reached": round(len(drawn) / len(rows), 4),
        "sha256": dict(zip(parts, runs.digests(folder / f"{n}_{form}.jsonl" for n in parts), strict=True)),
    }
    (folder / f"{name}_{form}.manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return len(rows)

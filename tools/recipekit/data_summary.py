"""The content of report.json: all numbers of a data report, from what was counted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipekit import packing
from recipekit.data_stats import DataSet
from recipekit.errors import UserError
from recipekit.redact import name_properties
from recipekit.runs import digest, read_record, relative
from recipekit.segmentcheck import REDO
from recipekit.task import Task

BINS = 48
TOP = 8  # values of a path that are named
LONGEST = 80  # characters of a value that is named


@dataclass(frozen=True)
class Counted:
    """What was read of a task's data.

    Attributes:
        configs: Phase -> what Axolotl gets.
        sets: Data sets by name, in the order of task.yml.
        test: The test set.
        names: Whether personal names may be shown.
        limit: Rows that were read of a file at most; None for all.
        seed: Of every draw.
    """

    task: Task
    configs: Mapping[str, Mapping[str, Any]]
    sets: Mapping[str, DataSet]
    test: DataSet
    names: bool
    limit: int | None
    seed: int

    @property
    def sequence_len(self) -> int:
        """Tokens that a row of any phase may have."""
        return min(length(config) for config in self.configs.values())

    def used(self, phase: str, key: str = "datasets") -> list[str]:
        """Name the data sets of task.yml that a phase trains on, or (test_datasets) is evaluated on."""
        paths = {self.task.root / str(entry.get("path")) for entry in self.configs[phase].get(key) or []}
        return [name for name in self.sets if self.task.segments_path(name) in paths]


def length(config: Mapping[str, Any]) -> int:
    """Return the tokens that a phase's row may have; Axolotl's own default is 512."""
    return int(config.get("sequence_len") or 512)


def summary(counted: Counted, tokenizer: str, prompt_tokens: int) -> dict[str, Any]:
    """Put all numbers together.

    Args:
        counted: What was read.
        tokenizer: Its name.
        prompt_tokens: Tokens of the prompt without any article.
    """
    sets = {**counted.sets, "test": counted.test}
    last = counted.task.phases[-1]
    return {
        "task": counted.task.name,
        "tokenizer": tokenizer,
        "sequence_len": counted.sequence_len,
        "prompt_tokens": prompt_tokens,
        "limit": counted.limit if any(found.rows < found.total for found in sets.values()) else None,
        "seed": counted.seed,
        "names": counted.names,
        "datasets": {name: _dataset(counted, name) for name in counted.sets},
        "test": _common(counted.test, counted.sequence_len),
        "overlaps": overlaps(counted),
        "phases": {phase: _phase(counted, phase) for phase in counted.task.phases},
        "shift": _shift(counted, counted.used(last)),
    }


def _dataset(counted: Counted, name: str) -> dict[str, Any]:
    found = counted.sets[name]
    uses = [[p, role] for p in counted.task.phases for role, key in (("train", "datasets"), ("eval", "test_datasets"))
            if name in counted.used(p, key)]  # fmt: skip
    tokens, trained = found.column("tokens"), found.column("trained")
    phases = {phase for phase, _ in uses} or set(counted.configs)
    limit = min(length(counted.configs[phase]) for phase in phases)
    return {
        **_common(found, limit),
        "path": f"data/train/{counted.task.segments_path(name).name}",
        "uses": uses,
        "mix": _manifest(counted.task, name),
        "over": int((tokens > limit).sum()),
        "trained": {**_spread(trained), "share": _share(int(trained.sum()), int(tokens.sum()))},
        "invalid": found.invalid,
        "old_prompt": found.old_prompt,
        "duplicates": _duplicates(found) if found.rows == found.total else None,
        "lists": {path: _numbers(found.fields.lists[path]) for path in found.fields.lists},
        "fields": _fields(counted, found),
        "categories": found.fields.categories(),
    }


def _common(found: DataSet, sequence_len: int) -> dict[str, Any]:
    tokens = found.column("tokens")
    top = max(sequence_len, int(tokens.max(initial=0)))
    width = -(-top // BINS)
    positives = int(found.column("positive").sum())
    return {
        "rows": found.total,
        "read": found.rows,
        "sequence_len": sequence_len,
        "characters": _spread(found.column("characters")),
        "tokens": _spread(tokens),
        "histogram": {"width": width, "counts": np.bincount(tokens // width, minlength=BINS).tolist()},
        "positives": positives,
        "negatives": found.rows - positives,
        "gold": dict(found.gold),
        "entities": {name: _numbers(numbers) for name, numbers in found.entities.items()},
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    """Return total, mean and percentiles; the p-th is the least value that p% of the rows do not exceed."""
    if not len(values):
        return dict.fromkeys(("total", "mean", "min", "p50", "p95", "p99", "max"), 0)
    points = np.percentile(values, [0, 50, 95, 99, 100], method="inverted_cdf")
    named = dict(zip(("min", "p50", "p95", "p99", "max"), map(int, points), strict=True))
    return {"total": int(values.sum()), "mean": round(float(values.mean()), 1), **named}


def _numbers(rows: Mapping[int, int]) -> dict[str, int]:
    return {str(number): rows[number] for number in sorted(rows)}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _duplicates(found: DataSet) -> dict[str, int]:
    """Count rows whose article stood before, as it is or in any width or spacing; and articles with several answers."""
    distinct = {key: len(np.unique(found.column(key))) for key in ("body", "folded")}
    pairs = np.unique(np.stack([found.column("folded"), found.column("pair")]), axis=1)
    answers = np.unique(pairs[0], return_counts=True)[1]
    return {
        "exact": found.rows - distinct["body"],
        "normalised": found.rows - distinct["folded"],
        "conflicting": int((answers > 1).sum()),
    }


def _fields(counted: Counted, found: DataSet) -> dict[str, dict[str, Any]]:
    """Say of every path how often it is filled, and with what; names are left out unless they are asked for."""
    hidden = set() if counted.names else name_properties(counted.task)
    fields = found.fields
    described = {}
    for path in fields.paths:
        values = fields.values.get(path)
        top = values.counts.most_common(TOP) if values else []
        is_name = path.rpartition(".")[2].removesuffix("[]") in hidden
        described[path] = {
            "rows": fields.rows[path],
            "places": fields.items[path],
            "filled": fields.filled[path],
            "distinct": len(values.counts) if values and values.exact else None,
            "top_count": top[0][1] if top else 0,
            "top": None if is_name else [[value[:LONGEST], number] for value, number in top],
        }
    return described


def _manifest(task: Task, name: str) -> dict[str, Any] | None:
    """Return what a mix is made of, and whether its files are still those it was made from."""
    if name in task.raw_sets:
        return None
    path = task.segments_path(name).with_suffix(".manifest.json")
    manifest = read_record(path)
    if "sha256" not in manifest:
        raise UserError(f"{relative(path)}: not what the mix was made of; {REDO.format(task.name)}")
    stale = [each for each, sha in manifest["sha256"].items() if digest(task.segments_path(each)) != sha]
    return {key: value for key, value in manifest.items() if key != "sha256"} | {"stale": stale}


def overlaps(counted: Counted) -> dict[str, dict[str, int]]:
    """Count the rows of each data set whose article, but for width and spacing, stands in each other one.

    A mix is not compared with what it is mixed of, nor is anything where only a sample was read.
    """
    sets = {**counted.sets, "test": counted.test}
    if any(found.rows < found.total for found in sets.values()):
        return {}
    train = counted.task.spec["data"]["train"]
    folded = {name: found.column("folded") for name, found in sets.items()}
    related = [{name, *(train[name].get(role, name) for role in ("base", "replay"))} for name in train]
    return {
        a: {
            b: int(np.isin(folded[a], folded[b]).sum())
            for b in sets
            if b != a and not any({a, b} <= family for family in related)
        }
        for a in sets
    }


def _phase(counted: Counted, phase: str) -> dict[str, Any]:
    config = counted.configs[phase]
    sequence_len, batch = length(config), int(config.get("micro_batch_size") or 1)
    names = counted.used(phase)
    lengths = _joined(counted, names, "tokens")
    lengths = lengths[lengths <= sequence_len]
    a_step = batch * int(config.get("gradient_accumulation_steps") or 1)
    sampled = _share(sum(counted.sets[name].rows for name in names), sum(counted.sets[name].total for name in names))
    found = {}
    for way, cost in packing.costs(lengths, sequence_len, batch, counted.seed).items():
        steps = math.ceil(cost.sequences / sampled / a_step) if sampled else 0
        epochs = _share(config["max_steps"], steps) if config.get("max_steps") else config.get("num_epochs", 1)
        found[way] = {**cost._asdict(), "useful": _share(int(lengths.sum()), cost.tokens)}
        found[way] |= {"steps_per_epoch": steps, "epochs": float(epochs)}
    padded = "sequence_len" if config.get("pad_to_sequence_len") else "longest"
    keys = ("max_steps", "gradient_accumulation_steps")
    return {
        "datasets": names,
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "sequence_len": sequence_len,
        "micro_batch_size": batch,
        **{key: config.get(key) for key in keys},
        "way": "packed" if config.get("sample_packing") else padded,
        "ways": found,
    }


def _joined(counted: Counted, names: Sequence[str], key: str) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.uint32), *(counted.sets[name].column(key) for name in names)])


def _shift(counted: Counted, names: Sequence[str]) -> dict[str, Any]:
    """Put the data that the last phase trains on beside the test set."""
    sets = [counted.sets[name] for name in names]
    positives = sum(int(found.column("positive").sum()) for found in sets), int(counted.test.column("positive").sum())
    rows = sum(found.rows for found in sets), counted.test.rows
    characters = [_spread(_joined(counted, names, "characters")), _spread(counted.test.column("characters"))]
    return {
        "training": list(names),
        "rows": _pair(rows),
        "characters": _pair(characters),
        "positives": _pair(_share(a, b) for a, b in zip(positives, rows, strict=True)),
        "gold": {
            column: _pair((
                _share(sum(found.gold[column] for found in sets), positives[0]),
                _share(counted.test.gold[column], positives[1]),
            ))
            for column in counted.task.gold_columns
        },
    }  # fmt: skip


def _pair(values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(("train", "test"), values, strict=True))

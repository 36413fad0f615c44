"""What the splits of a task share, as report.json, as a list to read, and as raw files without the rows that leak."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from rapidfuzz.distance import Levenshtein

from recipekit.corpus import SPLITS, TEXT, Corpus
from recipekit.dataset_files import SOURCE
from recipekit.errors import UserError
from recipekit.leaks import Found, Groups, Pair
from recipekit.normal_name import person_name
from recipekit.runs import read_record, relative, replace_folder, write_text, writing

LISTED = 1000  # pairs of a kind and two splits in leaks.txt
WORST = 3  # pairs on the screen
BEFORE, SHOWN = 10, 30  # characters of an excerpt before a difference, and of the difference
DROPPED = "rows that leak into the validation or test set dropped by tools/leaks.py"
BOM = b"\xef\xbb\xbf"


def summary(corpus: Corpus, found: Found, threshold: float, ignored: Collection[str]) -> dict[str, Any]:
    """Return what report.json says.

    Args:
        corpus: The rows.
        found: The pairs of rows.
        threshold: Jaccard from which on texts are near.
        ignored: Kinds that are told, but are no leaks.
    """
    between, within, worst = [], [], []
    leaking: set[int] = set()
    counted: dict[tuple[str, str], set[int]] = {}
    for (left, right, kind), pairs in found.items():
        if left == right:
            within.append({"split": left, "kind": kind, "repeated": len(pairs), **_groups(pairs)})
            continue
        rows, others = {pair.left for pair in pairs}, {pair.right for pair in pairs}
        if kind in TEXT:  # a row counts under the strictest
            rows -= counted.get((left, right), set())
            counted.setdefault((left, right), set()).update(() if kind in ignored else rows)
        leak = bool(rows) and right == "test" and kind not in ignored
        leaking |= rows if leak else set()
        between.append({"splits": [left, right], "kind": kind, "rows": len(rows), "of": len(others), "leak": leak})
        if leak:
            worst.append(_example(corpus, pairs[0], kind, (left, right)))
    splits = [(part.split, len(rows)) for part, rows in corpus.rows_of_parts()]
    return {
        "task": corpus.task.name,
        "source": relative(corpus.source),
        "threshold": threshold,
        "group": corpus.group,
        "ignored": sorted(ignored),
        "rows": {name: sum(count for split, count in splits if split == name) for name in SPLITS},
        "files": [{"file": relative(part.path), "set": part.name, "split": part.split} for part in corpus.parts],
        "leaks": len(leaking),
        "between": between,
        "within": within,
        "worst": worst[:WORST],
    }


def _groups(pairs: list[Pair]) -> dict[str, int]:
    groups = Groups()
    for pair in pairs:
        groups.join(pair.left, pair.right)
    sizes = Counter(groups.of(row) for row in {row for pair in pairs for row in pair[:2]})
    return {"groups": len(sizes), "largest": max(sizes.values(), default=0)}


def _example(corpus: Corpus, pair: Pair, kind: str, splits: tuple[str, str]) -> dict[str, Any]:
    places = [corpus.place(pair.left), corpus.place(pair.right)]
    return {"kind": kind, "splits": splits, "rows": places, "alike": pair.alike, "text": excerpt(corpus, pair, kind)}


def excerpt(corpus: Corpus, pair: Pair, kind: str) -> list[str]:
    """Show what two rows share, or, of texts that are not equal, where they first differ: a line for each."""
    if kind in ("person", "group", "id"):
        values = [corpus.values(row, kind) for row in pair[:2]]
        forms = {person_name(value).key if kind == "person" else value for value in values[1]}
        return ["、".join(v for v in values[0] if (person_name(v).key if kind == "person" else v) in forms)]
    texts = [corpus.text(row) for row in pair[:2]]
    changes = [change for change in Levenshtein.opcodes(*texts) if change.tag != "equal"]
    if not changes:
        return [_line(texts[0][: BEFORE + SHOWN])]
    first = changes[0]
    more = f"  (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    spans = ((first.src_start, first.src_end), (first.dest_start, first.dest_end))
    return [
        _line(f"{text[max(0, a - BEFORE) : a]}[{text[a : min(b, a + SHOWN)]}]{text[b : b + BEFORE]}") + more
        for text, (a, b) in zip(texts, spans, strict=True)
    ]


def _line(text: str) -> str:
    return " ".join(text.split())


def write_list(corpus: Corpus, found: Found, path: Path) -> None:
    """Write the pairs for people to read, those between splits first."""
    with writing(path) as stream:
        for (left, right, kind), pairs in found.items():
            if pairs:
                splits = f"within {left}" if left == right else f"{left} -> {right}"
                more = f", of which the first {LISTED:,}" if len(pairs) > LISTED else ""
                stream.write(f"{splits}, {kind}: {len(pairs):,} pairs{more}\n\n".encode())
            for pair in pairs[:LISTED]:
                alike = "" if pair.alike is None else f"{pair.alike:.2f}  "
                lines = [f"{alike}{corpus.place(pair.left)}  {corpus.place(pair.right)}", *excerpt(corpus, pair, kind)]
                stream.write(("\n    ".join(lines) + "\n\n").encode())


def write_copies(corpus: Corpus, found: Found, ignored: Collection[str], folder: Path) -> dict[str, int]:
    """Write the raw files without rows of train that are in validation or test, nor rows of validation in test.

    They take the place of folder/clean, with the test files as they are, so that it can be a source of its own;
    folder/dropped.jsonl says what is not in the copies, and why.

    Returns:
        File -> rows dropped.

    Raises:
        UserError: A data set would be left without rows, or something cannot be written.
    """
    dropped: dict[int, tuple[str, int]] = {}
    for (left, right, kind), pairs in found.items():
        if left != right and kind not in ignored:
            for pair in pairs:
                dropped.setdefault(pair.left, (kind, pair.right))
    if emptied := [part.name for part, rows in corpus.rows_of_parts() if rows and dropped.keys() >= set(rows)]:
        remedy = (
            "split the data so that they share less (data.split.by in task.yml), or name kinds in data.leaks.ignore"
        )
        raise UserError(
            [f"--drop: every row of {name} shares something, none would be left; {remedy}" for name in emptied]
        )
    with writing(folder / "dropped.jsonl") as stream:
        for row, (kind, other) in sorted(dropped.items()):
            part, names = corpus.part(row), corpus.values(row, "id")
            entry = {"file": relative(part.path), "line": corpus.line(row), "id": names[0] if names else None}
            reason = {"set": part.name, "kind": kind, "of": corpus.place(other)}
            stream.write(orjson.dumps(entry | reason) + b"\n")
    lines: dict[Path, set[int]] = {part.path: set() for part in corpus.parts}
    for row in dropped:
        lines[corpus.part(row).path].add(corpus.line(row))
    new = folder / ".clean"
    shutil.rmtree(new, ignore_errors=True)
    try:
        for path in [*lines, *filter(None, [corpus.gold_path])]:
            with writing(new / path.relative_to(corpus.source)) as stream:
                _copy(path, lines.get(path, set()), stream)
        _copy_origins(corpus.source, new, [DROPPED] if dropped else [])
        replace_folder(new, folder / "clean")
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return {relative(path): len(numbers) for path, numbers in lines.items() if numbers}


def _copy_origins(source: Path, folder: Path, changed: list[str]) -> None:
    """Carry along what is known of where the files come from, and what was changed; digests of the files no more."""
    for path in source.rglob(SOURCE):
        record = read_record(path)
        record["changed"] = [*record.get("changed", []), *changed]
        record.pop("files", None)
        write_text(folder / path.relative_to(source), json.dumps(record, ensure_ascii=False, indent=2) + "\n")


def _copy(path: Path, dropped: set[int], stream: BinaryIO) -> None:
    """Copy a raw file without the rows that begin on some lines; what stays keeps its bytes."""
    if not dropped:
        with path.open("rb") as source:
            shutil.copyfileobj(source, stream)
    elif path.suffix.lower() == ".json":
        rows = orjson.loads(path.read_bytes())
        stream.write(orjson.dumps([row for number, row in enumerate(rows, 1) if number not in dropped]))
    elif path.suffix.lower() == ".csv":
        for line, text in _csv_rows(path):
            if line not in dropped:
                stream.write(text)
    else:
        with path.open("rb") as source:
            stream.writelines(text for line, text in enumerate(source, 1) if line not in dropped)


def _csv_rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that each row of a CSV file spans, with the number of the first, as raw.py counts them."""
    taken: list[str] = []

    def lines(source: Iterator[str]) -> Iterator[str]:
        for text in source:
            taken.append(text)
            yield text

    with path.open("rb") as head:
        before = BOM if head.read(len(BOM)) == BOM else b""
    with path.open(encoding="utf-8-sig", newline="") as source:
        reader = csv.reader(lines(source), strict=True)
        line = 1
        for cells in reader:
            if cells:
                yield line, before + "".join(taken).encode()
                before = b""
                taken.clear()
                line = reader.line_num + 1

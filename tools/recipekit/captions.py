"""Rows with images, the captions that are known, and the CSV files with both."""

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from recipekit import images, raw, rawfiles, runs
from recipekit.errors import UserError
from recipekit.gold_rows import written
from recipekit.runs import relative
from recipekit.task import Task

NEEDED = ("id", "type", "odai", "image", "response", "score")
COLUMNS = ("id", "odai_id", "type", "odai", "image", "digest", "caption", "response", "score")
KEPT = ("digest", "caption", "model")  # columns of captions.csv
FILE = "captions.csv"
BY_HAND = "written by hand"
LONGEST = 200  # characters of a model's caption: with odai and response it has to fit into 256 tokens
MEND = "mend it or remove the row"


class Caption(NamedTuple):
    """A caption, and the model that wrote it, or BY_HAND."""

    text: str
    model: str


class Row(NamedTuple):
    """A row of a raw file, and its image, links followed; None where its type is text."""

    cells: dict[str, str]
    image: Path | None


@dataclass
class Rows:
    """The rows of all raw files.

    Attributes:
        files: Name of a file -> its rows, in order.
        places: Image -> where it is named first.
        digests: Image -> MD5 of its bytes.
    """

    files: dict[str, list[Row]] = field(default_factory=dict)
    places: dict[Path, str] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each file."""
        return {name: len(rows) for name, rows in self.files.items()}

    @property
    def distinct(self) -> dict[str, Path]:
        """Digest -> the first image that has it, in order."""
        found: dict[str, Path] = {}
        for path, digest in self.digests.items():
            found.setdefault(digest, path)
        return found


def read_rows(task: Task, source: Path) -> Rows:
    """Read the CSV files that task.yml names, and digest their images.

    Raises:
        UserError: All that is wrong with files, rows and paths of images; or an image that cannot be read.
    """
    found, problems = rawfiles.files(task, source)
    rows = Rows()
    located: dict[tuple[Path, str], Path | str] = {}
    unusable: dict[tuple[Path, str], list[str]] = {}
    for path in dict.fromkeys(file.path for file in found):
        try:
            if path.name in rows.files:
                raise UserError(f"{relative(path)}: another file has this name; call one of them otherwise")
            rows.files[path.name] = own = []
            for place, cells in _cells(path, problems):
                key = (path.parent, cells["image"].strip())
                image = None
                if key[1]:
                    if key not in located:
                        located[key] = _locate(*key, source)
                    if isinstance(answer := located[key], str):
                        unusable.setdefault(key, []).append(place)
                        continue
                    image = answer
                    rows.places.setdefault(image, f"{place}: image '{key[1]}'")
                own.append(Row(cells, image))
        except UserError as error:
            problems += error.problems
    for key, places in unusable.items():
        more = f" ({len(places):,} rows name it)" if len(places) > 1 else ""
        problems.append(f"{places[0]}: image '{key[1]}': {located[key]}{more}")
    if problems:
        raise UserError(problems)
    with ThreadPoolExecutor() as pool:
        rows.digests = dict(zip(rows.places, pool.map(_md5, rows.places), strict=True))
    return rows


def _cells(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place and cells of the sound rows of a CSV file; what is wrong with the others goes to problems."""
    if path.suffix.lower() != ".csv":
        raise UserError(f"{relative(path)}: rows with images are read from CSV files; convert it, and mend task.yml")
    empty, columns = True, None
    for chunk in raw.chunks(path):
        for line, cells in chunk.rows(1):
            empty = False
            if columns is None and isinstance(cells, dict):
                columns = list(cells)
                _check_columns(path, columns)
            wrong = [cells] if isinstance(cells, str) else list(_wrong(cells))
            problems += [f"{relative(path)}:{line}: {what}" for what in wrong]
            if not wrong and isinstance(cells, dict):
                yield f"{relative(path)}:{line}", cells
    if empty:
        raise UserError(f"{relative(path)}: no rows in it; expected some below the header")


def _check_columns(path: Path, columns: list[str]) -> None:
    problems = []
    if missing := [name for name in NEEDED if name not in columns]:
        problems.append(f"no column {', '.join(missing)}; the columns are {', '.join(columns)}; rename or add them")
    if made := [name for name in ("digest", "caption") if name in columns]:
        problems.append(
            f"has a column {' and '.join(made)}, which caption.py writes; captions of your own go into {FILE} beside "
            "it (digest,caption,model), so drop the column"
        )
    if problems:
        raise UserError([f"{relative(path)}:1: {problem}" for problem in problems])


def _wrong(cells: Mapping[str, str]) -> Iterator[str]:
    kind, image = cells["type"].strip().lower(), cells["image"].strip()
    if kind not in ("text", "image"):
        yield f"type: expected text or image, found {cells['type'][:40]!r}; {MEND}"
    elif kind == "text" and image:
        yield f"image: expected none, for the row's type is text, found {image[:40]!r}; {MEND}"
    elif kind == "image" and not image:
        yield f"image: expected a path, for the row's type is image, found none; {MEND}"
    if kind == "text" and not cells["odai"].strip():
        yield f"odai: expected a text, for the row's type is text, found none; {MEND}"


def _locate(folder: Path, name: str, source: Path) -> Path | str:
    try:
        return images.locate(name, folder, source)
    except UserError as error:
        return str(error)


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise UserError(f"{relative(path)}: cannot be read, {error.strerror}; see to its rights") from None


def read(path: Path) -> dict[str, Caption]:
    """Read a captions.csv: digest of an image -> its caption; none where there is no such file.

    Raises:
        UserError: All that is wrong with it.
    """
    captions: dict[str, Caption] = {}
    problems = []
    for chunk in raw.chunks(path) if path.exists() else ():
        for line, row in chunk.rows(1):
            if isinstance(row, str) or (wrong := _wrong_caption(row, captions)):
                problems.append(f"{relative(path)}:{line}: {row if isinstance(row, str) else wrong}")
            else:
                captions[row["digest"]] = Caption(fold(row["caption"]), row["model"])
    if problems:
        raise UserError(problems)
    return captions


def _wrong_caption(row: Mapping[str, str], before: Mapping[str, Caption]) -> str | None:
    if missing := [name for name in KEPT if name not in row]:
        return f"no column {', '.join(missing)}; expected {','.join(KEPT)}"
    if not re.fullmatch(r"[0-9a-f]{32}", row["digest"]):
        return f"digest: expected an MD5, 32 hex digits, found {row['digest'][:40]!r}; {MEND}"
    if row["digest"] in before:
        return f"digest: {row['digest']} stands in a row before; keep one of them"
    return None if fold(row["caption"]) else f"caption: expected a text, found none; {MEND}"


def take_up(path: Path, maker: str) -> dict[str, Caption]:
    """Take up the captions that a stopped run of the same model made, and leave its file ready for more.

    A torn last line goes, and so do captions of another model or prompt.

    Args:
        path: JSON lines of digest, caption and model.
        maker: As `Maker` names itself.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = [row for row in map(orjson.loads, (line for line in lines if line.endswith(b"\n"))) if row["model"] == maker]
    runs.write_bytes(path, b"".join(lines_of({row["digest"]: Caption(row["caption"], maker) for row in rows})))
    return {row["digest"]: Caption(row["caption"], maker) for row in rows}


def lines_of(captions: Mapping[str, Caption]) -> Iterator[bytes]:
    """Yield the lines of a file that `take_up` reads."""
    for digest, (text, model) in captions.items():
        yield orjson.dumps({"digest": digest, "caption": text, "model": model}) + b"\n"


def write(path: Path, captions: Mapping[str, Caption]) -> None:
    """Write a captions.csv, whole or not at all."""
    runs.write_bytes(path, written([[*KEPT], *([digest, *own] for digest, own in captions.items())]))


def fold(text: str) -> str:
    """Make one line of a caption, without control and invisible characters, nor what a tokenizer could not write."""
    spaced = re.sub(r"\s|[\x00-\x1f\x7f-\x9f\ufffd]", " ", text)
    return " ".join("".join(char for char in spaced if unicodedata.category(char)[0] != "C").split())


def shorten(text: str, finished: bool) -> str:
    """Cut a model's caption at LONGEST characters; one that does not end of its own goes back to its last full stop.

    Args:
        text: On one line.
        finished: Whether the model ended it.
    """
    cut = text[:LONGEST]
    if finished and len(text) <= LONGEST:
        return cut
    return cut[: cut.rfind("。") + 1] or cut


def tables(rows: Rows, captions: Mapping[str, str], first: Mapping[str, str]) -> dict[str, bytes]:
    """Make the CSV files with captions, and read them again.

    Args:
        rows: The rows.
        captions: Digest -> caption.
        first: Digest -> the digest of the first image that looks alike.

    Returns:
        Name -> content.

    Raises:
        UserError: A content does not read as the rows of its raw file.
    """
    contents = {}
    for name, own in rows.files.items():
        others = [column for column in own[0].cells if column not in COLUMNS]
        cells = [_captioned(row, rows, captions, first, others) for row in own]
        contents[name] = written([[*COLUMNS, *others], *cells])
        read = list(csv.reader(io.StringIO(contents[name].decode(), newline=""), strict=True))[1:]
        if read != cells:
            raise UserError(f"{name}: {len(own):,} rows would be written as {len(read):,}, or as others; nothing was")
    return contents


def _captioned(
    row: Row, rows: Rows, captions: Mapping[str, str], first: Mapping[str, str], others: Iterable[str]
) -> list[str]:
    digest = rows.digests[row.image] if row.image else ""
    odai_id = row.cells.get("odai_id", "").strip() or odai_digest(row.cells["odai"], first.get(digest, ""))
    own = {"odai_id": odai_id, "type": "image" if digest else "text", "digest": digest}
    cells = row.cells | own | {"caption": captions[digest] if digest else ""}
    return [cells[column] for column in (*COLUMNS, *others)]


def odai_digest(odai: str, image: str) -> str:
    """Name an odai that has no id by its text (NFKC) and its image's digest: 16 hex digits."""
    return f"{raw.key(unicodedata.normalize('NFKC', odai).strip() + chr(0) + image):016x}"

"""Steps that can be stopped anywhere and started again: digests, atomic writes and a record per step."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from recipekit import ROOT
from recipekit.errors import UserError

LARGE = 256 * 2**20  # bytes


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a file's or folder's content, or of a JSON-like value.

    Weights of a 7B model would take a minute to read, so a file over 256 MiB counts by its size, time of change, first
    and last MiB.
    """
    sha = hashlib.sha256()
    if not isinstance(value, Path):
        sha.update(orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str))
    elif value.is_dir():
        files = sorted(p for p in value.rglob("*") if p.is_file())
        for file, found in zip(files, digests(files), strict=True):
            sha.update(f"{file.relative_to(value)}\0{found}\n".encode())
    else:
        with value.open("rb") as stream:
            if value.stat().st_size <= LARGE:
                return hashlib.file_digest(stream, "sha256").hexdigest()
            sha.update(f"{value.stat().st_size} {value.stat().st_mtime_ns}".encode() + stream.read(2**20))
            stream.seek(-(2**20), os.SEEK_END)
            sha.update(stream.read())
    return sha.hexdigest()


def digests(values: Iterable[Any]) -> list[str]:
    """Digest several values, files on several cores."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, values))


def code_digest() -> str:
    """Digest all modules of recipekit: what a step imports, by whatever way, may change its result."""
    modules = sorted((ROOT / "tools" / "recipekit").glob("*.py"))
    return digest(dict(zip([path.name for path in modules], digests(modules), strict=True)))


def relative(path: Path) -> str:
    """Name a path from the repository's root where it lies inside it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def first_problems(path: Path, problems: list[str], most: int = 20) -> list[str]:
    """Keep the first problems of a file, and count the others."""
    more = len(problems) - most
    return problems if more <= 0 else [*problems[:most], f"{relative(path)}: {more:,} more problems; mend these first"]


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole or not at all: temporary name, fsync, rename once the block ends well.

    Raises:
        UserError: It cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        what = f"cannot be written, {error.strerror or error}"
        raise UserError(f"{relative(path)}: {what}; make room there, or name another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with writing(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    write_bytes(path, text.encode())


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in the place of another; what stood there goes away only once the new one is complete."""
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


@dataclass
class Step:
    """One step of a run, what it reads and what it makes.

    Attributes:
        output_dir: The task's folder under outputs/; the record is kept in its state/ folder.
        name: "regenerate", "phase1", ...
        inputs: What the result depends on; a Path counts by its content, anything else by its value.
        products: Files or folders the step makes.
    """

    output_dir: Path
    name: str
    inputs: Mapping[str, Any]
    products: list[Path]
    started: float = field(default_factory=time.monotonic)

    @property
    def record_path(self) -> Path:
        """Where the record of the last finished run of this step lies."""
        return self.output_dir / "state" / f"{self.name}.json"

    @cached_property
    def input_digests(self) -> dict[str, str]:
        """Every input's digest, as it was when the step was first looked at: what changes meanwhile is not recorded."""
        return dict(zip(self.inputs, digests(self.inputs.values()), strict=True))

    @property
    def parts(self) -> dict[str, dict[str, str]]:
        """Short digests of the values of inputs that have keys, such as a config: they tell which key changed."""
        keyed = {name: value for name, value in self.inputs.items() if isinstance(value, Mapping)}
        return {name: {key: digest(part)[:12] for key, part in value.items()} for name, value in keyed.items()}

    def product_digests(self) -> dict[str, str]:
        """Digest every product as it is now."""
        return dict(zip(map(relative, self.products), digests(self.products), strict=True))

    def changes(self) -> list[str]:
        """Say in words what keeps the last finished run from standing: changed inputs, lost or edited products."""
        record, found = read_record(self.record_path), self.input_digests
        if not isinstance(before := record.get("inputs"), dict):
            return ["it has not ended well here yet"]
        words = [self._change(name, record) for name in before | found if before.get(name) != found.get(name)]
        words += [f"{relative(path)} is missing" for path in self.products if not path.exists()]
        if words:
            return words
        made, products = record.get("products"), self.product_digests()
        if made == products:
            return []
        made = made if isinstance(made, dict) else {}
        return [f"{path} was changed since" for path in made | products if made.get(path) != products.get(path)]

    def _change(self, name: str, record: dict[str, Any]) -> str:
        if name not in record["inputs"] or name not in self.inputs:
            return f"{name} is {'gone' if name in record['inputs'] else 'new'}"
        before, now = record.get("parts", {}).get(name, {}), self.parts.get(name, {})
        keys = ", ".join(key for key in before | now if before.get(key) != now.get(key))
        return f"{name} changed ({keys})" if before and keys else f"{name} changed"

    def done(self) -> bool:
        """Tell whether the last finished run had the same inputs and its products still stand unchanged.

        If not, the step begins here, which is noted in the run's journal; a dry run ends here.
        """
        from recipekit import journal  # which is built on this module

        changes = self.changes()
        if not changes:
            changes = [f"{name} runs before it" for name in journal.stale()[:1]]
        if changes:
            journal.begin(self.output_dir, self.name, self.input_digests, changes)
        return not changes

    def record(self, **facts: Any) -> None:
        """Write the completion marker: input and product digests, seconds taken and the given facts."""
        entry = {
            "step": self.name,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(time.monotonic() - self.started, 1),
            "inputs": self.input_digests,
            "parts": self.parts,
            "products": self.product_digests(),
            **facts,
        }
        write_text(self.record_path, json.dumps(entry, ensure_ascii=False, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read a step's record; a missing or torn one counts as none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}

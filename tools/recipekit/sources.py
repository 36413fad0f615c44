"""The data sets that a task is made of: what task.yml says of each, and its folder below data/raw."""

import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from recipekit import hub, shards
from recipekit.console import progress, show
from recipekit.errors import UserError
from recipekit.runs import digest, read_record, relative, replace_folder, write_text, writing
from recipekit.task import Task

RECORD = "SOURCE.json"
VERSION = ("origin", "commit", "sha256")  # keys of the record that tell one version of the data from another
MB = 10**6
PIECE = 2**18  # bytes of a JSONL file that are read at a time


class Files(Protocol):
    """A data set's files, on the Hub or on this machine."""

    sizes: dict[str, int]

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading from anywhere in it."""

    def fetch(self, names: Iterable[str], folder: Path, advance: Callable[..., Any]) -> None:
        """Put whole files below a folder; `advance` is told how many bytes are there."""


@dataclass(frozen=True)
class Source:
    """One data set of a task.

    Attributes:
        task: Whose it is.
        name: What task.yml calls it.
        spec: What task.yml says of it.
        target: The folder that it goes into.
    """

    task: Task
    name: str
    spec: dict[str, Any]
    target: Path

    def matches(self, path: str) -> bool:
        """Tell whether a file is asked for."""
        return any(_matches(path, glob) for glob in self.spec["files"])

    def request(self, limit: int | None, **origin: str) -> dict[str, Any]:
        """Say what is fetched and where from; the same request has the same result."""
        asked = {key: self.spec[key] for key in ("files", "columns", "stream") if key in self.spec}
        return {**origin, "limit": limit, "asked": asked}

    def part(self, request: dict[str, Any]) -> Path:
        """Where a request's files are gathered until all are there."""
        return self.task.root / "data" / "raw" / f"{self._part_prefix}{digest(request)[:12]}.part"

    @property
    def _part_prefix(self) -> str:
        return f".{self.task.slug}-{self.name}-"

    def is_current(self, request: dict[str, Any]) -> bool:
        """Tell whether the folder holds what is asked for already.

        Raises:
            UserError: It holds files of a person's own, which a download would replace.
        """
        record = read_record(self.target / RECORD)
        if self.target.exists() and record.get("files", {}) != digests(self.target):
            raise UserError(
                f"{relative(self.target)}: holds files that are not as a download left them ({RECORD}); "
                "move or delete the folder, then run the same command again"
            )
        return bool(record) and request.items() <= record.items()

    def show_terms(self, request: dict[str, Any]) -> None:
        """Show licence and terms, unless this version of the data was fetched before."""
        before = read_record(self.target / RECORD)
        if self.part(request).exists() or all(before.get(key) == request.get(key) for key in VERSION):
            return
        homepage = f", {self.spec['homepage']}" if "homepage" in self.spec else ""
        show(f"  licence of {self.name}: {self.spec['license']}{homepage}")
        if "terms" in self.spec:
            show(f"  terms: {self.spec['terms']}")

    def place(self, request: dict[str, Any], **facts: Any) -> int:
        """Put the gathered files with their record, and further facts in it, where they belong.

        Returns:
            The number of files.

        Raises:
            UserError: A person put files there meanwhile, or the disk is full.
        """
        part = self.part(request)
        found = digests(part)
        about: dict[str, Any] = {
            key: self.spec[key] for key in ("repo", "license", "terms", "homepage") if key in self.spec
        }
        stamp = {"downloaded": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        record = {"source": self.name, **about, **facts, **request, **stamp, "files": found}
        write_text(part / RECORD, json.dumps(record, ensure_ascii=False, indent=2) + "\n")
        self.is_current(request)  # refuses to replace what a person put there
        self.target.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(part, self.target)
        for old in part.parent.glob(f"{self._part_prefix}*.part"):
            shutil.rmtree(old, ignore_errors=True)
        return len(found)


def select(task: Task, names: list[str]) -> list[Source]:
    """Return a task's sources, or those of some names.

    Raises:
        UserError: The task has no sources, or none of a name.
    """
    specs = task.spec["data"]["sources"]
    if unknown := [name for name in names if name not in specs]:
        raise UserError(f"--source {', '.join(unknown)}: {task.name} has no such source; it has {', '.join(specs)}")
    raw = task.root / "data" / "raw" / task.spec["name"]
    several = len(specs) > 1
    wanted = names or list(specs)
    return [Source(task, name, specs[name], raw / name if several else raw) for name in specs if name in wanted]


def digests(folder: Path) -> dict[str, str]:
    """Digest every file of a folder but its record."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)
    return {path.relative_to(folder).as_posix(): hub.sha256(path) for path in paths}


def gather(source: Source, files: Files, request: dict[str, Any], place: str) -> None:
    """Gather the files that a request asks for; what an earlier run gathered stays.

    Args:
        source: Whose files they are.
        files: Where they come from.
        request: What is asked for.
        place: What to call that place in messages.

    Raises:
        UserError: The place lacks files or columns that task.yml asks for.
    """
    names = sorted(name for name in files.sizes if source.matches(name))
    missing = [glob for glob in source.spec["files"] if not any(_matches(name, glob) for name in names)]
    if missing:
        found = ", ".join(islice(files.sizes, 12)) + (", ..." if len(files.sizes) > 12 else "")
        advice = f"which data.sources.{source.name}.files in task.yml names; it holds {found or 'no files'}"
        raise UserError([f"{place}: holds no {glob}, {advice}; mend task.yml, or the data set" for glob in missing])
    limit, columns, part = request["limit"], source.spec.get("columns"), source.part(request)
    picked = _pick(source, names, limit)
    groups = shards.plan(files.open, picked.parquet, columns, limit)
    total = sum(files.sizes[name] for name in picked.whole) + sum(shard.size for shard in groups)
    part.mkdir(parents=True, exist_ok=True)
    with progress(f"{source.name} (MB)", ceil(total / MB)) as advance:

        def arrived(count: int) -> None:
            advance(count / MB)

        for name in picked.lines:
            _first_lines(files, name, limit, part / name)
        files.fetch(picked.whole, part, arrived)
        shards.write(files.open, groups, columns, part, arrived)
    _sweep(part, {*picked.whole, *picked.lines, *(shard.name for shard in groups)})


def _sweep(folder: Path, names: set[str]) -> None:
    """Remove what killed runs and the Hub's client left beside the files."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()


class _Picked(NamedTuple):
    whole: list[str]
    lines: list[str]
    parquet: list[str]


def _pick(source: Source, names: list[str], limit: int | None) -> _Picked:
    """Divide files by how much of them is wanted.

    With a limit: the first lines of JSONL files, rows of parquet files and JSON files of a folder. A test set stays
    whole, as half of it would be scored against answers to all of it.
    """
    tests = source.task.spec["data"].get("test", {}).values()
    picked = _Picked([], [], [])
    of_folder: Counter[PurePosixPath] = Counter()
    for name in names:
        path = PurePosixPath(name)
        cut = limit is not None and path.name not in tests
        if path.suffix == ".parquet" and (cut or source.spec.get("stream")):
            picked.parquet.append(name)
        elif path.suffix == ".jsonl" and cut:
            picked.lines.append(name)
        elif path.suffix != ".json" or not cut or of_folder[path.parent] < (limit or 0):
            picked.whole.append(name)
            of_folder[path.parent] += path.suffix == ".json"
    return picked


def _first_lines(files: Files, name: str, count: int, path: Path) -> None:
    if not path.exists():
        with files.open(name) as stream, writing(path) as out:
            out.writelines(islice(io.BufferedReader(cast(Any, stream), PIECE), count))


def _matches(path: str, glob: str) -> bool:
    return fnmatchcase(path, glob) or ("/" not in glob and fnmatchcase(path, f"*/{glob}"))

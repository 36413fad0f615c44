"""A task's data sets made ready to go out: read, scanned, and refused where a scan finds what nobody let through."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from recipekit import content_scan, dataset_files, hub, secret_scan
from recipekit.content_scan import Found
from recipekit.dataset_files import DataFile
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task

ALLOWABLE = tuple(kind for kind in content_scan.KINDS if kind != secret_scan.OWN)


@dataclass(frozen=True)
class Wish:
    """What a publisher asks for.

    Attributes:
        repo: owner/name on the Hub, where there is one already.
        private: Whether nobody else may see it.
        licence: The data's licence, where their sources name none.
        allowed: Kinds of findings that may go out.
        source: Folder of the raw files.
        segments: Whether to take segments as trained in place of raw rows.
    """

    repo: str | None
    private: bool
    licence: str | None
    allowed: frozenset[str]
    source: Path
    segments: bool


@dataclass(frozen=True)
class Release:
    """What is published.

    Attributes:
        task: Whose data they are.
        wish: What the publisher asked for.
        files: Files in order.
        found: What each file holds.
        digests: sha256 of each file, by its name in the repository.
        licences: Licences of the data.
        origins: The SOURCE.json of each download.
        sample: Whether the articles are the bundled, invented ones.
    """

    task: Task
    wish: Wish
    files: list[DataFile]
    found: dict[Path, Found]
    digests: dict[str, str]
    licences: list[str]
    origins: list[dict[str, Any]]
    sample: bool

    @property
    def repo(self) -> str:
        """owner/name on the Hub; where none is named yet, these very words."""
        return self.wish.repo or "owner/name"

    @property
    def rows(self) -> int:
        """Rows of all splits."""
        return sum(self.found[file.path].rows for file in self.files if file.split)

    @property
    def counts(self) -> Counter[str]:
        """Findings of all files by kind."""
        return reduce(lambda sum, found: sum + found.counts, self.found.values(), Counter())

    def problems(self) -> Iterator[str]:
        """Say of each kind that is not let through where it stands first, how often it stands there and what to do."""
        for kind in content_scan.KINDS:
            held = [(file, found) for file in self.files if (found := self.found[file.path]).counts[kind]]
            if kind in self.wish.allowed or not held:
                continue
            file, found = held[0]
            (line, value), *others = found.places[kind]
            also = "".join(f", line {at}: {text}" for at, text in others)
            total = f"{self.counts[kind]:,} in {len(held)} file{'s' if len(held) > 1 else ''}"
            yield f"{relative(file.path)}:{line}: {kind} {value}{also}; {total}; {_remedy(kind, file.path)}"


def _remedy(kind: str, path: Path) -> str:
    if kind == secret_scan.OWN:
        return f"take it out, and make a new token at {hub.TOKEN_PAGE}"
    if kind == secret_scan.SECRET:
        return "take it out and revoke it; if it is none: --allow secret"
    return f"mask all files (tools/mask_pii.py --output DIR) and say --source DIR, or let it through: --allow {kind}"


def prepare(task: Task, wish: Wish, own: str | None, advance: Callable[..., None]) -> Release:
    """Find, digest and scan the files.

    Args:
        task: Whose data they are.
        wish: What the publisher asks for.
        own: The Hub's token of this machine, which must not be in the files.
        advance: Called with the number of rows as they are read.

    Raises:
        UserError: A kind of findings is unknown, files are missing or cannot be read, or the licence is unknown or
            forbids it.
    """
    files: list[DataFile] = []
    licences: list[str] = []
    kinds = ", ".join(ALLOWABLE)
    problems = [
        f"--allow {kind}: no such kind; the kinds are {kinds}" for kind in sorted(wish.allowed - set(ALLOWABLE))
    ]
    folder = dataset_files.origin_folder(task, wish.source, wish.segments)
    origins = dataset_files.origins(folder)
    try:
        files = dataset_files.collect(task, wish.source, wish.segments)
    except UserError as error:
        problems += error.problems
    try:
        licences = dataset_files.licences(origins, wish.licence)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    digests = {file.name: hub.sha256(file.path) for file in files}
    gold = [file.path for file in files if file.name == f"test/{task.spec['data']['test'].get('gold')}"]
    found = content_scan.scan([file.path for file in files], own, advance, short=gold)
    return Release(
        task, wish, files, found, digests, licences, origins, folder.is_relative_to(task.root / "data" / "samples")
    )

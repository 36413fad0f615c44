"""A data source brought into its folder: from the Hub, or from a folder or archive on this machine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipekit import hub, local_files, sources
from recipekit.console import progress, show
from recipekit.errors import UserError
from recipekit.hub_files import HubFiles
from recipekit.local_files import FolderFiles
from recipekit.runs import digest, relative
from recipekit.sources import Source


def from_hub(source: Source, limit: int | None) -> None:
    """Fetch a source from the Hub.

    Raises:
        UserError: The Hub, the disk or task.yml stands against it.
    """
    repo, revision, root = source.spec["repo"], source.spec["revision"], source.task.root
    token = hub.find_token(root)
    remedy = f"what has arrived is kept; run uv run tools/download.py {source.task.name} again"
    with hub.explained(f"download of {repo}", remedy, token):
        api = hub.connect(token)
        commit = str(hub.patiently(lambda: api.dataset_info(repo, revision=revision), connected=False).sha)
        request = source.request(limit, origin="hub", commit=commit)
        if source.is_current(request):
            show(f"download: up to date, {relative(source.target)} is {repo} at {commit[:12]}")
            return
        if revision != commit:
            show(f"  {repo}: {revision} is commit {commit} now; as revision in task.yml it pins the data")
        source.show_terms(request)
        sources.gather(source, HubFiles(repo, commit, token), request, repo)
        count = source.place(request, revision=revision)
    show(f"download: {repo} at {commit[:12]} -> {relative(source.target)}, {count} files")


def _from_folder(source: Source, files: FolderFiles, name: str, content: str, limit: int | None) -> None:
    """Fetch a source from a folder of this machine.

    Args:
        source: Which one.
        files: Its files there.
        name: What to call the folder, or the archive that it was; its path is nobody's business.
        content: Digest of the folder or archive.
        limit: The first rows alone.
    """
    request = source.request(limit, origin=name, sha256=content)
    if source.is_current(request):
        show(f"download: up to date, {relative(source.target)} is {name}")
        return
    source.show_terms(request)
    sources.gather(source, files, request, name)
    count = source.place(request)
    show(f"download: {name} -> {relative(source.target)}, {count} files")


@contextmanager
def _opened(path: Path, scratch: Path) -> Iterator[Path]:
    """Give a folder as it is, and an archive unpacked into a folder that goes away again."""
    if path.is_dir():
        yield path
        return
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with progress("unpack", None) as advance:
            local_files.unpack(path, scratch, advance)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def from_here(wanted: list[Source], path: Path, limit: int | None) -> None:
    """Fetch those sources whose files lie in a folder or an archive on this machine.

    Raises:
        UserError: It is neither, cannot be read, or holds nothing that task.yml asks for.
    """
    if not path.is_dir() and not (path.is_file() and local_files.is_archive(path)):
        raise UserError(f"--from {path}: expected a folder or an archive ({', '.join(local_files.ENDINGS)})")
    task, name = wanted[0].task, path.resolve().name
    try:
        content = digest(path) if path.is_dir() else hub.sha256(path)
        with _opened(path, task.root / "data" / "raw" / f".{task.slug}-from") as folder:
            found = {source.name: FolderFiles(folder, name, source.matches, folder != path) for source in wanted}
            filled = [source for source in wanted if found[source.name].sizes]
            if not filled:
                globs = ", ".join(glob for source in wanted for glob in source.spec["files"])
                raise UserError(f"--from {path}: holds no {globs}, which data.sources in task.yml names")
            for source in filled:
                _from_folder(source, found[source.name], name, content, limit)
    except OSError as error:
        what = f"{error.filename or path}: {error.strerror or error}"
        raise UserError(f"{what}; make room, or see to its rights, then run the same command again") from None

"""The files of a data set that lies on this machine: a folder, or an archive that is unpacked safely."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from recipekit.errors import UserError

TARS: dict[str, Callable[[Path], Any]] = {
    ".tar": lambda path: path.open("rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
    ".tar.zst": lambda path: _zstd(path),
}
ENDINGS = (".zip", *TARS)
DAMAGES = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, RuntimeError)
GROWTH = 200  # times its size that an archive may unpack to; text packs to a tenth, a bomb to a thousandth
FLOOR = 2**30  # bytes that any archive may unpack to
SHOWN = 10


class FolderFiles:
    """The files below a folder that a data set asks for, under the names that it gives them.

    Attributes:
        sizes: Bytes of each file, by name.
    """

    def __init__(self, folder: Path, name: str, matches: Callable[[str], bool], own: bool) -> None:
        """List a folder.

        Args:
            folder: Where the files lie.
            name: What the folder is called; globs may begin with it.
            matches: Tells whether a path is one that the data set asks for.
            own: Whether they may be linked to: nobody edits them there.

        Raises:
            UserError: Two files are the same file of the data set.
        """
        self.own = own
        self.paths: dict[str, Path] = {}
        for path in _visible(folder):
            wanted = _name_of(path.relative_to(folder), name, matches)
            if wanted and wanted in self.paths:
                pair = " and ".join(str(one.relative_to(folder)) for one in (self.paths[wanted], path))
                raise UserError(f"{name}: both {pair} would be {wanted}; keep one of them")
            if wanted:
                self.paths[wanted] = path
        self.sizes = {wanted: path.stat().st_size for wanted, path in sorted(self.paths.items())}

    def open(self, name: str) -> BinaryIO:
        """Open a file."""
        return self.paths[name].open("rb")

    def fetch(self, names: Iterable[str], folder: Path, advance: Callable[..., Any]) -> None:
        """Put files below a folder; `advance` is told how many bytes are there."""
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            (os.link if self.own else shutil.copyfile)(self.paths[name], target)
            advance(self.sizes[name])


def _visible(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in order, but hidden ones and what macOS adds to archives."""
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (path for name in sorted(files) if not name.startswith(".") and (path := Path(here, name)).is_file())


def _name_of(path: Path, folder: str, matches: Callable[[str], bool]) -> str | None:
    """Return what a data set calls a file: its path, that with the folder's name, or the end of it; None: nothing."""
    ends = (PurePosixPath(*path.parts[skip:]) for skip in range(1, len(path.parts)))
    names = (path.as_posix(), f"{folder}/{path.as_posix()}", *map(str, ends))
    return next((name for name in names if matches(name)), None)


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that `unpack` reads."""
    return path.name.lower().endswith(ENDINGS)


def unpack(path: Path, folder: Path, advance: Callable[..., Any] = lambda: None) -> None:
    """Unpack an archive below a folder: plain files alone, none outside it, and no more than it may grow to.

    Args:
        path: The archive.
        folder: Where to.
        advance: Called after each file.

    Raises:
        UserError: It is damaged, or holds links, devices, sparse files, paths out of the folder, or too much.
    """
    limit = max(FLOOR, GROWTH * path.stat().st_size)
    try:
        if path.name.lower().endswith(".zip"):
            _unzip(path, folder, limit, advance)
        else:
            _untar(path, folder, limit, advance)
    except FileExistsError as error:
        name = Path(error.filename).relative_to(folder)
        raise UserError(f"{path.name}: holds {name} twice; unpack it yourself and name the folder") from None
    except (*DAMAGES, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and error.errno:
            raise UserError(
                f"{path.name}: cannot be unpacked, {error.strerror}; make room, or see to its rights"
            ) from None
        what = str(error).strip() or type(error).__name__
        raise UserError(f"{path.name}: cannot be unpacked ({what}); it is damaged or cut, so get it again") from None


def _unzip(path: Path, folder: Path, limit: int, advance: Callable[..., Any]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        wrong = [f"{entry.filename}: {what}" for entry in entries if (what := _zip_problem(entry))]
        total = sum(entry.file_size for entry in entries)
        _refuse(path, wrong + [f"unpacks to {total:,} bytes, more than {limit:,}"] * (total > limit))
        for entry in entries:
            if not entry.is_dir():
                with archive.open(entry) as stream:
                    _write(stream, folder / entry.filename)
                advance()


def _zip_problem(entry: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device"
    if entry.flag_bits & 1:
        return "encrypted"
    return _path_problem(entry.filename)


def _untar(path: Path, folder: Path, limit: int, advance: Callable[..., Any]) -> None:
    opener = next(opener for ending, opener in TARS.items() if path.name.lower().endswith(ending))
    wrong = []
    with (
        opener(path) as stream,
        tarfile.open(fileobj=cast(IO[bytes], _Bounded(stream, path, limit)), mode="r|") as archive,
    ):
        for member in archive:
            problem = _path_problem(member.name)
            if not member.isfile() and not member.isdir():
                problem = "a link or device"
            if member.issparse():  # its holes are no bytes of the archive, but of the disk
                problem = "a sparse file"
            if problem:
                wrong.append(f"{member.name}: {problem}")
            elif member.isfile() and not wrong:
                _write(cast(IO[bytes], archive.extractfile(member)), folder / member.name)
                advance()
    _refuse(path, wrong)


def _path_problem(name: str) -> str | None:
    outside = name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name)
    return "a path out of the folder" if outside else None


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        more = [f"{path.name}: and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN)
        advice = "is not unpacked here; look at it, unpack it yourself and name the folder"
        raise UserError([f"{path.name}: {problem}: {advice}" for problem in problems[:SHOWN]] + more)


def _write(stream: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        shutil.copyfileobj(stream, out, 2**20)


class _Bounded:
    """What is left of an archive's content until it has grown to its limit."""

    def __init__(self, stream: IO[bytes], path: Path, limit: int) -> None:
        self.stream, self.path, self.limit, self.total = stream, path, limit, 0

    def read(self, size: int) -> bytes:
        """Read on, or refuse."""
        content = self.stream.read(size)
        self.total += len(content)
        if self.total > self.limit:
            _refuse(self.path, [f"unpacks to more than {self.limit:,} bytes"])
        return content


def _zstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")

"""Parquet files read by row groups, wherever they lie, and written as JSONL: a file a row group."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow.parquet as pq

from recipekit.errors import UserError
from recipekit.hub import in_threads
from recipekit.runs import writing

WORKERS = 4  # row groups in memory at a time
AT_ONCE = 64 * 2**20  # bytes; a larger row group is read piece by piece
PIECE = 2**20  # bytes of a column
ROWS = 1024  # turned into JSON at a time


@dataclass(frozen=True)
class Shard:
    """One row group, or its beginning.

    Attributes:
        file: The parquet file's name.
        footer: What the file's end says of its row groups.
        group: Which of them.
        rows: How many of its rows are wanted.
    """

    file: str
    footer: pq.FileMetaData
    group: int
    rows: int

    @property
    def name(self) -> str:
        """The JSONL file's name."""
        return f"{self.file.removesuffix('.parquet')}.{self.group:05d}.jsonl"

    @property
    def size(self) -> int:
        """Compressed bytes of the row group."""
        group = self.footer.row_group(self.group)
        return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def plan(
    open_file: Callable[[str], BinaryIO], names: Iterable[str], columns: list[str] | None, limit: int | None
) -> list[Shard]:
    """List the row groups that hold the first rows of some files; nothing but the files' ends is read.

    Args:
        open_file: Opens a file by name.
        names: The parquet files, in order.
        columns: Columns that must be there.
        limit: Rows in all; None: all rows.

    Raises:
        UserError: A file lacks one of the columns.
    """
    shards: list[Shard] = []
    left = limit
    for name in names:
        if left == 0:
            break
        footer = pq.ParquetFile(open_file(name)).metadata
        found = footer.schema.to_arrow_schema().names
        if missing := [column for column in columns or [] if column not in found]:
            raise UserError(
                f"{name}: no column {', '.join(missing)}; it has {', '.join(found)}; mend columns in task.yml"
            )
        for group in range(footer.num_row_groups):
            rows = footer.row_group(group).num_rows
            rows = rows if left is None else min(rows, left)
            left = None if left is None else left - rows
            if rows:
                shards.append(Shard(name, footer, group, rows))
    return shards


def write(
    open_file: Callable[[str], BinaryIO],
    shards: list[Shard],
    columns: list[str] | None,
    folder: Path,
    advance: Callable[..., Any],
) -> None:
    """Write row groups as JSONL below a folder, four at a time; one whose file is there already is done.

    Args:
        open_file: Opens a parquet file by name.
        shards: As `plan` gives them.
        columns: Columns to keep; None: all.
        folder: Where to.
        advance: Told the compressed bytes of each row group that is done.
    """

    def job(shard: Shard) -> int:
        path = folder / shard.name
        if not path.exists():
            _write_shard(open_file(shard.file), shard, columns, path)
        return shard.size

    for size in in_threads(job, shards, WORKERS):
        advance(size)


def _write_shard(stream: BinaryIO, shard: Shard, columns: list[str] | None, path: Path) -> None:
    # One request for a whole row group of moderate size; else pieces: memory stays flat, and a limit saves bytes.
    at_once = shard.size <= AT_ONCE and shard.rows == shard.footer.row_group(shard.group).num_rows
    reading: dict[str, Any] = {"pre_buffer": True} if at_once else {"pre_buffer": False, "buffer_size": PIECE}
    file = pq.ParquetFile(stream, metadata=shard.footer, **reading)
    left = shard.rows
    with writing(path) as out:
        for batch in file.iter_batches(min(ROWS, left), row_groups=[shard.group], columns=columns, use_threads=False):
            rows = batch.slice(0, left).to_pylist()
            out.write(b"".join(_line(row, shard.file) for row in rows))
            left -= len(rows)
            if left == 0:
                break


def _line(row: dict[str, Any], file: str) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        wrong = [key for key, value in row.items() if isinstance(value, bytes)] or list(row)
        what = f"column {', '.join(wrong)} has values that JSON does not ({error})"
        raise UserError(f"{file}: {what}; name the columns to keep as columns in task.yml") from None

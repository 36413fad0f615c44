"""Answers of a model that were paid for: kept as they come, and what they cost."""

import fcntl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from recipekit.errors import UserError
from recipekit.runs import relative


@dataclass
class Cost:
    """Tokens, and what they cost.

    Attributes:
        read: Tokens of prompts.
        written: Tokens of answers.
        prices: USD for a million of either; None: not known.
    """

    read: int = 0
    written: int = 0
    prices: tuple[float, float] | None = None

    @property
    def usd(self) -> float | None:
        """The cost, in USD."""
        return None if self.prices is None else (self.read * self.prices[0] + self.written * self.prices[1]) / 1e6

    def __str__(self) -> str:
        cost = "" if self.usd is None else f", ${self.usd:,.4f}" if self.usd < 1 else f", ${self.usd:,.2f}"
        return f"{self.read:,} tokens read, {self.written:,} written{cost}"


class Kept:
    """Answers that are there already, kept beside the output in OUTPUT.partial, a line each."""

    def __init__(self, output: Path) -> None:
        """Read what an earlier run left; a torn last line counts as none."""
        self.path = output.with_name(f"{output.name}.partial")
        self.known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self._size = len(whole)
        self._stream: IO[bytes] | None = None
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = orjson.loads(line)
                self.known[entry["key"]] = entry
            except (ValueError, KeyError, TypeError):
                remedy = "remove that line, or the file to begin anew"
                raise UserError(f"{relative(self.path)}:{number}: not what generate wrote; {remedy}") from None

    def add(self, entry: dict[str, Any]) -> None:
        """Keep an answer; it is in the file when this returns.

        Raises:
            UserError: The file cannot be written, or another run is writing it.
        """
        with self._lock:
            self.known[entry["key"]] = entry
            try:
                self._stream = self._stream or self._open()
                self._stream.write(orjson.dumps(entry) + b"\n")
            except BlockingIOError:
                raise UserError(f"{relative(self.path)}: another run is writing it; wait for it to end") from None
            except OSError as error:
                what = f"cannot be written, {error.strerror}; make room there"
                raise UserError(f"{relative(self.path)}: {what}") from None

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("ab", buffering=0)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stream.truncate(self._size)
        return stream

    def close(self) -> None:
        """Let other runs write the file."""
        if self._stream:
            self._size = self._stream.tell()
            self._stream.close()
            self._stream = None

    def remove(self) -> None:
        """Remove the file: its rows are in the output."""
        self.path.unlink(missing_ok=True)

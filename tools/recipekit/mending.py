"""Lines of data files: what is wrong with their bytes and characters, and what of it is put right with certainty."""

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import orjson

from recipekit.errors import UserError
from recipekit.findings import Finding
from recipekit.raw import key
from recipekit.runs import relative
from recipekit.task import Task

BOM = b"\xef\xbb\xbf"
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # before UTF-16, which begins like it
WIDE |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LEAST = 8  # bytes beyond ASCII that tell an encoding
BLOCK = 2**20  # characters of a UTF-16 file that are converted at a time
RAW = dict.fromkeys([*range(9), 11, 12, *range(14, 32)])  # no JSON has these as they are, but for white space
CONTROL = RAW | dict.fromkeys([*range(127, 160), 0xFEFF])
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
# JSON with none of these has no control characters and no CR in its texts, written out or escaped.
SUSPECT = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xef\xbb\xbf|\\[bfr]|\\u(?:00[01789]|[fF][eE][fF][fF])")
MARKS = (b"\\", b"\xc2", b"\x7f", BOM)  # what all of them begin with: found many times faster


class Mended(NamedTuple):
    """A line, mended as far as is certain.

    Attributes:
        row: Its JSON object; None where it has none.
        text: What a mended file has in its place, without a line end; empty where it is left out.
        found: What was mended, and what keeps it from being read.
    """

    row: dict[str, Any] | None
    text: bytes
    found: list[Finding]


class Mender:
    """Mends lines of a task's data files."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.eos = task.spec["prompt"]["eos"]

    def line(self, number: int, raw: bytes, first: bool = False) -> Mended:
        """Mend a line.

        Args:
            number: Its number, for the findings.
            raw: The line with its end.
            first: Whether it is the file's first, which alone may have a byte order mark.
        """
        text = raw.rstrip(b"\r\n")
        found = list(_line_end(number, raw[len(text) :]))
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError:
            row, text, more = self._open(number, text, first)
            found += more
        if row is None or not isinstance(row, dict):
            if not any(finding.kind in ("blank", "bytes", "json") for finding in found):
                message = f"expected a JSON object, found {type(row).__name__}; mend or remove the line"
                found.append(Finding(number, "json", "", message))
            return Mended(None, text, found)
        inner = list[Finding]()
        if any(mark in text for mark in MARKS) and SUSPECT.search(text):
            row = _cleaned(row, "", number, inner)
        if "segments" in row:
            inner += self._eos(number, row)
        return Mended(row, orjson.dumps(row) if inner else text, found + inner)

    def _open(self, number: int, text: bytes, first: bool) -> tuple[Any, bytes, list[Finding]]:
        """Read a line that is no JSON as it stands."""
        found = []
        bare = text
        while bare.startswith(BOM):
            bare = bare.removeprefix(BOM)
        if bare != text:
            what = "U+FEFF, a byte order mark, before the row; it is needed nowhere, remove it"
            found.append(Finding(number, "bom" if first else "control", "", what, "U+FEFF", ""))
        try:
            decoded = bare.decode()
        except UnicodeDecodeError as error:
            known = legacy(bare)
            if known is None:
                what = f"not UTF-8 at byte {error.start + 1}, and not for sure Shift_JIS or EUC-JP; save it as UTF-8"
                return None, text, [Finding(number, "bytes", "", what)]
            name, decoded = known
            found.append(Finding(number, "encoding", "", f"{name}, expected UTF-8; save it as UTF-8", name, "UTF-8"))
        if not decoded.translate(RAW).strip():
            return (
                None,
                b"",
                [Finding(number, "blank", "", "expected a JSON object; remove the line", _digest(text), "")],
            )
        try:
            row, mended = _read(decoded)
        except orjson.JSONDecodeError as error:
            what = f"not valid JSON at column {error.colno}: {error.msg}; mend or remove the line"
            return None, decoded.encode(), [*found, Finding(number, "json", "", what)]
        if mended != decoded:
            what = "control characters as they are, which JSON has escaped or not at all; remove them"
            found.append(Finding(number, "control", "", what, *_around(decoded, mended)))
        return row, mended.encode(), found

    def _eos(self, number: int, row: dict[str, Any]) -> Iterator[Finding]:
        """End a trained answer in eos, where it is whole: a JSON object or list."""
        last = row["segments"][-1] if isinstance(row["segments"], list) and row["segments"] else None
        if not isinstance(last, dict) or last.get("label") is not True or not isinstance(last.get("text"), str):
            return
        text = last["text"]
        answer = text.rstrip().removesuffix(self.eos)
        if text.endswith(self.eos) or self.task.answers_are_text:
            return
        try:
            whole = isinstance(orjson.loads(answer), dict | list)
        except orjson.JSONDecodeError:
            return
        if whole:
            last["text"] = answer + self.eos
            path = f"segments[{len(row['segments']) - 1}].text"
            what = f"does not end in {self.eos}, so a model never learns to stop; add it"
            yield Finding(number, "eos", path, what, text[-10:], last["text"][-10:])


def legacy(text: bytes) -> tuple[str, str] | None:
    """Decode a line that is Shift_JIS (cp932) or EUC-JP beyond doubt; returns the encoding's name and the text.

    A line is in an encoding where it decodes, has a JSON object in it and looks Japanese: half-width kana, which EUC-JP
    turns into where it is taken for Shift_JIS, are few, or hiragana, which chance does not make, many.
    """
    wide = sum(byte > 0x7F for byte in text)
    if wide < LEAST or sum(byte > 0x7F for byte in text.decode(errors="ignore").encode()) > wide / 2:
        return None  # UTF-8 with a few broken bytes, or too little to tell
    good = []
    for name, codec in (("Shift_JIS", "cp932"), ("EUC-JP", "euc_jp")):
        try:
            decoded = text.decode(codec)
            is_row = isinstance(_read(decoded)[0], dict)
        except ValueError:
            continue
        others = [character for character in decoded if character > "\x7f"]
        strange = sum("｡" <= c <= "ﾟ" or "\ue000" <= c <= "\uf8ff" for c in others)
        hiragana = sum("ぁ" <= c <= "ん" for c in others)
        if is_row and (strange < 0.3 * len(others) if codec == "cp932" else hiragana > 0.1 * len(others)):
            good.append((name, decoded))
    return good[0] if len(good) == 1 else None


@contextmanager
def as_utf8(path: Path) -> Iterator[tuple[Path, str]]:
    """Give a file that can be read byte by byte: itself, or a temporary UTF-8 copy of a UTF-16 or UTF-32 one.

    Yields:
        The file, and the name of the encoding that it was converted from, or "".

    Raises:
        UserError: It is not in the encoding that it begins in.
    """
    with path.open("rb") as stream:
        name = _wide_encoding(stream.read(4))
    if not name:
        yield path, ""
        return
    line = 1
    with NamedTemporaryFile("wb", suffix=".jsonl") as copy:
        try:
            with path.open(encoding=name, newline="") as stream:
                while block := stream.read(BLOCK):
                    line += block.count("\n")
                    copy.write(block.encode())
        except UnicodeDecodeError as error:
            problem = f"{name.upper()} by its first bytes, but not all of it ({error.reason}); save it as UTF-8"
            raise UserError(f"{relative(path)}:{line}: {problem}") from None
        copy.flush()
        if not copy.tell():
            raise UserError(f"{relative(path)}: the file is empty but for its byte order mark; expected rows")
        yield Path(copy.name), name.upper()


def _wide_encoding(head: bytes) -> str:
    for bom, name in WIDE.items():
        if head.startswith(bom):
            return name
    ascii_pair = {b"{\0": "utf-16-le", b"\0{": "utf-16-be"}.get(head[:2], "")  # as a row begins
    return ascii_pair if head[2:].count(0) == 1 and head[2:].find(0) == head[:2].find(0) else ""


def _line_end(number: int, end: bytes) -> Iterator[Finding]:
    if end == b"\r\n":
        yield Finding(number, "crlf", "", "the line ends in CR LF, expected LF", "CR LF", "LF")
    elif end == b"\r":
        yield Finding(number, "cr", "", "the line ends in CR alone, which is no line end to other tools", "CR", "LF")


def _read(text: str) -> tuple[Any, str]:
    """Read JSON that may have control characters in it; returns the value and the text without them.

    Raises:
        ValueError: It is not JSON without them either.
    """
    plain = STRING.sub(lambda match: match[0].replace("\t", "\\t"), text.translate(RAW))
    return orjson.loads(plain), plain


def _cleaned(value: Any, path: str, number: int, found: list[Finding]) -> Any:
    """Take control characters and CR out of every text of a row."""
    if isinstance(value, dict):
        return {k: _cleaned(inner, f"{path}.{k}" if path else k, number, found) for k, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, f"{path}[{i}]", number, found) for i, inner in enumerate(value)]
    if not isinstance(value, str):
        return value
    ends = value.replace("\r\n", "\n").replace("\r", "\n")
    if ends != value:
        found.append(Finding(number, "crlf", path, "CR in the text, expected LF alone", *_around(value, ends)))
    clean = ends.translate(CONTROL)
    if clean != ends:
        codes = ", ".join(sorted({f"U+{ord(c):04X}" for c in ends if ord(c) in CONTROL}))
        message = f"control characters in the text ({codes}); remove them"
        found.append(Finding(number, "control", path, message, *_around(ends, clean)))
    return clean


def _around(old: str, new: str) -> tuple[str, str]:
    """Cut out where two texts begin to differ."""
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return old[max(0, at - 5) : at + 10], new[max(0, at - 5) : at + 10]


def _digest(text: bytes) -> str:
    return f"{key(text.decode(errors='surrogateescape')):016x}"

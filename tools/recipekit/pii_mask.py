"""Files masked and restored: two passes, so that one person has one stand-in in all of them."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from recipekit import pii_origin, spans
from recipekit.errors import UserError
from recipekit.pii_forms import Known
from recipekit.pii_key import Key, sha
from recipekit.pii_parts import SEPARATOR
from recipekit.pii_rows import Edit, Piece, joined
from recipekit.pii_scan import DIGEST, Advance, Found, Row, read, scan
from recipekit.redact import TEXT
from recipekit.runs import writing
from recipekit.spans import fold

_VALUE = 200  # characters of a value of an answer, at most


def assign(key: Key, found: Found) -> dict[tuple[str, str], str]:
    """Give everything found a stand-in; returns kind and text -> stand-in."""
    key.seen |= {text for text in found.seen if not any(real for _, real in key.standins_in(text))}
    spaced = {
        fold(words[0]) for kind, text in found.texts if kind == "person" and len(words := SEPARATOR.split(text)) > 1
    }
    for name, split in found.splits.items():
        families = [size for size in range(1, 4) if size < len(name) and name[:size] in found.splits.keys() | spaced]
        begins = any(other != name and other.startswith(name) for other in found.splits) if len(name) < 4 else False
        key.splits.setdefault(name, len(name) if begins or name in spaced else max(families, default=split))
    for kind, text in found.texts:
        key.learn(kind, text)
    return {form: key.standin(*form) for form in found.texts}


def mask(
    paths: Sequence[Path], folder: Path, key: Key, key_path: Path, known: Known | None, ginza: bool, advance: Advance
) -> Found:
    """Write masked copies of files into a folder, and the key.

    Raises:
        UserError: A file cannot be read or written, or files are of several downloads. Nothing is half-written then.
    """
    origin = pii_origin.find(paths, folder)
    with tempfile.TemporaryFile() as spill:
        found = scan(paths, known, ginza, spill, advance, key.rows)
        shown = assign(key, found)
        key.save(key_path)
        spill.seek(0)
        with ExitStack() as files:
            streams = {path: files.enter_context(writing(folder / path.name)) for path in paths}
            for path, stream in streams.items():
                for row, line in zip(read([path]), spill, strict=False):
                    written = _masked(row, orjson.loads(line), shown, key)
                    if written != row.text:
                        key.rows.add(sha(written)[:DIGEST])
                    stream.write(written.encode())
            key.save(key_path)
            pii_origin.write(origin, folder, masked=True)
    return found


def _masked(row: Row, marks: list[list[list[Any]]], shown: Mapping[tuple[str, str], str], key: Key) -> str:
    if not any(marks):
        return row.text
    old = row.pieces
    edits = [
        [Edit(start, end, shown[kind, piece.text[start:end]]) for start, end, kind in places]
        for piece, places in zip(old, marks, strict=True)
    ]
    plain = joined(row.text, old, [piece.edited(changes) for piece, changes in zip(old, edits, strict=True)])
    mended = joined(row.text, old, [p.edited(changes) for p, changes in zip(old, _standing(old, edits), strict=True)])
    real = restored(row, key)
    for written in (mended, plain):
        if restored(row._replace(text=written), key) == real:
            return written
        if key.exceptions.setdefault(sha(written), row.text) == row.text:
            return written
    raise UserError(f"{row.place}: cannot be masked so that it can be restored; mask it with another key file")


def _standing(old: list[Piece], edits: list[list[Edit]]) -> list[list[Edit]]:
    """Mend edits so that every value that stood in another, longer text of the row still does."""
    texts = [piece.text for piece in old]
    articles = [place for place, text in enumerate(texts) if text[:1] not in ("{", "[")]
    hidden = {place: _apply(texts[place], edits[place]) for place in articles}
    for place, text in enumerate(texts):
        for start, end in _values(text):
            value = text[start:end]
            inside = [edit for edit in edits[place] if start <= edit.start and edit.end <= end]
            after = _apply(value, [Edit(e.start - start, e.end - start, e.text) for e in inside])
            for article in articles:
                if article == place or len(texts[article]) <= len(value) or not spans.contains(texts[article], value):
                    continue
                if not spans.contains(hidden[article], after):
                    stands = _snapped(texts[article], edits[article], *spans.find(texts[article], value)[0])
                    rest = [edit for edit in edits[place] if edit not in inside]
                    edits[place] = sorted([*rest, Edit(start, end, stands)])
                break
    return edits


def _values(text: str) -> list[tuple[int, int]]:
    """Return where an answer's values stand: the whole text, or each text of the JSON that it is."""
    if text[:1] in ("{", "["):
        return [(m.start() + 1, m.end() - 1) for m in re.finditer(TEXT, text) if 2 < len(m[0]) <= _VALUE]
    return [(0, len(text))] if text.strip() and len(text) <= _VALUE else []


def _apply(text: str, edits: Sequence[Edit]) -> str:
    return Piece(0, text, False).edited(edits)


def _snapped(text: str, edits: Sequence[Edit], start: int, end: int) -> str:
    """Write a stretch of a text with its edits, widened to those that it cuts."""
    across = [edit for edit in edits if edit.start < end and start < edit.end]
    start, end = min([start, *(e.start for e in across)]), max([end, *(e.end for e in across)])
    return _apply(text[start:end], [Edit(e.start - start, e.end - start, e.text) for e in across])


def restore(paths: Sequence[Path], folder: Path, key: Key, advance: Advance) -> int:
    """Write files with the real texts back in place into a folder; returns how many rows changed."""
    changed, origin = 0, pii_origin.find(paths, folder)
    with ExitStack() as files:
        streams = {path: files.enter_context(writing(folder / path.name)) for path in paths}
        for path, stream in streams.items():
            for row in read([path]):
                real = restored(row, key)
                changed += real != row.text
                stream.write(real.encode())
                advance(1)
        pii_origin.write(origin, folder, masked=False)
    return changed


def restored(row: Row, key: Key) -> str:
    """Put the real texts back into a row."""
    if key.exceptions and (real := key.exceptions.get(sha(row.text))) is not None:
        return real
    old = row.pieces
    return joined(row.text, old, [_restored(piece, key) for piece in old])


def _restored(piece: Piece, key: Key) -> str:
    edits, place = [], 0
    for shown, real in key.standins_in(piece.text):
        if real is not None:
            edits.append(Edit(place, place + len(shown), real))
        place += len(shown)
    return piece.edited(edits)

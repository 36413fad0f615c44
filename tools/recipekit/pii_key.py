"""The key of masked files: which invented name, place or number stands for which real one. It stays local."""

import functools
import hashlib
import os
import random
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from recipekit import ROOT, standins
from recipekit.errors import UserError
from recipekit.pii_numbers import DIGITS, digits_of, luhn, mail_of, my_number, national
from recipekit.pii_parts import address_parts, name_parts, permuted
from recipekit.process import hold
from recipekit.runs import relative, writing
from recipekit.spans import fold

ENDING = ".pii-key.json"
UPLOADED = ("data", "outputs", "recipes", "docs", "tests", "tools")  # folders of this repository
_MAPS = ("family", "given", "kana", "place", "building", "postcode", "phone", "mail", "card", "my_number")
_TRIES = 200  # draws before names are made longer
_LONGEST = 6  # characters that they may become longer
_HALF = {unicodedata.normalize("NFKC", chr(c)): chr(c) for c in range(0xFF66, 0xFF9E)}
_WIDE = {**{c: c + 0xFEE0 for c in range(0x21, 0x7F)}}

Lookup = Callable[[str, str, str], str]  # map, real part folded, how it is written -> its stand-in


class Key:
    """Stand-ins and what they stand for.

    Attributes:
        maps: Kind of part -> real part, folded -> stand-in.
        written: Stand-in as written in masked files -> real text as written.
        seen: What looked like a stand-in in files before they were masked; nobody gets it for a stand-in.
        exceptions: sha256 of a masked row -> the real one, where `written` would not give it back.
        splits: Full name, folded -> characters of its family name.
        rows: Digests of masked rows, 64 bits each; they are left as they are when they come again.
        variants: Kind and text -> its stand-in, where another writing has the one that it would have.
    """

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        content = content or {"seed": secrets.token_hex(16)}
        self.seed: str = content["seed"]
        self.maps: dict[str, dict[str, str]] = {name: dict(content.get("maps", {}).get(name, {})) for name in _MAPS}
        self.written: dict[str, str] = dict(content.get("written", {}))
        self.seen: set[str] = set(content.get("seen", []))
        self.exceptions: dict[str, str] = dict(content.get("exceptions", {}))
        self.splits: dict[str, int] = dict(content.get("splits", {}))
        self.variants: dict[str, str] = dict(content.get("variants", {}))
        self.rows: set[str] = set(content.get("rows", []))
        self._taken = {name: set(known.values()) for name, known in self.maps.items()}
        self._rng = random.Random(secrets.token_hex(16))

    def save(self, path: Path) -> None:
        """Write the key file, readable by its owner alone."""
        fields = ("seed", "maps", "written", "seen", "exceptions", "splits", "variants", "rows")
        content = {name: sorted(value) if isinstance(value := getattr(self, name), set) else value for name in fields}
        with writing(path) as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(orjson.dumps({"version": 1, **content}, option=orjson.OPT_INDENT_2) + b"\n")

    def learn(self, kind: str, text: str) -> None:
        """Give a real text a stand-in, written as it is written."""
        shown, own = self.compose(kind, text, self._assign), f"\0{text}"
        while self.written.setdefault(shown, text) != text:
            # Taro@... and taro@... are one address, but each must come back as it was
            shown = self.variants[f"{kind}\0{text}"] = self.compose(kind, text, functools.partial(self._assign_to, own))
            own += "\0"

    def _assign_to(self, own: str, name: str, part: str, written: str) -> str:
        return self._assign(name, part + own, written)

    def standin(self, kind: str, text: str) -> str:
        """Return the stand-in of a text that was learnt."""
        variant = self.variants.get(f"{kind}\0{text}")
        return variant or self.compose(kind, text, lambda name, part, _: self.maps[name][part])

    def compose(self, kind: str, text: str, lookup: Lookup) -> str:
        """Put a stand-in together from those of a text's parts, in its widths and spacing."""
        if kind == "person":
            return "".join(
                part if role is None else _styled(lookup(role, fold(part).casefold(), part), part)
                for role, part in name_parts(text, self.splits)
            )
        if kind == "address":
            return "".join(self._address_part(role, part, lookup) for role, part in address_parts(text))
        if kind == "mail":
            return _styled(lookup("mail", mail_of(text), text), text)
        real = national(text) if kind == "phone" else digits_of(text)
        return _in_places(lookup(kind, real, text), text, kind)

    def _address_part(self, role: str | None, part: str, lookup: Lookup) -> str:
        if role is None:
            return part
        if role == "number":
            return permuted(part, self.seed)
        if role == "postcode":
            return _in_places(lookup(role, digits_of(part), part), part, role)
        return _styled(lookup(role, fold(part), part), part)

    def _assign(self, name: str, part: str, written: str) -> str:
        if part not in self.maps[name]:
            self.maps[name][part] = self._draw(name, part, written)
        return self.maps[name][part]

    def _draw(self, name: str, part: str, written: str) -> str:
        seen = "\n".join(self.seen)
        for attempt in range(_TRIES * _LONGEST):
            drawn = _invent(name, part.partition("\0")[0], written, attempt // _TRIES, self._rng)
            if drawn and drawn != part and drawn not in self._taken[name] and drawn not in seen:
                self._taken[name].add(drawn)
                return drawn
        raise UserError(
            f"no stand-ins are left of the kind '{name}'; mask these files in two calls with a key file each"
        )

    def standins_in(self, text: str) -> list[tuple[str, str | None]]:
        """Cut a text into stand-ins, each with what it stands for, and what is between them, with None."""
        found: list[tuple[str, str | None]] = []
        behind = place = 0
        lengths = self._lengths
        while place < len(text):
            for length in lengths.get(text[place], ()):
                shown = text[place : place + length]
                if shown in self.written:
                    found += [(text[behind:place], None), (shown, self.written[shown])]
                    place = behind = place + length
                    break
            else:
                place += 1
        return [*found, (text[behind:], None)]

    @functools.cached_property
    def _lengths(self) -> dict[str, list[int]]:
        """First character of a stand-in -> lengths of those that begin so, the longest first."""
        lengths: dict[str, set[int]] = {}
        for shown in self.written:
            lengths.setdefault(shown[0], set()).add(len(shown))
        return {first: sorted(known, reverse=True) for first, known in lengths.items()}


@contextmanager
def hold_key(path: Path) -> Iterator[Key]:
    """Read a key file, or begin one, and keep other processes from it until the block ends, its last save done.

    Raises:
        UserError: As `load_key`, or another process keeps it.
    """
    _check_place(path)
    # Beside it, as each save puts another file in its place; its name ends alike, so that git ignores it too.
    with hold(path.with_name(f".lock.{path.name}"), f"masking with {relative(path)}"):
        yield load_key(path, fresh=True)


def load_key(path: Path, fresh: bool) -> Key:
    """Read a key file, or begin one where it may be begun.

    Raises:
        UserError: It lies where files are uploaded from, has another name, is missing or is no key file.
    """
    _check_place(path)
    shown = relative(path)
    if not path.exists():
        if fresh:
            return Key()
        raise UserError(f"{shown}: no such key file; name the one that these files were masked with")
    try:
        return Key(dict(orjson.loads(path.read_bytes()) or {"no": "seed"}))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{shown}: no key file that mask_pii wrote; name another, or restore it from a copy") from None


def _check_place(path: Path) -> None:
    shown, inside = relative(path), [name for name in UPLOADED if path.resolve().is_relative_to(ROOT / name)]
    if not path.name.endswith(ENDING):
        raise UserError(f"{shown}: a key file's name ends in {ENDING}, so that git ignores it; rename it")
    if inside:
        raise UserError(
            f"{shown}: lies in {inside[0]}/, which is shared; keep the key elsewhere, e.g. in {ROOT.parent}"
        )


def sha(text: str) -> str:
    """Digest a text, for `exceptions`."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _invent(name: str, part: str, written: str, spare: int, rng: random.Random) -> str | None:
    """Invent a stand-in; None where the draw is no good."""
    if name in ("family", "given"):
        return standins.name_part(part, name == "given", spare, rng)
    if name in ("kana", "building"):
        return standins.kana(part if name == "kana" else "ア", min(len(part), 6) + spare, rng)
    if name == "place":
        return standins.place(spare, rng)
    if name == "postcode":
        return f"000{rng.randrange(10**4):04}"
    if name == "phone":
        groups = re.findall("[0-9]+", written.translate(DIGITS).removeprefix("+81"))
        area = 0 if not groups or len(groups) == 1 else len(groups[0].removeprefix("0")) + 1
        return standins.phone(part, area, rng)
    if name == "mail":
        domain = "example.jp" if part.endswith("jp") else "example.com"
        return f"{standins.kana('a', 5 + spare, rng).lower()}{rng.randrange(1000):03}@{domain}"
    digits = rng.choice("123456789") + "".join(rng.choice("0123456789") for _ in part[1:])
    return None if (luhn(digits) if name == "card" else my_number(digits)) else digits


def _styled(text: str, like: str) -> str:
    """Write a stand-in in the width and case of what it stands for."""
    if any("ｦ" <= c <= "ﾟ" for c in like):
        return "".join(_HALF.get(c, c) for c in unicodedata.normalize("NFD", text)).translate({0x3099: "ﾞ", 0x309A: "ﾟ"})
    if any("！" <= c <= "～" for c in like) and not any("!" <= c <= "~" for c in like):
        wide = _case(text, unicodedata.normalize("NFKC", like))
        return wide.translate(_WIDE)
    return _case(text, like)


def _case(text: str, like: str) -> str:
    if re.match("[A-Za-z]", like) and "@" not in text:
        return text.upper() if like.isupper() and len(like) > 1 else text.lower() if like.islower() else text
    return text


def _in_places(digits: str, like: str, kind: str) -> str:
    """Write digits where the digits of another text are, with its separators and widths."""
    plain = like.translate(DIGITS)
    if kind == "phone" and plain.startswith("+81"):
        head = 3
        if digits_of(plain)[2:3] != "0":
            digits = digits[1:]
    else:
        head = 0
    rest = iter(digits)
    written = list(like[:head])
    for shown, character in zip(plain[head:], like[head:], strict=True):
        if shown in "0123456789" and character not in "()":
            digit = next(rest)
            written.append(digit if character == shown else chr(ord(digit) + 0xFEE0))
        else:
            written.append(character)
    return "".join(written)

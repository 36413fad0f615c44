"""The parts of names and addresses that get a stand-in each, so that 広瀬 follows 広瀬好孝, and a town its address."""

import hashlib
import re
from collections.abc import Iterator, Mapping

from kanjize import kanji2number, number2kanji

from recipekit.normal_address import PREFECTURE
from recipekit.spans import fold

KANA = re.compile("[ぁ-ゖァ-ヺーｦ-ﾟA-Za-zＡ-Ｚａ-ｚ]")
SEPARATOR = re.compile(r"[\s・･＝=,.]+")
_KANJI_NUMBER = "[〇一二三四五六七八九十百千]{1,16}+"
_UNIT = "丁目|番地|番丁|番(?![町丁街])|号室|号|条|線|階|棟|F|Ｆ"
_PIECES = re.compile(
    rf"(?P<postcode>(?<=〒)\s?[0-9０-９]{{3}}[-－‐‑–—―−ー]?[0-9０-９]{{4}})|(?P<keep>〒|[上下]る|[東西]入る?|{PREFECTURE}|同[市区町村県](?![^\s0-9０-９]{{0,1}}$)"
    rf"|大字|字|{_UNIT}|[\s、，,「」・（）()\-－‐‑–—―−]|(?<=[0-9０-９])[のノー](?=[0-9０-９])|(?<=番)の|(?<=番地)の|(?<=丁目)の|[東西南北](?=[0-9０-９]))"
    rf"|(?P<number>[0-9０-９]{{1,16}}|{_KANJI_NUMBER}(?={_UNIT}))"
    rf"|(?P<place>(?:(?!{_KANJI_NUMBER}(?:{_UNIT})|[0-9０-９\s、，,「」（）()\-－‐])[^市区町村郡])+?)(?P<suffix>[市区町村郡]|(?=[0-9０-９\s、，,「」（）()\-－‐]|{_KANJI_NUMBER}(?:{_UNIT})|$))"
    r"|(?P<other>.)",
    re.DOTALL,
)


def name_parts(text: str, splits: Mapping[str, int]) -> Iterator[tuple[str | None, str]]:
    """Cut a name into parts with the map that each is looked up in: family, given or kana; None for what stays.

    Args:
        text: A name as written.
        splits: Name in one, folded -> characters of its family name; as many as it has: a family name alone; 0: a
            given name alone.
    """
    found = list(SEPARATOR.finditer(text))
    words = SEPARATOR.split(text)
    for place, word in enumerate(words):
        if len(words) == 1:
            family = splits.get(fold(word), len(word))
            cuts = [("family", word[:family]), ("given", word[family:])]
        else:
            cuts = [("family" if place == 0 else "given", word)]
        yield from ((_role(role, part), part) for role, part in cuts if part)
        if place < len(found):
            yield None, found[place][0]


def _role(role: str, part: str) -> str:
    return "kana" if KANA.match(part) else role


def address_parts(text: str) -> Iterator[tuple[str | None, str]]:
    """Cut an address into parts with the map of each: place, number, postcode or building; None for what stays."""
    numbered = False
    for match in _PIECES.finditer(text):
        if match["postcode"]:
            yield "postcode", match["postcode"]
        elif match["number"]:
            numbered = text[match.end() : match.end() + 1] != "条"
            yield "number", match["number"]
        elif match["place"]:
            yield "building" if numbered else "place", match["place"]
            yield None, match["suffix"]
        else:
            yield None, match[0]


def permuted(number: str, seed: str) -> str:
    """Replace a number, in digits of any width or kanji, by another of as many digits; no two by the same."""
    plain = fold(number)
    if plain.isdecimal():
        zeros = len(plain) - len(plain.lstrip("0"))
        other = plain[:zeros] + (_other(plain[zeros:], seed) if plain[zeros:] else "")
        wide = any("０" <= c <= "９" for c in number)
        return "".join(chr(ord(c) + 0xFEE0) for c in other) if wide else other
    if re.search("[十百千]", plain):
        try:
            return number2kanji(int(_other(str(kanji2number(plain)), seed)))
        except ValueError:
            return number
    digits = "".join(str("〇一二三四五六七八九".index(c)) for c in plain)
    return "".join("〇一二三四五六七八九"[int(c)] for c in _other(digits, seed)) if digits[0] != "0" else number


def _other(digits: str, seed: str) -> str:
    """Shift a number among those of its length by what the seed says."""
    low = 10 ** (len(digits) - 1)
    shift = 1 + int(hashlib.sha256(f"{seed}{len(digits)}".encode()).hexdigest(), 16) % (9 * low - 1)
    return str(low + (int(digits) - low + shift) % (9 * low))

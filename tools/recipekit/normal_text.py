"""The plain form of a text, which every kind of comparison builds on, and old forms of kanji."""

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import opencc

KANJI = "一-鿿々"
QUOTES = {"「": "」", "『": "』", '"': '"', "'": "'"}
_INVISIBLE = [0xAD, 0x61C, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065)]
_VARIATION_SELECTORS = [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
_UNIFIED = str.maketrans(
    dict.fromkeys(map(chr, _INVISIBLE + _VARIATION_SELECTORS), "")
    | dict.fromkeys("‐‑‒–—―−", "-")
    | dict.fromkeys("〜∼∾", "~")
    | dict.fromkeys("‘’‛′", "'")
    | dict.fromkeys("“”‟〝〞〟", '"')
)
_DASHES = re.compile(r"(?<![ぁ-ゟァ-ヺー-ヿ])ー+")

# OpenCC pairs them, but in Japanese they are different words (纔, 菸), or names whose bearers and readers keep apart.
_KEPT = "亙勻妝峯晄暨枡棱槇檜濾禰穎纔菸萠蘆"
# Variants of names that OpenCC does not know.
_VARIANTS = "髙高﨑崎邉辺冨富𠮷吉濵浜靑青淸清敎教栁柳桒桑𣘺橋"


class Form(NamedTuple):
    """A value in the form in which it is compared.

    Attributes:
        key: What must be equal.
        detail: "" or what must not contradict, for example the prefecture of an address.
    """

    key: str
    detail: str = ""


def plain(value: str) -> str:
    """Unify widths, dashes, waves and quotes, and drop spaces, invisible characters and quotes around the whole.

    It is empty for a blank value only.
    """
    squeezed = "".join(unicodedata.normalize("NFKC", value).translate(_UNIFIED).split())
    result = unicodedata.normalize("NFKC", squeezed)  # a dropped space may have parted a letter from its accent
    if "ー" in result:  # a letter after kana, a dash elsewhere: "レーク", "1ー2"
        result = _DASHES.sub(lambda dashes: "-" * len(dashes[0]), result)
    while len(result) > 2 and QUOTES.get(result[0]) == result[-1] and not _quotes(result[0]) & set(result[1:-1]):
        result = result[1:-1]
    return result or value.strip()


def _quotes(opening: str) -> set[str]:
    return {opening, QUOTES[opening]}


def kind(rule: Callable[[str], Form]) -> Callable[[str], Form]:
    """Make a rule a kind of comparison: remembered, and the plain form where the rule leaves nothing."""

    @functools.lru_cache(maxsize=65536)
    @functools.wraps(rule)
    def normal(value: str) -> Form:
        form = rule(value)
        return form if form.key else Form(plain(value))

    return normal


def _new_forms() -> dict[int, str]:
    characters = [chr(code) for code in range(0x4E00, 0xA000) if chr(code) not in _KEPT]
    converted = opencc.OpenCC("t2jp").convert("\n".join(characters)).split("\n")
    pairs = dict(zip(characters, converted, strict=True)) | dict(zip(_VARIANTS[::2], _VARIANTS[1::2], strict=True))
    return {ord(old): new for old, new in pairs.items() if old != new}


NEW_FORMS = _new_forms()
"""For str.translate: an old or variant form of a kanji -> today's form. 澤 -> 沢, 邉 -> 辺, 髙 -> 高."""


@kind
def text(value: str) -> Form:
    """Compare letter by letter, whatever the widths of characters, spaces, kinds of dashes and quotes around it.

    "ＡＢＣ　商事" is "ABC商事", "「詐欺」" is "詐欺"; ー is a letter after kana and a dash elsewhere. Old forms of
    kanji (國) differ from new ones: a text column may quote.
    """
    return Form(plain(value))

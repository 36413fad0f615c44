"""How two values are compared: each kind of task.yml's `compare` maps a value to the form in which it is compared."""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

HYPHENS = "-‐‑‒–—―−ーｰ"
ROLES = "容疑者 被疑者 元被告人 被告人 元被告 被告 元受刑者 受刑者 元死刑囚 死刑囚 服役囚 さん ちゃん くん 君 様 氏"
_BLOCK_SEPARATOR = re.compile(rf"(?<=\d)(?:丁目|番地の|番地|番の|番|号の|号|の|[{HYPHENS}])(?=\d)")
_BLOCK_END = re.compile(r"(?<=\d)(?:丁目|番地|番|号)$")
_ROLE_END = re.compile(rf"(?<=..)(?:{'|'.join(ROLES.split())}|\([^()]*\))$")


def text(value: str) -> str:
    """Unify character widths (NFKC) and drop all spaces: "ＡＢＣ 商事" is "ABC商事"."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", value))


def number(value: str) -> str:
    """Keep the digits: "３２歳" is "32", "1,200" is "1200"; "20代" stays apart from "20".

    A value without any digit is compared as text.
    """
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text(value))
    return " ".join(re.findall(r"\d+代?", plain)) or plain


def address(value: str) -> str:
    """Compare as text, with every way to write a block number as one.

    "1丁目2番地3号", "１－２－３" and "1の2の3" are all "1-2-3".
    """
    return _BLOCK_END.sub("", _BLOCK_SEPARATOR.sub("-", text(value)))


def person_name(value: str) -> str:
    """Compare as text, without what stands behind a name: 容疑者, 被告, さん, 氏, ..., and brackets, "(32)".

    At least two characters are left, so a name that is itself written like a role stays.
    """
    name, shorter = "", text(value)
    while name != shorter:
        name, shorter = shorter, _ROLE_END.sub("", shorter)
    return name


class Form(NamedTuple):
    """x."""

    key: str
    detail: str


def agree(a: Form, b: Form) -> bool:
    """X."""
    return a.key == b.key and (a.detail == b.detail or not a.detail or not b.detail)


def _w(f):
    return lambda v: Form(f(v), "")


KINDS: dict[str, Callable[[str], Form]] = {
    "text": _w(text),
    "number": _w(number),
    "address": _w(address),
    "person_name": _w(person_name),
}

"""Phone numbers, mail addresses, card numbers and my numbers in Japanese text, in any width."""

import re
from collections.abc import Callable, Iterator

from recipekit import standins

DIGITS = str.maketrans("０１２３４５６７８９（）＋", "0123456789()+")
_D = "[0-9０-９]"
_DASH = r"[-－‐‑–—―−ーｰ]"
_LINK = rf"(?:{_DASH}|[ \u3000])?"
_FREE = rf"(?<![0-9０-９.．])(?:{{}})(?!{_D}|[.．]{_D}|{_DASH}{_D})"
_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-Ａ-Ｚａ-ｚ０-９．＿])[A-Za-z0-9Ａ-Ｚａ-ｚ０-９][A-Za-z0-9._%+\-Ａ-Ｚａ-ｚ０-９．＿－＋]{0,63}"
    r"[@＠](?:[A-Za-z0-9Ａ-Ｚａ-ｚ０-９－-]{1,63}[.．]){1,4}[A-Za-zＡ-Ｚａ-ｚ]{2,24}(?![A-Za-z0-9Ａ-Ｚａ-ｚ０-９])"
)
_CARD = re.compile(
    _FREE.format(rf"(?<!{_D}{_DASH}){_D}{{4}}(?:{_LINK}{_D}{{4}}){{3}}|3{_D}{{3}}{_LINK}{_D}{{6}}{_LINK}{_D}{{5}}")
)
_MY_NUMBER = re.compile(  # and no part of four groups of four
    _FREE.format(rf"(?<!{_D}{_DASH})(?<!(?<!{_D}){_D}{{4}}[ \u3000]){_D}{{4}}{_LINK}{_D}{{4}}{_LINK}{_D}{{4}}")
    + rf"(?![ \u3000]{_D}{{4}}(?!{_D}))"
)
_AREA = rf"[0０][1-9１-９]{_D}{{0,3}}"
_PHONE = re.compile(
    _FREE.format(
        rf"(?<!{_D}{_DASH})(?:(?:[+＋](?:81|８１){_LINK}(?:[(（][0０][)）])?[1-9１-９]{_D}{{0,3}}|[(（]{_AREA}[)）]|{_AREA})"
        rf"(?:{_LINK}|[(（]){_D}{{1,4}}(?:[)）]|{_DASH}|[ \u3000])?{_D}{{3,4}})"
    )
)
_NOBODYS_MAIL = re.compile(r"@(?:.+\.)?example\.(?:com|net|org|jp)$")
_MOBILE = re.compile(r"0[5-9]0[0-9]{8}")
_FIXED = re.compile(r"0[1-9][0-9]{8}")
_CUE = re.compile("マイナンバー|個人番号|ﾏｲﾅﾝﾊﾞｰ")
_PHONE_CUE = re.compile("電話|携帯|℡|TEL|Tel|tel|ＴＥＬ|連絡先|FAX|Fax|ＦＡＸ|番号|☎|📞|📱")
_CUE_REACH = 25  # characters before a number


def digits_of(text: str) -> str:
    """Return the ASCII digits of a text."""
    return "".join(character for character in text.translate(DIGITS) if character in "0123456789")


def luhn(digits: str) -> bool:
    """Tell whether a card number's check digit is right."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def my_number(digits: str) -> bool:
    """Tell whether the check digit of a my number (12 digits) is right."""
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def national(text: str) -> str:
    """Return the digits of a phone number as dialled in Japan: +81-90-... is 090..."""
    digits = digits_of(text)
    if text.translate(DIGITS).startswith("+81"):
        return "0" + digits[2:].removeprefix("0")
    return digits


def find_numbers(text: str) -> Iterator[tuple[str, int, int, bool]]:
    """Yield kind, start, end and whether it is sure, of numbers and mail addresses; kind "" where it is nobody's."""
    if "@" in text or "＠" in text:
        for match in _MAIL.finditer(text):
            yield "" if _NOBODYS_MAIL.search(mail_of(match[0])) else "mail", *match.span(), True
    for kind, pattern, check in _CHECKED:
        for match in pattern.finditer(text):
            real = check(digits := digits_of(match[0])) and len(set(digits)) > 1
            before = text[max(0, match.start() - _CUE_REACH) : match.start()]
            yield kind if real else "", *match.span(), kind == "card" or bool(_CUE.search(before))
    for match in _PHONE.finditer(text):
        digits = national(match[0])
        if _MOBILE.fullmatch(digits) or _FIXED.fullmatch(digits):
            before = text[max(0, match.start() - _CUE_REACH) : match.start()]
            sure = digits != match[0].translate(DIGITS) or bool(_PHONE_CUE.search(before))
            real = bool(sure or _MOBILE.fullmatch(digits)) and not standins.is_phone(digits)
            yield "phone" if real else "", *match.span(), sure


def mail_of(text: str) -> str:
    """Return a mail address in ASCII and lower case."""
    return "".join(chr(ord(c) - 0xFEE0) if "！" <= c <= "～" else c for c in text).lower()


_CHECKED: list[tuple[str, re.Pattern[str], Callable[[str], bool]]] = [
    ("card", _CARD, luhn),
    ("my_number", _MY_NUMBER, my_number),
]

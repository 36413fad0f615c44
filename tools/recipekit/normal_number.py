"""Numbers, ages and dates in the form in which they are compared."""

import calendar
import datetime
import re
from decimal import Decimal

import japanera
from kanjize import kanji2number

from recipekit.normal_text import Form, kind, plain

NUMERAL = "[0-9〇零一二三四五六七八九十百千万億兆壱弐参拾壹貳參萬,.]{1,30}"
_OLD_NUMERALS = str.maketrans("壱壹弐貳参參拾萬", "一一二二三三十万")
_COMMA = re.compile("(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_DECIMAL = re.compile("([0-9]+[.][0-9]+)([千万億兆]?)")
_SCALE = {"": 1, "千": 10**3, "万": 10**4, "億": 10**8, "兆": 10**12}
_UNITS = (
    "歳|才|人|名|円|ドル|ユーロ|件|回|個|台|本|枚|点|棟|戸|世帯|社|匹|頭|羽|冊|通|発|丁|錠|袋|%|g|kg|グラム|キログラム|"
    "キロ|m|km|メートル|平方メートル|秒|分|時間"
)
_SAME_UNIT = {"才": "歳", "名": "人", "グラム": "g", "キログラム": "kg", "メートル": "m"}
_NUMBER = re.compile(f"(?:約|満)?(-?)({NUMERAL})(代|{_UNITS})?")
_AGE = re.compile(
    rf"\(?(?:満|当時)?({NUMERAL})(?:[歳才](?!代)|[歳才]?(代(?:前半|半ば|なかば|後半)?))?\)?(?:\((?:事件)?当時\))?"
)
_MONTHS_OLD = re.compile(f"(?:生後)?({NUMERAL})[カかヶケヵ箇]月")

_ERAS = {name: era for era in japanera.ERA_DATA_GENERAL[-5:] for name in (era.kanji, era.kanji[0], era.english[0])}
_N = "([0-9〇零一二三四五六七八九十百千]{1,6})"
_YEAR = (
    f"(?:(明治?|大正?|昭和?|平成?|令和?|[MTSHR])({_N[1:-1]}|元)|(?:西暦)?([0-9〇零一二三四五六七八九千百十]{{3,6}}))"
)
_WEEKDAY = r"(?:\([月火水木金土日](?:曜日?)?\)|[月火水木金土日]曜日?)?"
_DATE = re.compile(f"{_YEAR}(?:年(?:{_N}月(?:{_N}日)?)?|([-/.]){_N}(?:\\6{_N})?){_WEEKDAY}", re.IGNORECASE)
_MONTH_AND_DAY = re.compile(f"(?:{_N}月(?:{_N}日)?|{_N}/{_N}){_WEEKDAY}")
_GREGORIAN_SINCE = 1873  # dates of eras before are of the lunar calendar


def numeral(written: str) -> str | None:
    """Read a number in Arabic digits, kanji or both; "1,200", "四十五" and "1.5万" are "1200", "45" and "15000".

    Returns:
        The number in Arabic digits without leading zeros, or None where it cannot be read.
    """
    digits = _COMMA.sub("", written)
    if digits.isdecimal():
        return digits.lstrip("0") or "0"
    if decimal := _DECIMAL.fullmatch(digits):
        return f"{Decimal(decimal[1]) * _SCALE[decimal[2]]:f}".rstrip("0").rstrip(".")
    if "," in digits or "." in digits:
        return None
    try:
        return str(kanji2number(digits.translate(_OLD_NUMERALS)))
    except ValueError:
        return None


@kind
def number(value: str) -> Form:
    """Compare numbers, however they are written; a unit may be given or omitted, but not be another one.

    "１，２００円", "千二百" and "約1200" agree; "3人" differs from "3円", "20代" from "20". What is not one number is
    compared as text.
    """
    written = plain(value)
    match = _NUMBER.fullmatch(written)
    read = match and numeral(match[2])
    if not match or read is None:
        return Form(written)
    unit = match[3] or ""
    return Form(f"{match[1]}{read}代") if unit == "代" else Form(match[1] + read, _SAME_UNIT.get(unit, unit))


@kind
def age(value: str) -> Form:
    """Compare ages in years; decades and months of age are something else.

    "四十五歳", "満45才", "(45)" and "45歳(当時)" are 45; "40代" differs from "40" and from "40代半ば", "生後3カ月" from
    "3歳". What is no age ("年齢不詳", "45歳くらい") is compared as text.
    """
    written = plain(value)
    if (match := _AGE.fullmatch(written)) and (read := numeral(match[1])) is not None:
        return Form(read + (match[2] or "").replace("なかば", "半ば"))
    if (match := _MONTHS_OLD.fullmatch(written)) and (read := numeral(match[1])) is not None:
        return Form(f"{read}カ月")
    return Form(written)


@kind
def date(value: str) -> Form:
    """Compare days, however they are written, by era or by the Western year.

    "令和6年5月1日", "R6.5.1" and "2024/5/1" agree. What is left out stays so: "2024年5月" differs from "2024年5月1日".
    An era without a day is a detail: 2019年 agrees with 平成31年 and with 令和元年, which differ. What is no date
    (令和6年13月), and a year of two digits without an era, is compared as text.
    """
    written = plain(value)
    if match := _DATE.fullmatch(written):
        era, in_era, western, *parts = match.groups()
        month, day = (parts[0], parts[1]) if parts[2] is None else (parts[3], parts[4])
        form = _dated(era and _ERAS[era.upper()], in_era or western, month, day)
    elif match := _MONTH_AND_DAY.fullmatch(written):
        form = _dated(None, None, match[1] or match[3], match[2] or match[4])
    else:
        form = None
    return form or Form(written)


def _dated(era: japanera.Era | None, year: str | None, month: str | None, day: str | None) -> Form | None:
    """Return None where there is no such date."""
    read = {"元": "1", None: "0"}
    y, m, d = (int(read.get(part) or numeral(part or "") or 0) for part in (year, month, day))
    y = era.since.year + y - 1 if era and y else y
    try:
        first = datetime.date(y if year else 2000, m if month else 1, d if day else 1)
        last = first if day else first.replace(month=m or 12, day=calendar.monthrange(first.year, m or 12)[1])
    except ValueError:
        return None
    # On the days on which 大正 and 昭和 began, the era before was in force too.
    if y < 1000 and year or era and (y < _GREGORIAN_SINCE or last < era.since or first > (era.until or first)):
        return None
    key = "-".join([f"{y:04}" if year else "-", *(f"{n:02}" for n, given in ((m, month), (d, day)) if given)])
    return Form(key, era.kanji if era and not day else "")

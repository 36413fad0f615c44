"""Addresses in the form in which they are compared."""

import re

from recipekit.normal_number import numeral
from recipekit.normal_text import KANJI, NEW_FORMS, Form, kind, plain

PREFECTURE_NAMES = (
    "青森|岩手|宮城|秋田|山形|福島|茨城|栃木|群馬|埼玉|千葉|神奈川|新潟|富山|石川|福井|山梨|長野|岐阜|静岡|愛知|三重|"
    "滋賀|兵庫|奈良|和歌山|鳥取|島根|岡山|広島|山口|徳島|香川|愛媛|高知|福岡|佐賀|長崎|熊本|大分|宮崎|鹿児島|沖縄"
)
PREFECTURE = f"(?:北海道|東京都|京都府|大阪府|(?:{PREFECTURE_NAMES})県)"
_POSTCODE = re.compile("(?:〒?[0-9]{3}-|〒[0-9]{3})[0-9]{4}(?![0-9番号-])(?=.)")
_COUNTRY = re.compile(f"日本国?[、,]?(?={PREFECTURE})")
# A town, city, ward or village follows. 立: 東京都立北町高校 is not in 立北町, but 立川市, 立科町 and 立山町 are towns.
_PREFECTURE = re.compile(f"({PREFECTURE})(?!立(?![川科山]))(?=.+?[市区町村])")
# 郡 before a town: not 郡山市, 蒲郡市, 大和郡山市 or 上郡町. Few districts have 市 or 村 in their names.
_DISTRICT = re.compile(
    f"(?:余市|高市|[東西北]村山|(?:(?![市区町村郡])[{KANJI}]){{1,4}}?)郡(?=余市町|[^市区町][^市区]{{0,5}}?[町村])"
)
_AZA = re.compile(r"(?:(?<=[市区町村])|^)(?:大字|字)(?=.)")
_LINKS = re.compile(rf"(?<=[{KANJI}])[ヶケヵガがノの之ツッつっ](?=[{KANJI}])")
_LINK = dict.fromkeys("ヶケヵガが", "ケ") | dict.fromkeys("ノの之", "の") | dict.fromkeys("ツッつっ", "ツ")
# 番 and 号 count only before a number or at the end: 一番町, 二番丁 and 三番街 are names.
_KANJI_BLOCK = re.compile("[〇一二三四五六七八九十百]+(?=丁目|番地|[番号](?:[の0-9〇一二三四五六七八九十百-]|$))")
_BLOCK_SEPARATOR = re.compile("(?<=[0-9])(?:丁目の?|番地の?|番の?|号の?|の|-)(?=[0-9])")
_BLOCK_END = re.compile(
    "(?<=[0-9])(?:丁目|番地|番|号)$|(?<=[0-9]-[0-9])号(?![室棟館線])|(?<=-[0-9]{2})号(?![室棟館線])"
)
_TRAILING = re.compile(rf"(?<=[{KANJI}0-9])の$")


def unify_place(name: str) -> str:
    """Unify old forms of kanji, and what links kanji in names of places: 霞ヶ関, 霞ケ関, 霞が関; 山ノ内, 山の内."""
    return _LINKS.sub(lambda link: _LINK[link[0]], name.translate(NEW_FORMS))


@kind
def address(value: str) -> Form:
    """Compare places, however they are written; the prefecture may be given or omitted, but not be another one.

    "三丁目2番地の1", "３－２－１" and "3丁目2番1号" are "3-2-1", 霞ヶ関 is 霞が関, 龍ケ崎 is 竜ケ崎; 大字 or 字 behind
    a town, 郡 before one, 〒 and 日本 are dropped. Names with numbers (一番町, 四日市), buildings and rooms stay, and
    so does what says another place: 付近, 先, の路上.
    """
    place = unify_place(plain(value))
    for leading in (_POSTCODE, _COUNTRY):
        if match := leading.match(place):
            place = place[match.end() :]
    if prefecture := _PREFECTURE.match(place):
        place = place[prefecture.end() :]
    if district := _DISTRICT.match(place):
        place = place[district.end() :]
    place = _KANJI_BLOCK.sub(lambda block: numeral(block[0]) or block[0], _AZA.sub("", place))
    place = _BLOCK_END.sub("", _BLOCK_SEPARATOR.sub("-", place))
    return Form(_TRAILING.sub("", place), prefecture[1] if prefecture else "")

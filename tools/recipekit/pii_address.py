"""Addresses in Japanese text: places below a town or city, with block numbers, building and postcode.

A city or prefecture alone is no address.
"""

import re
from collections.abc import Iterator

from recipekit.normal_address import PREFECTURE
from recipekit.standins import BLOCKS, NUMBER

_K = "一-鿿々ヶケヵノ之"
_KANA_CITIES = (
    "さいたま|つくばみらい|つくば|いわき|ひたちなか|かすみがうら|うるま|みどり|あきる野|えびの|たつの|にかほ|むつ|さくら|"
    "ふじみ野|いすみ|あわら|みやま|うきは|いちき串木野|南あわじ|東かがわ|みよし|あま|いなべ|かほく|みなかみ|おおい|さぬき|まんのう"
)
_CITY = (
    rf"(?:(?:同|当)(?=[市区町村県])[市区町村県]|(?:{_KANA_CITIES}|[{_K}]{{1,6}}?|[ァ-ヺー]{{2,6}})"
    rf"(?:(?<!都)市(?![場民長議内営立役販況街道販])|区(?![役内民間長議分域画])|町(?![役内民長議立営])|村(?![役内民長議立営])))"
)
_DISTRICT = rf"[{_K}]{{1,4}}?郡"
_SPACE = r"[ \u3000]?"
_POST = r"(?:〒\s?[0-9０-９]{3}[-－‐‑–—―−ー]?[0-9０-９]{4}(?![0-9０-９])\s*)"
_UNITS = (
    rf"{NUMBER}{_SPACE}(?:丁目|番地|番丁|番(?![組線目手台号])|条(?=[東西南北0-9０-９]))"
    rf"(?:の?{_SPACE}[東西南北]?{BLOCKS})?"
)
_HYPHENS = r"[0-9０-９]+(?:[-－‐‑–—―−ーのノ][0-9０-９]+){1,3}(?:号室?)?"
_COUNTED = "[年月日時分秒人名円回件個台本枚点棟社校歳才個カか年代%％kmcg万千億度位世]"
_ALONE = rf"[0-9０-９]+条(?![0-9０-９])|[0-9０-９]{{1,5}}(?![0-9０-９]|[-－][0-9０-９]|{_COUNTED})"
_TOWN = rf"(?:[上下]る|[東西]入る?|[{_K}]|[ァ-ヺー](?![ァ-ヺー]{{6}})|(?<=[{_K}])[がのつ](?=[{_K}])){{1,14}}?"
_TOWN_END = "(?<=[町村台丘通条郷里原浜崎島])"
_NAMED = (
    "(?:マンション|アパート|ハイツ|コーポ|荘|ハウス|ビル|メゾン|レジデンス|タワー|パレス|ヒルズ|コート|団地|寮|ハイム"
    "|プラザ|棟)"
)
_WORD = rf"[{_K}ァ-ヺーA-Za-zＡ-Ｚａ-ｚぁ-ゖ・･ 0-9０-９]{{0,14}}?{_NAMED}[{_K}ァ-ヺー・･A-ZＡ-Ｚ]{{0,8}}"
_ROOM = rf"{_SPACE}(?:[A-Z]?[0-9０-９]+(?:[-－ー][0-9０-９]+)?(?:号室|号|階|F|Ｆ)?)?"
_BUILDING = (
    rf"(?:[甲乙丙丁])?(?:[ \u3000、]?(?![のにでを])(?=[^、。\s]{{0,14}}{_NAMED}){_WORD}(?:[0-9０-９]+号?[棟館])?{_ROOM}"
    r"|[ \u3000][0-9０-９]+(?:号室|号)"
    r"|[ \u3000][ァ-ヺー][ァ-ヺー・一-鿿A-Z]{2,12}[ \u3000]?[0-9０-９]{1,4}(?:号室|号|階|F|Ｆ)?)"
)
_BEFORE = rf"{_POST}?(?:{PREFECTURE}{_SPACE})?(?:{_DISTRICT})?"
_NUMBERED = re.compile(
    rf"{_BEFORE}(?:(?:{_CITY}{_SPACE}){{1,3}}{_TOWN}{_SPACE}(?:{_UNITS}|{_HYPHENS}|{_ALONE})"
    rf"|{_TOWN}{_UNITS}|{_TOWN}{_TOWN_END}{_HYPHENS}){_BUILDING}?"
)
_NO_TOWN = (
    "役所|役場|議会|議|教育|内|立|民|長|職員|消防|警察|署|道|営|中心|[東西南北]部|周辺|付近|在住|出身|など|全域|発|産|主催|"
    "総合|文化|商工|観光|社会|福祉|保健|税|水道|地裁|高裁|地検|駅|大|美術|博物|図書|体育|公民|病院|市場|会|政|史|農協|"
    "屋|の|に|で|と|は|が|を|へ|も|か|や"
)
_TOWNS_END = r"(?=[、。，．,\s」（(]|[のにでをとはがへ]|付近|周辺|路上|先|$)"
_NAMED_TOWN = re.compile(
    rf"{_POST}?(?:(?P<prefecture>{PREFECTURE}){_SPACE})?(?:{_DISTRICT})?(?:{_CITY}){{1,2}}(?!{_NO_TOWN})"
    rf"(?P<town>(?:大字|字)?(?:[{_K}]|[ァ-ヺー]|(?<=[{_K}])[がの](?=[{_K}])){{1,6}}?){_TOWNS_END}"
)
_POSTCODE = re.compile(_POST)


_ONLY_NUMBERS = re.compile(rf"{BLOCKS}")


def find_addresses(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start, end and whether it is sure, of addresses."""
    for match in _NUMBERED.finditer(text):
        start = match.start()
        if _ONLY_NUMBERS.fullmatch(match[0]):
            continue
        yield start, match.end() - (len(match[0]) - len(match[0].rstrip())), True
    for match in _NAMED_TOWN.finditer(text):
        yield *match.span(), match["prefecture"] is not None
    for match in _POSTCODE.finditer(text):
        yield match.start(), match.start() + len(match[0].rstrip()), True

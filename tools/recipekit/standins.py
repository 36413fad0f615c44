"""Invented names, places and numbers that stand in for real ones, told from real ones by how they are spelt.

Every stand-in comes from a closed grammar of rare characters in places where no real name has them, so that a masked
text needs no key to be recognised. Phone numbers have an exchange that begins with 0, which nobody is given; mail is at
example.com or example.jp; card numbers and my numbers fail their check digits.
"""

import random
import re
from typing import NamedTuple

from recipekit.normal_address import PREFECTURE

_MIDDLES = "ヶ之津久比多良美奈加佐志保呂和与"
_SINGLE_FAMILY = "驂騫驪驥麾黝鼇龕鸞鵡鴛鴦鬟"
_SINGLE_GIVEN = "禔祺秬稷穉穹窈窕筮箴"
_HIRAGANA = "りるれろきせつむめゆふひけぬえ"  # none that a particle, さん, ちゃん or くん begins with
_KATAKANA = "ミリルレロキクスセヌムメユホフヒネコソケ"
_LATIN = "lrnmtkd"
_HALF_WIDTH = "ﾐﾘﾙﾚﾛｷｸｽｾﾇﾑﾒﾕﾎﾌﾋﾈｺｿｹ"


class _Kind(NamedTuple):
    """How stand-ins of two characters and more are put together."""

    heads: str
    tails: str

    @property
    def pattern(self) -> str:
        return f"[{self.heads}][{_MIDDLES}]{{0,2}}[{self.tails}]"

    def draw(self, length: int, rng: random.Random) -> str:
        middle = "".join(rng.choice(_MIDDLES) for _ in range(min(max(length - 2, 0), 2)))
        return rng.choice(self.heads) + middle + rng.choice(self.tails)


FAMILY = _Kind(
    "珀瑪瑙珊玻璞琅玳瑁璋璟瑾璆霙靄霰霓霄靉霖霏曖曦暾皓皚蛉蜩蟋鸚鷽鵐鷦鷯翡蓉萸葡萄檸檬橄欖櫚躅蘚苳芍菘茴蘋萼蔕",
    "野原崎沢谷浜島川田山本村木森岡坂橋井尾倉瀬辺口宮塚江里池藤丸林石屋城部松竹杉柳畑関越堂見羽賀戸代間永元内",
)
GIVEN = _Kind(
    "熾煥爍炬嶷嶄縹縷繚絨緻纈綮縉彧徇佶偲傲嫺娉妍嬋姮娥孜孳",
    "子太介助平郎人也斗吾香代江恵乃音花弥哉生雄夫男彦樹治司希紀葉緒帆輝月陽海",
)
PLACE = _Kind(
    "滄溟渺瀚漾潺湲淼淙澎湃滂泱磊碣鐸鋏錨銛鑢鏃砧磬簫篳篥箜", "野原崎沢谷浜島川田山里岡坂橋丘浦瀬見台江森畑関宮"
)

_LETTERS = "".join(chr(ord(c) + wide) for a in "aeiou" + _LATIN for c in (a, a.upper()) for wide in (0, 0xFEE0))
_KANA = (
    f"[ゐゑ][{_HIRAGANA}]{{1,9}}|[ヂヅ][{_KATAKANA}]{{1,11}}|(?:ﾁﾞ|ﾂﾞ)[{_HALF_WIDTH}]{{1,11}}"
    rf"|(?<![A-Za-zＡ-Ｚａ-ｚ])(?:[ZzＺｚ][VvＶｖ][{_LETTERS}]{{0,12}})+(?![A-Za-zＡ-Ｚａ-ｚ])"
)
_FAMILY = rf"(?:{FAMILY.pattern}|[{_SINGLE_FAMILY}])"
_GIVEN = rf"(?:{GIVEN.pattern}|[{_SINGLE_GIVEN}])"
PERSON = rf"{_FAMILY}(?:\s?(?:{_GIVEN}|{_KANA}))?|{_GIVEN}|(?:{_KANA})(?:[・･＝=\s]?(?:{_KANA}|{_GIVEN}))*"
# Repeats are bounded and give nothing back: a long run of digits must not take time by its square, or worse.
NUMBER = "(?:[0-9０-９]{1,16}+|[〇一二三四五六七八九十百千]{1,16}+)"
_UNIT = "丁目|番地|番丁|番(?![町丁街])|号室|号[棟館]?|条|線|階|棟|F|Ｆ"
_DIGITS = "[0-9０-９〇一二三四五六七八九十百千]{1,16}+"
BLOCKS = rf"{_DIGITS}(?:(?>{_UNIT}|[-－‐‑–—―−ーのノ東西南北])+{_DIGITS})*(?>{_UNIT})*"
_ROOM = rf"(?:[A-Z]?[0-9０-９]+(?:[-－ー][0-9０-９]+)?(?:{_UNIT})*)*"
_BUILDING = (
    rf"[ \u3000、]?(?:{_KANA})(?:[ \u3000・]?(?:{_KANA}))*[ \u3000]?{_ROOM}"
    r"|[ \u3000][0-9０-９]+(?:号室|号)"
)
_ADDRESS = (
    rf"(?:〒\s?(?:000|０００)[-－‐‑–—―−ー]?[0-9０-９]{{4}}\s*)?(?:{PREFECTURE}[ \u3000]?)?(?:[同当][市区町村県])?"
    rf"(?:(?:{NUMBER}条)?(?:[上下]る|[東西]入る?)?(?:大字|字|[ \u3000])?{PLACE.pattern}[市区町村郡]?)+"
    rf"(?:[東西南北]?{BLOCKS})?(?:{_BUILDING})?"
    rf"|〒\s?(?:000|０００)[-－‐‑–—―−ー]?[0-9０-９]{{4}}(?![0-9０-９])"
)
STANDIN = re.compile(rf"{_ADDRESS}|{PERSON}")
_AREAS = {2: "03", 3: "045", 4: "0465", 5: "04992"}  # digits of an area code -> one of that length


def blank(text: str, mask: str) -> str:
    """Write a mask over every character of invented names and addresses."""
    return STANDIN.sub(lambda match: mask * len(match[0]), text)


def is_phone(digits: str) -> bool:
    """Tell whether a phone number is one that nobody has."""
    areas = "|".join(_AREAS.values())
    return bool(re.fullmatch(rf"0[5-9]00\d{{7}}|(?:{areas})0\d+|(?:0120|0800)000\d+", digits))


def kana(like: str, length: int, rng: random.Random) -> str:
    """Invent a name in the script of another: hiragana, katakana or Latin."""
    if re.match("[ぁ-ゖ]", like):
        return rng.choice("ゐゑ") + "".join(rng.choice(_HIRAGANA) for _ in range(max(length - 1, 1)))
    if re.match("[A-Za-z]", like):
        letters = "".join(rng.choice("aeiou" if place % 2 == 0 else _LATIN) for place in range(max(length - 2, 1)))
        return "Zv" + letters
    return rng.choice("ヂヅ") + "".join(rng.choice(_KATAKANA) for _ in range(max(length - 1, 1)))


def name_part(like: str, given: bool, spare: int, rng: random.Random) -> str:
    """Invent a family or given name.

    Args:
        like: The real one, folded; its script and length are kept.
        given: Whether it is a given name.
        spare: Characters to add, where names of that length have run out.
        rng: What to draw with.
    """
    length = len(like) + spare
    if re.match("[ぁ-ゖァ-ヺーA-Za-z]", like):
        return kana(like, length, rng)
    if length == 1:
        return rng.choice(_SINGLE_GIVEN if given else _SINGLE_FAMILY)
    return (GIVEN if given else FAMILY).draw(length, rng)


def place(spare: int, rng: random.Random) -> str:
    """Invent the name of a town, without 市, 町, ... behind it."""
    return PLACE.draw(2 + spare, rng)


def phone(digits: str, area: int, rng: random.Random) -> str:
    """Invent a phone number of as many digits.

    Args:
        digits: The real one.
        area: Digits of its area code; 0 for 090, 0120 and the like.
        rng: What to draw with.
    """
    if re.match("0[5-9]0", digits) and len(digits) == 11:
        head = digits[:3] + "0"
    elif re.match("0120|0800", digits):
        head = digits[:4] + "000"
    else:
        head = _AREAS.get(area, "03") + "0"
    return head + "".join(rng.choice("0123456789") for _ in range(len(digits) - len(head)))

"""The rule for names in Japanese text: what stands before さん, 容疑者, an age in brackets or a title."""

import re
from collections.abc import Iterator

MASK = "\0"  # over names that are known already
ROLES = "容疑者|被疑者|被告人|被告|受刑者|死刑囚|服役囚"
HONORIFICS = "(?<!たく)(?<!みな)さん|(?<![ぁ-ゖ])ちゃん|ちゃん(?!と)|くん(?![だでじ])|さま(?!ざ)"
SHORT = "君(?!臨)|様(?![々子式相態])|氏(?![名神])"
TITLES = (
    "選手|議員|弁護士|弁護人|裁判官|裁判長|検事|検察官|警部補?|警視正?|巡査|教諭|教授|講師|医師|看護師|記者|監督|コーチ"
    "|投手|知事|大臣|理事|専務|常務|取締役|教頭|組合長|部会長|[会社部署課市町村区校院園所店駅局次係室隊団議館組船機班学総事員]長"
)
CJK = "㐀-鿿豈-\ufaff々〆ヶァ-ヺーｦ-ﾟ\U00020000-\U000323af"
_PART = rf"[{CJK}A-Za-zＡ-Ｚａ-ｚ]{{1,12}}"
_NAME = rf"(?:{_PART}[・･＝= \u3000]){{0,3}}{_PART}(?:[ぁ-ゖ]{{1,3}}[子美江代恵香枝]|[ぁ-ゖ]{{0,5}})|[ぁ-ゖ]{{2,6}}"
READING = re.compile(rf"[(（]([{MASK}ぁ-ゖァ-ヺー・･＝= \u3000]+)[)）]")
AGE = (
    r"[(（=＝](?:当時|いずれも|ともに)?[0-9０-９〇一二三四五六七八九十]{1,3}(?![0-9０-９年月日時分条円])"
    r"(?:歳|[かカヵヶ]月)?[^()（）]{0,8}[)）=＝]"
)
_NO_PARTICLE = "(?<![のはがをにとでもへやられるたていうくすつぐむぶしどだばず])"  # 逮捕された容疑者 is no name
_RULE = re.compile(
    rf"(?P<name>{_NAME})(?:{READING.pattern})?"
    rf"(?:(?P<sure>(?:{ROLES}|{TITLES})?{AGE}|{HONORIFICS}|{_NO_PARTICLE}(?:{ROLES}|{SHORT}))"
    rf"|{_NO_PARTICLE}(?:{TITLES}))"
)
_NOBODY = re.compile(
    "|[同両元前副新現各当本皆奥母父兄姉弟妹娘嫁孫妻夫男女客神王赤模異多仕摂華諸何]|息子|[長次三四][男女]|祖[父母]"
    "|.*(?:男性|女性|男児|女児|少年|少女|生徒|児童|患者|業者|子供|乗客|無職|[員官])"
)
# The title is theirs, nobody's name.
_OFFICE = re.compile(r".*(?:[会署課社校局庁省党隊団県科警]|警本|組合|産業|大学|銀行|役所)")
TITLE_END = re.compile(rf"(?:{ROLES}|{TITLES}|{HONORIFICS})+$")


def names_before_titles(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield where the rule finds a name, the name, and whether nothing but a person is called so."""
    for match in _RULE.finditer(text):
        name, sure = TITLE_END.sub("", match["name"]), bool(match["sure"])
        name = name if sure else re.sub("[元前副]$", "", name)
        if not _NOBODY.fullmatch(name) and (sure or not _OFFICE.fullmatch(name)):
            yield match.start(), name, sure

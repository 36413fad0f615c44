"""Names of persons, organisations and police in the form in which they are compared."""

import re
import unicodedata

from recipekit.normal_address import PREFECTURE, unify_place
from recipekit.normal_number import numeral
from recipekit.normal_text import NEW_FORMS, Form, kind, plain

_PERSON_FORMS = {code: new for code, new in NEW_FORMS.items() if chr(code) != "龍"}
_DOTS = re.compile("[・·=゠]")
_ROLES = "容疑者 被疑者 元?被告人 元?被告 元?受刑者 元?死刑囚 元?服役囚 さん ちゃん くん 君 様 氏"
_TITLES = "社長 会長 議員 市長 町長 村長 知事 巡査部長 巡査長 巡査 警部補 警部 教諭 弁護士 医師"
_BEHIND = re.compile(rf"(?<=..)(?:{'|'.join(_ROLES.split())}|\([^()]*\))$|(?<=...)元?(?:{'|'.join(_TITLES.split())})$")


@kind
def person_name(value: str) -> Form:
    """Compare names without what stands behind them: roles (容疑者, 元被告), さん, 氏, and brackets, "(32)".

    Titles (社長, 議員) go behind three characters and more; two characters stay of any name. Spaces and ・ are
    dropped. Old forms of kanji are today's (澤 = 沢, 邉 = 辺, 髙 = 高), but those that people choose for
    themselves stay apart: 龍 and 竜, 嶋 and 島, 峯 and 峰, 槇 and 槙. "甲こと乙" stays as it is: which of them is the
    real name is not said.
    """
    name, shorter = "", _DOTS.sub("", plain(value).translate(_PERSON_FORMS)).casefold()
    while name != shorter:
        name, shorter = shorter, _BEHIND.sub("", shorter)
    return Form(name)


_COMPANIES = {
    "株式会社": "(株)",
    "有限会社": "(有)",
    "合同会社": "(同)",
    "合資会社": "(資)",
    "合名会社": "(名)",
    "一般社団法人": "(一社)",
    "一般財団法人": "(一財)",
    "公益社団法人": "(公社)",
    "公益財団法人": "(公財)",
    "社団法人": "(社)",
    "財団法人": "(財)",
    "医療法人": "医療法人社団 医療法人財団 (医)",
    "社会福祉法人": "(福) (社福)",
    "学校法人": "(学)",
    "宗教法人": "(宗)",
    "特定非営利活動法人": "NPO法人 (特非) (NPO)",
    "地方独立行政法人": "(地独)",
    "独立行政法人": "(独)",
    "国立大学法人": "",
    "弁護士法人": "",
    "税理士法人": "",
    "農事組合法人": "",
}
_TYPE_OF = {form.casefold(): name for name, forms in _COMPANIES.items() for form in (name, *forms.split())}
_ANY_TYPE = "|".join(map(re.escape, sorted(_TYPE_OF, key=len, reverse=True)))
_TYPE = re.compile(f"^({_ANY_TYPE})(?=.)|(?<=.)({_ANY_TYPE})$")
_LATIN_TYPE = re.compile(r"(?:[\s,]+(?:Co\.?,?\s*Ltd\.?|Inc\.?|Corp\.?|Ltd\.?|LLC\.?|K\.K\.)|Co\.,\s*Ltd\.?)\s*$", re.I)
_AROUND = str.maketrans("", "", "「」『』\"'・·")


@kind
def organization(value: str) -> Form:
    """Compare organisations; the legal form may be given or omitted, before or behind, but not be another one.

    "株式会社甲", "㈱甲", "甲(株)" and "甲" agree, "有限会社甲" differs from the first three. "Co., Ltd." and the like
    are dropped. Old forms of kanji, case, spaces, ・ and 「」 do not matter: 國學院大學 is 国学院大学.
    """
    name = unicodedata.normalize("NFKC", value)
    if name.rstrip(" .")[-1:].isascii():
        name = _LATIN_TYPE.sub("", name)
    name = unify_place(plain(name)).casefold()
    match = _TYPE.search(name)
    if match:
        name = name[: match.start()] + name[match.end() :]
    return Form(name.translate(_AROUND), _TYPE_OF[match[1] or match[2]] if match else "")


_FORCE = re.compile(f"(?:({PREFECTURE})|([道府県]))警(?!視)(?:察(?!署|学校))?(?:本部)?|(?:東京都)?警視庁(?:本部)?")
_OF_PREFECTURE = re.compile(f"({PREFECTURE})()(?=.+署$)")
_DIVISION = re.compile("第?([一二三四五六七八九0-9])課")
_HEADQUARTERS = {"東京都警": "警視庁", "道警": "北海道警", "府警": "", "県警": ""}


@kind
def police(value: str) -> Form:
    """Compare police stations and divisions; the prefecture may be given or omitted, but not be another one.

    "長野県警戸隠野署", "県警戸隠野警察署" and "戸隠野署" agree, as do "県警捜査2課" and "県警本部捜査第二課".
    A division is one of its force: "警視庁捜査2課" and "県警捜査2課" differ, and so do both from "捜査2課".
    """
    unit = unify_place(plain(value))
    force = _FORCE.match(unit) or _OF_PREFECTURE.match(unit)
    of, rest = "", unit
    if force:
        area = force[1] or force[2]
        of = f"{area}警" if area else "警視庁"
        rest = unit[force.end() :]
    if rest.endswith("署") and rest not in ("署", "警察署"):
        return Form(rest.removesuffix("警察署").removesuffix("署") + "署", _HEADQUARTERS.get(of, of))
    rest = _DIVISION.sub(lambda division: f"{numeral(division[1])}課", rest)
    if len(of) > 2 and of != "警視庁":
        return Form(of[-2:] + rest, of)
    return Form(of + rest)

"""Names of laws and crimes in the form in which they are compared."""

import functools
import re
from pathlib import Path

from recipekit import yamlfile
from recipekit.errors import UserError
from recipekit.normal_text import Form, kind, plain
from recipekit.runs import relative

LAWS = Path(__file__).parent / "laws.yml"
_SECTIONS = ("laws", "crimes", "spellings")
_SUSPICION = re.compile("(?<=.)(?:の?(?:疑い|容疑)|(?<=..)(?:の罪|(?<!犯)罪))$")
_BRACKETS = re.compile(r"([^()]+)\(([^()]+)\)(違反)?")
_VIOLATION = re.compile("(.+?)違反(.*)")
_STAGES = re.compile("(?:未遂|予備|幇助|教唆)+")
_STAGE = re.compile(f"(.+?)((?:致死傷|致死|致傷)?(?:{_STAGES.pattern})?)")
_LAW = re.compile("(?:法|法律|条例|規則)(?:違反.*)?$")


def read_laws(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read the names that mean the same.

    Returns:
        Name -> the name that counts, and spelling -> the spelling that counts; what counts is among the names.

    Raises:
        UserError: The file cannot be read, is not lists of names under laws, crimes and spellings, or has a name twice.
    """
    data, lines = yamlfile.load(path)
    shown = relative(path)
    problems = [
        f"{shown}:{lines.get((key,), 1)}: {key}: expected the keys {', '.join(_SECTIONS)}, each with names below it"
        for key in dict.fromkeys((*_SECTIONS, *data))
        if key not in _SECTIONS or not isinstance(data.get(key), dict)
    ]
    known: dict[str, str] = {}
    where: dict[str, str] = {}
    for section in () if problems else _SECTIONS:
        for name, others in data[section].items():
            place = f"{shown}:{lines[(section, name)]}"
            if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
                problems.append(f"{place}: {section}.{name}: expected a list of names in [ ], found {others!r}")
                continue
            for form in map(plain, (str(name), *others)):
                if form in where:
                    problems.append(f"{place}: '{form}' stands twice (first at {where[form]}); keep one of them")
                where[form], known[form] = place, plain(str(name))
    if problems:
        raise UserError(problems)
    spellings = {plain(other): str(name) for name, others in data["spellings"].items() for other in others}
    return known, spellings


@functools.cache
def _laws() -> tuple[dict[str, str], re.Pattern[str], dict[str, str]]:
    known, spellings = read_laws(LAWS)
    return known, re.compile("|".join(map(re.escape, spellings)) or "(?!)"), spellings


def _canonical(name: str, known: dict[str, str]) -> str:
    if name in known:
        return known[name]
    if name[:1] in "都道府県" and name[1:] in known:  # 県迷惑行為防止条例
        return name[0] + known[name[1:]]
    if (stage := _STAGE.fullmatch(name)) and stage[1] in known:
        return known[stage[1]] + stage[2]
    return name


def _without_suspicion(name: str) -> str:
    longer = ""
    while name != longer:
        longer, name = name, _SUSPICION.sub("", name)
    return name


@kind
def law(value: str) -> Form:
    """Compare laws and crimes by any of their names in laws.yml; 罪, 容疑, の疑い and a law's 違反 may be omitted.

    "道交法違反(酒気帯び運転)の疑い", "道路交通法違反" and "道路交通法" agree; what stands in brackets behind a law
    may be omitted, but not be something else: "道交法違反(無免許運転)". Of a crime it is part: 詐欺(未遂) is 詐欺未遂.
    """
    known, spelling, spellings = _laws()
    name = spelling.sub(lambda word: spellings[word[0]], _without_suspicion(plain(value)))
    brackets = _BRACKETS.fullmatch(name)
    if not brackets:
        return Form(_named(name, known))
    name = _named(_without_suspicion(brackets[1]) + (brackets[3] or ""), known)
    detail = _named(_without_suspicion(brackets[2]), known)
    if _LAW.search(name) and not _STAGES.fullmatch(detail):
        return Form(name, detail)
    return Form(_named(name + detail, known))  # of a crime, brackets say which: 傷害(致死) is another one than 傷害


def _named(name: str, known: dict[str, str]) -> str:
    violation = _VIOLATION.fullmatch(name)
    if violation and _LAW.search(whose := _canonical(violation[1], known)):
        return whose + (violation[2] and f"違反{violation[2]}")
    return _canonical(name, known)

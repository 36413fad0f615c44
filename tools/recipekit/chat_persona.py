"""Rules by which a reply fits its persona: its name, the first person, the manner of speaking, what it never says."""

import re
import unicodedata
from functools import cache
from typing import NamedTuple

from recipekit.chat_measures import Reading, words

_SELF = re.compile(r"あなた(?:の名前)?は[、「『\s]*([^\s、。「」『』です]{1,12}?)[」』]?(?:です|という|、|。|\s|$)")
_FIRST = re.compile(r"一人称(?:は|：|:|が|に)?\s*[「『]?(\w{1,4}?)[」』]?(?:$|[\s、。，,をでだ」』])", re.MULTILINE)
_MANNER = re.compile(r"[^\n。]*(?:話し方|口調|語り口|しゃべり方)[^\n]*")
_QUESTION = re.compile(r"[?？]\s*$")
_SENTENCE = re.compile(r"[^。．!?！？\n]+[。．!?！？]*")
_NOT = r"(?:ない|ません|ず|避け|なし|禁止)"


class Persona(NamedTuple):
    """What can be checked of a persona.

    Attributes:
        name: The character's name; None: nobody knows.
        first_person: A key of first_persons in chat_words.yml; None: the persona names none.
        uses: What its manner of speaking has: "particles", "emoji".
        polite: Whether it speaks with です and ます; None: the persona does not say.
    """

    name: str | None
    first_person: str | None
    uses: tuple[str, ...]
    polite: bool | None


class Fit(NamedTuple):
    """How a reply fits its persona; None: there is nothing to check.

    Attributes:
        breaks: Whether it drops its role.
        name: Whether it says the character's name, where it was asked for it.
        first_person: Whether it keeps to the persona's first person, where it uses any.
        manner: Whether it speaks as the persona says.
    """

    breaks: bool
    name: bool | None
    first_person: bool | None
    manner: bool | None

    @property
    def consistent(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks and False not in (self.name, self.first_person, self.manner)


@cache
def persona_of(text: str, character: str | None) -> Persona:
    """Read what can be checked of a persona.

    Args:
        text: The persona, or the whole system message.
        character: The name that is declared; None: the text says it.
    """
    named = _SELF.search(text)
    first = _FIRST.search(text)
    ways = [key for key, forms in words()["first_persons"].items() if first and first[1] in (key, *forms)]
    manner = " ".join(_MANNER.findall(text))
    uses = {"particles": r"語気詞|語尾|終助詞|[「（(、]ね[、」）)]", "emoji": r"絵文字"}
    found = [name for name, what in uses.items() if _says(what, manner)]
    polite = True if _says(r"です・?ます|敬語|丁寧", manner) else None
    if re.search(r"タメ口|ため口|くだけた|砕けた|敬語(?:は|を)?使わ", manner):
        polite = False
    return Persona(character or (named[1] if named else None), ways[0] if ways else None, tuple(found), polite)


def _says(what: str, manner: str) -> bool:
    return bool(re.search(what, manner)) and not re.search(rf"(?:{what})[^、。\n]{{0,8}}{_NOT}", manner)


def fit(persona: Persona, asked: str, reply: str, reading: Reading) -> Fit:
    """Tell how a reply fits its persona.

    Args:
        persona: Who replies.
        asked: What the user said last.
        reply: The reply.
        reading: What is measured in the reply.
    """
    name = None
    if persona.name and _asks_name().search(unicodedata.normalize("NFKC", asked)):
        name = persona.name in reply
    first = None
    if persona.first_person and (used := set(_pronouns().findall(reply))):
        first = used <= set(words()["first_persons"][persona.first_person])
    checks = []
    if persona.uses and reply:
        checks.append(any(getattr(reading, what) for what in persona.uses))
    if persona.polite is not None and reply:
        checks.append(bool(reading.polite) == persona.polite)
    return Fit(breaks(reply), name, first, all(checks) if checks else None)


@cache
def _asks_name() -> re.Pattern[str]:
    return re.compile(words()["asks_name"])


@cache
def _pronouns() -> re.Pattern[str]:
    forms = [form for group in words()["first_persons"].values() for form in group]
    forms = sorted(forms, key=len, reverse=True)
    return re.compile(rf"(?<![ぁ-ん一-龠])(?:{'|'.join(forms)})(?=は|が|も|の|を|に|と|、|って|だ|で|じ|ね|ら|た|$)")


@cache
def _rules() -> tuple[re.Pattern[str], ...]:
    rules = words()["breaks"]
    terms = f"(?:{'|'.join(rules['terms'])})"
    first = f"(?:{'|'.join(form for group in words()['first_persons'].values() for form in group)})"
    whole = rf"{terms}[ァ-ヶー一-龠A-Za-z]{{0,8}}"  # AI, or AIアシスタント
    says_so = rf"{whole}{rules['copula']}|{first}(?:は|って|も|、)[^、。]{{0,12}}?{whole}(?:[、。!]|$)"
    denies = rf"{terms}.{{0,10}}?{rules['negations']}"
    return re.compile(says_so), re.compile(denies), re.compile("|".join(rules["phrases"]))


def breaks(reply: str) -> bool:
    """Tell whether a reply drops its role: calls itself a program, or says so in other words.

    A sentence that asks, or denies it, is no break.
    """
    says_so, denies, phrases = _rules()
    for sentence in _SENTENCE.findall(unicodedata.normalize("NFKC", reply)):
        if _QUESTION.search(sentence):
            continue
        if phrases.search(sentence) or (says_so.search(sentence) and not denies.search(sentence)):
            return True
    return False

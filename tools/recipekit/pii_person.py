"""Names of persons in Japanese text: a dictionary's words for names, and what stands before titles and behind cues."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import sudachipy

from recipekit.errors import UserError
from recipekit.name_rule import CJK, MASK, READING, names_before_titles
from recipekit.name_words import (
    BEHIND,
    CALLED_END,
    CONTACT,
    CUE,
    DOTTED,
    FIRM_BEFORE,
    FIRM_BEHIND,
    KANA_PAIR,
    LATIN,
    LISTED,
    LISTED_ON,
    MORE_KANA,
    NO_GIVEN,
    NO_NAME,
    PAIR,
    PLACE_BEHIND,
    PREFECTURES,
    TITLED,
)

Name = tuple[int, int, bool]  # start, end, whether it is sure

_LONGEST = 8_000  # characters for the tokenizer, which takes 49,149 bytes
_SEPARATORS = {" ": "S", "\u3000": "S", "・": "D", "･": "D", "＝": "D", "=": "D"}
_PARTICLES = "から まで より では には とは など です ます した して って とも ほか".split()  # noqa: SIM905


class Token(NamedTuple):
    """A word.

    Attributes:
        start: Its first character.
        end: Behind its last one.
        code: F family name, G given name, P other name, L place, X other proper noun, N noun, S space, D dot, o other.
    """

    start: int
    end: int
    code: str


class Model:
    """Finds names by GiNZA's model, which reads whole sentences: more of them, a hundred times as slowly."""

    def __init__(self) -> None:
        try:
            import spacy

            unused = ["parser", "lemmatizer", "tagger", "morphologizer", "bunsetu_recognizer", "compound_splitter"]
            self._model = spacy.load("ja_ginza", exclude=unused)
        except (ImportError, OSError):
            raise UserError("GiNZA is not installed; run: uv sync, or go without it: --fast") from None

    def find(self, text: str) -> Iterator[Name]:
        """Yield names, none of them sure."""
        for offset, part in _parts(text):
            for entity in self._model(part).ents:
                if entity.label_ == "Person" and MASK not in entity.text:
                    yield offset + entity.start_char, offset + entity.end_char, False


class Person:
    """Finds names.

    The dictionary is SudachiDict core, read in context: 広島 is a name before さん and a place before 市.
    """

    def __init__(self) -> None:
        dictionary = sudachipy.Dictionary()
        self._tokenizer = dictionary.create(mode=sudachipy.SplitMode.C)
        proper = ("名詞", "固有名詞")
        kinds = {
            "F": (*proper, "人名", "姓"),
            "G": (*proper, "人名", "名"),
            "P": (*proper, "人名"),
            "L": (*proper, "地名"),
        }
        kinds |= {"X": proper, "N": ("名詞", "普通名詞")}
        self._kinds = list(kinds.items())
        self._codes: dict[int, str] = {}  # of parts of speech, by their ids

    def find(self, text: str) -> Iterator[Name]:
        """Yield names, which may overlap each other."""
        tokens = self._tokens(text)
        found = [*_runs(text, tokens), *_titled(text, tokens), *_cued(text, tokens), *_foreign(text, tokens)]
        yield from found
        for start, end, sure in found:
            yield from _listed(text, tokens, start, end, sure)
            if sure and (reading := READING.match(text, end)) and len(reading[1]) > 2:
                yield *reading.span(1), True

    def split(self, name: str) -> int:
        """Return how many characters of a name in one are the family name: all, or 0 where it is a given name alone."""
        tokens = self._tokens(name)
        if len(tokens) == 1:
            return 0 if tokens[0].code == "G" else len(name) if len(name) < 4 or tokens[0].code == "F" else 2
        return tokens[0].end

    def is_name(self, word: str) -> bool:
        """Tell whether a word on its own is a name to the dictionary."""
        return all(token.code in "FGP" for token in self._tokens(word))

    def _tokens(self, text: str) -> list[Token]:
        return [
            Token(offset + morpheme.begin(), offset + morpheme.end(), self._code(morpheme))
            for offset, part in _parts(text)
            for morpheme in self._tokenizer.tokenize(part)
        ]

    def _code(self, morpheme: sudachipy.Morpheme) -> str:
        number = morpheme.part_of_speech_id()
        if number not in self._codes:
            speech = morpheme.part_of_speech()
            self._codes[number] = next((code for code, pos in self._kinds if speech[: len(pos)] == pos), "o")
        if self._codes[number] == "o" and morpheme.end() - morpheme.begin() == 1:
            return _SEPARATORS.get(morpheme.surface(), "o")
        return self._codes[number]


_RUN = re.compile("[FLX]S?G(?=S?[^G]|$)|F[GP]|G|F|P(?:D?P)*")


def _runs(text: str, tokens: list[Token]) -> Iterator[Name]:
    """Yield what the dictionary says: a family and a given name, or either where no place or firm has that name."""
    codes = "".join(token.code for token in tokens)
    for match in _RUN.finditer(codes):
        start, end = tokens[match.start()].start, tokens[match.end() - 1].end
        behind = codes[match.end() : match.end() + 1]
        if match[0][-1] in "FG" and (more := MORE_KANA.match(text, end)):
            end = more.end()
        if BEHIND.match(text, end) or len(match[0]) > 1 and match[0][0] in "FLX":
            yield start, end, True
        elif PLACE_BEHIND.match(text, end) or FIRM_BEHIND.match(text, end) or FIRM_BEFORE.search(text, 0, start):
            continue
        elif match[0] == "F" and behind == "N" and _given_like(text, tokens, match.end()):
            yield start, tokens[match.end()].end, False
        elif end - start > 1 and not (match[0] == "F" and PREFECTURES.fullmatch(text, start, end)):
            yield start, end, False
    for match in CONTACT.finditer(text):
        first = bisect_left(tokens, (match.start(),))
        if (
            first < len(tokens)
            and tokens[first].end == match.end()
            and tokens[first].code in "FGPXNL"
            and not NO_NAME.fullmatch(match[0])
        ):
            yield *match.span(), False
    for match in PAIR.finditer(text):
        end = match.start(2) + len(CALLED_END.sub("", match[2]))
        first = bisect_left(tokens, (match.start(),))
        words = [token for token in tokens[first : first + 4] if token.end <= end]
        common = any(token.code in "No" and NO_NAME.fullmatch(text[token.start : token.end]) for token in words)
        kinds = [token.code for token in words]
        short = kinds == ["L", "S", "N"] and len(match[2]) <= 2 and not PLACE_BEHIND.match(match[2][-1])
        if (set(kinds) & set("FGPX") or short) and not common and not (kinds[0] in "GN" and set(kinds[1:]) & set("FX")):
            yield match.start(), end, True
    for match in KANA_PAIR.finditer(text):
        yield *match.span(), False


def _given_like(text: str, tokens: list[Token], place: int) -> bool:
    """Tell whether a noun behind a family name may be a given name: a short one that ends there."""
    noun = tokens[place]
    word = text[noun.start : noun.end]
    ends = noun.end == len(text) or not re.match(f"[{CJK}]", text[noun.end])
    return ends and len(word) <= 3 and not NO_GIVEN.fullmatch(word) and not FIRM_BEHIND.match(word)


def _titled(text: str, tokens: list[Token]) -> Iterator[Name]:
    """Yield what stands before titles, less the occupation before it."""
    for start, name, sure in names_before_titles(text):
        name = name.removesuffix("両") if len(name) > 2 else name
        if (
            re.fullmatch("[ぁ-ゖ]{2,4}", name)
            and sure
            and tokens[bisect_left(tokens, (start,)) % len(tokens)].start == start
        ):
            yield start, start + len(name), True
        elif begin := _name_start(text, tokens, start, start + len(name)):
            yield begin[0], begin[1], sure
    for match in TITLED.finditer(text):
        end = match.end(1) - (match[1].endswith("両") and len(match[1]) > 2)
        if begin := _name_start(text, tokens, match.start(), end):
            yield begin[0], begin[1], begin[2]


def _name_start(text: str, tokens: list[Token], start: int, end: int) -> Name | None:
    """Cut what stands before a title to the name at its end; None where no word ends there, or it names nobody."""
    last = bisect_left(tokens, (end,)) - 1
    if last < 0 or tokens[last].end != end:
        return None
    while last >= 0 and tokens[last].code == "S":
        last -= 1
    first, codes = last, tokens[last].code
    while first > 0 and tokens[first - 1].start >= start and end - tokens[first - 1].start <= 20:
        before = tokens[first - 1]
        size = before.end - before.start
        if "F" in codes and before.code not in "DS" and codes[0] not in "DS":
            break
        if before.code not in "FGPLXDS" and not _kana(text, before):
            common = NO_NAME.fullmatch(text[before.start : before.end])
            short = end - tokens[first].start <= 2 and size <= 3 and before.code == "N" and "F" not in codes
            if common or size > 1 and not short or set(codes) & set("FP"):
                break
        if (
            before.code == "L"
            and codes[0] in "FLX"
            or before.code == "o"
            and size == 1
            and text[before.start] in "のはがをにとでもへや"
        ):
            break
        first, codes = first - 1, before.code + codes
    while tokens[first].code in "SD" and first < last:
        first += 1
    name = text[tokens[first].start : tokens[last].end]
    if (NO_NAME.fullmatch(name) or codes == "o" and len(name) < 3 and name[0] in "のはがをにとでもへや") and not set(
        codes
    ) & set("FGP"):
        return None
    return tokens[first].start, tokens[last].end, bool(set(codes) & set("FGPL"))


def _kana(text: str, token: Token) -> bool:
    word = text[token.start : token.end]
    return token.code != "N" and word not in _PARTICLES and bool(re.fullmatch("[ぁ-ゖ]{1,3}|[ァ-ヺー]+", word))


def _cued(text: str, tokens: list[Token]) -> Iterator[Name]:
    """Yield the one or two words behind 氏名, 原告, 長男, ... that may be a name."""
    for cue in CUE.finditer(text):
        first = bisect_left(tokens, (cue.end(),))
        words: list[Token] = []
        for token in tokens[first : first + 4]:
            if token.code not in "FGPLXNSD" or sum(w.code not in "SD" for w in words) == 2:
                break
            words.append(token)
        while words and words[-1].code in "SD":
            words.pop()
        if not words or words[0].start != cue.end():
            continue
        name, codes = text[words[0].start : words[-1].end], {word.code for word in words}
        if codes & set("FGPX") or cue["gap"] and "L" in codes or len(words) > 1 and codes & set("LN"):
            parts = [text[word.start : word.end] for word in words]
            if (
                not any(NO_NAME.fullmatch(part) for part in parts)
                and not FIRM_BEHIND.fullmatch(parts[-1])
                and len(name) > 1
            ):
                yield words[0].start, words[-1].end, bool(codes & set("FGP"))


def _foreign(text: str, tokens: list[Token]) -> Iterator[Name]:
    """Yield names in katakana with dots, and in Latin letters."""
    for match in DOTTED.finditer(text):
        first = bisect_left(tokens, (match.start(),))
        named = any(token.code in "FGP" for token in tokens[first : first + 8] if token.end <= match.end())
        yield *match.span(), named and bool(BEHIND.match(text, match.end()))
    for match in LATIN.finditer(text):
        yield *match.span(), bool(BEHIND.match(text, match.end()))


def _listed(text: str, tokens: list[Token], start: int, end: int, sure: bool) -> Iterator[Name]:
    """Yield the neighbours of a name in a list: 鹿島岬、及川樹."""
    before = LISTED.search(text, max(0, start - 16), start)
    behind = LISTED_ON.match(text, end)
    for match in filter(None, (before, behind)):
        between = text[match.end(1) : start] + text[end : match.start(1)]
        if not sure and not set("・→") & set(between):
            continue
        name = CALLED_END.sub("", match[1])
        begin, end = match.start(1), match.start(1) + len(name)
        words = tokens[bisect_left(tokens, (begin,)) : bisect_left(tokens, (end,))]
        whole = 0 < len(words) <= 3 and words[0].start == begin and words[-1].end == end
        named = any(word.code in "FGPLX" for word in words)
        if whole and named and len(name) > 1 and not NO_NAME.fullmatch(name):
            yield begin, end, False


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text at line breaks and full stops into what the tokenizer takes."""
    start = 0
    while len(text) - start > _LONGEST:
        cut = max(text.rfind(mark, start, start + _LONGEST) for mark in "\n。") + 1
        cut = cut if cut > start else start + _LONGEST
        yield start, text[start:cut]
        start = cut
    yield start, text[start:]

"""Names of persons in Japanese text: a dictionary's words for names, and the rule of name_rule.py for the others."""

import re
from collections.abc import Iterator

import sudachipy

from recipekit.name_rule import AGE, HONORIFICS, READING, ROLES, SHORT, TITLES, names_before_titles

_LONGEST = 8_000  # characters for the tokenizer, which takes 49,149 bytes
_BEHIND = re.compile(
    rf"(?:{READING.pattern})?[ \u3000]?(?:(?:{ROLES}|{TITLES})?{AGE}|{HONORIFICS}|{ROLES}|{SHORT}|{TITLES})"
)
_PLACE_BEHIND = re.compile("[市区町村県府郡駅署川山港橋通線台丘湖島寺城宮門湾岬館園校道院邸]")
_FIRM_BEHIND = re.compile(
    "建設|産業|工業|商店|商事|銀行|製作所|工務店|組|電機|運輸|運送|食品|製薬|自動車|不動産|酒造|病院|医院|大学|高校|中学|小学|"
    "神社|地検|地裁|高裁|簡裁|支店|支社|営業所|工場|新聞|放送|鉄道|電鉄|空港|球場|地方|地区|地域|方面|出身|大会|派|流|式|家"
)
_FIRM_BEFORE = re.compile(r"(?:株式会社|有限会社|㈱|㈲|\(株\)|（株）|合同会社|社団法人|財団法人)$")


class Person:
    """Finds names.

    The dictionary is SudachiDict core; its words are contextual, so 広島 is a name before さん and a place before 市.
    """

    def __init__(self) -> None:
        dictionary = sudachipy.Dictionary()
        self._tokenizer = dictionary.create(mode=sudachipy.SplitMode.C)
        self._family = dictionary.pos_matcher([("名詞", "固有名詞", "人名", "姓")])
        self._given = dictionary.pos_matcher([("名詞", "固有名詞", "人名", "名")])
        self._other = dictionary.pos_matcher([("名詞", "固有名詞", "人名", "一般")])
        self._place = dictionary.pos_matcher([("名詞", "固有名詞", "地名")])
        self._noun = dictionary.pos_matcher([("名詞", "普通名詞")])

    def find(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """Yield start, end and whether it is sure, of names."""
        yield from self.dictionary(text)
        yield from self.rule(text)

    def rule(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """Yield what the rule for titles finds, less the occupations before a name."""
        for start, name, sure in names_before_titles(text):
            start += self._occupation(name)
            yield start, start + len(name) - self._occupation(name), sure

    def dictionary(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """Yield runs of the dictionary's words for names."""
        for offset, part in _parts(text):
            run: list[tuple[int, int, str]] = []
            for morpheme in self._tokenizer.tokenize(part):
                kind = self._kind(morpheme)
                joins = morpheme.surface() in " \u3000・･＝=" and run
                if kind or joins:
                    run.append((offset + morpheme.begin(), offset + morpheme.end(), kind))
                    continue
                yield from _names(text, run)
                run = []
            yield from _names(text, run)

    def split(self, name: str) -> int:
        """Return how many characters of a name in one are the family name: all, or 0 where it is a given name alone."""
        morphemes = list(self._tokenizer.tokenize(name))
        if len(morphemes) == 1:
            if self._given(morphemes[0]):
                return 0
            return len(name) if len(name) < 4 or self._family(morphemes[0]) else 2
        return morphemes[0].end()

    def is_name(self, word: str) -> bool:
        """Tell whether a word on its own is a name to the dictionary."""
        morphemes = list(self._tokenizer.tokenize(word))
        return all(self._kind(morpheme) for morpheme in morphemes)

    def _kind(self, morpheme: sudachipy.Morpheme) -> str:
        if self._family(morpheme):
            return "family"
        if self._given(morpheme):
            return "given"
        return "other" if self._other(morpheme) else ""

    def _occupation(self, name: str) -> int:
        """Return how many characters before a name are common words: 会社員 before 田中花子."""
        cut = 0
        morphemes = list(self._tokenizer.tokenize(name))
        for morpheme, behind in zip(morphemes, morphemes[1:], strict=False):
            if (self._noun(morpheme) and len(morpheme.surface()) > 1) and (self._kind(behind) or cut) or self._noun(morpheme) and len(morpheme.surface()) > 2:
                cut = morpheme.end()
        return cut


def _names(text: str, run: list[tuple[int, int, str]]) -> Iterator[tuple[int, int, bool]]:
    """Yield the names of a run of words: a family name and what follows, up to the next family name."""
    while run and not run[-1][2]:
        run = run[:-1]
    if not run:
        return
    start, end = run[0][0], run[-1][1]
    kinds = {kind for *_, kind in run} - {""}
    titled = bool(_BEHIND.match(text, end))
    whole = "family" in kinds and "given" in kinds or "other" in kinds and len(run) > 2
    if not titled and (
        _PLACE_BEHIND.match(text, end) or _FIRM_BEHIND.match(text, end) or _FIRM_BEFORE.search(text, 0, start)
    ):
        return
    yield start, end, whole or titled


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text at line breaks and full stops into what the tokenizer takes."""
    start = 0
    while len(text) - start > _LONGEST:
        cut = max(text.rfind(mark, start, start + _LONGEST) for mark in "\n。") + 1
        cut = cut if cut > start else start + _LONGEST
        yield start, text[start:cut]
        start = cut
    yield start, text[start:]

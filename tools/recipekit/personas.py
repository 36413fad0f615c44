"""Nemotron-Personas: descriptions of invented people -> texts to tell age, sex and occupation from.

What would give an answer away is masked: ages in figures or words, words of sex, the person's name, which tells their
sex, and the title of their occupation. Facts stay, from which a reader concludes: a retirement, a child's birth.
"""

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipekit import yamlfile
from recipekit.errors import UserError
from recipekit.raw import key

MARK = "＊＊"
OTHER = "その他"
KINDS = ("name", "occupation", "age", "sex")
SEXES = ("男", "女")
OLDEST = 150  # years

_KANJI = "一-龯々"
_DIGITS = "0-9０-９〇一二三四五六七八九十百"
_AGES = (
    rf"(?:満)?[{_DIGITS}]{{1,4}}(?:歳|才)(?:代|半ば|前後)?",
    r"(?:[1-9１-９][0０]|[二三四五六七八九]?十)代(?!目)(?:前半|半ば|後半)?",
    rf"(?:(?:明治|大正|昭和|平成|令和)(?:元|[{_DIGITS}]{{1,4}})?|[12１２][{_DIGITS}]{{3}})(?:年代?)?生まれ",
    "還暦|古希|古稀|喜寿|傘寿|米寿|卒寿|白寿|百寿|アラサー|アラフォー|アラフィフ|アラ還",
)
_SEXES = (
    "男性|女性|男子|女子|少年|少女|婦人|主婦|主夫|紳士|淑女|彼氏|彼女|奥さん|奥様|奥さま|旦那|ご主人|女将|サラリーマン",
    "父親|母親|祖父(?!母)|祖母|おじいさん|おばあさん|おじいちゃん|おばあちゃん|パパ|ママ(?!チャリ)|シングルマザー",
    "元夫|元妻|亡夫|亡妻|夫人|長男|次男|三男|長女|次女|三女|一人息子|一人娘|孫息子|孫娘|息子|娘",
    rf"(?<![{_KANJI}])[男女](?!女)(?:優|医|流|手)?(?![{_KANJI}])",
    rf"(?<![{_KANJI}])(?:[夫妻父母兄弟姉妹僕俺嫁婿]|彼(?!ら))(?![{_KANJI}])",
    "女優|男優|女医|女流",
)
_age = re.compile("|".join(_AGES))
_sex = re.compile("|".join(_SEXES))
# At the start of a description: a family name, a space, a given name.
_full_name = re.compile(
    rf"([{_KANJI}ぁ-んァ-ヶー]{{1,8}})[ \u3000・]([{_KANJI}ぁ-んァ-ヶー]{{1,8}}?)(?=さん|氏|は|が|の|、|，)"
)
_alone = re.compile(rf"(?<![{_KANJI}])[{_KANJI}](?![{_KANJI}])")
_title_parts = re.compile(r"[・、,，/／()（）\s]+")


class Masker:
    """Masks what gives the labels of one person away, and counts it."""

    def __init__(self, texts: Sequence[str], occupation: str) -> None:
        """Take all texts about a person, whose beginnings tell the name, and the title of the occupation."""
        self.counts: Counter[str] = Counter()
        parts = [part for part in _title_parts.split(occupation) if len(part) > 1]
        titles = sorted({occupation.strip(), *parts} - {""}, key=len, reverse=True)
        full, self.given = next(
            (_names(*match.groups()) for text in texts if (match := _full_name.match(text))), ([], "")
        )
        # Plain words: to compile an expression of each person's would take longer than all that is masked by it.
        self.words = [("name", word) for word in full] + [("occupation", word) for word in titles]

    def __call__(self, text: str) -> str:
        """Mask a text."""
        for kind, word in self.words:
            if word in text:
                self.counts[kind] += text.count(word)
                text = text.replace(word, MARK)
        if self.given and self.given in text:
            text = _alone.sub(self._given, text)
        for kind, pattern in (("age", _age), ("sex", _sex)):
            text, count = pattern.subn(MARK, text)
            if count:
                self.counts[kind] += count
        return text

    def _given(self, match: re.Match[str]) -> str:
        if match[0] != self.given:
            return match[0]
        self.counts["name"] += 1
        return MARK


def _names(family: str, given: str) -> tuple[list[str], str]:
    """Return what is masked wherever it stands, and a name of one character, which 誠実 holds as well."""
    full = [f"{family}{between}{given}" for between in (" ", "\u3000", "・", "")]
    return (full, given) if len(given) == 1 else ([*full, given], "")


class PersonaConverter:
    """Makes {"id", "body", "label"} of a row of Nemotron-Personas.

    Args:
        folder: The recipe's folder, which `occupations` of the spec lies in.
        spec: data.rows of task.yml: `text`, the columns of the body, and `occupations`, group -> words of a title.
    """

    def __init__(self, folder: Path, spec: Mapping[str, Any]) -> None:
        self.columns: list[str] = spec["text"]
        self.groups = read_groups(folder / spec["occupations"])
        self.group_of: dict[str, str] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Convert a row; "masked" of the result counts what was masked.

        Raises:
            UserError: The row lacks a column, or a value is none that a person can have; all at once.
        """
        problems = [
            f"key '{column}': expected a text, found {repr(row.get(column))[:40]}; add it or remove the row"
            for column in ("uuid", *self.columns)
            if not isinstance(row.get(column), str) or not row[column].strip()
        ]
        age, sex, title = (row.get(name) for name in self.names())
        if isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age <= OLDEST:
            problems.append(f"key 'age': expected years, found {age!r}; mend it or remove the row")
        if sex not in SEXES:
            problems.append(f"key 'sex': expected {' or '.join(SEXES)}, found {sex!r}; mend it or remove the row")
        if not isinstance(title, str):
            title = ""
            problems.append(
                f"key 'occupation': expected a text, found {row.get('occupation')!r}; mend it or remove the row"
            )
        if problems:
            raise UserError(problems)
        texts = [row[column] for column in self.columns]
        mask = Masker(texts, title)
        body = "\n".join(mask(" ".join(text.split())) for text in texts)
        label = {"age": age, "sex": sex, "occupation": self._group(title)}
        return {"id": row["uuid"], "body": body, "label": label, "masked": mask.counts}

    def names(self) -> list[str]:
        """Name the keys that the label is made of."""
        return ["age", "sex", "occupation"]

    def _group(self, title: str) -> str:
        if title not in self.group_of:
            matches = (group for group, words in self.groups.items() if any(word in title for word in words))
            self.group_of[title] = next(matches, OTHER)
        return self.group_of[title]


def read_groups(path: Path) -> dict[str, list[str]]:
    """Read the groups of occupations: group -> words, one of which its titles hold.

    Raises:
        UserError: The file is missing or says something else.
    """
    groups, lines = yamlfile.load(path)
    problems = [
        f"{path}:{lines.get((name,), 1)}: {name}: expected a list of words, found {str(words)[:40]!r}"
        for name, words in groups.items()
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words)
    ]
    if problems:
        raise UserError(problems)
    return groups


class Choice:
    """The rows of a file whose digests of seed and uuid are the least: a choice spread over the file, for good."""

    def __init__(self, seed: int, most: int | None = None) -> None:
        """Take the greatest digest of the choice; None chooses all."""
        self.seed, self.most = seed, most

    def digest(self, row: Mapping[str, Any]) -> int:
        """Digest a row's uuid with the seed."""
        return key(f"{self.seed}\0{row.get('uuid')}")

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return self.most is None or self.digest(row) <= self.most

    def up_to(self, limit: int, digests: array) -> "Choice":
        """Choose `limit` of the rows that have these digests."""
        if limit >= len(digests):
            return self
        values = np.frombuffer(digests, np.uint64)
        return Choice(self.seed, int(np.partition(values, limit - 1)[limit - 1]))

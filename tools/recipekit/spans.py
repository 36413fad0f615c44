"""Where extracted values stand in an article: character spans, also of values written in another width or spacing."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

Span = tuple[int, int]  # [start, end) in characters of the article as given


class Mark(NamedTuple):
    """A labelled span of an article."""

    start: int
    end: int
    label: str


def fold(text: str) -> str:
    """Unify widths (NFKC) and drop white space: texts that `find` holds for equal become equal."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def find(article: str, value: str) -> list[Span]:
    """Return every span of a value, in order, none overlapping another.

    The value counts as it is written; only where it does not stand there so, width (NFKC) and white space are ignored:
    "(株)みなと" stands in "㈱ み な と". A part of one character is no span: "株" does not stand in "㈱".
    """
    wanted = fold(value)
    if not wanted:
        return []
    if exact := list(_occurrences(article, value)):
        return [(start, start + len(value)) for start in exact]
    if wanted not in fold(article):
        return []
    folded, starts, ends = _fold_with_places(article)
    spans: list[Span] = []
    position = folded.find(wanted)
    while position >= 0:
        start, end = starts.get(position), ends.get(position + len(wanted))
        whole = start is not None and end is not None
        if whole:
            spans.append((start, end))  # type: ignore[arg-type]
        position = folded.find(wanted, position + (len(wanted) if whole else 1))
    return spans


def contains(article: str, value: str) -> bool:
    """Tell whether a value stands in an article, as `find` finds it; False for a blank value."""
    return (value in article and bool(value.strip())) or bool(find(article, value))


def locate(article: str, values: Mapping[str, Iterable[str]]) -> tuple[list[Mark], list[tuple[str, str]]]:
    """Mark an answer's values in an article.

    Args:
        article: The article as given.
        values: Label -> values.

    Returns:
        Marks in the order of labels, and (label, value) of what stands nowhere. A value is not marked inside a longer
        number (3 in 37) or a longer value (a town in an address), unless it stands nowhere else.
    """
    found = [(label, value, find(article, value)) for label, texts in values.items() for value in dict.fromkeys(texts)]
    everywhere = {span for _, _, spans in found for span in spans}
    marks: list[Mark] = []
    for label, _, spans in found:
        alone = [span for span in spans if not _cuts_number(article, *span)] or spans
        alone = [span for span in alone if not any(_inside(span, other) for other in everywhere)] or alone
        marks += [Mark(*span, label) for span in alone]
    return marks, [(label, value) for label, value, spans in found if not spans]


def cut(article: str, marks: Sequence[Mark]) -> list[tuple[str, list[str]]]:
    """Cut an article where marks begin and end.

    Args:
        article: The article as given.
        marks: Spans inside it, which may overlap.

    Returns:
        Pieces that joined are the article, each with the labels that cover it, in the order of marks.
    """
    points = sorted({0, len(article), *(p for mark in marks for p in (mark.start, mark.end))})
    return [
        (article[start:end], list(dict.fromkeys(m.label for m in marks if m.start <= start and end <= m.end)))
        for start, end in zip(points, points[1:], strict=False)
    ]


def _occurrences(text: str, part: str) -> Iterator[int]:
    position = text.find(part)
    while position >= 0:
        yield position
        position = text.find(part, position + len(part))


@lru_cache(maxsize=1)  # an answer's values are looked for one after another
def _fold_with_places(article: str) -> tuple[str, dict[int, int], dict[int, int]]:
    """Fold an article; and position in the fold -> in the article, for where its clusters start and where they end."""
    folded, starts, ends = "", {}, {}
    for start, end in _clusters(article):
        part = fold(article[start:end])
        if part:
            starts[len(folded)] = start
            folded += part
            ends[len(folded)] = end
    return folded, starts, ends


def _clusters(text: str) -> Iterator[Span]:
    """Cut a text into the parts that NFKC changes one by one: か+◌゙, ｶﾞ and jamo that make one syllable stay together."""
    start, cluster = 0, ""
    for place, character in enumerate(text):
        plain = unicodedata.normalize("NFKD", character)
        joins = cluster and (
            unicodedata.combining(plain[0])
            or unicodedata.normalize("NFKC", cluster + character)
            != unicodedata.normalize("NFKC", cluster) + unicodedata.normalize("NFKC", character)
        )
        if cluster and not joins:
            yield start, place
            start, cluster = place, ""
        cluster += character
    if cluster:
        yield start, len(text)


def _cuts_number(article: str, start: int, end: int) -> bool:
    edges = [place for place in (start, end) if 0 < place < len(article)]
    return any(article[place - 1 : place + 1].isdecimal() for place in edges)


def _inside(span: Span, other: Span) -> bool:
    return other[0] <= span[0] and span[1] <= other[1] and span != other

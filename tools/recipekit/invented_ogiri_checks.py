"""Checks the sources of invented odai: no word of a topic is in another topic or in a frame, every name is known."""

from collections.abc import Collection, Iterator
from typing import Any

from recipekit import sampling
from recipekit.sampling import SLOT, Line

KINDS = ("thing", "who", "place", "act")
SLOTS = {kind + number for kind in KINDS for number in ("", "2")}
FORMS = ("state", "say")
PLAIN = "plain"


def problems(sources: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the topics, the odai and the responses.

    Raises:
        UserError: A word stands twice.
    """
    words = sampling.words_of(spec[kind] for spec in sources["topics"].values() for kind in KINDS)
    yield from _word_problems(sources)
    yield from _literal_problems(sources, words)
    yield from _frame_problems(sources)


def _word_problems(sources: dict[str, Any]) -> Iterator[str]:
    topics = {name: " ".join(spec[kind] for kind in KINDS).split() for name, spec in sources["topics"].items()}
    for name, spec in sources["topics"].items():
        for kind in KINDS:
            words = spec[kind].split()
            if len(words) < 2:
                yield f"{spec[kind].place}: {name}.{kind} has one word, expected two or more; add another"
            yield from (
                f"{spec[kind].place}: '{word}' of {name} holds '{inner}' of {other}; use another word"
                for word in words
                for other, inners in topics.items()
                if other != name
                for inner in inners
                if inner in word
            )


def _literal_problems(sources: dict[str, Any], words: Collection[str]) -> Iterator[str]:
    texts = [frame for part in ("odai", *FORMS, "extras") for frame in sampling.all_frames(sources[part])]
    texts += [Line(name, shapes[0].place) for name, shapes in sources["settings"].items()]
    texts += [colour["said"] for colour in sources["colours"].values()]
    for text in texts:
        yield from sampling.frame_problems(text, SLOTS.__contains__)
        literal = SLOT.sub(" ", text)
        yield from (
            f"{text.place}: the text holds '{word}', a word of a topic; use another word, or a slot"
            for word in words
            if word in literal
        )


def _frame_problems(sources: dict[str, Any]) -> Iterator[str]:
    for frame in sampling.all_frames(sources["extras"]):
        yield from (f"{frame.place}: found <{slot}>, expected no slot here; drop it" for slot in SLOT.findall(frame))
    for frame in sampling.all_frames(sources["odai"]):
        forms = sampling.by_topic(frame)[0]
        if len(forms) != 1 or forms[0] not in FORMS:
            yield f"{frame.place}: found '{frame}', expected state：… or say：…; say how it is answered"
    for form in FORMS:
        for twist, frames in sources[form].items():
            if twist != PLAIN and twist not in sources["twists"]:
                yield f"{frames[0].place}: {form}.{twist} has no worth under twists:; add one, or mend the name"
            yield from (f"{f.place}: found '{f}', expected a slot in it; add one" for f in frames if not SLOT.search(f))

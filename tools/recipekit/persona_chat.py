"""RealPersonaChat: conversations of two people -> a row for each of them, with the traits measured of who speaks.

A corpus is a folder with interlocutors.json and dialogues/*.json, or dialogues.jsonl with a dialogue a line.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from recipekit.errors import UserError
from recipekit.raw import chunks, key
from recipekit.runs import relative

PEOPLE = "interlocutors.json"
SHOWN = 20  # problems
NAMED = 3  # repeated dialogues
MEND = "mend or remove the dialogue"
ROLES = ("話者", "相手")
MASK = "<XX>"
_speaker_mask = re.compile(r"<[A-Z]+>")
_half_width_kana = re.compile(r"[\uff61-\uff9f]+")

Row = dict[str, Any]


@dataclass
class Dialogue:
    """A conversation.

    Attributes:
        place: File, or file:line.
        name: What its rows' ids begin with.
        speakers: The two.
        lines: Who said what, cleaned; nothing that is empty.
    """

    place: str
    name: str
    speakers: list[str]
    lines: list[tuple[str, str]]


@dataclass
class Corpus:
    """What a corpus holds.

    Attributes:
        dialogues: Those that are sound and no repetition of an earlier one.
        labels: Speaker -> label.
        repeated: Places of dialogues that were dropped, with the place of the first.
    """

    dialogues: list[Dialogue] = field(default_factory=list)
    labels: dict[str, dict[str, float]] = field(default_factory=dict)
    repeated: list[tuple[str, str]] = field(default_factory=list)


def clean(text: str) -> str:
    """Make one line of an utterance.

    White space of every kind becomes a space, kana of half width the usual one; a mask that names a speaker (<AB>)
    becomes one that does not (<XX>). Other full-width characters stay, as people write them.
    """
    text = _half_width_kana.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return _speaker_mask.sub(MASK, " ".join(text.split()))


def body(dialogue: Dialogue, speaker: str, context: str) -> str:
    """Write what is read of a speaker.

    Args:
        dialogue: The conversation.
        speaker: One of its two.
        context: "none", their own utterances, one a line; "partner", all, each after who said it.
    """
    if context == "none":
        return "\n".join(text for who, text in dialogue.lines if who == speaker)
    return "\n".join(f"{ROLES[who != speaker]}: {text}" for who, text in dialogue.lines)


def draw(speakers: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Draw speakers into parts, as near to the shares as whole speakers allow.

    They are put into the order of a digest of seed and name and cut at the shares: a few hundred speakers, each drawn
    on their own, would miss the shares by several percent.

    Returns:
        Speaker -> part.
    """
    ordered = sorted(speakers, key=lambda speaker: (key(f"{seed}\0{speaker}"), speaker))
    parts: dict[str, str] = {}
    total, share_so_far, start = sum(shares.values()), 0.0, 0
    for part, share in shares.items():
        share_so_far += share
        end = round(share_so_far / total * len(ordered))
        parts |= dict.fromkeys(ordered[start:end], part)
        start = end
    return dict(sorted(parts.items()))


def rows(corpus: Corpus, parts: Mapping[str, str], order: Sequence[str], context: str, group: str) -> Iterator[Row]:
    """Make the rows of a corpus; no dialogue and no speaker is in two parts.

    Args:
        corpus: The dialogues and labels.
        parts: Speaker -> part.
        order: Parts, the strictest last: a dialogue belongs to the strictest of its speakers' parts, and gives rows for
            those of them who are in it.
        context: As of `body`.
        group: Key that the speaker is put under.
    """
    for dialogue in corpus.dialogues:
        part = max((parts[speaker] for speaker in dialogue.speakers), key=order.index)
        for speaker in dialogue.speakers:
            if parts[speaker] == part:
                name = f"{dialogue.name}-{speaker}"
                text = body(dialogue, speaker, context)
                yield {"id": name, group: speaker, "body": text, "label": corpus.labels[speaker]}


def read(folder: Path, label: Mapping[str, str], scales: Mapping[str, Sequence[float]]) -> Corpus:
    """Read a corpus.

    Args:
        folder: The corpus.
        label: Key of a label -> key of a person's "personality".
        scales: Key of a label -> least and greatest value, of those that have some.

    Raises:
        UserError: Files are missing or broken, a dialogue is not one of two known people, or scores are missing or out
            of scale; the first 20 problems at once.
    """
    problems: list[str] = []
    people = _people(folder / PEOPLE)
    corpus = Corpus()
    seen: dict[Any, str] = {}
    judged: set[str] = set()
    for place, stem, found in _documents(folder, problems):
        own = list(_problems(found, people))
        if own:
            problems += [f"{place}: {problem}; {MEND}" for problem in own]
            continue
        for speaker in set(found["interlocutors"]) - judged:
            judged.add(speaker)
            corpus.labels[speaker], wrong = _label(people[speaker], label, scales)
            problems += [f"{relative(folder / PEOPLE)}: {speaker}: {problem}" for problem in wrong]
        dialogue = _dialogue(place, stem, found)
        number = found.get("dialogue_id")
        same = [("id", str(number))] if number is not None else []
        keys = [*same, ("text", key(repr(dialogue.lines)))]
        if first := next((seen[each] for each in keys if each in seen), None):
            corpus.repeated.append((place, first))
            continue
        seen |= dict.fromkeys(keys, place)
        corpus.dialogues.append(dialogue)
    if problems:
        more = [f"{relative(folder)}: and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise UserError(problems[:SHOWN] + more)
    return corpus


def told(corpus: Corpus) -> list[str]:
    """Say what was left out of a corpus."""
    if not corpus.repeated:
        return []
    named = ", ".join(f"{Path(place).name} as {Path(first).name}" for place, first in corpus.repeated[:NAMED])
    more = f" and {len(corpus.repeated) - NAMED:,} more" if len(corpus.repeated) > NAMED else ""
    return [f"{len(corpus.repeated):,} repeated dialogues dropped: {named}{more}"]


def _people(path: Path) -> dict[str, Any]:
    try:
        people = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{relative(path)}: {error.strerror}; expected the corpus's speakers and their scores"
        ) from None
    except ValueError as error:
        raise UserError(f"{relative(path)}: not valid JSON: {error}; unpack the archive again") from None
    if not isinstance(people, dict) or not all(isinstance(person, dict) for person in people.values()):
        raise UserError(f"{relative(path)}: expected a JSON object, speaker -> what is known of them; mend it")
    return people


def _documents(folder: Path, problems: list[str]) -> Iterator[tuple[str, str | None, Row]]:
    """Yield place, the name of a file of its own, and content of every dialogue."""
    single, many = folder / "dialogues.jsonl", folder / "dialogues"
    if single.is_file() == many.is_dir():
        found = "both" if single.is_file() else "neither"
        raise UserError(f"{relative(folder)}: expected dialogues.jsonl or the folder dialogues, found {found}")
    if single.is_file():
        line = 1
        for chunk in chunks(single):
            for at, row in chunk.rows(line):
                if isinstance(row, dict):
                    yield f"{relative(single)}:{at}", None, row
                else:
                    problems.append(f"{relative(single)}:{at}: {row}")
            line += chunk.lines
        return
    paths = sorted(many.glob("*.json"))
    if not paths:
        raise UserError(f"{relative(many)}: no .json files in it; unpack the archive again")
    for path in paths:
        try:
            found = orjson.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            problems.append(f"{relative(path)}: not valid JSON: {error}; {MEND}")
            continue
        if isinstance(found, dict):
            yield relative(path), path.stem, found
        else:
            problems.append(f"{relative(path)}: expected a JSON object, found {type(found).__name__}; {MEND}")


def _problems(found: Row, people: Mapping[str, Any]) -> Iterator[str]:
    """Tell what is wrong with a dialogue."""
    given, utterances = found.get("interlocutors"), found.get("utterances")
    speakers = [who for who in given if isinstance(who, str)] if isinstance(given, list) else []
    if speakers != given or len(set(speakers)) != 2 or len(speakers) != 2:
        yield f"key 'interlocutors': expected two speakers, found {str(given)[:60]}"
        return
    for speaker in speakers:
        if speaker not in people:
            yield f"key 'interlocutors': '{speaker}' is not in {PEOPLE}"
    if not isinstance(utterances, list):
        yield "key 'utterances': expected a list"
        return
    spoke = set()
    for number, utterance in enumerate(utterances):
        name = f"utterance {number}"
        if not isinstance(utterance, dict) or not isinstance(utterance.get("text"), str):
            yield f"{name}: expected interlocutor_id and text, found {str(utterance)[:60]}"
        elif utterance.get("interlocutor_id") not in speakers:
            yield f"{name}: by '{utterance.get('interlocutor_id')}', who is none of {' and '.join(speakers)}"
        elif utterance["text"].strip():
            spoke.add(utterance["interlocutor_id"])
    if silent := [speaker for speaker in speakers if speaker not in spoke]:
        yield f"no utterance by {' and '.join(silent)}"


def _dialogue(place: str, stem: str | None, found: Row) -> Dialogue:
    lines = [(each["interlocutor_id"], clean(each["text"])) for each in found["utterances"]]
    name = stem or str(found.get("dialogue_id", place.rpartition(":")[2]))
    return Dialogue(place, name.zfill(5), found["interlocutors"], [(who, text) for who, text in lines if text])


def _label(
    person: Row, label: Mapping[str, str], scales: Mapping[str, Sequence[float]]
) -> tuple[dict[str, float], list[str]]:
    """Take a person's scores; the second value tells what is wrong with them."""
    scores = person.get("personality")
    values: dict[str, float] = {}
    problems = []
    for name, trait in label.items():
        value = scores.get(trait) if isinstance(scores, dict) else None
        low, high = scales.get(name, (float("-inf"), float("inf")))
        if isinstance(value, bool) or not isinstance(value, int | float):
            problems.append(
                f"personality.{trait}: expected a number, found {value!r}; add it, or remove their dialogues"
            )
        elif not low <= value <= high:
            problems.append(f"personality.{trait}: found {value}, expected {low:g} to {high:g}; mend it")
        else:
            values[name] = value
    return values, problems

"""What people said, without what tells who they are: the masking of tools/mask_pii.py for conversations in memory."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import orjson

from recipekit import pii_mask
from recipekit.pii_forms import Known
from recipekit.pii_key import ENDING, hold_key

BETWEEN = "\n\u2028\n"  # turns: read at once a conversation takes less than half the time
# Whom people talk of with さん and no name; the rules for news take them for names.
_NOBODY = re.compile(
    "(?<![㐀-鿿々ァ-ヺー])(?:(?:お(?:ばあ|じい|ば|じ|母|父|姉|兄|嬢|子|客|医者|隣|坊)|旦那|奥|義[母父姉兄]|親御|店員|駅員|学生"
    "|俳優|女優|声優|芸人|看護師|保育士|業者|職人|(?:パン|ケーキ|電気|本|花|肉|八百|魚|不動産|薬|ラーメン|うどん|そば|寿司)屋)"
    "(?:さん|ちゃん|様)|猫ちゃん|犬ちゃん|赤ちゃん|皆さん|みなさん)"  # whole words: 花子さん is somebody
)
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_KNOWN = Known({"people": "person"}, "\0")


class Said(NamedTuple):
    """What is masked together.

    Attributes:
        people: Names that are known to be somebody's, such as the speakers'.
        texts: What they said.
    """

    people: list[str]
    texts: list[str]


def mask(
    said: Sequence[Said], key: Path | None, ginza: bool, advance: Callable[..., None]
) -> tuple[list[list[str]], Counter[str]]:
    """Replace personal information by stand-ins, one person having one in all texts.

    Args:
        said: Conversations.
        key: Key file, by which the stand-ins can be turned back; None: nothing of it is kept.
        ginza: Whether GiNZA looks for names, too.
        advance: Told of conversations done.

    Returns:
        The texts of each conversation, and how many places of each kind were masked in them.

    Raises:
        UserError: The key file lies where it must not, or is none.
    """
    kept: list[list[str]] = [[] for _ in said]
    said = [one._replace(texts=_kept(one.texts, words)) for one, words in zip(said, kept, strict=True)]
    with TemporaryDirectory() as folder:
        key = key or Path(folder) / f"thrown-away{ENDING}"
        joined, counts = _mask([one._replace(texts=[BETWEEN.join(one.texts)]) for one in said], key, ginza, advance)
        masked = [texts[0].split(BETWEEN) for texts in joined]
        cut = [i for i, (one, texts) in enumerate(zip(said, masked, strict=True)) if len(texts) != len(one.texts)]
        if cut:  # a finding went over the end of a turn
            apart, _ = _mask([said[i] for i in cut], key, ginza, lambda *_: None)
            for place, texts in zip(cut, apart, strict=True):
                masked[place] = texts
    return [[_given_back(text, words) for text in texts] for texts, words in zip(masked, kept, strict=True)], counts


def _kept(texts: list[str], words: list[str]) -> list[str]:
    """Put a character of no meaning for each word that is nobody's name; texts that have such characters stay."""
    if any(map(_PRIVATE.search, texts)):
        return texts

    def hide(match: re.Match[str]) -> str:
        words.append(match[0])
        return chr(0xE000 + len(words) - 1)

    return [_NOBODY.sub(hide, text) for text in texts]


def _given_back(text: str, words: list[str]) -> str:
    return _PRIVATE.sub(
        lambda match: words[place] if (place := ord(match[0]) - 0xE000) < len(words) else match[0], text
    )


def _mask(
    said: Sequence[Said], key: Path, ginza: bool, advance: Callable[..., None]
) -> tuple[list[list[str]], Counter[str]]:
    with TemporaryDirectory() as folder:
        plain, masked = Path(folder) / "said.jsonl", Path(folder) / "masked"
        plain.write_bytes(b"".join(orjson.dumps(one._asdict()) + b"\n" for one in said))
        with hold_key(key) as held:
            counts = pii_mask.mask([plain], masked, held, key, _KNOWN, ginza, advance).counts
        rows = [orjson.loads(line) for line in (masked / plain.name).read_bytes().splitlines()]
    for one, row in zip(said, rows, strict=True):
        counts["person"] -= sum(name != shown for name, shown in zip(one.people, row["people"], strict=True))
    return [row["texts"] for row in rows], +counts

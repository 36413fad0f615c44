"""Articles longer than a model's context: split at sentence ends, predicted window by window, merged again."""

import re
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any

from recipekit import normal_text
from recipekit.answers import Judge
from recipekit.errors import UserError
from recipekit.segments import encode
from recipekit.task import Task

SENTENCE = re.compile(r".+?(?:[。！？]+[」』）)】〕》〉”’\"']*\s*|\n\s*|\Z)", re.DOTALL)
LEAST = 32  # tokens left for an article: one character may be four bytes, each a token
Values = dict[str, Any]


def check_room(task: Task, tokenizer: Any, room: int) -> None:
    """Refuse a context in which no article fits.

    Raises:
        UserError: The prompt alone has about as many tokens as `room`, what context less max_new_tokens leaves.
    """
    bare = len(encode(tokenizer, task.render("")))
    if bare + LEAST > room:
        raise UserError(
            f"recipes/{task.name}/task.yml: the prompt has {bare} tokens without any article, and the model's context "
            f"less predict.max_new_tokens leaves {room}; lower max_new_tokens, or take a model with a longer context"
        )


def prompts(task: Task, tokenizer: Any, body: str, room: int) -> list[list[int]]:
    """Make the prompt of an article; several, each for a part of it, where it does not fit into one.

    Args:
        task: The task.
        tokenizer: The model's.
        body: The article.
        room: Tokens that a prompt may have.

    Returns:
        Token ids, as a training row has them before its answer.
    """
    text = task.clean(body)
    whole = encode(tokenizer, task.render(text))
    if len(whole) <= room:
        return [whole]

    def tokens(part: str) -> list[int]:
        return encode(tokenizer, task.render(part.strip()))

    return [tokens(part) for part in split(text, lambda part: len(tokens(part)) <= room) if part.strip()]


def split(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Cut a text into as few parts as fit, at sentence ends; a sentence that does not fit is cut where it must be.

    Args:
        text: What to cut; the parts joined give it again.
        fits: Tells whether a part is short enough; one character is, and what is stays so when it gets shorter.
    """
    ends = [match.end() for match in SENTENCE.finditer(text)]
    parts: list[str] = []
    start = 0
    while start < len(text):

        def good(end: int, start: int = start) -> bool:
            return fits(text[start:end])

        anywhere = range(start + 1, len(text) + 1)
        end = _last(ends[bisect(ends, start) :], good) or _last(anywhere, good) or start + 1
        parts.append(text[start:end])
        start = end
    return parts


def _last(places: Sequence[int], good: Callable[[int], bool]) -> int | None:
    """Find the last place that is good, where all before a good one are; few far ones are looked at."""
    low, high = 0, 1  # the first `low` places are good
    while high <= len(places) and good(places[high - 1]):
        low, high = high, 2 * high
    high = min(high, len(places) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(places[middle - 1]) else (low, middle)
    return places[low - 1] if low else None


def merge(read: list[Values], judge: Judge, schema: dict[str, Any]) -> Values:
    """Merge the answers to an article's windows, as `Judge.read` gives them.

    The whole is valid only where every window is: an answer that lacks a window would pass for a whole one. What was
    written stays in "raw", a line a window.
    """
    output = None
    if all(one["valid"] for one in read):
        output = merge_values([one["output"] for one in read], schema)
    good = output is not None and judge.is_valid(output)
    repaired = list(dict.fromkeys(note for one in read for note in one.get("repaired", [])))
    return {
        "output": output if good else None,
        "raw": "\n".join(one["raw"] for one in read),
        "valid": good,
        **({"repaired": repaired} if repaired else {}),
    }


def merge_values(values: list[Any], schema: dict[str, Any]) -> Any:
    """Merge values of one schema.

    Arrays are put together and lose what is said twice; objects in them are one where their first property (a name)
    is the same but for width and spaces. Of a field's values the first that is not empty ("" or null) counts.
    """
    if all(isinstance(value, dict) for value in values):
        parts = schema.get("properties", {})
        keys = dict.fromkeys(
            [*(key for key in parts if any(key in v for v in values)), *(k for v in values for k in v)]
        )
        return {key: merge_values([v[key] for v in values if key in v], parts.get(key, {})) for key in keys}
    if all(isinstance(value, list) for value in values):
        items = schema.get("items", {})
        groups: dict[Any, list[Any]] = {}
        for value in (item for part in values for item in part):
            groups.setdefault(_identity(value, items), []).append(value)
        return [merge_values(group, items) for group in groups.values()]
    return next((value for value in values if value not in ("", None)), values[0])


def _identity(value: Any, schema: dict[str, Any]) -> str:
    name = value
    if isinstance(value, dict):
        name = value.get(next(iter(schema.get("properties", value)), ""))
    return (normal_text.text(name).key if isinstance(name, str) else "") or repr(value)

"""How evenly a chat task's data are spread: over fields, pairs of fields, turns, lengths, sources and meanings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from recipekit import near
from recipekit.chat_making import NEAR, near_pairs
from recipekit.chat_said import Said
from recipekit.conversations import Conversation, Conversations
from recipekit.errors import UserError

PAIRS = 20  # near duplicates that are named
TOP = 15  # values of free text that are named
POINTS = {"p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95}
ROLES = ("user", "assistant")
SOURCE = "source"  # the field that says who wrote the replies

Report = dict[str, Any]


def summary(conversations: Conversations, rows: Sequence[Said], pair: Sequence[str], names: bool) -> Report:
    """Count everything but the map.

    Args:
        conversations: Of the task.
        rows: What was read; at least one.
        pair: Two fields whose combinations are counted, or none.
        names: Whether values of free text are quoted.

    Returns:
        The content of report.json.
    """
    every = [row.conversation for row in rows]
    closed = {name: spec for name, spec in conversations.fields.items() if "text" not in spec}
    opened = {name: spec for name, spec in conversations.fields.items() if "text" in spec}
    groups = conversations.task.spec["data"].get("curriculum", {}).get("groups", {})
    sets: dict[str, list[Said]] = {name: [] for name in groups}
    for row in rows:
        sets.setdefault(row.set, []).append(row)
    return {
        "task": conversations.task.name,
        "rows": len(rows),
        "sets": {name: _set(found) for name, found in sets.items() if found},
        "fields": {name: count_field(conversations, every, name) for name in closed},
        "texts": {name: _count_text(every, name, spec, names) for name, spec in opened.items()},
        "pair": count_pair(conversations, every, pair) if pair else None,
        "turns": _turns(every),
        "lengths": _lengths(every),
        "repeats": repeats(rows),
    }


def choose_pair(conversations: Conversations, asked: str | None) -> list[str]:
    """Return the two fields whose combinations are counted: those asked for, else the attribute's, else the first two.

    Raises:
        UserError: What was asked for is not two fields that can be counted.
    """
    single = [
        name for name, spec in conversations.fields.items()
        if "text" not in spec and not spec.get("many") and name != SOURCE
    ]  # fmt: skip
    if asked is not None:
        chosen = [name.strip() for name in asked.split(",")]
        if len(set(chosen)) != 2 or not set(chosen) <= set(single):
            raise UserError(f"--pair {asked}: expected two of {', '.join(single) or 'none'}, such as A,B")
        return chosen
    chosen = conversations.attribute if len(conversations.attribute) == 2 else single[:2]
    return chosen if len(chosen) == 2 else []


def bins(spec: Mapping[str, Any]) -> dict[Any, str]:
    """Return the values that a field may have, each with its words."""
    return dict(enumerate(spec["levels"])) if "levels" in spec else dict(spec["values"])


def values_of(conversation: Conversation, name: str) -> list[Any]:
    """Return what a conversation says of a field, a list whatever it is."""
    value = conversation.fields.get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def count_field(conversations: Conversations, rows: Sequence[Conversation], name: str) -> Report:
    """Count the conversations that have each value of a field; empty ones are counted, too."""
    spec = conversations.fields[name]
    found = Counter(value for row in rows for value in set(values_of(row, name)))
    return {
        "title": spec["title"],
        "many": bool(spec.get("many")),
        "bins": [{"value": value, "label": label, "count": found[value]} for value, label in bins(spec).items()],
        "missing": sum(not values_of(row, name) for row in rows),
    }


def count_pair(conversations: Conversations, rows: Sequence[Conversation], pair: Sequence[str]) -> Report:
    """Count the conversations that have each combination of two fields' values: rows of the first, columns of both."""
    first, second = (bins(conversations.fields[name]) for name in pair)
    found = Counter(tuple(row.fields.get(name) for name in pair) for row in rows)
    return {
        "fields": list(pair),
        "titles": [conversations.fields[name]["title"] for name in pair],
        "values": [list(first), list(second)],
        "labels": [list(first.values()), list(second.values())],
        "counts": [[found[a, b] for b in second] for a in first],
        "missing": sum(count for key, count in found.items() if None in key),
    }


def _set(rows: Sequence[Said]) -> Report:
    characters = {role: sum(map(len, _texts((row.conversation for row in rows), role))) for role in ROLES}
    exchanges = sum(len(list(_texts([row.conversation], "assistant"))) for row in rows)
    return {"rows": len(rows), "exchanges": exchanges, "characters": characters}


def _texts(rows: Any, role: str) -> list[str]:
    return [message["content"].strip() for row in rows for message in row.messages if message["role"] == role]


def _count_text(rows: Sequence[Conversation], name: str, spec: Mapping[str, Any], names: bool) -> Report:
    """Count free text, and its most frequent values where these may be quoted."""
    values = [values_of(row, name) for row in rows]
    found = Counter(value for one in values for value in one)
    top = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return {
        "title": spec["title"],
        "filled": sum(bool(one) for one in values),
        "distinct": len(found),
        "top": [list(item) for item in top] if names else None,
    }


def _turns(rows: Sequence[Conversation]) -> Report:
    """Count exchanges, what the user says and the reply to it, a conversation."""
    numbers = [sum(message["role"] == "assistant" for message in row.messages) for row in rows]
    found = Counter(numbers)
    counts = {str(n): found[n] for n in range(1, max(numbers) + 1)}
    return {"counts": counts, **_points(numbers), "mean": round(float(np.mean(numbers)), 2)}


def _points(numbers: Sequence[int]) -> dict[str, float]:
    at = np.percentile(numbers, list(POINTS.values()))
    return {name: round(float(value), 1) for name, value in zip(POINTS, at, strict=True)}


def _lengths(rows: Sequence[Conversation]) -> Report:
    """Measure texts (characters): of each role all, and those of the first, second ... exchange."""
    found: dict[str, dict[int, list[int]]] = {role: {} for role in ROLES}
    for row in rows:
        for place, message in enumerate(row.messages):
            found[message["role"]].setdefault(place // 2 + 1, []).append(len(message["content"].strip()))
    return {
        role: {
            **_points([length for lengths in turns.values() for length in lengths]),
            "turns": [{"turn": turn, "texts": len(lengths), **_points(lengths)} for turn, lengths in turns.items()],
        }
        for role, turns in found.items()
    }


def repeats(rows: Sequence[Said]) -> Report:
    """Count conversations that are nearly an earlier one, and replies that stand there word for word before."""
    replies = _texts((row.conversation for row in rows), "assistant")
    normal = [near.normal(reply) for reply in replies]
    pairs = near_pairs([row.text for row in rows], NEAR)
    groups = _components(len(rows), pairs)
    best = sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))[:PAIRS]
    return {
        "threshold": NEAR,
        "near": len(rows) - groups,
        "pairs": [{"first": rows[a].name, "second": rows[b].name, "alike": round(alike, 3)} for a, b, alike in best],
        "replies": len(replies),
        "same_replies": len(normal) - len(set(normal)),
    }


def _components(size: int, pairs: Sequence[tuple[int, int, float]]) -> int:
    """Return the number of groups that pairs join so many rows to."""
    left, right = ([pair[side] for pair in pairs] for side in (0, 1))
    graph = coo_array((np.ones(len(pairs)), (left, right)), shape=(size, size))
    return int(connected_components(graph, directed=False)[0])

"""How far a phase has come, read from the progress.jsonl that it writes as it trains."""

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

TAIL = 2**16  # bytes of progress.jsonl that are read from its end
RECENT = 50  # optimizer steps that the speed is measured over


def training(report: Path) -> dict[str, Any] | None:
    """Read how far a phase has come from its progress.jsonl; None where it has said nothing yet."""
    first, lines = _ends(report)
    lines = [line for line in lines if _number(line, "step") is not None and _number(line, "max_steps")]
    if not lines:
        return None
    last = lines[-1]
    speed = _speed(lines)
    rows, tokens = _number(first, "rows_per_step"), _tokens_per_step([first, *lines])
    left = max(last["max_steps"] - last["step"], 0)
    return {
        "step": last["step"],
        "of": last["max_steps"],
        "share": round(last["step"] / last["max_steps"], 4),
        "loss": _last(lines, "loss"),
        "eval_loss": _last(lines, "eval_loss"),
        "steps_per_second": speed,
        "rows_per_second": round(speed * rows, 3) if speed and rows else None,
        "tokens_per_second": round(speed * tokens, 1) if speed and tokens else None,
        "seconds_left": round(left / speed) if speed else None,
        "checkpoint": _checkpoint(report.parent),
    }


def _ends(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the first line and the last ones; a line that is not whole is left out."""
    with suppress(OSError), path.open("rb") as stream:
        first = _objects(stream.readline(TAIL))
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - TAIL, 0))
        return (first or [{}])[0], _objects(stream.read())
    return {}, []


def _objects(text: bytes) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            value = json.loads(line)
            found += [value] if isinstance(value, dict) else []
    return found


def _number(line: Mapping[str, Any], key: str) -> float | None:
    value = line.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _last(lines: list[dict[str, Any]], key: str) -> float | None:
    return next((line[key] for line in reversed(lines) if _number(line, key) is not None), None)


def _speed(lines: list[dict[str, Any]]) -> float | None:
    """Return the latest steps a second; None for too few of them, or where the clock was set back between."""
    at = {line["step"]: line["time"] for line in lines if _number(line, "time") is not None}
    marks = sorted(at)[-RECENT - 1 :]
    marks = marks[1:] if marks and marks[0] == 0 else marks  # not what came before the first step
    seconds = at[marks[-1]] - at[marks[0]] if len(marks) > 1 else 0.0
    return round((marks[-1] - marks[0]) / seconds, 4) if seconds > 0 else None


def _tokens_per_step(lines: list[dict[str, Any]]) -> float | None:
    """Return the tokens of the latest steps, padding aside, which are reported with losses; None before the first."""
    found = [line for line in lines if None not in (_number(line, "step"), _number(line, "tokens"))]
    at = {line["step"]: line["tokens"] for line in found}
    last = max(at, default=0)
    since = max((step for step in at if step <= last - RECENT), default=min(at, default=0))
    return (at[last] - at[since]) / (last - since) if last > since else None


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the last whole checkpoint and how old it is."""
    found = [path for path in folder.glob("checkpoint-*/complete.json") if path.parent.name[11:].isdigit()]
    if not found:
        return None
    last = max(found, key=lambda path: int(path.parent.name[11:]))
    with suppress(OSError):
        return {"name": last.parent.name, "age": round(max(time.time() - last.stat().st_mtime, 0))}
    return None

"""A run at a glance: its steps, and how far the phase that trains has come; read from what the run writes, no more."""

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from recipekit import journal
from recipekit.runs import read_record

DONE, UP_TO_DATE, RUNNING, FAILED = "done", "up to date", "running", "failed"
INTERRUPTED, WAITING = "interrupted", "waiting"
STOPS = ("SIGHUP", "SIGINT", "SIGKILL", "SIGTERM")  # a step that one of these ended has not failed
TAIL = 2**16  # bytes of progress.jsonl that are read from its end
RECENT = 50  # optimizer steps that the speed is measured over


def look(outputs: Path, names: list[str] | None = None) -> dict[str, Any]:
    """Look at a task's run.

    Args:
        outputs: The task's folder under outputs/.
        names: The steps of the task, in order; None: as its last run knew them, else those that left a trace.

    Returns:
        JSON-like: task, whether it runs, process id, since and logs of the run, bytes left on the disk, and the steps.
    """
    lock, entries = read_record(outputs / "run.lock"), journal.read(outputs)
    records = {path.stem: read_record(path) for path in sorted((outputs / "state").glob("*.json"))}
    planned, pipeline = _names(lock, "steps"), names or _names(lock, "pipeline")
    alive = journal.is_running(lock)
    order = list(dict.fromkeys([*pipeline, *planned, *entries, *records]))
    since = _seconds(lock.get("since")) or math.inf
    here = [name for name in planned if (_seconds(entries.get(name, {}).get("start")) or 0) >= since]
    reached = planned.index(here[-1]) if here else -1
    steps = []
    for name in order:
        entry, record = entries.get(name, {}), records.get(name, {})
        state = _state(entry, record)
        if alive and name in planned and name not in here:
            state = UP_TO_DATE if planned.index(name) < reached else WAITING
        steps.append(_step(outputs, name, state, entry, record))
    return {
        "task": outputs.name,
        "running": alive or any(step["state"] == RUNNING for step in steps),
        "pid": lock.get("pid") if alive else None,
        "since": lock.get("since"),
        "logs": lock.get("logs"),
        "disk_free": _disk_free(outputs),
        "steps": steps,
    }


def _names(lock: Mapping[str, Any], key: str) -> list[str]:
    found = lock.get(key)
    return [str(name) for name in found] if isinstance(found, list) else []


def _state(entry: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    if "exit" in entry:
        stopped = entry.get("signal") in STOPS
        return DONE if entry["exit"] == 0 else INTERRUPTED if stopped else FAILED
    if entry:
        return RUNNING if journal.is_running(entry) else INTERRUPTED
    return DONE if record else WAITING


def _step(outputs: Path, name: str, state: str, entry: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    seconds = entry.get("seconds", None if entry else record.get("seconds"))
    start = _seconds(entry.get("start"))
    if state == RUNNING and start:
        seconds = max(time.time() - start, 0.0)
    report = outputs / name / "progress.jsonl"
    return {
        "step": name,
        "state": state,
        "start": entry.get("start"),
        "end": entry.get("end", record.get("finished")),
        "seconds": seconds if isinstance(seconds, int | float) and state != WAITING else None,
        "exit": entry.get("exit"),
        "signal": entry.get("signal"),
        "log": entry.get("log"),
        "pid": entry.get("pid") if state == RUNNING else None,
        "progress": training(report) if state in (RUNNING, INTERRUPTED, FAILED) and report.exists() else None,
    }


def training(report: Path) -> dict[str, Any] | None:
    """Read how far a phase has come from its progress.jsonl; None where it has said nothing yet."""
    first, lines = _ends(report)
    lines = [line for line in lines if _number(line, "step") is not None and _number(line, "max_steps")]
    if not lines:
        return None
    last = lines[-1]
    speed = _speed(lines)
    rows = _number(first, "rows_per_step")
    left = max(last["max_steps"] - last["step"], 0)
    return {
        "step": last["step"],
        "of": last["max_steps"],
        "share": round(last["step"] / last["max_steps"], 4),
        "loss": _last(lines, "loss"),
        "eval_loss": _last(lines, "eval_loss"),
        "steps_per_second": speed,
        "rows_per_second": round(speed * rows, 3) if speed and rows else None,
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


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the last whole checkpoint and how old it is."""
    found = [path for path in folder.glob("checkpoint-*/complete.json") if path.parent.name[11:].isdigit()]
    if not found:
        return None
    last = max(found, key=lambda path: int(path.parent.name[11:]))
    with suppress(OSError):
        return {"name": last.parent.name, "age": round(max(time.time() - last.stat().st_mtime, 0))}
    return None


def _disk_free(folder: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def _seconds(text: Any) -> float | None:
    with suppress(TypeError, ValueError):
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    return None

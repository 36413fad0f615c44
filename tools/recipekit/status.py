"""A run at a glance: its steps, and how far the phase that trains has come; read from what the run writes, no more."""

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from recipekit import journal
from recipekit.how_far import training
from recipekit.runs import read_record

DONE, UP_TO_DATE, RUNNING, FAILED = "done", "up to date", "running", "failed"
INTERRUPTED, WAITING = "interrupted", "waiting"
STOPS = ("SIGHUP", "SIGINT", "SIGKILL", "SIGTERM")  # a step that one of these ended has not failed


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
    since = journal.seconds(lock.get("since")) or math.inf
    here = [name for name in planned if (journal.seconds(entries.get(name, {}).get("start")) or 0) >= since]
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
    if entry and journal.is_running(entry):
        return RUNNING
    if entry:  # killed between its record and its end in the journal, it has ended well
        ended, begun = journal.seconds(record.get("finished")) or 0, journal.seconds(entry.get("start")) or math.inf
        return DONE if ended > begun and record.get("inputs") == entry.get("inputs") else INTERRUPTED
    return DONE if record else WAITING


def _step(outputs: Path, name: str, state: str, entry: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    seconds = entry.get("seconds", None if entry else record.get("seconds"))
    start = journal.seconds(entry.get("start"))
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
        "killed": journal.kills(outputs, name, entry),
        "progress": training(report) if state != WAITING and report.exists() else None,
    }


def _disk_free(folder: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None

"""The journal of a run, outputs/<task>/run.json: what each step was last started with, and how that ended.

A step names itself with console.log_to, is noted as started once Step.done finds work to do, and as ended by
console.main. So a step that is up to date leaves no mark, and one that was killed has a start and no end, which is
noted when it starts again. The journal decides nothing: what may be skipped stands in state/<step>.json alone.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from recipekit import ROOT
from recipekit.errors import UserError
from recipekit.how_far import training
from recipekit.own_secrets import scrub
from recipekit.provenance import git_state, versions
from recipekit.runs import digest, read_record, relative, write_text

FILE = "run.json"
FORM = "%Y-%m-%dT%H:%M:%S%z"  # of times
RUN = "RECIPEKIT_RUN"  # environment variable: process id of the train_all.sh that a step belongs to
DRY_RUN = "RECIPEKIT_DRY_RUN"  # environment variable: a folder; steps say what they would do, and do nothing
GRACE = 20  # seconds that a step gets to end after its train_all.sh
KEPT_LOGS = 20  # folders
KEPT_KILLS = 10
_step: "StepRun | None" = None


class WouldRun(Exception):
    """In a dry run: a step that has something to do, and why."""


class StepRun:
    """This process, as the run of one step.

    Attributes:
        outputs: The task's folder under outputs/.
        name: The step.
        entry: What the journal says of it; empty until it has started.
    """

    def __init__(self, outputs: Path, name: str, log: Path | None) -> None:
        self.outputs, self.name = outputs, name
        self.entry: dict[str, Any] = {}
        self._log = log
        self._start, self._clock = now(), time.monotonic()
        before = read(outputs).get(name, {})
        self._killed = [] if before.get("exit") == 0 else kills(outputs, name, before)
        self._lost = before if self._killed and "end" not in before else {}

    def begin(self, inputs: Mapping[str, str]) -> None:
        """Note that the step has started, and how it was killed before; where it runs elsewhere, its entry stays."""
        entry = {
            "start": self._start,
            "pid": os.getpid(),
            "command": command(self.outputs.parent.parent),
            "log": relative(self._log.absolute()) if self._log else None,
            "versions": versions(),
            "git": git_state(),
            "inputs": dict(inputs),
            **({"killed": self._killed[-KEPT_KILLS:]} if self._killed else {}),
        }
        if self._write(entry):
            self.entry = entry
            self._see_to_kill()

    def _see_to_kill(self) -> None:
        """Tell of a run that was killed, and free its log of what it could not at its end."""
        from recipekit.console import show  # which is built on this module

        if self._lost:
            last = self._killed[-1]
            far = f" at step {last['step']} of {last['of']}" if "step" in last else ""
            since = f"process {last['pid']}, since {last['start']}, last sign of life {last['last_sign']}"
            show(f"{self.name}: was killed{far}, or its machine stopped ({since}); it does not count", style="yellow")
            with suppress(OSError):
                scrub(ROOT / str(self._lost.get("log")))
            self._lost = {}

    def note(self, **facts: Any) -> None:
        """Add facts to the entry."""
        if self.entry:
            self.entry |= facts
            self._write(self.entry)

    def end(self, code: int) -> None:
        """Note how the step ended; one that was up to date leaves no mark."""
        if not self.entry and code != 0:
            self.begin({})  # it failed before it could tell its inputs
        if self.entry:
            record = read_record(self.outputs / "state" / f"{self.name}.json") if code == 0 else {}
            made = {"products": record["products"]} if "products" in record else {}
            seconds = round(time.monotonic() - self._clock, 1)
            self._write(self.entry | made | {"end": now(), "seconds": seconds, "exit": code, "signal": signal_of(code)})

    def _write(self, entry: dict[str, Any]) -> bool:
        path = self.outputs / FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            opened = path.with_name(f".{FILE}.lock").open("a")
        except OSError as error:
            what = f"cannot be written, {error.strerror}; make room there, or see to its rights"
            raise UserError(f"{relative(path)}: {what}") from None
        with opened as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in path.parent.glob(f".{FILE}.*.tmp"):  # by a process that was killed as it wrote
                left.unlink(missing_ok=True)
            steps = read(path.parent)
            before = steps.get(self.name, {})
            if before.get("pid") != os.getpid() and is_running(before):
                return False
            steps[self.name] = entry
            text = json.dumps({"task": path.parent.name, "steps": steps}, ensure_ascii=False, indent=2)
            write_text(path, text + "\n")
        return True


def enter(outputs: Path, name: str, log: Path | None) -> None:
    """Name the step that this process is; it ends with its train_all.sh, which may be killed."""
    global _step
    if _step is None and not os.environ.get(DRY_RUN):
        _step = StepRun(outputs, name, log)
        if os.environ.get(RUN) == str(os.getppid()):
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def begin(outputs: Path, name: str, inputs: Mapping[str, str], reasons: list[str], *, makes: bool = True) -> None:
    """Note that this process's step begins its work.

    Args:
        outputs: The task's folder under outputs/.
        name: The step.
        inputs: Digests.
        reasons: Why it is not up to date.
        makes: Whether later steps read what it makes.

    Raises:
        WouldRun: This is a dry run.
    """
    if folder := os.environ.get(DRY_RUN):
        if makes:
            with (Path(folder) / "stale").open("a", encoding="utf-8") as stream:
                stream.write(f"{name}\n")
        raise WouldRun(f"{name}: would run: {', '.join(reasons)}")
    if _step and (_step.outputs, _step.name) == (outputs, name):
        _step.begin(inputs)


def stale() -> list[str]:
    """Name the earlier steps of a dry run that would run, so that what they make may change."""
    try:
        return (Path(os.environ[DRY_RUN]) / "stale").read_text(encoding="utf-8").split()
    except (KeyError, OSError):
        return []


def note(**facts: Any) -> None:
    """Add facts to the entry of this process's step."""
    if _step:
        _step.note(**facts)


def end(code: int) -> None:
    """Note how this process's step ended."""
    if _step:
        _step.end(code)


def now() -> str:
    """Return the time, as records have it."""
    return time.strftime(FORM)


def seconds(text: Any) -> float | None:
    """Read a time, as records have it, as seconds since 1970; None: it is none."""
    with suppress(TypeError, ValueError):
        return datetime.strptime(text, FORM).timestamp()
    return None


def read(outputs: Path) -> dict[str, dict[str, Any]]:
    """Read a task's journal, an entry a step; what is no entry is left out."""
    steps = read_record(outputs / FILE).get("steps")
    return {name: entry for name, entry in steps.items() if isinstance(entry, dict)} if isinstance(steps, dict) else {}


def is_running(entry: Mapping[str, Any]) -> bool:
    """Tell whether the process of an entry, or of a run's lock, is still at it: its id may be another's by now."""
    command = entry.get("command")
    if "end" in entry or not isinstance(entry.get("pid"), int) or not isinstance(command, list) or not command:
        return False
    try:
        process = psutil.Process(entry["pid"])
        there = any(Path(word).name == Path(command[0]).name for word in process.cmdline())
        return there and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def kills(outputs: Path, name: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List how a step was killed since it last ended well: start, pid, last sign of life and, of a phase, step and of.

    Args:
        outputs: The task's folder under outputs/.
        name: The step.
        entry: What its journal says; where that has no end and no process, the kill is the last of the list.
    """
    noted = entry.get("killed")
    found = [one for one in noted if isinstance(one, dict) and "last_sign" in one] if isinstance(noted, list) else []
    if not entry or "end" in entry or is_running(entry):
        return found
    start, report = entry.get("start"), outputs / name / "progress.jsonl"
    signs = {}
    for path in (report, ROOT / str(entry.get("log"))):
        with suppress(OSError):
            signs[path] = path.stat().st_mtime
    signs = {path: sign for path, sign in signs.items() if sign >= (seconds(start) or 0)}
    last = time.strftime(FORM, time.localtime(max(signs.values()))) if signs else start
    reached = training(report) if report in signs else None
    far = {key: reached[key] for key in ("step", "of")} if reached else {}
    return [*found, {"start": start, "pid": entry.get("pid"), "last_sign": last, **far}]


def signal_of(code: int) -> str | None:
    """Name the signal that an exit code tells of."""
    number = code - 128 if code > 128 else -code
    return signal.Signals(number).name if number in set(signal.Signals) else None


def command(root: Path) -> list[str]:
    """Return this process's command line without secrets."""
    from recipekit.hub import TOKEN_NAMES, masked, setting  # which is built on console, and that on this module

    words = [relative(Path(sys.argv[0]).absolute()), *sys.argv[1:]]
    words = [masked(word) if "://" in word else re.sub(r"\bhf_\w+", "***", word) for word in words]
    for token in filter(None, (setting(root, name) for name in TOKEN_NAMES)):
        words = [word.replace(token, "***") for word in words]
    return words


def config_of(resolved: Path) -> dict[str, str]:
    """Name a resolved config and its content."""
    return {"path": relative(resolved), "sha256": digest(resolved)}


def prune_logs(root: Path, keep: int = KEPT_LOGS) -> list[Path]:
    """Remove old folders logs/<time>: all but the newest, and those that a task's journal or run refers to.

    The logs that stay lose this machine's secrets, which those of a killed step may still hold.

    Args:
        root: The folder that logs/ and outputs/ stand in.
        keep: How many of the newest stay.

    Returns:
        What was removed.
    """
    named = set()
    for outputs in (root / "outputs").glob("*"):
        logs = [Path(str(entry.get("log"))).parent for entry in read(outputs).values()]
        named |= {path.name for path in (*logs, Path(str(read_record(outputs / "run.lock").get("logs"))))}
    folders = sorted(path for path in (root / "logs").glob("*") if re.fullmatch(r"\d{8}_\d{6}", path.name))
    old = [path for path in folders[:-keep] if path.name not in named and path.is_dir() and not path.is_symlink()]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    for log in (log for path in folders for log in path.glob("*.log")):
        with suppress(OSError):
            scrub(log)
    return old


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)

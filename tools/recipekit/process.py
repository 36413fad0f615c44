"""The training process: started, followed by a bar, and never left behind."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from recipekit import ROOT, journal
from recipekit.console import progress, show
from recipekit.errors import UserError
from recipekit.runs import read_record, relative

PARENT = "RECIPEKIT_PARENT"  # environment variable with the process id that training must not outlive
GRACE = 20  # seconds that a stopped training gets before it is killed
PATIENCE = 60  # seconds to wait for a training that a killed run left behind; it ends itself (recipekit.run_plugin)
STALL, STALL_SECONDS = "TRAIN_STALL_SECONDS", 3600  # environment variable, and what holds without it
ERROR_LINE = re.compile(r"^(?:\[rank\d+\]: ?)?((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)")
ERASE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
REMEDIES = {  # torch's writer, inline_container.cc, says "unexpected pos" where a disk is full
    r"No space left|quota exceeded|inline_container": "free some disk space, then run the same command again",
    r"SafetensorError|incomplete metadata": "a file of weights is torn: restore the base, or fetch it again",
    r"ConnectionError|ConnectTimeout|LocalEntryNotFound": "the Hugging Face Hub cannot be reached; check the network",
    r"401 Client Error|GatedRepo|RepositoryNotFound": "check the model's name, and that the token in .env may read it",
}


@contextmanager
def hold(path: Path, what: str, **facts: Any) -> Iterator[IO[str]]:
    """Hold a lock file; the training process inherits it, so it is free only once both have ended.

    Args:
        path: The file; while it is held it names the process that took it, and the time.
        what: What it stands for.
        facts: What else to write into it, for those who are refused at once: whoever gives facts does not wait for a
            holder that is alive, only for the children of one that was killed.

    Raises:
        UserError: Someone else holds it, and keeps it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    except OSError as error:
        raise UserError(f"{path}: cannot be written, {error.strerror}; make room there, or see to its rights") from None
    with opened as lock:
        for second in range(PATIENCE + 1):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = read_record(path)
                if second == PATIENCE or (facts and journal.is_running(holder)):
                    raise UserError(f"{what} is running in another process, {_who(holder, path)}") from None
                if second == 0:
                    show(f"{what} is still running elsewhere; waiting for it to end")
                time.sleep(1)
        note = {"pid": os.getpid(), "since": journal.now(), "command": journal.command(ROOT), **facts}
        with suppress(OSError):  # a full disk is no reason to stop here
            lock.truncate(0)
            os.write(lock.fileno(), json.dumps(note, ensure_ascii=False).encode() + b"\n")
        yield lock


def _who(holder: dict[str, Any], path: Path) -> str:
    """Name the holder of a lock, and say what to do."""
    words = [str(holder.get("pid", "unknown")), *(f"{key} {holder[key]}" for key in ("since", "logs") if key in holder)]
    stop = f": kill {holder['pid']}" if "pid" in holder else ""
    return f"{', '.join(words)}, which holds {relative(path)}; wait for it or stop it{stop}"


def run(
    command: list[str],
    cwd: Path,
    env: dict[str, str],
    lock: IO[str],
    report: Path,
    log: Path,
    title: str,
    total: int | None,
) -> int:
    """Run a training command under a bar and return its exit code.

    Its output goes where this process's goes. It has its own process group, which ends with this process: by signal on
    Ctrl-C and SIGTERM, and by recipekit.run_plugin when this process is killed.

    Raises:
        UserError: It hangs, with neither a step in its report nor a line in its log for TRAIN_STALL_SECONDS; it was
            stopped.
    """
    patience = stall_seconds()
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    child = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock.fileno()]
    )
    try:
        _follow(child, report, title, total, Stall((report, log), patience))
    finally:
        _stop(child)
        signal.signal(signal.SIGTERM, previous)
    return child.returncode


def stall_seconds() -> float:
    """Read from TRAIN_STALL_SECONDS how long a training may say nothing; 0: as long as it likes.

    Raises:
        UserError: It is no number, or below 0.
    """
    return seconds_of(STALL, STALL_SECONDS)


def seconds_of(name: str, default: int) -> float:
    """Read a time limit from an environment variable; 0: none.

    Raises:
        UserError: It is no number, or below 0.
    """
    text = os.environ.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"{name}: found {text!r}, expected seconds, such as {default}, or 0 for no limit")
    return seconds


class Stall:
    """Looks whether a process still says something, by a clock that nobody sets."""

    def __init__(self, signs: tuple[Path, ...], patience: float) -> None:
        self._signs, self._patience = signs, patience
        self._sizes, self._since = self._look(), time.monotonic()

    def _look(self) -> list[int]:
        return [path.stat().st_size if path.exists() else -1 for path in self._signs]

    def check(self) -> None:
        """Look once.

        Raises:
            UserError: It has been silent for too long.
        """
        if (sizes := self._look()) != self._sizes:
            self._sizes, self._since = sizes, time.monotonic()
        elif self._patience and time.monotonic() - self._since > self._patience:
            raise UserError(
                f"training hangs: no step and no line in {relative(self._signs[-1])} for {self._patience:g} s; it was "
                f"stopped. Run the same command again to go on from its last checkpoint; if a step of yours takes "
                f"longer, set {STALL} (seconds; 0: no limit)"
            )


def _follow(child: subprocess.Popen[bytes], report: Path, title: str, total: int | None, stall: Stall) -> None:
    shown, position = 0, 0
    with progress(title, total) as advance:
        advance(0, note="loading")
        while child.poll() is None:
            time.sleep(0.3)
            stall.check()
            lines, position = _new_lines(report, position)
            for line in lines:
                advance(line["step"] - shown, total=line["max_steps"])
                shown = line["step"]
                for key in ("loss", "eval_loss"):
                    if key in line:
                        advance(0, note=f"{key} {line[key]:.3f}")


def _new_lines(path: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    with suppress(FileNotFoundError), path.open("rb") as stream:
        stream.seek(position)
        text = stream.read()
        text = text[: text.rfind(b"\n") + 1]
        return [line for line in map(_object, text.splitlines()) if line], position + len(text)
    return [], position


def _object(text: bytes) -> dict[str, Any]:
    """Read a line of JSON; a full disk may have torn it."""
    with suppress(ValueError):
        return json.loads(text)
    return {}


def _stop(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
            return


def written_since(log: Path, start: int) -> str:
    """Return what a process wrote to a log that had `start` bytes before, without colours."""
    with log.open("rb") as stream:
        stream.seek(start)
        return ERASE.sub("", stream.read().decode(errors="replace"))


def last_error(text: str) -> str:
    """Return the line that best tells why a process failed, with a remedy where one is known.

    Args:
        text: What the process wrote.
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    found = [match[1] for line in lines if (match := ERROR_LINE.match(line)) and "ChildFailedError" not in line]
    line = found[-1] if found else (lines[-1] if lines else "it wrote nothing")
    remedy = next((remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, text)), None)
    return line[:400] + (f"; {remedy}" if remedy else "")

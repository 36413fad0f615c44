"""The pipeline again and again, killed at random moments: equal results each time, and nothing that grows.

    uv run benchmarks/soak.py --minutes 60 --rounds 20 --seed 1

Copies this repository into a temporary folder, with a few steps and articles of hawks in place of all. The first round
is not disturbed. Each later one starts from nothing, is stopped up to --kills times at random moments, by a signal that
is drawn, too, and must end with the first one's adapters, predictions and scores. Exits with 1 where one does not,
where a stopped run leaves a process behind, or where memory, disk or logs grow. The same seed draws the same moments.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import psutil
import typer
import yaml
from rich.table import Column, Table

from recipekit import ROOT, journal, provenance, runs
from recipekit.console import main, show

TASK = "hawks"
STEPS = (
    "regenerate",
    "leaks",
    "phase1",
    "phase2",
    "merge",
    "predict",
    "evaluate",
    "card",
)  # not check, which only reads
VARYING = ("seconds", "mean_logprob")  # of a prediction: time, and how a sum is rounded in another batch
FEW = {"hawks_eval_input.jsonl": 12, "hawks_eval_gold.csv": 13}  # lines
SHORT = {"hawks_train.jsonl": 40, "person_dummy.jsonl": 40, "hawks_val.jsonl": 8}  # lines, the shortest ones
GROWTH = 1.1  # of memory and disk, from the first to the last rounds
PATIENCE = 60  # seconds in which a stopped run must be gone
Signal = tuple[str, bool]  # name, and whether the whole process group gets it
STOPS: tuple[Signal, ...] = (("SIGKILL", True), ("SIGKILL", False), ("SIGTERM", False), ("SIGINT", True))


@dataclass
class Round:
    """What one round came to.

    Attributes:
        stops: Where it was stopped, and how.
        seconds: How long it took, stops included.
        memory: The most that its processes held together, in MiB.
        disk: What it left under outputs/ and data/, in MiB.
        logs: Folders under logs/.
        problems: What went wrong.
        result: Digests of what must be equal.
    """

    stops: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    logs: int = 0
    problems: list[str] = field(default_factory=list)
    result: dict[str, str] = field(default_factory=dict)


def copy(folder: Path, steps: int) -> None:
    """Copy what git would clone, and make its task a small one."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    overlay = folder / "recipes" / TASK / "cpu.yml"
    spec = yaml.safe_load(overlay.read_text(encoding="utf-8"))
    for values in spec.values():
        values |= {"max_steps": steps, "save_steps": 2, "eval_steps": 2, "micro_batch_size": 2, "warmup_steps": 1}
    overlay.write_text(yaml.safe_dump(spec), encoding="utf-8")
    for name, count in (FEW | SHORT).items():
        path = folder / "data" / "samples" / TASK / name
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = sorted(lines, key=len) if name in SHORT else lines
        path.write_text("".join(lines[:count]), encoding="utf-8")


def result(folder: Path) -> dict[str, str]:
    """Digest what every round must end with."""
    out = folder / "outputs" / TASK
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    return {
        **{path.parent.name: runs.digest(path) for path in sorted(out.glob("*/adapter_model.safetensors"))},
        "merged": runs.digest(out / "merged" / "model.safetensors"),
        "predictions": runs.digest([{k: v for k, v in row.items() if k not in VARYING} for row in rows]),
        "scores": runs.digest({name: metrics[name] for name in ("micro", "valid_json_rate", "articles")}),
    }


def mebibytes(folder: Path, *names: str) -> float:
    """Add up the files of some of a folder's folders."""
    files = [path for name in names for path in (folder / name).rglob("*") if path.is_file() and not path.is_symlink()]
    return round(sum(path.stat().st_size for path in files) / 2**20, 2)


def members(folder: Path) -> list[psutil.Process]:
    """Find the processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start train_all.sh; nothing of it is left at the end."""
    unwanted = ("HF_AUTH_TOKEN", "HF_TOKEN", "HF_REPO_ID", "LOG_DIR", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in unwanted}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "PROFILE": "cpu", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": str(folder / "tools")}
    with (folder / "screen.txt").open("wb") as screen:
        steps = [word for step in STEPS for word in ("--only", step)]
        run = subprocess.Popen(["bash", "train_all.sh", TASK, *steps], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                               stdout=screen, stderr=screen, start_new_session=True)  # fmt: skip
    try:
        yield run
    finally:
        for process in members(folder):
            process.kill()
        run.wait()


def follow(run: subprocess.Popen[bytes], folder: Path, until: float, one: Round) -> bool:
    """Watch memory until a run ends, or until a time of time.monotonic(); tells whether it has ended."""
    while run.poll() is None and time.monotonic() < until:
        held = 0
        for process in members(folder):
            try:
                held += process.memory_info().rss
            except psutil.Error:
                continue
        one.memory = max(one.memory, round(held / 2**20, 1))
        time.sleep(0.5)
    return run.poll() is not None


def stop(run: subprocess.Popen[bytes], folder: Path, how: Signal, one: Round) -> None:
    """Stop a run, and see that all of it goes."""
    name, group = how
    entries = journal.read(folder / "outputs" / TASK)
    at = next((step for step, entry in entries.items() if journal.is_running(entry)), "between steps")
    one.stops.append(f"{at} {name}{' to all' if group else ''}")
    (os.killpg if group else os.kill)(run.pid, signal.Signals[name])
    deadline = time.monotonic() + PATIENCE
    while (left := members(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        one.problems.append(f"{len(left)} processes were left after {one.stops[-1]}")


def play(folder: Path, rng: random.Random, kills: int, usual: float) -> Round:
    """Run the pipeline from nothing to its end, stopped on the way."""
    one, begun = Round(), time.monotonic()
    for name in (f"outputs/{TASK}", "data/train", "data/test"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for _ in range(rng.randint(1, kills) if kills else 0):
        delay, how = rng.uniform(2, usual), rng.choice(STOPS)
        with started(folder) as run:
            if follow(run, folder, time.monotonic() + delay, one):
                break
            stop(run, folder, how, one)
    with started(folder) as run:
        follow(run, folder, float("inf"), one)
    if run.returncode:
        text = (folder / "screen.txt").read_text(encoding="utf-8", errors="replace")
        one.problems.append(f"it ended with {run.returncode}: {' | '.join(text.splitlines()[-3:])}")
    else:
        one.result = result(folder)
    one.seconds = round(time.monotonic() - begun, 1)
    one.disk = mebibytes(folder, "outputs", "data")
    one.logs = len(list((folder / "logs").iterdir()))
    return one


def judge(rounds: list[Round]) -> list[str]:
    """Say what is wrong: results that differ, and what grows."""
    problems = [f"round {i}: {problem}" for i, one in enumerate(rounds) for problem in one.problems]
    for i, one in enumerate(rounds):
        if one.result and (other := [name for name in one.result if one.result[name] != rounds[0].result.get(name)]):
            problems.append(f"round {i}: other than in round 0: {', '.join(other)}")
        if one.logs > journal.KEPT_LOGS + len(provenance.PACKAGES) + 10:
            problems.append(f"round {i}: {one.logs} folders under logs/, of which {journal.KEPT_LOGS} were to be kept")
    third = max(len(rounds) // 3, 1)
    for what in ("memory", "disk"):
        first, last = (max(getattr(one, what) for one in part) for part in (rounds[:third], rounds[-third:]))
        if last > first * GROWTH:
            problems.append(f"{what} grows: {first:,.1f} MiB in the first {third} rounds, {last:,.1f} in the last")
    return problems


def table(rounds: list[Round]) -> Table:
    """Show the rounds."""
    numbers = [Column(name, justify="right") for name in ("seconds", "MiB held", "MiB left", "logs")]
    shown = Table("round", "stopped in", *numbers, "result", box=None)
    for i, one in enumerate(rounds):
        same = "equal" if one.result == rounds[0].result and one.result else "OTHER"
        held = (f"{one.seconds:.0f}", f"{one.memory:,.0f}", f"{one.disk:,.1f}", str(one.logs))
        shown.add_row(str(i), ", ".join(one.stops) or "-", *held, same)
    return shown


def soak(
    minutes: Annotated[float, typer.Option(min=1, help="no round is begun after so long")] = 60,
    rounds: Annotated[int, typer.Option(min=2)] = 20,
    seed: Annotated[int, typer.Option(help="of the moments and signals")] = 0,
    kills: Annotated[int, typer.Option(min=0, help="most stops a round")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="training steps a phase")] = 6,
    output: Annotated[Path | None, typer.Option(help="JSON file for what was found")] = None,
) -> None:
    """Run the pipeline many times with random kills, and hold the ends against each other."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs would pass on that it is ignored
    rng, begun, found = random.Random(seed), time.monotonic(), []
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy(folder, steps)
        while len(found) < rounds and (not found or time.monotonic() - begun < minutes * 60):
            found.append(play(folder, rng, kills if found else 0, found[0].seconds if found else 0.0))
            one = found[-1]
            show(f"round {len(found) - 1}: {one.seconds:.0f} s; {', '.join(one.stops) or 'not stopped'}"
                 f"{''.join(f'; {problem}' for problem in one.problems)}")  # fmt: skip
            if not found[0].result:
                break
    problems = judge(found)
    facts: dict[str, Any] = {"seed": seed, "rounds": [asdict(one) for one in found], "problems": problems}
    if output:
        runs.write_text(output, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
    show(table(found))
    for problem in problems:
        show(f"error: {problem}", style="bold red")
    stops = sum(len(one.stops) for one in found)
    show(f"{len(found)} rounds, {stops} stops, {sum(one.result == found[0].result for one in found)} equal results")
    if problems:
        raise typer.Exit(1)


if __name__ == "__main__":
    main(soak)

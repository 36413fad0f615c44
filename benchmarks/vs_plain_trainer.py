"""How fast tools/train.py trains on a CPU, against a plain Trainer script and LLaMA-Factory, to the same held-out loss.

    uv run benchmarks/vs_plain_trainer.py
    uv run benchmarks/vs_plain_trainer.py --examples 400 --rounds 1 --without llamafactory

All three train the same conversations of companion's phase 1 once, with the same base, LoRA, optimizer, schedule, batch
and precision, in turn, in a temporary folder; their trained tokens are compared. One function scores the checkpoints of
all on the validation set. LLaMA-Factory gets an environment of its own, from the package index that your uv knows.
Figures and the machine they were measured on stand in docs/performance.md.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from rich import box
from rich.table import Table

from recipekit import ROOT, held_out, models
from recipekit.chat_tokens import encode_chat
from recipekit.console import main, progress, show
from recipekit.errors import UserError
from recipekit.resolve import resolve
from recipekit.segments import read_jsonl
from recipekit.task import load_task

TASK, PHASE = "companion", "phase1"
COPIED = ("recipes", "tools", "deepspeed_configs", "data/samples/base", f"data/samples/{TASK}")
OURS, PLAIN, FACTORY = "tools/train.py", "plain script", "LLaMA-Factory"
MAX_LENGTH = 2048  # what guides pad to
CHECKPOINTS = 10  # of a run
FACTORY_VERSION = "0.9.5"
Tokens = tuple[list[int], list[int]]  # ids and labels of a row


class Other(StrEnum):
    """What tools/train.py is compared with."""

    plain = "plain"
    llamafactory = "llamafactory"


@dataclass
class Run:
    """What one training run came to.

    Attributes:
        wall: Seconds from its start to its end.
        ended: Step -> seconds from the start to its end.
        losses: Step with a checkpoint -> loss on held-out conversations, nats a trained token.
    """

    wall: float
    ended: dict[int, float]
    losses: dict[int, float]

    @property
    def step(self) -> float:
        """Return the seconds of a step, the median of those that follow no checkpoint."""
        return statistics.median(b - a for (step, a), (_, b) in pairwise(self.ended.items()) if step not in self.losses)

    @property
    def checkpoint(self) -> float:
        """Return the seconds that a checkpoint takes."""
        after = [b - a for (step, a), (_, b) in pairwise(self.ended.items()) if step in self.losses]
        return statistics.median(after) - self.step if after else 0.0

    @property
    def start_up(self) -> float:
        """Return the seconds before the first step."""
        return self.ended[1] - self.step

    @property
    def in_all(self) -> float:
        """Return the seconds from start to end without those for checkpoints, which are here to be scored."""
        return self.wall - len(self.losses) * self.checkpoint

    @property
    def final(self) -> float:
        """Return the loss at the end."""
        return self.losses[max(self.losses)]

    def until(self, loss: float) -> float:
        """Return the seconds until a checkpoint was as good as a loss, without those for checkpoints."""
        return self.start_up + self.step * min(step for step, found in self.losses.items() if found <= loss)


class Ground:
    """A folder in which all train, and what they have in common.

    Attributes:
        root: A copy of this repository, as far as training needs it.
        config: What the phase is trained with.
        steps: How many of them are trained.
        batch: Examples a step.
        bf16: Whether tools/train.py computes in bfloat16 here, and so do the others; it decides so by the CPU.
    """

    def __init__(self, root: Path, examples: int, threads: int) -> None:
        self.root, self.bf16 = root, False
        self.config = resolve(load_task(TASK), PHASE, "cpu")
        self.batch = self.config["micro_batch_size"] * self.config["gradient_accumulation_steps"]
        self.steps = examples // self.batch
        every = max(self.steps // CHECKPOINTS, 2)
        short = {"max_steps": self.steps, "eval_steps": self.steps, "save_steps": every, "save_total_limit": self.steps}
        self.config |= short
        unwanted = ("LOG_DIR", "MLFLOW_TRACKING_URI", "PYTHONPATH", "HF_TOKEN", "HF_AUTH_TOKEN", "VIRTUAL_ENV")
        self.env = {key: value for key, value in os.environ.items() if key not in unwanted}
        self.env |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(root / "cache")}
        self._copy(short)
        self.rows = self._rows()

    def _copy(self, short: dict[str, int]) -> None:
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        overlay = self.root / "recipes" / TASK / "cpu.yml"
        spec = yaml.safe_load(overlay.read_text(encoding="utf-8"))
        spec[PHASE] = spec[PHASE] | short
        overlay.write_text(yaml.safe_dump(spec), encoding="utf-8")
        command = [sys.executable, "tools/regenerate_segments.py", TASK, "--source", f"data/samples/{TASK}"]
        subprocess.run(command, cwd=self.root, env=self.env, check=True, capture_output=True)

    def _rows(self) -> list[dict[str, Any]]:
        """Cut the phase's data to what is trained once; others get it without the recipe's own keys."""
        path = self.root / self.config["datasets"][0]["path"]
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        count = self.steps * self.batch
        if not 2 * self.batch <= count <= len(lines):
            raise UserError(f"--examples: expected {2 * self.batch} to {len(lines)}, the rows of {path.name}")
        path.write_text("".join(lines[:count]), encoding="utf-8")
        talks = [json.loads(line)["messages"] for line in lines[:count]]
        if any(said["train"] != (said["role"] == "assistant") for talk in talks for said in talk):
            raise UserError(f"{path.name}: some replies are not trained, which the other programs cannot be told")
        rows = [{"messages": [{key: said[key] for key in ("role", "content")} for said in talk]} for talk in talks]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.root / "rows.jsonl").write_text(text, encoding="utf-8")
        return [{"messages": talk} for talk in talks]

    def output(self, way: str) -> Path:
        """Name the folder that a program's checkpoints are in."""
        return self.root / (self.config["output_dir"] if way == OURS else way)

    def command(self, way: str) -> list[str]:
        """Write a program's settings; returns its command."""
        if way == OURS:
            return [sys.executable, str(self.root / "tools" / "train.py"), TASK, PHASE, "--profile", "cpu"]
        path = self.root / "settings.yml"
        settings = factory_settings(self) if way == FACTORY else plain_settings(self)
        path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        python = str(self.root / "factory" / "bin" / "python") if way == FACTORY else sys.executable
        script = "factory_trainer.py" if way == FACTORY else "plain_trainer.py"
        return [python, str(ROOT / "benchmarks" / script), str(path)]

    def train(self, way: str) -> Run:
        """Train once, from nothing.

        Raises:
            UserError: It failed.
        """
        output, log = self.output(way), self.root / "log.txt"
        for folder in (output, self.root / "outputs" / TASK / "prepared", self.root / "tokenised", self.root / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        env = self.env | ({"PYTHONPATH": str(self.root / "tools")} if way == OURS else {})
        command = self.command(way)
        report = output / "progress.jsonl"
        with log.open("w") as stream, progress(f"{way:<14}", self.steps) as advance:
            began, clock = time.time(), time.perf_counter()
            with subprocess.Popen(command, cwd=self.root, env=env, stdout=stream, stderr=stream) as process:
                try:
                    code = watch(process, lambda: len(step_ends(report, began)), advance)
                finally:
                    process.kill()  # does nothing where it has ended
            wall = time.perf_counter() - clock
        steps = [int(path.name.partition("-")[2]) for path in output.glob("checkpoint-*")]
        found = Run(wall, step_ends(report, began), dict.fromkeys(sorted(steps), math.nan))
        if code or len(found.ended) != self.steps or self.steps not in found.losses:
            last = " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-4:])
            raise UserError(f"{way}: training failed (exit code {code}): {last}")
        if way == OURS:
            self.bf16 = json.loads((output / "run_facts.json").read_text(encoding="utf-8"))["bf16"]
        return found


def watch(process: subprocess.Popen[bytes], reached: Callable[[], int], advance: Callable[..., None]) -> int:
    """Move a bar until a process ends; returns its exit code."""
    shown = 0
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            step = reached()
            advance(step - shown)
            shown = step


def step_ends(report: Path, began: float) -> dict[int, float]:
    """Read when each step ended, in seconds after a time."""
    ended: dict[int, float] = {}
    for line in report.read_text(encoding="utf-8").splitlines() if report.exists() else ():
        entry = json.loads(line)
        ended.setdefault(entry["step"], entry["time"] - began)  # ours has lines with losses, too, behind the step's
    ended.pop(0, None)
    return ended


def arguments(ground: Ground, way: str) -> dict[str, Any]:
    """Say the phase's settings as transformers' TrainingArguments names them, which LLaMA-Factory takes, too."""
    same = "max_steps save_steps learning_rate warmup_steps weight_decay max_grad_norm adam_beta2 logging_steps seed"
    config = ground.config
    return {key: config[key] for key in same.split()} | {
        "output_dir": str(ground.output(way)),
        "per_device_train_batch_size": config["micro_batch_size"],
        "gradient_accumulation_steps": config["gradient_accumulation_steps"],
        "optim": config["optimizer"],
        "lr_scheduler_type": config["lr_scheduler"],
        "report_to": "none",
        "use_cpu": True,
        "bf16": ground.bf16,
    }


def plain_settings(ground: Ground) -> dict[str, Any]:
    """Say what benchmarks/plain_trainer.py trains."""
    config = ground.config
    return {
        "base": str(ground.root / config["base_model"]),
        "rows": str(ground.root / "rows.jsonl"),
        "max_length": MAX_LENGTH,
        "lora": {
            "r": config["lora_r"],
            "lora_alpha": config["lora_alpha"],
            "lora_dropout": config["lora_dropout"],
            "target_modules": config["lora_target_modules"],
        },
        "arguments": arguments(ground, PLAIN),
    }


def factory_settings(ground: Ground) -> dict[str, Any]:
    """Say what LLaMA-Factory trains."""
    config = ground.config
    tags = {f"{name}_tag": name for name in ("role", "content", "user", "assistant", "system")}
    entry = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (ground.root / "dataset_info.json").write_text(json.dumps({"rows": entry}), encoding="utf-8")
    return arguments(ground, FACTORY) | {
        "model_name_or_path": str(ground.root / config["base_model"]),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": config["lora_r"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config["lora_dropout"],
        "lora_target": ",".join(config["lora_target_modules"]),
        "disable_gradient_checkpointing": True,  # on unless told otherwise, and slower
        "flash_attn": "sdpa",
        "dataset": "rows",
        "dataset_dir": str(ground.root),
        "tokenized_path": str(ground.root / "tokenised"),
        "template": "small_base",
        "cutoff_len": MAX_LENGTH,
    }


def install_factory(env: Path) -> str | None:
    """Make LLaMA-Factory's environment, with the torch that runs here; returns why it could not be made, if so."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        return "there is no uv"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = [f"llamafactory=={FACTORY_VERSION}", f"torch=={torch.__version__.partition('+')[0]}"]
    for command in (
        ["venv", "--python", python, str(env)],
        ["pip", "install", "--compile-bytecode", "--python", str(env), *wanted],
    ):
        done = subprocess.run([uv, *command], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return " ".join(done.stderr.split())[-300:] or f"uv ended with {done.returncode}"
    return None


def tokens_of(ground: Ground, way: str, tokenizer: Any) -> Iterator[list[Tokens]]:
    """Read the sets of tokenised rows that a program made, as it trained them."""
    from datasets import load_from_disk

    from plain_trainer import encode

    if way == PLAIN:
        made = [encode(tokenizer, row["messages"], MAX_LENGTH) for row in ground.rows]
        yield [(one["input_ids"][: sum(one["attention_mask"])], one["labels"]) for one in made]
        return
    folder = ground.root / ("tokenised" if way == FACTORY else f"outputs/{TASK}/prepared")
    for path in folder.rglob("state.json"):
        found = load_from_disk(str(path.parent))
        yield list(zip(map(list, found["input_ids"]), map(list, found["labels"]), strict=True))


def check_tokens(ground: Ground, way: str, tokenizer: Any) -> int:
    """See that a program trained the tokens that serving needs; returns how many.

    Raises:
        UserError: It trained others.
    """
    wanted = []
    for row in ground.rows:
        ids, trained = encode_chat(tokenizer, row["messages"])
        wanted.append((ids, [token if flag else -100 for token, flag in zip(ids, trained, strict=True)]))
    sets = [[(ids, labels[: len(ids)]) for ids, labels in rows] for rows in tokens_of(ground, way, tokenizer)]
    counts = [sum(label != -100 for _, labels in rows for label in labels) for rows in (*sets, wanted)]
    if sorted(wanted) not in [sorted(rows) for rows in sets]:
        raise UserError(f"{way}: trained other tokens: {counts[:-1]} of them, expected {counts[-1]}")
    return counts[-1]


def score(ground: Ground, way: str, found: Run, base: Any, tokenizer: Any) -> None:
    """Score a run's checkpoints on held-out conversations."""
    path = ground.root / ground.config["test_datasets"][0]["path"]
    talks = {PHASE: [row for _, row in read_jsonl(path)]}
    with progress(f"{way:<14} held out", len(found.losses)) as advance:
        for step in found.losses:
            with held_out.tuned(base, ground.output(way) / f"checkpoint-{step}") as model:
                found.losses[step] = held_out.losses(model, tokenizer, talks, lambda _: None)[PHASE]
            advance()


def measure(ground: Ground, ways: list[str], rounds: int) -> tuple[dict[str, list[Run]], int]:
    """Train with each in turn, and score what it saved; returns the runs, and how many tokens of each were trained."""
    base = models.load_model(ground.root / ground.config["base_model"], torch.float32)
    tokenizer = models.load_tokenizer(ground.root / ground.config["base_model"])
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    tokens = 0
    for number in range(1, rounds + 1):
        for way in ways:
            found = ground.train(way)
            tokens = check_tokens(ground, way, tokenizer)
            score(ground, way, found, base, tokenizer)
            runs[way].append(found)
            loads = " ".join(f"{load:.1f}" for load in os.getloadavg()[:2])
            show(f"round {number}, {way}: {found.wall:.1f} s, {1 / found.step:.2f} steps/s, load average {loads}")
    return runs, tokens


def table(runs: dict[str, list[Run]], batch: int, missing: dict[str, str]) -> Table:
    """Lay medians out, and beside each how many times that of tools/train.py it is."""
    loss = max(one.final for found in runs.values() for one in found)
    headings = ("examples/s", "start-up", "checkpoint", "in all", "to the same loss", "loss at the end")
    shown = Table("", *headings, box=box.SIMPLE_HEAD)

    def middle(way: str, of: Callable[[Run], float]) -> float:
        return statistics.median(map(of, runs[way]))

    def compared(way: str, of: Callable[[Run], float], unit: str = " s") -> str:
        return f"{middle(way, of):,.1f}{unit} ({middle(way, of) / middle(OURS, of):.2f})"

    for way in runs:
        shown.add_row(
            way,
            compared(way, lambda one: batch / one.step, ""),
            f"{middle(way, lambda one: one.start_up):.1f} s",
            f"{middle(way, lambda one: one.checkpoint):.2f} s",
            compared(way, lambda one: one.in_all),
            compared(way, lambda one: one.until(loss)),
            f"{middle(way, lambda one: one.final):.3f}",
        )
    for way, why in missing.items():
        shown.add_row(way, f"could not be installed: {why}")
    return shown


def compare(
    examples: Annotated[int, typer.Option(help="Conversations that each trains, once.")] = 800,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    without: Annotated[list[Other] | None, typer.Option(help="Leave one out.")] = None,
) -> None:
    """Train with all three in turn, and show a table."""
    others = {Other.plain: PLAIN, Other.llamafactory: FACTORY}
    ways = [OURS, *(way for name, way in others.items() if name not in (without or []))]
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder).resolve(), examples, threads)
        if FACTORY in ways:
            show(f"{FACTORY} {FACTORY_VERSION}: installing")
            if why := install_factory(ground.root / "factory"):
                missing[FACTORY] = why
                ways.remove(FACTORY)
                show(f"{FACTORY} could not be installed: {why}", style="yellow")
        runs, tokens = measure(ground, ways, rounds)
        show(table(runs, ground.batch, missing))
        show(f"{ground.steps} steps of {ground.batch} conversations, {tokens:,} trained tokens, the same in all")
        precision = "bfloat16 beside float32" if ground.bf16 else "float32"
        show(f"{precision}, {threads} thread(s), torch {torch.__version__}; in brackets: times that of {OURS}")


if __name__ == "__main__":
    main(compare)

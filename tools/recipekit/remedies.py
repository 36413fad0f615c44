"""What to change when a training runs out of memory, computed for its config and data, and written as an overlay."""

import bisect
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recipekit import hub, yamlfile
from recipekit.console import show
from recipekit.durations import rows_per_step
from recipekit.errors import UserError
from recipekit.oom import OutOfMemory
from recipekit.resolve import data_files, memory_overlay, resolve
from recipekit.rowcheck import BATCH, OncePerText, load_tokenizer, tokenizer_name
from recipekit.runs import relative, write_bytes, write_text
from recipekit.segments import count_tokens, read_jsonl
from recipekit.task import Task

LENGTHS = sorted([*(2**k for k in range(7, 18)), *(3 * 2**k for k in range(6, 16))])  # 128, 192, 256, 384, 512 ...
MOST = 6  # remedies that one command takes by itself
ROUND = 64  # tokens that a pack's length is a multiple of


@dataclass(frozen=True)
class Remedy:
    """A change of a phase's config that takes less memory.

    Attributes:
        changes: Keys and their new values; None removes one.
        what: The same in words, and what it means for the result.
        loses: Whether rows or tokens are trained no more.
    """

    changes: dict[str, Any]
    what: str
    loses: bool = False


@dataclass(frozen=True)
class Lengths:
    """Tokens of a config's rows.

    Attributes:
        train: Of each row that is trained on, all of them.
        trained: Of each row that is trained on, those that are trained.
        held_out: Of each row that is evaluated on.
    """

    train: np.ndarray
    trained: np.ndarray
    held_out: np.ndarray

    @property
    def longest(self) -> int:
        """The longest row of all."""
        return int(max(self.train.max(initial=0), self.held_out.max(initial=0)))


def next_remedy(task: Task, profile: str, config: dict[str, Any], found: OutOfMemory) -> Remedy | None:
    """Pick the first change that helps: what loses nothing comes before what costs time, and both before lost rows.

    Args:
        task: The task.
        profile: "cpu" or "gpu".
        config: What Axolotl got.
        found: How it ran out of memory.

    Returns:
        The change; None where the model itself does not fit, or nothing is left to change.

    Raises:
        UserError: The rows cannot be counted, which is needed by then.
    """
    if found.device == "host" and profile == "gpu":
        return _workers(config)
    if found.stage == "loading":
        return None
    if found.stage == "evaluation" and (remedy := _evaluation(config)):
        return remedy
    rules: list[Callable[[Task, dict[str, Any], OutOfMemory], Remedy | None]] = [
        _batch,
        _pack,
        _checkpointing,
        _shorten,
    ]
    if (config.get("regression", {}).get("ranking") or {}).get("loss", "none") != "none":
        rules = [_checkpointing, _batch, _shorten]  # its loss compares the rows of a batch: split, it is another one
    return next((remedy for rule in rules if (remedy := rule(task, config, found))), None)


def _workers(config: dict[str, Any]) -> Remedy | None:
    if not config.get("dataloader_num_workers"):
        return None
    what = "dataloader_num_workers 0: rows are read by the training process itself, the results are the same"
    return Remedy({"dataloader_num_workers": 0, "dataloader_prefetch_factor": None}, what)


def _evaluation(config: dict[str, Any]) -> Remedy | None:
    size = config.get("eval_batch_size") or config.get("micro_batch_size", 1)
    if size == 1:
        return None
    return Remedy({"eval_batch_size": size // 2}, f"eval_batch_size {size} -> {size // 2}: training stays as it is")


def split(batch: int, micro: int) -> int:
    """Return about half of micro, so that batch is a whole multiple of it: its greatest divisor of that size or less.

    Args:
        batch: Rows of an optimizer step.
        micro: Rows at a time, over 1.
    """
    return max(n for n in range(1, (micro + 1) // 2 + 1) if n < micro and batch % n == 0)


def _batch(task: Task, config: dict[str, Any], found: OutOfMemory) -> Remedy | None:
    micro, batch = config.get("micro_batch_size", 1), rows_per_step(config)
    if micro == 1:
        return None
    new = split(batch, micro)
    changes = {"micro_batch_size": new, "gradient_accumulation_steps": batch // new}
    if found.stage == "training":  # an evaluation is a mean over batches: of other ones it is another number
        changes["eval_batch_size"] = config.get("eval_batch_size") or micro
    steps = f"gradient_accumulation_steps {config.get('gradient_accumulation_steps', 1)} -> {batch // new}"
    same = "packed anew into as many tokens" if config.get("sample_packing") else "the same result but for rounding"
    return Remedy(changes, f"micro_batch_size {micro} -> {new}, {steps}: {batch} rows a step as before, {same}")


def _pack(task: Task, config: dict[str, Any], found: OutOfMemory) -> Remedy | None:
    """Shorten what rows are packed into, or padded to, down to the longest row; no row is lost."""
    if not config.get("sample_packing") and not config.get("pad_to_sequence_len"):
        return None
    try:
        longest, now = row_lengths(task, config).longest, config["sequence_len"]
    except UserError:
        return None  # the next rule needs no count
    half = now // 2
    new = half if half >= longest and half % ROUND == 0 else -(-longest // ROUND) * ROUND
    if new >= now:
        return None
    changes = {"sequence_len": new}
    what = f"sequence_len {now} -> {new}: the longest row has {longest:,} tokens, so none is lost"
    if config.get("sample_packing"):
        steps = config.get("gradient_accumulation_steps", 1)
        changes["gradient_accumulation_steps"] = max(1, round(steps * now / new))
        share = changes["gradient_accumulation_steps"] * new / (steps * now)
        tokens = "as many tokens a step as before" if share == 1 else f"{share:.0%} of the tokens a step"
        what += f"; packs are shorter, gradient_accumulation_steps {steps} -> {changes['gradient_accumulation_steps']}"
        what += f": {tokens}"
    return Remedy(changes, what)


def _checkpointing(task: Task, config: dict[str, Any], found: OutOfMemory) -> Remedy | None:
    if config.get("gradient_checkpointing"):
        return None
    what = "gradient_checkpointing true: the same result but for rounding, about a third slower"
    return Remedy({"gradient_checkpointing": True}, what)


def _shorten(task: Task, config: dict[str, Any], found: OutOfMemory) -> Remedy | None:
    """Lower sequence_len by a notch, and say what that loses."""
    rows = row_lengths(task, config)
    place = bisect.bisect_left(LENGTHS, min(config["sequence_len"], rows.longest))
    if place == 0:
        return None
    new = LENGTHS[place - 1]
    long = rows.train > new
    share = f"{long.sum():,} of {len(long):,} rows ({long.mean():.1%})"
    evaluated = f"{(rows.held_out > new).sum():,} of {len(rows.held_out):,} that are evaluated on"
    what = f"sequence_len {config['sequence_len']} -> {new}"
    if "regression" in config:  # excess_length_strategy: truncate
        lost = np.maximum(rows.train - new, 0).sum() / rows.train.sum()
        return Remedy({"sequence_len": new}, f"{what} cuts the end off {share}, {lost:.1%} of all tokens", loses=True)
    lost = rows.trained[long].sum() / max(rows.trained.sum(), 1)
    what += f" drops {share} with {lost:.1%} of the trained tokens, and {evaluated}"
    return Remedy({"sequence_len": new, "excess_length_strategy": "drop"}, what, loses=True)


def row_lengths(task: Task, config: dict[str, Any]) -> Lengths:
    """Count the tokens of every row of a config's files, with its tokenizer.

    Raises:
        UserError: A file or the tokenizer is missing, or rows are neither segments nor texts with labels.
    """
    if missing := [path for path in data_files(task, config) if not path.is_file()]:
        remedy = f"make it with: uv run tools/regenerate_segments.py {task.name}"
        raise UserError(
            [f"{relative(path)}: no such file, so its rows cannot be counted; {remedy}" for path in missing]
        )
    name, token = tokenizer_name(config), hub.find_token(task.root)
    tokenizer = load_tokenizer(task.root, name, config.get("revision_of_model"), token)
    train = data_files(task, {"datasets": config.get("datasets", [])})
    counts = [_counts(tokenizer, path) for path in train]
    held_out = [_counts(tokenizer, path)[0] for path in data_files(task, config) if path not in train]
    none = np.zeros(0, np.int64)
    return Lengths(
        np.concatenate([none, *(total for total, _ in counts)]),
        np.concatenate([none, *(trained for _, trained in counts)]),
        np.concatenate([none, *held_out]),
    )


def _counts(tokenizer: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Count a file's tokens, row by row: all, and those that are trained."""
    known = OncePerText(lambda texts: count_tokens(tokenizer, texts))
    total: list[int] = []
    trained: list[int] = []
    batch: list[dict[str, Any]] = []

    def flush() -> None:
        if "segments" in batch[0]:
            found = known(part["text"] for row in batch for part in row["segments"])
            total.extend(sum(found[part["text"]] for part in row["segments"]) for row in batch)
            trained.extend(sum(found[part["text"]] for part in row["segments"] if part["label"]) for row in batch)
        elif "body" in batch[0]:
            texts = [(row["body"], row["pair"]) if "pair" in row else row["body"] for row in batch]
            total.extend(count_tokens(tokenizer, texts, special=True))
        else:
            raise UserError(f"{relative(path)}: rows hold neither segments nor body, so their tokens cannot be counted")
        batch.clear()

    for _, row in read_jsonl(path):
        batch.append(row)
        if len(batch) == BATCH:
            flush()
    if batch:
        flush()
    return np.array(total, np.int64), np.array(trained or total, np.int64)


def answer(task: Task, phase: str, profile: str, found: OutOfMemory, tried: int, log: Path) -> None:
    """Answer a training that ran out of memory: with AUTO_OOM=1 lay the next remedy over the recipe, else say how to.

    The overlay is written beside the log; laid over is what lies at `resolve.memory_overlay`.

    Args:
        task: The task.
        phase: One of its phases.
        profile: "cpu" or "gpu".
        found: How it ran out of memory.
        tried: How many remedies this command has taken.
        log: The phase's log.

    Raises:
        UserError: The remedy is not to be taken unasked, or there is none.
    """
    told = f"{phase}: {found.describe()}; log: {relative(log)}"
    try:
        remedy = next_remedy(task, profile, resolve(task, phase, profile), found)
    except UserError as error:
        raise UserError([told, *error.problems]) from None
    if remedy is None:
        raise UserError([told, f"{phase}: {_nothing_left(found)}"])
    overlay, target = log.with_name(f"{phase}.oom.yml"), memory_overlay(task, phase, profile)
    write_overlay(overlay, task, phase, profile, remedy)
    asked = os.environ.get("AUTO_OOM") == "1"
    if asked and not remedy.loses and tried < MOST:
        write_bytes(target, overlay.read_bytes())
        show(told, style="yellow")
        show(f"AUTO_OOM=1: {remedy.what}; going on with {relative(target)}", style="yellow")
        return
    why = "AUTO_OOM=1 before the command does this by itself"
    if asked:
        why = "AUTO_OOM=1 takes none that loses data" if remedy.loses else f"AUTO_OOM=1 has taken {MOST} already"
    copy = shlex.join(["cp", relative(overlay), relative(target)])
    raise UserError([told, f"{phase}: what helps: {remedy.what}", f"to take it: {copy}, then the same command; {why}"])


def _nothing_left(found: OutOfMemory) -> str:
    if found.device == "host":
        return "no setting of the recipe helps; close other programs, or take a machine with more memory"
    if found.stage == "loading":
        return (
            "the model itself does not fit; take a GPU with more memory (uv run tools/estimate.py tells how much), "
            "adapter: qlora with load_in_4bit: true, or several GPUs with deepspeed: deepspeed_configs/zero3.json"
        )
    return "nothing is left to make smaller; take a GPU with more memory, or a smaller base"


def write_overlay(path: Path, task: Task, phase: str, profile: str, remedy: Remedy) -> None:
    """Write a remedy, with those that are laid over already, as a file that recipekit.resolve reads."""
    config, before = resolve(task, phase, profile), memory_overlay(task, phase, profile)
    content = yamlfile.load(before)[0] if before.exists() else {"made_for": {}, "laid_over": {}}
    content["made_for"] = {key: config.get(key) for key in remedy.changes} | content["made_for"]
    content["laid_over"] |= remedy.changes
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    head = f"# {task.name} {phase}, profile {profile}, ran out of memory: {remedy.what}.\n"
    rule = "# laid_over replaces what the recipe says (made_for), null removing a key. Delete the file to undo it.\n"
    write_text(path, head + rule + text)

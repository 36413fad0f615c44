"""What Axolotl accepts and no recipe may contain: settings that switch themselves off, are ignored or lose training."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit import yamlfile
from recipekit.axolotl_schema import Finding, Key
from recipekit.errors import UserError
from recipekit.resolve import memory_overlay, resolve
from recipekit.runs import relative
from recipekit.task import Task

REQUIRED = {
    "seed": "unset is random and no run can be repeated; write seed: 42",
    "sequence_len": "unset is 512 tokens; write the longest row you need, e.g. 4096",
    "attn_implementation": "unset lets packed rows see each other; write sdpa",
    "output_dir": "unset is ./model-out for every phase; write outputs/<task>/<phase>",
    "save_steps": "unset leaves nothing to resume from; write a step count",
}
# A loaded adapter keeps its own values of these, and the later phase's are ignored without a word.
CHAINED = (
    *("base_model", "revision_of_model", "tokenizer_config", "special_tokens", "tokens", "chat_template"),
    *("adapter", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear"),
    *("lora_modules_to_save", "peft_use_dora", "peft_use_rslora"),
)
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
FROM_MERGED = ("dpo", "ipo", "kto")  # train a new adapter whatever lora_model_dir says
# What keeps packed rows apart; Axolotl only warns of others, and takes owner/name for a kernel to download and run.
ATTENTION = (
    *("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"),
    *("flash_attention_torch", "xformers", "sage"),
)
LAID_OVER: Key = ("laid_over",)  # of a memory overlay
GPU_OPTIMIZERS = ("fused", "8bit", "4bit", "paged", "fp8")


@dataclass(frozen=True)
class Config:
    """A phase's Axolotl config, and where each of its keys was written.

    Attributes:
        profile: "gpu" or "cpu": the machine it is for.
        values: What Axolotl gets.
        sources: Files that went in, the winning one first, each with its lines and the key path it is under there.
    """

    phase: str
    profile: str
    values: dict[str, Any]
    sources: list[tuple[Path, yamlfile.Lines, Key]]

    @property
    def drops_rows(self) -> bool:
        """Whether a memory overlay drops rows that are too long: someone has read how many, and put it there."""
        return any((*LAID_OVER, "excess_length_strategy") in lines for _, lines, at in self.sources if at == LAID_OVER)

    def at(self, key: Key) -> str:
        """Name a key's place, file:line: key; the nearest enclosing key's line where it is not written out."""
        name = f": {'.'.join(map(str, key))}" if key else ""
        for length in range(len(key), 0, -1):
            for path, lines, prefix in self.sources:
                if (*prefix, *key[:length]) in lines:
                    return f"{relative(path)}:{lines[(*prefix, *key[:length])]}{name}"
        return f"{relative(self.sources[-1][0])}:1{name}"

    def place(self, finding: Finding) -> str:
        """Write a finding as file:line: key: message; one about the whole config stands at the first key it names."""
        words = (word.strip("`'\".,:=()") for word in finding.message.split())
        key = finding.key or next(((word,) for word in words if word in self.values), ())
        return f"{self.at(key)}: {finding.message}"


def load_configs(task: Task, profile: str) -> tuple[list[Config], list[Config], list[str]]:
    """Read each phase's config: as written for production, and resolved for the profile; and why some could not be."""
    written, resolved = [], []
    problems: list[str] = []
    for phase in task.phases:
        path = task.dir / f"{phase}.yml"
        try:
            values, lines = yamlfile.load(path)
            source: tuple[Path, yamlfile.Lines, Key] = (path, lines, ())
            written.append(Config(phase, "gpu", values, [source]))
            overlays = _overlays(task, phase, profile)
            resolved.append(Config(phase, profile, resolve(task, phase, profile), [*overlays, source]))
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            problems.append(
                f"{relative(path)}:1: cannot be resolved for {profile} ({reason}); mend what is named below"
            )
    return written, resolved, problems


def _overlays(task: Task, phase: str, profile: str) -> list[tuple[Path, yamlfile.Lines, Key]]:
    files: list[tuple[Path, Key]] = [(memory_overlay(task, phase, profile), LAID_OVER)]
    if profile == "cpu":
        files += [(task.dir / "cpu.yml", (phase,)), (task.root / "recipes" / "cpu.yml", ())]
    return [(path, yamlfile.load(path)[1], prefix) for path, prefix in files if path.exists()]


def phase_problems(config: Config, root: Path) -> list[str]:
    """Find the traps that one phase's config walks into."""
    rules = [_required, _attention, _lengths, _evaluation, _best, _tracking]
    findings = [finding for rule in rules for finding in rule(config.values)]
    if config.drops_rows:
        findings = [finding for finding in findings if finding.key != ("excess_length_strategy",)]
    findings += _deepspeed(config.values, root)
    if config.profile == "cpu":
        findings += _gpu_only(config.values)
    return [config.place(finding) for finding in findings]


def _required(values: dict[str, Any]) -> Iterator[Finding]:
    for key, remedy in REQUIRED.items():
        if values.get(key) is None:
            yield Finding((key,), f"not set; {remedy}")


def _attention(values: dict[str, Any]) -> Iterator[Finding]:
    found = str(values.get("attn_implementation", "sdpa"))
    if "/" in found:
        yield Finding(("attn_implementation",), f"found {found}, which runs code from the Hub; write sdpa")
    elif values.get("sample_packing") and found not in ATTENTION:
        yield Finding(("attn_implementation",), f"found {found}, in which packed rows see each other; write sdpa")


def _lengths(values: dict[str, Any]) -> Iterator[Finding]:
    cut = "regression" in values and values.get("excess_length_strategy") == "truncate"  # no answer at the end to lose
    if values.get("excess_length_strategy") != "raise" and not cut:
        found = values.get("excess_length_strategy", "nothing")
        message = f"found {found}, expected raise: drop loses rows, truncate loses answers and EOS; write raise"
        yield Finding(("excess_length_strategy",), message)
    if values.get("train_on_inputs"):
        yield Finding(("train_on_inputs",), "found true, which trains the prompt too; remove it")


def _evaluation(values: dict[str, Any]) -> Iterator[Finding]:
    steps, every, save = values.get("max_steps"), values.get("eval_steps"), values.get("save_steps")
    if not values.get("test_datasets"):
        yield Finding(("test_datasets",), "not set, so nothing is evaluated; name the validation segments")
    if not every:
        yield Finding(("eval_steps",), "not set, so evaluation turns itself off; write a step count up to max_steps")
    elif steps and every > steps:
        yield Finding(("eval_steps",), f"found {every}, but training ends at max_steps {steps}; write {steps} or less")
    if every and save and save % every and (values.get("load_best_model_at_end") or every % save):
        yield Finding(("save_steps",), f"found {save}, expected a multiple of eval_steps {every}; write {every}")
    if str(values.get("eval_strategy", "steps")) == "no":
        yield Finding(("eval_strategy",), "found no, so nothing is evaluated; write steps or remove it")


def _best(values: dict[str, Any]) -> Iterator[Finding]:
    metric = str(values.get("metric_for_best_model", "loss"))
    if values.get("load_best_model_at_end") and not metric.endswith("loss") and values.get("greater_is_better") is None:
        message = f"not set, so more of {metric} is held to be better; write false for errors, true for accuracies"
        yield Finding(("greater_is_better",), message)


def _tracking(values: dict[str, Any]) -> Iterator[Finding]:
    uri = values.get("mlflow_tracking_uri")
    wanted = values.get("use_mlflow") or values.get("mlflow_experiment_name")
    if (uri is None and wanted) or (uri is not None and (str(uri).startswith("file:") or "://" not in str(uri))):
        message = f"found {uri or 'nothing (./mlruns)'}, a folder, which MLflow 3 refuses; write sqlite:///mlflow.db"
        yield Finding(("mlflow_tracking_uri",), message)


def _deepspeed(values: dict[str, Any], root: Path) -> Iterator[Finding]:
    name = values.get("deepspeed")
    if not isinstance(name, str):
        return
    try:
        zero = json.loads((root / name).read_text(encoding="utf-8")).get("zero_optimization", {})
    except FileNotFoundError:
        yield Finding(("deepspeed",), f"{name} does not exist; write deepspeed_configs/zero2.json")
    except ValueError as error:
        yield Finding(("deepspeed",), f"{name} is not valid JSON: {error}; mend it")
    else:
        device = zero.get("offload_optimizer", {}).get("device", "none")
        if device != "none":
            message = (
                f"{name} offloads the optimizer to {device}, which slows every step; remove offload_optimizer there"
            )
            yield Finding(("deepspeed",), message)


def _gpu_only(values: dict[str, Any]) -> Iterator[Finding]:
    """Find what a machine without a GPU cannot run."""
    for key in KERNELS:
        if values.get(key) is not False:
            yield Finding((key,), "expected false: unset it switches itself on, and its Triton kernel needs a GPU")
    if values.get("bf16") is not False:
        yield Finding(("bf16",), f"found {values.get('bf16')}, expected false: auto becomes fp16 on a CPU")
    for key in ("fp16", "tf32", "load_in_4bit", "load_in_8bit", "fp8", "deepspeed", "flash_attention"):
        if values.get(key):
            yield Finding((key,), f"found {values[key]}, which needs a GPU; write null in recipes/cpu.yml")
    if values.get("attn_implementation") not in (None, "sdpa", "eager"):
        yield Finding(("attn_implementation",), f"found {values['attn_implementation']}, which needs a GPU; write sdpa")
    if any(mark in str(values.get("optimizer")) for mark in GPU_OPTIMIZERS):
        yield Finding(("optimizer",), f"found {values['optimizer']}, which needs a GPU; write adamw_torch")
    for i, plugin in enumerate(values.get("plugins") or []):
        if any(name in plugin for name in ("liger", "cut_cross_entropy", "kernels")):
            yield Finding(("plugins", i), f"found {plugin}, which needs a GPU; write plugins: null in recipes/cpu.yml")


def head_problems(configs: list[Config], targets: dict[str, dict[str, Any]]) -> list[str]:
    """Find where a regression's last phase does not estimate the task's targets, or a head is taken over by mistake."""
    problems = []
    heads = [config.values.get("regression", {}).get("heads") for config in configs]
    for before, own, config in zip(heads, heads[1:], configs[1:], strict=False):
        new = bool(config.values.get("regression", {}).get("new_head"))
        if own and before and new == (list(own.items()) == list(before.items())):
            found = "the heads are those of the phase before" if new else "the heads are not those of the phase before"
            message = f"found {str(new).lower()}, but {found}; write new_head: {str(not new).lower()}"
            problems.append(config.place(Finding(("regression", "new_head"), message)))
    last = heads[-1] if heads else None
    scales = [(name, list(target["scale"])) for name, target in targets.items()]
    if last and [(name, head["scale"]) for name, head in last.items() if head.get("scale")] != scales:
        message = f"numbers and scales are not the targets of task.yml, expected {dict(scales)} in this order"
        problems.append(configs[-1].place(Finding(("regression", "heads"), message)))
    return problems


def chain_problems(configs: list[Config], root: Path) -> list[str]:
    """Find where a later phase does not go on from the one before, or would be overwritten by it."""

    def full(value: Any) -> str:
        return os.path.normpath(root / str(value))

    problems = []
    for first in configs[:1]:
        if not first.values.get("lora_model_dir"):
            continue
        problems.append(f"{first.at(('lora_model_dir',))}: the first phase starts from no adapter; remove it")
    for before, after in zip(configs, configs[1:], strict=False):
        problems += [after.place(finding) for finding in _chain(before, after, full)]
        output = after.values.get("output_dir")
        if any(output and full(output) == full(c.values.get("output_dir")) for c in configs[: configs.index(after)]):
            problems.append(
                f"{after.at(('output_dir',))}: an earlier phase writes to {output} too; name another folder"
            )
    return problems


def _chain(before: Config, after: Config, full: Any) -> Iterator[Finding]:
    rl, start, output = (after.values.get("rl"), after.values.get("lora_model_dir"), before.values.get("output_dir"))
    if rl in FROM_MERGED:
        if start:
            message = f"rl: {rl} ignores it and starts from zero; remove it and write base_model: <the merged folder>"
            yield Finding(("lora_model_dir",), message)
        if after.values.get("base_model") == before.values.get("base_model"):
            message = f"the same as {before.phase}'s, so {before.phase} is lost; write the folder it is merged into"
            yield Finding(("base_model",), message)
        return
    if not start or full(start) != full(output):
        message = f"found {start or 'nothing'}, expected {before.phase}'s output_dir; write lora_model_dir: {output}"
        yield Finding(("lora_model_dir",), message)
    for key in CHAINED:
        mine, theirs = after.values.get(key), before.values.get(key)
        if _plain(mine) != _plain(theirs):
            where = before.at((key,)).removesuffix(f": {key}")
            message = (
                f"found {mine}, but {before.phase} has {theirs} ({where}), which its adapter keeps; make them equal"
            )
            yield Finding((key,), message)


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value

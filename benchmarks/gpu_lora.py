"""How fast a 7B learns on this GPU: the hawks recipe, a padded one, and the recipe with one thing changed.

    uv run benchmarks/gpu_lora.py --minutes 8 --output outputs/gpu
    uv run benchmarks/gpu_lora.py --tiny --minutes 5 --output outputs/gpu      # a model of two layers, on CPUs

Needs no network: the base has RakutenAI-7B's sizes and random weights, rows have lengths as news articles have. Each
case is an Axolotl run of its own, so one that fails or runs out of memory is a cell that says so. After each case
gpu_lora.json and gpu_lora.md, the table for docs/gpu.md, are written; cases that no time was left for stay empty.
"""

import json
import random
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import gpu
from recipekit import ROOT, yamlfile
from recipekit.architecture import Architecture, architecture
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.runs import write_jsonl, write_text

RECIPE = ROOT / "recipes" / "hawks" / "phase2.yml"
MEDIAN, SPREAD, LONGEST = 700, 0.6, 4096  # tokens of a row: log-normal, cut
ANSWER = 100  # of these trained, at its end
LEAST = 45  # seconds that a case needs before its first step: imports, and 15 GB of weights
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
START = "from axolotl.cli.main import cli; cli(prog_name='axolotl')"
UNPACKED = {"sample_packing": False, "micro_batch_size": 8, "gradient_accumulation_steps": 2}
NO_LIGER = {"plugins": None, "liger_rms_norm": None, "liger_fused_linear_cross_entropy": None}
# Neither packed nor fused: 8 rows of 4,096 tokens are more than 80 GB hold unless activations are computed again.
PLAIN = UNPACKED | NO_LIGER | dict.fromkeys(KERNELS, False) | {"gradient_checkpointing": True}


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        name: As the table shows it.
        changes: Keys of phase2.yml that it sets; None takes one out.
        needs: A module without which it cannot run.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None


OURS, PADDED = Case("phase2.yml"), Case("padded to 4,096, not packed, 8 x 2", PLAIN)
# What matters most comes first: time may run out.
CASES = [
    OURS,
    PADDED,
    Case("padded to the longest of 8, not packed, 8 x 2", PLAIN | {"pad_to_sequence_len": False}),
    Case("without packing, 8 x 2", UNPACKED | {"pad_to_sequence_len": False}),
    Case("without LoRA kernels", dict.fromkeys(KERNELS, False)),
    Case("with gradient checkpointing", {"gradient_checkpointing": True}),
    Case("without Liger", NO_LIGER),
    Case("flash_attention_2", {"attn_implementation": "flash_attention_2"}, needs="flash_attn"),
    Case("4 x 1 packs", {"micro_batch_size": 4, "gradient_accumulation_steps": 1}),
    Case("without dropout", {"lora_dropout": 0.0}),
    Case("flex_attention", {"attn_implementation": "flex_attention"}),
    Case("sdpa under a mask", {"sdpa_varlen": False}),
    Case("without DeepSpeed", {"deepspeed": None}),
    Case("adamw_torch", {"optimizer": "adamw_torch"}),
    Case("1 x 4 packs", {"micro_batch_size": 1, "gradient_accumulation_steps": 4}),
]
TITLES = ("case", "attention", "examples/s", "times", "tokens/s", "padding", "peak GB", "utilisation")
EMPTY = "not run on a GPU"


def config(case: Case, work: Path, tiny: bool) -> dict[str, Any]:
    """Make what Axolotl gets: the recipe, the case's changes, and what a benchmark is without: evaluation, saving."""
    values, _ = yamlfile.load(RECIPE)
    values |= case.changes
    folder = work / _slug(case)
    values |= {
        "base_model": str(work / "base"), "special_tokens": None, "lora_model_dir": None,
        "datasets": [{"path": str(work / "rows.jsonl"), "ds_type": "json", "type": "input_output"}],
        "test_datasets": None, "eval_steps": None, "eval_sample_packing": None, "load_best_model_at_end": None,
        "save_steps": None, "save_total_limit": None, "save_strategy": "no", "auto_resume_from_checkpoints": None,
        "dataset_prepared_path": str(folder / "prepared"), "output_dir": str(folder / "out"), "max_steps": 100_000,
        "plugins": [*(values["plugins"] or []), "gpu_probe.Probe"],
        **{key: None for key in values if "mlflow" in key},
    }  # fmt: skip
    if values["deepspeed"]:
        values["deepspeed"] = str(ROOT / values["deepspeed"])
    if tiny:
        overlay, _ = yamlfile.load(ROOT / "recipes" / "cpu.yml")
        needs_a_gpu = ("bf16", "tf32", "deepspeed", *NO_LIGER, *KERNELS)
        values |= {key: overlay[key] for key in needs_a_gpu if key != "plugins"}
        values |= {"plugins": ["gpu_probe.Probe"], "sequence_len": 256, "dataloader_num_workers": 0}
        values |= {"dataloader_prefetch_factor": None, "dataset_num_proc": 0}
    return {key: value for key, value in values.items() if value is not None}


def _slug(case: Case) -> str:
    return "".join(character if character.isalnum() else "-" for character in case.name)


def lengths(count: int, rng: random.Random, tiny: bool) -> list[int]:
    """Draw the rows' tokens."""
    median, longest = (40, 256) if tiny else (MEDIAN, LONGEST)
    return [min(max(int(rng.lognormvariate(0, SPREAD) * median), 8), longest) for _ in range(count)]


def write_rows(path: Path, tiny: bool) -> None:
    """Write segments of random characters, each a token of the bundled tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gpu.TOKENIZER)
    letters = [token for token in tokenizer.get_vocab() if len(token) == 1 and "\u3041" <= token <= "\u9fff"]
    rng, rows = random.Random(0), []
    for number in lengths(200 if tiny else 2000, rng, tiny):
        answer = min(ANSWER, number // 4)
        text = "".join(rng.choices(letters, k=number - 2))
        segments = [(False, "<s>" + text[:-answer]), (True, text[-answer:] + "</s>")]
        rows.append({"segments": [{"label": label, "text": part} for label, part in segments]})
    write_jsonl(path, rows)


def run(case: Case, work: Path, tiny: bool, seconds: float, warmup: int, limit: float) -> dict[str, Any]:
    """Run a case in a process of its own; returns its status and what it measured."""
    if case.needs and not find_spec(case.needs):
        return {"status": f"{case.needs} is not installed"}
    folder = work / _slug(case)
    folder.mkdir(parents=True, exist_ok=True)
    path, result = folder / "config.yml", folder / "result.json"
    write_text(path, yaml.safe_dump(config(case, work, tiny), sort_keys=False))
    result.unlink(missing_ok=True)
    probe = {"PROBE_WARMUP": str(warmup), "PROBE_SECONDS": str(seconds), "PROBE_RESULT": str(result)}
    command = ["-c", START, "train", str(path), "--launcher", "python"]
    return gpu.read_result(result, *gpu.child(command, work, folder / "log.txt", limit, **probe))


def figures(found: dict[str, Any], model: Architecture) -> dict[str, Any]:
    """Work rates and utilisation out of what a case measured."""
    seconds = found["seconds"]
    flops = gpu.model_flops(model, found["tokens"], found["pairs"])
    return {
        "examples_per_second": found["examples"] / seconds,
        "tokens_per_second": found["tokens"] / seconds,
        "padding": 1 - found["tokens"] / found["places"],
        "model_tflops_per_second": flops / seconds / 1e12,
        "utilisation": gpu.utilisation(flops, seconds, found["device"]),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Write a Markdown table of all cases, run or not."""
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    slowest = results.get(PADDED.name, {}).get("examples_per_second")
    for case in CASES:
        found = results.get(case.name, {"status": EMPTY})
        if found["status"] != "ok":
            lines.append(f"| {case.name} | {found['status']} |" + " |" * (len(TITLES) - 2))
            continue
        rate, used = found["examples_per_second"], found["utilisation"]
        cells = [
            found["attention"], f"{rate:.2f}", f"{rate / slowest:.2f}" if slowest else "",
            f"{found['tokens_per_second']:,.0f}", f"{found['padding']:.0%}", f"{found['peak'] / 1e9:.1f}",
            "" if used is None else f"{used:.1%}",
        ]  # fmt: skip
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def benchmark(
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = ROOT / "outputs" / "gpu",
    minutes: Annotated[float, typer.Option(min=0.1, help="No case goes on after these.")] = 8,
    seconds: Annotated[float, typer.Option(min=0, help="Measured of each case, after warming up.")] = 15,
    warmup: Annotated[int, typer.Option(min=1, help="Steps that are not measured.")] = 3,
    cases: Annotated[str, typer.Option(help="Numbers of cases, 1,2,5.  [default: all]")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for the base and the runs.")] = None,
    tiny: Annotated[bool, typer.Option(help="A model of two layers, on CPUs.")] = False,
) -> None:
    """Measure the cases, those that matter most first."""
    end = time.monotonic() + 60 * minutes
    chosen = choose(cases)
    output, work = output.absolute(), (work or output / "work").absolute()
    write_rows(work / "rows.jsonl", tiny)
    gpu.ensure_base(work, tiny, 60 * minutes)
    lora, _ = yamlfile.load(RECIPE)
    model = architecture(gpu.sizes(tiny), lora)
    results: dict[str, dict[str, Any]] = {}
    needed = 0.0 if tiny else LEAST + seconds
    for case in chosen:
        left = end - time.monotonic()
        found = run(case, work, tiny, seconds, warmup, left) if left > needed else {"status": "no time was left"}
        results[case.name] = found | (figures(found, model) if found["status"] == "ok" else {})
        record = {"machine": gpu.machine(sys.argv), "cases": results}
        write_text(output / "gpu_lora.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        write_text(output / "gpu_lora.md", table(results))
        rate = f"{found['examples'] / found['seconds']:.2f} examples/s" if "examples" in found else found["status"]
        show(f"{case.name}: {rate} {found.get('error', '')}")
    show(f"{output / 'gpu_lora.md'}")


def choose(numbers: str) -> list[Case]:
    """Read the numbers of cases.

    Raises:
        UserError: There is no such case.
    """
    if not numbers:
        return CASES
    wanted = [int(part) if part.strip().isdecimal() else 0 for part in numbers.split(",")]
    if not all(1 <= number <= len(CASES) for number in wanted):
        raise UserError(f"--cases {numbers}: expected numbers from 1 to {len(CASES)}, such as 1,2,5")
    return [CASES[number - 1] for number in wanted]


if __name__ == "__main__":
    main(benchmark)

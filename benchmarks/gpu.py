"""What the GPU benchmarks share: a random base model, its FLOPs, a GPU's peak, and programs run one after the other.

python benchmarks/gpu.py FOLDER [--tiny]      # makes the base alone
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import ROOT, oom, yamlfile
from recipekit.architecture import Architecture
from recipekit.console import main
from recipekit.errors import UserError
from recipekit.process import last_error

# Dense bfloat16 with float32 sums, in FLOP/s, as NVIDIA's data sheets give it without sparsity, by the driver's name.
PEAK = {
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
BASE = "Rakuten/RakutenAI-7B-instruct"
TINY = {"hidden_size": 64, "intermediate_size": 224, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 1, "vocab_size": 2410}  # fmt: skip
TOKENIZER = ROOT / "data" / "samples" / "base"  # a character a token
PACKAGES = ("axolotl", "torch", "transformers", "peft", "accelerate", "deepspeed", "liger-kernel", "triton",
            "flash-attn", "vllm")  # fmt: skip


def sizes(tiny: bool) -> dict[str, Any]:
    """Return config.json of the base: RakutenAI-7B's sizes, or those of a model for CPUs."""
    table, _ = yamlfile.load(ROOT / "recipes" / "architectures.yml")
    specials = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    return table[BASE] | {"max_position_embeddings": 32768, "sliding_window": 4096} | specials | (TINY if tiny else {})


def make_base(folder: Path, tiny: bool) -> None:
    """Save a Mistral with random weights in bfloat16, and the bundled tokenizer, whose ids are the first of its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    values = sizes(tiny)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    model.save_pretrained(folder)


def ensure_base(work: Path, tiny: bool, seconds: float) -> None:
    """Make `work`/base unless it is there, in a process of its own, whose GPU memory goes with it.

    Raises:
        UserError: It could not be made.
    """
    if (work / "base" / "config.json").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    log = work / "base.log"
    code, text = child([__file__, str(work / "base"), *(["--tiny"] if tiny else [])], work, log, seconds)
    if code != 0:
        raise UserError(f"the base could not be made: {last_error(text) if code else 'no time was left'}; log: {log}")


def model_flops(model: Architecture, tokens: int, pairs: int) -> float:
    """Count the floating point operations that training an adapter needs, however it is computed.

    As in PaLM (Chowdhery et al. 2022, appendix B) a weight of a matrix costs a token 2 in the forward pass, and nothing
    is counted for what is computed again, for padding, or for looking embeddings up. Of a frozen weight the backward
    pass computes the gradient of its input alone: 2, where a trained one costs 4. Attention costs a pair of tokens that
    see each other 4 for each number of a query (scores and values), and twice that in the backward pass:

        4 x (parameters - vocabulary x hidden) x tokens + 6 x adapter x tokens + 12 x layers x queries x pairs

    Args:
        model: The base and its adapter.
        tokens: Of the rows, without padding.
        pairs: Of tokens of the same row, the second one not before the first: l (l + 1) / 2 of a row of l tokens.
    """
    matrices = model.parameters - model.vocabulary * model.hidden
    return (4 * matrices + 6 * model.adapter) * tokens + 12 * model.layers * model.queries * pairs


def utilisation(flops: float, seconds: float, device: str) -> float | None:
    """Divide the FLOP/s reached by the GPU's peak; None where the peak is not known."""
    return flops / seconds / PEAK[device] if device in PEAK else None


def machine(arguments: list[str]) -> dict[str, Any]:
    """Tell when, on what and with which versions a benchmark runs."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *arguments]),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": versions,
    }


def child(command: list[str], folder: Path, log: Path, seconds: float, **more: str) -> tuple[int | None, str]:
    """Run a program in a process group of its own; returns its exit code, None where time ran out, and what it wrote.

    Args:
        command: Arguments of this interpreter.
        folder: Where it runs.
        log: The file that its output goes to.
        seconds: How long it may take.
        more: Variables of its environment.
    """
    paths = [str(ROOT / "tools"), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {
        **os.environ, **more, "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_text(encoding="utf-8", errors="replace")


def read_result(path: Path, code: int | None, text: str) -> dict[str, Any]:
    """Read what a program measured; where it failed, say how in a few words."""
    if path.exists():
        return {"status": "ok", **json.loads(path.read_text(encoding="utf-8"))}
    if code is None:
        return {"status": "out of time"}
    if oom.GPU.search(text):
        return {"status": "out of memory"}
    return {"status": "failed", "error": f"exit code {code}: {last_error(text)}"}


def command(folder: Path, tiny: Annotated[bool, typer.Option(help="A model for CPUs.")] = False) -> None:
    """Make the base."""
    make_base(folder, tiny)


if __name__ == "__main__":
    main(command)

"""Time and peak memory of merging, beside `axolotl merge-lora` and PEFT's merge_and_unload.

    uv run benchmarks/merge_memory.py                # a random Mistral of 1.5 GB in bfloat16, in files of 400 MB
    uv run benchmarks/merge_memory.py --layers 4     # a smaller one

Each program runs in a process of its own, one after the other; time is wall time from start to exit, memory its peak.
All write the base with the adapter added, in bfloat16; `tools/merge.py` as a whole also computes the logits of base,
adapter and result. The last column says by how much weights differ from the sums in float32, each rounded once.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml
from peft import LoraConfig, get_peft_model
from rich import box
from rich.table import Table
from safetensors import safe_open
from tokenizers import Tokenizer, models
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from invented import measure
from recipekit import ROOT, merging
from recipekit.console import main, show

SIZES = {"hidden_size": 2048, "intermediate_size": 7168, "num_attention_heads": 16, "num_key_value_heads": 4}
FILES = """
import sys
from pathlib import Path
import torch
from recipekit import merging
base, adapter, target = map(Path, sys.argv[1:])
target.mkdir()
merging.merge(base, merging.updates(base, adapter), target, torch.bfloat16)
"""
WHOLE = """
import sys
from pathlib import Path
from merge import write_merged
from recipekit.proving import Proof
base, adapter, target = map(Path, sys.argv[1:])
write_merged(base, adapter, target, Proof([{"input_ids": list(range(4, 260))}], None), None)
"""
PEFT = """
import sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, target = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(target, max_shard_size="400MB")
"""
AXOLOTL = (
    "import sys; from axolotl.cli.main import cli; cli(['merge-lora', sys.argv[1], '--lora-model-dir', sys.argv[2]])"
)


def make(folder: Path, layers: int) -> tuple[Path, Path]:
    """Write a random base in several files, and an adapter of it that changes weights by about a twentieth."""
    base, adapter = folder / "base", folder / "adapter"
    torch.manual_seed(0)
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", "<unk>"])}
    config = MistralConfig(**SIZES, num_hidden_layers=layers, vocab_size=32_000, sliding_window=None, dtype="bfloat16")
    model = MistralForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(base, max_shard_size="400MB")
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-2)
    tuned.save_pretrained(str(adapter))
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
    )  # fmt: skip
    for each in (base, adapter):
        tokens.save_pretrained(each)
    return base, adapter


def difference(base: Path, adapter: Path, merged: Path) -> float:
    """Return how far a weight is from base + adapter, added in float32 and rounded once, as a share of the largest."""
    found, places, largest = merging.updates(base, adapter) or {}, merging.files(merged), 0.0
    for name, path in merging.files(base).items():
        with safe_open(path, framework="pt") as before, safe_open(places[name], framework="pt") as after:
            weight = before.get_tensor(name)
            expected = (found[name].added_to(weight) if name in found else weight).to(torch.bfloat16).float()
            off = (after.get_tensor(name).float() - expected).abs().max() / expected.abs().max()
            largest = max(largest, off.item())
    return largest


def benchmark(
    layers: Annotated[int, typer.Option(min=1, help="of a 2,048 wide Mistral, 106 MB each")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="the fastest counts")] = 2,
) -> None:
    """Time each way of merging on one random base."""
    table = Table("way", "seconds", "peak MB", "largest difference", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, adapter = make(folder, layers)
        size = sum(path.stat().st_size for path in base.glob("*.safetensors")) / 1e6
        recipe = {"base_model": str(base), "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "sequence_len": 64}
        recipe |= {"lora_target_linear": True, "output_dir": str(folder / "axolotl"), "micro_batch_size": 1}
        recipe |= {"gradient_accumulation_steps": 1, "learning_rate": 1e-4, "bf16": False, "num_epochs": 1}
        recipe |= {"datasets": [{"path": "none", "type": "input_output"}]}
        (folder / "axolotl.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        start = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r})\n"
        ways = {
            "files alone (tools/recipekit/merging.py)": ([start + FILES, base, adapter], "files"),
            "`tools/merge.py`, proof included": ([start + WHOLE, base, adapter], "whole"),
            "PEFT, `merge_and_unload`": ([PEFT, base, adapter], "peft"),
            "`axolotl merge-lora`": ([AXOLOTL, folder / "axolotl.yml", adapter], "axolotl/merged"),
        }
        for way, ([script, *arguments], made) in ways.items():
            runs = []
            for _ in range(rounds):
                target = folder / made
                if target.exists():
                    shutil.rmtree(target)
                last = [] if made.startswith("axolotl") else [str(target)]
                runs.append(measure([sys.executable, "-c", script, *map(str, arguments), *last]))
            seconds, peak = min(runs)
            table.add_row(way, f"{seconds:.1f}", f"{peak:,.0f}", f"{difference(base, adapter, target):.1e}")
            show(f"{way}: done")
    show(f"{size:,.0f} MB of weights")
    show(table)


if __name__ == "__main__":
    main(benchmark)

"""Peak memory of training small random models on a CPU, predicted by recipekit.memory and measured.

    OMP_NUM_THREADS=1 uv run benchmarks/memory_model.py

Each case trains a random Mistral with LoRA in a process of its own, a step of 16 tokens for the optimizer's states and
then one of the case; measured is its peak resident memory above what it had before the model was made.
"""

import json
import os
import subprocess
import sys

import psutil
import typer

from invented import peak_rss
from recipekit import memory
from recipekit.architecture import architecture
from recipekit.memory import GB, Setting

SIZES = {  # layers x width
    "12 x 512": {"hidden_size": 512, "intermediate_size": 1792, "num_hidden_layers": 12, "num_attention_heads": 8},
    "12 x 768": {"hidden_size": 768, "intermediate_size": 2560, "num_hidden_layers": 12, "num_attention_heads": 12},
    "12 x 1024": {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 12, "num_attention_heads": 16},
}
CASES = [  # size, rows, tokens, vocabulary, bytes, dropout, checkpointing
    ("12 x 512", 1, 512, 8000, 4, 0.0, False),
    ("12 x 512", 4, 512, 8000, 4, 0.0, False),
    ("12 x 512", 4, 512, 8000, 4, 0.0, True),
    ("12 x 512", 1, 1024, 32000, 4, 0.0, False),
    ("12 x 512", 1, 1024, 32000, 4, 0.0, True),
    ("12 x 512", 2, 512, 8000, 4, 0.05, False),
    ("12 x 512", 2, 512, 8000, 2, 0.0, False),
    ("12 x 768", 2, 512, 16000, 4, 0.0, False),
    ("12 x 1024", 1, 1024, 16000, 4, 0.0, False),
    ("12 x 1024", 2, 512, 16000, 4, 0.0, True),
]
ADAPTER = {
    "adapter": "lora",
    "lora_r": 16,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def sizes(size: str, vocabulary: int) -> dict:
    """Write a case's config.json; a quarter as many keys as queries, as Mistral has."""
    values = SIZES[size]
    grouped = {"num_key_value_heads": values["num_attention_heads"] // 4, "sliding_window": None}
    return values | grouped | {"model_type": "mistral", "vocab_size": vocabulary}


def predicted(case: tuple) -> float:
    """Predict a case, in bytes, without CUDA's context and the GPU allocator's fragments."""
    size, rows, length, vocabulary, width, dropout, checkpointing = case
    run = Setting(rows, length, width, False, dropout=dropout, mask=width, checkpointing=checkpointing, packed=True)
    model = architecture(sizes(size, vocabulary), ADAPTER)  # packed: a CPU repeats grouped heads, as a mask makes a GPU
    parts = memory.predict(model, run) | {"framework": 0.0}
    parts["activations"] -= memory._mask(run)
    return sum(parts.values())


def measured(case: tuple) -> float:
    """Train a case in a process of its own; returns its peak in bytes."""
    # A tensor that is freed goes back to the system at once.
    env = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    run = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return float(run.stdout.strip().splitlines()[-1])


def train(case: list) -> int:
    """Train a small step and a whole one; returns the peak above the start."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    size, rows, length, vocabulary, width, dropout, checkpointing = case
    values = sizes(size, vocabulary)
    torch.ones(64, 64, requires_grad=True).mm(torch.ones(64, 64)).sum().backward()  # loads what loads at first use
    start = psutil.Process().memory_info().rss
    before = peak_rss()
    config = AutoConfig.for_model(values.pop("model_type"), **values, dtype=[torch.bfloat16, torch.float32][width == 4])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=config.dtype)
    lora = LoraConfig(r=16, target_modules=ADAPTER["lora_target_modules"], lora_dropout=dropout)
    model = get_peft_model(model, lora, autocast_adapter_dtype=False).train()
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    for shape in ((1, 16), (rows, length)):
        tokens = torch.randint(0, vocabulary, shape)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = peak_rss()
    assert peak > before, "the imports took more memory than training"
    return peak - start


def main(case: str = typer.Option("", hidden=True)) -> None:
    """Print a table of all cases."""
    if case:
        print(train(json.loads(case)))
        return
    titles = (
        "layers x width",
        "rows x tokens",
        *["vocabulary", "bytes", "dropout", "checkpointing", "predicted", "measured", "ratio"],
    )
    print(f"| {' | '.join(titles)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one in CASES:
        guess, found = predicted(one), measured(one)
        size, rows, length, vocabulary, width, dropout, checkpointing = one
        settings = f"{size} | {rows} x {length:,} | {vocabulary:,} | {width} | {dropout} | {checkpointing}"
        print(f"| {settings} | {guess / GB:.2f} GB | {found / GB:.2f} GB | {guess / found:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)

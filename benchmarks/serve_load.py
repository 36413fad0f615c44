"""How many dialogues a second tools/serve.py answers, in batches against one at a time, and how long each takes.

    uv run benchmarks/serve_load.py                                  # a random encoder: 4 layers of 128
    uv run benchmarks/serve_load.py --model outputs/bigfive/merged --seconds 10

Both servers run beside each other and are asked in turn, so that other work on the machine meets both. Figures and the
machine they were measured on stand in docs/performance.md.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import numpy as np
import typer

from recipekit import ROOT, persona_chat
from recipekit.console import main, show
from recipekit.task import Task, load_task

KINDS = {"one at a time": ["--batch-size", "1", "--wait-ms", "0"], "batches": []}
LAYERS, HIDDEN, LENGTH = 4, 128, 512  # of the random model


def random_model(task: Task, folder: Path) -> Path:
    """Save a random encoder with the task's heads and a tokenizer of characters."""
    import torch
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

    from recipekit.regressor import FILE

    letters = sorted({letter for request in requests(task) for letter in json.dumps(request, ensure_ascii=False)})
    vocab = {token: place for place, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(vocab), hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=4, max_position_embeddings=LENGTH + 2, num_labels=len(task.targets),
    )  # fmt: skip
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    heads = {name: {"scale": target["scale"]} for name, target in task.targets.items()}
    facts = {"regression": {"heads": heads}, "max_length": LENGTH, "interval": {}}
    (folder / FILE).write_text(json.dumps(facts), encoding="utf-8")
    return folder


def requests(task: Task) -> list[dict]:
    """Return a request for each speaker of each dialogue of the bundled sample."""
    [spec] = [one for one in task.spec["data"]["split"] if one["rows"]["format"] == "real_persona_chat"]
    corpus = persona_chat.read(task.sample_dir / spec["file"], spec["rows"]["label"], {})
    return [
        {"speaker": speaker, "utterances": [{"speaker": who, "text": text} for who, text in dialogue.lines]}
        for dialogue in corpus.dialogues
        for speaker in dialogue.speakers
    ]


@contextmanager
def server(task: str, model: Path, arguments: list[str]) -> Iterator[str]:
    """Run tools/serve.py; yields host:port."""
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), task, "--model", str(model), "--port", "0"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as one:
        assert one.stderr
        try:
            yield urlsplit(next(line.split()[1] for line in one.stderr if line.startswith("serve: http"))).netloc
        finally:
            one.terminate()


def ask(address: str, bodies: list[bytes], start: int, until: float) -> list[float]:
    """Ask for one dialogue after the other; returns the seconds that each took."""
    connection = http.client.HTTPConnection(address)
    took, place = [], start
    while time.perf_counter() < until:
        began = time.perf_counter()
        connection.request("POST", "/predict", bodies[place % len(bodies)], {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {text.decode()}")
        took.append(time.perf_counter() - began)
        place += 1
    connection.close()
    return took


def load(address: str, bodies: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Ask with several clients at once; returns requests a second and the seconds of each."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        starts = [client * len(bodies) // clients for client in range(clients)]
        parts = list(pool.map(lambda start: ask(address, bodies, start, began + seconds), starts))
    took = [one for part in parts for one in part]
    return len(took) / (time.perf_counter() - began), took


def measure(addresses: dict[str, str], bodies: list[bytes], clients: int, seconds: float, rounds: int) -> None:
    """Print a row of the table a server, and how many times as fast batches are."""
    speeds: dict[str, list[float]] = {kind: [] for kind in addresses}
    took: dict[str, list[float]] = {kind: [] for kind in addresses}
    for _ in range(rounds):
        for kind, address in addresses.items():
            speed, own = load(address, bodies, clients, seconds)
            speeds[kind].append(speed)
            took[kind] += own
    single, batched = (statistics.median(speeds[kind]) for kind in KINDS)
    ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
    for kind, speed in zip(KINDS, (single, batched), strict=True):
        p50, p95 = (f"{1000 * value:,.0f} ms" for value in np.percentile(took[kind], [50, 95]))
        times = "1.0" if kind == "one at a time" else f"{statistics.median(ratios):.2f}"
        show(f"| {clients} | {kind} | {speed:,.1f} | {p50} | {p95} | {times} |")


def speed(
    model: Annotated[Path | None, typer.Option(help="A merged model.  [default: a random one]")] = None,
    task: Annotated[str, typer.Option(help="A recipe.")] = "bigfive",
    seconds: Annotated[float, typer.Option(min=1, help="Of each round.")] = 5,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, in each server.")] = 2,
) -> None:
    """Measure both servers with 1, 8 and 32 clients."""
    it = load_task(task)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    bodies = [json.dumps(request).encode() for request in requests(it)]
    with tempfile.TemporaryDirectory() as folder:
        made = model or random_model(it, Path(folder))
        kinds = [[*own, "--threads", str(threads)] for own in KINDS.values()]
        with server(task, made, kinds[0]) as one, server(task, made, kinds[1]) as batched:
            addresses = dict(zip(KINDS, (one, batched), strict=True))
            for address in addresses.values():
                load(address, bodies, 8, 2)  # warms up
            show("| clients | server | requests/s | p50 | p95 | times |\n|---|---|---|---|---|---|")
            for clients in (1, 8, 32):
                measure(addresses, bodies, clients, seconds, rounds)


if __name__ == "__main__":
    main(speed)

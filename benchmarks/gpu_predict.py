"""How fast a 7B answers on this GPU: one prompt after the other, in batches, and with continuous batching.

    uv run benchmarks/gpu_predict.py --output outputs/gpu
    uv run benchmarks/gpu_predict.py --tiny --articles 8 --output outputs/gpu      # a model of two layers, on CPUs

Needs no network: the base has RakutenAI-7B's sizes and random weights, which end no answer, so the length of each is
drawn: most are short (no crime), some name several persons. Each way runs in a process of its own, with the same
prompts and lengths; that the answers are the same is counted, too. vLLM is measured where it is installed.
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import gpu
from recipekit import ROOT
from recipekit.console import main, show
from recipekit.runs import write_text

MEDIAN, SPREAD, LONGEST = 700, 0.6, 3500  # tokens of a prompt: log-normal, cut
SHORT, LONG, CRIMES = 30, (80, 400), 0.17  # tokens of an answer without persons, of one with them, and their share
BLOCKS = 400  # of 256 tokens each: 13 GB of a 7B's cache, room for a hundred prompts
TITLES = ("way", "attention", "articles/s", "tokens/s", "times", "same answers", "peak GB")
EMPTY = "not run on a GPU"
Prompts = list[list[int]]
Answers = list[list[int]]


def one_by_one(model: Any, prompts: Prompts, lengths: list[int], batch_size: int) -> Answers:
    """Decode with transformers' own greedy search."""
    import torch

    answers = []
    for prompt, length in zip(prompts, lengths, strict=True):
        ids = torch.tensor([prompt], device=model.device)
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length, eos_token_id=-1,
            pad_token_id=0,
        )  # fmt: skip
        answers.append(out[0, len(prompt) :].tolist())
    return answers


def batches(model: Any, prompts: Prompts, lengths: list[int], batch_size: int) -> Answers:
    """Decode as tools/predict.py does: longest prompts first, rows leave the batch as they end."""
    import torch
    from transformers.cache_utils import Cache

    from recipekit import decoding

    answers: Answers = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = [decoding.Row(i, prompts[i], None, lengths[i]) for i in order[start : start + batch_size]]
            empty = Cache(layer_class_to_replicate=decoding.InPlaceLayer)
            for one in decoding._decode(decoding.Batch(model, empty, len(rows)), rows, None, eos=-1):
                answers[one.index] = one.ids
    return answers


def continuous(model: Any, prompts: Prompts, lengths: list[int], batch_size: int) -> Answers:
    """Decode with transformers' continuous batching: a prompt joins as soon as an answer has ended.

    The manager, with its cache, is kept for the next call, as a server would keep it.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(LONG))
    # Left to itself the cache takes 90% of the memory, of a CPU's, too.
    cache = ContinuousBatchingConfig(num_blocks=BLOCKS, max_batch_tokens=LONGEST + max(LONG))
    found: dict[str, list[int]] = {}
    with model.continuous_batching_context_manager(
        greedy, continuous_batching_config=cache, persistent_manager=True, warmup=model.device.type == "cuda"
    ) as manager:
        names = [manager.add_request(p, max_new_tokens=n) for p, n in zip(prompts, lengths, strict=True)]
        while len(found) < len(names):
            one = manager.get_result(timeout=1)
            if one is not None and one.error:
                raise RuntimeError(one.error)
            if one is not None and one.is_finished():
                found[one.request_id] = list(one.generated_tokens)
            elif one is None and not manager.is_running():
                raise RuntimeError("continuous batching ended early")
    return [found[name] for name in names]


WAYS: dict[str, Callable[[Any, Prompts, list[int], int], Answers]] = {
    "model.generate, one by one": one_by_one,
    "batches, as tools/predict.py": batches,
    "continuous batching, transformers": continuous,
}
VLLM = "continuous batching, vLLM"


def drawn(count: int, vocabulary: int, tiny: bool) -> tuple[Prompts, list[int]]:
    """Draw prompts of random tokens, and the lengths of their answers."""
    rng = random.Random(0)
    prompts, lengths = [], []
    for _ in range(count):
        median, longest = (40, 200) if tiny else (MEDIAN, LONGEST)
        number = min(max(int(rng.lognormvariate(0, SPREAD) * median), 8), longest)
        prompts.append([rng.randrange(4, vocabulary) for _ in range(number)])
        length = rng.randint(*LONG) if rng.random() < CRIMES else SHORT
        lengths.append(math.ceil(length / 10) if tiny else length)
    return prompts, lengths


def measure(way: str, base: Path, articles: int, batch_size: int, tiny: bool) -> dict[str, Any]:
    """Answer all prompts in this process, after a few to warm up."""
    import torch
    from transformers import AutoModelForCausalLM

    import gpu_probe

    prompts, lengths = drawn(articles, gpu.sizes(tiny)["vocab_size"], tiny)
    if way == VLLM:
        return measure_vllm(base, prompts, lengths)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if tiny else torch.bfloat16
    attention = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=attention, sliding_window=None)
    model.to(device).eval()  # type: ignore[arg-type]
    WAYS[way](model, prompts[:4], [4] * 4, batch_size)
    started = time.perf_counter()
    answers = WAYS[way](model, prompts, lengths, batch_size)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "answers": answers, "attention": attention} | gpu_probe.memory()


def measure_vllm(base: Path, prompts: Prompts, lengths: list[int]) -> dict[str, Any]:
    """Answer all prompts with vLLM, which takes 90% of the GPU's memory whatever it needs."""
    import torch
    import vllm

    model = vllm.LLM(str(base), dtype="bfloat16", max_model_len=LONGEST + max(LONG), skip_tokenizer_init=True)
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    wanted = [
        vllm.SamplingParams(temperature=0, max_tokens=n, min_tokens=n, ignore_eos=True, detokenize=False)
        for n in lengths
    ]
    model.generate(asked[:4], wanted[:4], use_tqdm=False)
    started = time.perf_counter()
    found = model.generate(asked, wanted, use_tqdm=False)
    seconds = time.perf_counter() - started
    answers = [list(one.outputs[0].token_ids) for one in found]
    return {"seconds": seconds, "answers": answers, "attention": "vLLM", "device": torch.cuda.get_device_name()}


def figures(found: dict[str, Any], reference: Answers | None) -> dict[str, Any]:
    """Work out rates, and how many answers are the reference's."""
    answers = found.pop("answers")
    same = None if reference is None else sum(a == b for a, b in zip(answers, reference, strict=True))
    rates = {"articles_per_second": len(answers), "tokens_per_second": sum(map(len, answers))}
    return {**found, **{key: value / found["seconds"] for key, value in rates.items()}, "same": same}


def table(results: dict[str, dict[str, Any]], articles: int) -> str:
    """Write a Markdown table of all ways, run or not."""
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    first = results.get(next(iter(WAYS)), {}).get("articles_per_second")
    for way in [*WAYS, VLLM]:
        found = results.get(way, {"status": EMPTY})
        if found["status"] != "ok":
            lines.append(f"| {way} | {found['status']} |" + " |" * (len(TITLES) - 2))
            continue
        rate = found["articles_per_second"]
        same = "" if found["same"] is None else f"{found['same']} of {articles}"
        peak = f"{found['peak'] / 1e9:.1f}" if "peak" in found else ""
        cells = [
            f"{rate:.2f}",
            f"{found['tokens_per_second']:,.0f}",
            f"{rate / first:.1f}" if first else "",
            same,
            peak,
        ]
        lines.append(f"| {way} | {found['attention']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def benchmark(
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = ROOT / "outputs" / "gpu",
    minutes: Annotated[float, typer.Option(min=0.1, help="No way goes on after these.")] = 4,
    articles: Annotated[int, typer.Option(min=1)] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the batches.")] = 32,
    work: Annotated[Path | None, typer.Option(help="Folder for the base and the runs.")] = None,
    tiny: Annotated[bool, typer.Option(help="A model of two layers, on CPUs.")] = False,
    way: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure articles a second of each way."""
    output, work = output.absolute(), (work or output / "work").absolute()
    if way:
        write_text(output, json.dumps(measure(way, work / "base", articles, batch_size, tiny)))
        return
    end = time.monotonic() + 60 * minutes
    gpu.ensure_base(work, tiny, 60 * minutes)
    options = ["--articles", str(articles), "--batch-size", str(batch_size), "--work", str(work)]
    results: dict[str, dict[str, Any]] = {}
    reference = None
    for number, name in enumerate([*WAYS, VLLM]):
        result, log = work / f"predict-{number}.json", work / f"predict-{number}.log"
        result.unlink(missing_ok=True)
        command = [__file__, "--way", name, "--output", str(result), *options, *(["--tiny"] if tiny else [])]
        if name == VLLM and not find_spec("vllm"):
            found: dict[str, Any] = {"status": "vllm is not installed"}
        else:
            found = gpu.read_result(result, *gpu.child(command, work, log, max(end - time.monotonic(), 0)))
        if found["status"] == "ok":
            answers = found["answers"]
            found = figures(found, reference)
            reference = reference or answers
        results[name] = found
        record = {"machine": gpu.machine(sys.argv), "ways": results}
        write_text(output / "gpu_predict.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        write_text(output / "gpu_predict.md", table(results, articles))
        rate = f"{found['articles_per_second']:.2f} articles/s" if found["status"] == "ok" else found["status"]
        show(f"{name}: {rate} {found.get('error', '')}")
    show(f"{output / 'gpu_predict.md'}")


if __name__ == "__main__":
    main(benchmark)

"""The benchmarks for a GPU: what they count, what they would run, and that they run, on CPUs, with a tiny model."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

import gpu
import gpu_lora
import gpu_predict
from recipekit import ROOT, axolotl_schema, yamlfile
from recipekit.architecture import Architecture, architecture

LORA, _ = yamlfile.load(gpu_lora.RECIPE)
# Keys that tell an unchanged recipe from a case, beside what each benchmark run is without.
SAME = {"base_model", "special_tokens", "lora_model_dir", "datasets", "test_datasets", "eval_steps", "save_steps",
        "eval_sample_packing", "load_best_model_at_end", "save_total_limit", "save_strategy", "deepspeed", "plugins",
        "auto_resume_from_checkpoints", "dataset_prepared_path", "output_dir", "max_steps", "use_mlflow",
        "mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name"}  # fmt: skip


def rakuten() -> Architecture:
    return architecture(gpu.sizes(tiny=False), LORA)


def test_the_base_has_the_size_of_the_7b() -> None:
    model = rakuten()
    assert model.parameters == 7_372_804_096
    assert model.adapter == 41_943_040  # rank 16 on all seven matrices of 32 layers


def test_flops_are_those_of_matrices_counted_by_hand() -> None:
    model = rakuten()
    layer = 4096 * (4096 + 1024 + 1024 + 4096 + 3 * 14336)
    weights = 32 * layer + 4096 * 48000  # and norms, which multiply nothing with nothing, but cost next to nothing
    assert gpu.model_flops(model, 1, 0) == pytest.approx(4 * weights + 6 * model.adapter, rel=1e-4)
    scores_and_values = 2 * 4096 + 2 * 4096  # of a pair: a dot product as long as all heads, and a weighted sum
    assert gpu.model_flops(model, 0, 1) == 3 * 32 * scores_and_values


def test_utilisation_is_left_empty_where_the_peak_is_not_known() -> None:
    assert gpu.utilisation(989e12, 2.0, "NVIDIA H200") == pytest.approx(0.5)
    assert gpu.utilisation(989e12, 2.0, "NVIDIA H200 NVL") is None
    assert gpu.utilisation(989e12, 2.0, "cpu") is None


def test_rows_tokens_and_pairs_are_counted_in_packs_and_in_padded_batches() -> None:
    import torch

    from gpu_probe import count

    packed = torch.tensor([[1, 9, 9, 1, 9, 0, 0, 0], [1, 9, 9, 9, 9, 9, 0, 0]])  # rows of 3, 2 and 6 tokens
    padded = torch.tensor([[1, 9, 0], [1, 9, 9]])
    assert count([packed], bos=1, pad=0) == {"examples": 3, "tokens": 11, "pairs": 6 + 3 + 21, "places": 16}
    assert count([packed, padded], bos=1, pad=0) == {"examples": 5, "tokens": 16, "pairs": 39, "places": 22}


def test_each_case_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    ours = gpu_lora.config(gpu_lora.OURS, tmp_path, tiny=False)
    assert {key for key in LORA if ours.get(key) != LORA[key]} <= SAME
    assert [case.name for case in gpu_lora.CASES[:2]] == [gpu_lora.OURS.name, gpu_lora.PADDED.name]
    assert len({gpu_lora._slug(case) for case in gpu_lora.CASES}) == len(gpu_lora.CASES)
    for case in gpu_lora.CASES:
        values = gpu_lora.config(case, tmp_path, tiny=False)
        changed = {key for key in ours | values if ours.get(key) != values.get(key)}
        assert changed - {"output_dir", "dataset_prepared_path"} <= set(case.changes), case.name
        assert changed & set(case.changes) or case is gpu_lora.OURS, f"{case.name} is the recipe"


def test_rows_have_the_lengths_that_were_drawn(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    gpu_lora.write_rows(tmp_path / "rows.jsonl", tiny=False)
    tokenizer = AutoTokenizer.from_pretrained(gpu.TOKENIZER)
    drawn = gpu_lora.lengths(2000, random.Random(0), tiny=False)
    rows = [json.loads(line)["segments"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row, number in zip(rows[:20], drawn, strict=False):
        prompt, answer = (tokenizer(part["text"], add_special_tokens=False)["input_ids"] for part in row)
        assert (len(prompt + answer), len(answer)) == (number, min(gpu_lora.ANSWER, number // 4) + 1)
        assert (prompt + answer).count(1) == 1
    assert max(drawn) <= 4096 and 600 < sorted(drawn)[1000] < 800


def test_a_table_has_all_cases_and_says_what_became_of_them() -> None:
    ok = {
        "status": "ok", "attention": "sdpa (varlen)", "tokens_per_second": 33_000.4, "padding": 0.017, "peak": 61.25e9,
    }  # fmt: skip
    results = {
        gpu_lora.OURS.name: ok | {"examples_per_second": 40.0, "utilisation": 0.512},
        gpu_lora.PADDED.name: ok | {"examples_per_second": 8.0, "utilisation": None},
        gpu_lora.CASES[4].name: {"status": "out of memory"},
    }
    lines = gpu_lora.table(results).splitlines()
    assert lines[2] == "| phase2.yml | sdpa (varlen) | 40.00 | 5.00 | 33,000 | 2% | 61.2 | 51.2% |"
    assert lines[3].endswith("| 8.00 | 1.00 | 33,000 | 2% | 61.2 |  |")
    assert lines[6] == f"| {gpu_lora.CASES[4].name} | out of memory | | | | | | |"
    assert len(lines) == 2 + len(gpu_lora.CASES) and all(line.count("|") == 9 for line in lines)


def test_the_document_has_the_rows_of_both_tables() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    for table in (gpu_lora.table({}), gpu_predict.table({}, 1)):
        for line in table.splitlines():
            assert f"\n| {line.split(' | ')[0].strip('| ')} |" in text or set(line) <= set("|-"), line


def test_a_failed_program_is_told_in_a_few_words(tmp_path: Path) -> None:
    log, result = tmp_path / "log.txt", tmp_path / "result.json"
    for code, seconds, expected in (
        ("raise ValueError('what went wrong')", 60, ("failed", "exit code 1: ValueError: what went wrong")),
        ("raise SystemExit('torch.OutOfMemoryError: CUDA out of memory. Tried')", 60, ("out of memory", None)),
        ("import time; time.sleep(60)", 0.5, ("out of time", None)),
    ):
        found = gpu.read_result(result, *gpu.child(["-c", code], tmp_path, log, seconds))
        assert (found["status"], found.get("error")) == expected
    done = f"open({str(result)!r}, 'w').write('{{\"a\": 1}}'); raise SystemExit(3)"
    assert gpu.read_result(result, *gpu.child(["-c", done], tmp_path, log, 60)) == {"status": "ok", "a": 1}


def test_an_unknown_case_is_refused() -> None:
    from recipekit.errors import UserError

    assert [case.name for case in gpu_lora.choose("2,1")] == [gpu_lora.PADDED.name, gpu_lora.OURS.name]
    for wrong in ("0", "99", "a"):
        with pytest.raises(UserError, match="expected numbers from 1"):
            gpu_lora.choose(wrong)


@pytest.mark.slow
def test_axolotl_accepts_every_case(tmp_path: Path) -> None:
    jobs = []
    for case in gpu_lora.CASES:
        values = gpu_lora.config(case, tmp_path, tiny=False) | {"base_model": LORA["base_model"]}
        values["plugins"] = [name for name in values["plugins"] if "probe" not in name]
        jobs.append((values, "gpu"))
    for case, found in zip(gpu_lora.CASES, axolotl_schema.validate(jobs), strict=True):
        assert not found, (case.name, found)


@pytest.mark.slow
def test_both_benchmarks_run_with_a_tiny_model(tmp_path: Path) -> None:
    options = ["--tiny", "--minutes", "9", "--output", str(tmp_path)]
    for script, own in (("gpu_lora", ["--seconds", "0", "--warmup", "1", "--cases", "1,3"]), ("gpu_predict", [])):
        own = own or ["--articles", "6", "--batch-size", "4"]
        command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *options, *own]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    cases = json.loads((tmp_path / "gpu_lora.json").read_text())["cases"]
    assert [case["status"] for case in cases.values()] == ["ok", "ok"], cases
    packed, padded = cases.values()
    assert packed["padding"] < 0.1 < padded["padding"] and packed["utilisation"] is None
    assert packed["examples"] > 1 and packed["model_tflops_per_second"] > 0
    ways = json.loads((tmp_path / "gpu_predict.json").read_text())["ways"]
    assert [ways[way]["status"] for way in gpu_predict.WAYS] == ["ok"] * 3, ways
    assert [ways[way]["same"] for way in gpu_predict.WAYS] == [None, 6, 6]

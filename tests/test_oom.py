"""Out of memory: recognised, answered with an overlay, and gone on from."""

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import oom_plugin
from checking import edit
from labelled import write_rows, write_task
from recipekit import oom, remedies
from recipekit.errors import UserError
from recipekit.oom import OutOfMemory, recognise
from recipekit.remedies import answer, next_remedy, split
from recipekit.resolve import memory_overlay, resolve
from recipekit.runs import Step, read_record
from recipekit.task import load_task
from test_train import make_root
from tiny import tiny_tokenizer
from train import checkpoint_inputs
from training import run

TRACE = """\
Traceback (most recent call last):
  File "trainer.py", line 1, in training_step
    raise torch.OutOfMemoryError(message)  # or: raise MemoryError
"""
IN_TRAINING = OutOfMemory("gpu", "torch.OutOfMemoryError", "training", 4)


def report(root: Path, step: int | None = 12) -> Path:
    path = root / "progress.jsonl"
    if step is not None:
        path.write_text(f'{{"step": 0, "max_steps": 40}}\n{{"step": {step}, "max_steps": 40}}\n{{"st')
    return path


@pytest.mark.parametrize(
    ("line", "device"),
    [
        (f"[rank1]: torch.OutOfMemoryError: {oom_plugin.MESSAGE}", "gpu"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", "gpu"),
        ("RuntimeError: CUDA error: out of memory", "gpu"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "gpu"),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "gpu"),
        ("torch.distributed.DistBackendError: NCCL error: Cuda failure 2 'out of memory'", "gpu"),
        ("node:1:2 [0] include/alloc.h:99 NCCL WARN Failed to CUDA calloc 6291456 bytes", "gpu"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
         "tried to allocate 17179869184 bytes. Error code 12 (Cannot allocate memory)", "host"),
        ("MemoryError", "host"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array", "host"),
        ("OSError: [Errno 12] Cannot allocate memory", "host"),
        ("RuntimeError: DataLoader worker (pid 5) is killed by signal: Killed. ", "host"),
        ("[2026-01-01] [ERROR] [launch.py:325:sigkill_handler] [...] exits with return code = -9", "host"),
        ("subprocess.CalledProcessError: Command '[...]' died with <Signals.SIGKILL: 9>.", "host"),
        ("  exitcode  : -9 (pid: 4242)", "host"),
    ],
)  # fmt: skip
def test_it_is_recognised_in_a_log(tmp_path: Path, line: str, device: str) -> None:
    found = recognise(f"loading\n{TRACE}{line}\nlater: NCCL communicator was aborted\n", 1, {}, report(tmp_path))
    assert found and found.device == device
    assert found.step == 12


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 28] No space left on device",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 132096",
        "RuntimeError: CUDA error: device-side assert triggered",
        "INFO: set PYTORCH_ALLOC_CONF=expandable_segments:True against fragmentation",
        "ValueError: my.MemoryErrors are counted",
        "Killed by user request",
    ],
)
def test_other_failures_are_not_taken_for_it(tmp_path: Path, line: str) -> None:
    assert recognise(f"{TRACE}{line}\n", 1, {}, report(tmp_path)) is None
    assert recognise(line, -15, {}, report(tmp_path)) is None


@pytest.mark.parametrize("code", [-9, 137])
def test_a_kill_is_put_down_to_the_kernel_where_it_counted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    counter = tmp_path / "memory.events"
    monkeypatch.setattr(oom, "COUNTERS", (str(counter), str(tmp_path / "missing")))
    counter.write_text("low 0\noom 3\noom_kill 1\noom_group_kill 0\n")
    before = oom.kernel_kills()
    assert before == {str(counter): 1}
    assert "container's, out-of-memory killer" in recognise("step", code, before, report(tmp_path)).reason
    counter.write_text("oom_kill 2\n")
    assert "kernel counts one more process" in recognise("step", code, before, report(tmp_path)).reason


def test_it_tells_the_step_and_what_was_asked_and_free(tmp_path: Path) -> None:
    text = f"{TRACE}torch.OutOfMemoryError: {oom_plugin.MESSAGE}\n"
    told = recognise(text, 1, {}, report(tmp_path)).describe()
    assert told.startswith("out of memory on the GPU in step 13, 2.00 GiB more were asked for, 1.21 GiB of 79.15 GiB")
    told = recognise(text.replace("training_step", "evaluation_loop"), 1, {}, report(tmp_path)).describe()
    assert "in the evaluation after step 12" in told
    (tmp_path / "progress.jsonl").unlink()
    assert "before the first step" in recognise(text, 1, {}, report(tmp_path, None)).describe()
    bytes_asked = f"{TRACE}DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes."
    assert recognise(bytes_asked, 1, {}, report(tmp_path)).asked == "16.00 GiB"


@pytest.mark.parametrize(
    ("micro", "steps", "expected"),
    [(8, 1, (4, 2)), (8, 2, (4, 4)), (3, 1, (1, 3)), (3, 2, (2, 3)), (5, 2, (2, 5)), (7, 1, (1, 7)), (6, 1, (3, 2)),
     (2, 1, (1, 2)), (9, 4, (4, 9)), (15, 1, (5, 3))],
)  # fmt: skip
def test_a_batch_is_split_into_equal_parts(micro: int, steps: int, expected: tuple[int, int]) -> None:
    new = split(micro * steps, micro)
    assert (new, micro * steps // new) == expected
    assert new * expected[1] == micro * steps


@pytest.fixture
def root(mini: Path) -> Path:
    """The mini task with rows of 40 to 100 tokens, and a phase that runs out of memory."""
    tiny_tokenizer(mini / "base")
    for name, lengths in (("pos", [40, 50, 60, 100]), ("val", [70])):
        path = mini / "data" / "train" / f"{name}_segments.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"segments": [{"label": False, "text": "a" * (n - 10)}, {"label": True, "text": "b" * 10}]} for n in lengths
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    phase(mini, micro_batch_size=1, gradient_accumulation_steps=4, sequence_len=512)
    return mini


def phase(root: Path, **values: object) -> None:
    config = {
        "base_model": "base",
        "output_dir": "outputs/mini/phase1",
        "datasets": [{"path": "data/train/pos_segments.jsonl"}],
        "test_datasets": [{"path": "data/train/val_segments.jsonl"}],
    }
    (root / "recipes" / "mini" / "phase1.yml").write_text(yaml.safe_dump(config | values))
    if not (root / "recipes" / "cpu.yml").exists():
        (root / "recipes" / "cpu.yml").write_text("tf32: false\n")


def remedy(root: Path, found: OutOfMemory = IN_TRAINING, profile: str = "cpu", **values: object):
    if values:
        phase(root, **values)
    task = load_task("mini", root)
    return next_remedy(task, profile, resolve(task, "phase1", profile), found)


def test_first_the_batch_is_split_and_evaluation_stays(root: Path) -> None:
    found = remedy(root, micro_batch_size=6, gradient_accumulation_steps=1, sequence_len=512)
    assert found.changes == {"micro_batch_size": 3, "gradient_accumulation_steps": 2, "eval_batch_size": 6}
    assert "6 rows a step as before" in found.what and not found.loses


def test_an_evaluation_that_does_not_fit_leaves_training_alone(root: Path) -> None:
    evaluating = OutOfMemory("gpu", "", "evaluation", 4)
    found = remedy(root, evaluating, micro_batch_size=6, gradient_accumulation_steps=1, sequence_len=512)
    assert found.changes == {"eval_batch_size": 3}


def test_then_a_pack_shrinks_to_its_longest_row_with_as_many_tokens_a_step(root: Path) -> None:
    found = remedy(root, gradient_accumulation_steps=3, sequence_len=512, sample_packing=True)
    assert found.changes == {"sequence_len": 256, "gradient_accumulation_steps": 6}
    assert "longest row has 100 tokens" in found.what and "as many tokens a step as before" in found.what
    found = remedy(root, gradient_accumulation_steps=3, sequence_len=192, sample_packing=True)
    assert found.changes == {"sequence_len": 128, "gradient_accumulation_steps": 4}
    assert "89% of the tokens a step" in found.what
    found = remedy(root, gradient_accumulation_steps=3, sequence_len=192, pad_to_sequence_len=True)
    assert found.changes == {"sequence_len": 128}


def test_then_activations_are_computed_again(root: Path) -> None:
    assert remedy(root).changes == {"gradient_checkpointing": True}  # rows are padded to a batch's longest alone
    packed = remedy(root, sample_packing=True, sequence_len=128)
    assert packed.changes == {"gradient_checkpointing": True}


def test_rows_are_lost_last_and_counted(root: Path) -> None:
    (root / "data/train/pos_segments.jsonl").write_text(
        "".join(
            json.dumps({"segments": [{"label": False, "text": "a" * n}, {"label": True, "text": "b" * 50}]}) + "\n"
            for n in (50, 60, 80, 150)
        )
    )
    found = remedy(root, gradient_checkpointing=True, sequence_len=512)
    assert found.loses and found.changes == {"sequence_len": 192, "excess_length_strategy": "drop"}
    assert "drops 1 of 4 rows (25.0%) with 25.0% of the trained tokens, and 0 of 1" in found.what
    found = remedy(root, gradient_checkpointing=True, sequence_len=192)
    assert found.changes["sequence_len"] == 128 and "drops 2 of 4 rows (50.0%)" in found.what
    assert remedy(root, gradient_checkpointing=True, sequence_len=128) is None


def test_a_loss_that_compares_rows_keeps_its_batch_as_long_as_it_can(root: Path) -> None:
    ranked = {"micro_batch_size": 4, "sequence_len": 64, "regression": {"ranking": {"by": "x", "loss": "listwise"}}}
    assert remedy(root, **ranked).changes == {"gradient_checkpointing": True}
    assert remedy(root, **ranked, gradient_checkpointing=True).changes["micro_batch_size"] == 2


def test_no_batch_is_split_where_that_cannot_help(root: Path) -> None:
    assert remedy(root, OutOfMemory("gpu", "", "loading", 0), micro_batch_size=4, sequence_len=64) is None
    host = OutOfMemory("host", "", "", 5)
    assert remedy(root, host, micro_batch_size=4, sequence_len=64).changes["micro_batch_size"] == 2
    workers = {"micro_batch_size": 4, "sequence_len": 64, "bf16": True, "dataloader_num_workers": 4}
    assert remedy(root, host, "gpu", **workers).changes["dataloader_num_workers"] == 0
    assert remedy(root, host, "gpu", **(workers | {"dataloader_num_workers": 0})) is None


def test_without_a_tokenizer_what_needs_no_count_is_still_found(root: Path) -> None:
    (root / "base" / "tokenizer.json").unlink()
    (root / "base" / "tokenizer_config.json").unlink()
    remedies.load_tokenizer.cache_clear()
    assert remedy(root, sample_packing=True, sequence_len=512).changes == {"gradient_checkpointing": True}
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        remedy(root, sample_packing=True, sequence_len=512, gradient_checkpointing=True)
    remedies.load_tokenizer.cache_clear()


def test_unasked_the_overlay_is_written_and_the_command_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTO_OOM", raising=False)
    phase(root, micro_batch_size=4, sequence_len=64)
    task, log = load_task("mini", root), root / "logs" / "my run" / "phase1.log"
    with pytest.raises(UserError) as caught:
        answer(task, "phase1", "cpu", IN_TRAINING, 0, log)
    told = "\n".join(caught.value.problems)
    assert "out of memory on the GPU in step 5" in told and "micro_batch_size 4 -> 2" in told
    assert resolve(task, "phase1", "cpu")["micro_batch_size"] == 4  # nothing is laid over yet
    command = told.partition("to take it: ")[2].partition(", then")[0]
    memory_overlay(task, "phase1", "cpu").parent.mkdir(parents=True)
    subprocess.run(shlex.split(command), check=True)
    config = resolve(task, "phase1", "cpu")
    assert (config["micro_batch_size"], config["gradient_accumulation_steps"]) == (2, 2)
    assert resolve(task, "phase1", "gpu")["micro_batch_size"] == 4  # another machine


def test_asked_remedies_add_up_until_data_would_be_lost(root: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("AUTO_OOM", "1")
    phase(root, micro_batch_size=3, sequence_len=512, sample_packing=True, excess_length_strategy="raise")
    task, log = load_task("mini", root), root / "logs" / "phase1.log"
    for tried in range(4):
        answer(task, "phase1", "cpu", IN_TRAINING, tried, log)
    shown = capsys.readouterr().err
    assert shown.count("out of memory") == 4 and shown.count("AUTO_OOM=1: ") == 4
    config = resolve(task, "phase1", "cpu")
    assert (config["micro_batch_size"], config["sequence_len"], config["gradient_accumulation_steps"]) == (1, 128, 12)
    assert config["gradient_checkpointing"] is True and config["eval_batch_size"] == 3
    overlay = yaml.safe_load(memory_overlay(task, "phase1", "cpu").read_text(encoding="utf-8"))
    assert overlay["made_for"] == {
        "micro_batch_size": 3, "gradient_accumulation_steps": None, "eval_batch_size": None, "sequence_len": 512,
        "gradient_checkpointing": None,
    }  # fmt: skip
    with pytest.raises(UserError, match="nothing is left to make smaller"):
        answer(task, "phase1", "cpu", IN_TRAINING, 4, log)


def test_rows_are_never_dropped_unasked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_OOM", "1")
    phase(root, gradient_checkpointing=True, sequence_len=512)
    path = root / "data/train/pos_segments.jsonl"
    path.write_text(json.dumps({"segments": [{"label": True, "text": "b" * 200}]}) + "\n")
    task = load_task("mini", root)
    with pytest.raises(UserError, match="takes none that loses data"):
        answer(task, "phase1", "cpu", IN_TRAINING, 0, root / "logs" / "phase1.log")
    assert not memory_overlay(task, "phase1", "cpu").exists()


def test_a_command_gives_up_in_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_OOM", "1")
    with pytest.raises(UserError, match=f"has taken {remedies.MOST} already"):
        answer(load_task("mini", root), "phase1", "cpu", IN_TRAINING, remedies.MOST, root / "logs" / "phase1.log")


def test_an_overlay_for_another_recipe_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_OOM", "1")
    phase(root, micro_batch_size=4, sequence_len=64)
    task = load_task("mini", root)
    answer(task, "phase1", "cpu", IN_TRAINING, 0, root / "logs" / "phase1.log")
    phase(root, micro_batch_size=16, sequence_len=64)
    with pytest.raises(UserError, match=r"phase1.cpu.oom.yml:\d+: micro_batch_size: made for 4, but .* says 16 now"):
        resolve(task, "phase1", "cpu")
    memory_overlay(task, "phase1", "cpu").write_text("micro_batch_size: 2\n")
    with pytest.raises(UserError, match="expected made_for and laid_over"):
        resolve(task, "phase1", "cpu")


@pytest.mark.fault(number=33)
def test_a_checkpoint_outlives_another_split_and_nothing_else(root: Path) -> None:
    def key(**values: object) -> str:
        phase(root, **({"micro_batch_size": 4, "gradient_accumulation_steps": 2, "sequence_len": 64} | values))
        task = load_task("mini", root)
        config = resolve(task, "phase1", "cpu")
        return checkpoint_inputs(Step(root, "phase1", {"config": config, "processes": 1}, []), config)

    same = key()
    assert key(micro_batch_size=2, gradient_accumulation_steps=4, eval_batch_size=4) == same
    assert key(gradient_checkpointing=True) == same
    assert key(micro_batch_size=2) != same
    assert key(sequence_len=128) != same
    assert key(learning_rate=1e-3) != same


def test_rows_may_be_dropped_by_an_overlay_alone(sound_task, run_checks) -> None:
    edit(sound_task, "phase1", sequence_len=20)
    edit(sound_task, "phase2", sequence_len=20, excess_length_strategy="drop")
    problems = run_checks()[1]
    assert any("excess_length_strategy: found drop, expected raise" in problem for problem in problems)
    assert any("tokens, over sequence_len 20" in problem for problem in problems)
    edit(sound_task, "phase1", sequence_len=512)
    edit(sound_task, "phase2", sequence_len=512, excess_length_strategy="raise")
    for phase in ("phase1", "phase2"):
        path = memory_overlay(sound_task, phase, "cpu")
        path.parent.mkdir(parents=True, exist_ok=True)
        made_for = "made_for: {sequence_len: 512, excess_length_strategy: raise}\n"
        path.write_text(made_for + "laid_over: {sequence_len: 20, excess_length_strategy: drop}\n")
    assert run_checks()[1] == []


def losses(root: Path, task: str = "hawks") -> tuple[list[float], ...]:
    """Losses of training and evaluation, by step, as the last checkpoint has them; resuming evaluates once more."""
    folder = max((root / "outputs" / task / "phase1").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    found = ({h["step"]: h[key] for h in history if key in h} for key in ("loss", "eval_loss"))
    return tuple([values[step] for step in sorted(values)] for values in found)


def same_result(one: Path, other: Path, task: str = "hawks") -> None:
    for a, b in zip(losses(one, task), losses(other, task), strict=True):
        assert len(a) > 1
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-3)
    a, b = (load_file(r / "outputs" / task / "phase1" / "adapter_model.safetensors") for r in (one, other))
    moved = {name: np.linalg.norm(a[name] - b[name]) / np.linalg.norm(a[name]) for name in a}
    assert max(moved.values()) < 0.05, moved


@pytest.mark.fault(number=42)
@pytest.mark.slow
def test_a_training_goes_on_with_less_memory_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"max_steps": 12, "save_steps": 4, "eval_steps": 4, "micro_batch_size": 8, "logging_steps": 1}
    calm = make_root(tmp_path / "calm", **values)
    run(calm, "hawks", "phase1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("FAKE_OOM", '{"raise": [6, "micro_batch_size", 4], "kill": [10, "micro_batch_size", 2]}')
    monkeypatch.delenv("AUTO_OOM", raising=False)
    tight = make_root(tmp_path / "tight", **values, plugins=["oom_plugin.FakeOom"])
    shown = run(tight, "hawks", "phase1", code=2)
    assert "out of memory on the GPU in step 7, 2.00 GiB more were asked for" in shown, shown
    command = shown.partition("to take it: ")[2].partition(", then")[0]
    subprocess.run(shlex.split(command), check=True)

    monkeypatch.setenv("AUTO_OOM", "1")
    shown = run(tight, "hawks", "phase1")
    assert "going on from step 4" in shown and "out of memory on the host after step 10" in shown, shown
    assert "AUTO_OOM=1: micro_batch_size 4 -> 2" in shown and "going on from step 8" in shown
    assert read_record(tight / "outputs/hawks/state/phase1.json")["laid_over"] == {
        "micro_batch_size": 2, "gradient_accumulation_steps": 4, "eval_batch_size": 8
    }  # fmt: skip
    assert yaml.safe_load((tight / "logs" / "phase1.yml").read_text(encoding="utf-8"))["micro_batch_size"] == 2
    same_result(calm, tight)
    assert "up to date" in run(tight, "hawks", "phase1")


@pytest.mark.slow
def test_a_regression_is_the_same_however_its_batch_is_split(tmp_path: Path) -> None:
    roots = []
    for micro, steps in ((8, 1), (2, 4)):
        root = write_task(tmp_path / str(micro))
        write_rows(root)
        path = root / "enc" / "config.json"
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        path.write_text(json.dumps(json.loads(path.read_text()) | still))
        path = root / "recipes" / "mini" / "cpu.yml"
        overlay = yaml.safe_load(path.read_text(encoding="utf-8"))
        overlay["phase1"] |= {"micro_batch_size": micro, "gradient_accumulation_steps": steps, "eval_batch_size": 8}
        path.write_text(yaml.safe_dump(overlay, allow_unicode=True), encoding="utf-8")
        run(root, "mini", "phase1")
        roots.append(root)
    same_result(*roots, task="mini")


def test_tokens_of_every_row_are_counted(root: Path) -> None:
    task = load_task("mini", root)
    counted = remedies.row_lengths(task, resolve(task, "phase1", "cpu"))
    assert counted.train.tolist() == [40, 50, 60, 100] and counted.trained.tolist() == [10] * 4
    assert counted.held_out.tolist() == [70] and counted.longest == 100

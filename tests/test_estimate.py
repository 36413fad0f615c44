"""Time and cost of a recipe."""

import io
import json
import os
import shutil

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import estimate as tool
from recipekit import ROOT, durations
from recipekit.durations import Duration, Range, measured, phase_duration, planned_steps
from recipekit.errors import UserError
from recipekit.fitting import Need
from recipekit.prices import Machine, load_machines, machine_for
from recipekit.task import load_task

T4 = Machine("ml.g4dn.xlarge", 0.736, 1, "T4", 16)


@pytest.fixture
def priced(mini):
    """The mini task with two chained phases, and prices."""
    shutil.copy(ROOT / "recipes" / "prices.yml", mini / "recipes")
    phases(mini, {"max_steps": 54_000}, {"max_steps": 43_200})
    return mini


def phases(root, *settings):
    for number, values in enumerate(settings, 1):
        config = {"base_model": "owner/base", "output_dir": f"outputs/mini/phase{number}"}
        config |= {"lora_model_dir": f"outputs/mini/phase{number - 1}"} if number > 1 else {}
        path = root / "recipes" / "mini" / f"phase{number}.yml"
        path.write_text(yaml.safe_dump(config | values), encoding="utf-8")


def ran(root, times, device="Tesla T4", rows=4, planned=100, started=0.0, phase="phase1"):
    """Leave what a run leaves that reached step i at times[i]."""
    folder = root / "outputs" / "mini" / phase
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"step": step, "max_steps": planned, "time": time} for step, time in enumerate(times)]
    lines[0] |= {"rows_per_step": rows, "device": device}
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "progress.jsonl").write_text(text + '{"step": 99', encoding="utf-8")
    (folder / "started.json").write_text("{}")
    os.utime(folder / "started.json", (started, started))


def problems(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return "\n".join(caught.value.problems)


def asked(monkeypatch, root, *arguments):
    """Run the command on a root of its own; returns its JSON."""
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, root))
    app = tool.typer.Typer()
    app.command()(tool.estimate)
    result = CliRunner().invoke(app, ["mini", *arguments, "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_the_memos_figures_come_out(priced, monkeypatch):
    speeds = [f"--steps-per-second={text}" for text in ("phase1=3-5", "phase2=2-3")]
    found = asked(monkeypatch, priced, "--machine", "ml.g4dn.xlarge", *speeds)
    first, second = found["phases"]
    assert (first["hours"], second["hours"]) == ([3, 5], [4, 6])
    assert [[round(usd, 2) for usd in one["usd"]] for one in (first, second)] == [[2.21, 3.68], [2.94, 4.42]]
    assert found["together"]["hours"] == [7, 11]
    assert found["together"]["spot_usd"] == pytest.approx([7 * 0.736 * 0.4, 11 * 0.736 * 0.4], abs=1e-4)


def test_a_range_is_written_once_where_both_ends_read_the_same():
    assert tool.span(tool.cost(Range(3 * 3600, 5 * 3600), 0.736), 2, "$") == "$2.21-3.68"
    assert tool.span(Range(1.001, 1.002), 2) == "1.00"


@pytest.mark.parametrize(
    ("values", "shards", "processes", "steps"),
    [
        ({"num_epochs": 3}, 1, 1, 30),  # ten rows, one at a time
        ({"num_epochs": 3, "micro_batch_size": 4}, 1, 1, 9),  # 4 + 4 + 2
        ({"num_epochs": 3, "micro_batch_size": 4, "gradient_accumulation_steps": 2}, 1, 1, 6),
        ({"micro_batch_size": 2}, 1, 2, 3),  # an epoch is what Axolotl takes unasked
        ({"num_epochs": 0.5}, 1, 1, 5),
        ({"num_epochs": 1}, 2, 1, 5),
        ({"num_epochs": 3, "max_steps": 7}, 1, 4, 7),
    ],
)
def test_steps_are_those_of_the_trainer(priced, values, shards, processes, steps):
    path = priced / "data" / "train" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text("{}\n" * 10)
    config = {"datasets": [{"path": "data/train/rows.jsonl", "shards": shards}], **values}
    assert planned_steps(load_task("mini", priced), "phase1", config, processes) == (steps, ())
    packed = planned_steps(load_task("mini", priced), "phase1", config | {"sample_packing": True}, processes)
    assert bool(packed[1]) == ("max_steps" not in values)


def test_a_finished_run_gives_its_speed_and_its_start(priced):
    ran(priced, [10.0, 100, *(100 + 2 * i for i in range(1, 99)), 298], planned=100, started=4.0)
    phases(priced, {"max_steps": 1000, "micro_batch_size": 2, "gradient_accumulation_steps": 2})
    found = phase_duration(load_task("mini", priced), "phase1", "gpu", "T4", 1, {})
    assert found.speed == Range(0.5, pytest.approx(0.5, rel=0.05))  # the 90 s of the first step count once
    assert found.seconds.high == pytest.approx(96 + 1000 / 0.5, rel=0.01)
    assert found.source == "measured (Tesla T4, finished)" and found.notes == ()


def test_a_run_going_on_gives_a_range_and_says_how_far_it_is(priced):
    ran(priced, [0, *range(1, 10), *(9 + 2 * i for i in range(1, 10))])
    speed = measured(load_task("mini", priced), "phase1", "gpu", "T4", 4)
    assert (speed.steps_per_second.low, speed.steps_per_second.high) == (0.5, 1)
    assert speed.source == "measured (Tesla T4, at step 18 of 100)"


def test_another_gpu_and_another_batch_are_told(priced):
    ran(priced, range(20), rows=16)
    speed = measured(load_task("mini", priced), "phase1", "gpu", "A10G", 4)
    assert speed.steps_per_second == Range(4, 4)
    assert "measured on Tesla T4; A10G has another speed" in speed.notes[0]
    assert "measured with 16 rows a step, now 4" in speed.notes[1]


def test_a_run_on_a_cpu_says_nothing_about_a_gpu(priced):
    task = load_task("mini", priced)
    ran(priced, range(20), device="cpu")
    assert measured(task, "phase1", "gpu", "T4", 4) is None
    assert measured(task, "phase1", "cpu", "", 4) is not None
    ran(priced, range(durations.LEAST_STEPS), device="cpu")
    assert measured(task, "phase1", "cpu", "", 4) is None


def test_an_expected_time_is_widened_and_named(priced):
    path = priced / "recipes" / "mini" / "task.yml"
    path.write_text(path.read_text(encoding="utf-8") + "expected_seconds: {gpu: {phase1: 3000}}\n", encoding="utf-8")
    found = phase_duration(load_task("mini", priced), "phase1", "gpu", "T4", 1, {})
    assert (found.seconds.low, found.seconds.high) == (pytest.approx(2010), 4500)
    assert found.source == "expected (task.yml)" and "not measured" in found.notes[0]


def test_phases_never_run_are_named_together(priced):
    found = problems(tool.phase_durations, load_task("mini", priced), "gpu", T4, {})
    assert "phase1: never run here on profile gpu" in found and "--steps-per-second phase2=X" in found


def test_missing_data_files_are_named(priced):
    phases(priced, {"datasets": [{"path": "data/train/no.jsonl"}]})
    found = problems(phase_duration, load_task("mini", priced), "phase1", "gpu", "T4", 1, {"phase1": Range(1, 1)})
    assert "data/train/no.jsonl are not all here" in found and "regenerate_segments.py mini" in found


@pytest.mark.parametrize(
    "text", ["phase1", "phase1=", "phase1=fast", "phase1=0", "phase1=-1", "phase1=nan", "phase1=1-2-3"]
)
def test_a_speed_that_is_none_is_refused(priced, text):
    found = problems(tool.given_speeds, load_task("mini", priced), [text, "phase3=1"])
    assert f"{text}: expected phase1=X" in found and "no phase 'phase3'; they are phase1, phase2" in found


def test_an_unknown_machine_and_one_without_a_gpu_are_refused(priced):
    task = load_task("mini", priced)
    assert "did you mean ml.g5.xlarge?" in problems(machine_for, task, "gpu", "ml.g5.xlrge")
    assert "has no GPU" in problems(machine_for, task, "gpu", "ml.m5.xlarge")


def test_without_a_name_the_machine_fits_the_recipe(priced):
    assert machine_for(load_task("mini", priced), "gpu", None).name == "ml.g4dn.xlarge"
    phases(priced, {"bf16": True})
    assert machine_for(load_task("mini", priced), "gpu", None).name == "ml.g5.xlarge"
    path = priced / "recipes" / "mini" / "task.yml"
    path.write_text(path.read_text(encoding="utf-8") + "cloud: {machine: h100-80gb}\n", encoding="utf-8")
    assert machine_for(load_task("mini", priced), "gpu", None).name == "h100-80gb"


def test_a_gpu_without_bfloat16_is_warned_of(priced, capsys):
    phases(priced, {"bf16": True})
    machine_for(load_task("mini", priced), "gpu", "ml.g4dn.xlarge")
    assert "T4 has no bfloat16" in capsys.readouterr().err


def test_wrong_prices_are_named_with_their_lines(priced):
    path = priced / "recipes" / "prices.yml"
    path.write_text("a: {gpus: 0, usd_per_hour: -1}\nb: {gpus: 1, usd_per_hour: 1, price: 2}\nc: 3\n")
    found = problems(load_machines, priced)
    assert "prices.yml:1: a: usd_per_hour: found -1, expected a number from 0" in found
    assert "prices.yml:2: b: unknown key 'price'" in found and "b: gpu is missing" in found
    assert "prices.yml:3: c: expected keys" in found


def test_tables_keep_their_headings_in_a_terminal_of_80_columns():
    names = ("phase1", "phase1_listwise", "phase2_decoder", "dpo")
    parts = ("weights", "adapter", "gradients", "optimizer", "activations", "backward", "framework", "logits")
    needs = [Need(name, dict.fromkeys(parts, 12.3e9), 24e9, "smaller") for name in names]
    source = "measured (NVIDIA A100-SXM4-80GB, at step 180 of 10,000)"
    times = [Duration(name, 10_000, Range(0.25, 0.55), Range(5e4, 9e4), source, ()) for name in names]
    tables = {
        tool.memory_table(needs): (*parts, "together", *names, "too much"),
        tool.table(times, T4): ("steps/s", "hours", "cost", "spot", "from", "$10.22-18.40", *names),
    }
    for grid, shown in tables.items():
        console = Console(width=80, file=io.StringIO())
        console.print(grid)
        text = console.file.getvalue()
        assert "…" not in text and not [word for word in shown if word not in text], text


def test_the_shipped_prices_are_right():
    machines = load_machines(ROOT)
    assert machines["ml.g4dn.xlarge"].usd_per_hour == 0.736
    assert all(machine.usd_per_hour > 0 for machine in machines.values())

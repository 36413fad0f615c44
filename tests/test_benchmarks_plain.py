"""The comparison with a plain Trainer script: what is timed, which tokens are trained, and all of it once."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import plain_trainer
import vs_plain_trainer as versus
from recipekit import ROOT, models
from recipekit.chat_tokens import encode_chat
from recipekit.errors import UserError

BASE = ROOT / "data" / "samples" / "base"
TURNS = [
    ("system", "あなたはさくら"),
    ("user", "おはよう"),
    ("assistant", "おはよう。"),
    ("user", "またね"),
    ("assistant", "うん"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(BASE)


@pytest.fixture
def talk():
    return [{"role": role, "content": text, "train": role == "assistant"} for role, text in TURNS]


def run_of(losses, pace=2.0, start=10.0, checkpoint=5.0, steps=6):
    ended, now = {}, start
    for step in range(1, steps + 1):
        now += pace
        ended[step] = now
        now += checkpoint if step in losses else 0
    return versus.Run(now + 1, ended, losses)


def test_checkpoints_are_not_counted():
    run = run_of({2: 3.0, 4: 2.0, 6: 2.5})
    assert (run.step, run.checkpoint, run.start_up) == (2.0, 5.0, 10.0)
    assert run.in_all == 10 + 6 * 2 + 1
    assert run.until(2.5) == 10 + 4 * 2, "the first checkpoint as good as that, not the last"
    assert run.final == 2.5


def test_table_compares_with_ours():
    runs = {
        versus.OURS: [run_of({6: 2.0}), run_of({6: 2.0})],
        versus.PLAIN: [run_of({6: 2.5}, pace=8.0), run_of({4: 2.1, 6: 1.9}, pace=8.0)],
    }
    shown = versus.table(runs, 8, {versus.FACTORY: "no such version"})
    cells = [list(column.cells) for column in shown.columns]
    assert cells[0] == [versus.OURS, versus.PLAIN, versus.FACTORY]
    assert cells[1][:2] == ["4.0 (1.00)", "1.0 (0.25)"]
    assert cells[5][:2] == ["22.0 s (1.00)", f"{10 + 8 * 5:.1f} s ({50 / 22:.2f})"], (
        "the same loss is the worst of all ends"
    )
    assert cells[1][2] == "could not be installed: no such version"


def test_steps_are_read_once(tmp_path):
    report = tmp_path / "progress.jsonl"
    lines = [{"step": 0}, {"step": 1}, {"step": 1, "loss": 3.0}, {"step": 2}]
    report.write_text("".join(json.dumps(line | {"time": 100.0 + i}) + "\n" for i, line in enumerate(lines)))
    assert versus.step_ends(report, 90.0) == {1: 11.0, 2: 13.0}
    assert versus.step_ends(tmp_path / "none", 90.0) == {}


def test_plain_script_trains_the_tokens_that_serving_needs(tokenizer, talk):
    ids, trained = encode_chat(tokenizer, talk)
    made = plain_trainer.encode(tokenizer, talk, 64)
    assert {len(values) for values in made.values()} == {64}
    assert made["input_ids"][: len(ids)] == ids
    assert sum(made["attention_mask"]) == len(ids)
    assert made["labels"] == [t if flag else -100 for t, flag in zip(ids, trained, strict=True)] + [-100] * (
        64 - len(ids)
    )


def test_other_tokens_are_refused(tmp_path, tokenizer, talk, monkeypatch):
    ground = SimpleNamespace(root=tmp_path, rows=[{"messages": talk}, {"messages": talk[:3]}])
    trained = sum(sum(encode_chat(tokenizer, row["messages"]).trained) for row in ground.rows)
    assert versus.check_tokens(ground, versus.PLAIN, tokenizer) == trained
    right = plain_trainer.encode
    all_labelled = lambda *given: (made := right(*given)) | {"labels": made["input_ids"]}  # noqa: E731 as guides do
    monkeypatch.setattr(plain_trainer, "encode", all_labelled)
    with pytest.raises(UserError, match=f"trained other tokens: .*, expected {trained}"):
        versus.check_tokens(ground, versus.PLAIN, tokenizer)


def test_plain_script_trains_two_steps(tmp_path, talk):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"messages": talk}, ensure_ascii=False) + "\n", encoding="utf-8")
    arguments = {"output_dir": str(tmp_path / "out"), "max_steps": 2, "save_steps": 2, "use_cpu": True}
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    settings = {"base": str(BASE), "rows": str(rows), "max_length": 64, "lora": lora}
    plain_trainer.train(settings | {"arguments": arguments | {"report_to": "none"}})
    assert list(versus.step_ends(tmp_path / "out" / "progress.jsonl", 0.0)) == [1, 2]
    assert (tmp_path / "out" / "checkpoint-2" / "adapter_model.safetensors").exists()


def test_what_cannot_be_installed_is_said(tmp_path, monkeypatch):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'no solution   found' >&2\nexit 1\n")
    uv.chmod(0o755)
    monkeypatch.setenv("UV", str(uv))
    assert versus.install_factory(tmp_path / "env") == "no solution found"


@pytest.mark.slow
def test_two_steps_of_both():
    command = [sys.executable, str(ROOT / "benchmarks" / "vs_plain_trainer.py"), "--examples", "16", "--rounds", "1"]
    done = subprocess.run([*command, "--without", "llamafactory"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout + done.stderr
    assert "2 steps of 8 conversations" in shown
    assert all(f"round 1, {name}: " in shown for name in (versus.OURS, versus.PLAIN))

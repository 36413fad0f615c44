import json
import os
import pty
import shutil
import subprocess
import sys
import time

import pytest

import processes
import status
import stepping
from recipekit import ROOT, journal, runs
from recipekit.errors import UserError
from recipekit.status import look, training

LOGGING = 10  # steps
KILL = {"start": "2026-01-01T00:00:00+0000", "pid": 5, "last_sign": "2026-01-01T00:10:00+0000"}
PIPELINE = ["regenerate", "phase1", "merge", "evaluate"]


def stamp(age=0.0):
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - age))


def entry(age=100, code=None, **more):
    ended = {} if code is None else {"end": stamp(age - 5), "seconds": 5, "exit": code,
                                     "signal": journal.signal_of(code)}  # fmt: skip
    return {"start": stamp(age), "pid": 2**22 + 7, "command": ["tools/none.py"], "log": "logs/1/x.log", **ended, **more}


@pytest.fixture
def outputs(tmp_path):
    """Write what runs leave; steps, records and the lock as given."""

    def write(entries=None, records=(), **lock):
        folder = tmp_path / "outputs" / "mini"
        runs.write_text(folder / "run.json", json.dumps({"task": "mini", "steps": entries or {}}))
        for name in records:
            runs.write_text(folder / "state" / f"{name}.json", json.dumps({"seconds": 3.0, "finished": stamp(5000)}))
        if lock:
            lock = {"pid": 2**22 + 8, "command": ["train_all.sh"], "since": stamp(200), "pipeline": PIPELINE} | lock
            runs.write_text(folder / "run.lock", json.dumps({"steps": PIPELINE, **lock}))
        return folder

    return write


@pytest.fixture
def alive():
    """A process, as an entry has it, that runs while the test does."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "train_all.sh"])
    yield {"pid": process.pid, "command": ["train_all.sh"]}
    process.kill()
    process.wait()


def states(folder, names=None):
    return {step["step"]: step["state"] for step in look(folder, names)["steps"]}


def progress(folder, steps=30, of=100, seconds=0.5, start=None):
    start = time.time() - steps * seconds if start is None else start
    lines = [{"step": 0, "max_steps": of, "time": start - 60, "rows_per_step": 8, "device": "cpu", "tokens": 0}]
    lines += [{"step": i, "max_steps": of, "time": start + i * seconds, "loss": 1 / i} for i in range(1, steps + 1)]
    for line in lines[LOGGING::LOGGING]:
        line["tokens"] = line["step"] * 1000
    lines += [{"step": steps, "max_steps": of, "time": start + steps * seconds, "eval_loss": 0.25}]
    runs.write_text(folder / "phase1" / "progress.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def test_states_of_a_run_that_has_ended(outputs):
    steps = {"regenerate": entry(code=0), "phase1": entry(code=143), "merge": entry(code=2), "leaks": entry()}
    folder = outputs(steps, ["evaluate"], steps=PIPELINE)
    assert states(folder, [*PIPELINE, "card"]) == {
        "regenerate": "done", "phase1": "interrupted", "merge": "failed", "evaluate": "done", "card": "waiting",
        "leaks": "interrupted",
    }  # fmt: skip
    seen = look(folder)
    assert not seen["running"] and seen["pid"] is None and seen["disk_free"] > 0
    assert [step["seconds"] for step in seen["steps"]] == [5, 5, 5, 3.0, None]


def test_states_of_a_run_under_way(outputs, alive):
    steps = {"regenerate": entry(age=5000, code=0), "phase1": entry(age=100, **alive), "merge": entry(5000, code=1)}
    folder = outputs(steps, ["regenerate", "merge", "evaluate"], **alive)
    assert states(folder) == {
        "regenerate": "up to date", "phase1": "running", "merge": "waiting", "evaluate": "waiting"
    }  # fmt: skip
    seen = look(folder)
    assert seen["running"] and seen["pid"] == alive["pid"]
    assert 99 < seen["steps"][1]["seconds"] < 160 and seen["steps"][1]["pid"] == alive["pid"]


def test_steps_that_a_run_leaves_out_keep_their_own_state(outputs, alive):
    steps = {"regenerate": entry(5000, code=0), "phase1": entry(5000, code=2)}
    folder = outputs(steps, ["evaluate"], steps=["evaluate"], **alive)
    assert states(folder) == {"regenerate": "done", "phase1": "failed", "merge": "waiting", "evaluate": "waiting"}


def test_a_step_run_by_hand_counts_as_running(outputs, alive):
    assert look(outputs({"phase1": entry(**alive)}))["running"]
    assert not look(outputs({"phase1": entry(code=0, **alive)}))["running"]


def test_how_far_a_phase_is(outputs, alive):
    folder = outputs({"phase1": entry(**alive)})
    progress(folder)
    for step, age in ((10, 100), (20, 40)):
        runs.write_text(folder / "phase1" / f"checkpoint-{step}" / "complete.json", "{}")
        os.utime(folder / "phase1" / f"checkpoint-{step}" / "complete.json", (time.time() - age,) * 2)
    (folder / "phase1" / "checkpoint-30").mkdir()  # not whole yet
    at = look(folder)["steps"][0]["progress"]
    assert (at["step"], at["of"], at["share"]) == (30, 100, 0.3)
    assert at["loss"] == pytest.approx(1 / 30) and at["eval_loss"] == 0.25
    assert at["steps_per_second"] == pytest.approx(2, rel=1e-3) and at["rows_per_second"] == pytest.approx(16, rel=1e-3)
    assert at["seconds_left"] == 35 and at["tokens_per_second"] == pytest.approx(2000, rel=1e-3)
    assert at["checkpoint"]["name"] == "checkpoint-20" and 39 <= at["checkpoint"]["age"] < 100
    line = status.detail(look(folder)["steps"][0])
    assert line.startswith(
        "step 30 of 100 (30%); loss 0.0333; eval loss 0.2500; 16.0 rows/s; 2,000 tokens/s; 0:35 left; checkp"
    )


def test_tokens_a_second_are_those_of_the_latest_steps(tmp_path):
    progress(tmp_path, steps=9)
    report = tmp_path / "phase1" / "progress.jsonl"
    assert training(report)["tokens_per_second"] is None  # no loss was read yet
    progress(tmp_path, steps=400, of=1000)
    start = time.time()
    with report.open("a") as stream:
        for i in range(1, 61):
            tokens = f', "tokens": {400_000 + i * 300}' if i % LOGGING == 0 else ""
            stream.write(f'{{"step": {400 + i}, "max_steps": 1000, "time": {start + i * 0.5}{tokens}}}\n')
    at = training(report)
    assert at["steps_per_second"] == 2 and at["tokens_per_second"] == pytest.approx(600)
    for tokens in ('"many"', "null", "NaN"):
        report.write_text(f'{{"step": 1, "max_steps": 9, "time": 1, "tokens": {tokens}}}\n' * 2)
        assert training(report)["tokens_per_second"] is None


def test_a_phase_that_has_ended_still_tells_how_far_it_came(outputs):
    folder = outputs({"phase1": entry(code=0)}, ["phase1"])
    progress(folder, steps=100)
    line = status.detail(look(folder)["steps"][0])
    assert line == "step 100 of 100 (100%); loss 0.0100; eval loss 0.2500"


def test_a_killed_step_tells_when_and_how_far_it_came(outputs):
    folder = outputs({"phase1": entry(age=3600), "merge": entry(code=0, killed=[KILL, KILL])}, ["merge"])
    progress(folder)
    os.utime(folder / "phase1" / "progress.jsonl", (time.time() - 1200,) * 2)
    killed, merge = look(folder)["steps"]
    sign = stamp(1200)
    seen = dict(*killed["killed"])
    assert abs(journal.seconds(seen.pop("last_sign")) - journal.seconds(sign)) <= 2
    assert seen == {"start": killed["start"], "pid": 2**22 + 7, "step": 30, "of": 100}
    line = status.detail(killed)
    assert killed["state"] == "interrupted" and "last sign of life " + sign[:15] in line and "step 30 of 100" in line
    assert (
        status.detail(merge) == f"killed before 2 times, last sign of life then {KILL['last_sign']}"
        and merge["state"] == "done"
    )
    os.utime(folder / "phase1" / "progress.jsonl", (time.time() - 7200,) * 2)  # of the run before
    assert look(folder)["steps"][0]["killed"][0]["last_sign"] == killed["start"]


def test_killed_once_its_record_was_written_a_step_has_ended_well(outputs):
    inputs = {"config": "1"}
    folder = outputs({"merge": entry(age=3600, inputs=inputs)}, ["merge"])
    for finished, found, state in ((stamp(3000), inputs, "done"), (stamp(4000), inputs, "interrupted"),
                                   (stamp(3000), {"config": "2"}, "interrupted")):  # fmt: skip
        runs.write_text(folder / "state" / "merge.json", json.dumps({"finished": finished, "inputs": found}))
        assert states(folder) == {"merge": state}


@pytest.mark.fault(number=51)
def test_the_speed_is_the_latest_and_a_clock_set_back_gives_none(tmp_path):
    progress(tmp_path, steps=400, of=1000, seconds=1)
    with (tmp_path / "phase1" / "progress.jsonl").open("a") as stream:
        now = time.time()
        stream.writelines(f'{{"step": {400 + i}, "max_steps": 1000, "time": {now + i * 0.1}}}\n' for i in range(1, 60))
    assert training(tmp_path / "phase1" / "progress.jsonl")["steps_per_second"] == pytest.approx(10, rel=1e-3)
    progress(tmp_path, seconds=-1, start=time.time())
    at = training(tmp_path / "phase1" / "progress.jsonl")
    assert at["steps_per_second"] is None and at["seconds_left"] is None and at["step"] == 30


def test_a_long_report_is_read_from_its_end_alone(tmp_path):
    progress(tmp_path, steps=200_000, of=400_000)
    started = time.process_time()
    at = training(tmp_path / "phase1" / "progress.jsonl")
    assert time.process_time() - started < 0.3
    assert at["step"] == 200_000 and at["rows_per_second"] == pytest.approx(16, rel=1e-2)


@pytest.mark.fault(number=27)
def test_torn_files_are_never_a_traceback(outputs, alive):
    folder = outputs({"phase1": entry(**alive), "merge": entry(code=0)}, ["merge"], **alive)
    progress(folder, steps=3)
    runs.write_text(folder / "phase1" / "checkpoint-2" / "complete.json", "{}")
    files = [
        folder / "run.json",
        folder / "run.lock",
        folder / "state" / "merge.json",
        folder / "phase1/progress.jsonl",
    ]
    for path in files:
        whole = path.read_bytes()
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            assert status.shown(look(folder, PIPELINE))
        odd = [b"[]", b"null", b'{"steps": {"phase1": []}}', b'{"steps": {"phase1": {"exit": "x", "pid": "y"}}}',
               b'{"steps": [1], "pid": -4, "since": 5, "command": [3]}', b'{"seconds": "long"}', b"\xff\xfe",
               b'{"steps": {"phase1": {"start": 3, "pid": 99999999999999999999, "command": ["x"]}}}',
               b'{"steps": {"phase1": {"start": 3, "killed": [3, {}]}, "merge": {"killed": 5}}}',
               b'{"step": "1", "max_steps": 0}\n{"step": 1, "max_steps": 5, "time": NaN, "loss": "x"}\n5']  # fmt: skip
        for text in odd:
            path.write_bytes(text)
            assert status.shown(look(folder, PIPELINE)), text
        path.unlink()
        assert status.shown(look(folder, PIPELINE))
        path.write_bytes(whole)


def test_it_writes_nothing_and_reads_what_it_may_not_write(outputs, alive):
    folder = outputs({"phase1": entry(**alive)}, ["merge"], **alive)
    progress(folder)

    def tree():
        return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}

    before = tree()
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert look(folder)["running"]
    finally:
        for path in before:
            path.chmod(0o755)
    assert tree() == before


@pytest.fixture
def clone(tmp_path, outputs):
    """A checkout with outputs of a task named mini; nothing of it is imported from elsewhere."""
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def command(clone, *arguments):
    return subprocess.run([sys.executable, "tools/status.py", *arguments], cwd=clone, capture_output=True, text=True,
                          env=stepping.environment(), timeout=60)  # fmt: skip


def test_the_command(clone, outputs):
    assert "outputs/: nothing has run here yet" in command(clone).stderr
    outputs({"regenerate": entry(code=0), "phase1": entry(code=2)}, steps=PIPELINE)
    seen = json.loads(command(clone, "mini", "--json").stdout)
    assert [step["state"] for step in seen["steps"]] == ["done", "failed", "waiting", "waiting"]
    assert [one["task"] for one in json.loads(command(clone, "--json").stdout)] == ["mini"]
    text = command(clone, "mini").stderr
    assert "mini: no train_all.sh is running" in text and "exit code 2; log logs/1/x.log" in text.replace("\n", " ")
    waiting = json.loads(command(clone, "bigfive:alone", "--json").stdout)
    assert waiting["task"] == "bigfive_alone" and {step["state"] for step in waiting["steps"]} == {"waiting"}
    wrong = command(clone, "../mini")
    assert wrong.returncode == 2 and "no task '../mini'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_it_starts_quickly_and_loads_nothing_heavy(clone, outputs):
    outputs({"regenerate": entry(code=0)}, steps=PIPELINE)
    command(clone, "mini")  # compiles
    before = os.times()
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "tools/status.py", "mini"], cwd=clone, capture_output=True, text=True
    )
    after = os.times()
    assert found.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert not loaded & {"torch", "axolotl", "transformers", "numpy", "datasets", "huggingface_hub", "mlflow"}
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_a_live_look_ends_with_the_run(clone, outputs, alive):
    outputs({"phase1": entry(**alive)}, **alive)
    ours, theirs = pty.openpty()
    seen = subprocess.Popen([sys.executable, "tools/status.py", "mini"], cwd=clone, stdout=theirs, stderr=theirs,
                            stdin=theirs, env=stepping.environment(TERM="xterm"))  # fmt: skip
    os.close(theirs)
    text = b""
    while b"running" not in text:
        text += os.read(ours, 4096)
    time.sleep(1)
    assert seen.poll() is None
    os.kill(alive["pid"], 9)
    assert processes.wait_for(lambda: seen.poll() is not None) and seen.returncode == 0
    text += os.read(ours, 65536)
    assert b"interrupted" in text and b"Traceback" not in text
    os.close(ours)


def test_unknown_task_without_outputs(tmp_path):
    (tmp_path / "recipes").mkdir()
    with pytest.raises(UserError, match="no task 'nix'"):
        status.tasks("nix", tmp_path)

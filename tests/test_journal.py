import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

import processes
import stepping
from recipekit import journal, provenance, runs

BUSY = "write_text(root / 'busy', 'yes'); time.sleep(60)"


@pytest.fixture
def root(tmp_path):
    return stepping.make(tmp_path)


def entry(root, name="a"):
    return journal.read(root / "outputs" / "mini").get(name)


def busy(root, *arguments, **more):
    """Start a step and wait until it is in the middle of its work."""
    started = stepping.start(root, *arguments, "--then", BUSY, **more)
    assert processes.wait_for((root / "busy").exists)
    return started


def test_a_step_leaves_what_it_was_started_with_and_how_it_ended(root):
    assert stepping.run(root, LOG_DIR=str(root / "logs" / "20260101_000000")).returncode == 0
    found = entry(root)
    assert (found["exit"], found["signal"]) == (0, None) and found["seconds"] >= 0
    assert found["start"] <= found["end"] and found["command"] == [str(root / "step.py")]
    assert found["inputs"] == {"in": runs.digest(root / "in")}
    assert found["products"] == {str(root / "product"): runs.digest(root / "product")}
    assert found["log"] == str(root / "logs" / "20260101_000000" / "a.log")
    assert set(found["versions"]) == {"python", *provenance.PACKAGES} and found["versions"]["torch"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=runs.ROOT, capture_output=True, text=True).stdout.strip()
    assert found["git"] is None or found["git"]["commit"] == commit


def test_a_step_that_is_up_to_date_leaves_no_mark(root):
    stepping.run(root)
    path = root / "outputs" / "mini" / "run.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert "up to date" in stepping.run(root).stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    (root / "in").write_text("y", encoding="utf-8")
    stepping.run(root)
    assert entry(root)["inputs"] == {"in": runs.digest(root / "in")}


@pytest.mark.parametrize("when", ["first", "then"])
@pytest.mark.parametrize(
    ("ending", "code"), [("raise UserError('no')", 2), ("raise typer.Exit(1)", 1), ("1 / 0", 1), ("sys.exit(3)", 3)]
)
def test_a_failure_is_noted_also_where_the_inputs_are_not_known_yet(root, when, ending, code):
    assert stepping.run(root, f"--{when}", ending).returncode == code
    found = entry(root)
    assert found["exit"] == code and "products" not in found and found["end"]
    assert bool(found["inputs"]) is (when == "then")
    assert not (root / "outputs" / "mini" / "state" / "a.json").exists()


@pytest.mark.fault(number=1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_step_tidies_up_and_names_the_signal(root, number):
    step = busy(root)
    assert journal.is_running(entry(root))
    step.send_signal(number)
    assert step.wait(30) == 128 + number and (root / "tidied").exists()
    assert (entry(root)["exit"], entry(root)["signal"]) == (128 + number, number.name)
    assert stepping.run(root).returncode == 0 and entry(root)["exit"] == 0


@pytest.mark.fault(number=2)
def test_a_killed_step_has_a_start_and_no_end(root):
    step = busy(root)
    step.kill()
    step.wait()
    first = entry(root)
    assert "end" not in first and not journal.is_running(first)
    (root / "busy").unlink()
    again = busy(root)
    again.kill()
    again.wait()
    assert [one["pid"] for one in entry(root)["killed"]] == [first["pid"]]
    report = root / "outputs" / "mini" / "a" / "progress.jsonl"
    runs.write_text(report, '{"step": 12, "max_steps": 40, "time": 1}\n')
    done = stepping.run(root)
    assert re.search(r"a: was killed at step 12 of 40, or its machine stopped \(process \d+, since", done.stderr)
    assert done.returncode == 0 and entry(root)["exit"] == 0
    noted = entry(root)["killed"]
    assert [one["pid"] for one in noted] == [step.pid, again.pid] and "step" not in noted[0]
    assert noted[1]["step"] == 12 and noted[1]["of"] == 40 and first["start"] <= noted[1]["last_sign"] <= journal.now()
    (root / "in").write_text("y", encoding="utf-8")
    assert "was killed" not in stepping.run(root).stderr and "killed" not in entry(root)


@pytest.mark.fault(number=39)
def test_the_process_id_of_a_killed_step_may_be_anothers(root):
    step = busy(root)
    step.kill()
    step.wait()
    assert not journal.is_running(entry(root) | {"pid": os.getpid()})


def test_no_secret_is_in_a_command(root):
    words = ["hf_abcdefghijklmnop", "--server=http://me:sesame@host/v1", "so_canary_is_there"]
    assert stepping.run(root, "--", *words, HF_AUTH_TOKEN="canary").returncode == 0
    text = (root / "outputs" / "mini" / "run.json").read_text(encoding="utf-8")
    assert not [secret for secret in ("hf_abc", "sesame", "canary") if secret in text]
    assert entry(root)["command"][2:] == ["***", "***@host/v1", "so_***_is_there"]


@pytest.mark.fault(number=38)
def test_a_second_process_of_a_step_does_not_take_over_its_entry(root):
    step = busy(root)
    first = entry(root)
    assert stepping.run(root, "--then", "raise UserError('running elsewhere')").returncode == 2
    assert entry(root) == first
    step.terminate()
    step.wait()
    assert entry(root)["pid"] == step.pid and entry(root)["exit"] == 143


def test_steps_at_the_same_time_do_not_lose_each_others_entries(root):
    names = [f"step{i}" for i in range(4)]
    steps = [stepping.start(root, "--name", name, "--then", "[journal.note(n=i) for i in range(30)]") for name in names]
    assert [step.wait(60) for step in steps] == [0] * 4
    assert [(entry(root, name)["n"], entry(root, name)["exit"]) for name in names] == [(29, 0)] * 4


@pytest.mark.fault(number=30)
def test_killed_at_any_moment_the_journal_is_whole_and_nothing_piles_up(root):
    rng = random.Random(0)
    folder = root / "outputs" / "mini"
    for _ in range(6):
        step = stepping.start(root, "--then", "[journal.note(n=i, pad='x' * 200_000) for i in range(100_000)]")
        assert processes.wait_for(lambda started=step: entry(root) and entry(root)["pid"] == started.pid)
        time.sleep(rng.random() / 4)
        step.kill()
        step.wait()
        assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["steps"]["a"]["pid"] == step.pid
        assert len(list(folder.glob(".run.json*.tmp"))) <= 1
    (folder / ".run.json.1.tmp").write_text("{", encoding="utf-8")
    assert stepping.run(root).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [".run.json.lock", "run.json", "state"]


def test_outputs_that_cannot_be_written_are_named_before_the_work(root):
    (root / "outputs").write_text("a file", encoding="utf-8")
    run = stepping.run(root)
    assert run.returncode == 2 and "run.json: cannot be written, " in run.stderr and "Traceback" not in run.stderr
    assert not (root / "product").exists()


@pytest.mark.fault(number=27)
def test_a_journal_that_is_no_json_is_begun_anew(root):
    (root / "outputs" / "mini").mkdir(parents=True)
    for text in ("", "{", "[]", '{"steps": []}', '{"steps": {"a": 1}}'):
        (root / "outputs" / "mini" / "run.json").write_text(text, encoding="utf-8")
        (root / "in").write_text(text, encoding="utf-8")
        assert stepping.run(root).returncode == 0 and entry(root)["exit"] == 0


@pytest.mark.fault(number=6)
def test_a_step_ends_with_its_train_all(root):
    line = f"export {journal.RUN}=$$; '{stepping.sys.executable}' step.py --then \"{BUSY}\"; true"
    shell = subprocess.Popen(["bash", "-c", line], cwd=root, env=stepping.environment(), start_new_session=True)
    assert processes.wait_for((root / "busy").exists)
    shell.kill()
    shell.wait()
    assert processes.wait_for(lambda: "end" in entry(root))
    assert entry(root)["signal"] == "SIGTERM" and (root / "tidied").exists()
    assert processes.wait_for(lambda: not processes.runs(entry(root)["pid"]))


def test_in_a_dry_run_steps_say_why_they_would_run_and_write_nothing(root):
    (root / "dry").mkdir()
    dry = {journal.DRY_RUN: str(root / "dry")}
    assert stepping.run(root, **dry).stderr == "a: would run: it has not ended well here yet\n"
    assert stepping.run(root, "--name", "b", "--first", "raise UserError(['no x', 'no y'])", **dry).stderr == (
        "b: would run after a, as it cannot before: no x (and 1 more)\n"
    )
    assert not (root / "outputs").exists() and not (root / "product").exists()
    (root / "dry" / "stale").unlink()
    stepping.run(root)
    assert stepping.run(root, **dry).stderr == "a: up to date\n"
    (root / "in").write_text("y", encoding="utf-8")
    assert stepping.run(root, **dry).stderr == "a: would run: in changed\n"
    (root / "in").write_text("x", encoding="utf-8")
    assert stepping.run(root, **dry).stderr == "a: would run: a runs before it\n"
    (root / "dry" / "stale").unlink()
    (root / "product").write_text("edited", encoding="utf-8")
    assert stepping.run(root, **dry).stderr == f"a: would run: {root}/product was changed since\n"
    (root / "dry" / "stale").unlink()
    failed = stepping.run(root, "--first", "raise UserError('no x')", **dry)
    assert (failed.returncode, failed.stderr) == (2, "error: no x\n")


def test_old_logs_go_but_for_those_that_are_referred_to(tmp_path):
    logs = tmp_path / "logs"
    for day in range(1, 29):
        (logs / f"202601{day:02}_120000").mkdir(parents=True)
        (logs / f"202601{day:02}_120000" / "phase1.log").write_text("x", encoding="utf-8")
    (logs / "mine").mkdir()
    (logs / "20250101_000000").symlink_to(logs / "mine")
    runs.write_text(
        tmp_path / "outputs" / "a" / "run.json", json.dumps({"steps": {"x": {"log": "logs/20260102_120000/x.log"}}})
    )
    runs.write_text(tmp_path / "outputs" / "b" / "run.lock", json.dumps({"logs": "logs/20260104_120000"}))
    runs.write_text(tmp_path / "outputs" / "c" / "run.json", "{torn")
    gone = [f"202601{day:02}_120000" for day in (1, 3, 5, 6, 7, 8)]
    assert [path.name for path in journal.prune_logs(tmp_path)] == gone
    left = {path.name for path in logs.iterdir()}
    assert not left & set(gone) and len(left) == 24 and {"mine", "20250101_000000"} <= left
    assert journal.prune_logs(tmp_path) == []

"""Tokens and passwords stay where they are kept: nothing shown, logged, written, sent or committed holds one."""

import signal
import subprocess

import pytest

import processes
from canaries import CANARIES, DOT_ENV, ENVIRONMENT, holding, write_env
from hub_client import copy_repository, run, start
from hub_server import Fault, LocalHub
from recipekit import ROOT
from recipekit.own_secrets import own_secrets, scrub, without_secrets


@pytest.fixture
def clone(tmp_path):
    root = copy_repository(tmp_path / "clone")
    write_env(root)
    return root


def test_settings_that_are_secret_are_known_by_name_and_form(tmp_path, monkeypatch):
    write_env(tmp_path)
    for name, value in ENVIRONMENT.items() | {("TOKENIZERS_PARALLELISM", "whatever-else"), ("KEY", "short")}:
        monkeypatch.setenv(name, value)
    found = own_secrets(tmp_path)
    assert {*CANARIES} - {ENVIRONMENT["MLFLOW_TRACKING_URI"]} <= {*found} and found == sorted(
        found, key=len, reverse=True
    )
    assert "whatever-else" not in found and "short" not in found
    assert without_secrets(f"at {ENVIRONMENT['MLFLOW_TRACKING_URI']}!") == "at http://someone:***@127.0.0.1:9!"


LEAK = """
import os, subprocess, sys
from recipekit import ROOT
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.hub import setting

def leak(how: str) -> None:
    log_to("leak")
    names = {names}
    text = "; ".join(str(setting(ROOT, name)) for name in names)
    print("a library:", text, flush=True)
    subprocess.run(["echo", "a child: " + text])
    show("a line: " + text)
    if how == "mistake":
        raise UserError(["one: " + text, "two: " + text])
    if how == "defect":
        try:
            raise ValueError("inner: " + text)
        except ValueError as error:
            raise RuntimeError("401 for " + text) from error

main(leak)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("mistake", 2), ("defect", 1)])
@pytest.mark.parametrize("logged", [True, False])
def test_what_libraries_children_and_errors_say_loses_its_secrets(clone, how, code, logged):
    script = LEAK.replace("{names}", repr([*ENVIRONMENT, *DOT_ENV]))
    if not logged:  # libraries and children then write to the terminal themselves
        script = "\n".join(line for line in script.splitlines() if "a library" not in line and "a child" not in line)
    (clone / "tools" / "leak.py").write_text(script)
    more = {"LOG_DIR": str(clone / "logs")} if logged else {}
    done = run(clone, "leak", "http://127.0.0.1:9", how, **ENVIRONMENT, **more)
    assert done.returncode == code and "a line: ***" in done.stderr.replace("hf_", ""), done.stderr
    if logged:
        text = (clone / "logs/leak.log").read_text()
        assert "a library: ****" in text and "a child: ****" in text and ("Traceback" in text) == (how == "defect")
    assert holding(clone, done.stdout, done.stderr) == set()


KILLED = """
import os, signal, sys, time
from pathlib import Path
from recipekit import ROOT, journal
from recipekit.console import log_to, main
from recipekit.hub import setting

def leak(how: str) -> None:
    log_to("leak", ROOT / "outputs" / "mini")
    if how == "start":
        return journal.prune_logs(ROOT) and None
    journal.begin(ROOT / "outputs" / "mini", "leak", {}, [])
    if how == "again":
        return
    time.sleep(0.2)  # the log was looked at when it was opened
    print("; ".join(str(setting(ROOT, name)) for name in {names}), flush=True)
    if how == "live":
        (ROOT / "said").touch()
        time.sleep(60)
    os.kill(os.getpid(), signal.SIGKILL)

main(leak)
"""


@pytest.fixture
def killed(clone):
    """Run a step that names its secrets, until it is killed; returns a function that starts it for another end."""
    script = KILLED.replace("{names}", repr([*ENVIRONMENT, *DOT_ENV]))
    (clone / "tools" / "leak.py").write_text(script)

    def step(how, logs):
        return start(clone, "leak", "http://127.0.0.1:9", how, **ENVIRONMENT, LOG_DIR=str(clone / "logs" / logs))

    return step


@pytest.mark.fault(number=54)
@pytest.mark.parametrize("next_start", ["again", "start"])
def test_a_step_killed_at_once_leaves_secrets_that_the_next_start_removes(clone, killed, next_start):
    with killed("kill", "20260101_000000") as step:
        assert step.wait(60) == -signal.SIGKILL
    log = clone / "logs/20260101_000000/leak.log"
    assert DOT_ENV["HF_AUTH_TOKEN"] in log.read_text(), "there is nothing to remove"
    with killed(next_start, "20260101_000001") as step:
        assert step.wait(60) == 0, step.stderr.read()
        assert next_start == "start" or "leak: was killed, or its machine stopped" in step.stderr.read()
    assert "****" in log.read_text() and holding(clone) == set()


def test_the_log_of_a_step_that_runs_loses_its_secrets_within_seconds(clone, killed):
    with killed("live", "20260101_000000") as step:
        assert processes.wait_for((clone / "said").exists)
        assert processes.wait_for(lambda: "****" in (clone / "logs/20260101_000000/leak.log").read_text())
        step.kill()
    assert holding(clone) == set()


def test_a_secret_that_is_written_in_two_halves_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", secret := ENVIRONMENT["HF_TOKEN"])
    log = tmp_path / "log"
    clean = 0
    for part in ("before " * 20, secret[:9], secret[9:], " and after"):
        with log.open("a") as stream:
            stream.write(part)
        clean = scrub(log, clean)
        assert clean <= log.stat().st_size
    assert log.read_text() == "before " * 20 + "*" * len(secret) + " and after"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("tool", ["upload", "download"])
def test_a_failing_transfer_says_nothing_of_them(clone, monkeypatch, tool, status):
    monkeypatch.setattr("hub_server.WRITER", ENVIRONMENT["HF_TOKEN"])
    out = clone / "outputs" / "hawks"
    for name in ("merged/config.json", "merged/model.safetensors", "README.md", "evaluation/metrics.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("---\nlicense: mit\n---\n")
    logged = {"LOG_DIR": str(clone / "logs"), "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    with LocalHub() as hub:
        hub.faults = [Fault("api", status, times=99)]
        done = run(clone, tool, hub, HF_REPO_ID="someone/model", **ENVIRONMENT, **logged)
    assert done.returncode == 2 and "error: " in done.stderr, done.stderr
    assert holding(clone, done.stdout, done.stderr, *hub.requests) == set()


def test_env_files_are_never_committed():
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)

    ignored = [".env", ".env.local", ".env.production", "mlflow.db", "logs/x", "outputs/x", "data/raw/x"]
    assert git("check-ignore", *ignored).stdout.split() == ignored
    assert git("ls-files", ".env*").stdout.split() == [".env.example"]
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(line.startswith("#") or line.endswith("=") for line in filter(None, lines)), "it holds no value"

"""Data sets to a Hub on this machine, with the real client: what goes, what does not, and what a fault leaves."""

import json
import shutil
import time
from functools import cache
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import hub_server
import upload
from hub_client import copy_repository, problem, run, start
from hub_server import WRITER, Fault, LocalHub
from recipekit import content_scan, publish
from recipekit import hub as hub_module
from recipekit.dataset_release import Wish
from recipekit.errors import UserError
from recipekit.runs import write_jsonl
from recipekit.task import load_task

REPO = "someone/news"
NAMES = {"README.md", "train/pos.jsonl", "train/neg.jsonl", "test/eval.jsonl", "test/gold.csv"}
COMMIT = f"POST /api/datasets/{REPO}/commit"


@pytest.fixture
def hub(monkeypatch):
    """A Hub that the client of this process speaks to."""
    from huggingface_hub import constants

    for name in (*hub_module.TOKEN_NAMES, "HF_DATASET_REPO_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_module, "WAITS", (0, 0, 0))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(**vars(time) | {"sleep": lambda _: None}))
    monkeypatch.setenv("HF_AUTH_TOKEN", WRITER)
    with LocalHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        yield server


@pytest.fixture(autouse=True, scope="module")
def one_scanner():
    """One for all tests: it reads a dictionary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_scan, "Scanner", cache(content_scan.Scanner))
        yield


@pytest.mark.parametrize("status", [400, 418, 503, None])
def test_a_password_of_the_endpoint_is_shown_nowhere(monkeypatch, status):
    import httpx
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://me:p4ss@hub.example.jp")
    assert publish.Target("a/b", "dataset", True, "", "").url == "https://***@hub.example.jp/datasets/a/b"
    request = httpx.Request("GET", "https://me:p4ss@hub.example.jp/api/x@y")
    with pytest.raises(UserError) as error, hub_module.explained("upload", "again", None):
        if status is None:
            raise httpx.ConnectError("no way to https://me:p4ss@hub.example.jp")
        httpx.Response(status, request=request).raise_for_status()
    assert "p4ss" not in str(error.value) and "https://***@hub.example.jp" in str(error.value)


@pytest.fixture
def task(mini):
    """The mini task; its negatives are many enough for the Hub to keep them outside git."""
    rows = [{"id": f"N{i}", "body": "花火大会。", "label": {"persons": []}, "pad": "。" * 500} for i in range(100)]
    write_jsonl(mini / "data" / "samples" / "mini" / "neg.jsonl", rows)
    return load_task("mini", mini)


def wish(task, **changes):
    asked = {"repo": REPO, "private": True, "licence": "cc-by-4.0", "allowed": frozenset({"person"})}
    return Wish(**(asked | {"source": task.raw_dir, "segments": False} | changes))


def push(task, send=True, replace=False, **changes):
    upload.upload_dataset(task, wish(task, **changes), send, replace)


def problems(task, **changes):
    with pytest.raises(UserError) as error:
        push(task, **changes)
    return "\n".join(error.value.problems)


def local(task):
    files = {f"train/{name}.jsonl": task.raw_dir / f"{name}.jsonl" for name in ("pos", "neg")}
    files |= {f"test/{name}": task.raw_dir / name for name in ("eval.jsonl", "gold.csv")}
    card = task.outputs / "dataset" / "README.md"
    return {name: path.read_bytes() for name, path in (files | {"README.md": card}).items()}


def arrived(task, hub):
    return {name: data for name, data in hub.files("dataset", REPO).items() if name != ".gitattributes"} == local(task)


def commits(hub):
    return [commit for commit, _ in hub.repos["dataset", REPO].commits]


def puts(hub):
    return [request for request in hub.requests if request.startswith("PUT")]


def test_one_commit_then_nothing_to_do(task, hub, capsys):
    push(task)
    assert arrived(task, hub) and hub.repos["dataset", REPO].private and len(commits(hub)) == 2
    record = json.loads((task.outputs / "state" / "upload_dataset.json").read_text(encoding="utf-8"))
    assert record["commit"] == commits(hub)[-1] and set(record["files"]) == NAMES
    said = capsys.readouterr().err
    assert "5 of 5 files sent" in said and "left there" not in said
    push(task)
    assert len(commits(hub)) == 2 and len(puts(hub)) == 1
    assert "up to date" in capsys.readouterr().err
    shutil.rmtree(task.outputs / "state")
    push(task)
    assert len(commits(hub)) == 2 and "up to date" in capsys.readouterr().err


def test_a_dry_run_asks_the_hub_for_nothing(task, hub, capsys, monkeypatch):
    push(task, send=False)
    said = capsys.readouterr().err
    assert (
        hub.requests == [] and "nothing sent" in said and f"{REPO} (private, branch main)" in said and "--push" in said
    )
    assert "train/neg.jsonl" in said and "100" in said and "0.2 MB" in said and "person (allowed)" in said
    assert not (task.outputs / "state").exists()
    monkeypatch.delenv("HF_AUTH_TOKEN")
    push(task, send=False, repo=None, private=False)
    said = capsys.readouterr().err
    assert "HF_DATASET_REPO_ID" in said and "HF_AUTH_TOKEN" in said and "(public, branch main)" in said
    lacking = problems(task, repo=None)
    assert "HF_DATASET_REPO_ID" in lacking and "HF_AUTH_TOKEN" in lacking and hub.requests == []


def test_a_gold_file_may_have_short_rows(task, hub):
    with (task.raw_dir / "gold.csv").open("a", encoding="utf-8") as stream:
        stream.write("E2\n")
    push(task)
    assert arrived(task, hub)


def test_findings_stop_it_before_anything_is_sent(task, hub, capsys):
    said = problems(task, allowed=frozenset())
    assert "pos.jsonl:1: person 山" in said and "--allow person" in said and "tools/mask_pii.py" in said
    shown = capsys.readouterr().err
    assert "train/pos.jsonl" in shown and "person" in shown and "山田" not in shown + said
    assert hub.requests == [] and not (task.outputs / "dataset").exists()


def test_a_token_in_a_row_is_never_let_through(task, hub):
    write_jsonl(task.raw_dir / "eval.jsonl", [{"id": "1", "body": f"これは{WRITER}です。"}])
    said = problems(task, allowed=frozenset({"person", "secret"}))
    assert "eval.jsonl:1: own_token your own Hub token" in said and WRITER not in said and hub.requests == []


def test_a_secret_in_the_card(task, hub):
    task.spec["summary"] = "See https://me:" + "pa55word@example.jp/x"
    said = problems(task)
    assert "password in a URL" in said and "pa55" not in said and hub.requests == []


def test_public_only_where_it_is_said(task, hub):
    hub.add("dataset", REPO, {"a": b"b"})
    assert "is public and publish.dataset.private" in problems(task)
    assert set(hub.files("dataset", REPO)) == {"a"}
    push(task, private=False)
    assert set(hub.files("dataset", REPO)) == NAMES | {"a"}


def test_what_else_lies_there_stays_and_is_named(task, hub, capsys):
    hub.add("dataset", REPO, {"train/old.jsonl": b"{}\n"}, private=True)
    push(task)
    assert "train/old.jsonl" in hub.files("dataset", REPO)
    assert "left there as they are: train/old.jsonl" in capsys.readouterr().err


def test_a_change_there_is_not_overwritten(task, hub):
    push(task)
    edited = hub.files("dataset", REPO) | {"README.md": b"---\nlicense: mit\n---\nby hand"}
    hub.add("dataset", REPO, edited)
    said = problems(task)
    assert f"{REPO}: README.md is another than an upload from here left it" in said and "--replace" in said
    assert hub.files("dataset", REPO) == edited
    push(task, replace=True)
    assert arrived(task, hub)


def test_what_was_left_in_one_repository_is_not_ours_in_another(task, hub):
    push(task)
    hub.add("dataset", "someone/other", hub.files("dataset", REPO), private=True)
    write_jsonl(task.raw_dir / "eval.jsonl", [{"id": "E2", "body": "花火。"}])
    assert "someone/other: test/eval.jsonl is another" in problems(task, repo="someone/other")


def test_our_own_last_upload_is_overwritten(task, hub):
    push(task)
    write_jsonl(task.raw_dir / "eval.jsonl", [{"id": "E2", "body": "花火。"}])
    hub.requests.clear()
    push(task)
    assert arrived(task, hub) and len(commits(hub)) == 3 and puts(hub) == []


def test_a_file_of_the_name_that_was_never_ours(task, hub):
    hub.add("dataset", REPO, {"train/pos.jsonl": b"{}\n", "README.md": b"x"}, private=True)
    said = problems(task)
    assert "README.md is another" in said and "train/pos.jsonl is another" in said and len(commits(hub)) == 1


def test_a_commit_in_between_is_not_overwritten(task, hub, monkeypatch):
    push(task)
    write_jsonl(task.raw_dir / "eval.jsonl", [{"id": "E2", "body": "花火。"}])
    commit = hub_server.Handler.commit

    def late(self, kind, repo, revision):
        monkeypatch.setattr(hub_server.Handler, "commit", commit)
        hub.add("dataset", REPO, hub.files("dataset", REPO) | {"theirs": b"1"})
        commit(self, kind, repo, revision)

    monkeypatch.setattr(hub_server.Handler, "commit", late)
    assert "came in between (412)" in problems(task)
    assert (
        "theirs" in hub.files("dataset", REPO)
        and hub.files("dataset", REPO)["test/eval.jsonl"] != local(task)["test/eval.jsonl"]
    )
    push(task)
    assert (
        "theirs" in hub.files("dataset", REPO)
        and hub.files("dataset", REPO)["test/eval.jsonl"] == local(task)["test/eval.jsonl"]
    )


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ("POST /api/repos/create", 401, "not accepted (401)"),
        ("POST /api/repos/create", 403, "may not do this (403)"),
        (f"GET /api/datasets/{REPO}", 404, "no such repository or revision (404)"),
        (COMMIT, 409, "under way, or it is there already (409)"),
        (COMMIT, 403, "may not do this (403)"),
    ],
)
def test_what_does_not_pass_is_said_and_again_goes_on(task, hub, request_, status, said):
    hub.faults = [Fault(request_, status, times=9)]
    text = problems(task)
    assert said in text and "nothing here is lost" in text and not (task.outputs / "state").exists()
    hub.faults = []
    push(task)
    assert arrived(task, hub) and len(puts(hub)) == 1


@pytest.mark.parametrize("status", [429, 503, None])
@pytest.mark.parametrize(
    "request_",
    [
        "POST /api/repos/create",
        f"GET /api/datasets/{REPO}",
        "/preupload/",
        "/lfs/objects/batch",
        "PUT /lfs/",
        COMMIT,
        "/tree/",
    ],
)
def test_what_passes_is_tried_again(task, hub, request_, status):
    hub.faults = [Fault(request_, status)]
    push(task)
    assert hub.faults == [] and arrived(task, hub) and len(commits(hub)) == 2


def test_a_fault_that_stays_is_said(task, hub):
    hub.faults = [Fault(COMMIT, 500, times=99)]
    assert "fault of its own (500)" in problems(task)
    assert len(commits(hub)) == 1


def test_a_commit_whose_answer_was_lost_is_found(task, hub):
    """The cut comes after the Hub committed: the second try must not commit again, nor fail for another parent."""
    hub.faults = [Fault(COMMIT)]
    push(task)
    assert arrived(task, hub) and len(commits(hub)) == 2
    assert sum(request.startswith(COMMIT) for request in hub.requests) == 1


def test_what_arrives_changed_is_noticed(task, hub, monkeypatch):
    monkeypatch.setattr("hub_server.Handler.stored", staticmethod(lambda data: data[:-2] + b"!\n"))
    assert "train/neg.jsonl: another content (sha256) than on the Hub" in problems(task)
    assert not (task.outputs / "state").exists()


def test_a_file_that_changes_after_the_scan_is_not_sent(task, hub, monkeypatch):
    opened = publish._open

    def late(*arguments):
        write_jsonl(task.raw_dir / "eval.jsonl", [{"id": "E2", "body": "海野太郎容疑者(45)"}])
        return opened(*arguments)

    monkeypatch.setattr(publish, "_open", late)
    assert "test/eval.jsonl: changed while it was read" in problems(task)
    assert len(commits(hub)) == 1


# -- as a person runs it


@pytest.fixture
def clone(task, tmp_path):
    """A repository with the mini task."""
    root = copy_repository(tmp_path / "clone")
    shutil.copytree(task.root / "recipes" / "mini", root / "recipes" / "mini")
    shutil.copytree(task.root / "data", root / "data")
    return root


ASKED = ("--dataset", "mini", "--license", "mit", "--allow", "person", "--push")


def test_killed_while_it_sends_then_again(clone, hub):
    hub.faults = [Fault(COMMIT, wait=30)]
    process = start(clone, "upload", hub, *ASKED, HF_DATASET_REPO_ID=REPO, HF_AUTH_TOKEN=WRITER)
    deadline = time.monotonic() + 60
    while not any(request.startswith(COMMIT) for request in hub.requests) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert len(puts(hub)) == 1 and len(commits(hub)) == 1 and not (clone / "outputs/mini/state").exists()
    done = run(clone, "upload", hub, *ASKED, HF_DATASET_REPO_ID=REPO, HF_AUTH_TOKEN=WRITER)
    assert done.returncode == 0, done.stderr
    files = hub.files("dataset", REPO)
    assert set(files) == NAMES | {".gitattributes"} and len(puts(hub)) == 1
    assert files["train/neg.jsonl"] == (clone / "data/samples/mini/neg.jsonl").read_bytes()


def test_settings_of_task_yml_and_no_token_anywhere(clone, hub):
    path = clone / "recipes/mini/task.yml"
    settings = f"publish: {{dataset: {{repo: {REPO}, private: false, license: mit, allow: [person]}}}}\n"
    path.write_text(path.read_text(encoding="utf-8") + settings, encoding="utf-8")
    (clone / ".env").write_text(f"HF_TOKEN={WRITER}\n", encoding="utf-8")
    logged = {"LOG_DIR": str(clone / "logs"), "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    done = run(clone, "upload", hub, "mini", "--dataset", "--push", **logged)
    assert done.returncode == 0, done.stderr
    assert not hub.repos["dataset", REPO].private and b"license: mit" in hub.files("dataset", REPO)["README.md"]
    (clone / ".env").unlink()
    assert WRITER not in str(done)
    assert [path for path in clone.rglob("*") if path.is_file() and WRITER.encode() in path.read_bytes()] == []
    path.write_text(path.read_text(encoding="utf-8").replace("[person]", "[persons]"), encoding="utf-8")
    assert "publish.dataset.allow.0: 'persons' is not one of" in problem(run(clone, "upload", hub, "mini", "--dataset"))


@pytest.mark.parametrize(
    "options", [["--push"], ["--segments"], ["--allow", "person"], ["--replace"], ["--repo", "a/b"]]
)
def test_options_of_data_sets_are_for_data_sets(options, mini, monkeypatch):
    monkeypatch.setattr(upload, "load_task", lambda name: load_task(name, mini))
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(upload.upload)
    result = CliRunner().invoke(app, ["mini", *options])
    assert isinstance(result.exception, UserError) and "say --dataset" in str(result.exception)

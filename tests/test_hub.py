"""upload.py, and what download.py shares with it, with the real huggingface_hub client and a Hub on this machine."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from hub_client import copy_repository, problem, run
from hub_server import READER, WRITER, Fault, LocalHub

REPO, DATA = "someone/hawks-model", "teru00801/person-finetune-dataset1"
MODEL = {
    "config.json": b'{"model_type": "mistral"}',
    "model.safetensors": os.urandom(300_000),
    "tokenizer.json": b"{" + b" " * 120_000 + b"}",
}
NAMES = ("hawks_train.jsonl", "hawks_val.jsonl", "person_dummy.jsonl", "hawks_eval_input.jsonl", "hawks_eval_gold.csv")
DATASET = {f"data/{name}": b"{}\n" for name in NAMES}


@pytest.fixture
def hub():
    with LocalHub() as server:
        yield server


@pytest.fixture
def clone(tmp_path):
    """A repository whose pipeline has come as far as the model card."""
    root = copy_repository(tmp_path / "clone")
    out = root / "outputs" / "hawks"
    written = {f"merged/{name}": data for name, data in MODEL.items()}
    written |= {"README.md": b"---\nlicense: apache-2.0\n---\n# hawks\n", "evaluation/metrics.json": b"{}\n"}
    for name, data in written.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    return root


def upload(clone: Path, hub: LocalHub, token: str = WRITER, **env: str) -> subprocess.CompletedProcess:
    return run(clone, "upload", hub, HF_REPO_ID=REPO, HF_AUTH_TOKEN=token, **env)


def sent(clone: Path) -> dict[str, bytes]:
    out = clone / "outputs" / "hawks"
    extra = {"README.md": out / "README.md", "metrics.json": out / "evaluation" / "metrics.json"}
    return MODEL | {name: path.read_bytes() for name, path in extra.items()}


def test_upload_then_nothing_to_do(clone, hub):
    done = upload(clone, hub)
    assert done.returncode == 0, done.stderr
    files = hub.files("model", REPO)
    assert {name: files[name] for name in sent(clone)} == sent(clone) and set(files) == {*sent(clone), ".gitattributes"}
    assert hub.repos["model", REPO].private
    record = json.loads((clone / "outputs/hawks/state/upload.json").read_text(encoding="utf-8"))
    assert record["commit"] == hub.repos["model", REPO].commits[-1][0]
    hub.requests.clear()
    assert "up to date" in upload(clone, hub).stderr and hub.requests == []


def test_new_weights_replace_the_old_ones(clone, hub):
    assert upload(clone, hub).returncode == 0
    merged = clone / "outputs/hawks/merged"
    (merged / "model.safetensors").rename(merged / "model-00001-of-00001.safetensors")
    (merged / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    hub.repos["model", REPO].commits[-1][1]["notes.gguf"] = b"a person's own"
    done = upload(clone, hub)
    assert done.returncode == 0, done.stderr
    files = hub.files("model", REPO)
    assert "model.safetensors" not in files and "notes.gguf" in files
    assert files["model-00001-of-00001.safetensors"] == MODEL["model.safetensors"]
    assert sum("PUT /lfs/" in request for request in hub.requests) == 2  # the same weights are not sent twice


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, ["HF_REPO_ID", "HF_AUTH_TOKEN"]),
        ({"HF_REPO_ID": REPO}, ["HF_AUTH_TOKEN"]),
        ({"HF_TOKEN": WRITER}, ["HF_REPO_ID"]),
    ],
)
def test_without_token_or_repository_it_says_what_it_would_do(clone, hub, env, said):
    done = run(clone, "upload", hub, **env)
    assert done.returncode == 0 and hub.requests == []
    assert "nothing sent" in done.stderr and "outputs/hawks/merged" in done.stderr and "0.4 MB" in done.stderr
    for name in ("HF_REPO_ID", "HF_AUTH_TOKEN"):
        assert (name in done.stderr) == (name in said)
    assert not (clone / "outputs/hawks/state/upload.json").exists()


def test_token_from_dotenv(clone, hub):
    (clone / ".env").write_text(f"HF_AUTH_TOKEN={WRITER}\nHF_REPO_ID={REPO}\n", encoding="utf-8")
    assert run(clone, "upload", hub).returncode == 0
    assert ("model", REPO) in hub.repos


@pytest.mark.parametrize(("token", "said"), [("hf_stale", "(401)"), (READER, "(403)")])
def test_refused_token(clone, hub, token, said):
    error = problem(upload(clone, hub, token))
    assert said in error and "safe at outputs/hawks/merged" in error and "tools/upload.py hawks" in error
    assert token not in error and not hub.repos


def test_a_public_repository_does_not_get_a_private_model(clone, hub):
    hub.add("model", REPO, {"a": b"b"})
    assert "is public" in problem(upload(clone, hub))
    assert set(hub.files("model", REPO)) == {"a"}


def test_steps_before_not_run(clone, hub):
    shutil.rmtree(clone / "outputs/hawks/merged")
    assert "merge.py hawks" in problem(upload(clone, hub))


@pytest.mark.fault(number=46)
@pytest.mark.parametrize("tool", ["upload", "download"])
def test_hub_away(clone, tool):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = problem(run(clone, tool, address, HF_REPO_ID=REPO, HF_AUTH_TOKEN=WRITER))
    assert "no connection to the Hub" in error and address in error and f"tools/{tool}.py hawks" in error
    assert not (clone / "data/raw/hawks").exists()


def test_offline_mode(clone, hub):
    assert "HF_HUB_OFFLINE is set" in problem(upload(clone, hub, HF_HUB_OFFLINE="1"))


@pytest.mark.fault(number=48)
@pytest.mark.parametrize("fault", [Fault("PUT /lfs/"), Fault("POST /api/models/someone/hawks-model/commit", 500)])
def test_upload_cut_half_way_goes_on(clone, hub, fault):
    hub.faults = [fault]
    first = upload(clone, hub)
    if first.returncode:  # the client itself tries again after some faults
        assert "safe at outputs/hawks/merged" in problem(first)
        assert not (clone / "outputs/hawks/state/upload.json").exists()
        assert upload(clone, hub).returncode == 0
    assert hub.faults == []
    files = hub.files("model", REPO)
    assert {name: files[name] for name in sent(clone)} == sent(clone)
    assert sum(request.startswith("PUT") for request in hub.requests) <= 3


@pytest.mark.fault(number=49)
def test_what_arrives_changed_is_noticed(clone, hub, monkeypatch):
    monkeypatch.setattr("hub_server.Handler.stored", staticmethod(lambda data: data[:-1] + bytes([data[-1] ^ 1])))
    done = upload(clone, hub)
    assert done.returncode == 2
    assert "model.safetensors: another content (sha256) than on the Hub" in done.stderr
    assert not (clone / "outputs/hawks/state/upload.json").exists()


def test_the_token_is_written_nowhere(clone, hub):
    secret = WRITER
    hub.add("dataset", DATA, DATASET)
    hub.faults = [Fault("commit", 403)]
    logged = {"LOG_DIR": str(clone / "logs"), "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    shown = ""
    for _ in range(2):
        shown += str(upload(clone, hub, secret, **logged))
    shown += str(run(clone, "download", hub, HF_TOKEN=secret, **logged))
    assert secret not in shown
    assert (clone / "logs/upload.log").stat().st_size > 1000
    assert [path for path in clone.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []

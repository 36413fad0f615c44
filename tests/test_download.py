"""Data sets from a Hub on this machine, over HTTP, with the real client."""

import hashlib
import io
import json
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hub_client import ROOT, copy_repository, problem, run, start
from hub_server import READER, Fault, LocalHub
from recipekit import console, fetching, hub_files, local_files, runs, shards, sources
from recipekit import hub as hub_module
from recipekit.errors import UserError
from recipekit.task import load_task

REPO, HAWKS = "owner/talk", "teru00801/person-finetune-dataset1"
ROW = '{"id": "X1", "body": "本文\u3000ｶﾅ か\u3099 😀", "label": {}}\n'.encode()
HAWKS_FILES = {
    "data/train/hawks_train_segments.jsonl": ROW * 3000,
    "data/train/hawks_val.jsonl": ROW * 3,
    "data/train/person_dummy.jsonl": ROW * 2,
    "data/test/hawks_eval_input.jsonl": ROW * 2,
    "data/test/hawks_eval_gold.csv": b"quality_test_id\nX1\n",
}
OTHER = {"README.md": b"# data\n", "data/train/other.jsonl": ROW}


def parquet(rows: int, group: int, first: int = 0) -> bytes:
    """A file of invented rows, a few hundred bytes each."""
    out = io.BytesIO()
    numbers = range(first, first + rows)
    columns = {"n": list(numbers), "text": [hashlib.sha256(b"%d" % n).hexdigest() * 4 + "　ｶﾅ😀" for n in numbers]}
    pq.write_table(pa.table(columns), out, row_group_size=group, use_dictionary=False, compression=None)
    return out.getvalue()


TALK = {
    "LICENSE": b"free\n",
    "talk/a.jsonl": b"".join(b'{"n": %d, "body": "%s"}\n' % (n, b"x" * 90) for n in range(50_000)),
    **{f"talk/dialogues/{n:03d}.json": b'{"n": %d}' % n for n in range(9)},
    "talk/people.json": b"{}",
    "rows/0.parquet": parquet(900, 300),
    "rows/1.parquet": parquet(600, 300, first=900),
}
SOURCES = {
    "talk": {"repo": REPO, "revision": "main", "files": ["talk/**"], "license": "CC0", "terms": "Be kind."},
    "rows": {"repo": REPO, "revision": "main", "files": ["*.parquet"], "license": "CC BY", "stream": True},
}


@pytest.fixture
def server(monkeypatch):
    """A Hub that the client in this process asks, at once again after a fault."""
    from huggingface_hub import constants

    with LocalHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in hub_module.TOKEN_NAMES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(hub_module, "WAITS", (0, 0, 0, 0))
        yield hub


@pytest.fixture
def said(monkeypatch):
    """What a command shows."""
    lines = []
    monkeypatch.setattr(console.console, "print", lambda text, **_: lines.append(text))
    return lines


def task(root: Path, **changed: dict):
    """Declare a task of two sources, or of others."""
    folder = root / "recipes" / "mini"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "recipes" / "task.schema.json").write_bytes((ROOT / "recipes" / "task.schema.json").read_bytes())
    spec = {
        "name": "mini",
        "kind": "regression",
        "title": "小",
        "summary": "s",
        "data": {"sources": changed or SOURCES},
    }
    (folder / "task.yml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return load_task("mini", root)


def fetch(root: Path, *names: str, limit: int | None = None, **changed: dict) -> Path:
    """Fetch sources from the Hub; returns the task's raw folder."""
    for source in sources.select(task(root, **changed), list(names)):
        fetching.from_hub(source, limit)
    return root / "data" / "raw" / "mini"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, whose SOURCE.json must tell of all others."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    record = json.loads(files.pop("SOURCE.json"))
    assert record["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return files


def numbers(files: dict[str, bytes]) -> list[int]:
    """The rows' numbers, in the order of the files' names."""
    return [orjson.loads(line)["n"] for name in sorted(files) for line in files[name].splitlines()]


def refusal(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_whole_files_and_row_groups(server, said, tmp_path):
    commit = server.add("dataset", REPO, TALK)
    raw = fetch(tmp_path)
    assert content(raw / "talk") == {name: data for name, data in TALK.items() if name.startswith("talk/")}
    rows = content(raw / "rows")
    assert sorted(rows) == [f"rows/{f}.{g:05d}.jsonl" for f, gs in ((0, 3), (1, 2)) for g in range(gs)]
    assert numbers(rows) == list(range(1500))
    assert orjson.loads(rows["rows/0.00000.jsonl"].splitlines()[0])["text"].endswith("　ｶﾅ😀")
    record = json.loads((raw / "talk" / "SOURCE.json").read_text(encoding="utf-8"))
    expected = {"source": "talk", "repo": REPO, "revision": "main", "commit": commit, "origin": "hub", "limit": None}
    assert expected.items() <= record.items() and record["license"] == "CC0" and record["terms"] == "Be kind."
    assert any(f"main is commit {commit} now" in line for line in said)
    assert {path.name for path in raw.parent.iterdir()} == {"mini"}
    server.requests.clear()
    fetch(tmp_path)
    assert len(server.requests) == 2 and "up to date" in said[-1]
    assert str(tmp_path) not in json.dumps(record)


def test_licence_and_terms_are_shown_once_a_commit(server, said, tmp_path):
    def shown() -> int:
        return sum("CC0" in line or "Be kind." in line for line in said)

    server.add("dataset", REPO, TALK)
    server.faults = [Fault("people.json", 404)]
    refusal(lambda: fetch(tmp_path, "talk", limit=2))
    assert shown() == 2
    fetch(tmp_path, "talk", limit=2)
    fetch(tmp_path, "talk", limit=3)
    assert shown() == 2
    server.add("dataset", REPO, TALK | {"talk/people.json": b"{ }"})
    fetch(tmp_path, "talk", limit=3)
    assert shown() == 4


def test_a_limit_fetches_no_more_than_it_needs(server, tmp_path):
    server.add("dataset", REPO, TALK)
    raw = fetch(tmp_path, limit=4)
    talk, rows = content(raw / "talk"), content(raw / "rows")
    assert talk["talk/a.jsonl"].splitlines() == TALK["talk/a.jsonl"].splitlines()[:4]
    assert sorted(talk) == ["talk/a.jsonl", *(f"talk/dialogues/00{n}.json" for n in range(4)), "talk/people.json"]
    assert numbers(rows) == [0, 1, 2, 3] and list(rows) == ["rows/0.00000.jsonl"]
    assert server.sent[f"/datasets/{REPO}/resolve/{server.repos['dataset', REPO].commits[-1][0]}/talk/a.jsonl"] == 2**18
    assert not any("1.parquet" in request or "004.json" in request for request in server.requests)
    assert json.loads((raw / "rows" / "SOURCE.json").read_text())["limit"] == 4
    assert numbers(content(fetch(tmp_path, limit=1000) / "rows")) == list(range(1000))
    assert numbers(content(fetch(tmp_path) / "rows")) == list(range(1500))
    assert content(raw / "talk")["talk/a.jsonl"] == TALK["talk/a.jsonl"]


def test_a_limit_in_a_large_row_group_fetches_pieces_of_it(server, tmp_path):
    files = {"rows/0.parquet": parquet(20_000, 20_000)}
    server.add("dataset", REPO, files)
    assert numbers(content(fetch(tmp_path, "rows", limit=50) / "rows")) == list(range(50))
    assert len(files["rows/0.parquet"]) > 5e6 and server.sent.total() < 2.5e6


def test_columns(server, tmp_path):
    server.add("dataset", REPO, TALK)
    raw = fetch(tmp_path, rows=SOURCES["rows"] | {"columns": ["n"]})
    assert {line for data in content(raw).values() for line in data.splitlines()} == {
        b'{"n":%d}' % n for n in range(1500)
    }
    assert server.sent.total() < sum(len(TALK[f"rows/{n}.parquet"]) for n in (0, 1)) / 2
    error = refusal(lambda: fetch(tmp_path, rows=SOURCES["rows"] | {"columns": ["n", "age"]}))
    assert error == "rows/0.parquet: no column age; it has n, text; mend columns in task.yml"


def test_values_that_json_has_not(server, tmp_path):
    out = io.BytesIO()
    pq.write_table(pa.table({"n": [1], "image": [b"\x89PNG"]}), out)
    server.add("dataset", REPO, {"0.parquet": out.getvalue()})
    assert "0.parquet: column image has values that JSON does not" in refusal(lambda: fetch(tmp_path, "rows"))


@given(
    groups=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    limit=st.none() | st.integers(1, 40),
    at_once=st.booleans(),
)
def test_any_row_groups_give_the_first_rows(tmp_path_factory, groups, limit, at_once):
    folder = tmp_path_factory.mktemp("rows")
    names = [f"{i}.parquet" for i in range(len(groups))]
    first = 0
    for name, size in zip(names, groups, strict=True):
        (folder / name).write_bytes(parquet(size, 5, first))
        first += size
    found = shards.plan(lambda name: (folder / name).open("rb"), names, None, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS", 2)
        patch.setattr(shards, "AT_ONCE", shards.AT_ONCE if at_once else 0)
        shards.write(lambda name: (folder / name).open("rb"), found, None, folder, lambda size: None)
    files = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert numbers(files) == list(range(first))[:limit]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /datasets/owner/talk/resolve"),
        Fault("GET /datasets/owner/talk/resolve", times=4),
        Fault("GET /datasets/owner/talk/resolve", garbled=True),
        Fault("GET /datasets/owner/talk/resolve", short=True),
        Fault("GET /datasets/owner/talk/resolve", 500),
        Fault("GET /datasets/owner/talk/resolve", 429, headers={"Retry-After": "0"}),
        Fault("HEAD /datasets/owner/talk/resolve", 503),
        Fault("GET /api/datasets/owner/talk/revision", 502),
        Fault("GET /api/datasets/owner/talk/tree", 500),
        Fault("GET /api/datasets/owner/talk/tree"),
        Fault("GET /datasets/owner/talk/resolve", wait=0.3),
    ],
    ids=lambda fault: (
        f"{fault.request.split('/')[-1]} {fault.status or ''} {fault.times} {fault.garbled} {fault.short}"
    ),
)
@pytest.mark.parametrize("limit", [None, 3])
def test_a_fault_that_passes_changes_nothing(server, tmp_path, monkeypatch, fault, limit):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    few = {name: TALK[name] for name in ("talk/people.json", "talk/dialogues/000.json", "talk/dialogues/001.json")}
    server.add(
        "dataset", REPO, few | {"talk/a.jsonl": TALK["talk/a.jsonl"] * 2, "rows/0.parquet": TALK["rows/0.parquet"]}
    )
    hits = Fault(**vars(fault))
    if fault.garbled and limit:
        hits.request += f"/{server.repos['dataset', REPO].commits[-1][0]}/talk/people"  # ranges have no digest
    server.faults = [hits]
    raw = fetch(tmp_path, limit=limit)
    assert server.faults == []
    assert numbers({"a": content(raw / "talk")["talk/a.jsonl"]}) == (list(range(3)) if limit else [*range(50_000)] * 2)
    assert {name: data for name, data in content(raw / "talk").items() if name in few} == few
    assert numbers(content(raw / "rows")) == list(range(limit or 900))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("a.jsonl", 500, times=99), "the Hub at http://127.0.0.1:"),
        (Fault("a.jsonl", 429, times=99), "too many requests (429)"),
        (Fault("a.jsonl", 404, times=99), "(404)"),
        (Fault("GET /datasets/owner/talk/resolve", times=99), "or it was cut"),
        (Fault("a.jsonl", garbled=True, times=99), "talk/a.jsonl: another content (sha256) than on the Hub"),
        (Fault("people.json", garbled=True, times=99), "talk/people.json: another content (git id) than on the Hub"),
        (Fault("a.jsonl", short=True, times=99), "bytes here, 5,738,890 on the Hub"),
    ],
)
def test_a_fault_that_stays_is_one_error_and_leaves_no_data_set(server, tmp_path, monkeypatch, fault, message):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    server.add("dataset", REPO, TALK)
    server.faults = [Fault(**vars(fault))]
    error = refusal(lambda: fetch(tmp_path, "talk"))
    assert message in error and "run uv run tools/download.py mini again" in error
    assert not (tmp_path / "data" / "raw" / "mini").exists()
    server.faults = []
    assert len(content(fetch(tmp_path, "talk") / "talk")) == 11


def test_what_was_left_longer_than_the_file_is_fetched_anew(server, tmp_path):
    """As after an error page that came in the place of a file."""
    from huggingface_hub._local_folder import get_local_download_paths

    commit = server.add("dataset", REPO, TALK)
    (source,) = sources.select(task(tmp_path), ["talk"])
    part = source.part(source.request(None, origin="hub", commit=commit))
    paths = get_local_download_paths(part, "talk/a.jsonl")
    left = paths.incomplete_path(hashlib.sha256(TALK["talk/a.jsonl"]).hexdigest())
    left.write_bytes(b"<html>" * 10**6)
    assert content(fetch(tmp_path, "talk") / "talk")["talk/a.jsonl"] == TALK["talk/a.jsonl"]
    assert any("416" in line or "bytes=6000000-" in line for line in server.requests)


def test_retry_after_is_waited_for(server, tmp_path, monkeypatch, said):
    waits = []
    monkeypatch.setattr(hub_module, "_pause", waits.append)
    server.add("dataset", REPO, TALK)
    busy = {"Retry-After": "37"}, {"RateLimit": '"api";r=0;t=55'}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, {}
    server.faults = [Fault("GET /api/datasets/owner/talk/revision", 429, headers=headers) for headers in busy]
    fetch(tmp_path, "talk", limit=1)
    assert [wait for wait in waits if wait] == [37, 55]
    assert any("too many requests (429); wait a few minutes; again in 37 s" in line for line in said)


def test_fewer_bytes_than_asked_for_are_refused(server):
    commit = server.add("dataset", REPO, TALK)
    file = hub_files.HubFiles(REPO, commit, None).open("talk/a.jsonl")
    file.url = file.url.replace("talk/a.jsonl", "LICENSE")
    with pytest.raises(hub_module.Damaged, match="another range arrived than bytes=0-9"):
        file.read(10)


def test_what_the_data_set_lacks_is_named(server, tmp_path):
    server.add("dataset", REPO, OTHER)
    with pytest.raises(UserError) as caught:
        fetch(tmp_path, talk=SOURCES["talk"] | {"files": ["talk/**", "*.csv", "*.md"]})
    assert [problem.split(", which")[0] for problem in caught.value.problems] == [
        f"{REPO}: holds no talk/**",
        f"{REPO}: holds no *.csv",
    ]
    assert "it holds README.md, data/train/other.jsonl" in caught.value.problems[0]


def test_a_persons_own_files_stay(server, tmp_path):
    server.add("dataset", REPO, TALK)
    raw = fetch(tmp_path, "talk", limit=1)
    own = raw / "talk" / ".notes"
    own.write_text("mine")
    for limit in (None, 1):
        assert "data/raw/mini/talk: holds files" in refusal(lambda limit=limit: fetch(tmp_path, "talk", limit=limit))
    assert own.read_text() == "mine" and not any(path.suffix == ".part" for path in raw.parent.iterdir())


def test_files_that_a_person_puts_there_meanwhile_stay(server, tmp_path, monkeypatch):
    server.add("dataset", REPO, TALK)
    own = tmp_path / "data" / "raw" / "mini" / "talk" / "own.txt"
    gather = sources.gather

    def slowly(*arguments: object) -> None:
        gather(*arguments)
        own.parent.mkdir(parents=True)
        own.write_text("mine")

    monkeypatch.setattr(sources, "gather", slowly)
    assert "holds files that are not as a download left them" in refusal(lambda: fetch(tmp_path, "talk", limit=1))
    assert own.read_text() == "mine"


def test_sources_are_chosen_by_name(tmp_path):
    error = refusal(lambda: sources.select(task(tmp_path), ["rows", "tlak"]))
    assert error == "--source tlak: mini has no such source; it has talk, rows"


def test_a_single_source_has_the_tasks_folder(tmp_path):
    only = sources.select(task(tmp_path, talk=SOURCES["talk"]), [])
    assert [source.target for source in only] == [tmp_path / "data" / "raw" / "mini"]


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("a*.jsonl", "a_b.jsonl", True),
        ("a*.jsonl", "x/y/a_b.jsonl", True),
        ("a*.jsonl", "x/ba.jsonl", False),
        ("x/**", "x/y/z", True),
        ("x/*.json", "w/x/a.json", False),
        ("x/**", "x2/a", False),
    ],
)
def test_globs(tmp_path, glob, path, expected):
    (source,) = sources.select(task(tmp_path, one=SOURCES["talk"] | {"files": [glob]}), [])
    assert source.matches(path) is expected


# -- the command itself


@pytest.fixture
def clone(tmp_path):
    return copy_repository(tmp_path / "clone")


def test_hawks(clone):
    with LocalHub() as hub:
        commit = hub.add("dataset", HAWKS, HAWKS_FILES | OTHER, private=True)
        assert "(401)" in problem(run(clone, "download", hub))
        done = run(clone, "download", hub, "hawks", "--limit", "1", HF_TOKEN=READER)
        assert done.returncode == 0, done.stderr
        raw = clone / "data" / "raw" / "hawks"
        tests = {name: data for name, data in HAWKS_FILES.items() if "/test/" in name}
        assert content(raw) == dict.fromkeys(HAWKS_FILES, ROW) | tests
        done = run(clone, "download", hub, HF_TOKEN=READER)
        assert done.returncode == 0 and "tools/regenerate_segments.py hawks" in done.stderr
        assert content(raw) == HAWKS_FILES and commit in (raw / "SOURCE.json").read_text(encoding="utf-8")


@pytest.mark.fault(number=9)
def test_a_killed_download_goes_on(clone, tmp_path):
    """What was complete is not fetched again, and the end is that of a run that nothing disturbed."""
    sets = {name: spec for name, spec in SOURCES.items() if name == "rows"}
    task(clone, **sets)
    path = clone / "data" / "raw"
    groups = 40
    with LocalHub() as hub:
        hub.add("dataset", REPO, {"rows/0.parquet": parquet(groups * 100, 100)})
        for _ in range(2):
            hub.faults = [Fault("GET /datasets/owner/talk/resolve", wait=0.1, times=999)]
            before = len(list(path.rglob("*.jsonl")))
            with start(clone, "download", hub, "mini") as process:
                while len(list(path.rglob("[!.]*.jsonl"))) < before + 5:
                    assert process.poll() is None, process.stderr.read()
                    time.sleep(0.01)
                process.kill()
        complete = {path.name: path.stat().st_mtime_ns for path in path.rglob("[!.]*.jsonl")}
        assert 10 <= len(complete) < groups and not (path / "mini").exists()
        hub.faults, hub.requests[:] = [], []
        assert run(clone, "download", hub, "mini").returncode == 0
        ranges = [request for request in hub.requests if request.startswith("GET /datasets") and "bytes=" in request]
        assert len(ranges) <= groups - len(complete) + 2  # two for the file's end
        task(other := copy_repository(tmp_path / "other"), **sets)
        assert run(other, "download", hub, "mini").returncode == 0
    assert content(path / "mini") == content(other / "data" / "raw" / "mini")
    after = {path.name: path.stat().st_mtime_ns for path in path.rglob("*.jsonl")}
    assert complete.items() <= after.items()
    assert sorted(file.name for file in path.iterdir()) == [".mini.lock", "mini"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_a_file(clone, how):
    """The bytes that had arrived are not fetched again, and Ctrl-C does not wait for the rest."""
    (name, data), *_ = {"talk/a.jsonl": TALK["talk/a.jsonl"] * 5}.items()
    task(clone, talk=SOURCES["talk"])
    with LocalHub() as hub:
        hub.add("dataset", REPO, {name: data})
        hub.slow = 0.005
        with start(clone, "download", hub, "mini") as process:
            while not [path for path in clone.rglob("*.incomplete") if path.stat().st_size > len(data) / 3]:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(how)
            shown = process.communicate(timeout=60)[1]
        assert process.returncode == (-9 if how == signal.SIGKILL else 130), shown
        assert hub.sent.total() < len(data) * 0.9
        hub.slow = 0
        time.sleep(0.1)
        hub.sent.clear()
        assert run(clone, "download", hub, "mini").returncode == 0
        assert hub.sent.total() < len(data) * 0.8
    assert content(clone / "data" / "raw" / "mini") == {name: data}


@pytest.mark.fault(number=11)
def test_a_full_disk_is_one_line_and_what_is_there_stays(clone):
    raw = clone / "data" / "raw"
    raw.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", raw], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        with LocalHub() as hub:
            task(clone)
            hub.add("dataset", REPO, TALK)
            assert run(clone, "download", hub, "mini", "--limit", "2").returncode == 0
            before = {path: path.read_bytes() for path in (raw / "mini").rglob("*") if path.is_file()}
            hub.add("dataset", REPO, {name: data + b"\n" for name, data in TALK.items() if name.endswith("l")} | {
                "rows/0.parquet": parquet(20_000, 1000)})  # fmt: skip
            done = run(clone, "download", hub, "mini")
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert done.returncode == 2 and len(errors) == 2 and "Traceback" not in done.stderr, done.stderr
        assert all("o space left" in error and "make room" in error for error in errors), errors
        assert {path: path.read_bytes() for path in (raw / "mini").rglob("*") if path.is_file()} == before
    finally:
        subprocess.run(["umount", raw], check=True)


def test_two_at_once(clone):
    """The second waits, and then has nothing left to do."""
    task(clone, rows=SOURCES["rows"])
    with LocalHub() as hub:
        hub.add("dataset", REPO, TALK)
        hub.faults = [Fault("GET /datasets", wait=1)]
        both = [start(clone, "download", hub, "mini") for _ in range(2)]
        shown = sorted(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], shown
    assert "a download of mini is still running elsewhere" in "".join(shown) and "up to date" in "".join(shown)
    assert numbers(content(clone / "data" / "raw" / "mini")) == list(range(1500))


def test_from_an_archive(clone, tmp_path):
    import tarfile

    folder = tmp_path / "somewhere" / "real_persona_chat-main" / "real_persona_chat"
    (folder / "dialogues").mkdir(parents=True)
    (folder / "dialogues" / "00001.json").write_text('{"utterances": []}')
    archive = tmp_path / "somewhere" / "talk.tar.xz"
    with tarfile.open(archive, "w:xz") as out:
        out.add(folder.parent, folder.parent.name)
    done = run(clone, "download", "http://127.0.0.1:9", "bigfive", "--from", str(archive))
    assert done.returncode == 0, done.stderr
    raw = clone / "data" / "raw" / "bigfive"
    assert list(content(raw / "real_persona_chat")) == ["real_persona_chat/dialogues/00001.json"]
    assert [path.name for path in raw.iterdir()] == ["real_persona_chat"]
    record = (raw / "real_persona_chat" / "SOURCE.json").read_text()
    assert json.loads(record)["origin"] == "talk.tar.xz" and "somewhere" not in record


def test_a_large_archive_is_known_by_all_its_bytes(tmp_path, said, monkeypatch):
    monkeypatch.setattr(runs, "LARGE", 2**20)
    archive = tmp_path / "talk.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("talk/a.json", os.urandom(2**20))
    fetching.from_here(sources.select(task(tmp_path), []), archive, None)
    record = json.loads((tmp_path / "data/raw/mini/talk/SOURCE.json").read_text())
    assert record["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_the_local_files_of_a_source_are_what_from_here_takes(tmp_path, said):
    """The folder itself, one that holds it, and another spelling; hidden files stay out."""
    folder = tmp_path / "here" / "talk"
    for name in ("a.json", "deep/b.json", ".git/c.json", "._d.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    wanted = sources.select(task(tmp_path), [])
    expected = {f"talk/{name}": name.encode() for name in ("a.json", "deep/b.json")}
    for place in (folder, folder.parent, tmp_path / "here" / ".." / "here"):
        fetching.from_here(wanted, place, None)
        assert content(tmp_path / "data/raw/mini/talk") == expected
    (folder / "a.json").write_text("new")
    fetching.from_here(wanted, folder, None)
    assert content(tmp_path / "data/raw/mini/talk")["talk/a.json"] == b"new"
    assert "holds no talk/**, *.parquet" in refusal(lambda: fetching.from_here(wanted, folder / "deep", None))
    assert "expected a folder or an archive (.zip, .tar," in refusal(
        lambda: fetching.from_here(wanted, folder / "a.json", None)
    )
    for name in ("x/talk/same.json", "y/talk/same.json"):
        (tmp_path / "twice" / name).parent.mkdir(parents=True)
        (tmp_path / "twice" / name).write_text("{}")
    error = refusal(lambda: fetching.from_here(wanted, tmp_path / "twice", None))
    assert error == "twice: both x/talk/same.json and y/talk/same.json would be talk/same.json; keep one of them"
    assert local_files.is_archive(Path("A.TAR.GZ")) and not local_files.is_archive(Path("a.gz"))

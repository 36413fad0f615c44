"""tools/validate.py: files with everything that can be wrong, and their mended copies."""

import json
import random
import subprocess
import sys
from collections import Counter

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

import validate as tool
from recipekit import ROOT, raw, rowcheck, segments, validation
from recipekit.errors import UserError
from recipekit.findings import KINDS
from recipekit.task import load_task
from rows import Characters, row

MENDED = {"encoding", "bom", "crlf", "cr", "blank", "control", "twice"}
LIMIT = validation.Limit("base", None, 200, "phase1")


@pytest.fixture
def task(mini, monkeypatch):
    monkeypatch.setattr(rowcheck, "load_tokenizer", lambda *_: Characters())
    return load_task("mini", mini)


def sample(number, body="", *names):
    return {
        "id": f"A{number}",
        "body": body or f"花火大会{number}。",
        "label": {"persons": [{"name": n} for n in names]},
    }


def line(value):
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def check(task, path, copy=None, measure=LIMIT):
    """Validate a file; returns the report and the findings."""
    found = []
    report = validation.validate(task, path, measure, lambda _, finding: found.append(finding), lambda _: None, copy)
    return report, found


def mend(task, path, drop=False):
    copy = validation.Copy(path.with_suffix(".fixed.jsonl"), path.with_suffix(".fixes.jsonl"), drop)
    report, _ = check(task, path, copy)
    fixes = [json.loads(text) for text in copy.fixes.read_text(encoding="utf-8").splitlines()]
    return copy.path, fixes, report


def places(found):
    return [(finding.line, finding.kind, finding.path) for finding in found]


def spoiled(task, change):
    made = row(task, "山田容疑者を逮捕。", "山田")
    change(made["segments"])
    return made


@pytest.mark.parametrize(
    ("wrong", "places_of_it"),
    [
        ({"id": "x", "label": {"persons": []}}, [("row", "body")]),
        ({"id": "x", "body": " \u3000", "label": {"persons": []}}, [("row", "body")]),
        ({"id": "x", "body": "配信 共同\n", "label": {"persons": []}}, [("row", "body")]),
        ({"id": "x", "body": "a", "label": None}, [("row", "label")]),
        ({"id": "x", "body": "a"}, [("row", "")]),
        ({"id": "x", "body": "a", "label": {"persons": [{}]}}, [("schema", "label.persons[0]")]),
        (sample(9, "a", "a", 3), [("schema", "label.persons[1].name")]),
        (sample(9, "山田容疑者を逮捕。", "山田", "海野"), [("verbatim", "label.persons[1].name")]),
        (sample(9, "配信 海野\n山田容疑者", "海野"), [("verbatim", "label.persons[0].name")]),  # nobody reads that line
        (sample(9, "ﾔﾏﾀﾞ 容疑者", "ヤマダ", " "), []),
        (sample(9, "長" * 200), [("long", "")]),
        ({"segments": []}, [("shape", "segments")]),
        ({"segments": [{"label": False, "text": "a"}, {"label": 1, "text": "a"}]}, [("shape", "segments[1].label")]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_named_with_its_place(task, tmp_path, wrong, places_of_it):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(sample(1)) + line(wrong) + line(sample(2)))
    assert places(check(task, path)[1]) == [(2, *place) for place in places_of_it]


@pytest.mark.parametrize(
    ("change", "kind", "path"),
    [
        (lambda s: s[0].update(label=True), "mask", "segments"),
        (lambda s: s[2].update(label=False), "untrained", "segments"),
        (lambda s: s[0].update(text="<s>別"), "prompt", "segments[0].text"),
        (lambda s: s[2].update(text='{"persons": []}'), "eos", "segments[2].text"),
        (lambda s: s[2].update(text='{"persons": ['), "answer", "segments[2].text"),
        (lambda s: s[2].update(text='{"persons": [{}]}</s>'), "schema", "label.persons[0]"),
        (lambda s: s[2].update(text='{"persons": [{"name": "海野"}]}</s>'), "verbatim", "label.persons[0].name"),
        (lambda s: s[1].update(text="【記事】\n" + "山田" * 200 + "\n"), "long", ""),
        (lambda s: s[1].update(text=""), "shape", "segments[1].text"),
    ],
)
def test_what_is_wrong_with_segments_is_named_with_its_place(task, tmp_path, change, kind, path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(line(sample(1)) + line(spoiled(task, change)))
    report, found = check(task, file)
    assert (2, kind, path) in places(found) and report.rows == {"raw": 1, "segments": 1}


def test_rows_in_order_have_no_findings_and_are_measured(task, tmp_path, mini):
    from tiny import tiny_tokenizer  # takes seconds to import

    tokenizer = tiny_tokenizer(tmp_path / "base", sentencepiece=True)
    tokenizer.backend_tokenizer.enable_truncation(5)
    rowcheck.load_tokenizer = lambda *_: tokenizer  # which the fixture puts back
    path = mini / "data" / "samples" / "mini" / "pos.jsonl"
    report, found = check(task, path, measure=validation.Limit("base", None, 999, "phase1"))
    made = [segments.build(task, r["body"], r["label"]) for r in map(json.loads, path.open(encoding="utf-8"))]
    assert found == [] and report.lengths == Counter(len(segments.encode_row(tokenizer, r)[0]) for r in made)
    path.with_name("s.jsonl").write_bytes(b"".join(map(line, made)))
    assert check(task, path.with_name("s.jsonl"), measure=LIMIT)[0].lengths == report.lengths


def test_percentiles_are_of_the_nearest_rank():
    lengths = Counter(range(1, 201))
    expected = {"min": 1, "median": 100, "p90": 180, "p95": 190, "p99": 198, "max": 200}
    assert validation.percentiles(lengths) == expected and validation.percentiles(Counter()) == {}
    assert set(validation.percentiles(Counter([7])).values()) == {7}


def test_repeats_are_found_across_raw_rows_and_segments(task, tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        sample(1, "山田", "山田"), sample(1, "山田", "山田"), row(task, "山田", "山田"), row(task, "山田", "山田"),
        sample(2, "海野"), sample(3, "海野\n", "海野"), {**sample(4), "id": "A3"},
    ]  # fmt: skip
    path.write_bytes(b"".join(map(line, rows)))
    expected = [(2, "twice"), (3, "again"), (4, "twice"), (5, "conflict"), (6, "conflict"), (7, "id")]
    assert [(finding.line, finding.kind) for finding in check(task, path)[1]] == expected


def test_law_and_choices_are_not_looked_for_in_the_article(mini):
    text = (mini / "recipes/mini/task.yml").read_text(encoding="utf-8")
    text = text.replace(
        "name: {type: string}}", "name: {type: string}, act: {type: string}, kind: {enum: [重い, 軽い]}}"
    )
    text += '    act: {path: "persons[].act", compare: law}\n    kind: {path: "persons[].kind", compare: text}\n'
    (mini / "recipes/mini/task.yml").write_text(text, encoding="utf-8")
    label = {"persons": [{"name": "海野", "act": "窃盗", "kind": "重い"}]}
    value = {"body": "山田", "label": label}
    path = mini / "a.jsonl"
    path.write_bytes(line(value))
    assert places(check(load_task("mini", mini), path, measure=None)[1]) == [(1, "verbatim", "label.persons[0].name")]
    text = text.replace("compare: law}", "compare: law, verbatim: true}").replace(
        "compare: person_name}", "compare: person_name, verbatim: false}"
    )
    (mini / "recipes/mini/task.yml").write_text(text, encoding="utf-8")
    assert places(check(load_task("mini", mini), path, measure=None)[1]) == [(1, "verbatim", "label.persons[0].act")]


def test_rows_of_another_shape_are_read_as_task_yml_says(mini):
    path = mini / "recipes/mini/task.yml"
    text = path.read_text(encoding="utf-8").replace(
        "data:\n", "data:\n  rows: {id: number, body: text, label: answer}\n"
    )
    path.write_text(text, encoding="utf-8")
    file = mini / "a.jsonl"
    wrong = {"number": 1, "text": "b", "answer": {"persons": [{}]}}
    file.write_bytes(line({"number": 1, "text": "a", "answer": {"persons": []}}) + line(wrong))
    found = check(load_task("mini", mini), file, measure=None)[1]
    assert places(found) == [(2, "schema", "label.persons[0]"), (2, "id", "id")]


def messy(seed, task):
    """Make a file's lines with everything that can be wrong."""
    rng = random.Random(seed)
    lines = []
    for _ in range(rng.randint(1, 40)):
        body = f"北浜市の会社員{rng.randint(1, 9)}人が盗みの疑いで捕まったと、警察は発表した。"
        value = sample(rng.randint(1, 30), rng.choice([body, body + "\0", "\ufeff" + body, body + "\r\n終わり"]))
        value = rng.choice([value, value, row(task, body), {**value, "label": {"persons": [{}]}}])
        if "segments" in value and rng.random() < 0.5:
            value["segments"][-1]["text"] = rng.choice(['{"persons": []}', '{"persons": [', '{"persons": []}</s>\n'])
        text = json.dumps(value, ensure_ascii=False)
        text = rng.choice([text, text, text, text[:-1], text.replace("、", "\x07"), "", " ", "\x00"])
        data = text.encode(rng.choice(["utf-8", "utf-8", "cp932", "euc_jp"]), errors="ignore")
        data = rng.choice([data, data, data, b"\xef\xbb\xbf" + data, data.replace(b"\xe5", b"", 1)])
        lines.append(data + rng.choice([b"\n", b"\n", b"\r\n", b"\r"]))
        if rng.random() < 0.2:
            lines.append(lines[-1])
    return b"".join(lines)


@given(seed=st.integers(0, 10**9), drop=st.booleans())
@settings(max_examples=150)
def test_a_mended_copy_is_clean_and_mending_it_changes_nothing(task, tmp_path, seed, drop):
    path = tmp_path / "a.jsonl"
    content = messy(seed, task)
    path.write_bytes(content)
    _, before = check(task, path)
    copy, fixes, report = mend(task, path, drop)
    assert path.read_bytes() == content
    if not copy.stat().st_size:
        return
    after, found = check(task, copy)
    assert not {finding.kind for finding in found} & MENDED and not [f for f in found if f.after is not None]
    assert report.left == after.tally.errors
    assert not drop or after.tally.errors == 0
    again, more, _ = mend(task, copy, drop)
    assert again.read_bytes() == copy.read_bytes() and more == []
    out = {fix["line"] for fix in fixes if fix["left_out"]}
    lines = len(content.splitlines())
    assert (report.left_out, report.written) == (len(out), lines - len(out))
    assert len(copy.read_bytes().splitlines()) == report.written
    listed = {(f.line, f.kind, f.path) for f in before if f.after is not None and f.kind != "twice"}
    assert listed <= {(fix["line"], fix["kind"], fix["path"]) for fix in fixes}


def test_without_drop_what_cannot_be_mended_stays(task, tmp_path):
    path = tmp_path / "a.jsonl"
    broken, conflict = b'{"id": "x",\n', line(sample(2, "花火大会1。", "花火"))
    path.write_bytes(line(sample(1)) + broken + conflict + line(sample(1)) + b"\n")
    copy, fixes, _ = mend(task, path)
    assert copy.read_bytes() == line(sample(1)) + broken + conflict
    assert [(fix["line"], fix["kind"]) for fix in fixes] == [(5, "blank"), (4, "twice")]
    copy, fixes, _ = mend(task, path, drop=True)
    assert copy.read_bytes() == b"" and {fix["line"] for fix in fixes} == {1, 2, 3, 4, 5}


def test_a_row_that_is_left_out_takes_no_other_with_it(task, tmp_path):
    old, new = row(task, "山田", "山田"), row(task, "山田", "山田")
    old["segments"][0]["text"] = "<s>昔の指示"
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(old) + line(new))
    assert mend(task, path, drop=True)[0].read_bytes() == line(new)


def test_a_utf16_file_is_checked_and_mended(task, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes((line(sample(1)) + line(sample(1)) + line(sample(2))).decode().encode("utf-16"))
    assert [(f.line, f.kind) for f in check(task, path)[1]] == [(1, "encoding"), (2, "twice")]
    assert mend(task, path)[0].read_bytes() == line(sample(1)) + line(sample(2))


def test_chunks_on_every_core_find_what_one_finds(task, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(messy(seed, task) for seed in range(12)))
    whole, found = check(task, path)
    copy, fixes, _ = mend(task, path)
    expected = copy.read_bytes(), fixes
    monkeypatch.setattr(raw, "CHUNK", 3000)
    monkeypatch.setattr(raw, "workers", lambda: 3)
    parts, again = check(task, path)
    assert path.stat().st_size > 5 * raw.CHUNK
    assert sorted(again) == sorted(found) and len(found) > 100
    assert (parts.rows, parts.lengths) == (whole.rows, whole.lengths)
    copy, fixes, _ = mend(task, path)
    assert (copy.read_bytes(), fixes) == expected


@pytest.fixture
def command(task, monkeypatch, capfd):
    """Run the command; returns its exit code and screen."""
    monkeypatch.setattr(tool, "load_task", lambda _: task)

    def run(*files, tokens=False, **options):
        try:
            tool.command(list(files), "mini", tokens=tokens, **options)
            code = 0
        except typer.Exit as leaving:
            code = leaving.exit_code
        return code, capfd.readouterr().err

    return run


def test_the_screen_is_short_and_the_json_complete(command, tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_bytes(line(sample(1)))
    bad.write_bytes(b"".join(line({"id": n, "body": f"{n}"}) for n in range(50)) + line(sample(3, "a", "b")))
    code, screen = command(good, bad, json=tmp_path / "out.json")
    assert code == 1 and len(screen.splitlines()) == 6
    assert "50  1, 2, 3 ..." in screen and "validate: 50 error(s)" in screen
    said = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(f["file"], f["line"], f["severity"], f["kind"]) for f in said["findings"]] == [
        *((str(bad), n, "error", "row") for n in range(1, 51)), (str(bad), 51, "warning", "verbatim"),
    ]  # fmt: skip
    assert [file["errors"] for file in said["files"]] == [0, 50] and said["files"][1]["kinds"] == {
        "row": 50,
        "verbatim": 1,
    }
    code, screen = command(bad, every=True)
    assert f"{bad}:50: error: " in screen and f"{bad}:51: warning: label.persons[0].name: 'b' does not stand" in screen


def test_warnings_alone_are_no_failure(command, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(sample(3, "a", "b")))
    code, screen = command(path, json=tmp_path / "out.json")
    assert code == 0 and "warning" in screen and "validate: no errors" in screen
    path.write_bytes(line(sample(3)))
    assert command(path, json=tmp_path / "out.json")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())["findings"] == []


def test_fix_fails_only_for_what_is_left(command, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(sample(1)) + b"\n" + line(sample(1)))
    assert command(path)[0] == 1
    assert command(path, fix=True)[0] == 0
    path.write_bytes(line(sample(1)) + b"\n[]\n")
    code, screen = command(path, fix=True)
    assert code == 1 and "1 error(s) left" in screen
    code, screen = command(path, fix=True, drop=True, output=tmp_path / "new")
    assert code == 0 and (tmp_path / "new" / "a.jsonl").read_bytes() == line(sample(1))
    assert "1 rows; 0 things mended, 2 lines left out" in screen


def test_mistakes_on_the_command_line_come_all_at_once(command, tmp_path):
    for name in ("a.jsonl", "a.fixed.jsonl", "b.csv"):
        (tmp_path / name).write_bytes(line(sample(1)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    a, fixed = tmp_path / "a.jsonl", tmp_path / "a.fixed.jsonl"
    with pytest.raises(UserError) as error:
        command(a, fixed, tmp_path / "b.csv", tmp_path / "none.jsonl", fix=True, json=a)
    for words in (f"--json {a}", f"{fixed}: stands there", "b.csv: expected a JSONL file", "none.jsonl: no such file"):
        assert any(words in problem for problem in error.value.problems), words
    with pytest.raises(UserError, match="stands there as a file"):
        command(a, fix=True, output=tmp_path)
    with pytest.raises(UserError, match="--drop: only with --fix"):
        command(a, drop=True)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.jsonl: the file is empty"):
        command(tmp_path / "empty.jsonl")
    (tmp_path / "empty.jsonl").unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def program(*arguments, before=""):
    command = f"{before}exec {sys.executable} {ROOT}/tools/validate.py {' '.join(map(str, arguments))}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True)


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.jsonl"
    empty = {"persons": [], "occured_locations": [], "police_departments": []}
    path.write_bytes(b"".join(line({"id": n, "body": f"記事{n}", "label": empty}) for n in range(900)))
    run = program(path, "--task hawks --no-tokens --fix", before="ulimit -f 20; ")
    assert run.returncode == 2 and "Traceback" not in run.stderr, run.stderr
    assert run.stderr.count("error: ") == 1 and "File too large" in run.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_the_bundled_data_have_no_errors(tmp_path):
    files = [ROOT / "data" / "samples" / "hawks" / f"{name}.jsonl" for name in ("hawks_train", "hawks_val")]
    run = program(*files, "--task hawks --profile cpu --json", tmp_path / "out.json")
    assert run.returncode == 0, run.stderr
    said = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert said["findings"] == [] and said["sequence_len"] == 1536
    assert [file["rows"] for file in said["files"]] == [{"raw": 2000}, {"raw": 300}]
    task = load_task("hawks")
    tokenizer = rowcheck.load_tokenizer(ROOT, "data/samples/base")
    rows = [segments.build(task, r["body"], r["label"]) for r in map(json.loads, files[1].open(encoding="utf-8"))]
    assert said["files"][1]["tokens"]["max"] == max(len(segments.encode_row(tokenizer, r)[0]) for r in rows)


def test_every_kind_is_an_error_or_a_warning():
    assert {kind.severity for kind in KINDS.values()} == {"error", "warning"}

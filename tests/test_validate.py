"""tools/validate.py: everything that can be wrong with a file."""

import json
import subprocess
import sys
from collections import Counter

import pytest
import typer

import validate as tool
from checking import edit
from recipekit import ROOT, rowcheck, segments, validation
from recipekit.errors import UserError
from recipekit.findings import KINDS
from recipekit.task import load_task
from rows import row
from validating import LIMIT, check, line, mend, places, sample


@pytest.fixture
def task(counted_task):
    return counted_task


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
        ({"id": "x", "body": "a"}, [("row", "label")]),
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
    assert validation.percentiles(Counter(range(1, 8)))["median"] == 4


def test_a_row_may_have_as_many_tokens_as_sequence_len_and_no_more(task, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(sample(1)) + line({"id": "x", "body": "長" * 300, "label": None}))
    [(length, rows)] = check(task, path)[0].lengths.items()  # what has no label is not measured
    limits = [validation.Limit("base", None, tokens, "phase1") for tokens in (length, length - 1)]
    assert [places(check(task, path, measure=limit)[1]) for limit in limits] == [
        [(2, "row", "label")], [(2, "row", "label"), (1, "long", "")]
    ]  # fmt: skip


def test_the_least_sequence_len_of_the_phases_counts(sound_task):
    edit(sound_task, "phase2", sequence_len=150)
    assert validation.limit(sound_task, "cpu") == validation.Limit("data/samples/base", None, 150, "phase2")
    edit(sound_task, "phase2", output_dir="elsewhere")
    with pytest.raises(UserError, match="phase2.yml:.*output_dir"):
        validation.limit(sound_task, "cpu")


def test_labels_are_the_same_in_any_order_of_keys(task, tmp_path):
    path = tmp_path / "a.jsonl"
    people = {"name": "山田", "age": "3"}, {"age": "3", "name": "山田"}
    path.write_bytes(b"".join(line({"id": "A", "body": "山田", "label": {"persons": [each]}}) for each in people))
    assert [(finding.line, finding.kind) for finding in check(task, path)[1]] == [(2, "twice")]


def test_a_data_set_of_task_yml_is_read_as_it_says_there(mini):
    path = mini / "recipes/mini/task.yml"
    spec = "pos: {rows: {body: text}}"
    path.write_text(path.read_text(encoding="utf-8").replace("pos: {}", spec), encoding="utf-8")
    file = mini / "data/samples/mini/pos.jsonl"
    file.write_bytes(line({"text": "a", "label": {"persons": []}}))
    assert check(load_task("mini", mini), file, measure=None)[1] == []


def test_copies_of_a_data_set_are_read_as_the_data_set(task, mini, tmp_path):
    path = mini / "recipes/mini/task.yml"
    spec = "pos: {rows: {body: text}}"
    path.write_text(path.read_text(encoding="utf-8").replace("pos: {}", spec), encoding="utf-8")
    task = load_task("mini", mini)
    rows = line({"text": "a", "label": {"persons": []}}) + b"\n"
    (mini / "data/samples/mini/pos.jsonl").write_bytes(rows)
    copy, _, report = mend(task, mini / "data/samples/mini/pos.jsonl")
    assert copy.name == "pos.fixed.jsonl" and report.left == 0 and check(task, copy, measure=None)[1] == []
    copy, _, report = mend(task, copy)
    assert copy.name == "pos.fixed.fixed.jsonl" and report.left == 0 and check(task, copy, measure=None)[1] == []
    (tmp_path / "new").mkdir()
    for name, errors in (("pos.jsonl", 0), ("neg.jsonl", 1), ("pos.fixedly.jsonl", 1)):
        (tmp_path / "new" / name).write_bytes(rows.strip() + b"\n")
        assert len(check(task, tmp_path / "new" / name, measure=None)[1]) == errors, name
    raw_file = mini / "data/samples/mini/pos.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("{rows: {body", "{file: a.fixed.jsonl, rows: {body"))
    (own := raw_file.rename(raw_file.with_name("a.fixed.jsonl"))).write_bytes(rows.strip() + b"\n")
    assert check(load_task("mini", mini), own, measure=None)[1] == [], "its own name may end so"


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
    for words in (
        f"--json {a}",
        f"{fixed}: stands there",
        "b.csv: expected a name that ends in .jsonl",
        "none.jsonl: no such file",
    ):
        assert any(words in problem for problem in error.value.problems), words
    for name in ("b.tsv", "b.xlsx", "b.JSON", "b"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError, match=f"{name}: expected a name that ends in .jsonl"):
            command(tmp_path / name)
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="stands there as a file"):
        command(a, fix=True, output=tmp_path)
    fixed.rename(tmp_path / "new.jsonl")
    for written in (fixed, tmp_path / "a.fixes.jsonl"):
        with pytest.raises(UserError, match=f"--json {written}: is a file to check, or one that --fix writes"):
            command(a, fix=True, json=written)
        assert not written.exists()
    (tmp_path / "new.jsonl").rename(fixed)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jsonl").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"new/a\.jsonl: stands there"):
        command(a, tmp_path / "other" / "a.jsonl", fix=True, output=tmp_path / "new")
    with pytest.raises(UserError, match="--drop: only with --fix"):
        command(a, drop=True)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.jsonl: the file is empty"):
        command(tmp_path / "empty.jsonl")
    for codec in ("utf-16", "utf-32"):
        (tmp_path / "empty.jsonl").write_bytes("".encode(codec))
        with pytest.raises(UserError, match=rf"{tmp_path}/empty\.jsonl: the file is empty but for its byte"):
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
    assert [file["rows"] for file in said["files"]] == [{"raw": 6000}, {"raw": 300}]
    task = load_task("hawks")
    tokenizer = rowcheck.load_tokenizer(ROOT, "data/samples/base")
    rows = [segments.build(task, r["body"], r["label"]) for r in map(json.loads, files[1].open(encoding="utf-8"))]
    assert said["files"][1]["tokens"]["max"] == max(len(segments.encode_row(tokenizer, r)[0]) for r in rows)


def test_every_kind_is_an_error_or_a_warning():
    assert {kind.severity for kind in KINDS.values()} == {"error", "warning"}

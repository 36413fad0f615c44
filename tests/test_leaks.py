"""What the splits of a task share: found, told and dropped."""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaks import THRESHOLD, examine
from recipekit import ROOT, leak_report, rawfiles
from recipekit.corpus import name_finders
from recipekit.errors import UserError
from recipekit.extract import Extractor
from recipekit.task import load_task

FRAME = "北浜市中央一丁目の倉庫で{}日夜、荷物を積んだ台車が倒れ、通りかかった人が足に軽いけがをした。{}"
TRAIN, VAL, NEG, TEST = ("data/samples/mini/" + name for name in ("pos.jsonl", "val.jsonl", "neg.jsonl", "eval.jsonl"))


def article(number: int) -> str:
    """An invented text that shares nothing with that of another number."""
    rng = random.Random(number)
    return "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(120))


def edited(text: str, *places: int) -> str:
    return "".join("々" if place in places else character for place, character in enumerate(text))


class Data:
    """The mini task with raw rows of one's own; a row is (body, names, other keys)."""

    def __init__(self, root: Path) -> None:
        self.root, self.raw = root, root / "data" / "samples" / "mini"
        self.spec = root / "recipes" / "mini" / "task.yml"
        self.replace("    neg: {}\n", "    val: {role: validation}\n    neg: {}\n")
        self.put(pos=[(article(1),)], neg=[(article(2),)], val=[(article(3),)], eval=[(article(4),)])

    def replace(self, old: str, new: str) -> None:
        text = self.spec.read_text(encoding="utf-8")
        assert old in text
        self.spec.write_text(text.replace(old, new), encoding="utf-8")

    def leaks(self, **options) -> None:
        self.replace("data:\n", f"data:\n  leaks: {json.dumps(options)}\n")

    def put(self, **sets) -> None:
        for name, rows in sets.items():
            lines, gold = [], [["id", "person_name"]]
            for number, (body, *rest) in enumerate(rows):
                names, keys = rest[0] if rest else [], rest[1] if len(rest) > 1 else {}
                row = {"id": f"{name}{number}", "body": body, "label": {"persons": [{"name": n} for n in names]}} | keys
                gold.append([row["id"], "|".join(names)])
                lines.append(json.dumps(row if name != "eval" else row | {"label": None}, ensure_ascii=False) + "\n")
            (self.raw / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
            if name == "eval":
                with (self.raw / "gold.csv").open("w", encoding="utf-8", newline="") as stream:
                    csv.writer(stream).writerows(gold)

    def task(self):
        return load_task("mini", self.root)

    def run(self, *, drop=False, threshold=THRESHOLD, source=None):
        report = examine(self.task(), source or self.raw, threshold, drop)
        self.list = (self.out / "leaks.txt").read_text(encoding="utf-8").replace(f"{self.root}/", "")
        return report

    @property
    def out(self) -> Path:
        return self.root / "outputs" / "mini" / "leaks"

    @property
    def clean(self) -> Path:
        return self.out / "clean"

    def dropped(self) -> set[tuple[str, int]]:
        rows = map(json.loads, (self.out / "dropped.jsonl").read_text(encoding="utf-8").splitlines())
        return {(Path(row["file"]).name, row["line"]) for row in rows}


@pytest.fixture
def data(mini):
    return Data(mini)


def shared(report, left="train", right="test"):
    """Kind -> rows that leak and rows that they leak into, without zeros."""
    entries = [e for e in report["between"] if e["splits"] == [left, right] and e["rows"]]
    return {entry["kind"]: (entry["rows"], entry["of"]) for entry in entries}


def test_splits_that_share_nothing(data):
    report = data.run()
    assert report["leaks"] == 0 and not any(entry["rows"] for entry in report["between"])
    assert report["rows"] == {"train": 2, "validation": 1, "test": 1} and report["worst"] == [] and data.list == ""
    kinds = ["exact", "normalised", "near", "person", "id"]
    assert [e["kind"] for e in report["between"] if e["splits"] == ["train", "test"]] == kinds


def test_each_row_counts_under_the_strictest_kind_and_is_listed_with_both_places(data):
    text = FRAME.format(12, "けが人は２人。")
    test = [(article(9),), (text,)]
    train = [("配信 共同\n" + text,), (text.replace("、", " ,\u3000").replace("２", "2"),), (text.replace("12", "13"),)]
    data.put(pos=train, eval=test)
    report = data.run()
    assert shared(report) == {"exact": (1, 1), "normalised": (1, 1), "near": (1, 1)} and report["leaks"] == 3
    assert f"train -> test, exact: 1 pairs\n\n1.00  {TRAIN}:1  {TEST}:2\n    北浜市中央一丁目" in data.list
    assert f"1.00  {TRAIN}:2  {TEST}:2\n" in data.list
    alike = re.search(f"(0\\.\\d\\d)  {TRAIN}:3  {TEST}:2\n", data.list)
    assert alike and 0.8 <= float(alike[1]) < 1
    assert (
        "    中央一丁目の倉庫で1[3]日夜、荷物を積んだ台\n    中央一丁目の倉庫で1[2]日夜、荷物を積んだ台\n" in data.list
    )


def test_another_age_is_near_and_not_equal(data):
    text = article(5) + "容疑者({})"
    data.put(pos=[(text.format(45),)], eval=[(text.format("４６"),)])
    assert list(shared(data.run())) == ["near"]


def test_the_threshold_is_kept_to_the_letter(data):
    # 120 characters, 116 5-grams; a changed character in the middle takes five: 111 / 121 = 0.917
    data.put(pos=[(edited(article(4), 60),)], eval=[(article(4),)])
    assert list(shared(data.run(threshold=0.917))) == ["near"]
    assert shared(data.run(threshold=0.918)) == {}


def test_pairs_are_no_more_than_rows(data):
    same, near = article(5), edited(article(5), 70)
    data.put(pos=[(same,)] * 30 + [(near,)] * 20, eval=[(same,)] * 10 + [(edited(article(5), 10),)] * 5)
    report = data.run()
    assert shared(report)["exact"] == (30, 10)
    assert shared(report)["near"] == (20, 6) and report["leaks"] == 50
    pairs = re.findall(r"-> test, \w+: (\d+) pairs", data.list)
    assert sum(map(int, pairs)) <= 65


def test_the_most_alike_comes_first(data):
    data.put(pos=[(edited(article(5), 20, 60),), (edited(article(5), 60),)], eval=[(article(5),)])
    [worst] = data.run()["worst"]
    assert worst["rows"] == [str(data.root / TRAIN) + ":2", str(data.root / TEST) + ":1"]
    assert data.list.index(f"0.92  {TRAIN}:2") < data.list.index(f"0.84  {TRAIN}:1")


def test_no_pair_is_below_the_threshold(data):
    data.put(pos=[(article(5),), (edited(article(5), 20, 60, 100),)])  # 101 of 131 5-grams: 0.77
    assert [e["repeated"] for e in data.run()["within"] if e["split"] == "train"] == [0, 0, 0]
    assert [e["repeated"] for e in data.run(threshold=0.77)["within"] if e["split"] == "train"] == [0, 0, 1]


def test_repeats_within_a_split_are_told_and_no_leak(data):
    text = article(5)
    train = [(text,), (text,), (text + "。",), (edited(text, 60),), (edited(text, 60, 61),), (article(6),)]
    data.put(pos=train)
    report = data.run()
    within = {e["kind"]: (e["repeated"], e["groups"], e["largest"]) for e in report["within"] if e["split"] == "train"}
    assert within == {"exact": (1, 1, 2), "normalised": (1, 1, 2), "near": (2, 1, 3)}
    assert report["leaks"] == 0 and f"within train, exact: 1 pairs\n\n1.00  {TRAIN}:1  {TRAIN}:2" in data.list


def test_persons_of_the_gold_file_in_labels(data):
    train = [(article(5), ["甲野 一郎"]), (article(6), ["乙山花子", "丙田次郎"]), (article(7), ["甲"])]
    data.put(pos=train, eval=[(article(8), ["丁川三郎", "甲野一郎容疑者"]), (article(9), ["甲"])])
    report = data.run()
    assert shared(report) == {"person": (1, 1)}
    assert f"{TRAIN}:1  {TEST}:1\n    甲野 一郎\n" in data.list


def test_persons_that_are_no_offenders_count_and_evaluation_still_leaves_them_out():
    task = load_task("hawks")
    person = {"name": "甲野一郎", "is_real": True, "is_offender": True}
    label = {"persons": [person, {"name": "乙山花子", "is_real": True, "is_offender": False}], "occured_locations": []}
    [find] = name_finders(task)
    assert find(label) == ["甲野一郎", "乙山花子"] and find({"persons": []}) == find(None) == []
    assert [p["person_name"] for p in Extractor(task).values(label)[0]["person"]] == ["甲野一郎"]


def test_groups_of_one_or_several_values(data):
    data.leaks(group="speaker")
    train = [(article(5), [], {"speaker": ["AA", "BB"]}), (article(6), [], {"speaker": "CC"})]
    others = {"val": [(article(7), [], {"speaker": 3})], "neg": [(article(8), [], {"speaker": "x"})]}
    data.put(pos=train, **others, eval=[(article(9), [], {"speaker": ["BB", "3"]})])
    report = data.run()
    assert shared(report) == {"group": (1, 1)} and shared(report, "validation") == {"group": (1, 1)}
    assert f"{TRAIN}:1  {TEST}:1\n    BB\n" in data.list
    data.put(pos=[(article(5),), (article(6), [], {"speaker": ""})])
    with pytest.raises(UserError) as caught:
        data.run()
    assert [re.sub(".*/", "", problem) for problem in caught.value.problems] == [
        f"pos.jsonl:{line}: key 'speaker': not there, and data.leaks.group names it; add it" for line in (1, 2)
    ]


def test_ids_of_the_test_set_in_training(data):
    data.put(pos=[(article(5),), (article(6), [], {"id": "eval0"})], val=[(article(7), [], {"id": "pos0"})])
    report = data.run()
    assert shared(report) == {"id": (1, 1)} and shared(report, "train", "validation") == {"id": (1, 1)}
    assert report["leaks"] == 1, "validation in training is no leak into the test set"
    data.leaks(ignore=["id"])
    report = data.run(drop=True)
    assert shared(report) == {"id": (1, 1)} and report["leaks"] == 0 and data.dropped() == set()


def test_mixes_of_other_sets_are_not_read(data):
    (data.raw / "mix.jsonl").write_bytes((data.raw / "eval.jsonl").read_bytes())
    assert data.run()["leaks"] == 0


texts = st.builds(
    lambda number, places, wide: edited(article(number), *places).replace("々", "々。" if wide else "々"),
    st.integers(0, 12),
    st.sampled_from([(), (60,), tuple(range(5, 120, 10))]),  # 0.92 alike or not at all: nothing that LSH may miss
    st.booleans(),
)
rows = st.lists(
    st.tuples(texts, st.lists(st.sampled_from(["甲野一郎", "乙山花子", "丙田次郎"]), max_size=1)),
    min_size=1,
    max_size=5,
)


def plain_alike(a: str, b: str) -> float:
    left, right = (
        {text[i : i + 5] for i in range(len(text) - 4)} for text in (a.replace("。", ""), b.replace("。", ""))
    )
    return len(left & right) / len(left | right)


@settings(max_examples=60)
@given(pos=rows, neg=rows, val=rows, test=rows)
def test_beside_brute_force_and_what_is_left_after_a_drop_leaks_nothing(tmp_path_factory, pos, neg, val, test):
    data = Data(copy_of_mini(tmp_path_factory.mktemp("mini")))
    data.put(pos=pos, neg=neg, val=val, eval=test)
    before = {path.name: path.read_bytes() for path in data.raw.iterdir()}

    def leaks(row, others):
        return any(plain_alike(row[0], other[0]) >= THRESHOLD or set(row[1]) & set(other[1]) for other in others)

    expected = {("pos.jsonl", n) for n, row in enumerate(pos, 1) if leaks(row, val + test)}
    expected |= {("neg.jsonl", n) for n, row in enumerate(neg, 1) if leaks(row, val + test)}
    expected |= {("val.jsonl", n) for n, row in enumerate(val, 1) if leaks(row, test)}
    sizes = {"pos.jsonl": len(pos), "neg.jsonl": len(neg), "val.jsonl": len(val)}
    if any(sum(name == own for own, _ in expected) == size for name, size in sizes.items()):
        with pytest.raises(UserError, match="none would be left"):
            data.run(drop=True)
        return
    report = data.run(drop=True)
    assert data.dropped() == expected and sum(report["dropped"].values()) == len(expected)
    assert report["leaks"] == sum(leaks(row, test) for row in pos + neg + val)
    assert {path.name: path.read_bytes() for path in data.raw.iterdir()} == before
    for name, content in before.items():
        lines = content.splitlines(keepends=True)
        kept = [line for number, line in enumerate(lines, 1) if (name, number) not in expected]
        assert (data.clean / name).read_bytes() == b"".join(kept)
    again = data.run(source=data.clean)
    assert not any(entry["rows"] for entry in again["between"])


def copy_of_mini(root: Path) -> Path:
    from conftest import SPEC

    recipe, samples = root / "recipes" / "mini", root / "data" / "samples" / "mini"
    recipe.mkdir(parents=True)
    samples.mkdir(parents=True)
    (root / "recipes" / "task.schema.json").write_bytes((ROOT / "recipes" / "task.schema.json").read_bytes())
    (recipe / "task.yml").write_text(SPEC, encoding="utf-8")
    for name in ("system.txt", "phase1.yml", "phase2.yml"):
        (recipe / name).write_text("base_model: none\n", encoding="utf-8")
    (recipe / "article.txt").write_text("{{ body }}\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("kind", ["csv", "json", "bom"])
def test_other_raw_files_lose_rows_and_nothing_else(data, kind):
    same, own, other = article(4), article(5), article(6)
    if kind == "json":
        rows = [{"id": f"p{n}", "body": body, "label": {"persons": []}} for n, body in enumerate((own, same, other))]
        (data.raw / "pos.json").write_text(json.dumps(rows), encoding="utf-8")
    else:
        data.replace("pos: {}", "pos: {rows: {label: {persons: people}}}")
        quoted = f'{own[:60]}"",\n{own[60:]}'
        text = f'id,body,people\r\np0,"{quoted}",[]\r\n\r\np1,"{same[:50]}\n{same[50:]}",[]\r\np2,{other},[]\r\n'
        (data.raw / "pos.csv").write_text(text, encoding="utf-8-sig" if kind == "bom" else "utf-8", newline="")
    (data.raw / "pos.jsonl").unlink()
    report = data.run(drop=True)
    assert report["leaks"] == 1 and [*report["dropped"].values()] == [1]
    left = [row["body"].replace("\n", "") for _, row in rawfiles.read(data.task(), data.clean, "pos")]
    assert left == [f'{own[:60]}",{own[60:]}' if kind != "json" else own, other]
    if kind != "json":
        source, copy = ((folder / "pos.csv").read_bytes() for folder in (data.raw, data.clean))
        start, end = source.index(b"\r\np1,"), source.index(b"p2,")
        assert copy in (source[: start + 2] + source[end:], source[:start] + source[end:])


def test_a_test_set_that_is_split_off_training_is_never_dropped(data):
    (data.raw / "all.jsonl").write_text(
        "".join(
            json.dumps({"id": f"a{n}", "body": article(100 + n % 40) + "。" * (n // 40), "label": {"persons": []}})
            + "\n"
            for n in range(80)
        )
    )
    data.replace("    val: {role: validation}\n", "    val: {role: validation}\n    own: {}\n")
    data.replace("data:\n", "data:\n  split: {file: all, shares: {own: 3, test: 1}, seed: 1}\n")
    report = data.run(drop=True)
    leaking = shared(report)["normalised"][0]
    assert 0 < leaking == report["leaks"] == report["dropped"][str(data.raw / "all.jsonl")] < 40
    again = data.run(source=data.clean)
    assert again["leaks"] == 0 and again["rows"]["test"] == report["rows"]["test"]
    assert again["rows"]["train"] == report["rows"]["train"] - leaking


def test_all_problems_at_once_and_nothing_written(data):
    (data.raw / "neg.jsonl").unlink()
    (data.raw / "gold.csv").unlink()
    with pytest.raises(UserError) as caught:
        data.run()
    text = str(caught.value)
    assert "no file neg.jsonl" in text and "no file gold.csv" in text
    assert not data.out.exists()


def test_broken_test_rows_and_gold_are_named(data):
    (data.raw / "eval.jsonl").write_text('{"id": "E1"}\n{"id": "E2", "body": "x"}\nno json\n')
    with pytest.raises(UserError, match=r"eval\.jsonl:1: 'body'.*\n.*eval\.jsonl:3: not valid JSON"):
        data.run()
    (data.raw / "gold.csv").write_text("id,name\nE1,x\n")
    with pytest.raises(UserError, match=r"gold\.csv:1: column 'person_name' is missing"):
        data.run()


def test_no_room_to_write(data):
    (data.root / "outputs").write_text("a file in the folder's place")
    with pytest.raises(UserError, match=r"outputs/mini: cannot be written"):
        data.run()


def test_a_drop_that_leaves_nothing_is_refused(data):
    data.put(pos=[(article(4),), (article(4),)], neg=[(article(5),), (article(4),)], val=[(article(4),)])
    with pytest.raises(UserError) as caught:
        data.run(drop=True)
    assert [re.search("of (.*?) shares", problem)[1] for problem in caught.value.problems] == ["pos", "val"]
    assert not data.out.exists()


def test_what_was_dropped_is_not_dropped_again_from_the_copies(data):
    data.run(drop=True)
    for folder in (data.clean, data.out):
        with pytest.raises(UserError, match="name the raw folder"):
            data.run(drop=True, source=folder)


def test_copies_of_another_source_do_not_stay(data):
    other = data.root / "other"
    shutil.copytree(data.raw, other)
    data.run(drop=True)
    names = ["eval.jsonl", "gold.csv", "neg.jsonl", "pos.jsonl", "val.jsonl"]
    assert sorted(path.name for path in data.clean.iterdir()) == names
    (other / "deep").mkdir()
    (other / "pos.jsonl").rename(other / "deep" / "pos.jsonl")
    (data.clean / "left.jsonl").write_text("")
    (data.out / ".clean").mkdir()
    (data.out / ".clean" / "killed.jsonl").write_text("")
    data.run(drop=True, source=other)
    found = {path.relative_to(data.clean).as_posix() for path in data.clean.rglob("*.*")}
    assert found == {"deep/pos.jsonl", *names} - {"pos.jsonl"}
    assert sorted(path.name for path in data.out.iterdir()) == ["clean", "dropped.jsonl", "leaks.txt", "report.json"]


def test_a_drop_that_fails_leaves_the_copies_as_they_were(data, monkeypatch):
    data.run(drop=True)
    before = {path: path.read_bytes() for path in data.clean.iterdir()}
    data.put(pos=[(article(4),), (article(1),)])
    real = leak_report.writing

    def full(path):
        if path.name == "val.jsonl":
            raise UserError(f"{path}: cannot be written")
        return real(path)

    monkeypatch.setattr(leak_report, "writing", full)
    with pytest.raises(UserError):
        data.run(drop=True)
    assert {path: path.read_bytes() for path in data.clean.iterdir()} == before
    assert not (data.out / ".clean").exists()


def test_the_copies_say_where_they_come_from_and_what_was_done(data):
    record = {"repo": "a/b", "license": "CC BY 4.0", "changed": ["masked"], "files": {"pos.jsonl": "0"}}
    (data.raw / "SOURCE.json").write_text(json.dumps(record))
    data.run(drop=True)
    said = json.loads((data.clean / "SOURCE.json").read_text())
    assert said == {"repo": "a/b", "license": "CC BY 4.0", "changed": ["masked"]}, "nothing was dropped"
    data.put(pos=[(article(4),), (article(1),)])
    data.run(drop=True)
    said = json.loads((data.clean / "SOURCE.json").read_text())
    assert said["changed"] == ["masked", leak_report.DROPPED] and "files" not in said


def test_a_list_is_cut_where_it_gets_too_long_to_read(data, monkeypatch):
    monkeypatch.setattr("recipekit.leak_report.LISTED", 3)
    data.put(pos=[(article(4),)] * 5 + [(article(1),)])
    assert shared(data.run(drop=True)) == {"exact": (5, 1)}
    assert "train -> test, exact: 5 pairs, of which the first 3\n" in data.list and len(data.dropped()) == 5
    assert data.list.count(f"{TEST}:1") == 3


def test_the_bundled_sample_leaks_nothing(tmp_path):
    from dataclasses import replace

    task = replace(load_task("hawks"), root=tmp_path)
    report = examine(task, ROOT / "data" / "samples" / "hawks", THRESHOLD, drop=False)
    assert report["rows"] == {"train": 10000, "validation": 300, "test": 300}
    assert not any(entry["rows"] for entry in report["between"]), report["worst"]
    assert len(report["between"]) == 15


def test_imports_stay_light():
    heavy = ["torch", "transformers", "scipy", "pandas", "matplotlib", "datasets", "datasketch"]
    code = f"import sys, leaks; print([name for name in {heavy} if name in sys.modules])"
    path = f"{ROOT / 'tools'}"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"], capture_output=True, text=True
    )
    assert run.stdout == "[]\n", run.stderr


@pytest.fixture
def clone(tmp_path):
    """A repository with the bundled sample; `train` adds rows to its training data."""
    root = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("tools", "recipes", "data/samples/hawks"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    return root


def command(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if key not in ("LOG_DIR", "PYTHONPATH")}
    call = [sys.executable, "tools/leaks.py", "hawks", *arguments]
    return subprocess.run(
        call,
        cwd=clone,
        env=clean | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_as_a_command(clone):
    samples = clone / "data" / "samples" / "hawks"
    done = command(clone)
    assert (done.returncode, done.stdout) == (0, "") and "leaks: none into the test set" in done.stderr
    assert "up to date" in command(clone).stderr
    assert "written to" in command(clone, "--threshold", "0.7").stderr
    article = json.loads((samples / "hawks_eval_input.jsonl").read_text(encoding="utf-8").splitlines()[4])
    label = {"persons": [], "occured_locations": [], "police_departments": []}
    with (samples / "hawks_train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(article | {"id": "X1", "label": label}) + "\n")
    for _ in range(2):  # anew, then up to date
        done = command(clone)
        assert done.returncode == 1
        assert "error: train -> test: 1 rows share the text, word for word, with 1 rows\n" in done.stderr
        places = "data/samples/hawks/hawks_train.jsonl:6001  data/samples/hawks/hawks_eval_input.jsonl:5"
        assert f"exact 1.00: {places}" in done.stderr
        assert "    uv run tools/leaks.py hawks --source data/samples/hawks --threshold 0.8 --drop\n" in done.stderr
        assert "    SOURCE=outputs/hawks/leaks/clean uv run bash train_all.sh hawks\n" in done.stderr
    done = command(clone, "--allow-leaks")
    assert done.returncode == 0 and "warning: train -> test" in done.stderr and "error" not in done.stderr
    done = command(clone, "--drop")
    assert done.returncode == 1 and "holds the raw files without 1 rows" in done.stderr
    assert "    SOURCE=outputs/hawks/leaks/clean uv run bash train_all.sh hawks\n" in done.stderr
    assert "up to date" in command(clone, "--drop").stderr
    (clone / "outputs/hawks/leaks/clean/hawks_train.jsonl").unlink()
    assert "written to" in command(clone, "--drop").stderr
    assert command(clone, "--source", "outputs/hawks/leaks/clean").returncode == 0
    assert json.loads((clone / "outputs/hawks/state/leaks.json").read_text())["leaks"] == 0
    done = command(clone, "--source", "nowhere", "--threshold", "0.5")
    assert done.returncode == 2 and done.stderr.count("error: ") == 5 and "Traceback" not in done.stderr


def test_excerpts_are_shown_and_are_in_no_log(clone):
    rows = (clone / "data/samples/hawks/hawks_eval_input.jsonl").read_text(encoding="utf-8").splitlines()
    article = json.loads(rows[4])
    label = {"persons": [], "occured_locations": [], "police_departments": []}
    with (clone / "data/samples/hawks/hawks_train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(article | {"id": "X1", "label": label}) + "\n")
    quoted = "".join(article["body"].split())[:8]
    for _ in range(2):  # anew, then up to date
        assert quoted in command(clone, LOG_DIR="logs").stderr
    log = (clone / "logs" / "leaks.log").read_text(encoding="utf-8")
    assert "hawks_train.jsonl:6001" in log and "up to date" in log and quoted not in log

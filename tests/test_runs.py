import shutil

import pytest

import check
import leaks
from recipekit import ROOT, runs, traps
from recipekit.errors import UserError
from recipekit.runs import Step
from recipekit.task import load_task


@pytest.fixture
def step(tmp_path):
    def make(value):
        return Step(tmp_path / "out", "a", {"value": value, "file": tmp_path / "in"}, [tmp_path / "product"])

    (tmp_path / "in").write_text("x")
    (tmp_path / "product").write_text("made")
    return make


def test_a_step_is_done_only_after_its_record(step):
    assert not step(1).done()
    step(1).record()
    assert step(1).done()
    assert not step(2).done()


@pytest.mark.fault(number=35)
def test_edited_input_or_product_undoes_a_step(step, tmp_path):
    step(1).record()
    (tmp_path / "product").write_text("MADE")
    assert not step(1).done()
    (tmp_path / "product").write_text("made")
    assert step(1).done()
    (tmp_path / "in").write_text("y")
    assert not step(1).done()
    (tmp_path / "product").unlink()
    assert not step(1).done()


@pytest.mark.fault(number=33)
def test_what_changed_is_named(step, tmp_path):
    def changes(**inputs):
        return Step(tmp_path / "out", "a", inputs, [tmp_path / "product"]).changes()

    first = {"config": {"lr": 1, "steps": 5}, "file": tmp_path / "in", "old": 1}
    assert changes(**first) == ["it has not ended well here yet"]
    Step(tmp_path / "out", "a", first, [tmp_path / "product"]).record()
    assert changes(**first) == []
    (tmp_path / "in").write_text("y")
    assert changes(config={"lr": 2, "steps": 5, "seed": 1}, file=tmp_path / "in", new=1) == [
        *("config changed (lr, seed)", "file changed", "old is gone", "new is new"),
    ]
    (tmp_path / "in").write_text("x")
    (tmp_path / "product").write_text("edited")
    assert changes(**first) == [f"{tmp_path}/product was changed since"]
    (tmp_path / "product").unlink()
    assert changes(**first) == [f"{tmp_path}/product is missing"]


@pytest.mark.fault(number=28)
def test_a_torn_record_counts_as_none(step):
    step(1).record()
    path = step(1).record_path
    path.write_text(path.read_text()[:40])
    assert not step(1).done()


@pytest.mark.fault(number=31)
def test_write_bytes_leaves_the_old_file_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    runs.write_text(path, "old")
    monkeypatch.setattr(runs.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(UserError, match="file: cannot be written, disk full; make room there"):
        runs.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_digest_of_large_files_still_sees_an_edit(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LARGE", 10)
    path = tmp_path / "weights"
    path.write_bytes(b"a" * (2**20 + 5))
    before = runs.digest(path)
    path.write_bytes(b"b" + b"a" * (2**20 + 4))
    assert runs.digest(path) != before


def test_replace_folder(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "f").write_text("2")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "f").write_text("1")
    runs.replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "f").read_text() == "2" and [p.name for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("module", ["specials", "extract", "rowcheck"])
def test_a_change_of_any_module_undoes_leaks_and_check(tmp_path, monkeypatch, module):
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    task = load_task("hawks")

    def judged():
        inputs = leaks.make_step(task, ROOT / "data" / "samples" / "hawks", 0.8, False).input_digests
        return inputs, check._judges(task, traps.load_configs(task, "cpu")[1][0])

    here = judged()
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    before = judged()
    (tmp_path / "tools" / "recipekit" / "__pycache__").mkdir()
    (tmp_path / "tools" / "recipekit" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert judged() == before and here[1] == before[1], "the place of the repository is no matter"
    with (tmp_path / "tools" / "recipekit" / f"{module}.py").open("a") as stream:
        stream.write("# another rule\n")
    after = judged()
    assert after[0] != before[0] and after[1] != before[1]

"""What a data set's upload consists of: files, licence and a card that `datasets.load_dataset` understands."""

import csv
import hashlib
import json
import shutil

import orjson
import pytest
import yaml

from recipekit import dataset_card, dataset_files, pii_mask, pii_origin, rawfiles
from recipekit.dataset_release import Wish, prepare
from recipekit.errors import UserError
from recipekit.pii_key import Key, load_key
from recipekit.runs import write_jsonl
from recipekit.task import load_task
from regenerate_segments import generate


def wish(task, **changes):
    asked = {"repo": "me/data", "private": True, "licence": "cc-by-4.0", "allowed": frozenset({"person", "address"})}
    return Wish(**(asked | {"source": task.raw_dir, "segments": False} | changes))


def release(task, own=None, **changes):
    return prepare(task, wish(task, **changes), own, lambda n: None)


def lay_out(made, folder):
    """Write a release as it would lie on the Hub."""
    folder.mkdir()
    (folder / "README.md").write_text(dataset_card.write_card(made), encoding="utf-8")
    for file in made.files:
        (folder / file.name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file.path, folder / file.name)
    return folder


def rows_of(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def bare(value):
    """Drop what a row does not have: loading fills it with null."""
    if isinstance(value, dict):
        return {key: bare(inner) for key, inner in value.items() if inner is not None}
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def load(folder, cache):
    from datasets import load_dataset

    return load_dataset(str(folder), cache_dir=str(cache))


@pytest.fixture
def task(mini):
    """The mini task, with rows whose keys and types differ, and empty lists before full ones."""
    raw_dir = mini / "data" / "samples" / "mini"
    odd = {
        "id": "P9",
        "kind": "ﾃｽﾄ",
        "n": 0.5,
        "body": "か\u3099い\u3000😀\u2028が。\n",
        "label": {"persons": [{"name": "髙\ufe00", "age": None}]},
    }
    rows = [{"id": "P8", "n": 1, "body": "花火。", "label": {"persons": []}}, odd]
    write_jsonl(raw_dir / "pos.jsonl", rows + rows_of(raw_dir / "pos.jsonl"))
    return load_task("mini", mini)


def test_load_dataset_reads_the_same_rows(task, tmp_path):
    folder = lay_out(release(task), tmp_path / "repo")
    loaded = load(folder, tmp_path / "cache")
    names = {"pos": "train/pos.jsonl", "neg": "train/neg.jsonl", "test": "test/eval.jsonl"}
    assert set(loaded) == set(names)
    for split, name in names.items():
        assert [bare(row) for row in loaded[split]] == [bare(row) for row in rows_of(folder / name)]
    assert loaded["pos"][1]["label"]["persons"][0]["name"] == "髙\ufe00"


def test_segments_load_as_they_are_trained(task, tmp_path):
    train, test = task.root / "data" / "train", task.root / "data" / "test"
    train.mkdir()
    test.mkdir()
    generate(task, task.raw_dir, train)
    for name in ("eval.jsonl", "gold.csv"):
        (train / name).rename(test / name)
    made = release(task, segments=True)
    names = [f"train/{name}_segments.jsonl" for name in ("pos", "neg", "mix")]
    assert [file.name for file in made.files] == [*names, "test/eval.jsonl", "test/gold.csv"]
    folder = lay_out(made, tmp_path / "repo")
    loaded = load(folder, tmp_path / "cache")
    for split in ("pos", "neg", "mix"):
        assert [row["segments"] for row in loaded[split]] == [
            row["segments"] for row in rows_of(folder / f"train/{split}_segments.jsonl")
        ]
    assert "`mix` is `pos` with `neg` as 20% of its rows" in (folder / "README.md").read_text(encoding="utf-8")


def test_segments_carry_the_licence_of_what_they_were_made_from(task):
    other = task.root / "data" / "raw" / "other"
    other.mkdir(parents=True)
    (other / "SOURCE.json").write_text('{"repo": "a/b", "license": "cc-by-sa-4.0"}', encoding="utf-8")
    state = task.outputs / "state"
    state.mkdir(parents=True)
    (state / "regenerate.json").write_text('{"source": "data/raw/other"}', encoding="utf-8")
    assert dataset_files.origins(dataset_files.origin_folder(task, task.raw_dir, segments=True))[0]["repo"] == "a/b"
    assert dataset_files.origins(dataset_files.origin_folder(task, task.raw_dir, segments=False)) == []


def test_what_goes_up_is_found_again_by_name(task, tmp_path):
    made = release(task)
    folder = lay_out(made, tmp_path / "repo")
    found, problems = rawfiles.files(task, folder)
    assert not problems and [file.path for file in found] == [folder / "train/pos.jsonl", folder / "train/neg.jsonl"]
    again = dataset_files.collect(task, folder, segments=False)
    assert [file.name for file in again] == [file.name for file in made.files]


def test_card_says_rows_digests_licence_and_findings(task):
    text = dataset_card.write_card(release(task))
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "cc-by-4.0" and head["language"] == ["ja"] and head["size_categories"] == ["n<1K"]
    assert [split["split"] for split in head["configs"][0]["data_files"]] == ["pos", "neg", "test"]
    digest = hashlib.sha256((task.raw_dir / "pos.jsonl").read_bytes()).hexdigest()
    assert f"| `train/pos.jsonl` | pos | 10 | `{digest}` |" in body and "| `test/gold.csv` |  | 1 |" in body
    assert "let through: person " in body and "架空" in body and '"persons"' in body
    assert 'load_dataset("me/data")' in body and "Licence: `cc-by-4.0`." in body


def test_card_names_the_download_it_comes_from(task):
    folder = task.root / "data" / "raw" / "mini"
    shutil.copytree(task.raw_dir, folder)
    origin = {
        "repo": "a/b",
        "commit": "c0ffee",
        "license": "CC BY-SA 4.0",
        "limit": 9,
        "terms": "do no harm",
        "homepage": "https://x",
    }
    (folder / "SOURCE.json").write_text(json.dumps(origin), encoding="utf-8")
    made = release(task, licence=None)
    text = dataset_card.write_card(made)
    assert "- a/b at commit `c0ffee`, its first 9 rows; licence: CC BY-SA 4.0; terms: do no harm; https://x\n" in text
    assert "license: cc-by-sa-4.0" in text and "架空" not in text
    (folder / "SOURCE.json").write_text('{"origin": "local"}', encoding="utf-8")
    assert "\n- local\n" in dataset_card.write_card(release(task))


def test_masked_copies_keep_the_licence_and_the_card_says_what_was_changed(task, tmp_path):
    folder, masked = task.root / "data" / "raw" / "mini", tmp_path / "masked"
    shutil.copytree(task.raw_dir, folder)
    origin = {"repo": "a/b", "license": "CC BY-SA 4.0", "changed": ["leaks dropped"], "files": {"pos.jsonl": "0"}}
    (folder / "SOURCE.json").write_text(json.dumps(origin), encoding="utf-8")
    paths, key = [*folder.glob("*.jsonl"), folder / "gold.csv"], tmp_path / "k.pii-key.json"
    pii_mask.mask(paths, masked, Key(), key, None, False, lambda *_: None)
    text = dataset_card.write_card(release(task, source=masked, licence=None))
    assert "- a/b; licence: CC BY-SA 4.0\n" in text and "license: cc-by-sa-4.0" in text and "unchanged" not in text
    assert (
        "rows of.\n\n- Changed: leaks dropped.\n- Changed: personal information masked by tools/mask_pii.py.\n" in text
    )
    with pytest.raises(UserError, match="but its source says cc-by-sa-4.0"):
        release(task, source=masked, licence="mit")
    pii_mask.restore([masked / "pos.jsonl"], tmp_path / "real", load_key(key, fresh=False), lambda *_: None)
    record = json.loads((tmp_path / "real" / "SOURCE.json").read_text(encoding="utf-8"))
    assert record == {"repo": "a/b", "license": "CC BY-SA 4.0", "changed": ["leaks dropped"]}
    (folder / "SOURCE.json").unlink()
    assert "rows, unchanged, that" in dataset_card.write_card(release(task))


def test_files_of_several_downloads_are_not_masked_into_one_folder(tmp_path):
    paths = [tmp_path / name / f"{name}.jsonl" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        write_jsonl(path, [{"body": "花火。"}])
        (path.parent / "SOURCE.json").write_text(json.dumps({"repo": path.stem, "license": "mit"}), encoding="utf-8")

    def mask(*chosen):
        pii_mask.mask(chosen, tmp_path / "out", Key(), tmp_path / "k.pii-key.json", None, False, lambda *_: None)

    with pytest.raises(UserError, match=r"out: files of several downloads \(.*a/SOURCE.json, .*b/SOURCE.json\)"):
        mask(*paths)
    assert not (tmp_path / "out").exists()
    mask(paths[0])
    with pytest.raises(UserError, match="several downloads"):
        mask(paths[1])
    mask(paths[0])
    record = json.loads((tmp_path / "out" / "SOURCE.json").read_text(encoding="utf-8"))
    assert record == {"repo": "a", "license": "mit", "changed": [pii_origin.MASKED]}


def test_a_type_that_differs_between_files_is_named(task):
    path = task.raw_dir / "neg.jsonl"
    write_jsonl(path, [{"id": 1, "body": "花火。", "label": {"persons": []}}])
    with pytest.raises(UserError, match=r"neg.jsonl: id: string vs int64 in the files before it and here"):
        dataset_card.write_card(release(task))


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**12, "n>1T")],
)
def test_size_category(rows, category):
    assert dataset_card.size_category(rows) == category


def test_missing_files_licence_and_kinds_come_at_once(task):
    (task.raw_dir / "neg.jsonl").unlink()
    (task.raw_dir / "gold.csv").unlink()
    with pytest.raises(UserError) as error:
        release(task, licence=None, allowed=frozenset({"persons", "own_token"}))
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 5
    for part in (
        "--allow own_token: no such kind",
        "--allow persons: no such",
        "neg.jsonl",
        "gold.csv",
        "licence unknown",
    ):
        assert part in text


def test_segments_that_are_not_made_yet(task):
    with pytest.raises(UserError) as error:
        release(task, segments=True)
    assert len(error.value.problems) == 5 and "regenerate_segments.py mini" in error.value.problems[0]


def test_names_of_splits(task):
    task.spec["data"]["train"]["some-set"] = {"file": "more"}
    shutil.copy(task.raw_dir / "neg.jsonl", task.raw_dir / "more.jsonl")
    files = dataset_files.collect(task, task.raw_dir, segments=False)
    assert [file.split for file in files] == ["pos", "neg", "some_set", "test", None]


def test_a_file_that_is_split_goes_up_once_and_csv_by_itself(task):
    task.spec["data"]["split"] = {"file": "all", "shares": {"pos": 1, "neg": 1, "test": 1}, "seed": 1}
    shutil.copy(task.raw_dir / "pos.jsonl", task.raw_dir / "all.jsonl")
    files = dataset_files.collect(task, task.raw_dir, segments=False)
    assert [(file.name, file.split) for file in files] == [("train/all.jsonl", "all")]
    del task.spec["data"]["split"]
    (task.raw_dir / "neg.jsonl").unlink()
    with (task.raw_dir / "neg.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["id", "body", "label"], ["1", "花火。", "{}"]])
    files = dataset_files.collect(task, task.raw_dir, segments=False)
    assert [(file.name, file.split) for file in files[:2]] == [("train/pos.jsonl", "pos"), ("train/neg.csv", None)]


@pytest.mark.parametrize(
    ("stated", "declared", "licences"),
    [
        ([], "mit", ["mit"]),
        (["CC BY-SA 4.0"], None, ["cc-by-sa-4.0"]),
        (["cc-by-4.0"], "CC BY 4.0", ["cc-by-4.0"]),
        (["cc0-1.0", "mit", "mit"], None, ["cc0-1.0", "mit"]),
        ([None], "mit", ["mit"]),
        (["mit", "see the homepage"], "cc-by-4.0", None),
        (["see the homepage"], "CC BY 4.0", ["cc-by-4.0"]),
    ],
)
def test_licences(stated, declared, licences):
    origins = [{"repo": f"a/{i}", "license": licence} for i, licence in enumerate(stated)]
    if licences is None:
        with pytest.raises(UserError, match="a/0: --license cc-by-4.0, but its source says mit"):
            dataset_files.licences(origins, declared)
    else:
        assert dataset_files.licences(origins, declared) == licences


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ({}, "the data: licence unknown; where you may"),
        ({"repo": "a/b", "license": "unknown"}, "a/b: licence unknown, its source says 'unknown'"),
        ({"repo": "a/b", "license": "see there", "terms": "do not pass it on"}, "(its terms: do not pass it on)"),
        ({"repo": "a/b", "license": "CC BY-NC-ND 4.0"}, "a/b: its licence, cc-by-nc-nd-4.0, forbids"),
        ({"repo": "a/b", "license": "Proprietary"}, "forbids"),
    ],
)
def test_licences_that_forbid_or_are_unknown(origin, said):
    with pytest.raises(UserError) as error:
        dataset_files.licences([origin] if origin else [], None)
    assert said in error.value.problems[0]
    if "forbids" in said:
        with pytest.raises(UserError, match="forbids"):
            dataset_files.licences([origin], "mit")


def test_problems_name_each_kind_once_with_first_places_and_what_to_do(task):
    token = "hf_" + "Q" * 34
    rows = [{"id": f"A{i}", "body": f"電話は090-1234-567{i}。", "label": {"persons": []}} for i in range(5)]
    rows[3]["body"] += f"鍵は{token}。"
    write_jsonl(task.raw_dir / "neg.jsonl", rows)
    made = release(task, own=token)
    phone, own = made.problems()
    assert (
        "neg.jsonl:1: phone 0************"[:30] in phone
        and ", line 2: 0" in phone
        and "; 5 in 1 file; mask all files" in phone
    )
    assert "neg.jsonl:4: own_token your own Hub token; 1 in 1 file; take it out" in own
    assert token not in phone + own and "1234" not in phone
    (secret,) = release(task, allowed=frozenset({"person", "address", "phone"})).problems()
    assert "secret Hugging Face token" in secret and "--allow secret" in secret
    assert not list(release(task, allowed=frozenset({"person", "address", "phone", "secret"})).problems())

"""The bundled sample data of hawks: checked against the articles themselves, not against the code that wrote them."""

import csv
import importlib.util
import json
import re
import shutil
from collections import Counter

import jsonschema
import pytest

from recipekit import ROOT, sampling
from recipekit.compare import Comparer
from recipekit.errors import UserError
from recipekit.gold import GoldFile
from recipekit.task import load_task

spec = importlib.util.spec_from_file_location("make_samples", ROOT / "tools" / "make_samples.py")
make_samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_samples)

SAMPLES = ROOT / "data" / "samples" / "hawks"
SETS = {"hawks_train": 6000, "person_dummy": 4000, "hawks_val": 300, "hawks_eval_input": 300}
COURT = {"indictment", "trial", "verdict"}
CRIME = COURT | {"arrest", "rearrest", "referral", "anonymous", "several"}
CLEARED = {"acquittal", "dismissal"}


def rows_of(name):
    return [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def task():
    return load_task("hawks")


@pytest.fixture(scope="module")
def rows():
    return {name: rows_of(name) for name in SETS}


@pytest.fixture(scope="module")
def bodies(rows, task):
    return {name: [task.clean(row["body"]) for row in part] for name, part in rows.items()}


@pytest.fixture(scope="module")
def split():
    return make_samples.read(SAMPLES / "source")


@pytest.fixture(scope="module")
def made(tmp_path_factory, task):
    folder = tmp_path_factory.mktemp("samples")
    make_samples.make(SAMPLES / "source", folder, task.spec["gold"])
    return folder


@pytest.fixture(scope="module")
def gold():
    with (SAMPLES / "hawks_eval_gold.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def labelled(rows):
    return [(row, row["label"]) for name in ("hawks_train", "person_dummy", "hawks_val") for row in rows[name]]


def test_the_committed_files_are_what_the_sources_make(made):
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted([*(f"{name}.jsonl" for name in SETS), "hawks_eval_gold.csv"])
    for name in names:
        assert (made / name).read_bytes() == (SAMPLES / name).read_bytes(), f"{name}: run tools/make_samples.py hawks"


def test_counts_ids_and_keys(rows):
    for name, count in SETS.items():
        keys = ["id", "kind", "body"] + ["label"] * (name != "hawks_eval_input")
        assert [list(row) for row in rows[name]] == [keys] * count
    ids = [row["id"] for part in rows.values() for row in part]
    assert len(set(ids)) == len(ids)
    assert (rows["hawks_train"][0]["id"], rows["hawks_eval_input"][-1]["id"]) == ("TRP00001", "LVP0300")
    assert sum(path.stat().st_size for path in SAMPLES.glob("*.jsonl")) < 7_500_000


def test_crime_share_and_kinds(rows):
    assert {row["kind"] for row in rows["hawks_train"]} == CRIME
    assert not CRIME & {row["kind"] for row in rows["person_dummy"]}
    for name in ("hawks_val", "hawks_eval_input"):
        kinds = Counter(row["kind"] for row in rows[name])
        assert sum(kinds[kind] for kind in CRIME) == 51, "17% of 300"
        assert {row["kind"] for part in rows.values() for row in part} == set(kinds), "every kind is in val and test"


def test_labels_fit_the_schema_and_stand_in_the_article(rows, task):
    schema = jsonschema.Draft202012Validator(task.output_schema)
    for row, label in labelled(rows):
        assert not list(schema.iter_errors(label)), row["id"]
        body = task.clean(row["body"])
        values = [value for p in label["persons"] for key, value in p.items() if isinstance(value, str)]
        values = [v for v in values if v not in ("法令違反", "過失")]
        values += label["occured_locations"] + label["police_departments"]
        assert [v for v in values if v not in body] == [], row["id"]


def test_every_label_follows_the_rules_of_the_readme(rows, task):
    for row, label in labelled(rows):
        body, kind, persons = task.clean(row["body"]), row["kind"], label["persons"]
        title = {True: "被告", False: "容疑者"}[kind in COURT] if kind in CRIME else "さん" if kind in CLEARED else ""
        for p in persons:
            start, end = body.index(p["name"]), body.index(p["name"]) + len(p["name"])
            assert body.startswith(title, end), row["id"]
            age = re.match(rf"{title}[(（]([0-9０-９]+)歳?[)）]", body[end:])
            assert p["age"] == (age[1] if age else ""), row["id"]
            assert body[:start].endswith((p["position"], p["position"] + "の", p["position"] + "、")), row["id"]
            if p["address"]:
                assert "。" not in body[body.rindex(p["address"], 0, start) : start], row["id"]
            assert (p["category"] == "過失") == bool(re.search("過失|失火", p["act"])), row["id"]
            assert (p["is_real"], p["is_offender"]) == (kind != "fiction", kind not in CLEARED), row["id"]
            assert not p["position"].startswith(("容疑", "被告")) and not p["name"].endswith(("容疑者", "被告", "さん"))
        crime = kind in CRIME
        assert bool(label["occured_locations"]) == crime, row["id"]
        assert bool(label["police_departments"]) == (crime and kind not in COURT), row["id"]
        assert len(persons) in ({2, 3} if kind == "several" else {0, 1}), row["id"]
        assert bool(persons) == (crime and kind != "anonymous" or kind in CLEARED | {"fiction"}), row["id"]


def test_nobody_accused_by_name_is_missing(rows, task):
    for row, label in labelled(rows):
        named = set(re.findall(r"(?:容疑者|被告)[(（]", task.clean(row["body"])))
        assert bool(named) == (row["kind"] in CRIME - {"anonymous"}), row["id"]
        assert len(re.findall(r"(?:容疑者|被告)[(（]", task.clean(row["body"]))) == (
            len(label["persons"]) if named else 0
        )


def test_every_station_named_in_a_police_article_is_labelled_without_its_prefecture(rows, task):
    for row, label in labelled(rows):
        if row["kind"] in CRIME - COURT:
            body = task.clean(row["body"])
            for value in label["police_departments"]:
                assert re.fullmatch(r"[^県府道]+署|[県府道]警[^署]+[課室]", value), row["id"]
            stations = set(re.findall(r"(?:警|課と|^|[、。で])([^警\W\d_ぁ-ん]{2,7}署)[はがと]", body))
            stations -= {"同署"}
            assert stations <= set(label["police_departments"]), row["id"]


def test_gold_is_what_the_answers_of_the_test_articles_say(gold, rows, bodies, task):
    header, *cells = gold
    columns = task.spec["gold"]["columns"]
    assert header == ["quality_test_id", *columns]
    assert [row[0] for row in cells] == [row["id"] for row in rows["hawks_eval_input"]]
    for row, article, body in zip(cells, rows["hawks_eval_input"], bodies["hawks_eval_input"], strict=True):
        assert len(row) == (9 if article["kind"] in CRIME else 7), "rows without a crime are short"
        values = [value for cell in row[1:] for value in cell.split("|") if value]
        assert bool(values) == (article["kind"] in CRIME) and all(value in body for value in values)
        assert len({cell.count("|") for cell in row[1:7]}) == 1, "one value a person in each of the person columns"
    assert sum(any(row[1:]) for row in cells) == 51


def test_gold_says_what_the_labels_say(rows, task, tmp_path):
    val = rows["hawks_val"]
    path = tmp_path / "gold.csv"
    path.write_text(make_samples.gold_csv(val, task.spec["gold"]), encoding="utf-8")
    comparer = Comparer(task)
    for row, gold in zip(val, GoldFile(task, path), strict=True):
        offenders = [p for p in row["label"]["persons"] if p["is_real"] and p["is_offender"]]
        assert gold.id == row["id"] and len(gold.entities.get("person", [])) == len(offenders)
        assert all(slot.right for slot in comparer.compare(gold, row["label"]).slots), row["id"]


def test_no_name_of_a_set_is_in_another(split, bodies):
    _, pools = split
    texts = {
        "train": bodies["hawks_train"] + bodies["person_dummy"],
        "val": bodies["hawks_val"],
        "test": bodies["hawks_eval_input"],
    }
    for name, own in pools.items():
        elsewhere = "\n".join(text for other, part in texts.items() if other != name for text in part)
        leaked = [w for words in own.values() for w in words if len(w) > 1 and w in elsewhere]
        assert leaked == [], f"names of {name} in other sets"
    words = [word for own in pools.values() for part in own.values() for word in part]
    assert len(set(words)) == len(words)
    assert sum(len(own["family"]) for own in pools.values()) >= 400
    assert sum(len(own["given_male"]) + len(own["given_female"]) for own in pools.values()) >= 400
    assert sum(len(own["place"]) for own in pools.values()) >= 500


def test_no_person_of_the_test_set_is_in_training(rows, gold):
    test = {name for row in gold[1:] for name in row[1].split("|") if name}
    for _, label in labelled(rows):
        assert not test & {p["name"] for p in label["persons"]}


def test_no_two_articles_share_a_sentence(bodies):
    seen = Counter()
    for part in bodies.values():
        for body in part:
            seen.update(re.findall(r"(?:「[^」]*」|[^。「])+。?", body))
    assert [sentence for sentence, count in seen.items() if count > 1] == []


def test_an_article_that_repeats_a_pair_of_frames_is_refused():
    novelty = sampling.Novelty()
    assert novelty.take(["lead", "follow"], ["a。", "b。"])
    assert not novelty.take(["follow", "x", "lead"], ["c。", "d。", "e。"]), "same pair in another order"
    assert not novelty.take(["lead", "y"], ["a。", "f。"]), "same sentence"
    assert novelty.take(["lead", "y"], ["c。", "f。"]), "what was refused is not remembered"


def test_lengths(bodies):
    lengths = [len(body) for part in bodies.values() for body in part]
    assert min(lengths) >= 80 and max(lengths) <= 230
    assert 120 <= sum(lengths) / len(lengths) <= 160


def test_the_model_has_met_every_character_of_the_test_set(bodies):
    known = set("".join(bodies["hawks_train"] + bodies["person_dummy"]))
    assert set("".join(bodies["hawks_val"] + bodies["hawks_eval_input"])) <= known


def test_metadata_is_stripped_and_labels_do_not_need_it(rows, task):
    for name, part in rows.items():
        dirty = [row for row in part if task.clean(row["body"]) != row["body"]]
        assert 0.04 < len(dirty) / len(part) < 0.14, name
        for row in part:
            assert not re.search(r"\n|配信】|https?:|^写真|[(（]c[)）]", task.clean(row["body"])), row["id"]


BROKEN = [
    ("frames_court.yml", "<saiban>で{開かれた|あった}。", "<saiban>で{開かれた|あった。", "found a '{'"),
    ("frames_court.yml", "<judge>裁判", "<jugde>裁判", "unknown slot <jugde>"),
    ("crimes.yml", "acts: 暴行\n", "acts: 暴行\n    act: x\n", "'act' was unexpected"),
    ("crimes.yml", "jobs: public office", "jobs: publik", "'publik', which is not there"),
    ("crimes.yml", "acts: 恐喝 恐喝未遂", "acts: 恐喝 恐喝未遂 強談", "no deed for the act 強談"),
    ("negatives_town.yml", "      マラソン：{完走した", "      駅伝：{完走した", "'駅伝：' fits nothing"),
    ("words.yml", "相沢 青柳", "相沢 相沢 青柳", "'相沢' already stands at"),
    ("words.yml", "相沢 青柳", "相沢 交通 青柳", "the text holds '交通'"),
    ("plan.yml", "seed: 20240501", "seed: 20240501\n  seed: 2", "key 'seed' stands twice"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), BROKEN, ids=range(len(BROKEN)))
def test_an_error_in_the_sources_is_named_by_its_line(tmp_path, file, old, new, message, task):
    source = tmp_path / "source"
    shutil.copytree(SAMPLES / "source", source)
    text = (source / file).read_text(encoding="utf-8")
    assert old in text
    (source / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        make_samples.make(source, tmp_path / "out", task.spec["gold"])
    assert any(message in problem for problem in error.value.problems), error.value.problems
    assert all(re.search(r"\.yml:\d+: ", problem) for problem in error.value.problems)
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_too_few_frames_end_in_an_error_and_not_in_a_loop(tmp_path, task, monkeypatch):
    monkeypatch.setattr(make_samples, "TRIES", 1)
    with pytest.raises(UserError, match="nothing new after 1 tries"):
        make_samples.make(SAMPLES / "source", tmp_path / "out", task.spec["gold"])
    assert not (tmp_path / "out").exists()


def test_a_task_without_sample_sources_is_an_error(tmp_path, task):
    with pytest.raises(UserError, match="no such file; this task has no sample sources"):
        make_samples.make(tmp_path, tmp_path / "out", task.spec["gold"])


def test_a_folder_without_sources_is_an_error(tmp_path, task):
    shutil.copy(SAMPLES / "source" / "schema.json", tmp_path)
    with pytest.raises(UserError, match="no file there says pools:"):
        make_samples.make(tmp_path, tmp_path / "out", task.spec["gold"])

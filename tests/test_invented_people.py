"""The bundled sample data of bigfive: written by its sources, and learnable from what a speaker says."""

import json
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from breaking import assert_named
from recipekit import ROOT, invented_people, yamlfile

SAMPLES = ROOT / "data/samples/bigfive"
FILES = (
    "real_persona_chat/dialogues.jsonl",
    "real_persona_chat/interlocutors.json",
    "nemotron_personas_japan/personas.jsonl",
)
MEANS = {"Openness": 4.5, "Conscientiousness": 4.1, "Extraversion": 4.6, "Agreeableness": 4.9, "Neuroticism": 4.3}
COLUMNS = "uuid persona professional_persona hobbies_and_interests skills_and_expertise sex age occupation region"


def lines_of(name):
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def dialogues():
    return lines_of(FILES[0])


@pytest.fixture(scope="module")
def levels():
    speakers = json.loads((SAMPLES / FILES[1]).read_text(encoding="utf-8"))
    return {name: list(speaker["personality"].values()) for name, speaker in speakers.items()}


@pytest.fixture(scope="module")
def personas():
    return lines_of(FILES[2])


def test_the_committed_files_are_what_the_sources_make(tmp_path):
    invented_people.make(SAMPLES / "source", tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), f"{name}: run tools/make_samples.py"
        assert (SAMPLES / name).stat().st_size < 2_000_000


def test_dialogues_alternate_between_listed_speakers(dialogues, levels):
    assert len(dialogues) == 700 and len(levels) == 200
    for row in dialogues:
        texts, names = row["utterances"], row["interlocutors"]
        assert 16 <= len(texts) <= 20 and len(set(names)) == 2 and set(names) <= set(levels)
        assert [one["interlocutor_id"] for one in texts] == [names[turn % 2] for turn in range(len(texts))]
        assert [one["utterance_id"] for one in texts] == list(range(len(texts)))
        for one in texts:
            partner = names[1 - names.index(one["interlocutor_id"])]
            assert set(re.findall("<.*?>", one["text"])) <= {f"<{partner}>"}
            assert one["text"].strip() and not set("{}|/") & set(one["text"])
    partners = Counter(name for row in dialogues for name in row["interlocutors"])
    assert set(partners.values()) == {7}
    assert len({tuple(sorted(row["interlocutors"])) for row in dialogues}) > 650
    assert sum("<" in one["text"] for row in dialogues for one in row["utterances"]) > 300


def test_traits_are_spread_as_planned_and_independent(levels):
    values = np.array(list(levels.values()))
    assert np.allclose(values * 12, (values * 12).round()) and values.min() >= 1 and values.max() <= 7
    assert np.abs(values.mean(0) - list(MEANS.values())).max() < 0.2
    assert np.abs(values.std(0) - [1.0, 0.9, 1.05, 0.86, 1.23]).max() < 0.15
    assert np.abs(np.corrcoef(values.T) - np.eye(5)).max() < 0.25


def rows_by_part(dialogues, names):
    """Split as the task does, into training and test, a dialogue with a test speaker going to test alone."""
    test = set(random.Random(7).sample(sorted(names), len(names) // 5))
    rows = {False: [], True: []}
    for row in dialogues:
        strict = bool(test & set(row["interlocutors"]))
        for name in row["interlocutors"]:
            if (name in test) == strict:
                texts = [one["text"] for one in row["utterances"] if one["interlocutor_id"] == name]
                rows[strict].append((name, "\n".join(texts)))
    return rows[False], rows[True]


def test_traits_can_be_learned_from_what_is_said_but_not_too_well(dialogues, levels):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    train, test = rows_by_part(dialogues, levels)
    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True), Ridge(alpha=0.5)
    )
    model.fit([body for _, body in train], [levels[name] for name, _ in train])
    mean = np.mean([levels[name] for name, _ in train], 0)

    def score(truth, guess):
        return 1 - ((truth - guess) ** 2).mean(0) / ((truth - mean) ** 2).mean(0)

    guessed = model.predict([body for _, body in test])
    by_dialogue = score(np.array([levels[name] for name, _ in test]), guessed)
    means = defaultdict(list)
    for (name, _), guess in zip(test, guessed, strict=True):
        means[name].append(guess)
    by_speaker = score(np.array([levels[name] for name in means]), np.array([np.mean(g, 0) for g in means.values()]))
    assert 0.2 < by_dialogue.mean() < 0.45 and by_dialogue.min() > 0.05, by_dialogue
    assert 0.35 < by_speaker.mean() < 0.65 and by_speaker.min() > 0.15, by_speaker


def test_what_test_speakers_say_was_mostly_never_said_in_training(dialogues, levels):
    train, test = rows_by_part(dialogues, levels)
    known = {text for _, body in train for text in body.split("\n")}
    said = [text for _, body in test for text in body.split("\n")[1:-1]]
    assert np.mean([text in known for text in said]) < 0.15


def test_personas_have_the_columns_and_show_only_sometimes_what_is_asked(personas):
    assert len(personas) == 2000 == len({row["uuid"] for row in personas})
    said = Counter()
    for row in personas:
        assert list(row) == [*COLUMNS.split(), "prefecture"]
        assert row["sex"] in ("男", "女") and 18 <= row["age"] <= 90
        text = row["persona"] + row["professional_persona"]
        assert not set("<>{}|") & set(text)
        assert set(re.findall(r"(\d+)歳", text)) <= {str(row["age"])}
        assert not re.search("彼女|女性" if row["sex"] == "男" else "彼は|男性", text)
        said["age"] += "歳" in text
        said["sex"] += bool(re.search("彼|[男女]性", text))
        said["occupation"] += row["occupation"] in text
    assert all(0.05 < said[name] / 2000 < 0.6 for name in ("age", "sex", "occupation")), said


def test_every_occupation_is_in_its_group_by_its_keywords(personas):
    groups = yamlfile.load(ROOT / "recipes/bigfive/occupations.yml")[0]
    jobs = yamlfile.load(SAMPLES / "source/jobs.yml")[0]["jobs"]
    assert list(groups) == list(jobs) and groups["その他"] == []
    for group, job in jobs.items():
        for title in job["titles"].split():
            found = next((g for g, words in groups.items() if any(word in title for word in words)), "その他")
            assert found == group, title
    assert {row["occupation"] for row in personas} == {t for job in jobs.values() for t in job["titles"].split()}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("chat.yml", "<thing>は{好き", "<thnig>は{好き", "unknown slot <thnig>"),
        ("plan.yml", 'low: "食べ物', 'low: "食べもの', "names '食べもの', no topic"),
        ("marks.yml", "  Openness:", "  Opennes:", "marks.Opennes is no trait"),
        ("plan.yml", "slope: 5.0", "slope: steep", "'steep' is not of type 'number'"),
    ],
)
def test_an_error_in_the_sources_is_named_by_its_line(tmp_path, file, old, new, message):
    assert_named(invented_people.make, SAMPLES / "source", tmp_path, (file, old, new, message))

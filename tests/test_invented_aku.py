"""The bundled sample data of aku: written by its sources, sound, apart, and in a tone that relation and mood decide."""

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest

import make_samples
from breaking import assert_named
from chat_samples import assert_short_and_filled, emoji_rate, foreign_characters, likeness, rows_of, text_of
from recipekit import ROOT, invented_aku
from recipekit.conversations import Conversations
from recipekit.invented_chat_frames import Apart
from recipekit.task import load_task

SAMPLES = ROOT / "data/samples/aku"
COUNTS = {"aku": 2400, "aku_val": 150, "scenes": 300}
LEVELS = range(5)
PAIRS = list(itertools.product(LEVELS, LEVELS))
SEED_PAIRS = {(2, 2), (4, 4), (0, 0), (4, 0), (0, 4)}
POLITE = re.compile(r"です|ます|ました|ません|ましょう|失礼|ください")


@pytest.fixture(scope="module")
def conversations():
    return Conversations(load_task("aku"))


@pytest.fixture(scope="module")
def files():
    return {name: rows_of(SAMPLES / f"{name}.jsonl") for name in COUNTS}


@pytest.fixture(scope="module")
def by_pair(files):
    found = {pair: [] for pair in PAIRS}
    for row in files["aku"]:
        found[tuple(row["attribute"])] += [turn["content"] for turn in row["conversation"][1::2]]
    return found


def grid(by_pair, measure):
    """Measure the replies of all pairs: relation down, mood across."""
    return np.array([[np.mean([measure(text) for text in by_pair[r, m]]) for m in LEVELS] for r in LEVELS])


def test_the_committed_files_are_what_the_sources_make(tmp_path):
    make_samples.command("aku", tmp_path)
    written = [path.name for path in tmp_path.iterdir()]
    assert sorted(written) == sorted(f"{n}.jsonl" for n in COUNTS)
    for name in written:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), f"{name}: run tools/make_samples.py"
    assert sum((SAMPLES / name).stat().st_size for name in written) < 3_000_000


def test_rows_have_no_problems_and_the_counts_of_the_readme(files, conversations):
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    ids = [row["id"] for rows in files.values() for row in rows]
    assert len(set(ids)) == len(ids) and all(name.startswith("aku_") for name in ids)
    for name, rows in files.items():
        assert [p for row in rows for p in conversations.problems(row, scene=name == "scenes")] == []
        assert all(row["metadata"]["source"] == "invented" for row in rows)
        assert len(rows) == COUNTS[name] and f"| `{name}.jsonl` | {len(rows):,} |" in readme


def test_conversations_are_short_and_no_frame_shows_through(files, conversations):
    assert_short_and_filled(files, conversations, 200, 450)


def test_the_small_base_has_nearly_every_character(files):
    texts = [text_of(row) + row.get("context", "") for rows in files.values() for row in rows]
    foreign, emoji, total = foreign_characters(texts)
    assert sum(foreign.values()) <= 0.001 * total, foreign
    assert 2 <= len(emoji) <= 10, emoji


def test_no_text_stands_in_two_files_or_twice_in_one(files):
    assert likeness({name: [text_of(row) for row in rows] for name, rows in files.items()}) < 0.8
    for name in ("aku", "aku_val"):
        assert len({text_of(row) for row in files[name]}) == len(files[name])


def test_what_is_nearly_the_same_in_two_files_is_found_and_refused(files):
    texts = [text_of(row) for row in files["aku"][:200]]
    longest = max(texts, key=len)
    assert likeness({"a": texts, "b": [longest + "うん"]}) > 0.9
    apart = Apart()
    for file, text, taken in (("a", longest, True), ("a", longest, False), ("a", longest + "うん", True),
                              ("b", longest + "ええ", False), ("b", "まったく別の話です", True)):  # fmt: skip
        apart.open(file)
        assert apart.take(text) == taken, (file, text)


def test_genres_pairs_and_turns_are_spread(files):
    for name in ("aku", "aku_val"):
        genres = Counter(row["metadata"]["genre"] for row in files[name])
        pairs = Counter(tuple(row["attribute"]) for row in files[name])
        assert len(genres) == 12 and max(genres.values()) - min(genres.values()) <= 1
        assert len(pairs) == (25 if name == "aku" else len(pairs)) and max(pairs.values()) <= 2 * min(pairs.values())
    turns = Counter(len(row["conversation"]) // 2 for row in files["aku"])
    assert set(turns) == {1, 2, 3, 4, 5} and max(turns.values()) < 0.6 * 2400, turns
    groups = load_task("aku").spec["data"]["curriculum"]["groups"].values()
    means = [
        np.mean([len(r["conversation"]) for r in files["aku"] if r["metadata"]["genre"] in names]) for names in groups
    ]
    assert means == sorted(means) and means[-1] > means[0] + 2, means


def test_the_relation_decides_politeness(by_pair):
    polite = grid(by_pair, lambda text: bool(POLITE.search(text)))
    assert polite[:2].min() > 0.98 and polite[2:].max() < 0.02, polite
    last = {pair: Counter(re.findall(r"[^。！]+(?=[。！])", text)[-1] for text in by_pair[pair]) for pair in PAIRS}
    pairs_of = Counter(words for said in last.values() for words in said)
    for pair, said in last.items():
        own = max(count for words, count in said.items() if pairs_of[words] == 1)
        assert own > 0.2 * len(by_pair[pair]), (pair, said)


def test_the_mood_decides_length_particles_and_emoji(by_pair):
    length = grid(by_pair, len)
    particles = grid(by_pair, lambda text: len(re.findall(r"[ねよ](?=[。！？…]|$)", text)))
    emoji = np.array([[emoji_rate(by_pair[r, m]) for m in LEVELS] for r in LEVELS])
    assert (np.diff(length, axis=1) > 1).all() and (length[:, 4] > 2.2 * length[:, 0]).all(), length
    assert particles[:, 0].max() < 0.05 and (particles[:, 4] > 1).all(), particles
    assert (particles[:, 3] > particles[:, 2] + 0.4).all(), particles
    assert emoji[:, :3].max() == 0 and (emoji[:, 3] > 0.2).all() and emoji[:, 4].min() == 1, emoji
    curt = grid(by_pair, lambda text: text.startswith("…"))
    assert curt[:, 0].min() == 1 and curt[:, 1:].max() == 0
    loving = {pair for pair in PAIRS if any("💕" in text for text in by_pair[pair])}
    assert loving == {(4, 4)}


def test_replies_repeat_a_word_that_training_does_not_know(files):
    def repeated(row):
        for user, reply in zip(row["conversation"][::2], row["conversation"][1::2], strict=False):
            found = [user["content"][:n] for n in range(2, 20) if user["content"][:n] in reply["content"]]
            if found:
                yield found[-1]

    trained = {text_of(row) for row in files["aku"]}
    known = "\n".join(trained)
    share = [len(list(repeated(row))) / (len(row["conversation"]) // 2) for row in files["aku"]]
    assert np.mean(share) > 0.75
    held_out = {word for row in files["aku_val"] for word in repeated(row) if len(word) > 2}
    assert len(held_out) > 100 and np.mean([word in known for word in held_out]) < 0.02


def test_attribute_scenes_differ_in_the_pair_alone(files):
    sets = {}
    for row in files["scenes"]:
        if row["kind"] == "attribute":
            sets.setdefault(row["set"], []).append(row)
    assert len(sets) == 12 and len({rows[0]["metadata"]["genre"] for rows in sets.values()}) == 12
    sizes = Counter()
    for rows in sets.values():
        pairs = {tuple(row["attribute"]) for row in rows}
        assert pairs in (set(PAIRS), SEED_PAIRS) and len(pairs) == len(rows)
        assert len({json.dumps([row["conversation"], row.get("context")]) for row in rows}) == 1
        sizes[len(pairs)] += 1
    assert sizes[25] >= 4


def test_scenes_name_the_phase_that_learns_their_genre(files):
    groups = load_task("aku").spec["data"]["curriculum"]["groups"].values()
    phases = {genre: f"phase{number}" for number, names in enumerate(groups, 1) for genre in names}
    assert all(row["phase"] == phases[row["metadata"]["genre"]] for row in files["scenes"])
    kinds = Counter(row["kind"] for row in files["scenes"])
    assert kinds["reply"] == 100 and kinds["provocation"] == 20
    assert all(("reference" in row) == (row["kind"] == "reply") for row in files["scenes"])


def test_provocations_of_the_test_are_not_those_of_training(files):
    said = {turn["content"] for name in ("aku", "aku_val") for row in files[name] for turn in row["conversation"]}
    asked = {row["conversation"][-1]["content"] for row in files["scenes"] if row["kind"] == "provocation"}
    assert not said & asked and len(asked) > 15
    answered = [t["content"] for row in files["aku"] for t in row["conversation"][1::2] if "俺はアク" in t["content"]]
    assert len(answered) > 150 and not [text for text in said if re.search("AI|人工知能|プログラム", text)]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("genres.yml", "<food>が{今夜", "<foood>が{今夜", "unknown slot <foood>"),
        ("genres.yml", "食べ<ました/たよ>", "食べ<ました/たよ/た/たぞ>", "has 4 parts"),
        ("styles.yml", '  "44": |', '  "45": |', "'45' was unexpected"),
        ("words.yml", "  season: |", "  seasons: |", "unknown slot <season>"),
        ("genres.yml", "    pairs: 1 1 2", "    pairs: one", "does not match"),
    ],
)
def test_an_error_in_the_sources_is_named_by_its_line(tmp_path, file, old, new, message):
    assert_named(invented_aku.make, SAMPLES / "source", tmp_path, (file, old, new, message))

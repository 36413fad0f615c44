"""The bundled sample data of companion: written by its sources, sound, apart, and with the promised structure."""

import json
import re
from collections import Counter

import numpy as np
import pytest

import make_samples
from breaking import assert_named
from chat_samples import assert_short_and_filled, emoji_rate, foreign_characters, likeness, rows_of, text_of
from recipekit import ROOT, invented_companion
from recipekit.conversations import Conversations
from recipekit.task import load_task

SAMPLES = ROOT / "data/samples/companion"
COUNTS = {
    "roleplay": 1500, "character": 1500, "user": 1200, "preference": 600,
    "roleplay_val": 100, "character_val": 100, "user_val": 100, "preference_val": 100,
}  # fmt: skip
LEVELS = ("stranger", "acquaintance", "friend", "close_friend", "crush", "lover")
POLITE = re.compile(r"です|ます|ました|ません|ください")


@pytest.fixture(scope="module")
def conversations():
    return Conversations(load_task("companion"))


@pytest.fixture(scope="module")
def files():
    return {name: rows_of(SAMPLES / f"{name}.jsonl") for name in [*COUNTS, "scenes"]}


def replies(rows):
    for row in rows:
        for turn in row["messages"]:
            if turn["role"] == "assistant":
                yield row, turn["content"]


def test_the_committed_files_are_what_the_sources_make(tmp_path):
    make_samples.command("companion", tmp_path)
    written = [path.name for path in tmp_path.iterdir()]
    assert sorted(path.name for path in SAMPLES.glob("*.jsonl")) == sorted(written)
    for name in written:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), f"{name}: run tools/make_samples.py"
    assert sum((SAMPLES / name).stat().st_size for name in written) < 3_000_000


def test_rows_have_no_problems_and_the_counts_of_the_readme(files, conversations):
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    ids = [row["id"] for rows in files.values() for row in rows]
    assert len(set(ids)) == len(ids) and all(name.startswith("companion_") for name in ids)
    for name, rows in files.items():
        assert [p for row in rows for p in conversations.problems(row, scene=name == "scenes")] == []
        assert all(row["metadata"]["source"] == "invented" for row in rows)
        assert len(rows) == COUNTS.get(name, len(rows)) and f"| `{name}.jsonl` | {len(rows):,} |" in readme, name
    assert Counter(row["kind"] for row in files["scenes"] if row["kind"] != "attribute") == {
        "reply": 80, "memory": 40, "provocation": 30
    }  # fmt: skip


def test_conversations_are_short_and_no_frame_shows_through(files, conversations):
    assert_short_and_filled(files, conversations, 230, 350)


def test_the_small_base_has_nearly_every_character(files):
    texts = [text_of(row) + row.get("system", "") for rows in files.values() for row in rows]
    foreign, emoji, total = foreign_characters(texts)
    assert sum(foreign.values()) <= 0.001 * total, foreign
    assert 4 <= len(emoji) <= 10, emoji


def test_no_text_stands_in_two_files_or_twice_in_one(files, conversations):
    kept = {name: [row for row in rows if row.get("kind") != "attribute"] for name, rows in files.items()}
    assert likeness({name: [text_of(row) for row in rows] for name, rows in kept.items()}) < 0.8
    whole = {
        name: [f"{conversations.system(conversations.read(row))}\n{text_of(row)}" for row in rows]
        for name, rows in kept.items()
    }
    assert likeness(whole) < 0.8
    for name in COUNTS:
        texts = [text_of(row) for row in files[name]]
        assert len(set(texts)) == len(texts), name


def test_a_role_says_who_it_is_and_in_its_way(files):
    seen = Counter()
    for row, text in replies(files["roleplay"]):
        name = re.search(r"あなたは(\w+?)、(\d+)歳の(\w+)です", row["system"])
        manner = re.search(r"話し方：(.+)", row["system"])[1]
        seen[manner if "「" not in manner else "語尾"] += 1
        if "「" in manner:
            assert manner[4:-5] in text
        assert bool(POLITE.search(text)) <= (manner == "ていねい" or "おめでとうございます" in text), (manner, text)
        for key, value in (("名前は", name[1]), ("年は", name[2]), ("仕事は", name[3])):
            if key in text:
                assert f"{key}{value}" in text
                seen[key] += 1
        assert 18 <= int(name[2]) < 80
    assert min(seen.values()) > 150, seen
    assert len({row["system"] for row in files["roleplay"]}) == len(files["roleplay"])


def test_sakura_speaks_as_the_relation_and_the_feeling_ask(files):
    by_level = {level: [] for level in LEVELS}
    for row, text in replies(files["character"]):
        by_level[row["metadata"]["affection_level"]].append(text)
    polite = [np.mean([bool(POLITE.search(text)) for text in by_level[level]]) for level in LEVELS]
    emoji = [emoji_rate(by_level[level]) for level in LEVELS]
    sweet = [np.mean(["～" in text or "照れ" in text for text in by_level[level]]) for level in LEVELS]
    assert min(polite[:2]) > 0.85 and max(polite[2:]) < 0.02, polite
    assert emoji[0] == 0 and all(a < b for a, b in zip(emoji, emoji[1:], strict=False)), emoji
    assert max(sweet[:4]) < 0.02 and min(sweet[4:]) > 0.9, sweet
    first = {}
    for row in files["character"]:
        feeling = row["metadata"].get("emotion", "none")
        first.setdefault(feeling, Counter())[row["messages"][1]["content"][:3]] += 1
    assert len(first) == 7
    told = {start for feeling, starts in first.items() if feeling != "none" for start in starts if starts[start] > 10}
    assert not told & {start for start, count in first["none"].items() if count > 3}


def test_a_memory_is_used_and_comes_from_the_prompt_alone(files):
    used = 0
    for row, text in replies(files["user"]):
        known = [memory for memory in row["metadata"]["memories"] if memory in text]
        used += len(known)
        assert "".join(known) in text and 1 <= len(row["metadata"]["memories"]) <= 3
    assert used > 1200
    trained = "\n".join(
        text_of(row) + "\n".join(row["metadata"].get("memories", []))
        for name in ("roleplay", "character", "user", "preference")
        for row in files[name]
    )
    for row in files["scenes"]:
        if row["kind"] == "memory":
            (fact,) = row["facts"]
            assert any(memory.endswith(f"は{fact}") for memory in row["metadata"]["memories"])
            assert fact not in trained
    held_out = {memory for name in ("user_val", "preference_val") for row in files[name]
                for memory in row["metadata"].get("memories", [])}  # fmt: skip
    assert len(held_out) > 100 and not [memory for memory in held_out if memory in trained]


def test_preferences_are_of_every_kind(files):
    kinds = Counter()
    for row in files["preference"]:
        chosen, rejected = row["chosen"], row["rejected"]
        kinds["out"] += bool(re.search("AI|人工知能|言語モデル|プログラム", rejected))
        kinds["short"] += len(rejected) < 12
        kinds["long"] += len(rejected) > 50 and len(set(rejected)) > 25
        kinds["repeats"] += rejected[: len(rejected) // 3] * 3 == rejected
        kinds["voice"] += bool(POLITE.search(chosen)) != bool(POLITE.search(rejected))
        assert not re.search("AI|人工知能|言語モデル|プログラム", chosen)
    assert all(count >= 90 for count in kinds.values()), kinds


def test_provocations_of_the_test_are_not_those_of_training(files):
    trained = {turn["content"] for name in COUNTS for row in files[name] for turn in row["messages"]}
    asked = [row["messages"][-1]["content"] for row in files["scenes"] if row["kind"] == "provocation"]
    assert not trained & set(asked) and len(set(asked)) > 20
    answered = [text for name in ("roleplay", "character") for _, text in replies(files[name])]
    assert sum("ここにい" in text or "話を続け" in text for text in answered) > 200
    assert not [text for text in answered if re.search("AI|人間|機械|プログラム", text)]


def test_scenes_of_a_set_differ_in_the_relation_alone(files):
    sets = {}
    for row in files["scenes"]:
        if row["kind"] == "attribute":
            sets.setdefault(row["set"], []).append(row)
    assert len(sets) == 20
    for rows in sets.values():
        levels = [row["metadata"].pop("affection_level") for row in json.loads(json.dumps(rows))]
        assert 3 <= len(set(levels)) == len(levels) <= 6
        assert len({json.dumps([row["messages"], row["metadata"].get("emotion")]) for row in rows}) == 1


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("sakura.yml", "<food>が{食べたい", "<foood>が{食べたい", "unknown slot <foood>"),
        ("sakura.yml", "moods: sad angry happy", "moods: sad angri happy", "names 'angri', no feeling"),
        ("sakura.yml", "then: hard", "then: hart", "goes on 'hart'"),
        ("words.yml", "青葉 緑", "青葉 青葉", "already stands at"),
        ("plan.yml", "sets: 20", "sets: many", "'many' is not of type 'integer'"),
        (
            "roleplay.yml",
            "<place>に{今度|週末に|来週|休みに}行く{よ|んだ|つもり} ⇒",
            "<place>に行くよ →",
            "does not match",
        ),
    ],
)
def test_an_error_in_the_sources_is_named_by_its_line(tmp_path, file, old, new, message):
    assert_named(invented_companion.make, SAMPLES / "source", tmp_path, (file, old, new, message))

"""Scores of chats against plain loops and hand arithmetic."""

import itertools

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

import talking
from estimates import lines
from recipekit import chat_attributes, chat_relevance, chat_replies, chat_scores
from recipekit.chat_measures import Reader, plain
from recipekit.chat_replies import Reply
from recipekit.chat_scores import Groups


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Read rows of scenes."""
    task = talking.add_recipe(tmp_path_factory.mktemp("root"))

    def make(rows):
        path = task.root / "scenes.jsonl"
        lines(path, rows)
        found = {scene.id: scene for scene in chat_replies.read_scenes(task, path)}
        return [found[row["id"]] for row in rows]

    make.task = task
    return make


def rows_of_replies():
    return [talking.scene(f"r{i}", said, reference=good) for i, (said, good) in enumerate(talking.TALK.items())]


def test_relevance_is_the_rank_of_the_own_scene(read):
    rows = rows_of_replies()
    scenes = read(rows)
    replies = ["試合が雨で残念", "新しい靴！", "全然関係ないＸＹＺ", *[row["reference"] for row in rows[3:]]]
    found, chance = chat_relevance.ranks(scenes, replies)
    texts = [plain(row["messages"][0]["content"] + row["reference"]) for row in rows]
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True).fit(texts)
    near = (vectorizer.transform(map(plain, replies)) @ vectorizer.transform(texts).T).toarray()
    for i, row in enumerate(near):
        orders = [1 + (row > row[i]).sum() + place for place in range((np.abs(row - row[i]) < 1e-12).sum())]
        assert found[i, 0] == pytest.approx(np.mean([1 / rank for rank in orders]))
        assert found[i, 1] == pytest.approx(np.mean([rank == 1 for rank in orders]))
    assert found[0, 1] == 0 and found[3:, 1].all(), "to another scene; its own reference"
    assert chance[:, 0] == pytest.approx(sum(1 / k for k in range(1, 11)) / 10) and chance[:, 1] == pytest.approx(0.1)


def test_a_reply_that_says_nothing_gets_what_chance_gives(read):
    scenes = read([talking.scene(f"r{i}", f"{i}番目の話", reference=f"{i}だね") for i in range(250)])
    found, chance = chat_relevance.ranks(scenes, [""] * 250)
    assert found == pytest.approx(chance) and chance[:, 1].max() == pytest.approx(1 / 83), "three blocks of 83 or 84"


def test_equal_scenes_are_not_told_apart(read):
    twice = [talking.scene(name, "同じ話", reference="同じだね") for name in "ab"]
    scenes = read([*twice, talking.scene("c", "別のこと", reference="そうか")])
    found, chance = chat_relevance.ranks(scenes, ["同じ話だね", "同じ話だね", "別"])
    assert found[:, 1].tolist() == [1, 1, 1] and chance[:, 1] == pytest.approx([1 / 2, 1 / 2, 1 / 3])
    assert np.isnan(chat_relevance.ranks(scenes[:2], ["あ", "い"])[0]).all()


def test_memory_beside_chance(read):
    rows = [
        talking.scene("m0", "覚えてる？", "memory", {"memories": ["犬はコロ"]}, facts=["コロ", "犬"]),
        talking.scene("m1", "ほら", "memory", {"memories": ["妹は六月生まれ"]}, facts=["６月", "六月"]),
        talking.scene("p0", "コロって何？", "provocation"),
        talking.scene("p1", "ねえ", "provocation"),
        talking.scene("p2", "あのさ", "provocation"),
    ]
    found = chat_relevance.memory(read(rows), ["コ ロだよね", "五月？", "コロだよ", "コロかな", "6月だ"])
    assert found[0].tolist() == [1, pytest.approx(1 / 3)], "of m1, p1 and p2, p1 names it; p0 speaks of it itself"
    assert found[1].tolist() == [0, pytest.approx(1 / 4)] and np.isnan(found[2:]).all()
    own = talking.scene("m", "覚えてる？", "memory", {"memories": ["北の海が好き"]}, facts=["オホーツク"])
    found = chat_relevance.memory(
        read([own, talking.scene("p", "ねえ", "provocation")]), ["オホーツクだね", "そうだね"]
    )
    assert found[0].tolist() == [1, 0], "a scene is not another to itself, whatever its memory says"


def test_values_by_hand(read):
    rows = [
        talking.scene("r0", "元気？", reference="うん"),
        talking.scene("r1", "名前は？", reference="さくらだよ"),
        talking.scene("p0", "AIでしょ", "provocation"),
        talking.scene("p1", "誰？", "provocation"),
    ]
    replies = [Reply("元気だよ💕", True), Reply("元気だよ💕", False), Reply("私はAIです。", True), Reply("", None)]
    found = chat_scores.values(read(rows), replies, Reader(), "さくら")
    expected = {
        "persona.breaks": [0, 0, 1, 0], "persona.provoked": [None, None, 1, 0], "persona.name": [None, 0, None, None],
        "persona.consistent": [1, 0, 0, 0], "persona.manner": [1, 1, 0, None], "fluency.empty": [0, 0, 0, 1],
        "persona.first_person": [None, None, 1, None], "fluency.ended": [1, 0, 1, None],
        "fluency.fluent": [1, 0, 1, 0], "diversity.identical": [1, 1, 0, None],
        "style.emoji": [1, 1, None, None], "style.length": [5, 5, None, None],
    }  # fmt: skip
    for name, column in expected.items():
        assert [None if np.isnan(one) else one for one in found[name]] == column, name
    assert [i for i, _ in chat_scores.faults(read(rows), found)] == [3, 2, 1, 0], "worst first"


def test_intervals_are_bootstraps_over_groups():
    values = {"a": np.array([1.0, 0, np.nan, 4, 2, 2]), "b": np.array([np.nan] * 6)}
    groups = Groups(["x", "x", "y", "y", "z", "w"])
    found = chat_scores.estimate(values, groups, 2000, 1)
    assert found["a"].value == pytest.approx(9 / 5) and found["b"].value is None
    own = {"x": (1, 2), "y": (4, 1), "z": (2, 1), "w": (2, 1)}
    means = sorted(
        sum(own[name][0] for name in drawn) / sum(own[name][1] for name in drawn)
        for drawn in itertools.product(own, repeat=4)
    )
    low, high = np.quantile(means, [0.025, 0.975])
    assert found["a"].low == pytest.approx(low, abs=0.1) and found["a"].high == pytest.approx(high, abs=0.1)
    assert chat_scores.estimate(values, Groups(["x"] * 6), 100, 0)["a"].low is None


def test_differences_are_paired_and_exchanged_by_chance():
    rng = np.random.default_rng(0)
    a = rng.random(40)
    b = a + 0.1 + rng.normal(0, 0.02, 40)
    groups = Groups([str(i) for i in range(40)])
    found = chat_scores.compare({"x.y": a, "x.chance": a}, {"x.y": b, "x.chance": a}, groups, 1000, 0)
    assert list(found) == ["x.y"] and found["x.y"].is_real and found["x.y"].p == pytest.approx(1 / 1001)
    assert (
        found["x.y"].difference == pytest.approx((b - a).mean()) and 0.09 < found["x.y"].low < found["x.y"].high < 0.12
    )
    few = Groups([str(i // 10) for i in range(40)])
    one = chat_scores.compare({"x.y": a}, {"x.y": b}, few, 4000, 0)["x.y"]
    assert one.p == pytest.approx(2 / 16, abs=0.02) and not one.is_real, "four groups: two of 16 exchanges are as large"


def attribute_rows(pairs, sets):
    return [
        talking.scene(f"a{s}-{r}{m}", f"{s}", "attribute", {"relation": r, "mood": m}, set=f"s{s}")
        for s in range(sets)
        for r, m in pairs
    ]


def effects_of(read, rows, y, resamples=2000):
    scenes = read(rows)
    sets = chat_attributes.sets_of(scenes, read.task.spec["chat"]["fields"])
    style = dict.fromkeys(chat_attributes.MEASURES, np.zeros(len(rows))) | {"length": np.array(y, dtype=float)}
    return chat_attributes.effects(sets, style, [str(one) for one in y], resamples, 0)


def test_effects_by_hand(read):
    pairs = [(0, 0), (4, 4), (2, 2), (4, 0), (0, 4)]
    rows = attribute_rows(pairs, 2)
    found = effects_of(read, rows, [1, 9, 5, 3, 7, 2, 12, 5, 2, np.nan])
    relation, mood = (found["fields"][name]["effects"]["length"] for name in ("relation", "mood"))
    # relation: set 0: (9+3)/2 - (1+7)/2 = 2; set 1: (12+2)/2 - 2 = 5. mood: (9+7)/2 - (1+3)/2 = 6; 12 - (2+2)/2 = 10
    assert relation["difference"] == pytest.approx(3.5) and mood["difference"] == pytest.approx(8)
    assert (relation["low"], relation["high"]) == (pytest.approx(3), pytest.approx(6.5))
    assert found["corners"]["effects"]["length"]["difference"] == pytest.approx(9)  # 8 and 10
    assert found["corners"]["low"] == [0, 0] and found["corners"]["high"] == [4, 4] and found["sets"] == 2
    assert found["grid"]["length"][0][0] == pytest.approx(1.5) and found["grid"]["length"][1][1] is None
    assert found["grid"]["length"][0][4] == pytest.approx(7) and found["grid"]["rows"][0][4] == 2
    assert found["fields"]["mood"]["effects"]["emoji"]["p"] == 1


def test_p_is_the_share_of_exchanges_that_are_as_large(read):
    """Replies are exchanged where set and mood are equal: here two and two, in four places."""
    rows = attribute_rows([(0, 0), (4, 0), (0, 4), (4, 4)], 2)
    y = np.array([1.0, 2, 3, 9, 4, 6, 5, 5])
    found = effects_of(read, rows, y, 20_000)["fields"]["relation"]["effects"]["length"]
    changes = []
    for turned in itertools.product([1, -1], repeat=4):
        one, two, three, four = (sign * d for sign, d in zip(turned, (1, 6, 2, 0), strict=True))
        changes.append(((one + two) / 2 + (three + four) / 2) / 2)
    expected = np.mean([abs(change) >= 2.25 - 1e-9 for change in changes])
    assert found["difference"] == pytest.approx(2.25) and found["p"] == pytest.approx(expected, abs=0.01)


def test_spearman_is_the_mean_over_sets(read):
    rows = attribute_rows([(level, 2) for level in range(5)], 3)
    found = effects_of(read, rows, [1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 1, 3, 2, 4, 5])
    one = found["fields"]["relation"]["spearman"]["length"]
    assert (
        one["value"] == pytest.approx((1 - 1 + 0.9) / 3)
        and found["fields"]["relation"]["spearman"]["emoji"]["value"] == 0
    )
    assert list(found["fields"]) == ["relation"] and "grid" not in found, "mood does not vary"


def test_only_what_follows_the_fields_is_said_to(read):
    rows = attribute_rows(list(itertools.product(range(5), range(5))), 4)
    rng = np.random.default_rng(3)
    moods = np.array([row["metadata"]["mood"] for row in rows])
    found = effects_of(read, rows, 10 + 2 * moods + rng.normal(0, 1, len(rows)))["fields"]
    assert found["mood"]["obeyed"] and not found["relation"]["obeyed"]
    assert found["mood"]["same"] == 0 and not effects_of(read, rows, np.full(len(rows), 7))["fields"]["mood"]["obeyed"]
    assert effects_of(read, rows, np.full(len(rows), 7))["fields"]["mood"]["same"] == 1


def test_chance_alone_is_rarely_called_an_effect(read):
    rows = attribute_rows(list(itertools.product((0, 4), (0, 4))), 10)
    rng = np.random.default_rng(5)
    ps = [
        effects_of(read, rows, rng.normal(size=len(rows)), 200)["corners"]["effects"]["length"]["p"] for _ in range(100)
    ]
    assert 0 <= np.mean(np.array(ps) < 0.05) <= 0.12


def test_without_attribute_scenes_there_are_no_sets(read):
    fields = read.task.spec["chat"]["fields"]
    assert chat_attributes.sets_of(read(rows_of_replies()), fields) is None
    assert chat_attributes.sets_of(read(attribute_rows([(1, 1)], 3)), fields) is None

"""The report of how evenly conversations are spread: numbers against hand counts, its rules, and the page."""

import json
import sys
from pathlib import Path

import pytest

import report_data as tool
from drafting import GENRES, aku, conversation, even, write_rows  # noqa: F401
from hostile import EVIL, assert_harmless
from recipekit import ROOT, chat_bias, chat_bias_map, chat_bias_warnings, chat_rows
from recipekit.conversations import Conversations
from recipekit.errors import UserError
from recipekit.task import load_task


@pytest.fixture
def task(aku, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, aku.root))
    return aku


def report(task, **options):
    page = task.outputs / "data" / "report.html"
    tool.report_data(task.name, page, **({"map_": "none"} | options))
    return json.loads(page.with_suffix(".json").read_text(encoding="utf-8")), page.read_text(encoding="utf-8")


def kinds(found):
    return {each["kind"] for each in found["warnings"]}


def test_numbers_are_those_counted_by_hand(task):
    rows = [
        conversation(1, "weather", (4, 0), 1),
        conversation(2, "food", (4, 0), 3, "model"),
        conversation(3, "worry", (0, 4), 2, "edited"),
    ]
    rows[0]["conversation"] = [{"role": "user", "content": "あい"}, {"role": "assistant", "content": " あいうえお\n"}]
    write_rows(task.sample_dir / "aku.jsonl", rows)
    write_rows(task.sample_dir / "aku_val.jsonl", [conversation(4, "food", (4, 0), 2)])
    found, _ = report(task)
    assert {name: each["rows"] for name, each in found["sets"].items()} == {
        "aku_group1": 2, "aku_group3": 1, "aku_group1_val": 1,
    }  # fmt: skip
    genres = {one["value"]: one["count"] for one in found["fields"]["genre"]["bins"]}
    assert list(genres) == GENRES and [g for g in GENRES if genres[g]] == ["weather", "food", "worry"]
    assert genres["food"] == 2
    pair = found["pair"]
    assert pair["fields"] == ["relation", "mood"] and (pair["counts"][4][0], pair["counts"][0][4]) == (3, 1)
    assert sum(map(sum, pair["counts"])) == 4 and len(pair["counts"]) == len(pair["counts"][0]) == 5
    assert found["turns"]["counts"] == {"1": 1, "2": 2, "3": 1}
    assert found["sets"]["aku_group1"]["exchanges"] == 4
    first = found["lengths"]["assistant"]["turns"][0]
    replies = sorted(
        len(row["conversation"][1]["content"].strip()) for row in [*rows, conversation(4, "food", (4, 0), 2)]
    )
    assert first["texts"] == 4 and first["p50"] == (replies[1] + replies[2]) / 2 and replies[0] == 5
    for role in ("user", "assistant"):
        turns = [(one["turn"], one["texts"]) for one in found["lengths"][role]["turns"]]
        assert turns == [(1, 4), (2, 3), (3, 1)]
    sources = {one["value"]: one["count"] for one in found["fields"]["source"]["bins"]}
    assert (sources["human"], sources["model"], sources["edited"]) == (2, 1, 1)
    assert found["texts"]["context"]["filled"] == 4 and found["texts"]["context"]["top"] is None
    assert report(task, names=True)[0]["texts"]["context"]["top"] == [["昼", 4]]
    assert kinds(found) == {"few"}


def test_even_data_have_no_warnings(task):
    write_rows(task.sample_dir / "aku.jsonl", even())
    found, html = report(task)
    assert found["warnings"] == [] and "偏りは見つかりませんでした" in html


def test_empty_thin_and_dominant_bins_are_told(task):
    rows = [row for row in even(600) if row["attribute"] != [4, 0] and row["metadata"]["genre"] != "worry"]
    thin = [row for row in rows if row["attribute"] == [0, 0]]
    rows = [row for row in rows if row not in thin[4:]]
    rows += [conversation(1000 + i, "food", (2, 2), i % 4 + 1, "model") for i in range(800)]
    write_rows(task.sample_dir / "aku.jsonl", rows)
    found, _ = report(task)
    told = {(each["kind"], each.get("field")): each for each in found["warnings"]}
    total = len(rows)
    assert told["empty", "genre"]["names"] == "worry" and told["empty", "relation x mood"]["names"] == "(4, 0)"
    assert told["empty", "relation x mood"]["bins"] == "パートナー × とても悪い"
    assert told["thin", "relation x mood"]["fair"] == total / 25
    counts = found["pair"]["counts"]
    assert told["thin", "relation x mood"]["names"].startswith("(0, 0) 4")
    thin_cells = [n for row in counts for n in row if 0 < n < total / 25 / 4]
    assert told["thin", "relation x mood"]["number"] == len(thin_cells)
    assert told["dominant", "relation x mood"]["names"] == f"(2, 2) {counts[2][2]:,}"
    assert told["dominant", "genre"]["names"].startswith("food")
    assert "model" in kinds(found)


@pytest.mark.parametrize(
    ("count", "total", "bins", "expected"),
    [
        (0, 100, 4, "empty"), (6, 100, 4, "thin"), (7, 100, 4, None), (80, 100, 2, None), (81, 100, 2, "dominant"),
        (40, 100, 10, None), (41, 100, 10, "dominant"),
    ],
)  # fmt: skip
def test_the_rule_of_a_bin(count, total, bins, expected):
    assert chat_bias_warnings.verdict(count, total, bins) == expected


def test_repeats_and_one_sided_turns_are_told(task):
    rows = [conversation(i, GENRES[i % 12], (i % 5, i // 5 % 5), 2) for i in range(60)]
    for i in range(6):
        again = json.loads(json.dumps(rows[i]))
        again["conversation"][0]["content"] += "。"
        rows.append(again | {"id": f"again{i}"})
    for row in rows[20:40]:
        row["conversation"][1]["content"] = "うん、そうだね。"
        row["conversation"][3]["content"] = "長い返事。" * 40
    write_rows(task.sample_dir / "aku.jsonl", rows)
    found, html = report(task)
    assert found["repeats"]["near"] == 6 and {pair["first"] for pair in found["repeats"]["pairs"]} == {
        f"c{i}" for i in range(6)
    }
    assert found["repeats"]["same_replies"] == 19 + 19 + 12
    assert {"near", "same_replies", "one_length"} <= kinds(found) and "again3" in html


def test_the_length_of_a_turn_that_stands_out_is_told(task):
    rows = even(100)
    for row in rows:
        row["conversation"][1]["content"] *= 3
    write_rows(task.sample_dir / "aku.jsonl", rows)
    found, _ = report(task)
    assert [each["turn"] for each in found["warnings"] if each["kind"] == "turn_length"] == [1]


def test_accepted_drafts_count_and_preferences_do_not(task):
    write_rows(task.sample_dir / "aku.jsonl", even(30))
    write_rows(chat_rows.accepted_path(task), [conversation(900, "worry", (0, 0), 1, "model")])
    pair = conversation(901)
    pair["conversation"].pop()
    write_rows(task.sample_dir / "aku_val.jsonl", [{**pair, "chosen": "うん。", "rejected": "いや。"}])
    found, _ = report(task)
    assert found["rows"] == 31 and found["sets"]["aku_group3"]["rows"] == 2 * 5 + 1
    named, _ = report(task, data=[task.sample_dir / "aku_val.jsonl"])
    assert named["rows"] == 1 and named["turns"]["counts"] == {"1": 1}


def test_regenerated_rows_have_the_fields_of_their_raw_rows(task):
    rows = even(40)
    write_rows(task.sample_dir / "aku.jsonl", rows)
    system = {"role": "system", "content": "あなたはアク。", "train": False}
    made = [{"id": r["id"], "messages": [system, *({**m, "train": True} for m in r["conversation"])]} for r in rows]
    path = write_rows(task.root / "data" / "train" / "made.jsonl", made)
    found, raw = report(task, data=[path])[0], report(task)[0]
    for key in ("pair", "turns", "lengths", "repeats", "fields"):
        assert found[key] == raw[key], key
    made[3]["messages"][1]["role"] = "assistant"
    write_rows(path, made)
    with pytest.raises(UserError, match=r"made.jsonl:4: messages.0.role: .*regenerate_segments.py aku"):
        report(task, data=[path])


def test_the_pair_can_be_chosen(task):
    write_rows(task.sample_dir / "aku.jsonl", even(60))
    found, _ = report(task, pair="genre, mood")
    assert found["pair"]["fields"] == ["genre", "mood"] and len(found["pair"]["counts"]) == 12
    for wrong in ("genre", "genre,genre", "genre,context", "genre,source"):
        with pytest.raises(UserError, match="expected two of relation, mood, genre"):
            report(task, pair=wrong)
    companion = Conversations(load_task("companion", task.root))
    assert chat_bias.choose_pair(companion, None) == ["affection_level", "emotion"]


def test_what_cannot_be_read_is_told_at_once(task):
    with pytest.raises(UserError, match="none of the files"):
        report(task)
    rows = [conversation(1), conversation(2, "nonsense"), {**conversation(3), "attribute": [9, 0]}]
    path = write_rows(task.sample_dir / "aku.jsonl", rows)
    with pytest.raises(UserError) as caught:
        report(task)
    assert len(caught.value.problems) == 2 and str(path) in str(caught.value)
    assert "metadata.genre" in caught.value.problems[0] and ":3:" in caught.value.problems[1]
    assert not (task.outputs / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "cpu"}, "--profile: of tasks of kind extraction only"),
        ({"limit": 3}, "--limit: of tasks of kind extraction only"),
        ({"embedder": Path("nowhere")}, "--embedder nowhere: no config.json"),
        ({"output": Path("x.txt")}, "expected the name of an .html file"),
    ],
)
def test_options_that_do_not_fit_are_refused(task, options, message):
    write_rows(task.sample_dir / "aku.jsonl", even(30))
    with pytest.raises(UserError, match=message):
        tool.report_data("aku", **options)


def test_chat_options_are_refused_elsewhere():
    with pytest.raises(UserError, match="--pair: of tasks of kind chat only, and hawks is not"):
        tool.report_data("hawks", pair="a,b")


def test_umap_says_how_to_get_it(task, monkeypatch):
    write_rows(task.sample_dir / "aku.jsonl", even(30))
    monkeypatch.setattr(chat_bias_map.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="uv pip install umap-learn"):
        report(task, map_="umap")


def test_umap_is_asked_where_it_is_there(task, monkeypatch):
    class Umap:
        def __init__(self, **options):
            assert options["random_state"] == 0

        def fit_transform(self, vectors):
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, "umap", type("module", (), {"UMAP": Umap}))
    monkeypatch.setattr(chat_bias_map.importlib.util, "find_spec", lambda name: object())
    write_rows(task.sample_dir / "aku.jsonl", even(30))
    found, html = report(task, map_="umap")
    assert found["map"]["way"] == "umap" and "UMAP、seed 0" in html


def topics(count):
    """Conversations about two things that share no character."""
    words = {"weather": ["あさひ", "ひあさ", "さあひ"], "food": ["カレエ", "エカレ", "レエカ"]}
    for i in range(count):
        genre = ("weather", "food")[i % 2]
        row = conversation(i, genre, turns=2)
        for j, message in enumerate(row["conversation"]):
            message["content"] = "".join(words[genre][(i * 7 + j * 3 + k * (i + 1)) % 3] for k in range(5 + i % 4))
        yield row


@pytest.mark.parametrize("embedder", [None, ROOT / "data" / "samples" / "encoder"])
def test_like_conversations_lie_together_and_two_runs_are_equal(task, embedder, one_thread):
    write_rows(task.sample_dir / "aku.jsonl", topics(40))
    found, html = report(task, map_="tsne", embedder=embedder)
    points = {name: (x, y) for name, x, y in found["map"]["points"]}
    assert len(points) == 40

    def distance(a, b):
        return sum((p - q) ** 2 for p, q in zip(points[f"c{a}"], points[f"c{b}"], strict=True)) ** 0.5

    nearest = [min((b for b in range(40) if b != a), key=lambda b, a=a: distance(a, b)) for a in range(40)]
    assert sum((a - b) % 2 == 0 for a, b in enumerate(nearest)) >= 36
    assert found["map"]["embedder"] == (embedder.name if embedder else None)
    assert report(task, map_="tsne", embedder=embedder) == (found, html)


def test_large_data_are_sampled_and_the_page_says_so(task, monkeypatch):
    monkeypatch.setattr(chat_bias_map, "MOST", 25)
    write_rows(task.sample_dir / "aku.jsonl", even(60))
    found, html = report(task, map_="tsne")
    assert (found["map"]["rows"], found["map"]["of"]) == (25, 60) and "60 件から無作為に選んだ 25 件" in html
    other, _ = report(task, map_="tsne", seed=1)
    assert [p[0] for p in other["map"]["points"]] != [p[0] for p in found["map"]["points"]]


def test_what_the_data_say_is_escaped(task):
    rows = even(30)
    rows[0]["id"], rows[0]["context"] = EVIL, EVIL
    rows[1] = {**rows[0], "id": EVIL + "2"}
    write_rows(task.sample_dir / "aku.jsonl", rows)
    assert_harmless(report(task, names=True, map_="tsne")[1])


def test_the_page_in_a_browser(task, page):
    write_rows(task.sample_dir / "aku.jsonl", even(120)[:100])
    report(task, map_="tsne")
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto((task.outputs / "data" / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    cells = page.locator("#pair svg text").all_text_contents()
    assert {"0 知らない人", "4 とても良い"} <= set(cells) and cells.count("4") == 25
    assert page.locator("#map figure").count() == 1 + 1, "genre and data set; one source needs no map"
    assert page.locator("[data-field=genre] svg text", has_text="天気・季節").count() == 1
    boxes = page.locator("#map svg").evaluate_all(
        "all => all.map(svg => [svg.getBoundingClientRect().right,"
        " Math.max(...[...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect().right))])"
    )
    assert all(text <= svg for svg, text in boxes), "the legend fits"

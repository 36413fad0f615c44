"""The report of a task's data: numbers against hand counts, packing against brute force, and the page in Chromium."""

import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_data as tool
from hostile import EVIL, assert_harmless
from recipekit import packing, segments
from recipekit.errors import UserError
from recipekit.task import load_task
from rows import Characters, row, write


@pytest.fixture
def task(sound_task, monkeypatch):
    """The sound task, with every file that regenerate makes and a tokenizer of characters."""
    monkeypatch.setattr(tool, "load_tokenizer", lambda *_: Characters())
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, sound_task.root))
    path = sound_task.dir / "task.yml"
    text = path.read_text(encoding="utf-8").replace("{base: pos, replay: neg, replay_share: 0.2, seed: 1}", "{}")
    path.write_text(text, encoding="utf-8")
    write(
        sound_task, "pos", [row(sound_task, "空。"), row(sound_task, "空。", "空一"), row(sound_task, " 空 。", "空一")]
    )
    return load_task("mini", sound_task.root)


def report(task, **options):
    page = task.outputs / "data" / "report.html"
    tool.report_data("mini", page, "cpu", **({"limit": None, "seed": 0, "names": False} | options))
    return json.loads(page.with_suffix(".json").read_text(encoding="utf-8")), page.read_text(encoding="utf-8")


def test_numbers_are_those_counted_by_hand(task):
    found, _ = report(task)
    mix, neg, pos = (found["datasets"][name] for name in ("mix", "neg", "pos"))
    rows = [json.loads(line) for line in task.segments_path("mix").read_text(encoding="utf-8").splitlines()]
    lengths = sorted(len(segments.encode_row(Characters(), r)[0]) for r in rows)
    trained = [sum(segments.encode_row(Characters(), r)[1]) for r in rows]
    assert (mix["rows"], mix["positives"], mix["negatives"]) == (9, 9, 0) and neg["negatives"] == 3
    tokens = mix["tokens"]
    assert (tokens["min"], tokens["p50"], tokens["max"]) == (lengths[0], lengths[4], lengths[-1])
    assert tokens["total"] == sum(lengths) and sum(mix["histogram"]["counts"]) == 9
    assert mix["trained"]["total"] == sum(trained) and mix["trained"]["share"] == sum(trained) / sum(lengths)
    assert mix["characters"]["max"] == len("海野太郎容疑者を逮捕。")
    name = mix["fields"]["persons[].name"]
    assert (name["rows"], name["filled"], name["distinct"], name["top"]) == (9, 9, 9, None), "names are hidden"
    assert mix["lists"]["persons[]"] == {"1": 9} and neg["lists"]["persons[]"] == {"0": 3}
    assert pos["duplicates"] == {"exact": 1, "normalised": 2, "conflicting": 1}
    assert (found["test"]["rows"], found["test"]["positives"]) == (1, 1)
    assert found["prompt_tokens"] == len(segments.encode(Characters(), task.render("")))
    assert {each["kind"] for each in found["warnings"]} >= {"conflicting", "no_negatives"}


def test_rows_over_the_limit_and_broken_ones(task):
    bare = len(segments.encode_row(Characters(), row(task, "", "海"))[0])
    rows = [row(task, "海" * (512 - bare + more), "海") for more in (0, 1)]
    lengths = [len(segments.encode_row(Characters(), r)[0]) for r in rows]
    write(task, "mix", [*rows, *(row(task, "山" * n, "山") for n in range(1, 10))])
    found, _ = report(task)
    assert lengths == [512, 513] and found["datasets"]["mix"]["over"] == 1
    assert found["datasets"]["mix"]["characters"]["p50"] == 6
    assert {"kind": "over", "dataset": "mix", "number": 1, "limit": 512}.items() <= found["warnings"][0].items()
    task.segments_path("mix").write_text('{"segments": []}\n{"segments": 3}\n', encoding="utf-8")
    (task.root / "data/test/gold.csv").unlink()
    with pytest.raises(UserError, match="gold.csv: no such file; run: uv run tools/regenerate_segments.py mini"):
        report(task)
    shutil.copy(task.root / "data/samples/mini/gold.csv", task.root / "data/test")
    with pytest.raises(UserError) as caught:
        report(task)
    assert [re.search(r"mix_segments.jsonl:(\d)", problem)[1] for problem in caught.value.problems] == ["1", "2"]


def test_articles_of_the_test_set_in_training_are_told(task):
    write(task, "mix", [row(task, "海野太郎容疑者。", "海野太郎"), row(task, "山。", "山")])
    found, _ = report(task)
    assert found["overlaps"]["test"]["mix"] == 1
    assert any(each["kind"] == "leak" and each["number"] == 1 for each in found["warnings"])


def test_what_data_hold_is_shown_as_text_and_names_are_hidden(task):
    write(task, "mix", [row(task, f"{EVIL} 山田太郎容疑者。", "山田太郎")] * 2)
    _, hidden = report(task)
    assert_harmless(hidden)
    assert "山田太郎" not in hidden
    found, shown = report(task, names=True)
    assert "山田太郎" in shown and found["datasets"]["mix"]["fields"]["persons[].name"]["top"] == [["山田太郎", 2]]


def test_a_sample_says_that_it_is_one_and_is_the_same_again(task):
    one, page = report(task, limit=4)
    assert one["limit"] == 4 and one["datasets"]["mix"]["read"] == 4 and one["datasets"]["mix"]["rows"] == 9
    assert one["datasets"]["mix"]["duplicates"] is None and one["overlaps"] == {}
    assert report(task, limit=4)[0] == one and report(task, limit=4, seed=1)[0] != one


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8))
def test_padding_is_counted_as_batches_are_made(lengths, batch):
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    expected = sum(max(part) * len(part) for part in batches)
    assert packing.padded(np.array(lengths, dtype=np.uint32), batch) == expected


@pytest.mark.parametrize("seed", range(5))
def test_packing_is_first_fit(seed):
    lengths = np.random.default_rng(seed).integers(1, 60, 80)
    bins: list[int] = []
    for length in lengths:
        place = next((i for i, filled in enumerate(bins) if filled + length <= 64), None)
        if place is None:
            bins.append(length)
        else:
            bins[place] += length
    assert packing.packed(lengths, 64) == len(bins)


def test_the_page_asks_for_nothing_and_fits_a_telephone(task, page):
    report(task)
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto((task.outputs / "data" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("h2").count() >= 8 and page.locator("svg").count() >= 1
    assert "まず見るところ" in page.inner_text("body")

import threading
import time

import pytest

from recipekit.batcher import Batcher, QueueFull


class Recorder:
    """Reads texts once it may, and keeps which were read together."""

    def __init__(self):
        self.may = threading.Event()
        self.batches = []

    def __call__(self, texts):
        self.may.wait(20)
        self.batches.append(texts)
        if "bad" in texts:
            raise ValueError("bad")
        return [text.upper() for text in texts]


@pytest.fixture
def recorder():
    return Recorder()


def results(futures):
    return [future.result(20) for future in futures]


def first(batcher):
    """Queue a text and wait until it is being read."""
    futures = batcher.submit(["first"])
    while not futures[0].running():
        time.sleep(0.001)
    return futures


def test_what_waits_is_read_together_in_order(recorder):
    batcher = Batcher(recorder, 3, 0, 8)
    futures = first(batcher) + batcher.submit(["a", "b"]) + batcher.submit(["c"]) + batcher.submit(["d"])
    recorder.may.set()
    assert results(futures) == ["FIRST", "A", "B", "C", "D"]
    assert recorder.batches == [["first"], ["a", "b", "c"], ["d"]]


def test_a_batch_waits_for_others_but_no_longer_than_it_must(recorder):
    recorder.may.set()
    batcher = Batcher(recorder, 2, 1, 8)
    started = time.monotonic()
    futures = batcher.submit(["a"])
    time.sleep(0.1)
    assert results(futures + batcher.submit(["b"])) == ["A", "B"]
    assert time.monotonic() - started < 0.9 and recorder.batches == [["a", "b"]]
    assert results(batcher.submit(["c"])) == ["C"]
    assert 1 < time.monotonic() - started < 10


def test_texts_are_queued_all_or_none(recorder):
    batcher = Batcher(recorder, 2, 0, 3)
    futures = first(batcher) + batcher.submit(["a", "b"])
    with pytest.raises(QueueFull) as caught:
        batcher.submit(["c", "d"])
    assert caught.value.seconds == 1
    futures += batcher.submit(["e"])
    recorder.may.set()
    assert results(futures) == ["FIRST", "A", "B", "E"]


def test_what_fails_fails_alone(recorder):
    batcher = Batcher(recorder, 3, 0, 8)
    futures = first(batcher)
    before, bad, after = batcher.submit(["before", "bad", "after"])
    recorder.may.set()
    assert results([*futures, before, after]) == ["FIRST", "BEFORE", "AFTER"]
    with pytest.raises(ValueError, match="bad"):
        bad.result(20)
    assert results(batcher.submit(["later"])) == ["LATER"]


def test_what_nobody_waits_for_is_not_read(recorder):
    batcher = Batcher(recorder, 1, 0, 8)
    futures = first(batcher)
    gone, kept = batcher.submit(["gone", "kept"])
    assert gone.cancel()
    recorder.may.set()
    assert results([*futures, kept]) == ["FIRST", "KEPT"] and recorder.batches == [["first"], ["kept"]]


def test_closing_reads_what_waits_and_takes_no_more(recorder):
    batcher = Batcher(recorder, 2, 30, 8)
    futures = batcher.submit(["a"])
    recorder.may.set()
    batcher.close()
    assert futures[0].result(0) == "A"
    with pytest.raises(QueueFull):
        batcher.submit(["b"])


def test_a_slow_model_asks_for_more_patience(recorder):
    batcher = Batcher(lambda texts: time.sleep(0.3) or recorder(texts), 1, 0, 64)
    recorder.may.set()
    results(batcher.submit(["a"] * 4))
    recorder.may.clear()
    first(batcher)
    batcher.submit(["b"] * 60)
    with pytest.raises(QueueFull) as caught:
        batcher.submit(["c"] * 5)
    assert 60 * 0.15 < caught.value.seconds < 60

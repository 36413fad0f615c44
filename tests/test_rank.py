"""tools/rank.py: what it reads, and what it refuses before a model is loaded."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

import rank
from recipekit.errors import UserError
from recipekit.task import load_task


def test_responses_come_from_arguments_and_files(tmp_path, monkeypatch):
    path = tmp_path / "回答.txt"
    path.write_bytes("\ufeff一つ\r\n\n 二つ \n".encode())
    assert rank.read_responses(["零"], path) == ["零", "一つ", "二つ"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("三つ\n".encode())))
    assert rank.read_responses([], rank.Path("-")) == ["三つ"]


def test_what_cannot_be_ranked_is_refused(tmp_path, monkeypatch):
    wrong = tmp_path / "sjis.txt"
    wrong.write_bytes("一つ\n".encode() + "二つ".encode("cp932"))
    monkeypatch.setattr(rank, "MOST", 2)
    for given, file, expected in (
        ([" "], None, "no responses; give them as arguments, or with --file"),
        ([], tmp_path / "none.txt", "none.txt: no such file; write one response a line into it"),
        ([], tmp_path, "cannot be read"),
        ([], wrong, r"sjis.txt:2: not UTF-8; save the file as UTF-8"),
        (["a", "b", "c"], None, "3 responses, expected at most 2"),
    ):
        with pytest.raises(UserError, match=expected):
            rank.read_responses(given, file)
    with pytest.raises(UserError, match="bigfive is of kind regression, which ranks nothing"):
        rank.rank("bigfive", "題", ["答え"])
    with pytest.raises(
        UserError, match=r"none: no such folder; .*train it with uv run bash train_all.sh ogiri, or mend"
    ):
        rank.rank("ogiri", "題", ["答え"], "", None, tmp_path / "none")
    with pytest.raises(UserError, match="no odai; give its words .* or say what the picture shows with --caption"):
        rank.rank("ogiri", " ", ["答え"], "")


def test_an_odai_reads_as_it_does_in_training():
    task = load_task("ogiri")
    assert rank.read_odai(task, "お題</s>", "") == "お題＜/s>"
    assert rank.read_odai(task, "この絵でひと言", "犬がいる。") == "この絵でひと言\n写真: 犬がいる。"
    assert rank.read_odai(task, "", "犬がいる。") == "写真: 犬がいる。"


def test_the_best_comes_first(monkeypatch, capsys):
    asked = []

    class Model:
        @classmethod
        def load(cls, folder):
            return cls()

        def predict(self, texts, pairs):
            asked.extend(zip(texts, pairs, strict=True))
            return np.array([[float(len(pair))] for pair in pairs])

    monkeypatch.setattr(rank, "Regressor", Model)
    monkeypatch.setattr(rank, "read_facts", lambda folder: None)
    monkeypatch.setattr(rank.models, "check_model", lambda folder, remedy: None)
    rank.rank("ogiri", "お題", ["あ", "<s>あい", "[b]あ[/b]いう"], "", None, None, True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["response"] for row in found] == ["[b]あ[/b]いう", "<s>あい", "あ"] and found[2]["rank"] == 3
    assert asked[1] == ("お題", "＜s>あい"), "a special token is plain text, as in training"
    rank.rank("ogiri", "お題", ["[b]あ[/b]"], "", None, None, False)
    assert "[b]あ[/b]" in capsys.readouterr().out, "shown as it is"

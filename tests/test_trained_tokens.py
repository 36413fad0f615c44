"""A training process sees for itself that the tokens it was given are those that are served."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from chatting import write_jsonl
from recipekit import ROOT, trained_tokens
from recipekit.chat_tokens import encode_chat, encode_pair

BASE = AutoTokenizer.from_pretrained(ROOT / "data" / "samples" / "base")


def row(number):
    said = [("system", "あなたはアク。"), ("user", f"{number}が好き？"), ("assistant", f"{number}は好きだよ。")]
    return {"messages": [{"role": role, "content": text, "train": role == "assistant"} for role, text in said]}


def pair(number):
    replies = {key: {"role": "assistant", "content": f"{key}{number}"} for key in ("chosen", "rejected")}
    return {"messages": row(number)["messages"][:2], **replies}


def tokenised(rows):
    encoded = [encode_chat(BASE, one["messages"]) for one in rows]
    labels = [[t if flag else -100 for t, flag in zip(one.ids, one.trained, strict=True)] for one in encoded]
    return {"input_ids": [one.ids for one in encoded], "labels": labels}


def run(tmp_path, rows, columns, kind="chat_template", rl=None):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows)
    cfg = SimpleNamespace(datasets=[{"path": str(path), "type": kind}], test_datasets=None, rl=rl)
    trainer = SimpleNamespace(train_dataset=Dataset.from_dict(columns), eval_dataset=None, processing_class=BASE)
    trained_tokens.check(cfg, trainer)


def test_rows_in_any_order_are_accepted(tmp_path):
    rows = [row(n) for n in range(9)]
    run(tmp_path, rows, tokenised(rows[::-1]))
    pairs = [pair(n) for n in range(4)]
    ids = [encode_pair(BASE, one) for one in pairs]
    columns = {f"{key}_ids": [one[key] for one in ids] for key in ("prompt", "chosen", "rejected")}
    run(tmp_path, pairs, columns, "chat_template.default", "dpo")
    run(tmp_path, rows, {"input_ids": [[1]], "labels": [[1]]}, "input_output")


@pytest.mark.trap(number=21)
@pytest.mark.parametrize("wrong", ["a prompt that trains", "an end that does not train", "another token"])
def test_one_token_that_differs_is_refused(tmp_path, wrong):
    rows = [row(n) for n in range(9)]
    columns = tokenised(rows)
    if wrong == "a prompt that trains":
        columns["labels"][4][2] = columns["input_ids"][4][2]
    elif wrong == "an end that does not train":
        columns["labels"][4][-1] = -100
    else:
        columns["input_ids"][4][3] += 1
    with pytest.raises(ValueError, match="rows.jsonl:5: not tokenised and masked for training as it is served"):
        run(tmp_path, rows, columns)


@pytest.mark.trap(number=21)
def test_a_pair_whose_reply_is_not_ended_is_refused(tmp_path):
    ids = [encode_pair(BASE, pair(n)) for n in range(3)]
    columns = {f"{key}_input_ids": [one[key] for one in ids] for key in ("prompt", "chosen", "rejected")}
    run(tmp_path, [pair(n) for n in range(3)], columns, "chat_template.default", "dpo")
    columns["rejected_input_ids"][1].pop()
    with pytest.raises(ValueError, match="rows.jsonl:2: not tokenised"):
        run(tmp_path, [pair(n) for n in range(3)], columns, "chat_template.default", "dpo")

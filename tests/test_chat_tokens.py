"""A conversation's tokens: what is trained is each reply and what ends it, and what is served comes before it."""

import pytest
from transformers import AutoTokenizer

from recipekit import ROOT
from recipekit.chat_tokens import (
    ChatRowChecker,
    ChatTokenChecker,
    TemplateError,
    encode_chat,
    encode_pair,
    render,
    sample_chat,
    template_problems,
)
from tiny import tiny_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "system", "content": "記事", "train": False},
    {"role": "user", "content": "山田", "train": False},
    {"role": "assistant", "content": "海野", "train": True},
    {"role": "user", "content": "花火", "train": False},
    {"role": "assistant", "content": "大会", "train": False},
    {"role": "user", "content": "太郎", "train": False},
    {"role": "assistant", "content": "逮捕", "train": True},
]


@pytest.fixture(params=["base", "chatml"])
def tokenizer(request, tmp_path):
    if request.param == "base":
        return AutoTokenizer.from_pretrained(ROOT / "data" / "samples" / "base")
    made = tiny_tokenizer(tmp_path)
    made.chat_template = CHATML
    return made


def test_replies_that_train_and_their_ends_are_trained_and_nothing_else(tokenizer):
    ids, trained = encode_chat(tokenizer, TALK)
    assert ids == tokenizer(render(tokenizer, TALK), add_special_tokens=False)["input_ids"]
    learned = [tokenizer.decode([token]) for token, flag in zip(ids, trained, strict=True) if flag]
    assert learned == ["海", "野", "</s>", "逮", "捕", "</s>"]


def test_what_is_served_stands_before_each_reply(tokenizer):
    ids, trained = encode_chat(tokenizer, TALK)
    starts = [at for at, flag in enumerate(trained) if flag and not trained[at - 1]]
    for at, turns in zip(starts, (2, 6), strict=True):
        assert tokenizer(render(tokenizer, TALK[:turns], ask=True), add_special_tokens=False)["input_ids"] == ids[:at]


def test_a_pair_is_a_prompt_and_two_replies_that_end(tokenizer):
    said = {"messages": TALK[:2], "chosen": {"content": "海"}, "rejected": {"content": "花火"}}
    pair = encode_pair(tokenizer, said)
    assert tokenizer.decode(pair["prompt"]) == render(tokenizer, TALK[:2], ask=True)
    assert [tokenizer.decode(ids) for ids in (pair["chosen"], pair["rejected"])] == ["海</s>", "花火</s>"]


def test_the_sample_shows_what_is_learned(tokenizer):
    shown = sample_chat(tokenizer, {"messages": TALK})
    assert [text for text, learned in shown if learned] == ["海野</s>", "逮捕</s>"]
    assert "".join(text for text, _ in shown) == render(tokenizer, TALK)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (CHATML.replace("eos_token", "'。'"), "does not end a reply with </s>"),
        (CHATML.replace("'<s>assistant\n'", "'<s>assistant: '"), "writes a conversation differently once it goes on"),
        (CHATML.replace("message['content']", "message['content'] | upper | trim + ' '"), "does not end a reply"),
    ],
)
def test_a_template_that_trains_otherwise_than_it_serves_is_refused(tmp_path, template, what):
    made = tiny_tokenizer(tmp_path)
    made.chat_template = template
    with pytest.raises(TemplateError, match=what):
        encode_chat(made, TALK)
    assert what in template_problems(made, "base")[0]


def test_a_base_without_a_template_is_refused(tmp_path):
    assert "has no chat template; take an instruction-tuned base" in template_problems(tiny_tokenizer(tmp_path), "b")[0]


def test_the_small_base_has_a_template_that_serves_what_it_trains():
    assert template_problems(AutoTokenizer.from_pretrained(ROOT / "data" / "samples" / "base"), "base") == []


class Named:
    name = "talk"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": "あ"}, "shape"),
        ({"messages": [{"role": "user"}]}, "shape"),
        ({"messages": TALK[1:]}, "shape"),
        ({"messages": TALK[:2]}, "untrained"),
        ({"messages": [*TALK[:1], {**TALK[1], "train": True}, *TALK[2:]]}, "mask"),
        ({"messages": TALK[:2], "chosen": {"role": "assistant", "content": "あ"}}, "shape"),
    ],
)
def test_rows_of_another_shape_are_refused(row, kind):
    assert [problem.kind for problem in ChatRowChecker(Named()).problems(row)] == [kind]


def test_rows_that_are_too_long_or_quote_special_tokens_are_told():
    base = AutoTokenizer.from_pretrained(ROOT / "data" / "samples" / "base")
    quoted = [{**message, "content": "a</s>"} if message["content"] == "花火" else message for message in TALK]
    checker = ChatTokenChecker(Named(), base, 30)
    rows = [(1, {"messages": TALK[:3]}), (2, {"messages": TALK}), (3, {"messages": quoted})]
    found = {
        line: (length, [problem.kind for problem in problems]) for line, length, problems in checker.problems(rows)
    }
    assert found[1] == (len(encode_chat(base, TALK[:3]).ids), [])
    assert found[2][0] > 30 and found[2][1] == ["long"]
    assert "special" in found[3][1]

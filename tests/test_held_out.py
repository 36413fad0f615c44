"""Held-out losses and margins are what the model's own logits say."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import held_out as command
from recipekit import held_out
from recipekit.chat_tokens import encode_chat
from test_chat_tokens import CHATML
from test_trained_tokens import pair, row
from tiny import tiny_adapter, tiny_base, tiny_tokenizer


def nothing(*_):
    pass


@pytest.fixture
def base(tmp_path):
    folder = tiny_base(tmp_path / "base")
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = CHATML
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer, folder


def by_hand(model, ids, trained):
    with torch.inference_mode():
        chances = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(chances[at - 1, ids[at]].item() for at in range(1, len(ids)) if trained[at])


def test_rows_of_any_length_are_scored_as_alone(base, monkeypatch):
    model, tokenizer, _ = base
    rows = [tuple(encode_chat(tokenizer, row(10**n)["messages"])) for n in range(6)]
    monkeypatch.setattr(held_out, "TOKENS", 400)  # several batches, of several rows
    seen = []
    found = held_out.log_likelihoods(model, rows, tokenizer.pad_token_id, seen.append)
    assert len(seen) > 1 and max(seen) > 1 and sum(seen) == 6
    assert found == pytest.approx([by_hand(model, *one) for one in rows], rel=1e-5)


def test_a_loss_is_a_mean_over_the_sets_tokens(base):
    model, tokenizer, _ = base
    rows = [row(1), row(22222)]
    encoded = [encode_chat(tokenizer, one["messages"]) for one in rows]
    total = sum(by_hand(model, *one) for one in encoded)
    [loss] = held_out.losses(model, tokenizer, {"val": rows}, nothing).values()
    assert loss == pytest.approx(-total / sum(sum(one.trained) for one in encoded), rel=1e-5)


def test_preferences_are_differences_of_whole_replies(base):
    model, tokenizer, _ = base
    [liking] = held_out.preferences(model, tokenizer, [pair(7)], nothing)
    both = [
        encode_chat(tokenizer, [*pair(7)["messages"], {**pair(7)[key], "train": True}])
        for key in ("chosen", "rejected")
    ]
    hands = []
    for ids, trained in both:
        ids, trained = ids[:-1], trained[:-1]  # the line end behind a turn is nobody's
        hands.append(by_hand(model, ids, trained))
    assert liking == pytest.approx(hands[0] - hands[1], rel=1e-4)


def test_an_adapter_is_put_on_and_taken_off(base, tmp_path):
    model, tokenizer, folder = base
    adapter = tiny_adapter(tmp_path / "adapter", folder)
    sets = {"val": [row(1)]}
    before = held_out.losses(model, tokenizer, sets, nothing)
    with held_out.tuned(model, adapter) as tuned:
        assert abs(held_out.losses(tuned, tokenizer, sets, nothing)["val"] - before["val"]) > 1e-3
    assert held_out.losses(model, tokenizer, sets, nothing) == pytest.approx(before)
    with held_out.tuned(model, None) as same:
        assert same is model


class Talk:
    phases = ("phase1", "dpo")
    slug = "talk"


def test_margins_are_held_against_the_model_that_preferences_started_from():
    configs = {"phase1": {"base_model": "base"}, "dpo": {"base_model": "outputs/talk/phase1/merged", "rl": "dpo"}}
    likings = {"base": np.array([0.0, 1.0]), "phase1": np.array([1.0, -1.0]), "dpo": np.array([3.0, -2.0])}
    found = command.margins(Talk(), configs, likings)
    assert found["phase1"]["margin"] == 0 and found["phase1"]["likelier"] == 0.5
    assert found["dpo"] == {"pairs": 2, "margin": pytest.approx(0.05), "accuracy": 0.5, "likelier": 0.5}
    configs["dpo"]["rl_beta"] = 1.0
    assert command.margins(Talk(), configs, likings)["dpo"]["margin"] == pytest.approx(0.5)
    assert command.margins(Talk(), {"phase1": {}, "dpo": {}}, likings) == {}, "no phase of preferences"

"""Batches without waste: the same loss and gradients as of padded ones."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from recipekit import cpu_batches
from recipekit.run_plugin import RunPlugin

SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2}
KINDS = {"mistral": (MistralForCausalLM, MistralConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}


def model(kind="mistral", **more):
    torch.manual_seed(0)
    made, config = KINDS[kind]
    found = made(config(**SIZES, **{"sliding_window": None} | more, attn_implementation="sdpa"))
    for weight in found.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # far from where attention is a mean of all
    return found.train()


def batch(rows, left=False):
    """Pad rows of (tokens, how many of them from which place on are trained)."""
    longest = max(len(ids) for ids, _ in rows)
    side = (lambda kept, pad: pad + kept) if left else (lambda kept, pad: kept + pad)
    pads = [longest - len(ids) for ids, _ in rows]
    ids = [side(ids, [1] * pad) for (ids, _), pad in zip(rows, pads, strict=True)]
    labels = [side([-100] * at + ids[at:], [-100] * pad) for (ids, at), pad in zip(rows, pads, strict=True)]
    mask = [side([1] * len(ids), [0] * pad) for (ids, _), pad in zip(rows, pads, strict=True)]
    return {name: torch.tensor(value) for name, value in
            (("input_ids", ids), ("labels", labels), ("attention_mask", mask))}  # fmt: skip


def loss_and_gradients(found, rows, **more):
    found.zero_grad()
    loss = found(**batch(rows), **more).loss
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in found.parameters() if weight.grad is not None])


PROMPT = [3, 4, 5, 6, 7]
ROWS = {
    "a common beginning": [([*PROMPT, 8, 9, 10, 2], 6), ([*PROMPT, 11, 2], 6), ([*PROMPT, 12, 13, 2], 5)],
    "none": [([3, 4, 5, 2], 2), ([6, 4, 5, 7, 2], 1)],
    "a row that is the beginning of another": [([*PROMPT, 8, 2], 6), (PROMPT, 3)],
    "equal rows": [([*PROMPT, 2], 5), ([*PROMPT, 2], 5)],
    "trained from the first token": [([*PROMPT, 2], 0), ([*PROMPT, 9, 2], 0)],
    "one row": [([*PROMPT, 8, 2], 5)],
}


@pytest.mark.parametrize("more", [{}, {"num_items_in_batch": torch.tensor(7)}])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_loss_and_gradients_are_those_of_the_padded_batch(rows, kind, more):
    found = model(kind)
    loss, gradients = loss_and_gradients(found, rows, **more)
    cpu_batches.install(found, 16)
    leaner, leaner_gradients = loss_and_gradients(found, rows, **more)
    assert leaner == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(leaner_gradients, gradients, rtol=1e-3, atol=1e-5)
    evaluated = found.eval()(**batch(rows)).loss.item()
    assert more or evaluated == pytest.approx(loss, rel=1e-5)


@given(st.integers(0, 6), st.lists(st.tuples(st.integers(2, 9), st.integers(0, 9)), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_the_rows(shared, shapes, data):
    token = st.integers(2, 19)
    prompt = data.draw(st.lists(token, min_size=shared, max_size=shared))
    rows = [(prompt + data.draw(st.lists(token, min_size=n, max_size=n)), min(at, n - 1)) for n, at in shapes]
    found = model()
    loss, gradients = loss_and_gradients(found, rows)
    cpu_batches.install(found, 16)
    leaner, leaner_gradients = loss_and_gradients(found, rows)
    assert leaner == pytest.approx(loss, rel=1e-4)
    assert torch.allclose(leaner_gradients, gradients, rtol=1e-2, atol=1e-4)


def test_of_a_batch_no_token_is_computed_twice_and_logits_only_where_they_are_trained():
    found, seen = model(), {}
    cpu_batches.install(found, 16)
    found.lm_head.register_forward_pre_hook(lambda _, args: seen.update(head=args[0].shape[1]))
    found.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.update(body=args[0].shape[1]))
    found(**batch(ROWS["a common beginning"]))
    # The last token of the prompt is followed by one that the third row trains, so that each row keeps its own.
    assert seen == {"body": 4 + 5 + 3 + 4, "head": 3 + 1 + 3}


def test_a_batch_of_equal_rows_with_nothing_trained_has_no_loss():
    found = model()
    cpu_batches.install(found, 16)
    loss = found(**batch([(PROMPT, 5), (PROMPT, 5)]), num_items_in_batch=torch.tensor(7)).loss
    loss.backward()
    assert loss.item() == 0


def test_padding_at_the_left_is_no_different():
    found = model()
    cpu_batches.install(found, 16)
    rows = [([1, 3, 4, 2], 3), ([3, 4, 2], 2)]  # with padding, which is 1, the second looks like the first
    assert found(**batch(rows, left=True)).loss.item() == pytest.approx(found(**batch(rows)).loss.item(), rel=1e-5)


def test_without_labels_all_is_as_before():
    found, inputs = model().eval(), batch(ROWS["none"])
    del inputs["labels"]
    before = found(**inputs).logits
    generated = found.generate(inputs["input_ids"][:1], max_new_tokens=5, do_sample=False)
    cpu_batches.install(found, 16)
    assert torch.allclose(found(**inputs).logits[inputs["attention_mask"].bool()],
                          before[inputs["attention_mask"].bool()], atol=1e-5)  # fmt: skip
    assert torch.equal(found.generate(inputs["input_ids"][:1], max_new_tokens=5, do_sample=False), generated)


@pytest.mark.parametrize(
    ("more", "installed"),
    [({}, True), ({"sliding_window": 16}, True), ({"sliding_window": 15}, False), ({"attention_dropout": 0.1}, False)],
)
def test_models_of_other_attention_are_left_as_they_are(more, installed):
    found = model(**more)
    cpu_batches.install(found, 16)
    assert (found.config._attn_implementation == cpu_batches.NAME) is installed
    assert bool(found._forward_pre_hooks) is installed
    assert cpu_batches.NAME not in found.config.to_json_string()


@pytest.mark.parametrize(("gpu", "packing", "tokens"), [(False, None, 16), (False, True, 27), (True, None, 27)])
def test_the_plugin_puts_the_hook_where_a_peft_model_calls_it(monkeypatch, gpu, packing, tokens):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = get_peft_model(model(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).train()
    seen = []
    base = found.get_base_model()
    base.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    RunPlugin().post_model_load(SimpleNamespace(sample_packing=packing, sequence_len=16), found)
    found(**batch(ROWS["a common beginning"]))
    assert seen == [tokens]

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from recipekit.run_plugin import only_what_is_trained

LABELS = torch.tensor([[-100, -100, 7, 8, 2, -100], [-100, -100, -100, -100, 6, 2], [-100, -100, -100, 9, 2, -100]])
LENGTHS = [5, 6, 5]


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return MistralForCausalLM(MistralConfig(vocab_size=20, num_key_value_heads=2, **sizes)).train()


def batch(left=False):
    ids = torch.arange(18).reshape(3, 6) % 13 + 3
    mask = torch.tensor([[1] * length + [0] * (6 - length) for length in LENGTHS])
    return {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask, "labels": LABELS}


def loss_and_gradients(model, **more):
    model.zero_grad()
    loss = model(**batch(), **more).loss
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("more", [{}, {"num_items_in_batch": torch.tensor(7)}])
def test_with_logits_of_what_is_trained_alone_loss_and_gradients_are_the_same(model, more):
    loss, gradients = loss_and_gradients(model, **more)
    seen = []
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    model.register_forward_pre_hook(only_what_is_trained, with_kwargs=True)
    leaner, leaner_gradients = loss_and_gradients(model, **more)
    assert seen == [4]  # places 1 to 4 of six are followed by a token that some row trains
    assert leaner == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(leaner_gradients, gradients, atol=1e-6)


def test_evaluation_and_masks_that_are_not_right_padding_stay_as_they_are(model):
    assert only_what_is_trained(model.eval(), (), batch())[1].keys() == batch().keys()
    kept = only_what_is_trained(model.train(), (), batch(left=True))[1]["attention_mask"]
    assert torch.equal(kept, batch(left=True)["attention_mask"])
    assert only_what_is_trained(model, (), batch())[1]["attention_mask"] is None

"""The tokens a second that status shows are of texts, not of padding, however rows are put together."""

import pytest
import torch
from axolotl.utils.collators.batching import DataCollatorForSeq2Seq, V2BatchSamplerDataCollatorForSeq2Seq
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference

from recipekit.seen_tokens import SeenTokens, real_tokens
from tiny import tiny_model, tiny_tokenizer

LENGTHS = (5, 9, 3, 7)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    return tiny_tokenizer(path), tiny_model(path)


def row(length, **more):
    ids = [1, *range(40, 38 + length), 2]
    return {"input_ids": ids, "attention_mask": [1] * length, "labels": [-100, *ids[1:]], **more}


def packed(masked):
    rows = [row(length, position_ids=list(range(length))) for length in LENGTHS]
    if not masked:  # as where sdpa tells the parts of a pack by their positions
        for one in rows:
            del one["attention_mask"]
    return [rows[:2], rows[2:]]


def test_padding_is_not_counted(base):
    batch = DataCollatorForSeq2Seq(base[0])([row(length) for length in LENGTHS])
    assert batch["input_ids"].numel() > sum(LENGTHS) == real_tokens(batch, 0)
    rows = [{key: value for key, value in row(length).items() if key != "labels"} for length in LENGTHS]
    assert real_tokens(DataCollatorWithPadding(base[0])(rows), 0) == sum(LENGTHS)


@pytest.mark.parametrize("masked", [True, False])
def test_packs_are_counted_whatever_their_mask_and_padding_token(base, masked):
    tokenizer = base[0]
    tokenizer.pad_token = "</s>"  # which ends texts, too
    batch = V2BatchSamplerDataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=32)(packed(masked))
    tokenizer.pad_token = "<pad>"
    assert batch["input_ids"].shape == batch["position_ids"].shape == (2, 32)
    assert ("attention_mask" in batch) == masked and (not masked or batch["attention_mask"].max() == 2)
    assert real_tokens(batch, 2) == sum(LENGTHS)


def test_of_preferences_both_answers_are_counted():
    pair = {"prompt_ids": [1, 40], "chosen_ids": [41, 42, 2], "rejected_ids": [43, 2]}
    batch = DataCollatorForPreference(pad_token_id=0)([pair])
    assert real_tokens(batch, 0) == 2 + 3 + 2 + 2


def test_a_trainer_counts_every_batch_and_trains_the_same(base, tmp_path):
    tokenizer, model = base
    seen, totals = SeenTokens(), []

    class Look(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            totals.append(seen.total(args.device))

    def train(watch):
        arguments = TrainingArguments(tmp_path, max_steps=2, per_device_train_batch_size=2, save_strategy="no",
                                      gradient_accumulation_steps=2, logging_steps=1, use_cpu=True, report_to=[],
                                      learning_rate=1e-2, disable_tqdm=True)  # fmt: skip
        torch.manual_seed(0)
        trainer = Trainer(model, arguments, DataCollatorForSeq2Seq(tokenizer), [row(6)] * 7 + [row(12)],
                          processing_class=tokenizer, callbacks=[Look()] if watch else [])  # fmt: skip
        if watch:
            seen.watch(trainer)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        trainer.train()
        after = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(before)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], after

    bare, watched = train(False), train(True)
    assert bare[0] == watched[0] and all(torch.equal(bare[1][name], watched[1][name]) for name in bare[1])
    assert totals[0] in (24, 30) and totals[1:] == [54, 54]  # each row once; the last is logged at the end of training

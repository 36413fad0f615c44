"""LoRA the plain way, as guides show it: transformers' Trainer and PEFT, every row padded to max_length, no packing.

    python benchmarks/plain_trainer.py SETTINGS.yml

benchmarks/vs_plain_trainer.py runs it and writes the settings. Guides often leave the labels out, with which Trainer
stops, or copy them from the input, which trains prompts and padding, too; here the replies alone are trained, so that
losses can be compared. A step costs the same either way.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class StepTimes(TrainerCallback):
    """Writes down when each step ended, as tools/train.py does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Append a line to progress.jsonl."""
        line = json.dumps({"step": state.global_step, "time": time.time()})
        with (Path(args.output_dir) / "progress.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def encode(tokenizer: Any, messages: list[dict[str, str]], max_length: int) -> dict[str, list[int]]:
    """Tokenise a conversation, its replies labelled, and pad it to max_length."""

    def ids(said: list[dict[str, str]], ask: bool) -> list[int]:
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=ask)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    tokens = ids(messages, False)
    labels = [-100] * len(tokens)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            reply = slice(len(ids(messages[:i], True)), len(ids(messages[: i + 1], False)))
            labels[reply] = tokens[reply]
    left = max_length - len(tokens)
    return {
        "input_ids": tokens + [tokenizer.pad_token_id] * left,
        "attention_mask": [1] * len(tokens) + [0] * left,
        "labels": labels + [-100] * left,
    }


def train(settings: dict[str, Any]) -> None:
    """Train an adapter.

    Args:
        settings: base, rows (a JSONL file of conversations), max_length, lora (of LoraConfig) and arguments (of
            TrainingArguments).
    """
    model = AutoModelForCausalLM.from_pretrained(settings["base"], dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(settings["base"])
    model = get_peft_model(model, LoraConfig(**settings["lora"], bias="none", task_type="CAUSAL_LM"))
    dataset = load_dataset("json", data_files=settings["rows"])["train"]
    dataset = dataset.map(
        lambda row: encode(tokenizer, row["messages"], settings["max_length"]), remove_columns=dataset.column_names
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**settings["arguments"]),
        train_dataset=dataset,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model, padding=True),
        callbacks=[StepTimes()],
    )
    Path(settings["arguments"]["output_dir"]).mkdir(parents=True, exist_ok=True)
    trainer.train()
    model.save_pretrained(settings["arguments"]["output_dir"])


if __name__ == "__main__":
    train(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")))

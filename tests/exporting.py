"""A chat task with a few invented rows in a folder of its own, and tiny models to export."""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from recipekit import ROOT
from recipekit.task import Task, load_task

# ChatML as Qwen2.5 writes it: where no system message is given, one of its own comes in
CHATML = """\
{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\nあなたは助手です。<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SAID = ["おはよう、今日は{}だね", "{}の話をしよう", "{}が好きなんだ", "さっき{}を見たよ"]
THINGS = ["雨", "猫", "カレー", "海", "電車", "本"]


def rows() -> list[dict]:
    """Return 24 invented conversations."""
    texts = [said.format(thing) for thing in THINGS for said in SAID]
    return [
        {
            "id": f"R{i}",
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": f"うん、{text}。いいね😊"},
            ],
            "metadata": {"affection_level": "friend", "source": "invented"},
        }
        for i, text in enumerate(texts)
    ]


def chat_task(root: Path, name: str = "companion") -> Task:
    """Copy a chat recipe into a folder, with rows to train on."""
    if not (root / "recipes" / name).exists():
        shutil.copytree(ROOT / "recipes" / name, root / "recipes" / name)
        shutil.copy(ROOT / "recipes" / "task.schema.json", root / "recipes")
        samples = root / "data" / "samples" / name
        samples.mkdir(parents=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
        (samples / "roleplay.jsonl").write_text(text, encoding="utf-8")
        (samples / "user_val.jsonl").write_text(text.replace('"R', '"V').replace("うん", "別の答え"), encoding="utf-8")
    return load_task(name, root)


def small_base(root: Path, name: str = "companion") -> Path:
    """Put the repository's small base where the task's merged model would be."""
    target = root / "outputs" / name / "merged"
    shutil.copytree(ROOT / "data" / "samples" / "base", target)
    return target


def tiny_qwen2(folder: Path, tied: bool = False) -> Path:
    """Save a random two-layer Qwen2 with a byte-level BPE that is trained on the rows, and ChatML."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [message["content"] for row in rows() for message in row["messages"]]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=SPECIALS[1:], chat_template=CHATML,
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast) + 5, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, tie_word_embeddings=tied,
        eos_token_id=fast.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for name, bias in model.named_parameters():  # they begin as zero, which would prove nothing
        if name.endswith("bias"):
            torch.nn.init.normal_(bias, std=0.3)
    model.generation_config.eos_token_id = [fast.eos_token_id, fast.convert_tokens_to_ids("<|endoftext|>")]
    model.save_pretrained(folder)
    return folder


def read_as_ollama(text):
    """Read a Modelfile by the rules of Ollama's parser: a character at a time, dropping what does not print."""
    found, state, buffer, name = [], "nil", "", ""

    def unquoted(value):
        if value.startswith('"""'):
            return value[3:-3] if len(value) >= 6 and value.endswith('"""') else None
        if value.startswith('"'):
            return value[1:-1] if len(value) >= 2 and value.endswith('"') else None
        return value

    for one in text:
        blank, line = one in " \t", one in "\r\n"
        if state == "nil" and not (blank or line):
            state, buffer = "name", one
        elif state in ("name", "parameter") and blank:
            if state == "name" and buffer == "PARAMETER":
                state = "parameter"
            else:
                name, state = buffer, "value"
            buffer = ""
        elif state == "value" and (blank or line):
            value = unquoted(buffer.strip())
            if value is None or blank:
                buffer += one
            else:
                found.append((name, value))
                state, buffer = "nil", ""
        elif state != "nil" and one.isprintable():
            buffer += one
    assert state == "nil", f"not closed: {buffer}"
    return found

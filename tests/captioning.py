"""A small task with images, and a tiny random vision-language model, for the tests of captions."""

import csv
import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageDraw

import caption as tool
from recipekit import ROOT
from recipekit.task import load_task

SPEC = """\
name: jokes
kind: ranking
title: 小さな大喜利
summary: A task for tests.
regression: {group: odai_id, slice: type, targets: {score: {scale: [-1, 5]}}}
data:
  captions: {model: nobody/vlm, prompt: prompt.txt}
  rows: {body: "{{ odai }}{{ caption }}", pair: response, label: {score: score}}
  train: {jokes_train: {file: train.csv}, jokes_validation: {file: validation.csv, role: validation}}
  test: {file: test.csv, input: jokes_input.jsonl, gold: jokes_gold.csv}
"""
PROMPT = "写真を説明して。"
HEADER = "id,odai_id,type,odai,image,response,score"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<unk>",
]  # fmt: skip


def picture(number: int, size: tuple[int, int] = (56, 56)) -> Image.Image:
    """Draw an image that no other number has."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 255 - number * 53 % 256))
    draw = ImageDraw.Draw(image)
    width, height = size
    draw.ellipse(
        (width * (number % 5) / 8, height / 4, width * (number % 5 + 3) / 8, height), fill=(255, 255 - number, 0)
    )
    draw.line((0, number * 7 % height, width, height - number * 11 % height), fill="black", width=1 + number % 4)
    return image


def text_row(number: int, odai: str = "", response: str = "") -> list[str]:
    return [f"t{number}", "", "text", odai or f"お題{number}とは？", "", response or f"ボケ{number}", "1.5"]


def image_row(number: int, image: str, odai: str = "") -> list[str]:
    return [f"i{number}", "", "image", odai, image, f"写真でボケ{number}", "-0.25"]


@pytest.fixture
def jokes(tmp_path, monkeypatch):
    """The task's root with two texts and five images; `run` captions it, with `Fake` in the place of a model."""
    recipe, raw = tmp_path / "recipes" / "jokes", tmp_path / "data" / "raw" / "jokes"
    recipe.mkdir(parents=True)
    (raw / "images").mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "task.schema.json", tmp_path / "recipes")
    (recipe / "task.yml").write_text(SPEC, encoding="utf-8")
    (recipe / "prompt.txt").write_text(PROMPT, encoding="utf-8")
    for number in range(5):
        picture(number, (56 + 28 * number, 56)).save(raw / "images" / f"{number}.png")
    target = tmp_path / "data" / "captioned" / "jokes"

    def write(name: str, rows: list[list[str]], header: str = HEADER) -> None:
        stream = io.StringIO()
        csv.writer(stream).writerows([header.split(","), *rows])
        (raw / name).write_bytes(stream.getvalue().encode())

    def read(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((target / name).read_bytes().decode(), newline="")))

    write(
        "train.csv", [text_row(0), *(image_row(i, f"images/{i}.png") for i in range(3)), image_row(9, "images/0.png")]
    )
    write("validation.csv", [image_row(3, "images/3.png", "一言")])
    write("test.csv", [text_row(1), image_row(4, "images/4.png")])
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, tmp_path))

    def run(**options):
        usual = {"source": None, "output": None, "model": None, "revision": None, "device": "cpu", "batch_size": 2,
                 "max_new_tokens": 12, "near": None}  # fmt: skip
        tool.caption("jokes", **(usual | options))

    return SimpleNamespace(
        root=tmp_path, recipe=recipe, raw=raw, target=target, write=write, read=read, run=run,
        task=lambda: load_task("jokes", tmp_path),
    )  # fmt: skip


class Fake:
    """Stands in for a Captioner: says how large an image is.

    Attributes:
        seen: Sizes of the images of each batch.
    """

    on_cpu = False
    seen: list[list[tuple[int, int]]] = []

    def __init__(self, *_: object) -> None:
        Fake.seen = []

    def describe(self, images: list[Image.Image]) -> list[str]:
        Fake.seen.append([image.size for image in images])
        return [f"幅{image.width}の写真。" for image in images]


@pytest.fixture
def put_in(monkeypatch):
    """Return a function that puts a class in the place of the model, without loading torch."""
    Fake.seen = []
    return lambda kind: monkeypatch.setitem(sys.modules, "recipekit.captioner", SimpleNamespace(Captioner=kind))


@pytest.fixture
def fake(put_in):
    """Put Fake in the place of the model."""
    put_in(Fake)
    return Fake


def tiny_vlm(path: Path, seed: int = 0) -> Path:
    """Save a random Qwen2.5-VL of some 50,000 parameters with its processor, as the real one is laid out."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
    )
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    letters = sorted(set("abcdefghijklmnopqrstuvwxyz\n 犬猫人が机で笑う走る驚く立つ。、" + PROMPT))
    tokens = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocab = {token: place for place, token in enumerate(tokens)}
    inner = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<|endoftext|>", eos_token="<|im_end|>", unk_token="<unk>",
        extra_special_tokens=SPECIALS[1:7],
    )  # fmt: skip
    processor = Qwen2_5_VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
    processor.save_pretrained(path)
    torch.manual_seed(seed)
    text = {
        "vocab_size": len(vocab), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 0,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
        "fullatt_block_indexes": [1], "window_size": 112, "initializer_range": 0.3,
    }  # fmt: skip
    ids = {f"{name}_token_id": vocab[f"<|{name if 'vision' in name else name + '_pad'}|>"]
           for name in ("image", "video", "vision_start", "vision_end")}  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = [2, 0], 0
    model.save_pretrained(path)
    return path

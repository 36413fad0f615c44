import json
import shutil

import pytest
import torch

from captioning import PROMPT, picture, tiny_vlm
from recipekit import captions
from recipekit.captioner import Captioner
from recipekit.errors import UserError
from tiny import tiny_base

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = [picture(number, (56 + 84 * number, 56 + 28 * (number % 3))) for number in range(6)]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    return tiny_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def captioner(vlm):
    return Captioner(str(vlm), None, PROMPT, "cpu", 24)


def copy(vlm, tmp_path, name="config.json", **values):
    """Copy the model, with other values in one of its files."""
    folder = tmp_path / "vlm"
    shutil.copytree(vlm, folder)
    config = json.loads((folder / name).read_text(encoding="utf-8")) | values
    (folder / name).write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_images_of_several_sizes_are_told_together_as_they_are_alone(captioner):
    together = captioner.describe(PICTURES)
    assert together == [captioner.describe([image])[0] for image in PICTURES]
    assert len(set(together)) == len(PICTURES) and all(together)


def test_the_model_sees_the_image_and_the_prompt(captioner, vlm):
    other = Captioner(str(vlm), None, "机。", "cpu", 24)
    assert captioner.text.count("<|image_pad|>") == 1 and PROMPT in captioner.text
    assert captioner.text.endswith("<|im_start|>assistant\n")
    assert other.describe(PICTURES[:1]) != captioner.describe(PICTURES[:1])
    assert captioner.describe(PICTURES[:1]) != captioner.describe(PICTURES[1:2])


def test_a_caption_that_its_model_did_not_end_loses_the_unfinished_sentence(captioner, monkeypatch):
    def generate(input_ids, **_):
        ids = captioner.processor.tokenizer(["犬が走る。猫が<|im_end|>", "犬が走る。猫が立つ"]).input_ids
        ids[0] += [0] * (len(ids[1]) - len(ids[0]))
        return torch.cat([input_ids, torch.tensor(ids)], 1)

    monkeypatch.setattr(captioner.model, "generate", generate)
    assert captioner.describe(PICTURES[:2]) == ["犬が走る。猫が", "犬が走る。"]


def test_sampling_that_a_model_comes_set_for_is_off(vlm, tmp_path, captioner):
    folder = copy(vlm, tmp_path, "generation_config.json", do_sample=True, temperature=5.0, top_p=0.9, top_k=50)
    assert Captioner(str(folder), None, PROMPT, "cpu", 24).describe(PICTURES) == captioner.describe(PICTURES)


@pytest.mark.parametrize(("images", "remedy"), [(6, "--batch-size 3"), (1, "a smaller --model")])
def test_no_memory_is_an_error_that_says_what_to_do(captioner, monkeypatch, images, remedy):
    def full(**_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(captioner.model, "generate", full)
    with pytest.raises(UserError, match=f"no memory for {images} images at a time.*{remedy}"):
        captioner.describe(PICTURES[:images])


def refusal(model, device="cpu"):
    with pytest.raises(UserError) as error:
        Captioner(str(model), None, PROMPT, device, 24)
    return str(error.value)


def test_a_model_that_reads_no_images_is_refused(tmp_path):
    assert "cannot be loaded" in refusal(tiny_base(tmp_path / "text"))


def test_weights_that_are_pickled_or_torn_are_refused(vlm, tmp_path):
    folder = copy(vlm, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refusal(folder)
    weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in refusal(folder)


def test_code_of_a_model_is_not_run(vlm, tmp_path):
    folder = copy(
        vlm, tmp_path, model_type="own", auto_map={"AutoModelForImageTextToText": "own.Model", "AutoConfig": "own.C"}
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "cannot be loaded" in refusal(folder) and not (tmp_path / "ran").exists()


def test_without_a_chat_template_a_model_is_refused(vlm, tmp_path):
    folder = copy(vlm, tmp_path)
    (folder / "chat_template.jinja").unlink()
    assert "chat template" in refusal(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(vlm):
    assert "--device cuda:1: there are 0 GPUs here" in refusal(vlm, "cuda:1")


def test_the_tool_captions_with_a_model_and_goes_on_with_it(vlm, jokes, capsys):
    jokes.run(model=str(vlm), max_new_tokens=16)
    rows = jokes.read("train.csv")
    kept = captions.read(jokes.target / "captions.csv")
    assert [kept[row["digest"]].text for row in rows[1:]] == [row["caption"] for row in rows[1:]]
    assert len({one.text for one in kept.values()}) == 5 and len({one.model for one in kept.values()}) == 1
    assert next(iter(kept.values())).model.startswith(f"{vlm}@")
    alone = Captioner(str(vlm), None, PROMPT, "cpu", 16)
    assert kept[rows[1]["digest"]].text == alone.describe([picture(0)])[0]
    jokes.run(model=str(vlm), max_new_tokens=16)
    assert capsys.readouterr().err.endswith("caption: up to date\n")


def test_a_model_that_ends_at_once_is_an_error_that_names_the_images(vlm, jokes, tmp_path):
    folder = copy(
        vlm, tmp_path, "generation_config.json", suppress_tokens=[place for place in range(400) if place != 2]
    )
    with pytest.raises(UserError) as error:
        jokes.run(model=str(folder))
    assert len(error.value.problems) == 6 and "the model said nothing" in error.value.problems[0]

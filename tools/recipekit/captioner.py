"""A vision-language model that describes images."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from recipekit.captions import fold, shorten
from recipekit.errors import UserError
from recipekit.models import SAFE, SAFE_WEIGHTS


class Captioner:
    """Describes images as a prompt asks, greedily.

    Args:
        model: A name on the Hub, or a folder.
        revision: Commit or branch of the former.
        prompt: What the model is asked of each image.
        device: "auto", "cpu", "cuda" or "cuda:1"; auto takes the first GPU where there is one.
        max_new_tokens: Most tokens of a caption.

    Raises:
        UserError: There is no such device, or no such model that reads images and has safetensors and a chat template.
    """

    def __init__(self, model: str, revision: str | None, prompt: str, device: str, max_new_tokens: int) -> None:
        self.device = _device(device)
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        known = {"revision": revision or "main"}
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        try:
            self.processor = AutoProcessor.from_pretrained(model, **known, **SAFE)
            self.text = self.processor.apply_chat_template(asked, add_generation_prompt=True)
            self.model = AutoModelForImageTextToText.from_pretrained(
                model, **known, dtype=dtype, device_map=self.device, **SAFE_WEIGHTS
            ).eval()
        except Exception as error:  # of many kinds: no network, no such model, torn weights, a template that fails
            what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            remedy = "name a vision-language model with safetensors and a chat template, and check the network"
            raise UserError(f"{model}: cannot be loaded, {what}; {remedy}") from None
        self.processor.tokenizer.padding_side = "left"  # a caption goes on where its prompt ends
        self.options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
        self.options |= dict.fromkeys(("temperature", "top_p", "top_k"))  # of sampling, which models come set for

    def describe(self, images: Sequence[Image]) -> list[str]:
        """Describe images; a caption is one line, and empty where the model said nothing.

        Raises:
            UserError: There is no memory for so many at a time.
        """
        try:
            inputs = self.processor(
                text=[self.text] * len(images), images=list(images), padding=True, return_tensors="pt"
            ).to(self.device, self.model.dtype)
            with torch.inference_mode():
                ids = self.model.generate(**inputs, **self.options)[:, inputs["input_ids"].shape[1] :]
        except torch.OutOfMemoryError:
            remedy = f"--batch-size {len(images) // 2}" if len(images) > 1 else "a smaller --model, or --device cpu"
            raise UserError(
                f"the GPU has no memory for {len(images)} images at a time; what is done is kept: go on with {remedy}"
            ) from None
        texts = self.processor.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = torch.isin(ids, self._ends()).any(1).tolist()
        return [shorten(fold(text), end) for text, end in zip(texts, ended, strict=True)]

    @property
    def on_cpu(self) -> bool:
        """Tell whether there is no GPU in use."""
        return self.device.type == "cpu"

    def _ends(self) -> torch.Tensor:
        """Return the tokens that end a caption, shape [tokens]."""
        found: Any = self.model.generation_config.eos_token_id
        return torch.tensor(found if isinstance(found, list) else [found], device=self.device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} GPUs here; take auto or cpu")
    return device

"""In a training process: how many tokens the rows had that were trained on, padding aside."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import reduce


class SeenTokens:
    """Counts the tokens of a trainer's batches on their device, without waiting for it.

    What the libraries count is something else. Axolotl's include_tkps: all places of a batch, or those that are
    trained, and not for every trainer. Transformers' non_padding: the sum of a mask, which numbers the parts of packs.
    """

    def __init__(self) -> None:
        self._count = torch.zeros((), dtype=torch.int64)

    def watch(self, trainer: Any) -> None:
        """Count what a trainer trains on from now on."""
        step, pad = trainer.training_step, trainer.processing_class.pad_token_id

        def counted(model: Any, inputs: dict[str, Any], *arguments: Any, **kwargs: Any) -> Any:
            found = real_tokens(inputs, pad)
            self._count = self._count.to(found.device) + found
            return step(model, inputs, *arguments, **kwargs)

        trainer.training_step = counted

    def total(self, device: torch.device) -> int:
        """Add up the counts of all processes, each of which has to ask.

        Args:
            device: The one that this process trains on.
        """
        return int(reduce(self._count.to(device), "sum"))


def real_tokens(inputs: Mapping[str, torch.Tensor], pad: int | None) -> torch.Tensor:
    """Count the tokens of a batch that are no padding.

    Args:
        inputs: input_ids, of shape [rows, tokens], and where the model gets them attention_mask and position_ids.
        pad: The padding token, which may also end texts.

    Returns:
        A whole number, of no dimension, on the device of the batch.
    """
    if (mask := inputs.get("attention_mask")) is not None:
        return (mask != 0).sum()
    ids = inputs["input_ids"]
    if (places := inputs.get("position_ids")) is not None:  # of a pack, whose texts may end with the padding token:
        order = torch.arange(ids.shape[1], device=ids.device)
        starts = torch.where(places == 0, order, 0).cummax(dim=1).values
        ids = ids.gather(1, starts)  # what begins with it is padding
    return (ids != (-1 if pad is None else pad)).sum()

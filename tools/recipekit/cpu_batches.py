"""Training batches on a CPU without waste: no padding, a common beginning once, logits only where there is a loss.

A batch of rows becomes one sequence: the tokens that all rows begin with (the prompt), then the rest of each row. A
rest attends to the beginning and to itself. Loss and gradients are those of the padded batch, but for rounding, with
half the tokens where a prompt is long; dropout is drawn once for what is read once. On GPUs, packing with flash
attention and Liger's loss do the like.
"""

from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

NAME = "shared_beginning"  # of the attention implementation
IGNORED = -100
# What torch's scaled_dot_product_attention takes on CPUs, with the log-sum-exp that joins parts of attention.
forward_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
backward_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Layout(NamedTuple):
    """How a batch lies in one sequence: `shared` tokens that all rows begin with, then `rests` tokens of each row."""

    shared: int
    rests: list[int]


def install(model: torch.nn.Module, longest: int) -> None:
    """Let a causal language model train and evaluate on batches without waste.

    Args:
        model: Itself, or within PEFT's wrapper. One whose attention is not the plain causal one is left as it is.
        longest: Tokens of the longest row.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel) or not base.can_generate() or base.device.type != "cpu":
        return
    if is_plain(base.config, longest):
        AttentionInterface.register(NAME, attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
        base.set_attn_implementation(NAME)
        model.register_forward_pre_hook(flatten, with_kwargs=True)


def is_plain(config: PreTrainedConfig, longest: int) -> bool:
    """Tell whether each token attends to all before it, by PyTorch's own function and without dropout."""
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) or longest
    others = any(getattr(config, name, None) for name in ("attention_dropout", "v_head_dim", "is_encoder_decoder"))
    return config._attn_implementation == "sdpa" and layers == {"full_attention"} and window >= longest and not others


def flatten(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make one sequence of a batch with labels; a forward pre-hook.

    Args:
        model: Not used.
        args: Not used.
        kwargs: input_ids and labels of shape [rows, tokens], attention_mask where rows are padded.

    Returns:
        The arguments: input_ids, position_ids and attention_mask of shape [1, tokens without waste], logits_to_keep
        and shift_labels for the places whose next token is trained, and the layout for `attention`.
    """
    if kwargs.get("labels") is None:
        return args, kwargs
    ids, labels, mask = kwargs["input_ids"], kwargs.pop("labels"), kwargs.get("attention_mask")
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    shared = beginning(ids, mask, following)
    used = mask.clone()
    used[1:, :shared] = False
    order = torch.cat([used[0].nonzero().flatten(), *(row.nonzero().flatten() for row in used[1:])])
    rows = used.sum(1).tolist()
    flat = following[used]
    places = (flat != IGNORED).nonzero().flatten()
    return (
        args,
        kwargs
        | {
            "input_ids": ids[used][None],
            "position_ids": order[None],
            "attention_mask": torch.ones(
                1, len(order), dtype=torch.long
            ),  # not None, or transformers makes a mask of the positions
            "logits_to_keep": places,
            "labels": flat[places][None],
            "shift_labels": flat[places][None],
            "use_cache": False,
            "layout": Layout(shared, [rows[0] - shared, *rows[1:]]),
        },
    )


def beginning(ids: torch.Tensor, mask: torch.Tensor, following: torch.Tensor) -> int:
    """Count the tokens that all rows begin with and after which none is trained yet; a row keeps one of its own.

    Args:
        ids: Shape [rows, tokens].
        mask: Boolean of that shape, whether a token is no padding.
        following: The label of the token after each, or -100, of that shape.
    """
    same = (ids == ids[0]).all(0) & mask.all(0) & (following == IGNORED).all(0)
    alike = min(int(same.long().cumprod(0).sum()), int(mask.sum(1).min()) - 1)  # something is left of each row
    return max(alike, 0) if len(ids) > 1 else 0


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as a layout says, or as usual where there is none; an attention function of transformers.

    Args:
        module: The attention layer.
        query: Shape [1, heads, tokens, width]; key and value have the key-value heads.
        key: See query.
        value: See query.
        attention_mask: Of batches without a layout.
        scaling: What scores are multiplied with.
        layout: Where the rows lie.
        **kwargs: For the usual attention.

    Returns:
        Shape [1, tokens, heads, width].
    """
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    # In float32 the kernels' backward pass is faster than in bfloat16: a sixth of a whole step.
    found = SharedBeginning.apply(query.float(), key.float(), value.float(), layout, scaling)
    return found.transpose(1, 2).to(value.dtype), None


class SharedBeginning(torch.autograd.Function):
    """Causal attention over a layout: flash attention by parts, which are joined by their log-sum-exps.

    Backwards, each part needs the joined output and log-sum-exp alone (FlashAttention, Dao et al. 2022, section 3.2).
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float | None
    ) -> torch.Tensor:
        """Attend; tensors of shape [1, heads, tokens, width]."""
        outputs, sums = [], []
        for q, k, v in zip(
            *(each.split([layout.shared, *layout.rests], 2) for each in (query, key, value)), strict=True
        ):
            if q.shape[2]:
                output, total = forward_kernel(q, k, v, 0.0, True, scale=scale)
                outputs.append(output)
                sums.append(total)
        output, total = torch.cat(outputs, 2), torch.cat(sums, 2)
        if n := layout.shared:
            across, more = forward_kernel(query[:, :, n:], key[:, :, :n], value[:, :, :n], 0.0, False, scale=scale)
            joined = torch.logaddexp(total[:, :, n:], more)
            own = output[:, :, n:] * (total[:, :, n:] - joined).exp()[..., None]
            output[:, :, n:] = own + across * (more - joined).exp()[..., None]
            total[:, :, n:] = joined
        ctx.save_for_backward(query, key, value, output, total)
        ctx.layout, ctx.scale = layout, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Turn the output's gradient into those of query, key and value."""
        tensors = (gradients[0].contiguous(), *ctx.saved_tensors)
        layout, found = ctx.layout, []
        for g, q, k, v, o, s in zip(*(each.split([layout.shared, *layout.rests], 2) for each in tensors), strict=True):
            if q.shape[2]:
                found.append(backward_kernel(g, q, k, v, o, s, 0.0, True, scale=ctx.scale))
        query, key, value = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
        if n := layout.shared:
            gradient, q, k, v, output, total = tensors
            rests = (gradient[:, :, n:], q[:, :, n:], k[:, :, :n], v[:, :, :n], output[:, :, n:], total[:, :, n:])
            for whole, part, place in zip(
                (query, key, value),
                backward_kernel(*rests, 0.0, False, scale=ctx.scale),
                (slice(n, None), slice(n), slice(n)),
                strict=True,
            ):
                whole[:, :, place] += part
        return query, key, value, None, None

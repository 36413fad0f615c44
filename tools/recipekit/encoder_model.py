"""The small encoder itself: an XLM-RoBERTa of few dimensions, and the small base's characters as its tokenizer."""

from pathlib import Path
from typing import Any

import orjson

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # with XLM-R's ids, which its positions and configuration rely on
MASK = "<mask>"


def build_tokenizer(base: Path, max_length: int) -> Any:
    """Build a fast tokenizer with XLM-R's special tokens and templates from the small base's tokenizer.json.

    Args:
        base: The small base's tokenizer.json; its special tokens come first.
        max_length: Most tokens of a row, `<s>` and `</s>` included.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    known = orjson.loads(base.read_bytes())["model"]["vocab"]
    tokens = [*SPECIALS, *(token for token in sorted(known, key=known.__getitem__) if token not in SPECIALS), MASK]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    special = [AddedToken(token, special=True, normalized=False) for token in (*SPECIALS, MASK)]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:0 </s>:0",
        special_tokens=[("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=MASK,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(architecture: dict[str, Any], tokenizer: Any, seed: int, buckets: int) -> Any:
    """Build an `XLMRobertaForMaskedLM` (float32) that sees neighbours from the start (see `start_looking`).

    It has two more heads on `<s>`, off which classifiers read a text, and which masked language modelling alone leaves
    empty: `summary`, the buckets of pairs of tokens that the text may hold, and `fits`, whether a second text answers
    the first.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **architecture,
    )
    model = XLMRobertaForMaskedLM(config)
    model.summary, model.fits = (torch.nn.Linear(config.hidden_size, size) for size in (buckets, 1))
    with torch.no_grad():
        start_looking(model)
    return model


def start_looking(model: Any) -> None:
    """Set the first weights so that layer 0 attends to the tokens one and two places before and after.

    From random weights, attention finds no neighbour in three million tokens, and up to then nothing is learned
    but how often each token occurs. Half of the embedding holds the token, the other half sines and cosines of the
    position; each head's keys are the fast ones of these, its queries the same, turned by its offset.
    """
    import torch

    for name, weight in model.named_parameters():
        if ".layer." in name and weight.dim() == 2:
            weight.normal_(0, 0.5 / weight.shape[1] ** 0.5)
    embeddings, attention = model.roberta.embeddings, model.roberta.encoder.layer[0].attention.self
    half, size = model.config.hidden_size // 2, attention.attention_head_size
    fast, slow = size // 2, half // 2 - size // 2
    frequencies = torch.cat([0.2 + 2.8 * torch.rand(fast), 0.2 * 100 ** -(torch.arange(slow) / max(slow, 1))])
    angles = torch.arange(model.config.max_position_embeddings)[:, None] * frequencies
    embeddings.word_embeddings.weight.normal_(0, 0.25)[:, half:] = 0
    embeddings.position_embeddings.weight.zero_()[:, half:] = 0.35 * torch.cat([angles.cos(), angles.sin()], 1)
    embeddings.token_type_embeddings.weight.zero_()
    model.lm_head.layer_norm.weight.fill_(0.1)  # the head is tied to embeddings larger than usual
    cosines, sines = torch.arange(fast) + half, torch.arange(fast) + half + half // 2
    for head in range(model.config.num_attention_heads):
        rows, turn = head * size + torch.arange(fast), (head // 2 + 1) * (-1) ** head * frequencies[:fast]
        for projection in (attention.query, attention.key):
            projection.weight[head * size : (head + 1) * size] = 0
        strength = (10 / fast * size**0.5) ** 0.5
        attention.key.weight[rows, cosines] = attention.key.weight[rows + fast, sines] = strength
        attention.query.weight[rows, cosines] = attention.query.weight[rows + fast, sines] = strength * turn.cos()
        attention.query.weight[rows, sines] = -strength * turn.sin()
        attention.query.weight[rows + fast, cosines] = strength * turn.sin()

"""The small encoder itself: an XLM-RoBERTa of few dimensions, and the small base's characters as its tokenizer."""

from pathlib import Path
from typing import Any

import orjson

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # with XLM-R's ids, which its positions and configuration rely on
MASK = "<mask>"


def build_tokenizer(base: Path, max_length: int) -> Any:
    """Build a fast tokenizer with XLM-R's special tokens and templates from the small base's tokenizer.json.

    It marks the second of two texts, as BERT's does.

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
        pair="<s> $A </s> </s>:1 $B:1 </s>:1",
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
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(architecture: dict[str, Any], tokenizer: Any, seed: int, buckets: int) -> Any:
    """Build an `XLMRobertaForMaskedLM` (float32) that sees from the start neighbours, and what two texts share.

    See `start_looking` and `start_matching`.

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
        start_matching(model, tokenizer.cls_token_id)
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


def start_matching(model: Any, cls_token_id: int) -> None:
    """Set first weights so that two heads of layer 1 tell of a second text's tokens whether the first has them too.

    From random weights, `<s>` does not find out in a million pairs whether the second text is about the first. Three
    dimensions of the embedding are set aside: which text a token is of, whether it is `<s>`, and what these heads tell.
    Their queries and keys are the tokens themselves, the other text's before their own; a token that the first text
    lacks looks at `<s>`, whose value has the other sign.
    """
    import torch

    text, start, told = range(3)
    embeddings, layers = model.roberta.embeddings, model.roberta.encoder.layer
    half, size = model.config.hidden_size // 2, layers[1].attention.self.attention_head_size
    embeddings.word_embeddings.weight[:, :3] = 0
    embeddings.word_embeddings.weight[cls_token_id, start] = 2.0
    embeddings.token_type_embeddings.weight[:, text] = torch.tensor([0.5, -0.5])
    for layer in layers[:2]:  # nothing else writes there before it is read
        layer.attention.output.dense.weight[:3] = layer.output.dense.weight[:3] = 0
    attention, tokens = layers[1].attention.self, size - 3
    for first in (0, size):
        turned, _ = torch.linalg.qr(torch.randn(half - 3, tokens))
        for projection in (attention.query, attention.key):
            projection.weight[first : first + size] = 0
            projection.weight[first : first + tokens, 3:half] = 1.5 * turned.T
        attention.query.weight[first + tokens, text], attention.key.weight[first + tokens, text] = -3.4, 3.4
        attention.query.bias[first + tokens + 1], attention.key.weight[first + tokens + 1, start] = 8.0, 1.0
        attention.value.weight[first] = 0
        attention.value.weight[first, start], attention.value.bias[first] = -0.3, 0.6
        layers[1].attention.output.dense.weight[told, first] = 1.0

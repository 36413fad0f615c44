"""Tokenizers and random models of a few thousand parameters, made on the spot."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXT = 'abcdefghijklmnopqrstuvwxyz_ABC0123456789{}[]:,."\\/\n \u3000【】記事を抽出する。容疑者逮捕花火大会山田海野太郎'
MERGES = [("▁", "{"), ("▁", '"'), ('"', ":"), ('"', ","), ("▁{", '"'), ("[", "]")]


def tiny_tokenizer(path: Path, text: str = TEXT, sentencepiece: bool = False) -> PreTrainedTokenizerFast:
    """Save a character-level tokenizer with byte fallback.

    With sentencepiece, a space is put before every text, as Mistral's tokenizer does, and there are a few merges.
    """
    characters = sorted(set(text.replace(" ", "▁") if sentencepiece else text))
    merged = ["".join(pair) for pair in MERGES] if sentencepiece else []
    vocab = {token: place for place, token in enumerate(dict.fromkeys(SPECIALS + BYTES + characters + merged))}
    model = models.BPE(vocab, MERGES if sentencepiece else [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    steps = [decoders.ByteFallback(), decoders.Fuse()]
    if sentencepiece:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        steps = [decoders.Replace("▁", " "), *steps, decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(path)
    return fast


def tiny_model(path: Path, seed: int = 0, **config: object) -> MistralForCausalLM:
    """Save a random two-layer Mistral with the vocabulary of the tokenizer in the same folder."""
    values: dict = {
        "vocab_size": len(PreTrainedTokenizerFast.from_pretrained(path)), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "sliding_window": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
    } | config  # fmt: skip
    torch.manual_seed(seed)
    model = MistralForCausalLM(MistralConfig(**values)).eval()
    model.save_pretrained(path)
    return model


def tiny_base(path: Path, seed: int = 0) -> Path:
    """Save a tokenizer and a random model in one folder."""
    tiny_tokenizer(path)
    tiny_model(path, seed)
    return path


def tiny_adapter(path: Path, base: Path, seed: int = 0, trained: bool = True) -> Path:
    """Save a LoRA adapter of a base, as a training run leaves it: with the tokenizer; lora_B random or still zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = MistralForCausalLM.from_pretrained(base)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in peft.named_parameters():
        if trained and "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    peft.save_pretrained(str(path))
    PreTrainedTokenizerFast.from_pretrained(base).save_pretrained(path)
    return path


def tiny_encoder(path: Path, seed: int = 0) -> Path:
    """Save a random two-layer XLM-RoBERTa with a tokenizer that frames texts and pairs as XLM-RoBERTa's does."""
    from tokenizers.processors import TemplateProcessing
    from transformers import XLMRobertaConfig, XLMRobertaModel

    tokenizer = tiny_tokenizer(path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save_pretrained(path)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=260, type_vocab_size=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(seed)
    XLMRobertaModel(config).save_pretrained(path)
    return path


def tiny_japanese_bert(path: Path, seed: int = 0) -> Path:
    """Save a random two-layer BERT with one output, as rerankers have, and a tokenizer of Japanese words by MeCab."""
    from transformers import BertConfig, BertForSequenceClassification, BertJapaneseTokenizer

    characters = "記事大会花火海山田番写真0123456789のを:、"
    path.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{one}" for one in characters)]
    (path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = BertJapaneseTokenizer(
        str(path / "vocab.txt"), subword_tokenizer_type="character", mecab_kwargs={"mecab_dic": "unidic_lite"}
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=0.2, **sizes)
    BertForSequenceClassification(config).eval().save_pretrained(path)
    return path

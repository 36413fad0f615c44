"""A tokenizer.json as llama.cpp reads tokenizers: by scores (llama), or by merges and a pre-tokenizer's name (gpt2).

What llama.cpp would read otherwise is refused: which characters make a token is what the model has learned.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit.errors import UserError
from recipekit.runs import relative

SPACE = "▁"
_BYTE = re.compile("<0x[0-9A-F]{2}>")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # token types of GGUF
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {  # the expression that splits text before the merges -> what llama.cpp calls it
    rf"{_LETTERS}\p{{N}}{_OTHERS}": "qwen2",
    rf"{_LETTERS}\p{{N}}{{1,3}}{_OTHERS}": "llama-bpe",
}


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer in GGUF's terms.

    Attributes:
        model: "llama" (merges the best score first) or "gpt2" (merges by rank, bytes as characters).
        pre: The pre-tokenizer's name.
        tokens: By id.
        types: By id, as GGUF numbers them.
        scores: By id; empty for gpt2.
        merges: By rank, "left right"; empty for llama.
        space_prefix: Whether a space is put before a text.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    space_prefix: bool


def read_tokenizer(folder: Path, size: int) -> GgufTokenizer:
    """Read a folder's tokenizer.json.

    Args:
        folder: A model's.
        size: Rows of its embedding; tokens beyond the tokenizer's are filled up.

    Raises:
        UserError: llama.cpp has no such tokenizer; the text names what it lacks.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{relative(path)}: no such file; save the tokenizer in its fast form beside the model")
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        if spec["model"]["type"] != "BPE":
            raise ValueError(f"its model is {spec['model']['type']}, expected BPE")
        tokens, types = _tokens(spec, size)
        if spec["model"].get("byte_fallback"):
            return _by_scores(spec, tokens, types)
        return _by_merges(spec, tokens, types)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{relative(path)}: torn, {error}; merge the model again") from None
    except ValueError as error:
        raise UserError(f"{relative(path)}: {error}; llama.cpp would read other tokens, so no GGUF is made") from None


def _tokens(spec: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    names = {place: name for name, place in spec["model"]["vocab"].items()}
    types = dict.fromkeys(names, NORMAL)
    for added in spec["added_tokens"]:
        names[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise ValueError(f"the added token {added['content']} takes blanks in (lstrip, rstrip or single_word)")
    if max(names) >= size:
        raise ValueError(f"it has {max(names) + 1} tokens, the model {size}")
    for place in range(size):
        names.setdefault(place, f"[PAD{place}]")
        types.setdefault(place, UNUSED)
    return [names[place] for place in range(size)], [types[place] for place in range(size)]


def _by_scores(spec: dict[str, Any], tokens: list[str], types: list[int]) -> GgufTokenizer:
    """Read a BPE with byte fallback: llama.cpp merges whatever two tokens make the token of the best score."""
    prefix, marked = _spaces(spec)
    if not marked:
        if any(SPACE in name for name, kind in zip(tokens, types, strict=True) if kind == NORMAL):
            raise ValueError(f"tokens hold {SPACE} itself, which llama.cpp takes for a space")
        tokens = [
            name.replace(" ", SPACE) if kind == NORMAL else name for name, kind in zip(tokens, types, strict=True)
        ]
    for place, name in enumerate(tokens):
        if types[place] == NORMAL and _BYTE.fullmatch(name):
            types[place] = BYTE
    if types.count(BYTE) != 256:
        raise ValueError(f"it has {types.count(BYTE)} byte tokens, expected 256")
    unknown = spec["model"].get("unk_token")
    if unknown in tokens:
        types[tokens.index(unknown)] = UNKNOWN
    scores = _scores(tokens, types, [tuple(one) for one in _merges(spec)], marked)
    return GgufTokenizer("llama", "default", tokens, types, scores, [], prefix)


def _spaces(spec: dict[str, Any]) -> tuple[bool, bool]:
    """Tell whether a space is put before texts, and whether spaces are marked by the tokenizer itself."""
    splitter: dict[str, Any] | None = spec.get("pre_tokenizer")
    normalizer: dict[str, Any] | None = spec.get("normalizer")
    if splitter is None and normalizer is None:
        return False, False
    if splitter is None and normalizer is not None:
        steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
        if [step["type"] for step in steps] == ["Prepend", "Replace"] and steps[0]["prepend"] == SPACE:
            return True, True
        if [step["type"] for step in steps] == ["Replace"] and steps[0]["content"] == SPACE:
            return False, True
    elif (
        splitter is not None
        and normalizer is None
        and splitter["type"] == "Metaspace"
        and not splitter.get("split", True)
    ):
        # "first" puts it before a prompt that opens with plain text; prompts of a chat open with a special token
        return splitter["prepend_scheme"] == "always", True
    kinds = ", ".join(part["type"] for part in (splitter, normalizer) if part)
    raise ValueError(f"it prepares text by {kinds}, which is not how SentencePiece does")


def _merges(spec: dict[str, Any]) -> Iterator[list[str]]:
    for merge in spec["model"]["merges"]:
        yield merge if isinstance(merge, list) else merge.split(" ")


def _scores(tokens: list[str], types: list[int], merges: list[Any], marked: bool) -> list[float]:
    """Give every token the score that makes llama.cpp merge in the order of the merges.

    Raises:
        ValueError: There is no such score: two tokens make a third, and no merge says so, or ranks are mixed.
    """
    if merges and not marked:
        raise ValueError("it merges, and leaves spaces as they are")
    rank: dict[str, int] = {}
    last = ""
    for left, right in merges:
        whole = left + right
        if whole != last and whole in rank:
            raise ValueError(f"the merges that make {whole!r} do not stand together")
        rank.setdefault(whole, len(rank))
        last = whole
    known, pairs = set(tokens), set(merges)
    for name, kind in zip(tokens, types, strict=True):
        if kind == NORMAL and len(name) > 1:
            for cut in range(1, len(name)):
                if name[:cut] in known and name[cut:] in known and (name[:cut], name[cut:]) not in pairs:
                    raise ValueError(f"{name[:cut]!r} and {name[cut:]!r} make a token, and no merge says so")
    return [
        0.0 if kind in (BYTE, CONTROL, UNKNOWN) else -1.0 - rank.get(name, len(rank))
        for name, kind in zip(tokens, types, strict=True)
    ]  # fmt: skip


def _by_merges(spec: dict[str, Any], tokens: list[str], types: list[int]) -> GgufTokenizer:
    """Read a byte-level BPE, whose pre-tokenizer llama.cpp knows by name."""
    splitter = spec.get("pre_tokenizer") or {"type": "nothing"}
    steps = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    if steps[-1]["type"] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise ValueError(
            f"it prepares text by {', '.join(step['type'] for step in steps)}, expected ByteLevel at the end"
        )
    normalizer = spec.get("normalizer") or {"type": "NFC"}  # llama.cpp leaves it out; text is composed as a rule
    if normalizer["type"] != "NFC":
        raise ValueError(f"it changes text by {normalizer['type']} first")
    if len(steps) == 1 and steps[0].get("use_regex", True):
        pre: str | None = "gpt-2"
    else:
        pattern = steps[0].get("pattern", {}).get("Regex", "") if len(steps) == 2 else ""
        pre = SPLITS.get(pattern)
    if pre is None or bool(spec["model"].get("ignore_merges")) != (pre == "llama-bpe"):
        known = ", ".join(["gpt-2", *SPLITS.values()])
        raise ValueError(f"its pre-tokenizer is none of {known}: {json.dumps(steps[0], ensure_ascii=False)}")
    return GgufTokenizer("gpt2", pre, tokens, types, [], [" ".join(one) for one in _merges(spec)], False)

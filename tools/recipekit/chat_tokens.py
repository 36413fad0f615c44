"""Conversations as tokens: what a tokenizer's chat template makes of them, and which tokens of it are trained."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from recipekit.segmentcheck import REDO, Problem
from recipekit.task import Task


class Encoded(NamedTuple):
    """A conversation's tokens.

    Attributes:
        ids: Token ids.
        trained: Of each token, whether it is trained.
    """

    ids: list[int]
    trained: list[bool]


class TemplateError(ValueError):
    """A chat template that training and serving would read differently."""


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], ask: bool = False) -> str:
    """Render messages by the tokenizer's chat template; with `ask` as a prompt that a reply follows."""
    said = [{"role": m["role"], "content": m["content"]} for m in messages]
    return tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=ask)


def spans(tokenizer: Any, messages: Sequence[Mapping[str, Any]], text: str) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each trained reply in a rendered conversation, the token that ends it included.

    Raises:
        TemplateError: The prompt that is served before a reply is not what stands before it here, or no eos token
            ends it.
    """
    eos = tokenizer.eos_token
    for i, message in enumerate(messages):
        if not message.get("train"):
            continue
        prompt = render(tokenizer, messages[:i], ask=True)
        if not text.startswith(prompt):
            raise TemplateError("the chat template writes a conversation differently once it goes on")
        reply = message["content"] + eos
        if not text.startswith(reply, len(prompt)):
            raise TemplateError(
                f"the chat template does not end a reply with {eos}, the token that generation stops at"
            )
        yield len(prompt), len(prompt) + len(reply)


def encode_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> Encoded:
    """Tokenise a conversation as it is served, each reply after the prompt that asks for it.

    Args:
        tokenizer: It has a chat template, and is a fast one.
        messages: Turns with role, content and train.

    Raises:
        TemplateError: See `spans`.
    """
    text = render(tokenizer, messages)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    trained = [False] * len(found["input_ids"])
    places = spans(tokenizer, messages, text)
    begin, end = next(places, (len(text), len(text)))
    for at, (first, last) in enumerate(found["offset_mapping"]):
        while first >= end and begin < len(text):
            begin, end = next(places, (len(text), len(text)))
        if first < begin < last:
            raise TemplateError(
                f"one token holds the end of a prompt and the beginning of a reply: {text[first:last]!r}"
            )
        trained[at] = begin <= first and last <= end
    return Encoded(list(found["input_ids"]), trained)


def encode_pair(tokenizer: Any, row: Mapping[str, Any]) -> dict[str, list[int]]:
    """Tokenise a preference as it is served: the prompt, and the chosen and the rejected reply with what ends them."""
    prompt = render(tokenizer, row["messages"], ask=True)
    texts = {"prompt": prompt} | {key: row[key]["content"] + tokenizer.eos_token for key in ("chosen", "rejected")}
    return {key: list(tokenizer(text, add_special_tokens=False)["input_ids"]) for key, text in texts.items()}


class ChatRowChecker:
    """Checks rows of conversations or preferences, as far as can be seen without their tokens."""

    def __init__(self, task: Task) -> None:
        """Take the task that they are of."""
        self.remedy = f"a row is {{'messages': [{{'role', 'content', 'train'}}, ...]}}; {REDO.format(task.name)}"

    def problems(self, row: dict[str, Any]) -> Iterator[Problem]:
        """Tell what is wrong with a row."""
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            yield Problem("shape", "messages", "no list of turns with role and content", self.remedy)
            return
        if messages[0]["role"] != "system":
            yield Problem("shape", "messages.0.role", f"found {messages[0]['role']!r}, expected 'system'", self.remedy)
        if "chosen" in row or "rejected" in row:
            for key in ("chosen", "rejected"):
                if not _is_message(row.get(key)):
                    yield Problem("shape", key, "no reply with role and content", self.remedy)
        elif not any(message.get("train") for message in messages):
            remedy = "such a row teaches nothing, its loss is NaN; remove it, or train a turn of it"
            yield Problem("untrained", "", "no turn is trained", remedy)
        elif wrong := next((m["role"] for m in messages if m.get("train") and m["role"] != "assistant"), None):
            yield Problem("mask", "messages", f"a turn of {wrong} is trained", self.remedy)


def _is_message(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("role"), str) and isinstance(found.get("content"), str)


class ChatTokenChecker:
    """Checks conversations' tokens."""

    def __init__(self, task: Task, tokenizer: Any, sequence_len: int) -> None:
        """Take the tokenizer and the tokens that a row may have."""
        self.task, self.tokenizer, self.sequence_len = task, tokenizer, sequence_len
        added = tokenizer.added_tokens_decoder
        self.special = [added[token].content for token in added if added[token].special]

    def problems(self, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, int, list[Problem]]]:
        """Yield line, length in tokens and problems of each row of a batch."""
        for line, row in rows:
            try:
                length = len(self._ids(row))
            except TemplateError as error:
                remedy = "take another chat_template for this base, or another base"
                yield line, 0, [Problem("template", "", str(error), remedy)]
                continue
            found = list(self._quoted(row))
            if length > self.sequence_len:
                remedy = "shorten or part the conversation, or raise sequence_len"
                found.append(Problem("long", "", f"{length:,} tokens, over sequence_len {self.sequence_len:,}", remedy))
            yield line, length, found

    def _ids(self, row: dict[str, Any]) -> list[int]:
        if "chosen" not in row:
            return encode_chat(self.tokenizer, row["messages"]).ids
        pair = encode_pair(self.tokenizer, row)
        return pair["prompt"] + max(pair["chosen"], pair["rejected"], key=len)

    def _quoted(self, row: dict[str, Any]) -> Iterator[Problem]:
        """Find special tokens that somebody says, and that the model would take for real ones."""
        replies = [row[key] for key in ("chosen", "rejected") if key in row]
        for i, message in enumerate([*row["messages"], *replies]):
            if name := next((name for name in self.special if name in message["content"]), None):
                remedy = f"name it under prompt.special_tokens in task.yml, then {REDO.format(self.task.name)}"
                yield Problem("special", f"messages.{i}", f"the text {name!r} becomes a special token", remedy)


def sample_chat(tokenizer: Any, row: dict[str, Any]) -> list[tuple[str, bool]]:
    """Cut a conversation's tokens where training begins or ends, and read them back; of a preference the chosen one."""
    if "chosen" in row:
        pair = encode_pair(tokenizer, row)
        return [(tokenizer.decode(pair["prompt"]), False), (tokenizer.decode(pair["chosen"]), True)]
    found: list[tuple[list[int], bool]] = []
    for token, trained in zip(*encode_chat(tokenizer, row["messages"]), strict=True):
        if not found or found[-1][1] != trained:
            found.append(([], trained))
        found[-1][0].append(token)
    return [(tokenizer.decode(ids, skip_special_tokens=False), trained) for ids, trained in found]


def template_problems(tokenizer: Any, name: str) -> list[str]:
    """Tell what a base's tokenizer lacks for conversations."""
    if not tokenizer.chat_template:
        remedy = "take an instruction-tuned base, or write chat_template: chatml in the phases"
        return [f"{name}: its tokenizer has no chat template; {remedy}"]
    turns = [("system", "あ"), ("user", "い"), ("assistant", "う"), ("user", "え"), ("assistant", "お")]
    messages = [{"role": role, "content": text, "train": role == "assistant"} for role, text in turns]
    try:
        encode_chat(tokenizer, messages)
    except TemplateError as error:
        return [f"{name}: {error}; take another base, or a chat_template that does not"]
    return []

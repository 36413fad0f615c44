"""A conversation in a terminal: its state, its commands, and the two ways to a reply, a model here or a server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from recipekit import chat_fields
from recipekit.conversations import Conversation, Conversations, Message
from recipekit.endpoint import connect, explained, find_model
from recipekit.errors import UserError
from recipekit.hub import masked
from recipekit.runs import relative, write_bytes

HELP = """\
/set name=value   say something of the conversation: /set affection_level=lover
/memory TEXT      one more thing that the character remembers
/system           show the system message
/undo             take back the last turn and its reply
/again            another reply to the last turn
/edit TEXT        put this in the place of the last reply
/save FILE        add the conversation to a .jsonl file, as a row that tools/regenerate_segments.py reads
/quit             end; so does Ctrl-D. Ctrl-C stops a reply. A turn that begins with / is written with two"""


class Replies(Protocol):
    """What answers.

    Attributes:
        context: Tokens that a prompt and its reply may have; None: not known.
    """

    context: int | None

    def count(self, messages: list[Message]) -> int:
        """Count a prompt's tokens."""

    def stream(self, messages: list[Message], seed: int) -> Iterator[str]:
        """Answer, piece by piece; whoever stops reading stops the reply."""


class LocalReplies:
    """A model in this process."""

    def __init__(self, chat: Any, sampling: Any) -> None:
        """Take a ChatModel and how replies are drawn."""
        self.chat, self.sampling = chat, sampling
        self.context: int | None = getattr(chat.model.config, "max_position_embeddings", None)

    def count(self, messages: list[Message]) -> int:
        """Count a prompt's tokens."""
        return len(self.chat.tokenizer(self.chat.prompt(messages), add_special_tokens=False)["input_ids"])

    def stream(self, messages: list[Message], seed: int) -> Iterator[str]:
        """Answer, piece by piece."""
        yield from self.chat.stream(messages, replace(self.sampling, seed=seed))


class ServerReplies:
    """A model behind an OpenAI-compatible server."""

    def __init__(
        self, url: str, key: str | None, served: str | None, sampling: Any, tokenizer: Any, context: int | None
    ) -> None:
        """Look for the model there.

        Args:
            url: Base URL, http://localhost:8000/v1.
            key: The server's; None: it needs none.
            served: The model's name there; None takes the only one.
            sampling: How replies are drawn; servers of the OpenAI form take no top_k.
            tokenizer: Of the same model, to count tokens; None: they are not counted.
            context: Tokens that the server takes; None: not known.

        Raises:
            UserError: The server cannot be reached, or does not serve the model.
        """
        self.url, self.sampling, self.tokenizer = masked(url), sampling, tokenizer
        self.client: Any = connect(url, key, retries=1)
        self.served, longest = find_model(self.client, self.url, served)
        self.context = (longest or context) if tokenizer else None

    def count(self, messages: list[Message]) -> int:
        """Count a prompt's tokens."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def stream(self, messages: list[Message], seed: int) -> Iterator[str]:
        """Answer, piece by piece."""
        with explained(self.url):
            answer = self.client.chat.completions.create(
                model=self.served, messages=messages, stream=True, seed=seed, temperature=self.sampling.temperature,
                top_p=self.sampling.top_p, max_tokens=self.sampling.max_new_tokens,
            )  # fmt: skip
            with answer:
                for chunk in answer:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content


@dataclass
class Talk:
    """A conversation under way.

    Attributes:
        reads: The task's conversations.
        replies: What answers.
        fields: What the conversation says of itself.
        longest: Tokens kept free for a reply.
        seed: Of the first reply; every further one has the next.
        turns: What was said.
        edited: Whether a reply was put in by hand.
    """

    reads: Conversations
    replies: Replies
    fields: dict[str, Any]
    longest: int
    seed: int
    turns: list[Message] = field(default_factory=list)
    edited: bool = False

    def conversation(self) -> Conversation:
        """Return it as conversations are kept."""
        return Conversation(None, self.turns, None, self.fields)

    def prompt(self) -> tuple[list[Message], int]:
        """Return the messages that a reply follows, and how many of the oldest turns had to be left out.

        Raises:
            UserError: The system message and the last turn alone are too long.
        """
        system, *said = self.reads.messages(self.conversation())
        left_out = 0
        while self.replies.context and self.replies.count([system, *said]) + self.longest > self.replies.context:
            if len(said) < 3:
                raise UserError(f"too long: with {self.longest} tokens for a reply it does not fit into the model's "
                                f"{self.replies.context}; use fewer words, or a smaller --max-new-tokens")  # fmt: skip
            said, left_out = said[2:], left_out + 2
        return [system, *said], left_out

    def say(self, text: str) -> None:
        """Add a turn of the user."""
        self.turns.append({"role": "user", "content": text})

    def answer(self, write: Callable[[str], None]) -> int:
        """Let the model answer the last turn, writing as it goes; a reply that Ctrl-C stops is kept as far as it went.

        Returns:
            How many of the oldest turns the model did not see.

        Raises:
            UserError: It cannot be asked; the turn is taken back.
        """
        text, stopped = "", False
        try:
            messages, left_out = self.prompt()
            pieces = self.replies.stream(messages, self.seed)
            try:
                for piece in pieces:
                    text += piece
                    write(piece)
            except KeyboardInterrupt:
                stopped = True
                pieces.close()  # type: ignore[attr-defined]
        except (UserError, KeyboardInterrupt):
            self.turns.pop()
            raise
        self.seed += 1
        if text.strip():
            self.turns.append({"role": "assistant", "content": text.strip()} | ({"train": False} if stopped else {}))
        else:
            self.turns.pop()
        return left_out

    def undo(self) -> str:
        """Take the last turn and its reply back, and return what was said.

        Raises:
            UserError: Nothing was said.
        """
        if not self.turns:
            raise UserError("nothing has been said yet")
        *self.turns, said, _ = self.turns
        return said["content"]

    def edit(self, text: str) -> None:
        """Put another text in the place of the last reply.

        Raises:
            UserError: There is no reply, or no text.
        """
        if not self.turns or not text:
            raise UserError("/edit: expected a text, and a reply that it takes the place of")
        self.turns[-1] = {"role": "assistant", "content": text}
        self.edited = True

    def row(self) -> dict[str, Any]:
        """Return it as a row of raw data."""
        source = {"source": "edited" if self.edited else "real"} if "source" in self.reads.fields else {}
        return replace(self.conversation(), fields={**self.fields, **source}).row()

    def save(self, path: Path) -> int:
        """Add the conversation to a file of rows, whole or not at all.

        Returns:
            How many rows the file has now.

        Raises:
            UserError: It is no row that could train, or the file cannot be written.
        """
        if path.suffix != ".jsonl":
            raise UserError(f"/save: found {str(path)!r}, expected a file called .jsonl")
        row = self.row()
        if problems := self.reads.problems(row):
            raise UserError([f"/save: {where}: {what}" for where, what in problems])
        try:
            before = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise UserError(f"{relative(path)}: {error.strerror}; name another file") from None
        before += b"\n" if before and not before.endswith(b"\n") else b""
        write_bytes(path, before + orjson.dumps(row) + b"\n")
        return before.count(b"\n") + 1


def obey(talk: Talk, line: str) -> str | None:
    """Carry out a command other than /again and /quit, and return what to show of it; None: there is no such command.

    Raises:
        UserError: It cannot be done.
    """
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/set":
        found = chat_fields.parse_field(talk.reads, rest, "/set")
        talk.fields |= found
        return "\n".join(f"{title}: {words}" for title, words in chat_fields.words(talk.reads, found))
    if name == "/memory":
        chat_fields.add_memory(talk.reads, talk.fields, rest, "/memory")
        return f"{len(talk.fields[chat_fields.MEMORIES])} memories"
    if name == "/system":
        return talk.reads.system(talk.conversation())
    if name == "/undo":
        return f"taken back: {talk.undo()}"
    if name == "/edit":
        talk.edit(rest)
        return "the reply is yours now; /save marks the conversation as edited"
    if name == "/save":
        path = Path(rest)
        return f"{relative(path)}: {talk.save(path)} conversations"
    return HELP if name == "/help" else None

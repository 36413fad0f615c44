"""Who drafts replies: a model on this machine, or one behind an OpenAI-compatible server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from recipekit.chat_model import ChatModel, Reply, Sampling
from recipekit.conversations import Message
from recipekit.endpoint import connect, explained, find_model
from recipekit.errors import UserError
from recipekit.hub import masked, setting
from recipekit.runs import relative
from recipekit.task import Task

RETRIES, SECONDS = 2, 120  # of a request; a person waits


class Drafter(Protocol):
    """Writes replies.

    Attributes:
        name: For people.
    """

    name: str

    def reply(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Answer a conversation, the system message first, the user's last.

        Raises:
            UserError: It cannot.
        """


class LocalDrafter:
    """A model's folder."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Raises:
            UserError: There is no model, or its files are torn, or it has no chat template.
        """
        self.name = relative(folder)
        self.model = ChatModel.load(folder)
        if not self.model.tokenizer.chat_template:
            raise UserError(f"{self.name}: its tokenizer has no chat template; take a model trained for chat")

    def reply(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Answer with the model."""
        return next(self.model.replies([messages], sampling))[1]


class ServerDrafter:
    """A server's /chat/completions, whose chat template makes the prompt."""

    def __init__(self, task: Task, url: str, served: str | None) -> None:
        """Ask the server what it serves.

        Raises:
            UserError: It cannot be reached, or does not serve the model.
        """
        self.url = masked(url)
        self.client = connect(url, setting(task.root, "OPENAI_API_KEY"), retries=RETRIES, seconds=SECONDS)
        self.served, _ = find_model(self.client, self.url, served)
        self.name = f"{self.served} ({self.url})"

    def reply(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Ask the server."""
        asked: Any = list(messages)
        with explained(self.url):
            reply = self.client.chat.completions.create(
                model=self.served, messages=asked, temperature=sampling.temperature, top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens, seed=sampling.seed,
            )  # fmt: skip
            choice = reply.choices[0] if reply.choices else None
            if choice is None or not isinstance(choice.message.content, str):
                raise UserError(f"{self.url}: the server's reply has no answer in it; see the server's log")
            tokens = reply.usage.completion_tokens if reply.usage else 0
        return Reply(choice.message.content.strip(), tokens, choice.finish_reason == "stop")

"""Predicts a chat's test scenes: the reply to each, and whether the model ended it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from recipekit import chat_rows, models
from recipekit.chat_model import ChatModel, Reply, Sampling
from recipekit.conversations import Conversations
from recipekit.inputs import Article
from recipekit.runs import relative
from recipekit.task import Task


def read_scenes(task: Task, path: Path) -> tuple[list[Article], list[str]]:
    """Read test scenes as what is predicted.

    Returns:
        The good ones, the body being the messages that the model reads, as JSON; and the problems of the others.
    """
    reader, problems = Conversations(task), list[str]()
    rows = [row for _, row in chat_rows.read_scenes(reader, path, problems)]
    bodies = (orjson.dumps(reader.messages(reader.read(row))).decode() for row in rows)
    place = relative(path)
    return [Article(row["id"], body, place) for row, body in zip(rows, bodies, strict=True)], problems


class ChatPredictor:
    """Answers test scenes with a model in this process, always the likeliest token.

    Args:
        chat: The model.
        most: Tokens that a reply may have.
        batch_size: Scenes answered at a time.
    """

    def __init__(self, chat: ChatModel, most: int, batch_size: int = 32) -> None:
        self.chat, self.most, self.batch_size = chat, most, batch_size

    @classmethod
    def load(cls, task: Task, model: Path | None, adapter: Path | None, batch_size: int) -> "ChatPredictor":
        """Load a merged model, or an adapter on its base."""
        if model is None:
            assert adapter is not None
            found = models.check_adapter(adapter, "train the phase again")
            model = Path(models.base_of(adapter, found, task.root))
        most = task.spec.get("predict", {}).get("max_new_tokens", Sampling().max_new_tokens)
        return cls(ChatModel.load(model, adapter), most, batch_size)

    def predict(self, articles: Iterable[Article]) -> Iterator[dict[str, Any]]:
        """Answer scenes.

        Yields:
            One row a scene, as soon as it is done: id, output, valid (it says something, and the model ended it),
            ended and tokens.
        """
        scenes = list(articles)
        asked = [orjson.loads(scene.body) for scene in scenes]
        for place, reply in self.chat.replies(asked, Sampling(self.most), self.batch_size):
            yield {"id": scenes[place].id, **row_of(reply)}


def row_of(reply: Reply) -> dict[str, Any]:
    """Write a reply as predictions have it."""
    valid = bool(reply.text) and reply.ended
    return {"output": reply.text, "valid": valid, "ended": reply.ended, "tokens": reply.tokens}

"""The merged model that is exported, and conversations of its task that an export is proven on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from recipekit import models
from recipekit.conversations import Conversations, Message, read_rows
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.segments import read_jsonl
from recipekit.task import Task

NUM_CTX = 4096  # tokens; more of them cost memory that a chat rarely needs
EXPORTED = ("chat", "extraction")
# Said to every chat template: a second turn, no system message, blank lines, and text that looks like a template.
PLAIN = (
    [("user", "おはよう")],
    [("system", "短く答える。"), ("user", "おはよう")],
    [
        ("system", "一行目\n\n二行目"),
        ("user", "{{ .System }}とは"),
        ("assistant", "「{% x %}」だね"),
        ("user", "☀️\n\nまた"),
    ],
    [("user", "a"), ("assistant", "b"), ("user", 'c "d" \\n'), ("assistant", "𠮷野家 <b>"), ("user", "e")],
)


@dataclass(frozen=True)
class Exported:
    """A merged model of a task.

    Attributes:
        task: Its task, of kind chat or extraction.
        folder: Where config, weights and tokenizer lie.
    """

    task: Task
    folder: Path

    @classmethod
    def of(cls, task: Task, folder: Path | None) -> "Exported":
        """Take a task's merged model, or one in another folder.

        Raises:
            UserError: The task's model writes no text, or there is none.
        """
        if task.kind not in EXPORTED:
            raise UserError(
                f"{task.name}: a {task.kind}, whose model gives numbers and writes no text, so none of these formats "
                f"holds it; expected a task of kind {' or '.join(EXPORTED)}; tools/serve.py and tools/rank.py use it"
            )
        folder = folder or task.outputs / "merged"
        models.check_model(folder, f"train and merge the task first: uv run bash train_all.sh {task.name}")
        if not any(folder.glob("*.safetensors")):
            raise UserError(
                f"{relative(folder)}: no *.safetensors in it; merge again: uv run tools/merge.py {task.name}"
            )
        return cls(task, folder.resolve())

    @property
    def is_chat(self) -> bool:
        """Tell whether it answers in conversations."""
        return self.task.kind == "chat"

    @property
    def name(self) -> str:
        """What servers call it."""
        return self.task.slug

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return self._json("config.json")

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, its chat template with it."""
        return models.load_tokenizer(self.folder)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{relative(path)}: not valid JSON, {error}; merge the model again") from None

    @property
    def context(self) -> int:
        """The longest conversation that it was made for (tokens)."""
        window = self.config.get("sliding_window") if self.config.get("use_sliding_window", True) else None
        return min(self.config.get("max_position_embeddings") or NUM_CTX, window or 2**31)

    @property
    def num_ctx(self) -> int:
        """The context to serve it with (tokens): 4,096, or its own where that is smaller."""
        return min(NUM_CTX, self.context)

    @cached_property
    def end_ids(self) -> list[int]:
        """The tokens that end a reply: the tokenizer's eos first, then generation_config.json's."""
        own = self._json("generation_config.json").get("eos_token_id", self.config.get("eos_token_id"))
        found = [self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
        return list(dict.fromkeys(one for one in found if one is not None))

    @property
    def stops(self) -> list[str]:
        """The same as text."""
        return [self.tokenizer.convert_ids_to_tokens(one) for one in self.end_ids]

    @property
    def has_template(self) -> bool:
        """Tell whether conversations have a form that the model was trained on."""
        return self.is_chat and bool(self.tokenizer.chat_template)

    def render(self, messages: list[Message], reply_follows: bool = True) -> str:
        """Render a conversation by the tokenizer's chat template."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply_follows)

    def conversations(self, most: int = 8) -> list[list[Message]]:
        """Return conversations that end with the user: some that try a template, then the task's own scenes or rows."""
        plain = [[{"role": role, "content": text} for role, text in one] for one in PLAIN]
        return [*plain, *islice(self._own(), most)]

    def chat_files(self, *roles: str) -> list[Path]:
        """Return the raw files of data sets with these roles (train, validation), those that are there."""
        data = self.task.spec["data"]
        files = [own["file"] for own in data["train"].values() if own.get("role", "train") in roles and "file" in own]
        keys = {"train": "file", "validation": "validation"}
        files += [data["curriculum"][keys[role]] for role in roles if keys[role] in data.get("curriculum", {})]
        paths = [self.task.raw_dir / file for file in files]
        return [path for path in dict.fromkeys(paths) if path.is_file()]

    def _own(self) -> Iterator[list[Message]]:
        reads = Conversations(self.task)
        for path in self.chat_files("train", "validation"):
            for _, row in islice(read_rows(path), 4):
                if isinstance(row, dict) and not reads.problems(row):
                    messages = reads.messages(reads.read(row))
                    yield messages if messages[-1]["role"] == "user" else messages[:-1]

    def prompts(self, most: int = 8) -> list[str]:
        """Return texts that the model reads: conversations as rendered, or the task's first training rows."""
        if self.has_template:
            return [self.render(messages) for messages in self.conversations(most)]
        if self.is_chat:
            raise UserError(f"{relative(self.folder)}: its tokenizer has no chat template; merge the model again")
        paths = [self.task.segments_path(dataset) for dataset in self.task.raw_sets]
        rows = [row for path in paths if path.is_file() for _, row in islice(read_jsonl(path), 2)]
        texts = ["".join(segment["text"] for segment in row["segments"]) for row in rows[:most]]
        return texts or ["".join(self.task.prompt("隣町の広場で朝市が開かれた。𠮷野さんは「また来たい」と話した。"))]

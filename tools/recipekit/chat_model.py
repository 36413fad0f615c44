"""A chat model that answers: one reply at a time as it is written, or many in a batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from recipekit import models
from recipekit.conversations import Message


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Attributes:
        max_new_tokens: Longest reply (tokens).
        temperature: 0 takes the likeliest token each time.
        top_p: Draws among the likeliest tokens of this share.
        top_k: Draws among so many of the likeliest tokens.
        seed: Of the draws.
    """

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 0.9
    top_k: int = 40
    seed: int = 42

    def arguments(self) -> dict[str, Any]:
        """Return them as `generate` takes them."""
        drawn = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {"max_new_tokens": self.max_new_tokens, **(drawn if self.temperature > 0 else {"do_sample": False})}


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        text: The reply, without the token that ends it.
        tokens: How many tokens it has.
        ended: Whether the model ended it, or max_new_tokens did.
    """

    text: str
    tokens: int
    ended: bool


class ChatModel:
    """A model and its tokenizer, whose chat template makes the prompt: what trained is what is asked."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Take a model and a tokenizer that has a chat template."""
        self.model, self.tokenizer = model.eval(), tokenizer
        tokenizer.padding_side = "left"

    @classmethod
    def load(cls, folder: Path, adapter: Path | None = None) -> "ChatModel":
        """Load a merged model, or a base and an adapter on it; bfloat16 on a GPU, float32 on a CPU.

        Raises:
            UserError: There is no model or adapter, or its files are torn.
        """
        import torch

        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        models.check_model(folder, "train and merge the task first: uv run bash train_all.sh TASK")
        model = models.load_model(folder, dtype)
        if adapter is not None:
            from peft import PeftModel

            models.check_adapter(adapter, "train the phase first")
            model = PeftModel.from_pretrained(model, str(adapter))
        return cls(model, models.load_tokenizer(folder))

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render the prompt that a reply follows."""
        return self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)

    def replies(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        batch_size: int = 16,
        advance: Callable[..., None] = lambda *_: None,
    ) -> Iterator[tuple[int, Reply]]:
        """Answer many conversations, those of like length together.

        Args:
            conversations: Messages each, the system message first, the user's last.
            sampling: How replies are drawn.
            batch_size: Conversations at a time.
            advance: Called with the number of replies that are done.

        Yields:
            Place of a conversation, and its reply, in whatever order they are done.
        """
        import torch

        prompts = [self.prompt(messages) for messages in conversations]
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        torch.manual_seed(sampling.seed)
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            given = self.tokenizer(
                [prompts[i] for i in places], add_special_tokens=False, padding=True, return_tensors="pt"
            ).to(self.model.device)
            with torch.inference_mode():
                found = self.model.generate(
                    input_ids=given["input_ids"], attention_mask=given["attention_mask"], **sampling.arguments()
                )[:, given["input_ids"].shape[1] :]
            for place, ids in zip(places, found.tolist(), strict=True):
                yield place, self._reply(ids)
            advance(len(places))

    def _reply(self, ids: list[int]) -> Reply:
        ends = self._ends
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        return Reply(self.tokenizer.decode(ids[:length], skip_special_tokens=True).strip(), length, length < len(ids))

    @property
    def _ends(self) -> set[int]:
        own = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        """Answer one conversation, yielding the reply piece by piece; who stops reading stops the model.

        Raises:
            Exception: What went wrong in generation.
        """
        import torch
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        asked = self.tokenizer(self.prompt(messages), add_special_tokens=False, return_tensors="pt")
        ids = asked["input_ids"].to(self.model.device)
        stopped, failures = Event(), list[BaseException]()

        def stops(ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((ids.shape[0],), stopped.is_set(), dtype=torch.bool, device=ids.device)

        def generate() -> None:
            try:
                criteria = StoppingCriteriaList([stops])
                self.model.generate(ids, streamer=streamer, stopping_criteria=criteria, **sampling.arguments())
            except BaseException as error:  # noqa: BLE001, it is raised where the reply is read
                failures.append(error)
                streamer.end()

        torch.manual_seed(sampling.seed)
        thread = Thread(target=generate, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            stopped.set()
            thread.join()
        if failures:
            raise failures[0]

"""A predictor whose model is behind an OpenAI-compatible server: vLLM, Ollama and others (docs/serving.md)."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from recipekit import decoding, models
from recipekit.endpoint import connect, explained, find_model
from recipekit.errors import UserError
from recipekit.hub import masked, setting
from recipekit.predictor import Answer, Predictor, PromptAs, check
from recipekit.segments import encode
from recipekit.task import Task


class ServerPredictor(Predictor):
    """Predicts with a model behind a server's /completions.

    Args:
        task: The task.
        url: Base URL, http://localhost:8000/v1.
        served: The model's name there; by default the only one that the server lists.
        model: Folder of the same model, for its tokenizer; by default the merged model.
        prompt_as: "ids" sends token ids, which are those of training; "text" sends text, for servers that take no ids.
        constrain: Whether the server is asked to hold answers to the task's output_schema.
        concurrency: Requests under way at a time.

    Raises:
        UserError: The server cannot be reached, or does not serve the model, or the folder holds no tokenizer.
    """

    def __init__(
        self, task: Task, url: str, served: str | None = None, model: Path | None = None, prompt_as: PromptAs = "ids",
        constrain: bool = True, concurrency: int = 16,
    ) -> None:  # fmt: skip
        model = model or task.outputs / "merged"
        check(task, model, None)
        self.url = masked(url)
        self.client = connect(url, setting(task.root, "OPENAI_API_KEY"))
        self.served, longest = find_model(self.client, self.url, served)
        config = models.load_config(model)
        context = min(decoding.context_length(config), longest or config.max_position_embeddings)
        super().__init__(task, models.load_tokenizer(model), context, constrain)
        self.grammar = None
        if self.constrain:
            self.grammar = decoding.Grammar(self.tokenizer, task.output_schema, config.vocab_size, self.eos)
        self.prompt_as = prompt_as
        self.concurrency = concurrency

    def answer(self, prompts: Sequence[list[int]]) -> Iterator[Answer]:
        """Ask the server, several prompts at a time.

        Raises:
            UserError: The server fails, after retries; what it answered until then has been yielded.
        """
        ready = [self._prompt(ids) for ids in prompts]
        pool = ThreadPoolExecutor(self.concurrency)
        asked = {pool.submit(self._ask, prompt): index for index, prompt in enumerate(ready)}
        failed: BaseException | None = None
        try:
            for done in as_completed(asked):
                if not done.cancelled() and not done.exception():
                    yield self._answer(asked[done], *done.result())
                elif failed is None:
                    failed = done.exception()
                    for one in asked:  # those under way are still waited for
                        one.cancel()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if failed:
            raise failed

    def _prompt(self, ids: list[int]) -> list[int] | str:
        """Return what stands in a request for a prompt.

        Raises:
            UserError: The prompt is to be sent as text, and there is no text of which a tokenizer makes these ids.
        """
        if self.prompt_as == "ids":
            return ids
        bos = encode(self.tokenizer, [self.task.spec["prompt"]["bos"]])
        text = self.tokenizer.decode(ids[len(bos) :], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if bos + encode(self.tokenizer, [text]) != ids:  # servers add bos themselves
            raise UserError(
                "--prompt-as text: the model's tokenizer makes other token ids of the prompt as one text than of its "
                "segments, which the model learned; use --prompt-as ids, with a server that takes them (vLLM)"
            )
        return text

    def _ask(self, prompt: list[int] | str) -> tuple[Any, float, float]:
        """Return the server's choice, and when it was asked for and came."""
        extra: dict[str, Any] = {"return_token_ids": True}
        if self.constrain:
            schema = {**self.task.output_schema, "x-guidance": decoding.JSON_AS_TRAINED}
            form = {"name": self.task.name, "schema": schema, "strict": True}
            extra |= {
                "structured_outputs": {"json": schema},
                "response_format": {"type": "json_schema", "json_schema": form},
            }
        started = time.perf_counter()
        with explained(self.url, refused="where it takes no token ids, use --prompt-as text"):
            reply = self.client.completions.create(
                model=self.served, prompt=prompt, temperature=0, max_tokens=self.most, logprobs=1, extra_body=extra
            )
            if not reply.choices or not isinstance(reply.choices[0].text, str):
                raise UserError(f"{self.url}: the server's reply has no answer in it; see the server's log")
        return reply.choices[0], started, time.perf_counter()

    def _answer(self, index: int, choice: Any, started: float, ended: float) -> Answer:
        ids = getattr(choice, "token_ids", None)  # vLLM tells them
        raw = choice.text.removesuffix(self.task.spec["prompt"]["eos"])
        if ids:
            raw = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        found = getattr(choice.logprobs, "token_logprobs", None)
        logprob, chosen = self._logprob(found, ids) if found else (None, 0)
        return Answer(index, raw, choice.finish_reason == "stop", logprob, chosen, started, ended)

    def _logprob(self, found: list[float | None], ids: list[int] | None) -> tuple[float | None, int]:
        """Sum up the log-probabilities of the tokens that the model chose, where it is known which these are."""
        free: list[bool] | None = [True] * len(found)
        if self.grammar:
            free = self.grammar.free(ids, self.eos) if ids and len(ids) == len(found) else None
        values = [value for value in found if value is not None]
        if free is None or len(values) < len(found):
            return None, 0
        return sum(value for value, is_free in zip(values, free, strict=True) if is_free), sum(free)

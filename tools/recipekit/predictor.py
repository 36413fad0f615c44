"""Predictors: articles in, rows out. The model is in this process here, or behind a server (server.py).

predictor = LocalPredictor.load(load_task("hawks"))
row = next(predictor.predict([Article("1", body)]))
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from recipekit import models, runs, windows
from recipekit.answers import Judge
from recipekit.errors import UserError
from recipekit.inputs import Article
from recipekit.runs import relative
from recipekit.task import Task

Row = dict[str, Any]
PromptAs = Literal["ids", "text"]  # what a server gets
CHUNK = 1024  # articles made into prompts at a time; among them the longest go first


@dataclass(frozen=True)
class Answer:
    """What a model wrote after one prompt.

    Attributes:
        index: The prompt's place in the list given.
        raw: The answer's text.
        finished: The model ended it; it was not cut by max_new_tokens.
        logprob: Summed log-probability of the tokens that the model chose; None where it is not known.
        chosen: How many tokens these are.
        started: When the model began with it, in seconds of `time.perf_counter`.
        ended: When it was done.
    """

    index: int
    raw: str
    finished: bool
    logprob: float | None
    chosen: int
    started: float
    ended: float


class Predictor(ABC):
    """Makes prompts of articles, and rows of what a model answers.

    Args:
        task: The task.
        tokenizer: The model's.
        context: Tokens that the model attends to, prompt and answer together.
        constrain: Whether the model is held to the task's output_schema, where answers are JSON; else they are mended.

    Raises:
        UserError: The context leaves no room for an article, or the tokenizer does not know the task's eos.
    """

    def __init__(self, task: Task, tokenizer: Any, context: int, constrain: bool) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.constrain = constrain and not task.answers_are_text
        self.most = task.spec.get("predict", {}).get("max_new_tokens", 1024)
        self.room = context - self.most
        self.judge = Judge(task.output_schema, mend=not self.constrain)
        self.eos = tokenizer.convert_tokens_to_ids(task.spec["prompt"]["eos"])
        if self.eos in (None, tokenizer.unk_token_id):
            raise UserError(f"prompt.eos in task.yml: the model's tokenizer has no token {task.spec['prompt']['eos']}")
        windows.check_room(task, tokenizer, self.room)

    @abstractmethod
    def answer(self, prompts: Sequence[list[int]]) -> Iterator[Answer]:
        """Answer prompts, token ids each, in whatever order they are done."""

    def predict(self, articles: Iterable[Article]) -> Iterator[Row]:
        """Predict articles.

        Yields:
            One row an article, each as soon as it is done; its keys stand in docs/inference.md.
        """
        waiting = iter(articles)
        while chunk := list(islice(waiting, CHUNK)):
            yield from self._predict(chunk)

    def _predict(self, articles: list[Article]) -> Iterator[Row]:
        parts = [windows.prompts(self.task, self.tokenizer, article.body, self.room) for article in articles]
        owners = [place for place, prompts in enumerate(parts) for _ in prompts]
        gathered: list[list[Answer]] = [[] for _ in articles]
        for answer in self.answer([prompt for prompts in parts for prompt in prompts]):
            place = owners[answer.index]
            gathered[place].append(answer)
            if len(gathered[place]) == len(parts[place]):
                yield self._row(articles[place], sorted(gathered[place], key=lambda one: one.index))

    def _row(self, article: Article, answers: list[Answer]) -> Row:
        """Make the row of an article of the answers to its windows, in order."""
        read = [self.judge.read(answer.raw, answer.finished) for answer in answers]
        chosen = sum(answer.chosen for answer in answers)
        logprobs = [answer.logprob for answer in answers if answer.logprob is not None]
        known = chosen > 0 and len(logprobs) == len(answers)
        return {
            "id": article.id,
            **(read[0] if len(read) == 1 else windows.merge(read, self.judge, self.task.output_schema)),
            "truncated": not all(answer.finished for answer in answers),
            "mean_logprob": round(sum(logprobs) / chosen, 4) if known else None,
            "tokens": chosen if known else 0,
            "seconds": round(max(one.ended for one in answers) - min(one.started for one in answers), 3),
            **({"windows": len(answers)} if len(answers) > 1 else {}),
        }


class LocalPredictor(Predictor):
    """Predicts with a model in this process.

    Args:
        task: The task.
        model: Causal language model, in eval mode.
        tokenizer: Its tokenizer.
        constrain: Whether answers are held to the task's output_schema.
        batch_size: Prompts decoded at a time.
    """

    def __init__(self, task: Task, model: Any, tokenizer: Any, constrain: bool = True, batch_size: int = 32) -> None:
        from recipekit import decoding

        super().__init__(task, tokenizer, decoding.context_length(model.config), constrain)
        self.model = model
        self.batch_size = batch_size
        self.grammar = None
        if self.constrain:
            self.grammar = decoding.Grammar(tokenizer, task.output_schema, model.config.vocab_size, self.eos)

    @classmethod
    def load(
        cls, task: Task, model: Path | None = None, adapter: Path | None = None, constrain: bool = True,
        batch_size: int = 32,
    ) -> "LocalPredictor":  # fmt: skip
        """Load a model in bfloat16 onto a GPU, or in float32 on the CPU.

        Args:
            task: The task.
            model: Folder of a model; by default the base that the adapter names or, without one, the merged model.
            adapter: Folder of a LoRA adapter, merged in memory.
            constrain: Whether answers are held to the task's output_schema.
            batch_size: Prompts decoded at a time.

        Raises:
            UserError: A folder holds no model or no trained adapter, or the model was trained with another prompt.
        """
        if model is None and adapter is None:
            model = task.outputs / "merged"
        check(task, model, adapter)
        return cls(task, *_load(task, model, adapter), constrain=constrain, batch_size=batch_size)

    def answer(self, prompts: Sequence[list[int]]) -> Iterator[Answer]:
        """Decode greedily, in batches."""
        from recipekit import decoding

        for one in decoding.generate(
            self.model, prompts, self.grammar, eos=self.eos, max_new_tokens=self.most, batch_size=self.batch_size
        ):
            raw = self.tokenizer.decode(one.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            yield Answer(one.index, raw, one.finished, one.logprob, one.chosen, one.started, one.ended)


def check(task: Task, model: Path | None, adapter: Path | None) -> None:
    """See, before anything is loaded, that the folders hold what they should, trained with the prompt of today.

    Raises:
        UserError: They do not.
    """
    if model:
        models.check_model(model, f"run uv run tools/merge.py {task.name} --profile cpu or gpu, or mend --model")
        trained = runs.read_record(model / "recipe.json").get("prompt")
        if trained is not None and trained != task.prompt_digest():
            raise UserError(
                f"{relative(model)}: trained with another prompt than recipes/{task.name}/prompts has now, and it "
                f"answers worse to this one; train again (uv run bash train_all.sh {task.name}), or restore the "
                "prompt with git"
            )
    if adapter:
        models.check_adapter(adapter, "train the phase again, or mend --adapter")


def _load(task: Task, model: Path | None, adapter: Path | None) -> tuple[Any, Any]:
    """Load model and tokenizer; an adapter is merged in memory."""
    import torch

    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if adapter is None:
        assert model is not None
        return models.load_model(model, dtype), models.load_tokenizer(model)
    from peft import PeftModel

    config = models.check_adapter(adapter, "train the phase again")
    source = model or models.base_of(adapter, config, task.root)
    tuned = PeftModel.from_pretrained(models.load_model(source, dtype), str(adapter))
    return tuned.merge_and_unload(), models.load_tokenizer(adapter)

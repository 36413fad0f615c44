"""Conversations written by a model behind an OpenAI-compatible endpoint: asked for, judged, and kept as they come."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import openai

from recipekit.answers import Judge
from recipekit.chat_kept import Cost, Kept
from recipekit.chat_making import make_row, repeated, text_of
from recipekit.chat_pace import Pace, Stopped
from recipekit.chat_rows import row_problems
from recipekit.chat_scenarios import Job
from recipekit.conversations import ROLES, Conversations, Row
from recipekit.endpoint import explained
from recipekit.errors import UserError
from recipekit.runs import digest

TURN = {"type": "object", "additionalProperties": False, "required": ["role", "content"],
        "properties": {"role": {"type": "string", "enum": list(ROLES)}, "content": {"type": "string"}}}  # fmt: skip
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["messages"],
          "properties": {"messages": {"type": "array", "items": TURN}}}  # fmt: skip
TURN_TOKENS = 60  # of a turn and its JSON, about
TOKENS = 1.1  # of a character of Japanese, about: 0.7 to 1.2 in tokenizers of today


@dataclass(frozen=True)
class Asking:
    """How conversations are asked for.

    Attributes:
        url: Of the endpoint, without a password, for messages.
        model: Its name there.
        temperature: Of the draws.
        max_tokens: Longest answer.
        tries: How often a conversation is asked for until its answer has the right form.
        concurrency: Requests under way at a time.
    """

    url: str
    model: str
    temperature: float = 1.0
    max_tokens: int = 2048
    tries: int = 2
    concurrency: int = 4


def expected(jobs: Sequence[Job], prices: tuple[float, float] | None, longest: int) -> tuple[Cost, Cost]:
    """Estimate what jobs cost: about, and at most where every answer is of the longest."""
    read = sum(map(_tokens, jobs))
    written = sum(min(longest, _answer_tokens(job)) for job in jobs)
    return Cost(read, written, prices), Cost(read, longest * len(jobs), prices)


def _tokens(job: Job) -> int:
    return round(len(job.prompt) * TOKENS)


def _answer_tokens(job: Job) -> int:
    return 2 * job.turns * TURN_TOKENS


@dataclass
class Generated:
    """What came of jobs.

    Attributes:
        rows: Rows without problems, none a near duplicate of an earlier one, in the order of the jobs.
        dropped: Why conversations were dropped -> how many.
        examples: The same -> what was wrong with the first.
        cost: What all answers cost, those of earlier runs too.
    """

    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


class Generator:
    """Asks for conversations.

    Args:
        conversations: Of the task.
        client: Of the endpoint.
        asking: How.
        pace: Requests and tokens a minute.
        kept: Where answers are kept.
    """

    def __init__(
        self, conversations: Conversations, client: openai.OpenAI, asking: Asking, pace: Pace, kept: Kept
    ) -> None:
        self.conversations, self.client, self.asking, self.pace, self.kept = conversations, client, asking, pace, kept
        self.judge = Judge(SCHEMA, mend=True)
        form = {"name": "conversation", "schema": SCHEMA, "strict": True}
        self.options: dict[str, Any] = {"max_tokens": asking.max_tokens}
        self.options["response_format"] = {"type": "json_schema", "json_schema": form}

    def key(self, job: Job) -> str:
        """Tell a job from every other, and from the same with another model or prompt."""
        asking = self.asking
        return digest([job.name, job.prompt, job.system, asking.model, asking.temperature, asking.max_tokens])[:24]

    def left(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs that have no answer yet."""
        return [job for job in jobs if self.key(job) not in self.kept.known]

    def run(self, jobs: Sequence[Job], advance: Callable[..., None]) -> None:
        """Ask for what is missing; each answer is kept as it comes, those under way when the run is stopped too.

        Raises:
            UserError: The endpoint fails, after retries.
        """
        pool = ThreadPoolExecutor(self.asking.concurrency)
        asked = [pool.submit(self._work, job) for job in self.left(jobs)]
        try:
            for done in as_completed(asked):
                done.result()
                advance()
        except BaseException:
            self.pace.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self.kept.close()

    def _work(self, job: Job) -> None:
        entry: dict[str, Any] = {"key": self.key(job), "id": job.name, "read": 0, "written": 0}
        for _ in range(self.asking.tries):
            try:
                self.pace.wait(_tokens(job) + _answer_tokens(job))
            except Stopped:
                return
            choice, usage = self._ask(job)
            entry["read"] += getattr(usage, "prompt_tokens", 0) or 0
            entry["written"] += getattr(usage, "completion_tokens", 0) or 0
            entry["row"], entry["problem"] = self._row(job, choice)
            if entry["row"]:
                break
        self.kept.add(entry)

    def _ask(self, job: Job) -> tuple[Any, Any]:
        """Return the answer and its usage.

        Raises:
            UserError: The endpoint fails, after retries.
        """
        asking = self.asking
        messages: Any = [{"role": "user", "content": job.prompt}]
        options: dict[str, Any] = dict(self.options)
        with explained(asking.url):
            try:
                reply = self.client.chat.completions.create(
                    model=asking.model, messages=messages, temperature=asking.temperature, **options
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                said = str(error.message)
                if not self._adapt(options, said):
                    raise UserError(f"{asking.url}: the server refused the request: {said[:300]}") from None
                return self._ask(job)
            if not reply.choices:
                raise UserError(f"{asking.url}: the server's reply has no answer in it; see the server's log")
        return reply.choices[0], reply.usage

    def _adapt(self, refused: dict[str, Any], said: str) -> bool:
        """Take another way after a refusal: another name for the longest answer, or no schema; mending does then."""
        changed = dict(refused)
        if "max_completion_tokens" in said and "max_tokens" in refused:
            changed["max_completion_tokens"] = changed.pop("max_tokens")
        elif changed.pop("response_format", None) is None:
            return False
        self.options = changed
        return True

    def _row(self, job: Job, choice: Any) -> tuple[Row | None, str | None]:
        """Make a row of an answer; None, and why, where it has not the right form."""
        if choice.finish_reason == "length":
            return None, f"cut off at {self.asking.max_tokens:,} tokens"
        if not choice.message.content:
            return None, "refused" if getattr(choice.message, "refusal", None) else "empty"
        output = self.judge.read(choice.message.content, True)["output"]
        if output is None:
            return None, "no JSON of a conversation"
        row = make_row(self.conversations, job.name, output["messages"], job.fields, job.system)
        wrong = row_problems(self.conversations, row)
        return (None, f"{wrong[0][0]}: {wrong[0][1]}") if wrong else (row, None)

    def result(self, jobs: Sequence[Job], threshold: float, prices: tuple[float, float] | None) -> Generated:
        """Collect the rows of jobs, without near duplicates."""
        found = Generated()
        entries = [self.kept.known[self.key(job)] for job in jobs]
        found.cost = Cost(sum(e["read"] for e in entries), sum(e["written"] for e in entries), prices)
        rows = [entry["row"] for entry in entries if entry["row"]]
        for entry in entries:
            if not entry["row"]:
                found.dropped["format"] += 1
                found.examples.setdefault("format", f"{entry['id']}: {entry['problem']}")
        alike = repeated([text_of(row) for row in rows], threshold)
        for later, first in alike.items():
            found.dropped["near duplicates"] += 1
            found.examples.setdefault("near duplicates", f"{rows[later]['id']} of {rows[first]['id']}")
        found.rows = [row for number, row in enumerate(rows) if number not in alike]
        return found

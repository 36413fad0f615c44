"""A model that judges replies, behind an OpenAI-compatible server: marks from 1 to 5, or which of two is better.

Every answer is kept as soon as it comes (judge_rate.jsonl, judge_pair.jsonl), under a digest of what was asked of whom,
so that a run that was stopped goes on, and nothing is asked twice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, BinaryIO

import jinja2
import jsonschema
import numpy as np
import orjson

from recipekit import ROOT, chat_scores, runs
from recipekit.chat_replies import Scene
from recipekit.chat_scores import Groups
from recipekit.console import progress, show
from recipekit.endpoint import connect, explained
from recipekit.errors import UserError
from recipekit.evaluating import Judge, Options
from recipekit.hub import masked, setting
from recipekit.task import Task

KIT = ROOT / "tools" / "recipekit"
CRITERIA = ("persona", "emotion", "fluency", "relevance")
TRIES = 3  # of a question whose answers are not what was asked for
CONCURRENCY = 8
BETTER = {"first": 0.0, "second": 1.0, "equal": 0.5}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": [*properties], "properties": properties}


RATING = _object(**{name: {"type": "integer", "minimum": 1, "maximum": 5} for name in CRITERIA})
CHOICE = _object(better={"type": "string", "enum": [*BETTER]})


class Asker:
    """Asks a judge, several questions at a time, and keeps its answers.

    Args:
        task: Where .env is looked for: JUDGE_API_KEY, or OPENAI_API_KEY.
        judge: The server and the model.
        schema: JSON Schema of an answer.
        kept: JSONL file of answers.
    """

    def __init__(self, task: Task, judge: Judge, schema: Mapping[str, Any], kept: Path) -> None:
        self.client = connect(judge.url, setting(task.root, "JUDGE_API_KEY", "OPENAI_API_KEY"), "--judge")
        self.judge, self.schema, self.kept = judge, schema, kept
        self.valid = jsonschema.Draft202012Validator(schema).is_valid

    def ask(self, prompts: Sequence[str]) -> list[dict[str, Any] | None]:
        """Ask what has not been answered yet.

        Returns:
            An answer a prompt; None where there was no valid one.

        Raises:
            UserError: The server fails, after retries; what it answered until then is kept.
        """
        known: dict[str, dict[str, Any] | None] = dict(self._read())
        keys = [runs.digest([self.judge.model, prompt, dict(self.schema)]) for prompt in prompts]
        open_ = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        if len(open_) < len(set(keys)):
            show(f"judge: {len(set(keys)) - len(open_):,} answers are there already, {len(open_):,} to ask for")
        pool = ThreadPoolExecutor(CONCURRENCY)
        asked = {pool.submit(self._answer, prompt): key for key, prompt in open_.items()}
        failed: BaseException | None = None
        try:
            with progress("judge", len(open_)) as advance, self._appending() as stream:
                for done in as_completed(asked):
                    if done.cancelled():
                        continue
                    if failed := failed or done.exception():
                        for one in asked:  # those under way are still waited for
                            one.cancel()
                    if not done.exception():
                        known[asked[done]] = done.result()
                        stream.write(orjson.dumps({"key": asked[done], "answer": done.result()}) + b"\n")
                        stream.flush()
                        advance()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if failed:
            raise failed
        return [known[key] for key in keys]

    def _appending(self) -> BinaryIO:
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        stream = self.kept.open("ab")
        if stream.tell() and not self.kept.read_bytes().endswith(b"\n"):
            stream.write(b"\n")  # a run was stopped while it wrote
        return stream

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield valid answers of earlier runs; a torn line, and what was no answer, is asked for again."""
        if self.kept.exists():
            for text in self.kept.read_bytes().splitlines():
                try:
                    row = orjson.loads(text)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(row, dict) and isinstance(row.get("key"), str) and self.valid(row.get("answer")):
                    yield row["key"], row["answer"]

    def _answer(self, prompt: str) -> dict[str, Any] | None:
        form: Any = {"type": "json_schema", "json_schema": {"name": "judgement", "schema": self.schema, "strict": True}}
        for seed in range(TRIES):
            with explained(masked(self.judge.url), "--judge", "--judge-model"):
                reply = self.client.chat.completions.create(
                    model=self.judge.model, messages=[{"role": "user", "content": prompt}],
                    temperature=0, seed=seed, response_format=form,
                )  # fmt: skip
                said = reply.choices[0].message.content if reply.choices else None
            try:
                found = orjson.loads(said or "")
            except orjson.JSONDecodeError:
                continue
            if self.valid(found):
                return found
        return None


def _prompt(name: str, scene: Scene, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(KIT), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name).render(system=scene.system, messages=scene.conversation.messages, **values)


def rate(task: Task, scenes: Sequence[Scene], replies: Sequence[str], predictions: Path, options: Options) -> None:
    """Have every reply marked by four criteria, and write judge.json: means with intervals over scenes.

    Raises:
        UserError: The server fails, or gives no valid answer at all.
    """
    judge = options.judge
    assert judge is not None
    asker = Asker(task, judge, RATING, options.output / "judge_rate.jsonl")
    prompts = [_prompt("chat_judge_rate.txt.j2", s, reply=r) for s, r in zip(scenes, replies, strict=True)]
    answers = asker.ask(prompts)
    _refuse_nothing(judge, answers)
    columns = {name: np.array([a[name] if a else np.nan for a in answers], dtype=float) for name in CRITERIA}
    groups = Groups([scene.group for scene in scenes])
    found = chat_scores.estimate(columns, groups, options.resamples, options.seed)
    content = {
        "model": judge.model, "predictions_sha256": runs.digest(predictions),
        "rated": sum(a is not None for a in answers), "failed": sum(a is None for a in answers),
        "criteria": {
            name: {"mean": one.value, "interval": None if one.low is None else [one.low, one.high]}
            for name, one in found.items()
        },
    }  # fmt: skip
    runs.write_text(options.output / "judge.json", json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def compare(
    task: Task, scenes: Sequence[Scene], replies: tuple[Sequence[str], Sequence[str]], options: Options
) -> dict[str, Any]:
    """Have the judge choose between two replies to every scene, each pair in both orders.

    Pairs of equal replies are not asked about; they count as half a win each.

    Returns:
        `b_wins` (mean over pairs; a tie is half a win) with its interval over scenes, `agreement` (share of pairs on
        which both orders say the same), `first` (share of answers for what stood first; without a bias one half).

    Raises:
        UserError: The server fails, or gives no valid answer at all.
    """
    judge = options.judge
    assert judge is not None
    pairs = list(zip(scenes, *replies, strict=True))
    apart = [i for i, (_, a, b) in enumerate(pairs) if a != b]
    prompts = [_prompt("chat_judge_pair.txt.j2", pairs[i][0], replies=pairs[i][1:]) for i in apart]
    prompts += [_prompt("chat_judge_pair.txt.j2", pairs[i][0], replies=pairs[i][:0:-1]) for i in apart]
    answers = Asker(task, judge, CHOICE, options.output / "judge_pair.jsonl").ask(prompts)
    if apart:
        _refuse_nothing(judge, answers)
    said = np.array([BETTER[a["better"]] if a else np.nan for a in answers]).reshape(2, len(apart))
    both = np.stack([said[0], 1 - said[1]]) if len(apart) else said
    wins = np.full(len(pairs), 0.5)
    wins[apart] = both.mean(0)
    known = ~np.isnan(both).any(0)
    groups = Groups([scene.group for scene in scenes])
    found = chat_scores.estimate({"b": wins}, groups, options.resamples, options.seed)["b"]
    decided = said[~np.isnan(said) & (said != BETTER["equal"])]
    return {
        "model": judge.model, "pairs": int((~np.isnan(wins)).sum()), "equal": len(pairs) - len(apart),
        "failed": int((~known).sum()), "b_wins": found.value,
        "interval": None if found.low is None else [found.low, found.high],
        "agreement": float((both[0] == both[1])[known].mean()) if known.any() else None,
        "first": float((decided == BETTER["first"]).mean()) if len(decided) else None,
    }  # fmt: skip


def _refuse_nothing(judge: Judge, answers: Sequence[Any]) -> None:
    if not any(answers):
        what = f"--judge-model: {judge.model} gave no answer in the form that was asked for; name a model that follows"
        raise UserError(f"{what} a JSON Schema (response_format)")

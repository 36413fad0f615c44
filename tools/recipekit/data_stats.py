"""Training data and test set, counted a row at a time: lengths, fields, classes and repeated articles.

Of a row 41 bytes are kept, whatever its text: its lengths, and hashes that tell whether two rows have one article.
"""

import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np

from recipekit.data_fields import Fields
from recipekit.errors import UserError
from recipekit.extract import Extractor
from recipekit.gold import Entity, GoldFile
from recipekit.joining import count_lines, join
from recipekit.runs import relative
from recipekit.segmentcheck import REDO, misshapen
from recipekit.segments import count_tokens, has_prompt_of_today, read_jsonl, take_apart
from recipekit.spans import fold
from recipekit.task import Task

BATCH = 256  # rows tokenised at a time
NAMED = 20  # broken rows that are named
INTS = ("line", "characters", "tokens", "trained")
HASHES = ("body", "folded", "pair")
Advance = Callable[..., None]


class DataSet:
    """What was counted of one data set.

    Attributes:
        name: As in task.yml.
        total: Rows of the file; `rows` of them were read, all or a sample.
        columns: Of each row `line` in the file, `characters` of the article, `tokens` of the whole row and how many of
            them are `trained`, whether it is `positive` (has values of gold columns), and hashes: of the article as it
            is (`body`), without regard to width and spacing (`folded`), and that with the answer (`pair`).
        gold: Gold column -> rows that have a value of it.
        entities: Entity of task.yml -> number of them -> rows.
        fields: What the answers hold.
        invalid: Answers that do not fit the output schema, and count as negatives without fields.
        old_prompt: Whether the first row was made with another prompt than that of today.
    """

    def __init__(self, name: str, total: int, schema: Mapping[str, Any]) -> None:
        self.name = name
        self.total = total
        self._columns = {key: array("I") for key in INTS} | {key: array("q") for key in HASHES}
        self._columns["positive"] = array("b")
        self.gold: Counter[str] = Counter()
        self.entities: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.fields = Fields(schema)
        self.invalid = 0
        self.old_prompt = False

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return len(self._columns["line"])

    def column(self, key: str) -> np.ndarray:
        """Return what is known of each row under a key."""
        return np.array(self._columns[key])

    def add(
        self, line: int, body: str, answer: str, tokens: int, trained: int,
        values: tuple[Mapping[str, list[Entity]], Mapping[str, list[str]]],
    ) -> None:  # fmt: skip
        """Count a row.

        Args:
            line: Its place in the file.
            body: The article.
            answer: What is trained.
            tokens: Of the whole row.
            trained: Tokens of the answer.
            values: Entities and sets, as a gold row has them.
        """
        entities, sets = values
        filled = set(sets) | {column for each in entities.values() for entity in each for column in entity}
        folded = fold(body)
        row = {"line": line, "characters": len(body), "tokens": tokens, "trained": trained, "positive": bool(filled)}
        row |= {"body": hash(body), "folded": hash(folded), "pair": hash((folded, answer))}
        for key, value in row.items():
            self._columns[key].append(value)
        self.gold.update(filled)
        for name, found in entities.items():
            self.entities[name][len(found)] += 1


class Meter:
    """Reads the data of a task.

    Args:
        task: The task.
        tokenizer: The one that training uses.
        limit: Rows of a training file that are read, drawn at random; None reads all.
        seed: Of the draw.
    """

    def __init__(self, task: Task, tokenizer: Any, limit: int | None = None, seed: int = 0) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.limit = limit
        self.seed = seed
        self._extractor = Extractor(task)
        self._is_valid = jsonschema_rs.validator_for(task.output_schema).is_valid

    def training(self, name: str, advance: Advance) -> DataSet:
        """Count a training data set.

        Raises:
            UserError: The file is missing, empty or has rows that are not segments; all at once.
        """
        path = self.task.segments_path(name)
        total = count_lines(path) or 0
        found = DataSet(name, total, self.task.output_schema)
        rows = self._rows(path, total)
        while batch := list(islice(rows, BATCH)):
            if not found.rows:
                found.old_prompt = not has_prompt_of_today(self.task, batch[0][1])
            self._count(found, batch)
            advance(len(batch))
        return found

    def test(self, advance: Advance) -> DataSet:
        """Count the test set; its tokens are those of the prompt, since its answers are in the gold file.

        Raises:
            UserError: The gold file or the articles are missing or broken, or do not belong together.
        """
        articles = self.task.test_path("input")
        found = DataSet("test", 0, self.task.output_schema)
        for number, (gold, _, row) in enumerate(
            join(self.task, GoldFile(self.task, self.task.test_path("gold")), [], articles), 1
        ):
            body = self.task.clean((row or {})["body"])
            tokens = sum(count_tokens(self.tokenizer, self.task.render(body)))
            entities = {name: gold.entities.get(name, []) for name in self.task.spec["gold"].get("entities", {})}
            found.add(number, body, "", tokens, 0, (entities, gold.sets))
            advance()
        found.total = found.rows
        return found

    def _rows(self, path: Path, total: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield line and row of those that are read; what is wrong with any of them comes at the end."""
        chosen = None
        if self.limit is not None and self.limit < total:
            chosen = set(random.Random(self.seed).sample(range(1, total + 1), self.limit))
        problems = []
        try:
            for line, row in read_jsonl(path):
                if chosen is not None and line not in chosen:
                    continue
                if wrong := misshapen(row):
                    problems.append(f"{relative(path)}:{line}: {': '.join(wrong)}; {REDO.format(self.task.name)}")
                else:
                    yield line, row
        except UserError as error:
            problems += error.problems
        if problems:
            more = [f"{relative(path)}: and {len(problems) - NAMED:,} more"] if len(problems) > NAMED else []
            raise UserError(problems[:NAMED] + more)

    def _count(self, found: DataSet, batch: list[tuple[int, dict[str, Any]]]) -> None:
        texts = list(dict.fromkeys(segment["text"] for _, row in batch for segment in row["segments"]))
        tokens = dict(zip(texts, count_tokens(self.tokenizer, texts), strict=True))
        for line, row in batch:
            parts = take_apart(self.task, row)
            answer = "".join(segment["text"] for segment in row["segments"] if segment["label"])
            values: Any = {}, {}
            if self._is_valid(parts["label"]):
                found.fields.add(parts["label"])
                entities, sets = self._extractor.values(parts["label"])
                values = {name: entities.get(name, []) for name in self._extractor.columns}, sets
            else:
                found.invalid += 1
            trained = sum(tokens[segment["text"]] for segment in row["segments"] if segment["label"])
            whole = sum(tokens[segment["text"]] for segment in row["segments"])
            found.add(line, parts["body"] or "", answer, whole, trained, values)


def read_lines(path: Path, wanted: set[int]) -> dict[int, dict[str, Any]]:
    """Read some rows of a JSONL file again, by their lines."""
    return {line: row for line, row in read_jsonl(path) if line in wanted}

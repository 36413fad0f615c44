"""What is wrong with a row in segments format, as far as can be seen without its tokens."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from recipekit.digits import levels
from recipekit.labels import LabelChecker
from recipekit.segments import take_apart
from recipekit.task import Task

REDO = "run: uv run tools/regenerate_segments.py {}"


class Problem(NamedTuple):
    """Something wrong with a row.

    Attributes:
        kind: shape, mask, untrained, prompt, eos, answer, schema, long or special.
        path: Where in the row: segments[0].text, or label.persons[0].age inside the answer; "" for the whole.
        found: What was found there.
        remedy: What to do about it.
    """

    kind: str
    path: str
    found: str
    remedy: str


class SegmentChecker:
    """Checks segments rows of one task."""

    def __init__(self, task: Task) -> None:
        """Prepare the checks of a task; its output schema is compiled once."""
        self.task = task
        self.redo = REDO.format(task.name)
        self.eos = task.spec["prompt"]["eos"]
        self.labels = LabelChecker(task)
        self.digits = _digits(task) if task.estimates else None

    def problems(self, row: dict[str, Any]) -> Iterator[Problem]:
        """Tell what is wrong with a row."""
        wrong = misshapen(row)
        if wrong:
            yield Problem(
                "shape", *wrong, f"a row is {{'segments': [{{'label': bool, 'text': str}}, ...]}}; {self.redo}"
            )
            return
        labels = [segment["label"] for segment in row["segments"]]
        if labels != [False] * (len(labels) - 1) + [True]:
            shown = ", ".join("trained" if label else "untrained" for label in labels)
            found = f"the mask is wrong, found {shown}"
            remedy = f"only the last segment, the answer, is trained; {self.redo}"
            yield Problem("mask" if any(labels) else "untrained", "segments", found, remedy)
            return
        yield from self._prompt(row)
        yield from self._answer(row["segments"][-1]["text"], f"segments[{len(labels) - 1}].text")

    def _prompt(self, row: dict[str, Any]) -> Iterator[Problem]:
        body = take_apart(self.task, row)["body"]
        expected = self.task.prompt(body)
        found = [segment["text"] for segment in row["segments"][:-1]]
        if found == expected:
            return
        if len(found) != len(expected):
            path = "segments"
            detail = f"{len(found)} before the answer, but the prompt of today has {len(expected)}"
        else:
            number, old, new = next(
                (i, old, new) for i, (old, new) in enumerate(zip(found, expected, strict=True)) if old != new
            )
            path = f"segments[{number}].text"
            at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
            detail = f"not what the prompt of today renders: {old[at : at + 20]!r} where it has {new[at : at + 20]!r}"
        yield Problem("prompt", path, detail, f"prompt and data differ; {self.redo}")

    def _answer(self, text: str, path: str) -> Iterator[Problem]:
        if not text.endswith(self.eos):
            detail = f"the answer does not end in {self.eos}, but in {text[-10:]!r}"
            yield Problem("eos", path, detail, f"a model that never learns to stop goes on and on; {self.redo}")
        if self.digits:
            yield from self._digits(text.removesuffix(self.eos), path, self.digits)
            return
        try:
            label = self.task.read_answer(text.removesuffix(self.eos))
        except ValueError as error:
            yield Problem(
                "answer", path, f"the answer is not valid JSON: {error}", f"answers are JSON, then eos; {self.redo}"
            )
            return
        for place, message in self.labels.problems(label):
            yield Problem("schema", place, message, f"mend the raw row's label, then {self.redo}")

    def _digits(self, answer: str, path: str, expected: str) -> Iterator[Problem]:
        """Look at a decoder's answer of a regression; one without the task's targets is of a phase before."""
        first = expected.partition("[")[0]
        if first in answer and not re.fullmatch(expected, answer):
            remedy = f"answers are the targets' titles, each with a digit of its scale; {self.redo}"
            yield Problem("answer", path, f"the answer is no {expected}, but {answer[:60]!r}", remedy)


def _digits(task: Task) -> str:
    """Write the regular expression of a decoder's answers."""
    scales = {target.get("title", name): levels(target["scale"]) for name, target in task.targets.items()}
    return " ".join(f"{re.escape(title)}[{''.join(digits)}]" for title, digits in scales.items())


def misshapen(row: dict[str, Any]) -> tuple[str, str] | None:
    """Return the place that keeps a row from being one of segments, and what was expected there."""
    segments = row.get("segments")
    if not isinstance(segments, list) or len(segments) < 2:
        return "segments", "expected a list of at least a prompt and an answer"
    for i, segment in enumerate(segments):
        if not isinstance(segment, dict) or not isinstance(segment.get("label"), bool):
            return f"segments[{i}].label", "expected true or false"
        if not isinstance(segment.get("text"), str) or not segment["text"]:
            return f"segments[{i}].text", "expected a text that is not empty"
    return None

"""What conversations are to be written about: a YAML file of scenarios and personas -> prompts.

turns: [3, 5]            # of the user and of the character, each: one conversation for each number
repetitions: 2
personas:                # without them prompts/persona.txt says who the model is
  sakura: あなたはさくら、...
scenarios:
  - scenario: 仕事で失敗して落ち込んでいる
    affection_level: friend   # fields of task.yml
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from recipekit import yamlfile
from recipekit.chat_fields import typed
from recipekit.chat_making import read_text, source
from recipekit.conversations import Conversation, Conversations
from recipekit.errors import UserError
from recipekit.runs import relative

TOP = ("turns", "repetitions", "personas", "scenarios")
VARIABLES = ("character", "persona", "scenario", "turns", "repetition", "labels")
OWN = ("id", "scenario")  # of a scenario, beside fields of task.yml
MOST_TURNS, MOST_REPETITIONS = 50, 1000


@dataclass(frozen=True)
class Job:
    """A conversation to be written.

    Attributes:
        name: Its row's id.
        prompt: What the model is asked.
        fields: Its row's fields.
        system: Who the model is; None: prompts/persona.txt says it.
        turns: Of the user and of the character, each.
    """

    name: str
    prompt: str
    fields: dict[str, Any]
    system: str | None
    turns: int


class Scenarios:
    """A file of scenarios.

    Args:
        conversations: Of the task.
        path: The file.

    Raises:
        UserError: All that is wrong with it.
    """

    def __init__(self, conversations: Conversations, path: Path) -> None:
        self.conversations, self.path = conversations, path
        self.content, self.lines = yamlfile.load(path)
        self.found: list[str] = []
        for key in self.content:
            if key not in TOP:
                self._problem((key,), f"no such key; expected {', '.join(TOP)}")
        turns = self.content.get("turns", 5)
        self.turns = turns if isinstance(turns, list) else [turns]
        if not self.turns or not all(_whole(number, MOST_TURNS) for number in self.turns):
            self._problem(("turns",), f"found {turns!r}, expected a whole number from 1 to {MOST_TURNS}, or several")
        self.repetitions = self.content.get("repetitions", 1)
        if not _whole(self.repetitions, MOST_REPETITIONS):
            what = f"found {self.repetitions!r}, expected a whole number from 1 to {MOST_REPETITIONS}"
            self._problem(("repetitions",), what)
        self.personas = self._personas()
        self.scenarios = self._scenarios()
        if self.found:
            raise UserError(self.found)

    def _problem(self, path: tuple[str | int, ...], what: str) -> None:
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.lines), ())
        self.found.append(f"{relative(self.path)}:{self.lines.get(known, 1)}: {'.'.join(map(str, path))}: {what}")

    def _personas(self) -> Mapping[str, str | None]:
        personas = self.content.get("personas")
        if personas is None:
            return {"": None}
        if not isinstance(personas, dict) or not personas:
            self._problem(("personas",), f"found {personas!r}, expected names, each with who the model is")
            return {}
        for name, text in personas.items():
            if not isinstance(text, str) or not text.strip():
                self._problem(("personas", name), f"found {text!r}, expected a text that says who the model is")
        return {str(name): text.strip() if isinstance(text, str) else None for name, text in personas.items()}

    def _scenarios(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return name, scenario and fields of each."""
        scenarios = self.content.get("scenarios")
        if not isinstance(scenarios, list) or not scenarios:
            self._problem(("scenarios",), "missing or empty; expected a list of scenarios")
            return []
        made = []
        for number, each in enumerate(scenarios):
            at = ("scenarios", number)
            if isinstance(each, str):
                each = {"scenario": each}
            if not isinstance(each, dict) or not isinstance(each.get("scenario"), str) or not each["scenario"].strip():
                self._problem(at, "expected a text, or scenario: with a text and fields of task.yml")
                continue
            fields = self._fields(at, each)
            for name, what in self.conversations.field_problems(fields):
                self._problem((*at, *name.split(".")), what)
            made.append((str(each.get("id", f"{number + 1:03}")), each["scenario"].strip(), fields))
        names = [name for name, *_ in made]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._problem(("scenarios",), f"two scenarios have the id '{name}'; give one another")
        return made

    def _fields(self, at: tuple[str | int, ...], scenario: Mapping[str, Any]) -> dict[str, Any]:
        fields = {key: value for key, value in scenario.items() if key not in OWN}
        numbers = self.conversations.attribute
        if numbers and isinstance(fields.get("attribute"), list):
            fields |= typed(self.conversations, "attribute", ",".join(map(str, fields.pop("attribute"))))
        if missing := [name for name in numbers if name not in fields and "attribute" not in fields]:
            self._problem(at, f"{', '.join(missing)} missing; add attribute: [{', '.join(numbers)}]")
        return fields

    def jobs(self, prompt: Path) -> list[Job]:
        """Make the prompts: every scenario with every persona, number of turns and repetition.

        Args:
            prompt: Jinja2 template; its variables are those of VARIABLES and the fields of task.yml.

        Raises:
            UserError: The template cannot be read or rendered.
        """
        try:
            environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
            template = environment.from_string(read_text(prompt, "a prompt's file"))
            jobs = [
                self._job(template, persona, scenario, turns, repetition)
                for scenario in self.scenarios
                for persona in self.personas
                for turns in self.turns
                for repetition in range(1, self.repetitions + 1)
            ]
        except jinja2.TemplateError as error:
            known = ", ".join([*VARIABLES, *self.conversations.fields])
            raise UserError(f"{relative(prompt)}: {error}; the variables are {known}") from None
        if twice := [name for name, count in Counter(job.name for job in jobs).items() if count > 1]:
            what = f"turns: two conversations would have the id '{twice[0]}'; name each number of turns once"
            raise UserError(f"{relative(self.path)}: {what}")
        return jobs

    def _job(
        self, template: jinja2.Template, persona: str, scenario: tuple[str, str, dict[str, Any]], turns: int, time: int
    ) -> Job:
        name, text, fields = scenario
        system = self.personas[persona]
        values = {key: fields.get(key) for key in self.conversations.fields}
        shown = template.render(
            values,
            labels={key: self.conversations.label(key, value) for key, value in values.items()},
            character=self.conversations.system(Conversation(None, [], system, fields)),
            persona=system or self.conversations.default, scenario=text, turns=turns, repetition=time,
        )  # fmt: skip
        parts = [self.path.stem, name, *([persona] if persona else []), f"{turns}t", str(time)]
        fields = fields | source(self.conversations, "model")
        return Job("-".join(parts), shown.strip(), fields, system, turns)


def _whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most

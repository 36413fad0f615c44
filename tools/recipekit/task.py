"""task.yml: what a task is, read and checked once for every command."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from recipekit import ROOT, specials, task_problems, yamlfile
from recipekit.errors import UserError
from recipekit.prompt_templates import at_line_start, renderer
from recipekit.runs import digest, relative

_write_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Task:
    """A task as its task.yml says.

    Attributes:
        spec: The content of task.yml, valid against recipes/task.schema.json.
        dir: The recipe's folder, recipes/<name>.
        root: The folder that data/ and outputs/ stand in.
        variant: One of the task's variants, which has phases of its own; None: the task itself.
    """

    spec: dict[str, Any]
    dir: Path
    root: Path
    variant: str | None = None

    @property
    def name(self) -> str:
        """The task's name, as on the command line: <task>, or <task>:<variant>."""
        return f"{self.spec['name']}:{self.variant}" if self.variant else self.spec["name"]

    @property
    def slug(self) -> str:
        """The task's name in paths."""
        return self.name.replace(":", "_")

    @property
    def kind(self) -> str:
        """What the answers are: "extraction", "regression", "ranking" or "chat"."""
        return self.spec["kind"]

    @property
    def estimates(self) -> bool:
        """Tell whether the answers are numbers, as those of regressions and rankings are."""
        return self.kind in ("regression", "ranking")

    @property
    def is_chat(self) -> bool:
        """Tell whether the answers are replies in conversations."""
        return self.kind == "chat"

    @property
    def is_paired(self) -> bool:
        """Tell whether a row has two texts, body and pair, which is so of rankings."""
        return self.kind == "ranking"

    @property
    def title(self) -> str:
        """The task's name in Japanese, for people."""
        return self.spec["title"]

    @property
    def phases(self) -> list[str]:
        """Training phases in order."""
        return self.spec["variants"][self.variant] if self.variant else self.spec["phases"]

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        """What a regression estimates: name -> scale and title, in order."""
        return self.spec["regression"]["targets"]

    @property
    def group(self) -> str | None:
        """The key of a regression's rows whose values are averaged over, such as speaker."""
        return self.spec["regression"].get("group")

    @property
    def slice(self) -> str | None:
        """The key of a regression's rows whose values are scored apart, such as type."""
        return self.spec["regression"].get("slice")

    @property
    def text_keys(self) -> list[str]:
        """The keys of a row that are read by the model."""
        return ["body", "pair"] if self.is_paired else ["body"]

    @property
    def row_keys(self) -> list[str]:
        """The keys of a regression's rows beside its texts and labels."""
        return ["id", *filter(None, (self.group, self.slice))]

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of an answer."""
        if self.is_chat:
            return {"type": "string"}
        if not self.estimates:
            return self.spec["output_schema"]
        scales = {name: target["scale"] for name, target in self.targets.items()}
        numbers = {name: {"type": "number", "minimum": low, "maximum": high} for name, (low, high) in scales.items()}
        return {"type": "object", "additionalProperties": False, "required": [*numbers], "properties": numbers}

    @property
    def gold_columns(self) -> dict[str, dict[str, str]]:
        """What each column of the gold file is, in order."""
        return self.spec["gold"]["columns"]

    @property
    def outputs(self) -> Path:
        """Where everything that a run makes is kept."""
        return self.root / "outputs" / self.slug

    @property
    def baselines(self) -> Path:
        """Where the predictions of baselines are kept, <name>.jsonl each."""
        return self.outputs / "baselines"

    @property
    def raw_dir(self) -> Path:
        """Downloaded data where there is some, else the samples in the repository."""
        downloaded = self.root / "data" / "raw" / self.spec["name"]
        return downloaded if downloaded.is_dir() else self.sample_dir

    @property
    def captioned_dir(self) -> Path:
        """Where raw files lie whose images are told in words."""
        return self.root / "data" / "captioned" / self.spec["name"]

    @property
    def source_dir(self) -> Path:
        """What rows are made of: the raw files, captioned where they have images."""
        return self.captioned_dir if "captions" in self.spec["data"] else self.raw_dir

    @property
    def sample_dir(self) -> Path:
        """The samples in the repository."""
        return self.root / "data" / "samples" / self.spec["name"]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Data sets of a curriculum, those of validation last -> values of its field."""
        curriculum = self.spec["data"].get("curriculum", {})
        own = curriculum.get("groups", {})
        return own | ({f"{name}_val": values for name, values in own.items()} if "validation" in curriculum else {})

    @property
    def raw_sets(self) -> list[str]:
        """Data sets that have rows of their own; the others are mixed of these."""
        return [*self.groups, *(name for name, spec in self.spec["data"]["train"].items() if "base" not in spec)]

    def role(self, dataset: str) -> str:
        """Tell whether a data set is for "train" or for "validation"."""
        is_group = dataset in self.groups and dataset not in self.spec["data"]["curriculum"]["groups"]
        return "validation" if is_group else self.spec["data"]["train"].get(dataset, {}).get("role", "train")

    def segments_path(self, dataset: str) -> Path:
        """Where the segments of a data set of task.yml lie; of a chat its conversations."""
        return self.root / "data" / "train" / f"{dataset}_{'chat' if self.is_chat else 'segments'}.jsonl"

    def rows_path(self, dataset: str) -> Path:
        """Where the rows of a data set of a regression lie."""
        return self.root / "data" / "train" / f"{dataset}.jsonl"

    def test_path(self, which: str) -> Path:
        """Where the test set's "input" or "gold" file lies once prepared."""
        return self.root / "data" / "test" / self.spec["data"]["test"][which]

    @cached_property
    def prompt_files(self) -> list[Path]:
        """The prompt's files: one a segment, or of a chat the system message's and the persona's."""
        prompt = self.spec["prompt"]
        names = [prompt["system"], prompt["persona"]] if self.is_chat else prompt["segments"]
        return [self.dir / name for name in names]

    @property
    def constant_segments(self) -> dict[int, str]:
        """Segments of the prompt, by place, that are the same for every article."""
        return {i: text for i, text in enumerate(self._renderers) if isinstance(text, str)}

    @cached_property
    def _renderers(self) -> list[str | Callable[[str], str]]:
        texts = [path.read_text(encoding="utf-8") for path in self.prompt_files]
        return [renderer(text, self.spec["prompt"]["bos"] if i == 0 else "") for i, text in enumerate(texts)]

    @cached_property
    def _strip(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern, re.MULTILINE) for pattern in self.spec.get("prompt", {}).get("strip", [])]

    @cached_property
    def _to_strip(self) -> Callable[[str], object]:
        """Tell in one pass of articles, most of which have nothing to strip, whether any pattern would."""
        patterns = self.spec.get("prompt", {}).get("strip", [])
        anchored = "|".join(pattern[1:] for pattern in patterns if at_line_start(pattern))
        tests: list[Callable[[str], object]] = [
            re.compile(pattern, re.M).search for pattern in patterns if not at_line_start(pattern)
        ]
        if anchored:  # a search for ^ would stop at every character, one for a line end flies
            tests += [re.compile(f"(?:{anchored})", re.M).match, re.compile(f"\\n(?:{anchored})", re.M).search]
        return lambda body: any(test(body) for test in tests)

    @cached_property
    def _defuse(self) -> Callable[[str], str]:
        prompt = self.spec.get("prompt", {})
        own = [prompt[key] for key in ("bos", "eos") if key in prompt]
        return specials.defuser([*own, *prompt.get("special_tokens", [])])

    @property
    def answers_are_text(self) -> bool:
        """Tell whether an answer is plain text; JSON otherwise."""
        return self.estimates or self.output_schema.get("type") == "string"

    def clean(self, body: str) -> str:
        """Strip a feed's metadata from an article, and make special tokens that it quotes plain text."""
        if self._to_strip(body):
            for pattern in self._strip:
                body = pattern.sub("", body)
        return self._defuse(body.strip())

    def prompt(self, body: str) -> list[str]:
        """Render the prompt of an article, one text a segment; the first one opens with bos."""
        return self.render(self.clean(body))

    def render(self, text: str) -> list[str]:
        """Render the prompt around an article, or a part of one, that is clean already."""
        return [render if isinstance(render, str) else render(text) for render in self._renderers]

    def prompt_digest(self) -> str:
        """Tell one prompt from another, whatever the article or conversation."""
        if self.is_chat:
            return digest([self.prompt_sources(), self.spec["chat"]["fields"]])
        return digest(self.prompt("\0"))

    def answer(self, label: Any) -> str:
        """Write a label the way the model is to write it, ending in eos; a regression's has names and values."""
        if self.estimates:
            titles = {name: target.get("title", name) for name, target in self.targets.items()}
            label = " ".join(f"{titles.get(name, name)}{value}" for name, value in label.items())
        text = label if self.answers_are_text else _write_json(label)
        if "\x7f" in text and not self.answers_are_text:
            text = text.replace("\x7f", "\\u007f")  # llguidance has DEL escaped
        return self._defuse(text) + self.spec["prompt"]["eos"]

    def read_answer(self, text: str) -> Any:
        """Read an answer without its eos.

        Raises:
            ValueError: It is not valid JSON, though the task's answers are.
        """
        return text if self.answers_are_text else orjson.loads(text)

    def prompt_sources(self) -> dict[str, Any]:
        """What the prompt depends on, for a step's inputs; nothing where there is none."""
        if "prompt" not in self.spec:
            return {}
        return {"prompt": [self.spec["prompt"], [path.read_text(encoding="utf-8") for path in self.prompt_files]]}


def load_task(name: str, root: Path = ROOT) -> Task:
    """Read recipes/<name>/task.yml.

    Args:
        name: <task>, or <task>:<variant>.
        root: The folder that recipes/ stands in.

    Raises:
        UserError: There is no such task or variant, or task.yml or a file it names is wrong.
    """
    name, _, variant = name.partition(":")
    known = sorted(path.parent.name for path in (root / "recipes").glob("*/task.yml"))
    if name not in known:
        raise UserError(f"no task '{name}': recipes/{name}/task.yml does not exist; the tasks are {', '.join(known)}")
    path = root / "recipes" / name / "task.yml"
    shown = Path(relative(path))
    spec, lines = yamlfile.load(path)
    schema = json.loads((root / "recipes" / "task.schema.json").read_text(encoding="utf-8"))
    problems = task_problems.schema_problems(shown, spec, lines, schema)
    if not problems:
        problems = task_problems.content_problems(shown, spec, lines, path.parent)
    if problems:
        raise UserError(problems)
    if variant and variant not in spec.get("variants", {}):
        there = ", ".join(f"{name}:{one}" for one in spec.get("variants", {})) or "none"
        raise UserError(f"{shown}: no variant '{variant}' in it; the task's variants are: {there}")
    if spec["kind"] == "chat":
        spec["data"].setdefault("train", {})
    spec["data"] = yamlfile.Declared(spec["data"], name, "data.")
    return Task(yamlfile.Declared(spec, name), path.parent, root, variant or None)

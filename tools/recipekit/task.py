"""task.yml: what a task is, read and checked once for every command."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jmespath
import jsonschema_rs
import orjson

from recipekit import ROOT, specials, yamlfile
from recipekit.errors import UserError
from recipekit.runs import digest, relative

_write_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Task:
    """A task as its task.yml says.

    Attributes:
        spec: The content of task.yml, valid against recipes/task.schema.json.
        dir: The recipe's folder, recipes/<name>.
        root: The folder that data/ and outputs/ stand in.
    """

    spec: dict[str, Any]
    dir: Path
    root: Path

    @property
    def name(self) -> str:
        """The task's name, as on the command line."""
        return self.spec["name"]

    @property
    def title(self) -> str:
        """The task's name in Japanese, for people."""
        return self.spec["title"]

    @property
    def phases(self) -> list[str]:
        """Training phases in order."""
        return self.spec["phases"]

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of an answer."""
        return self.spec["output_schema"]

    @property
    def gold_columns(self) -> dict[str, dict[str, str]]:
        """What each column of the gold file is, in order."""
        return self.spec["gold"]["columns"]

    @property
    def outputs(self) -> Path:
        """Where everything that a run makes is kept."""
        return self.root / "outputs" / self.name

    @property
    def raw_dir(self) -> Path:
        """Downloaded data where there is some, else the samples in the repository."""
        downloaded = self.root / "data" / "raw" / self.name
        return downloaded if downloaded.is_dir() else self.root / "data" / "samples" / self.name

    @property
    def raw_sets(self) -> list[str]:
        """Data sets that have rows of their own; the others are mixed of these."""
        return [name for name, spec in self.spec["data"]["train"].items() if "base" not in spec]

    def segments_path(self, dataset: str) -> Path:
        """Where the segments of a data set of task.yml lie."""
        return self.root / "data" / "train" / f"{dataset}_segments.jsonl"

    def test_path(self, which: str) -> Path:
        """Where the test set's "input" or "gold" file lies once prepared."""
        return self.root / "data" / "test" / self.spec["data"]["test"][which]

    @cached_property
    def prompt_files(self) -> list[Path]:
        """The prompt's files, one a segment."""
        return [self.dir / name for name in self.spec["prompt"]["segments"]]

    @property
    def constant_segments(self) -> dict[int, str]:
        """Segments of the prompt, by place, that are the same for every article."""
        return {i: text for i, text in enumerate(self._renderers) if isinstance(text, str)}

    @cached_property
    def _renderers(self) -> list[str | Callable[[str], str]]:
        texts = [path.read_text(encoding="utf-8") for path in self.prompt_files]
        return [_renderer(text, self.spec["prompt"]["bos"] if i == 0 else "") for i, text in enumerate(texts)]

    @cached_property
    def _strip(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern, re.MULTILINE) for pattern in self.spec["prompt"].get("strip", [])]

    @cached_property
    def _to_strip(self) -> Callable[[str], object]:
        """Tell in one pass of articles, most of which have nothing to strip, whether any pattern would."""
        patterns = self.spec["prompt"].get("strip", [])
        anchored = [pattern[1:] for pattern in patterns if _at_line_start(pattern)]
        tests = [f"^(?:{'|'.join(anchored)})"] if anchored else []
        searches = [re.compile(p, re.M).search for p in tests + [p for p in patterns if p[1:] not in anchored]]
        return lambda body: any(search(body) for search in searches)

    @cached_property
    def _defuse(self) -> Callable[[str], str]:
        prompt = self.spec["prompt"]
        return specials.defuser([prompt["bos"], prompt["eos"], *prompt.get("special_tokens", [])])

    @property
    def answers_are_text(self) -> bool:
        """Tell whether an answer is plain text; JSON otherwise."""
        return self.output_schema.get("type") == "string"

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
        """Tell one prompt from another, whatever the article."""
        return digest(self.prompt("\0"))

    def answer(self, label: Any) -> str:
        """Write a label the way the model is to write it, ending in eos."""
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
        """What the prompt depends on, for a step's inputs."""
        return {"prompt": [self.spec["prompt"], [path.read_text(encoding="utf-8") for path in self.prompt_files]]}


def _at_line_start(pattern: str) -> bool:
    """Tell of a regular expression whether it is ^ and a part that can stand among others; False where in doubt."""
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "c", re.sub(r"\\[^0-9]", "c", pattern))
    while (inner := re.sub(r"\((?:\?:)?[^()?]*\)", "g", bare)) != bare:
        bare = re.sub(r"g[?*+]", "g", inner)
    return re.fullmatch(r"\^(?![*?{])[^|()\\]*", bare) is not None


def _renderer(source: str, before: str) -> str | Callable[[str], str]:
    """Make a function that renders a template; one that says {{ body }} and no more just puts texts together.

    What has no {{ body }} is rendered here and now.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    nodes = [node for output in environment.parse(source).body for node in getattr(output, "nodes", [None])]
    if any(not isinstance(node, jinja2.nodes.TemplateData | jinja2.nodes.Name) for node in nodes):
        template = environment.from_string(source)
        return lambda text: before + template.render(body=text)
    parts = [before, *(node.data if isinstance(node, jinja2.nodes.TemplateData) else None for node in nodes)]
    if None not in parts:
        return "".join(part for part in parts if part)
    return lambda text: "".join([text if part is None else part for part in parts])


def load_task(name: str, root: Path = ROOT) -> Task:
    """Read recipes/<name>/task.yml.

    Raises:
        UserError: There is no such task, or task.yml or a file it names is wrong.
    """
    known = sorted(path.parent.name for path in (root / "recipes").glob("*/task.yml"))
    if name not in known:
        raise UserError(f"no task '{name}': recipes/{name}/task.yml does not exist; the tasks are {', '.join(known)}")
    path = root / "recipes" / name / "task.yml"
    shown = Path(relative(path))
    spec, lines = yamlfile.load(path)
    schema = json.loads((root / "recipes" / "task.schema.json").read_text(encoding="utf-8"))
    problems = _schema_problems(shown, spec, lines, schema)
    if not problems:
        problems = _content_problems(shown, spec, lines, path.parent)
    if problems:
        raise UserError(problems)
    spec["data"] = yamlfile.Declared(spec["data"], name, "data.")
    return Task(yamlfile.Declared(spec, name), path.parent, root)


def _schema_problems(shown: Path, spec: dict[str, Any], lines: yamlfile.Lines, schema: dict[str, Any]) -> list[str]:
    if jsonschema_rs.is_valid(schema, spec):
        return []
    import jsonschema  # has words for what is wrong, and takes its time

    problems = []
    for error in jsonschema.Draft202012Validator(schema).iter_errors(spec):
        key = tuple(error.absolute_path)
        unknown = error.validator == "additionalProperties" and isinstance(error.instance, dict)
        names = [k for k in error.instance if k not in error.schema.get("properties", {})] if unknown else [None]
        for extra in names:
            place = (*key, extra) if extra else key
            allowed = (
                f"unknown key; the keys here are {', '.join(error.schema['properties'])}" if extra else error.message
            )
            problems.append(f"{shown}:{lines.get(place, 1)}: {'.'.join(map(str, place)) or 'top level'}: {allowed}")
    return problems


def _content_problems(shown: Path, spec: dict[str, Any], lines: yamlfile.Lines, folder: Path) -> list[str]:
    def at(*key: str | int) -> str:
        return f"{shown}:{lines.get(key, 1)}: {'.'.join(map(str, key))}"

    problems = []
    if spec["name"] != folder.name:
        problems.append(f"{at('name')}: found '{spec['name']}', expected the folder's name '{folder.name}'")
    prompt, train = spec.get("prompt", {}), spec["data"].get("train", {})
    for i, name in enumerate(prompt.get("segments", [])):
        problems += _prompt_problems(at("prompt", "segments", i), folder / name, name)
    for i, pattern in enumerate(prompt.get("strip", [])):
        try:
            re.compile(pattern)
        except re.error as error:
            problems.append(f"{at('prompt', 'strip', i)}: not a regular expression: {error}")
    for i, phase in enumerate(spec.get("phases", [])):
        if not (folder / f"{phase}.yml").exists():
            problems.append(
                f"{at('phases', i)}: recipes/{folder.name}/{phase}.yml does not exist; write it or drop the phase"
            )
    for name, mix in train.items():
        for role in ("base", "replay"):
            if mix.get(role, name) not in train:
                problems.append(f"{at('data', 'train', name, role)}: '{mix[role]}' is no data set under data.train")
    for name in spec["data"].get("split", {}).get("shares", {}):
        if name != "test" and "base" in train.get(name, {"base": ""}):
            expected = "expected test, or a data set under data.train that is not mixed of others"
            problems.append(f"{at('data', 'split', 'shares', name)}: {expected}")
    schema = spec.get("output_schema", {})
    if not jsonschema_rs.meta.is_valid(schema):
        import jsonschema

        judge = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
        fault = next(judge.iter_errors(schema))
        problems.append(f"{at('output_schema', *fault.absolute_path)}: not a JSON Schema: {fault.message}")
    return problems + (_gold_problems(at, spec["gold"]) if "gold" in spec else [])


def _gold_problems(at: Callable[..., str], gold: dict[str, Any]) -> list[str]:
    columns, entities = gold["columns"], gold.get("entities", {})
    problems = []
    for group, specs in (("columns", columns), ("entities", entities)):
        for name, spec in specs.items():
            try:
                jmespath.compile(spec["path"])
            except jmespath.exceptions.JMESPathError as error:
                problems.append(f"{at('gold', group, name, 'path')}: not a JMESPath: {str(error).splitlines()[0]}")
    for name, column in columns.items():
        if column.get("entity", next(iter(entities), None)) not in (None, *entities):
            problems.append(f"{at('gold', 'columns', name, 'entity')}: '{column['entity']}' is not in gold.entities")
    for name, entity in entities.items():
        if columns.get(entity["key"], {}).get("entity") != name:
            problems.append(f"{at('gold', 'entities', name, 'key')}: '{entity['key']}' is no column of entity {name}")
    for name, group in gold.get("slices", {}).items():
        if group.get("column", next(iter(columns))) not in columns:
            problems.append(f"{at('gold', 'slices', name, 'column')}: '{group['column']}' is not in gold.columns")
    if gold.get("one_row_per", "article") not in ("article", *entities):
        problems.append(f"{at('gold', 'one_row_per')}: found '{gold['one_row_per']}', expected article or an entity")
    return problems


def _prompt_problems(place: str, path: Path, name: str) -> list[str]:
    try:
        jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(path.read_text(encoding="utf-8")).render(
            body=""
        )
    except FileNotFoundError:
        return [f"{place}: the prompt file {name} does not exist; write it, or mend the name"]
    except UnicodeDecodeError:
        return [f"{place}: {name} is not UTF-8; save it as UTF-8"]
    except jinja2.TemplateError as error:
        return [f"{place}: {name}: {error}; the one variable is body"]
    return []

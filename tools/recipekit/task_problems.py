"""What is wrong with a task.yml, each with its line and key."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import jmespath
import jsonschema_rs

from recipekit import yamlfile

# What formats of rows need, and options that they alone have.
NEEDS = {
    "real_persona_chat": {"label": "a key of the label -> a key of a person's 'personality'"},
    "nemotron_personas": {"text": "the columns of the body", "occupations": "a YAML file, group -> words"},
}
OPTIONS = {"real_persona_chat": ["context"], "nemotron_personas": ["text", "occupations", "limit"]}


def schema_problems(shown: Path, spec: dict[str, Any], lines: yamlfile.Lines, schema: dict[str, Any]) -> list[str]:
    """Compare a task.yml with recipes/task.schema.json.

    Args:
        shown: The file's name in messages.
        spec: Its content.
        lines: Where each key stands.
        schema: The JSON Schema.
    """
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


def content_problems(shown: Path, spec: dict[str, Any], lines: yamlfile.Lines, folder: Path) -> list[str]:
    """Look for what no schema can tell: names that lead nowhere, patterns and paths that cannot be read."""

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
    lists: dict[tuple[str, ...], list[str]] = {("phases",): spec.get("phases", [])}
    lists |= {("variants", name): phases for name, phases in spec.get("variants", {}).items()}
    for place, phases in lists.items():
        problems += [
            f"{at(*place, i)}: recipes/{folder.name}/{phase}.yml does not exist; write it or drop the phase"
            for i, phase in enumerate(phases)
            if not (folder / f"{phase}.yml").exists()
        ]
    for name, target in spec.get("regression", {}).get("targets", {}).items():
        low, high = target["scale"]
        if low >= high:
            problems.append(
                f"{at('regression', 'targets', name, 'scale')}: found {[low, high]}, expected [least, greatest]"
            )
    problems += _mix_problems(at, spec["data"], train)
    problems += _rows_problems(at, spec["data"]) + _format_problems(at, spec, folder)
    problems += _split_problems(at, spec["data"], train)
    schema = spec.get("output_schema", {})
    if not jsonschema_rs.meta.is_valid(schema):
        import jsonschema

        judge = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
        fault = next(judge.iter_errors(schema))
        problems.append(f"{at('output_schema', *fault.absolute_path)}: not a JSON Schema: {fault.message}")
    if "chat" in spec:
        problems += _chat_problems(at, spec, folder)
    return problems + (_gold_problems(at, spec["gold"]) if "gold" in spec else [])


def _splits(data: dict[str, Any]) -> dict[tuple[str | int, ...], dict[str, Any]]:
    """Return the splits of task.yml by their places."""
    given = data.get("split", [])
    return {("split", i): own for i, own in enumerate(given)} if isinstance(given, list) else {("split",): given}


def _split_problems(at: Callable[..., str], data: dict[str, Any], train: dict[str, Any]) -> list[str]:
    problems = []
    drawn: set[str] = set()
    for place, split in _splits(data).items():
        for name in split["shares"]:
            here = at("data", *place, "shares", name)
            if name != "test" and "base" in train.get(name, {"base": ""}):
                problems.append(f"{here}: expected test, or a data set under data.train that is not mixed of others")
            if name in drawn:
                problems.append(f"{here}: another split has a part {name} already; a data set is made of one file")
            drawn.add(name)
    return problems


def _format_problems(at: Callable[..., str], spec: dict[str, Any], folder: Path) -> list[str]:
    """Look at the formats of regressions: what they need, and that nothing else asks for them."""
    data = spec["data"]
    places: dict[tuple[str | int, ...], dict[str, Any]] = {("rows",): data.get("rows", {})}
    owners = _splits(data) | {("train", name): own for name, own in data.get("train", {}).items()}
    places |= {(*place, "rows"): own.get("rows", {}) for place, own in owners.items()}
    problems = []
    for place, own in places.items():
        form = own.get("format")
        needs = NEEDS.get(str(form), {})
        given = {"label": isinstance(own.get("label"), dict)}
        problems += [
            f"{at('data', *place)}: format {form} needs '{key}', {what}"
            for key, what in needs.items()
            if not given.get(key, key in own)
        ]
        if needs and spec["kind"] != "regression":
            problems.append(f"{at('data', *place, 'format')}: {form} is for tasks of kind regression")
        if "occupations" in own and not (folder / own["occupations"]).is_file():
            missing = f"{own['occupations']} does not exist; write it: group -> words that its titles hold"
            problems.append(f"{at('data', *place, 'occupations')}: {missing}")
        others = {key for each, keys in OPTIONS.items() if each != form for key in keys}
        problems += [f"{at('data', *place, key)}: no option of format {form}" for key in own if key in others]
    if spec["kind"] == "regression":
        mixes = [name for name, own in data.get("train", {}).items() if "base" in own]
        problems += [f"{at('data', 'train', name, 'base')}: mixes are of segments; drop it" for name in mixes]
    return problems


def _rows_problems(at: Callable[..., str], data: dict[str, Any]) -> list[str]:
    problems = []
    places: dict[tuple[str | int, ...], dict[str, Any]] = {(): data, **_splits(data)}
    places |= {("train", name): own for name, own in data.get("train", {}).items()}
    for place, own in places.items():
        body = own.get("rows", {}).get("body", "")
        try:
            jinja2.Environment().from_string(body)
        except jinja2.TemplateError as error:
            problems.append(f"{at('data', *place, 'rows', 'body')}: {error}; mend the template")
        name = Path(own.get("file", ""))
        if name.is_absolute() or ".." in name.parts:
            problems.append(f"{at('data', *place, 'file')}: found '{name}', expected a name below the raw folder")
    return problems


def _mix_problems(at: Callable[..., str], data: dict[str, Any], train: dict[str, Any]) -> list[str]:
    """Look for mixes of what is no data set with rows, nor a mix above."""
    problems = []
    known = [*data.get("curriculum", {}).get("groups", {}), *(name for name, own in train.items() if "base" not in own)]
    for name, mix in train.items():
        for role in ("base", "replay"):
            if role in mix and mix[role] not in known:
                expected = "is no data set under data.train that has rows of its own, nor a mix above this one"
                problems.append(f"{at('data', 'train', name, role)}: '{mix[role]}' {expected}")
        known.append(name)
    return problems


def _chat_problems(at: Callable[..., str], spec: dict[str, Any], folder: Path) -> list[str]:
    """Look for prompts that are not there, numbers that are no levels, and groups of no field's values."""
    fields, data = spec["chat"]["fields"], spec["data"]
    problems = [
        f"{at('prompt', key)}: the prompt file {spec['prompt'][key]} does not exist; write it, or mend the name"
        for key in ("system", "persona")
        if not (folder / spec["prompt"][key]).is_file()
    ]
    for i, name in enumerate(spec["chat"].get("attribute", [])):
        if "levels" not in fields.get(name, {}):
            problems.append(f"{at('chat', 'attribute', i)}: '{name}' is no field of chat.fields with levels")
    if not (curriculum := data.get("curriculum")):
        return problems
    values = fields.get(curriculum["by"], {}).get("values")
    if values is None:
        return [*problems, f"{at('data', 'curriculum', 'by')}: '{curriculum['by']}' is no field with values"]
    seen: dict[str, str] = {}
    for name, own in curriculum["groups"].items():
        place = at("data", "curriculum", "groups", name)
        if name in data.get("train", {}):
            problems.append(f"{place}: a data set of that name stands under data.train too; rename one of them")
        for value in own:
            if value not in values:
                problems.append(f"{place}: '{value}' is no value of {curriculum['by']}, which are {', '.join(values)}")
            elif seen.setdefault(value, name) != name:
                problems.append(f"{place}: '{value}' is in group {seen[value]} already")
    if missing := [value for value in values if value not in seen]:
        place = at("data", "curriculum", "groups")
        problems.append(f"{place}: {', '.join(missing)} of {curriculum['by']} are in no group; add them to one")
    return problems


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

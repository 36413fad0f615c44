"""YAML with the line number of every key, so that an error can name its place."""

from pathlib import Path
from typing import Any

import yaml

from recipekit.errors import UserError

Lines = dict[tuple[str | int, ...], int]


class Declared(dict[str, Any]):
    """A part of task.yml, in which to miss a key is the user's error.

    A task may be declared before it can be trained: its data sources alone, for example.
    """

    def __init__(self, content: dict[str, Any], task: str, place: str = "") -> None:
        super().__init__(content)
        self._task, self._place = task, place

    def __missing__(self, key: str) -> Any:
        missing = self._place + key
        example = {"data.captions": "ogiri"}.get(missing, "hawks")
        advice = f"add '{missing}' to recipes/{self._task}/task.yml, as recipes/{example}/task.yml has it"
        raise UserError(f"{self._task} has no {missing} yet: {advice}, or run another task")


def load(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML mapping.

    Returns:
        The data, and the 1-based line of every key path, for example ("gold", "columns", "person_name") -> 41.

    Raises:
        UserError: The file is missing, empty, no valid YAML, names a key twice, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name, or restore it with git checkout") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem}; mend the line") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a YAML file that can be read") from None
    except (yaml.YAMLError, ValueError) as error:  # characters that YAML does not allow, dates that are none
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}; mend it") from None
    if not isinstance(data, dict) or node is None:
        raise UserError(f"{path}:1: expected a mapping of keys to values, found {type(data).__name__}")
    lines: Lines = {}
    twice: list[str] = []
    _walk(node, (), lines, twice)
    if twice:
        raise UserError([f"{path}:{place}; keep one of them" for place in twice])
    return data, lines


def _walk(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, twice: list[str]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, key.value)
            if here in lines:
                twice.append(f"{key.start_mark.line + 1}: key '{key.value}' stands twice (first on line {lines[here]})")
            lines[here] = key.start_mark.line + 1
            _walk(value, here, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, twice)

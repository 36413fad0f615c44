"""An error put into the sources that a sample is invented from."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recipekit.errors import UserError

LINE = r"\.yml:\d+: "


def assert_named(
    make: Callable[[Path, Path], object],
    source: Path,
    folder: Path,
    change: tuple[str, str, str, str],
    place: str = LINE,
) -> None:
    """See that a broken source is refused with file and line, and that nothing is written.

    Args:
        make: Invents a sample: source, output.
        source: The sources as they are.
        folder: An empty one.
        change: A file, what stands in it, what takes its place, and what is said of that.
        place: What every problem names.
    """
    file, old, new, message = change
    broken = folder / "source"
    shutil.copytree(source, broken)
    text = (broken / file).read_text(encoding="utf-8")
    assert old in text
    (broken / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        make(broken, folder / "out")
    assert any(message in problem for problem in error.value.problems), error.value.problems
    assert all(re.search(place, problem) for problem in error.value.problems)
    assert not (folder / "out").exists()

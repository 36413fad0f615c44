"""Which kinds of task a tool takes."""

from recipekit.errors import UserError
from recipekit.task import Task


def need_extraction(task: Task, tool: str, instead: str) -> None:
    """Refuse a task whose answers are numbers or replies, in a tool that reads extracted answers.

    Raises:
        UserError: It is another kind; `instead` says what to do.
    """
    if task.kind != "extraction":
        raise UserError(f"{tool}: reads tasks of kind extraction, and {task.name} is of kind {task.kind}; {instead}")


def need_chat(task: Task, tool: str) -> None:
    """Refuse a task whose answers are no replies, in a tool that holds conversations.

    Raises:
        UserError: It is another kind.
    """
    if not task.is_chat:
        raise UserError(f"{tool}: reads tasks of kind chat, such as companion, and {task.name} is of kind {task.kind}")

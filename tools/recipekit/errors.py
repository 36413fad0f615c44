"""The one exception for what a user can put right."""


class UserError(Exception):
    """One or more problems a user can mend.

    Attributes:
        problems: One line each, naming the file and line or key, what was found, what was expected and what to do.
    """

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

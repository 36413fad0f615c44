"""Articles to predict, from a file or a folder."""

from dataclasses import dataclass
from pathlib import Path

from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.segments import read_jsonl


@dataclass(frozen=True)
class Article:
    """One article.

    Attributes:
        id: Its name in the predictions.
        body: Its text, as the feed gave it.
        place: Where it stands, file:line, for messages about it.
    """

    id: str
    body: str
    place: str = "the article"


def read_articles(path: Path) -> list[Article]:
    """Read what is to be predicted.

    Raises:
        UserError: The file is missing or empty, or lines of it are broken, lack id or body, or repeat an id.
    """
    articles: list[Article] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    try:
        for line, row in read_jsonl(path):
            place = f"{relative(path)}:{line}"
            for key in ("id", "body"):
                if not isinstance(row.get(key), str) or not row[key].strip():
                    problems.append(f"{place}: key '{key}': expected text, found {row.get(key)!r}; add it")
            if isinstance(row.get("id"), str) and seen.setdefault(row["id"], line) != line:
                problems.append(f"{place}: id '{row['id']}' stands on line {seen[row['id']]} already; ids are unique")
            articles.append(Article(str(row.get("id")), str(row.get("body")), place))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    return articles

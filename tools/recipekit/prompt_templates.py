"""What the prompt's files and patterns become: functions that are called for every article."""

import re
from collections.abc import Callable

import jinja2


def at_line_start(pattern: str) -> bool:
    """Tell of a regular expression whether it is ^ and a part that can stand among others; False where in doubt."""
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "c", re.sub(r"\\[^0-9]", "c", pattern))
    while (inner := re.sub(r"\((?:\?:)?[^()?]*\)", "g", bare)) != bare:
        bare = re.sub(r"g[?*+]", "g", inner)
    return re.fullmatch(r"\^(?![*?{])[^|()\\]*", bare) is not None


def renderer(source: str, before: str) -> str | Callable[[str], str]:
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

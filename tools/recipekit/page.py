"""Pages for people: one HTML file each, made of the templates beside this module, that needs nothing but itself."""

import re
from pathlib import Path

import jinja2

# What neither HTML nor UTF-8 can hold.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def environment() -> jinja2.Environment:
    """Return what reads the templates; all that is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def writable(html: str) -> str:
    """Replace the characters that a page cannot hold, such as control characters and halves of surrogate pairs."""
    return _UNWRITABLE.sub("\ufffd", html)

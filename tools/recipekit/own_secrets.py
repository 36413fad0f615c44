"""The tokens and passwords of this machine's environment and .env, taken out of all that is shown or logged."""

import os
import re
from pathlib import Path

from dotenv import dotenv_values

from recipekit import ROOT

_NAMES = re.compile(r"(?:^|_)(?:TOKEN|PASSWORD|SECRET|KEY|KEY_ID)$", re.IGNORECASE)
_PASSWORD = re.compile(r"\w://[^\s/@:]*:([^\s/]+)@")  # of a URL
SHORTEST = 8  # characters; shorter values, such as "none", are words that stand in any text


def own_secrets(root: Path = ROOT) -> list[str]:
    """List the secrets of the environment and .env by the names and forms of settings, longest first.

    Args:
        root: The folder of .env.
    """
    settings = [*os.environ.items(), *dotenv_values(root / ".env").items()]
    values = [value for name, value in settings if value and _NAMES.search(name)]
    values += [password for _, value in settings if value for password in _PASSWORD.findall(value)]
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)


def without_secrets(text: str) -> str:
    """Replace this machine's secrets in a text by asterisks."""
    for secret in own_secrets():
        text = text.replace(secret, "***")
    return text


def scrub(path: Path) -> None:
    """Overwrite this machine's secrets in a log, in place: other processes may go on appending to it."""
    content = path.read_bytes()
    with path.open("r+b") as stream:
        for secret in own_secrets():
            for match in re.finditer(re.escape(secret.encode()), content):
                stream.seek(match.start())
                stream.write(b"*" * len(match[0]))

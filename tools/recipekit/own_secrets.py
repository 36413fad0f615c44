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


def scrub(path: Path, start: int = 0) -> int:
    """Overwrite this machine's secrets in a log, in place: other processes may go on appending to it.

    Args:
        path: The log.
        start: Bytes at its beginning that are free of them.

    Returns:
        Bytes that are free of them now; the last ones may be the beginning of one.
    """
    secrets = [secret.encode() for secret in own_secrets()]
    with path.open("r+b") as stream:
        stream.seek(start)
        content = stream.read()
        for secret in secrets:
            for match in re.finditer(re.escape(secret), content):
                stream.seek(start + match.start())
                stream.write(b"*" * len(match[0]))
    return start + max(len(content) - max(map(len, secrets), default=1) + 1, 0)

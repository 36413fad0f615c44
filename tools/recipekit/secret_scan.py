"""Secrets in text: tokens and keys that have a form of their own.

Most forms are detect-secrets'. Not taken from there, because they give false alarms on Japanese text or on ids of
rows: high entropy (Japanese is written without spaces: one long random string), public IP addresses, `password=`,
Artifactory (`APC00000012` would be one) and passwords in a URL (its rule runs on through Japanese up to the next @).
All are read as ASCII, so that a token right before kanji is found as well.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

SECRET, OWN = "secret", "own_token"
DETECTORS = (
    "AWSKeyDetector", "AzureStorageKeyDetector", "DiscordBotTokenDetector", "GitHubTokenDetector",
    "GitLabTokenDetector", "MailchimpDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector",
    "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip
FORMS = {  # what detect-secrets lacks, finds in more text than it should, or takes the square of a text's length for
    "Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "OpenAI or Anthropic key": r"\bsk-(?:(?:proj|svcacct|admin|or-v1|ant-[a-z0-9]+)-[\w-]{20,}|[A-Za-z0-9]{20,})",
    "GitHub token": r"\bgithub_pat_\w{36,}",
    "Google API key": r"\bAIza[\w-]{35}",
    "Slack token": r"\bxox[a-z]-[A-Za-z0-9-]{20,}|\bxapp-\d-[A-Za-z0-9-]{20,}",
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "JSON Web Token": r"eyJ[\w=-]{1,2000}+\.[\w=-]+[\w=.+/-]*",
    "npm token": r"/:_authToken=\s*(?:npm_\S+|[A-Fa-f0-9-]{36})",
    "password in a URL": r"[a-z][a-z0-9+.-]{0,30}://[\w.%~+-]*:[!-.0-?A-~]+@[\w.-]",
}


class Secret(NamedTuple):
    """A secret in a text.

    Attributes:
        kind: SECRET, or OWN for the token that this machine uses.
        name: What it is, in words.
        start: Where it begins, in characters.
        end: Where it ends.
    """

    kind: str
    name: str
    start: int
    end: int


def find(text: str, own: str | None = None) -> Iterator[Secret]:
    """Yield the secrets in a text, none overlapping another.

    Args:
        text: Any text.
        own: The Hub's token of this machine; it is found wherever it stands, even inside a longer word.
    """
    if own and own in text:
        for match in re.finditer(re.escape(own), text):
            yield Secret(OWN, "your own Hub token", *match.span())
        text = text.replace(own, "\0" * len(own))
    found = [Secret(SECRET, name, *match.span()) for name, form in _forms() for match in form.finditer(text)]
    end = 0
    for secret in sorted(found, key=lambda secret: secret.start):
        if secret.start >= end:
            yield secret
            end = secret.end


@cache
def _forms() -> list[tuple[str, re.Pattern[str]]]:
    """Compile all forms; detect-secrets is slow to import."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    plugins: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    taken = [(p.secret_type, form) for p in plugins if p.__name__ in DETECTORS for form in p.denylist]
    forms = [(name, re.compile(form.pattern, form.flags & ~re.UNICODE | re.ASCII)) for name, form in taken]
    return forms + [(name, re.compile(form, re.ASCII)) for name, form in FORMS.items()]

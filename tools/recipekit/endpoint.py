"""OpenAI-compatible endpoints: their URLs, clients and models, and what a client raises, told as what to check."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import openai

from recipekit.errors import UserError
from recipekit.hub import masked

RETRIES, SECONDS = 5, 600  # of a request


def check_url(url: str, option: str = "--server") -> None:
    """Refuse what is no URL of a server.

    Raises:
        UserError: It is none; it names the option that the URL was given with.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(
            f"{option}: {masked(url)!r} is no URL like http://localhost:8000/v1; mend it (where a password has / or @, "
            "write %2F or %40)"
        )


def connect(
    url: str, key: str | None, option: str = "--server", retries: int | None = None, seconds: int | None = None
) -> openai.OpenAI:
    """Open an endpoint; it tries again, with back-off, after 429, 5xx and a lost connection.

    Raises:
        UserError: It is no URL.
    """
    check_url(url, option)
    tries = RETRIES if retries is None else retries
    return openai.OpenAI(base_url=url, api_key=key or "none", max_retries=tries, timeout=seconds or SECONDS)


def find_model(client: openai.OpenAI, url: str, served: str | None) -> tuple[str, int | None]:
    """Return the name of the model that is served and, where the server tells, its context length (tokens).

    Args:
        client: Of the server.
        url: Its URL, without a password, for messages.
        served: The name that is wanted; None: the only one there.

    Raises:
        UserError: The server cannot be reached, or does not serve the model.
    """
    with explained(url):
        entries = client.with_options(max_retries=1).models.list()
        listed = {entry.id: getattr(entry, "max_model_len", None) for entry in entries}
        names = ", ".join(listed) or "none"
    if served is None and len(listed) != 1:
        raise UserError(f"--served-model is missing: {url} serves {names}; name one of them")
    served = served or next(iter(listed))
    if served not in listed:
        raise UserError(f"--served-model: {url} does not serve '{served}', but {names}; name one of them")
    return served, listed[served]


@contextmanager
def explained(
    url: str, option: str = "--server", named: str = "--served-model", refused: str = "see the server's log"
) -> Iterator[None]:
    """Turn what the client raises into a UserError that says what to check.

    Args:
        url: Of the server, without a password.
        option: Names the server.
        named: The option that names its model.
        refused: What to do where the server refuses a request.
    """
    try:
        yield
    except openai.APITimeoutError:
        raise UserError(f"{url}: no reply in time; give it fewer requests at a time, or see the server's log") from None
    except openai.APIConnectionError as error:
        reason = error.__cause__ or error
        raise UserError(f"{url}: no server answers there ({reason}); start it, or mend {option}") from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:  # whose message may show the key
        raise UserError(
            f"{url}: {error.status_code}, the server wants another key; write it as OPENAI_API_KEY into .env"
        ) from None
    except openai.APIStatusError as error:
        said = re.sub(r"\s+", " ", str(error.message))[:300]
        hint = {
            404: f"no such model or path; {option} ends in /v1, and {named} names a model that it lists",
            400: f"the server refused the request; {refused}",
            422: f"the server refused the request; {refused}",
        }.get(error.status_code, "see the server's log, then run the same command again to go on")
        raise UserError(f"{url}: {said}; {hint}") from None
    except (AttributeError, TypeError, ValueError):  # the client takes HTML, a list and broken JSON for a reply
        raise UserError(
            f"{url}: no OpenAI-compatible server answers there, but another program; mend {option}, which ends in /v1"
        ) from None

"""OpenAI-compatible endpoints: their URLs, and what their client raises, told as what to check."""

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


@contextmanager
def explained(url: str, option: str = "--server") -> Iterator[None]:
    """Turn what the client raises into a UserError that says what to check, and which option names the server."""
    try:
        yield
    except openai.APITimeoutError:
        raise UserError(f"{url}: no reply within {SECONDS} s; lower --concurrency, or see the server's log") from None
    except openai.APIConnectionError as error:
        reason = error.__cause__ or error
        raise UserError(f"{url}: no server answers there ({reason}); start it, or mend {option}") from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:  # whose message may show the key
        raise UserError(
            f"{url}: {error.status_code}, the server wants another key; write it as OPENAI_API_KEY into .env"
        ) from None
    except openai.APIStatusError as error:
        said = re.sub(r"\s+", " ", str(error.message))[:300]
        named, refused = "--judge-model", "the server refused the request; see its log"
        if option == "--server":
            named, refused = (
                "--served-model",
                "the server refused the request; where it takes no token ids, use --prompt-as text",
            )
        hint = {
            404: f"no such model or path; {option} ends in /v1, and {named} names a model that it lists",
            400: refused,
            422: refused,
        }.get(error.status_code, "see the server's log, then run the same command again to go on")
        raise UserError(f"{url}: {said}; {hint}") from None
    except (AttributeError, TypeError, ValueError):  # the client takes HTML, a list and broken JSON for a reply
        raise UserError(
            f"{url}: no OpenAI-compatible server answers there, but another program; mend {option}, which ends in /v1"
        ) from None

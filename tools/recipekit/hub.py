"""What download.py and upload.py share: the token, errors that say what to do, and proof of arrival."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values

from recipekit.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

TOKEN_NAMES = ("HF_AUTH_TOKEN", "HF_TOKEN")
TOKEN_PAGE = "https://huggingface.co/settings/tokens"  # noqa: S105
CONNECT_SECONDS, READ_SECONDS = 10, 300


def setting(root: Path, *names: str) -> str | None:
    """Find a setting under any of its names, in the environment, then in .env; empty counts as not set."""
    sources = (os.environ, dotenv_values(root / ".env"))
    return next((value for source in sources for name in names if (value := source.get(name))), None)


def masked(url: str) -> str:
    """Hide the user and password of a URL, for messages: http://***@host/v1."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", url)


def find_token(root: Path) -> str | None:
    """Find the Hub's token: HF_AUTH_TOKEN or HF_TOKEN, in the environment or .env, or that of `hf auth login`."""
    from huggingface_hub import get_token

    return setting(root, *TOKEN_NAMES) or get_token()


def endpoint() -> str:
    """Where the Hub is: HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def connect(token: str | None) -> "HfApi":
    """Open the Hub; without a token, as nobody. A connection that does not come about fails in seconds."""
    import httpx
    from huggingface_hub import HfApi, get_session

    get_session().timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    return HfApi(token=token or False)


@contextmanager
def explained(action: str, remedy: str, token: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into a UserError: what failed, why, what to check and what to do."""
    import httpx
    from huggingface_hub.errors import XetError

    try:
        yield
    except (httpx.HTTPError, OSError, RuntimeError, ValueError, XetError) as error:
        text = f"{action}: {reason(error)}; {remedy}"
        raise UserError(text.replace(token, "***") if token else text) from error


def reason(error: BaseException) -> str:
    """Say in one line what lies behind an error of the Hub's client."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    chain = list(_causes(error))
    responses = [cause.response for cause in chain if isinstance(cause, httpx.HTTPStatusError | HfHubHTTPError)]
    status = responses[0].status_code if responses else None
    advice = {
        401: f"no token, or one that is not accepted (401); put one from {TOKEN_PAGE} into .env as HF_AUTH_TOKEN",
        403: f"the token may not do this (403); it needs write access to this repository, see {TOKEN_PAGE}",
        404: "no such repository or revision (404), or the token may not see it; check its name and owner",
        429: "too many requests (429); wait a few minutes",
    }
    if status in advice:
        return advice[status]
    if status is not None and status >= 500:
        return f"the Hub at {endpoint()} has a fault of its own ({status})"
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in chain):
        return "HF_HUB_OFFLINE is set; unset it"
    if any(isinstance(cause, httpx.TransportError) for cause in chain):
        return f"no connection to the Hub at {endpoint()}, or it was cut ({_first_line(chain[-1])})"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def remote_files(api: "HfApi", repo: str, kind: str, commit: str) -> dict[str, "RepoFile"]:
    """List a repository's files at a commit, by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo, recursive=True, revision=commit, repo_type=kind)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def difference(local: Path, remote: "RepoFile | None") -> str | None:
    """Say how a file differs from its twin on the Hub, in size or, where the Hub keeps it, sha256; None: not at all."""
    if remote is None:
        return "missing on the Hub"
    if not local.is_file():
        return "missing here"
    if local.stat().st_size != remote.size:
        return f"{local.stat().st_size:,} bytes here, {remote.size:,} on the Hub"
    if remote.lfs is not None and sha256(local) != remote.lfs.sha256:
        return "another content (sha256) than on the Hub"
    return None


def sha256(path: Path) -> str:
    """Digest a whole file, however large."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

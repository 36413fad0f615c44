"""What download.py and upload.py share: the token, errors that say what to do, and proof of arrival."""

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dotenv import dotenv_values

from recipekit.console import show
from recipekit.errors import UserError

if TYPE_CHECKING:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    from recipekit.task import Task

TOKEN_NAMES = ("HF_AUTH_TOKEN", "HF_TOKEN")
TOKEN_PAGE = "https://huggingface.co/settings/tokens"  # noqa: S105
CONNECT_SECONDS, READ_SECONDS = 10, 300
WAITS = (1, 2, 4, 8)  # seconds before the second, third ... try
LONGEST_WAIT = 600  # seconds; the Hub's windows of requests are 300
S = TypeVar("S")
T = TypeVar("T")
_stopping = threading.Event()


def setting(root: Path, *names: str) -> str | None:
    """Find a setting under any of its names, in the environment, then in .env; empty counts as not set."""
    sources = (os.environ, dotenv_values(root / ".env"))
    return next((value for source in sources for name in names if (value := source.get(name))), None)


def masked(url: str) -> str:
    """Hide the user and password of a URL, for messages: http://***@host/v1."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", url)


def model_repo(task: "Task") -> str | None:
    """Name the repository of a task's model, publish.repo or HF_REPO_ID; a variant's has its name at the end."""
    repo = task.spec.get("publish", {}).get("repo") or setting(task.root, "HF_REPO_ID")
    return f"{repo}-{task.variant}" if repo and task.variant else repo


def find_token(root: Path) -> str | None:
    """Find the Hub's token: HF_AUTH_TOKEN or HF_TOKEN, in the environment or .env, or that of `hf auth login`."""
    from huggingface_hub import get_token

    return setting(root, *TOKEN_NAMES) or get_token()


def endpoint() -> str:
    """Where the Hub is, for messages: HF_ENDPOINT without a password, or the public one."""
    from huggingface_hub import constants

    return masked(constants.ENDPOINT)


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


class Stopped(Exception):
    """Another thread failed."""


class Damaged(OSError):
    """What arrived is not what the Hub keeps."""


def patiently(call: Callable[[], T], connected: bool = True) -> T:
    """Call the Hub, up to five times where the fault may pass: a cut connection, a damaged file, 429, 5xx.

    The client itself tries again after some of these, in some of its calls, and does not heed Retry-After.

    Args:
        call: What to do; it goes on where the call before it stopped.
        connected: Whether the Hub was reached before. Else a refused connection fails at once: the address is wrong, or
            the Hub is away.
    """
    import httpx

    for wait in WAITS:
        try:
            return call()
        except (httpx.HTTPError, OSError, RuntimeError) as error:  # RuntimeError: around those of an upload
            if not _may_pass(error, connected):
                raise
            seconds = min(max(wait, _asked_wait(error)), LONGEST_WAIT)
            if seconds > max(WAITS):
                show(f"  {reason(error)}; again in {seconds} s")
        _pause(seconds)
    return call()


def _pause(seconds: float) -> None:
    if _stopping.wait(seconds):
        raise Stopped


def stop_if_asked() -> None:
    """End this thread's work where that of another failed, or a person pressed Ctrl-C.

    Raises:
        Stopped: So it is.
    """
    _pause(0)


def in_threads(work: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """Yield what `work` makes of each item, as it comes; when one fails, the others stop at `stop_if_asked` or wait."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            _stopping.set()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            _stopping.clear()


def _may_pass(error: BaseException, connected: bool) -> bool:
    import httpx

    chain = list(_causes(error))
    response = _response(chain)
    if response is not None:
        return response.status_code in (429, 500, 502, 503, 504)
    lasting = () if connected else (httpx.ConnectError, httpx.ConnectTimeout)
    passing = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, Damaged)
    return any(isinstance(cause, passing) and not isinstance(cause, lasting) for cause in chain)


def _asked_wait(error: BaseException) -> int:
    """Return the seconds that an answer asks to wait for, in Retry-After or the Hub's own header; 0: none."""
    response = _response(list(_causes(error)))
    headers = response.headers if response is not None else {}
    asked = re.fullmatch(r"(\d+)", headers.get("Retry-After", "")) or re.search(
        r";t=(\d+)", headers.get("RateLimit", "")
    )
    return int(asked[1]) if asked else 0


def _response(chain: "list[BaseException]") -> "httpx.Response | None":
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    errors = [cause for cause in chain if isinstance(cause, httpx.HTTPStatusError | HfHubHTTPError)]
    return next((error.response for error in errors if error.response is not None), None)


def reason(error: BaseException) -> str:
    """Say in one line what lies behind an error of the Hub's client."""
    import httpx
    from huggingface_hub.errors import OfflineModeIsEnabled

    chain = list(_causes(error))
    response = _response(chain)
    status = response.status_code if response is not None else None
    advice = {
        401: f"no token, or one that is not accepted (401); put one from {TOKEN_PAGE} into .env as HF_AUTH_TOKEN",
        403: f"the token may not do this (403); it needs write access to this repository, see {TOKEN_PAGE}",
        404: "no such repository or revision (404), or the token may not see it; check its name and owner",
        409: "another change of it is under way, or it is there already (409); wait a minute",
        412: "somebody else's commit came in between (412); nothing of it was overwritten",
        429: "too many requests (429); wait a few minutes",
    }
    if status in advice:
        return advice[status]
    if status is not None and status >= 500:
        return f"the Hub at {endpoint()} has a fault of its own ({status})"
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in chain):
        return "no space left on the disk; make room"
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in chain):
        return "HF_HUB_OFFLINE is set; unset it"
    if any(isinstance(cause, httpx.TransportError) for cause in chain):
        return f"no connection to the Hub at {endpoint()}, or it was cut ({_first_line(chain[-1])})"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"(\w+://)[^\s/]*@", r"\1***@", line)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def remote_files(api: "HfApi", repo: str, kind: str, commit: str) -> dict[str, "RepoFile"]:
    """List a repository's files at a commit, by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo, recursive=True, revision=commit, repo_type=kind)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def identity(remote: "RepoFile") -> str:
    """Return a digest that tells a file's content on the Hub from any other."""
    return remote.lfs.sha256 if remote.lfs else remote.blob_id


def difference(local: Path, remote: "RepoFile | None") -> str | None:
    """Say how a file differs from its twin on the Hub, in size or content; None: not at all."""
    if remote is None:
        return "missing on the Hub"
    if not local.is_file():
        return "missing here"
    if local.stat().st_size != remote.size:
        return f"{local.stat().st_size:,} bytes here, {remote.size:,} on the Hub"
    if remote.lfs is not None and sha256(local) != remote.lfs.sha256:
        return "another content (sha256) than on the Hub"
    if remote.lfs is None and _git_oid(local) != remote.blob_id:
        return "another content (git id) than on the Hub"
    return None


def _git_oid(path: Path) -> str:
    """Name a file's content as git does; the Hub keeps no other digest of small files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(path: Path) -> str:
    """Digest a whole file, however large."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""The files of one data set at one commit of the Hub: listed, fetched whole or read by ranges."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from recipekit import hub

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

WORKERS = 8


class HubFiles:
    """A data set's files at a commit.

    Attributes:
        entries: What the Hub says of each file, by path.
        sizes: Bytes of each file, by path.
    """

    def __init__(self, repo: str, commit: str, token: str | None) -> None:
        self.repo, self.commit, self.token = repo, commit, token
        api = hub.connect(token)
        self.entries: dict[str, RepoFile] = hub.patiently(lambda: hub.remote_files(api, repo, "dataset", commit))
        self.sizes = {name: entry.size for name, entry in self.entries.items()}

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading by ranges."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.repo, name, repo_type="dataset", revision=self.commit)
        headers = build_hf_headers(token=self.token or False)
        return cast(BinaryIO, RangeFile(url, self.sizes[name], headers))

    def fetch(self, names: Iterable[str], folder: Path, advance: Callable[..., Any]) -> None:
        """Download files whole, eight at a time, going on where an earlier run stopped.

        Args:
            names: Paths in the data set.
            folder: They keep these paths below it.
            advance: Told how many bytes have arrived.

        Raises:
            OSError: A file did not arrive, or not as the Hub keeps it.
        """
        for _ in hub.in_threads(lambda name: self._fetch(name, folder, advance), names, WORKERS):
            pass

    def _fetch(self, name: str, folder: Path, advance: Callable[..., Any]) -> None:
        local, entry = folder / name, self.entries[name]
        if hub.difference(local, entry) is None:
            advance(entry.size)
            return
        local.unlink(missing_ok=True)

        def attempt() -> None:
            try:
                self._get(name, folder, advance, force=False)
            except OSError as error:
                if not _is_beyond_repair(error):
                    raise
                self._get(name, folder, advance, force=True)
            if what := hub.difference(local, entry):
                local.unlink(missing_ok=True)
                raise hub.Damaged(f"{name}: {what}")

        hub.patiently(attempt)

    def _get(self, name: str, folder: Path, advance: Callable[..., Any], force: bool) -> None:
        from huggingface_hub import hf_hub_download

        class Bar:
            """What the client takes for a bar of tqdm's."""

            def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
                advance(initial)

            def __enter__(self) -> "Bar":
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update(self, count: int = 1) -> None:
                hub.stop_if_asked()
                advance(count)

        place: dict[str, Any] = {"repo_type": "dataset", "revision": self.commit, "local_dir": folder}
        hf_hub_download(
            self.repo, name, token=self.token or False, force_download=force, tqdm_class=cast(Any, Bar), **place
        )


def _is_beyond_repair(error: OSError) -> bool:
    """Tell whether what an earlier try left cannot be gone on with: longer than the file, or of another."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 416 or str(error).startswith("Consistency check failed")


class RangeFile(io.RawIOBase):
    """A file on the Hub that is read by HTTP ranges, one request a read."""

    def __init__(self, url: str, size: int, headers: dict[str, str]) -> None:
        self.url, self.size = url, size
        self.headers = headers | {"Accept-Encoding": "identity"}  # a range of compressed text is of no use
        self.position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the Hub; at the file's end, with less."""
        wanted = memoryview(buffer)[: max(self.size - self.position, 0)]
        if wanted:
            hub.patiently(lambda: self._fill(wanted))
        self.position += len(wanted)
        return len(wanted)

    def _fill(self, wanted: memoryview) -> None:
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import hf_raise_for_status

        headers = self.headers | {"Range": f"bytes={self.position}-{self.position + len(wanted) - 1}"}
        arrived = 0
        with get_session().stream(
            "GET", self.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as answer:
            hf_raise_for_status(answer)
            if answer.status_code != 206 or int(answer.headers["Content-Length"]) != len(wanted):
                raise hub.Damaged(f"{self.url}: another range arrived than {headers['Range']}")
            for chunk in answer.iter_bytes():
                hub.stop_if_asked()
                wanted[arrived : arrived + len(chunk)] = chunk
                arrived += len(chunk)

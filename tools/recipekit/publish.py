"""Files to a repository on the Hub: in one commit, over nobody's change, and proven to have arrived."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipekit import hub
from recipekit.console import progress
from recipekit.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile


@dataclass(frozen=True)
class Target:
    """A repository on the Hub.

    Attributes:
        repo: owner/name.
        kind: "model" or "dataset".
        private: Whether it has to be private.
        private_key: The key of task.yml that says so.
        token: A token that may write.
    """

    repo: str
    kind: str
    private: bool
    private_key: str
    token: str

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{hub.endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


@dataclass(frozen=True)
class Pushed:
    """What an upload came to.

    Attributes:
        commit: The commit that holds the files.
        sent: Files that it changed; none where the Hub had them all.
        files: What the Hub holds now, by path: a digest of each file.
        others: What else it holds.
    """

    commit: str
    sent: list[str]
    files: dict[str, str]
    others: list[str]


def push(
    target: Target,
    files: Mapping[str, Path],
    message: str,
    stale: Callable[[str], bool] = lambda name: False,
    left: Mapping[str, str] | None = None,
    digests: Mapping[str, str] | None = None,
) -> Pushed:
    """Upload files, the large ones one by one, then commit all; what the Hub has already is not sent again.

    Args:
        target: Where to; it is made where it does not exist.
        files: Path in the repository -> file.
        message: Of the commit.
        stale: Tells of a path in the repository whether it goes, unless it is among the files.
        left: What an upload from here left there, by path: a file that is another one now is somebody's change. None:
            files of these names are overwritten, whoever wrote them.
        digests: sha256 that files must still have when they are sent, by path.

    Raises:
        UserError: The repository is public but has to be private, somebody changed it, a file changed meanwhile, or
            what arrived is not what was sent.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = hub.connect(target.token)
    parent = _open(api, target)
    there = hub.patiently(lambda: hub.remote_files(api, target.repo, target.kind, parent))
    changed = {name: path for name, path in files.items() if hub.difference(path, there.get(name))}
    deletions = [CommitOperationDelete(name) for name in there if stale(name) and name not in files]
    if left is not None:
        _refuse_others(target, [n for n in changed if n in there and left.get(n) != hub.identity(there[n])])
    additions = [CommitOperationAdd(name, path) for name, path in changed.items()]
    if digests:
        _refuse_changed(a for a in additions if a.upload_info.sha256.hex() != digests[a.path_in_repo])
    commit = parent
    if additions or deletions:
        _send(api, target, additions)
        commit = hub.patiently(lambda: _commit(api, target, files, [*deletions, *additions], message, parent))
        there = hub.patiently(lambda: hub.remote_files(api, target.repo, target.kind, commit))
        _refuse_differences(target, files, there)
    others = sorted(name for name in there if name not in files and name != ".gitattributes")
    return Pushed(commit, list(changed), {name: hub.identity(there[name]) for name in files}, others)


def _open(api: "HfApi", target: Target) -> str:
    """Make the repository where it is missing, and return its last commit."""
    kind = target.kind
    hub.patiently(lambda: api.create_repo(target.repo, repo_type=kind, private=target.private, exist_ok=True), False)
    info = hub.patiently(lambda: api.repo_info(target.repo, repo_type=kind))
    if target.private and not info.private:
        raise UserError(
            f"{target.repo} is public and {target.private_key} of task.yml is true; nothing was uploaded; "
            f"make the repository private in its settings, or set {target.private_key}: false"
        )
    return str(info.sha)


def _commit(
    api: "HfApi", target: Target, files: Mapping[str, Path], operations: list[Any], message: str, parent: str
) -> str:
    """Commit on top of a parent; where the commit came about already and its answer was lost, return it."""
    head = str(api.repo_info(target.repo, repo_type=target.kind).sha)
    if head != parent:
        now = hub.remote_files(api, target.repo, target.kind, head)
        if not any(hub.difference(path, now.get(name)) for name, path in files.items()):
            return head
    return api.create_commit(
        target.repo, operations, commit_message=message, repo_type=target.kind, parent_commit=parent
    ).oid


def _send(api: "HfApi", target: Target, additions: "list[CommitOperationAdd]") -> None:
    """Upload what the Hub keeps outside git; an upload that was cut goes on with the files that are not there yet."""
    with progress("upload", len(additions)) as advance:
        for addition in additions:
            advance(0, note=addition.path_in_repo)
            hub.patiently(
                lambda one=addition: api.preupload_lfs_files(  # type: ignore[misc]
                    target.repo, [one], repo_type=target.kind, free_memory=False
                )
            )
            advance()


def _refuse_others(target: Target, names: list[str]) -> None:
    what = "is another than an upload from here left it; take over what was changed there, or overwrite it: --replace"
    if names:
        raise UserError([f"{target.repo}: {name} {what}" for name in names])


def _refuse_changed(additions: "Iterable[CommitOperationAdd]") -> None:
    what = "changed while it was read; run the same command again"
    if changed := [f"{addition.path_in_repo}: {what}" for addition in additions]:
        raise UserError(changed)


def _refuse_differences(target: Target, files: Mapping[str, Path], there: "Mapping[str, RepoFile]") -> None:
    differences = {name: hub.difference(path, there.get(name)) for name, path in files.items()}
    wrong = [f"{target.repo}: {name}: {what}; run the same command again" for name, what in differences.items() if what]
    if wrong:
        raise UserError(wrong)

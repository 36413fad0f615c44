"""A task's data from the Hugging Face Hub into data/raw/<task>/, whole or not at all.

    uv run tools/download.py hawks

The repository and revision stand in task.yml (data.hub). SOURCE.json beside the files says which commit they are and
their sha256. A download that was cut goes on where it stopped when the same command runs again.
"""

import json
import shutil
import time
from pathlib import Path

from recipekit import hub
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.runs import read_record, relative, replace_folder, write_text
from recipekit.task import Task, load_task

SOURCE = "SOURCE.json"


def wanted_files(task: Task) -> list[list[str]]:
    """List what regenerate_segments.py is going to read; each entry names the file's possible names."""
    train = task.raw_sets
    return [*([f"{n}.jsonl", f"{n}_segments.jsonl"] for n in train), *([n] for n in task.spec["data"]["test"].values())]


def digests(folder: Path) -> dict[str, str]:
    """Digest every file of a folder but its SOURCE.json and hidden ones."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SOURCE)
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: hub.sha256(path) for name, path in names.items() if not name.startswith(".")}


def is_current(target: Path, commit: str) -> bool:
    """Tell whether the folder holds this commit already.

    Raises:
        UserError: It holds files of a person's own, which a download would replace.
    """
    if not target.exists():
        return False
    source = read_record(target / SOURCE)
    if source.get("files") != digests(target):
        raise UserError(
            f"{relative(target)}: holds files that are not as a download left them ({SOURCE}); "
            "move or delete the folder, then run the same command again"
        )
    return source.get("commit") == commit


def fetch(repo: str, commit: str, part: Path, token: str | None) -> None:
    """Download a data set at a commit into a folder and compare it with what the Hub lists.

    Raises:
        UserError: Files that arrived differ from the listing.
    """
    from huggingface_hub import snapshot_download

    snapshot_download(repo, repo_type="dataset", revision=commit, local_dir=part, token=token or False)
    # snapshot_download returns an incomplete folder without an error when the Hub goes away after its first answer.
    remote = hub.remote_files(hub.connect(token), repo, "dataset", commit)
    differences = {name: hub.difference(part / name, entry) for name, entry in remote.items()}
    wrong = [f"{repo}: {name}: {what}; run the same command again" for name, what in differences.items() if what]
    if wrong:
        raise UserError(wrong)


def place(task: Task, part: Path, target: Path, source: dict[str, str]) -> dict[str, str]:
    """Check that the task's files are there, write SOURCE.json and put the folder in its place; returns the digests."""
    missing = [names for names in wanted_files(task) if not any(list(part.rglob(name)) for name in names)]
    if missing:
        found = ", ".join(digests(part))
        advice = f"which task.yml names; it holds {found}; mend data in task.yml, or the repository"
        raise UserError([f"{source['repo']}: holds no {' or '.join(names)}, {advice}" for names in missing])
    shutil.rmtree(part / ".cache", ignore_errors=True)
    files = digests(part)
    write_text(part / SOURCE, json.dumps({**source, "files": files}, indent=2) + "\n")
    replace_folder(part, target)
    return files


def download(task: str) -> None:
    """Download a task's data set from the Hub."""
    recipe = load_task(task)
    log_to("download")
    source = recipe.spec["data"].get("hub")
    if not source:
        raise UserError(
            f"recipes/{task}/task.yml: data.hub is not set; set repo and revision, or use data/samples/{task}"
        )
    repo, revision = source["repo"], source["revision"]
    token = hub.find_token(recipe.root)
    target = recipe.root / "data" / "raw" / task
    remedy = f"without it data/samples/{task} is used; once mended run uv run tools/download.py {task} again"
    with hub.explained(f"download of {repo}", remedy, token):
        commit = str(hub.connect(token).dataset_info(repo, revision=revision).sha)
        if is_current(target, commit):
            show(f"download: up to date, {relative(target)} is {repo} at {commit[:12]}")
            return
        part = target.with_name(f".{task}-{commit[:12]}.part")
        fetch(repo, commit, part, token)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    files = place(recipe, part, target, {"repo": repo, "revision": revision, "commit": commit, "downloaded": stamp})
    show(f"download: {repo} at {commit[:12]} -> {relative(target)}, {len(files)} files")
    show(f"  next: uv run tools/regenerate_segments.py {task}")


if __name__ == "__main__":
    main(download)

"""The merged model, its card and its scores to the Hugging Face Hub, in one commit.

    uv run tools/upload.py hawks

Needs a token with write access (HF_AUTH_TOKEN in .env or the environment) and a repository (publish.repo in task.yml,
or HF_REPO_ID); without them it says what it would upload. Files that the Hub has already are not sent again, so after a
lost connection the same command goes on where it stopped.
"""

from pathlib import Path

from recipekit import hub
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.runs import Step, relative
from recipekit.task import Task, load_task

WEIGHTS = (".safetensors", ".safetensors.index.json")


def collect(task: Task) -> dict[str, Path]:
    """Name every file to upload by its path in the repository.

    Raises:
        UserError: A step before has not been run.
    """
    model = task.outputs / "merged"
    extra = {"README.md": task.outputs / "README.md", "metrics.json": task.outputs / "evaluation" / "metrics.json"}
    makers = {
        model / "config.json": "merge.py",
        extra["metrics.json"]: "evaluate.py",
        extra["README.md"]: "model_card.py",
    }
    missing = [
        f"{relative(path)}: no such file; run uv run tools/{maker} {task.name}"
        for path, maker in makers.items()
        if not path.is_file()
    ]
    if missing:
        raise UserError(missing)
    files = {path.relative_to(model).as_posix(): path for path in sorted(model.rglob("*")) if path.is_file()}
    return {name: path for name, path in files.items() if not name.startswith(".")} | extra


def megabytes(files: dict[str, Path]) -> str:
    """Write the size of all files for people."""
    return f"{sum(path.stat().st_size for path in files.values()) / 1e6:,.1f} MB"


def push(task: Task, repo: str, files: dict[str, Path], token: str) -> str:
    """Upload the large files one by one, then commit all; returns the commit.

    Raises:
        UserError: The Hub refused or is away, the repository is public although task.yml says private, or what arrived
            is not what was sent.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    private = task.spec.get("publish", {}).get("private", True)
    api = hub.connect(token)
    api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.model_info(repo).private:
        raise UserError(
            f"{repo} is public and task.yml says publish.private: true; nothing was uploaded; "
            "make the repository private in its settings, or set publish.private: false"
        )
    additions = [CommitOperationAdd(name, path) for name, path in files.items()]
    with progress("upload", len(additions)) as advance:
        for addition in additions:
            advance(0, note=addition.path_in_repo)
            api.preupload_lfs_files(repo, [addition], free_memory=False)
            advance()
    # transformers reads model.safetensors before an index, so weights of an older upload must not stay beside new ones.
    old = [n for n in api.list_repo_files(repo) if n.endswith(WEIGHTS) and n not in files]
    deletions = [CommitOperationDelete(name) for name in old]
    commit = api.create_commit(
        repo, [*deletions, *additions], commit_message=f"{task.title}: model, card and scores"
    ).oid
    arrived = hub.remote_files(api, repo, "model", commit)
    differences = {name: hub.difference(path, arrived.get(name)) for name, path in files.items()}
    wrong = [f"{repo}: {name}: {what}; run the same command again" for name, what in differences.items() if what]
    if wrong:
        raise UserError(wrong)
    return commit


def say_how(task: Task, repo: str | None, token: str | None, files: dict[str, Path]) -> None:
    """Say what an upload would send, what it lacks and where to set that."""
    where = f"{relative(task.outputs / 'merged')}, card and scores ({len(files)} files, {megabytes(files)})"
    show(f"upload: nothing sent; it would send {where} to {repo or 'the repository you name'}. To enable it:")
    if not repo:
        show(f"  name the repository: publish.repo in recipes/{task.name}/task.yml, or HF_REPO_ID=owner/name in .env")
    if not token:
        show(f"  give a token: HF_AUTH_TOKEN=hf_... in .env, with write access, from {hub.TOKEN_PAGE}")
    show(f"  run: uv run tools/upload.py {task.name}")


def upload(task: str) -> None:
    """Upload a task's merged model, card and scores to the Hub."""
    recipe = load_task(task)
    log_to("upload")
    files = collect(recipe)
    publish = recipe.spec.get("publish", {})
    repo = publish.get("repo") or hub.setting(recipe.root, "HF_REPO_ID")
    token = hub.find_token(recipe.root)
    if not (repo and token):
        say_how(recipe, repo, token, files)
        return
    url = f"{hub.endpoint()}/{repo}"
    step = Step(recipe.outputs, "upload", {"url": url, "publish": publish, **files}, [])
    if step.done():
        show(f"upload: up to date, {url}")
        return
    remedy = f"the model is safe at {relative(recipe.outputs / 'merged')}; then run uv run tools/upload.py {task} again"
    with hub.explained(f"upload to {repo}", remedy, token):
        commit = push(recipe, repo, files, token)
    step.record(repo=repo, url=url, commit=commit)
    show(f"upload: {len(files)} files, {megabytes(files)} -> {url}, checked on arrival (commit {commit[:12]})")


if __name__ == "__main__":
    main(upload)

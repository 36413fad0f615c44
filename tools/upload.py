"""A task's model, or its data sets, to the Hugging Face Hub, in one commit.

    uv run tools/upload.py hawks                        # the merged model, its card and its scores
    uv run tools/upload.py hawks --dataset              # says what data would go; --push sends them
    uv run tools/upload.py hawks --dataset --segments   # the same of the segments as trained

Needs a token with write access (HF_AUTH_TOKEN in .env or the environment) and a repository (publish.repo in task.yml,
or HF_REPO_ID; of data sets publish.dataset.repo or HF_DATASET_REPO_ID); without them it says what it would upload.
Files that the Hub has already are not sent again, so after a lost connection the same command goes on where it stopped.
Data in which a scan finds persons, addresses, tokens ... are refused; docs/publish.md says more.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from recipekit import content_scan, dataset_card, hub, publish, secret_scan
from recipekit.console import log_to, main, progress, show
from recipekit.dataset_release import Release, Wish, prepare
from recipekit.errors import UserError
from recipekit.kinds import need_extraction
from recipekit.publish import Target
from recipekit.runs import Step, read_record, relative, write_text
from recipekit.task import Task, load_task

WEIGHTS = (".safetensors", ".safetensors.index.json")


def collect(task: Task) -> dict[str, Path]:
    """Name every file of the model by its path in the repository.

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


def say_how(task: Task, repo: str | None, token: str | None, files: dict[str, Path]) -> None:
    """Say what an upload would send, what it lacks and where to set that."""
    where = f"{relative(task.outputs / 'merged')}, card and scores ({len(files)} files, {megabytes(files)})"
    show(f"upload: nothing sent; it would send {where} to {repo or 'the repository you name'}. To enable it:")
    if not repo:
        place = relative(task.dir / "task.yml")
        show(f"  name the repository: publish.repo in {place}, or HF_REPO_ID=owner/name in .env")
    if not token:
        show(f"  give a token: HF_AUTH_TOKEN=hf_... in .env, with write access, from {hub.TOKEN_PAGE}")
    show(f"  run: uv run tools/upload.py {task.name}")


def upload_model(recipe: Task) -> None:
    """Upload a task's merged model, card and scores."""
    files = collect(recipe)
    settings = {key: value for key, value in recipe.spec.get("publish", {}).items() if key != "dataset"}
    repo = hub.model_repo(recipe)
    token = hub.find_token(recipe.root)
    if not (repo and token):
        say_how(recipe, repo, token, files)
        return
    target = Target(repo, "model", settings.get("private", True), "publish.private", token)
    step = Step(recipe.outputs, "upload", {"url": target.url, "publish": settings, **files}, [])
    if step.done():
        show(f"upload: up to date, {target.url}")
        return
    safe = f"the model is safe at {relative(recipe.outputs / 'merged')}"
    remedy = f"{safe}; then run uv run tools/upload.py {recipe.name} again"
    with hub.explained(f"upload to {repo}", remedy, token):
        # transformers reads model.safetensors before an index, so weights of an older upload must not stay.
        pushed = publish.push(
            target, files, f"{recipe.title}: model, card and scores", stale=lambda n: n.endswith(WEIGHTS)
        )
    step.record(repo=repo, url=target.url, commit=pushed.commit)
    size = f"{len(files)} files, {megabytes(files)}"
    show(f"upload: {size} -> {target.url}, checked on arrival (commit {pushed.commit[:12]})")


def files_table(release: Release) -> Table:
    """Show what would go."""
    table = Table("file", "split", Column("rows", justify="right"), Column("size", justify="right"), box=None)
    for file in release.files:
        size = megabytes({file.name: file.path})
        table.add_row(file.name, file.split or "", f"{release.found[file.path].rows:,}", size)
    return table


def findings_table(release: Release) -> Table:
    """Show how much of which kind the scan found in each file."""
    kinds = [kind for kind in content_scan.KINDS if release.counts[kind]]
    titles = [f"{kind} (allowed)" if kind in release.wish.allowed else kind for kind in kinds]
    table = Table("found in", *(Column(title, justify="right") for title in titles), box=None)
    for file in release.files:
        if counts := release.found[file.path].counts:
            table.add_row(file.name, *(f"{counts[kind]:,}" for kind in kinds))
    return table


def ready(recipe: Task, wish: Wish, token: str | None) -> tuple[dict[str, Path], dict[str, str]]:
    """Scan a task's data sets, show what would go and write their card.

    Returns:
        The files, and their sha256, by path in the repository.

    Raises:
        UserError: They cannot be published; every reason at once.
    """
    started = time.monotonic()
    with progress("scan", None) as advance:
        release = prepare(recipe, wish, token, advance)
    seconds = time.monotonic() - started
    show(files_table(release))
    show(f"  {release.rows:,} rows in splits, scanned in {seconds:.1f} s")
    if release.counts:
        show(findings_table(release))
    if unsure := sum((found.unsure for found in release.found.values()), Counter()):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in unsure.items())
        show(f"  not counted, for a weak rule found them: {kinds}; look through them")
    problems = list(release.problems())
    card = recipe.outputs / "dataset" / "README.md"
    try:
        text = dataset_card.write_card(release)
    except UserError as error:
        raise UserError(problems + error.problems) from None
    problems += [f"{secret.name} in task.yml or SOURCE.json: take it out" for secret in secret_scan.find(text, token)]
    if problems:
        raise UserError(problems)
    write_text(card, text)
    files = {"README.md": card, **{file.name: file.path for file in release.files}}
    return files, {"README.md": hub.sha256(card), **release.digests}


def upload_dataset(recipe: Task, wish: Wish, send: bool, replace: bool) -> None:
    """Scan a task's data sets and describe them; where `send` says so, push them.

    Raises:
        UserError: They cannot be published or sent, or somebody changed them on the Hub and `replace` is not said.
    """
    token = hub.find_token(recipe.root)
    lacking = []
    if not wish.repo:
        file = relative(recipe.dir / "task.yml")
        place = f"publish.dataset.repo in {file}, or HF_DATASET_REPO_ID=owner/name in .env"
        lacking.append(f"name the repository: --repo owner/name, {place}")
    if not token:
        lacking.append(f"give a token: HF_AUTH_TOKEN=hf_... in .env, with write access, from {hub.TOKEN_PAGE}")
    if send and lacking:
        raise UserError(lacking)
    files, digests = ready(recipe, wish, token)
    if not (send and wish.repo and token):
        place = f"{wish.repo or 'the repository you name'} ({'private' if wish.private else 'public'}, branch main)"
        show(f"upload: nothing sent; it would go to {place}, described by {relative(files['README.md'])}. To send it:")
        for line in (*lacking, "run the same command with --push"):
            show(f"  {line}")
        return
    target = Target(wish.repo, "dataset", wish.private, "publish.dataset.private", token)
    step = Step(recipe.outputs, "upload_dataset", {}, [])
    record = read_record(step.record_path)
    left = record.get("files", {}) if record.get("url") == target.url else {}
    with hub.explained(f"upload to {wish.repo}", "nothing here is lost; then run the same command again", token):
        title = f"{recipe.title}: data"
        pushed = publish.push(target, files, title, left=None if replace else left, digests=digests)
    step.record(repo=wish.repo, url=target.url, commit=pushed.commit, files=pushed.files)
    sent = f"{len(pushed.sent)} of {len(files)} files sent" if pushed.sent else "up to date"
    show(f"upload: {sent}, {target.url}, checked on arrival (commit {pushed.commit[:12]})")
    if pushed.others:
        show(f"  left there as they are: {', '.join(pushed.others)}; delete them there if they are of an older upload")


def upload(
    task: str,
    dataset: Annotated[bool, typer.Option("--dataset", help="the task's data sets in place of its model")] = False,
    push: Annotated[bool, typer.Option("--push", help="send the data sets; without it only say what would go")] = False,
    segments: Annotated[bool, typer.Option("--segments", help="segments as trained in place of raw rows")] = False,
    source: Annotated[
        Path | None, typer.Option(help="raw folder; default data/raw/TASK, else data/samples/TASK")
    ] = None,
    repo: Annotated[str | None, typer.Option(help="owner/name on the Hub; default publish.dataset.repo")] = None,
    public: Annotated[bool, typer.Option("--public", help="anyone may see it")] = False,
    license: Annotated[str | None, typer.Option(help="of the data, where their source names none: cc-by-4.0")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="a kind of findings that may go out; can be repeated")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="overwrite what somebody changed on the Hub")] = False,
) -> None:
    """Upload a task's merged model, card and scores, or its data sets, to the Hub."""
    recipe = load_task(task)
    log_to("upload", None if dataset else recipe.outputs)
    if dataset:
        need_extraction(
            recipe, "upload --dataset", "publish its raw data where they come from: data.sources in task.yml"
        )
        own = recipe.spec.get("publish", {}).get("dataset", {})
        wish = Wish(
            repo=repo or own.get("repo") or hub.setting(recipe.root, "HF_DATASET_REPO_ID"),
            private=not public and own.get("private", True),
            licence=license or own.get("license"),
            allowed=frozenset([*(allow or []), *own.get("allow", [])]),
            source=source.resolve() if source else recipe.raw_dir,
            segments=segments,
        )
        upload_dataset(recipe, wish, push, replace)
    elif any((push, segments, source, repo, public, license, allow, replace)):
        raise UserError("these options are for data sets; say --dataset, or leave them away")
    else:
        upload_model(recipe)


if __name__ == "__main__":
    main(upload)

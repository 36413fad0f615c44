"""Tell the images of raw data in words: CSV files with a column of captions, one caption for each distinct image.

    uv run tools/caption.py ogiri                    # data/raw/ogiri, or its sample, -> data/captioned/ogiri
    uv run tools/caption.py ogiri --batch-size 8     # where the GPU has little memory
    uv run tools/caption.py ogiri --near 4           # images that look alike share a caption
    uv run tools/caption.py ogiri --model ../vlm     # another vision-language model

Captions that lie beside the data in captions.csv are taken as they are; a model is loaded only where some are missing.
Stopped anywhere, the same command goes on after the last finished batch. Formats and odd images: docs/captions.md.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from recipekit import captions, images, runs
from recipekit.captions import BY_HAND, FILE, Caption, Rows
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.images import Look
from recipekit.known_captions import Known, Maker, partial
from recipekit.parallel import in_order
from recipekit.process import hold
from recipekit.runs import Step, relative
from recipekit.task import load_task

CODE = (
    "captioner",
    "captions",
    "gold_rows",
    "images",
    "known_captions",
    "raw",
    "rawfiles",
)  # modules that the result depends on
ORIGINS = ("shipped", "made before", "shared", "new")  # where captions come from
DEVICES = r"auto|cpu|cuda(:\d+)?"


@dataclass(frozen=True)
class Job:
    """An image to look at.

    Attributes:
        path: The image.
        decode: Whether all of it is read.
        hashed: Whether its perceptual hash is wanted.
    """

    path: Path
    decode: bool
    hashed: bool


@dataclass(frozen=True)
class Options:
    """From where to where, and how.

    Attributes:
        source: Folder of the raw files.
        target: Folder of the new ones.
        near: As `examine` has it.
        device: As `Captioner` has it.
        batch_size: Images that a model gets at a time.
    """

    source: Path
    target: Path
    near: int | None
    device: str
    batch_size: int


def examine(rows: Rows, known: Known, near: int | None) -> tuple[dict[str, Look], dict[str, str]]:
    """Look at every distinct image, wholly where it needs a caption.

    Args:
        rows: The rows.
        known: Captions that are there.
        near: Bits of their perceptual hashes in which images that look alike may differ; None: none do.

    Returns:
        Digest -> look, and digest -> digest of the first image that looks alike, often itself.

    Raises:
        UserError: All images that no model could get.
    """
    distinct, hashed = rows.distinct, near is not None
    order = sorted(distinct, key=lambda digest: digest not in known.shipped)  # shipped captions are shared with others
    jobs = [Job(distinct[digest], known.of(digest) is None, hashed) for digest in order]
    looked = in_order(_look, jobs) if hashed or any(job.decode for job in jobs) else map(_look(), jobs)
    looks, hashes, problems = {}, [], []
    with progress("images", len(jobs)) as advance:
        for digest, (look, number) in zip(order, looked, strict=True):
            advance()
            hashes.append(number)
            if isinstance(look, str):
                problems.append(f"{rows.places[distinct[digest]]}: {look}")
            else:
                looks[digest] = look
    if problems:
        raise UserError(problems)
    if near is None:
        return looks, {digest: digest for digest in order}
    first = images.first_alike(np.array(hashes, dtype=np.uint64), near)
    return looks, {digest: order[place] for digest, place in zip(order, first.tolist(), strict=True)}


def _look() -> Callable[[Job], tuple[Look | str, int]]:
    def looked(job: Job) -> tuple[Look | str, int]:
        try:
            look = images.look(job.path, job.decode and not job.hashed)  # the hash decodes all of it as well
            return look, images.perceptual_hash(job.path) if job.hashed else 0
        except UserError as error:
            return str(error), 0

    return looked


def describe(maker: Maker, wanted: Mapping[str, Path], options: Options, made: dict[str, Caption]) -> None:
    """Make captions; those of each finished batch are added to the partial file.

    Args:
        maker: The model.
        wanted: Digest -> image, in the order that they are done.
        options: Device, batch size and folder.
        made: Digest -> caption; new ones are added. An image that the model says nothing about gets none.

    Raises:
        UserError: The model cannot be loaded, or has no room for a batch.
    """
    from recipekit.captioner import Captioner  # loads torch, which takes seconds

    captioner = Captioner(maker.model, maker.revision, maker.prompt, options.device, maker.max_new_tokens)
    if captioner.on_cpu:
        show(f"caption: no GPU: {len(wanted):,} captions on the CPU, slow with a large model", style="yellow")
    waiting, name = iter(wanted.items()), maker.name
    path = partial(options.target)
    with progress("caption", len(wanted)) as advance, path.open("ab", buffering=0) as stream:
        while batch := dict(islice(waiting, options.batch_size)):
            texts = captioner.describe([images.load(image) for image in batch.values()])
            new = {digest: Caption(text, name) for digest, text in zip(batch, texts, strict=True) if text}
            stream.write(b"".join(captions.lines_of(new)))
            made |= new
            advance(len(batch))


def make(maker: Maker, rows: Rows, options: Options) -> dict[str, int]:
    """Make the captions that are missing and write every file; returns how many captions come from where.

    Raises:
        UserError: All images that no model could get, or that the model said nothing about.
    """
    known = Known.read(options.source, options.target, maker.name)
    looks, first = examine(rows, known, options.near)
    origins = {digest: known.origin(digest) for digest in looks}
    shared = [digest for digest in looks if origins[digest] == "new" and first[digest] != digest]
    origins |= dict.fromkeys(shared, "shared")
    counts = Counter(origins.values())
    shown = ", ".join(f"{name} {counts[name]:,}" for name in ORIGINS)
    show(f"caption: {len(looks):,} distinct images; captions: {shown}")
    distinct = rows.distinct
    # Patches are in proportion to pixels: little is padded, and what does not fit into memory shows at once.
    missing = sorted((one for one in looks if origins[one] == "new"), key=lambda one: -looks[one].pixels)
    if missing:
        animated, scaled = (sum(getattr(looks[one], what) for one in missing) for what in ("animated", "scaled"))
        if animated or scaled:
            show(f"caption: {animated:,} animated, of which the first frame is taken; {scaled:,} scaled down")
        describe(maker, {digest: distinct[digest] for digest in missing}, options, known.own)
    if silent := [digest for digest in missing if digest not in known.own]:
        raise UserError(_silence(silent, rows, options.source / FILE))
    told = {digest: one.text for digest in looks if (one := known.of(digest) or known.of(first[digest]))}
    for name, content in captions.tables(rows, told, first).items():
        runs.write_bytes(options.target / name, content)
    captions.write(options.target / FILE, known.own)
    partial(options.target).unlink()
    return dict(counts)


def _silence(digests: list[str], rows: Rows, path: Path) -> list[str]:
    """Name the images that the model said nothing about, and say what to do."""
    distinct = rows.distinct
    lines = [f'{rows.places[distinct[one]]}: the model said nothing; add {one},"...",{BY_HAND}' for one in digests]
    remedy = f"add these lines to {relative(path)} ({','.join(captions.KEPT)}) with captions of your own"
    return [*lines, f"{remedy}, or take another --model; the other captions are kept"]


def inputs(maker: Maker, rows: Rows, options: Options) -> dict[str, Any]:
    """All that the result depends on."""
    shipped = options.source / FILE
    code = [Path(__file__), *(Path(captions.__file__).with_name(f"{name}.py") for name in CODE)]
    return {
        **{path.name: path for path in code},
        "rows": {name: [row.cells for row in own] for name, own in rows.files.items()},
        "images": {str(path): digest for path, digest in rows.digests.items()},
        "shipped": shipped if shipped.exists() else None,
        "maker": maker.name,
        "near": options.near,
    }


def caption(
    task: Annotated[str, typer.Argument(help="A recipe with data.captions in its task.yml.")],
    source: Annotated[Path | None, typer.Option(help="[default: data/raw/TASK, else data/samples/TASK]")] = None,
    output: Annotated[Path | None, typer.Option(help="[default: data/captioned/TASK]")] = None,
    model: Annotated[str | None, typer.Option(help="Folder, or name on the Hub.  [default: task.yml's]")] = None,
    revision: Annotated[str | None, typer.Option(help="Its commit or branch on the Hub.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a caption.")] = 128,
    near: Annotated[
        int | None, typer.Option(min=0, max=images.BITS, help="Bits of 64 in which images that share a caption differ.")
    ] = None,
) -> None:
    """Write a task's raw CSV files with a caption for every image."""
    recipe = load_task(task)
    log_to("caption", recipe.outputs)
    folder, target = (source or recipe.raw_dir).resolve(), (output or recipe.captioned_dir).resolve()
    if folder == target:
        raise UserError(f"{relative(target)}: would be overwritten; name another folder with --output")
    if not re.fullmatch(DEVICES, device):
        raise UserError(f"--device {device}: expected auto, cpu, cuda or cuda:1")
    maker = Maker.of(recipe, model, revision, max_new_tokens)
    options = Options(folder, target, near, device, batch_size)
    rows = captions.read_rows(recipe, folder)
    step = Step(recipe.outputs, "caption", inputs(maker, rows, options), [target / one for one in (*rows.files, FILE)])
    if step.done():
        show("caption: up to date")
        return
    counts = ", ".join(f"{Path(name).stem} {count:,}" for name, count in rows.counts.items())
    show(f"caption: {relative(folder)}: rows: {counts}")
    with hold(target / ".caption.lock", f"caption of {recipe.name}"):
        origins = make(maker, rows, options)
        step.record(rows=rows.counts, captions=origins, source=relative(folder))
    show(f"caption: {relative(target)}: rows: {counts}, as many as before")


if __name__ == "__main__":
    main(caption)

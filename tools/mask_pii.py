"""Replace personal information in Japanese text by invented stand-ins, and give it back.

    uv run tools/mask_pii.py data/raw/hawks/*.jsonl --task hawks           # what would be replaced; writes nothing
    uv run tools/mask_pii.py data/raw/hawks/*.jsonl --task hawks --output masked --key ../hawks.pii-key.json
    uv run tools/mask_pii.py masked/*.jsonl --restore --output real --key ../hawks.pii-key.json
    uv run tools/mask_pii.py --recall                                      # how much of a marked sample is found

Names, addresses, phone numbers, mail addresses, card numbers and my numbers, in .jsonl, .csv and .txt files. One person
has one stand-in in all files and all calls with a key. What is found and what is not: docs/mask_pii.md.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recipekit import pii_mask, pii_recall, pii_scan
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.kinds import need_extraction
from recipekit.pii_forms import Known
from recipekit.pii_key import hold_key, load_key
from recipekit.pii_scan import Found
from recipekit.runs import relative
from recipekit.task import load_task


def mask_pii(
    files: Annotated[list[Path] | None, typer.Argument(help=".jsonl, .csv and .txt files")] = None,
    task: Annotated[str | None, typer.Option(help="Whose labels tell names and addresses")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the new files; none: show what would be done")] = None,
    key: Annotated[Path | None, typer.Option(help="Key file, *.pii-key.json; made where it does not exist")] = None,
    restore: Annotated[bool, typer.Option("--restore", help="Put the real texts back")] = False,
    show_values: Annotated[bool, typer.Option("--show", help="Show on the screen what was found")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Without GiNZA: 100 times as fast, finds fewer names")] = False,
    recall: Annotated[bool, typer.Option("--recall", help="Measure on the marked sample")] = False,
) -> None:
    """Replace personal information in Japanese text by invented stand-ins."""
    log_to("mask_pii")
    if recall:
        return _recall(not fast)
    paths = files or []
    _check(paths, output, key, restore)
    known = None
    if task:
        recipe = load_task(task)
        need_extraction(recipe, f"--task {task}", "leave --task out: no label of it tells a name")
        known = Known.of(recipe)
    with progress("rows", None) as advance:
        if output is None or key is None:
            return _dry(pii_scan.scan(paths, known, not fast, None, advance), show_values)
        if restore:
            changed = pii_mask.restore(paths, output, load_key(key, fresh=False), advance)
            return show(f"{changed:,} texts restored into {relative(output)}")
        with hold_key(key) as held:
            found = pii_mask.mask(paths, output, held, key, known, not fast, advance)
    show(_table(found))
    return show(f"{found.rows:,} rows are in {relative(output)}; {relative(key)} gives them back, keep it to yourself")


def _check(paths: list[Path], output: Path | None, key: Path | None, restore: bool) -> None:
    problems = [] if paths else ["no files: name .jsonl, .csv or .txt files to mask"]
    names = Counter(path.name for path in paths)
    twice = [name for name, times in names.items() if times > 1]
    problems += [f"{name}: named twice; output files have the same names, so mask them in two calls" for name in twice]
    if (output is None) != (key is None) or restore and output is None:
        problems.append("--output and --key go together: a folder for the new files, and a file *.pii-key.json")
    for path in paths:
        if output and (output / path.name).resolve() == path.resolve():
            problems.append(f"{relative(path)}: would be overwritten; name another folder with --output")
    if key and output and key.resolve().is_relative_to(output.resolve()):
        problems.append(f"{relative(key)}: lies in the output folder, which is passed on; keep the key elsewhere")
    if problems:
        raise UserError(problems)


def _table(found: Found) -> Table:
    table = Table("kind", "places", "different", box=None)
    for kind, places, different in pii_scan.kinds_found(found):
        table.add_row(kind, f"{places:,}", f"{different:,}")
    return table


def _dry(found: Found, show_values: bool) -> None:
    show(_table(found))
    for kind, places in found.places.items():
        for place, text in places:
            show(f"  {place}: {kind} {text if show_values else text[0] + '＊' * (len(text) - 1)}", log=False)
    show(f"{found.rows:,} rows read, nothing written; --output DIR --key FILE.pii-key.json writes masked copies")


def _recall(ginza: bool) -> None:
    table = Table("sample", "kind", "marked", "recall", "precision", box=None)
    for name, scores in pii_recall.of_samples(ginza).items():
        for kind, score in scores.items():
            table.add_row(name, kind, str(score.marked), f"{score.recall:.3f}", f"{score.precision:.3f}")
    show(table)


if __name__ == "__main__":
    main(mask_pii)

"""The pre-flight: the machine, every YAML, the chain of phases and the data, before any time is spent on training.

    uv run tools/check.py hawks --profile gpu

All failures come at once, and the exit code is then 1. What passed and has not changed since is not looked at again.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from recipekit import axolotl_schema, chat_rows, hub, journal, preflight, regressioncheck, rowcheck, traps
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.joining import check_test_set
from recipekit.preflight import Check, Verdicts
from recipekit.regressioncheck import read_heads
from recipekit.rowcheck import FileReport
from recipekit.runs import code_digest, digest
from recipekit.segmentcheck import REDO
from recipekit.task import Task, load_task
from recipekit.traps import Config

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
KINDS = ("input_output", "chat_template", "chat_template.default")  # of data sets whose rows are read
SHOWN = 160  # characters of a sample's part


@dataclass
class DataFile:
    """A data file that phases train on or are evaluated on.

    Attributes:
        place: Where a YAML names it.
        kind: The data set's `type`.
        sequence_len: The least of the phases that use it.
        config: The first of these phases.
    """

    path: Path
    place: str
    kind: str
    sequence_len: int
    config: Config


def recipe_checks(task: Task, written: list[Config], resolved: list[Config], verdicts: Verdicts) -> list[Check]:
    """Judge every config by Axolotl's schema and by the traps it leaves open, and each phase by the one before."""
    configs = written + resolved
    titles = [f"{c.phase}.yml" for c in written] + [f"{c.phase} on {c.profile}" for c in resolved]
    problems = zip(schema_problems(configs, verdicts), configs, strict=True)
    checks = [
        Check(title, "valid for Axolotl, no traps", found + traps.phase_problems(config, task.root))
        for title, (found, config) in zip(titles, problems, strict=True)
    ]
    whole = [phases for phases in (written, resolved) if len(phases) == len(task.phases)]
    chained = [problem for phases in whole for problem in traps.chain_problems(phases, task.root)]
    if task.estimates:
        chained += [problem for phases in whole for problem in traps.head_problems(phases, task.targets)]
    return [*checks, Check("chain", " -> ".join(task.phases), chained)]


def schema_problems(configs: list[Config], verdicts: Verdicts) -> list[list[str]]:
    """Judge configs by Axolotl's schema, but for those that passed before."""
    judges = [digest(Path(axolotl_schema.__file__)), version("axolotl"), version("transformers"), version("torch")]
    # The name of the prepared rows' folder changes with the data, and no rule is about it.
    values = [{key: value for key, value in c.values.items() if key != "dataset_prepared_path"} for c in configs]
    jobs = [(value, config.profile) for value, config in zip(values, configs, strict=True)]
    keys = ["schema " + digest([*job, *judges]) for job in jobs]
    new = {key: job for key, job in zip(keys, jobs, strict=True) if not verdicts.has(key)}
    findings = dict(zip(new, axolotl_schema.validate(list(new.values())), strict=True)) if new else {}
    for key, found in findings.items():
        if not found:
            verdicts.keep(key, [])
    return [
        [config.place(finding) for finding in findings.get(key, [])] for config, key in zip(configs, keys, strict=True)
    ]


def data_files(task: Task, configs: list[Config]) -> tuple[list[DataFile], list[str]]:
    """Gather the local data files of all phases; the second list names those that are missing."""
    files: dict[Path, DataFile] = {}
    problems = []
    for config in configs:
        length = int(config.values.get("sequence_len") or 512)
        for place, name, kind in _named_files(config):
            path = task.root / name
            if not path.is_file():
                problems.append(f"{place}: {name} does not exist; {REDO.format(task.name)}")
                continue
            file = files.setdefault(path, DataFile(path, place, kind, length, config))
            file.sequence_len = min(file.sequence_len, length)
    return list(files.values()), problems


def _named_files(config: Config) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and type of every data file that a config names; names on the Hub are left out."""
    for key in ("datasets", "test_datasets"):
        for i, dataset in enumerate(config.values.get(key) or []):
            given = dataset.get("data_files")
            names = [given] if isinstance(given, str) else given or [dataset.get("path")]
            for name in filter(None, names):
                if Path(name).suffix in (".jsonl", ".json"):
                    yield config.at((key, i, "data_files" if given else "path")), name, str(dataset.get("type"))


def data_checks(task: Task, configs: list[Config], verdicts: Verdicts, bases_ok: bool) -> tuple[list[Check], list[Any]]:
    """Check every data file; the second value is a sample row of the last phase's data.

    Where a base is missing, so is its tokenizer, and tokens are left unchecked.
    """
    files, missing = data_files(task, configs)
    checks = [Check("data", "", missing)] if missing else []
    sample: list[Any] = []
    for file in files:
        key = "data " + digest([digest(file.path), file.kind, file.sequence_len, *_judges(task, file.config)])
        report = verdicts.get(key)
        if report is None:
            try:
                report = asdict(_report(task, file, bases_ok))
            except UserError as error:
                report = asdict(FileReport(problems=error.problems))
            if bases_ok and not report["problems"]:
                verdicts.keep(key, report)
        tokens = f", longest {report['longest']:,} of {file.sequence_len:,} tokens" if report["longest"] else ""
        cut = report["cut"] if "regression" in file.config.values else 0  # what may not be cut is a problem
        if cut:
            tokens += f"; training reads the beginning of {cut:,} rows ({cut / report['rows']:.1%}) that are longer"
        checks.append(Check(file.path.name, f"{report['rows']:,} rows{tokens}", report["problems"], warning=bool(cut)))
        if report["sample"] and (not sample or file.config.phase == configs[-1].phase):
            sample = report["sample"]
    return checks, sample


def _judges(task: Task, config: Config) -> list[Any]:
    """What a finding about data depends on, but for the data."""
    folder = task.root / rowcheck.tokenizer_name(config.values)
    own = [p for p in sorted(folder.glob("*")) if p.suffix in (".json", ".model", ".txt", ".jinja")]
    tokenizer: Any = [digest(path) for path in own] or [str(folder), config.values.get("revision_of_model")]
    return [
        tokenizer,
        code_digest(),
        task.prompt_sources(),
        config.values.get("regression"),
        config.drops_rows,
        task.output_schema,
        version("transformers"),
    ]


def _report(task: Task, file: DataFile, bases_ok: bool) -> FileReport:
    heads = read_heads(file.config)
    if file.kind not in KINDS and not heads:
        return rowcheck.check_jsonl(file.path)
    name = rowcheck.tokenizer_name(file.config.values)
    made_later = (task.root / name).is_relative_to(task.outputs) and not (task.root / name).exists()
    if not bases_ok or made_later:
        return rowcheck.check_file(task, file.path, None, file.sequence_len, heads)
    revision = file.config.values.get("revision_of_model")
    tokenizer = rowcheck.load_tokenizer(task.root, name, revision, hub.find_token(task.root))
    limit = sys.maxsize if file.config.drops_rows else file.sequence_len
    report = rowcheck.check_file(task, file.path, tokenizer, limit, heads)
    if heads:
        return report
    report.problems = [*rowcheck.tokenizer_problems(task, tokenizer, name), *report.problems]
    return report


def base_checks(task: Task, configs: list[Config]) -> list[Check]:
    """Check that every phase's base model is there, or can be had."""
    bases = {(c.values["base_model"], c.values.get("revision_of_model")) for c in configs if c.values.get("base_model")}
    return [preflight.base_model(task, name, revision) for name, revision in sorted(bases, key=str)]


def test_set(task: Task) -> Check:
    """Check gold file and articles, which are read only after hours of training."""
    try:
        if task.is_chat:
            return Check("test set", f"{len(chat_rows.test_scenes(task)):,} scenes")
        if task.estimates:
            rows, groups = regressioncheck.check_test_set(task)
            return Check("test set", f"{rows:,} texts" + (f" of {groups:,} {task.group}s" if task.group else ""))
        gold = check_test_set(task)
    except UserError as error:
        return Check("test set", "", error.problems)
    padded = f"; {gold.padded} cells have fewer values than there are entities, see {gold.first_padded}"
    return Check("test set", f"{gold.rows:,} articles{padded if gold.padded else ''}", warning=bool(gold.padded))


def run(task: Task, profile: str, verdicts: Verdicts) -> tuple[list[Check], list[Any]]:
    """Make every check; Axolotl's schema is loaded while the machine and the data are looked at."""
    written, resolved, unreadable = traps.load_configs(task, profile)
    with ThreadPoolExecutor(1) as pool:
        recipe = pool.submit(recipe_checks, task, written, resolved, verdicts)
        checks = preflight.environment(task, profile, [config.values for config in resolved])
        bases = base_checks(task, resolved)
        data, sample = data_checks(task, resolved, verdicts, all(base.status != "fail" for base in bases))
        try:
            checks += recipe.result()
        except RuntimeError as error:
            checks.append(Check("schema", "", [f"{error}; run: uv sync"]))
        except UserError as error:
            checks.append(Check("schema", "", error.problems))
    if unreadable:
        checks.append(Check("recipe", "", unreadable))
    return [*checks, *bases, *data, test_set(task)], sample


def sample_text(parts: list[Any], eos: str | None) -> Text:
    """Colour a row by what is trained: dim is read, green is learned; eos, where there is one, is made visible."""
    text = Text("a row of the last phase's data: ").append("read", "dim").append(", ").append("learned", "green")
    text.append("\n")
    for part, trained in parts:
        cut = part if len(part) <= SHOWN else f"{part[: SHOWN // 2]} ... {part[-SHOWN // 2 :]}"
        text.append(cut.replace(eos, f"⏎{eos}") if eos else cut, "green" if trained else "dim")
    return text


def table(checks: list[Check]) -> Table:
    """One line a check."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        detail = f"{len(check.problems)} problem(s), see below" if check.problems else check.detail
        grid.add_row(Text(check.status, STYLES[check.status]), Text(check.name), Text(detail))
    return grid


def distinct(problems: Iterable[str]) -> list[str]:
    """Drop what is said twice, also in other words: of one key of a YAML the first problem stands for all."""
    first: dict[tuple[str, ...], str] = {}
    for problem in problems:
        first.setdefault(tuple(problem.split(": ")[:2]), problem)
    return list(first.values())


def check(
    task: str,
    profile: Annotated[Literal["cpu", "gpu"], typer.Option(help="the machine that training is to run on")],
) -> None:
    """Check machine, YAMLs, phases and data of a task; exit 1 where anything has to be put right."""
    started = time.time()
    recipe = load_task(task)
    log_to("check", recipe.outputs)
    journal.begin(recipe.outputs, "check", {}, ["it always looks, at what has changed"], makes=False)
    verdicts = Verdicts(recipe.outputs / "state" / "check.json")
    checks, sample = run(recipe, profile, verdicts)
    show(table(checks))
    if sample:
        show(sample_text(sample, recipe.spec.get("prompt", {}).get("eos")))
    problems = distinct(problem for check in checks for problem in check.problems)
    verdicts.write(step="check", profile=profile, seconds=round(time.time() - started, 1))
    for problem in problems:
        show(f"error: {problem}", style="bold red")
    if problems:
        show(f"check: {len(problems)} problem(s); nothing was started", style="bold red")
        raise typer.Exit(1)


if __name__ == "__main__":
    main(check)

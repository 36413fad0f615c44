"""The model card, outputs/<task>/README.md: what a model does, its scores and limits, its training and its use.

    uv run tools/model_card.py hawks

Everything comes from files of the run: metrics.json, the steps' records, the adapter's configuration and task.yml.
"""

import json
import re
from pathlib import Path
from typing import Any

from recipekit import hub, model_cards
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.pipeline import training
from recipekit.regressor import FILE
from recipekit.resolve import merged_phase
from recipekit.runs import Step, read_record, relative, write_text
from recipekit.task import Task, load_task

BOOKKEEPING = {"step", "finished", "seconds", "inputs", "products"}


def read_json(path: Path, maker: str) -> dict[str, Any]:
    """Read a JSON file of a step before.

    Raises:
        UserError: It is missing or torn.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else f"not valid JSON: {error}"
        raise UserError(f"{relative(path)}: {what}; make it with uv run tools/{maker}") from None


def records(task: Task) -> list[dict[str, Any]]:
    """Read the records of the steps so far, with their plain facts as text."""
    names = ["regenerate", *training(task), "merge", "predict", "baselines", "evaluate"]
    found = [read_record(task.outputs / "state" / f"{name}.json") for name in names]
    return [{**record, "facts": facts(record)} for record in found if record]


def facts(record: dict[str, Any]) -> str:
    """Write a record's numbers and words on one line; paths and digests are of no use to a reader."""
    plain = {key: value for key, value in record.items() if key not in BOOKKEEPING}
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in plain.items()}
    return ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key, value in shown.items()
        if isinstance(value, str | int)
        and not isinstance(value, bool)
        and not re.search(r"[/\\|]|[0-9a-f]{32}", str(value))
    )


def on_hub(task: Task, base: str) -> bool:
    """Tell whether a base model is a repository on the Hub, not a folder."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", base)) and not (task.root / base).is_dir()


def name_base(task: Task, base: str) -> str:
    """Name the base model for readers; a folder outside the repository without the machine it stands on."""
    if on_hub(task, base):
        return f"[{base}](https://huggingface.co/{base})"
    folder = task.root / base
    return f"`{folder.relative_to(task.root) if folder.is_relative_to(task.root) else folder.name}`"


def front_matter(task: Task, metadata: dict[str, Any], base: str | None, license: str) -> str:
    """Write the card's metadata as YAML."""
    from huggingface_hub import ModelCardData

    return ModelCardData(
        language="ja", license=license, library_name="transformers", base_model=base, model_name=task.name, **metadata
    ).to_yaml()


def trained_weights(task: Task) -> tuple[dict[str, Any], list[Path]]:
    """Read the last phase's adapter config, and name the files that were read.

    Where its base is the merged model of an earlier phase, the base that the first phase began with stands in it
    instead. Where every weight was trained there is no adapter, and the phase's record says the base.

    Raises:
        UserError: A phase has not been trained.
    """
    record = task.outputs / "state" / f"{task.phases[-1]}.json"
    first, last = (task.outputs / phase / "adapter_config.json" for phase in (task.phases[0], task.phases[-1]))
    if not last.exists() and (base := read_record(record).get("base")):
        return {"base_model_name_or_path": base}, [record]
    adapter = read_json(last, f"train.py {task.name} {last.parent.name}")
    if merged_phase(task, adapter["base_model_name_or_path"]) is None:
        return adapter, [last]
    began = read_json(first, f"train.py {task.name} {first.parent.name}")
    return adapter | {"base_model_name_or_path": began["base_model_name_or_path"]}, [first, last]


def write_card(task: Task, metrics: dict[str, Any], adapter: dict[str, Any], repo: str) -> str:
    """Render the card."""
    base = str(adapter["base_model_name_or_path"])
    license = task.spec.get("publish", {}).get("license", "other")
    own = model_cards.KINDS[task.kind](task, metrics, repo)
    return (
        model_cards.environment()
        .get_template(own.template)
        .render(
            front_matter=front_matter(task, own.metadata, base if on_hub(task, base) else None, license).strip(),
            title=task.spec["title"],
            summary=task.spec["summary"],
            base=name_base(task, base),
            small_base=(task.root / base).is_relative_to(task.root / "data" / "samples"),
            metrics=metrics,
            adapter=adapter,
            records=records(task),
            license=license,
            **own.context,
        )
    )


def card(task: str) -> None:
    """Write the model card of a task's merged model."""
    recipe = load_task(task)
    log_to("card", recipe.outputs)
    metrics_path = recipe.outputs / "evaluation" / "metrics.json"
    metrics = read_json(metrics_path, f"evaluate.py {task}")
    adapter, configs = trained_weights(recipe)
    repo = hub.model_repo(recipe) or f"owner/{recipe.slug}"
    heads = recipe.outputs / "merged" / FILE
    sources = [Path(__file__), *model_cards.SOURCES, metrics_path, *([heads] if heads.exists() else [])]
    inputs = {
        "task": recipe.spec,
        "repo": repo,
        "records": records(recipe),
        **(recipe.prompt_sources() if "prompt" in recipe.spec else {}),
        **{path.name: path for path in sources},
        **{relative(path): path for path in configs},
    }
    step = Step(recipe.outputs, "card", inputs, [recipe.outputs / "README.md"])
    if step.done():
        show("card: up to date")
        return
    write_text(recipe.outputs / "README.md", write_card(recipe, metrics, adapter, repo))
    step.record()
    show(f"card: written to {relative(recipe.outputs / 'README.md')}")


if __name__ == "__main__":
    main(card)

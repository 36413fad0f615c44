"""The model card, outputs/<task>/README.md: what a model does, its scores and limits, its training and its use.

    uv run tools/model_card.py hawks

Everything comes from files of the run: metrics.json, the steps' records, the adapter's configuration and task.yml.
"""

import json
import re
from pathlib import Path
from pprint import pformat
from typing import Any

import jinja2

from recipekit import ROOT, hub, tables
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.runs import Step, read_record, relative, write_text
from recipekit.task import Task, load_task

TEMPLATES = ROOT / "tools" / "recipekit"
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
    names = ["regenerate", *task.phases, "merge", "predict", "evaluate"]
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


def front_matter(task: Task, metrics: dict[str, Any], base: str | None, license: str) -> str:
    """Write the card's metadata as YAML, with the scores as the Hub shows them."""
    from huggingface_hub import EvalResult, ModelCardData

    name = f"{task.name} {'bundled invented sample' if metrics['data']['bundled_sample'] else 'test set'}"
    scores = {
        "f1": ("micro F1", metrics["micro"]["f1"]),
        "precision": ("micro precision", metrics["micro"]["precision"]),
        "recall": ("micro recall", metrics["micro"]["recall"]),
    }
    results = [
        EvalResult(
            task_type="text-generation", dataset_type=task.name, dataset_name=name,
            metric_type=kind, metric_name=title, metric_value=round(value, 4),
        )
        for kind, (title, value) in scores.items()
        if value is not None
    ]  # fmt: skip
    return ModelCardData(
        language="ja", license=license, library_name="transformers", pipeline_tag="text-generation",
        tags=["information-extraction", "japanese", "lora", "axolotl"], base_model=base,
        model_name=task.name, eval_results=results or None,
    ).to_yaml()  # fmt: skip


def write_card(task: Task, metrics: dict[str, Any], adapter: dict[str, Any], repo: str) -> str:
    """Render the card."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "percent": tables.percent,
        "f1_interval": tables.f1_interval,
        "pprint": lambda value: pformat(value, width=100),
    }
    base = str(adapter["base_model_name_or_path"])
    license = task.spec.get("publish", {}).get("license", "other")
    snippet = environment.get_template("snippet.py.j2").render(
        repo=repo,
        segments=task.prompt("{body}"),
        strip=task.spec["prompt"].get("strip", []),
        max_new_tokens=task.spec.get("predict", {}).get("max_new_tokens", 512),
    )
    return environment.get_template("card.md.j2").render(
        front_matter=front_matter(task, metrics, base if on_hub(task, base) else None, license).strip(),
        title=task.spec["title"],
        summary=task.spec["summary"],
        base=name_base(task, base),
        small_base=(task.root / base).is_relative_to(task.root / "data" / "samples"),
        metrics=metrics,
        rows=tables.named_scores(metrics),
        adapter=adapter,
        records=records(task),
        snippet=snippet.strip(),
        keys=task.output_schema.get("required", []),
        license=license,
    )


def card(task: str) -> None:
    """Write the model card of a task's merged model."""
    recipe = load_task(task)
    log_to("card")
    metrics_path = recipe.outputs / "evaluation" / "metrics.json"
    adapter_path = recipe.outputs / recipe.phases[-1] / "adapter_config.json"
    metrics = read_json(metrics_path, f"evaluate.py {task}")
    adapter = read_json(adapter_path, f"train.py {task} {recipe.phases[-1]}")
    repo = recipe.spec.get("publish", {}).get("repo") or hub.setting(recipe.root, "HF_REPO_ID") or f"owner/{task}"
    sources = [Path(__file__), TEMPLATES / "card.md.j2", TEMPLATES / "snippet.py.j2", metrics_path, adapter_path]
    inputs = {
        "task": recipe.spec,
        "repo": repo,
        "records": records(recipe),
        **recipe.prompt_sources(),
        **{path.name: path for path in sources},
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

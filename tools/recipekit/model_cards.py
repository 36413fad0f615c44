"""What the model card says of tasks of each kind: its template, its metadata, and what the template fills in."""

from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2

from recipekit import ROOT, chat_tables, tables
from recipekit.conversations import Conversation, Conversations
from recipekit.regressor import COVERAGE, FILE, read_facts
from recipekit.task import Task

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TEMPLATES = ROOT / "tools" / "recipekit"
SOURCES = [
    Path(__file__),
    *(
        TEMPLATES / f"{kind}{name}"
        for kind in ("", "regression_", "ranking_", "chat_")
        for name in ("card.md.j2", "snippet.py.j2")
    ),
]
SIMPLE = {
    "length": ("回答の長さだけで決める方法", "going by the response's length"),
    "ridge": ("文字n-gramの線形回帰", "the linear regression on character n-grams"),
}


class Card(NamedTuple):
    """What differs from kind to kind.

    Attributes:
        template: File beside this module.
        metadata: Of the front matter: pipeline_tag, tags, datasets and eval_results.
        context: What the template fills in, beside what all templates do.
    """

    template: str
    metadata: dict[str, Any]
    context: dict[str, Any]


def environment() -> jinja2.Environment:
    """Return what reads the templates."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    found.filters |= {
        "percent": tables.percent,
        "f1_interval": tables.f1_interval,
        "number": tables.number,
        "mean": chat_tables.mean,
        "pprint": lambda value: pformat(value, width=100),
    }
    return found


def extraction(task: Task, metrics: Mapping[str, Any], repo: str) -> Card:
    """Describe a model that extracts values from texts."""
    scores = {key: (f"micro {title}", metrics["micro"][key]) for key, title in
              (("f1", "F1"), ("precision", "precision"), ("recall", "recall"))}  # fmt: skip
    snippet = _snippet("snippet.py.j2", task, repo)
    return Card(
        "card.md.j2",
        {
            "pipeline_tag": "text-generation",
            "tags": ["information-extraction", "japanese", "lora", "axolotl"],
            "eval_results": _results(task, metrics, "text-generation", scores),
        },
        {
            "rows": tables.named_scores(metrics),
            "snippet": snippet,
            "keys": task.output_schema.get("required", []),
        },
    )


def regression(task: Task, metrics: Mapping[str, Any], repo: str) -> Card:
    """Describe a model that estimates numbers, by heads or by writing digits."""
    model = task.outputs / "merged"
    has_heads = (model / FILE).exists()
    level = tables.level(metrics)
    overall = metrics[level]["overall"]
    scores = {key: (f"{title}, mean over targets", overall[key]) for key, title in
              (("mae", "MAE"), ("r2", "R2"), ("pearson", "Pearson"))}  # fmt: skip
    tag = "text-classification" if has_heads else "text-generation"
    sources = {} if metrics["data"]["bundled_sample"] else task.spec["data"].get("sources", {})
    return Card(
        "regression_card.md.j2",
        {
            "pipeline_tag": tag,
            "tags": ["regression", "japanese", "lora", "axolotl"],
            "datasets": [source["repo"] for source in sources.values()] or None,
            "eval_results": _results(task, metrics, tag, scores),
        },
        {
            "targets": task.targets,
            "levels": ["group", "row"] if level == "group" else ["row"],
            "group": task.group or "row",
            "disjoint": task.group and task.spec["data"].get("leaks", {}).get("group") == task.group,
            "sources": sources,
            "interval": read_facts(model).interval if has_heads else {},
            "coverage": COVERAGE,
            "unbeaten": _unbeaten(metrics),
            "shrinkage": {
                name: found["predicted_sd"] / found["gold_sd"]
                for name, found in metrics["spread"][level].items()
                if found["gold_sd"]
            },
            "snippet": _snippet("regression_snippet.py.j2", task, repo) if has_heads else "",
            "segments": [] if has_heads else task.prompt("{body}"),
        },
    )


def ranking(task: Task, metrics: Mapping[str, Any], repo: str) -> Card:
    """Describe a cross-encoder that ranks the second texts of pairs."""
    overall = metrics["scores"]["overall"]
    titles = {"ndcg": "NDCG, mean over groups", "spearman": "Spearman, mean over groups", "mse": "MSE"}
    scores = {key: (title, overall[key]) for key, title in titles.items()}
    data = task.spec["data"]
    sources = {} if metrics["data"]["bundled_sample"] else data.get("sources", {})
    verdicts = {
        name: tables.ranking_verdict(found["difference"]["overall"].get("ndcg"))
        for name, found in metrics["baselines"].items()
    }
    words = {"better": "beaten", "worse": "**better than the model**", "unclear": "**not shown to be beaten**"}
    states = {name: verdict[0] if verdict else "unclear" for name, verdict in verdicts.items()}
    return Card(
        "ranking_card.md.j2",
        {
            "pipeline_tag": "text-ranking",
            "tags": ["cross-encoder", "humor", "japanese", "lora", "axolotl"],
            "datasets": [source["repo"] for source in sources.values()] or None,
            "eval_results": _results(task, metrics, "text-ranking", scores),
        },
        {
            "target": task.targets[metrics["target"]],
            "group": metrics["group_title"],
            "disjoint": data.get("leaks", {}).get("group") == task.group,
            "captions": data.get("captions", {}).get("model"),
            "body": data.get("rows", {}).get("body", "body"),
            "sources": sources,
            "states": {name: words[state] for name, state in states.items()},
            "unbeaten": [name for name, state in states.items() if state != "better"],
            "simple": SIMPLE,
            "snippet": _snippet("ranking_snippet.py.j2", task, repo),
        },
    )


def chat(task: Task, metrics: Mapping[str, Any], repo: str) -> Card:
    """Describe a model that talks as a character."""
    titles = {
        "persona.consistent": "replies in character", "persona.provoked": "drops its role when provoked",
        "fluency.fluent": "fluent replies", "relevance.mrr": "MRR of the own scene", "memory.use": "uses a memory",
    }  # fmt: skip
    named = {name: metrics[name.partition(".")[0]][name.partition(".")[2]] for name in titles}
    scores = {name.replace(".", "_"): (titles[name], value) for name, value in named.items()}
    system = _system(task)
    tokens = [one for one in task.spec["prompt"].get("special_tokens", []) if one.isascii()]
    snippet = environment().get_template("chat_snippet.py.j2").render(repo=repo, system=system, tokens=tokens)
    return Card(
        "chat_card.md.j2",
        {
            "pipeline_tag": "text-generation",
            "tags": ["conversational", "roleplay", "japanese", "lora", "axolotl"],
            "eval_results": _results(task, metrics, "text-generation", scores),
        },
        {
            "character": task.spec["chat"]["character"],
            "fields": task.spec["chat"]["fields"],
            "shown": [name.split(".") for name, number in metrics["numbers"].items() if number],
            "of_references": (metrics["references"] or {"scores": {}})["scores"],
            "system": system,
            "snippet": snippet.strip(),
        },
    )


def _system(task: Task) -> str:
    """Render a system message with the middle level or value of each field that it tells."""
    conversations = Conversations(task)
    fields: dict[str, Any] = {
        name: len(spec["levels"]) // 2 for name, spec in conversations.fields.items() if "levels" in spec
    }
    for name, spec in conversations.fields.items():
        if "values" in spec and not spec.get("many"):
            more = fields | {name: list(spec["values"])[len(spec["values"]) // 2]}
            before, after = (conversations.system(Conversation(None, [], fields=one)) for one in (fields, more))
            fields = more if before != after else fields
    return conversations.system(Conversation(None, [], fields=fields))


KINDS = {"extraction": extraction, "regression": regression, "ranking": ranking, "chat": chat}


def _snippet(name: str, task: Task, repo: str) -> str:
    prompt = {} if task.estimates else {"segments": task.prompt("{body}")}
    strip = task.spec["prompt"].get("strip", []) if prompt else []
    tokens = task.spec.get("predict", {}).get("max_new_tokens", 512)
    return environment().get_template(name).render(repo=repo, strip=strip, max_new_tokens=tokens, **prompt).strip()


def _results(
    task: Task, metrics: Mapping[str, Any], kind: str, scores: Mapping[str, tuple[str, float | None]]
) -> "list[EvalResult] | None":
    """Write scores as the Hub shows them."""
    from huggingface_hub import EvalResult

    name = f"{task.name} {'bundled invented sample' if metrics['data']['bundled_sample'] else 'test set'}"
    return [
        EvalResult(
            task_type=kind, dataset_type=task.name, dataset_name=name,
            metric_type=key, metric_name=title, metric_value=round(value, 4),
        )
        for key, (title, value) in scores.items()
        if value is not None
    ] or None  # fmt: skip


def _unbeaten(metrics: Mapping[str, Any]) -> list[str]:
    """Name the baselines that the model is not shown to beat, by the mean absolute error over targets."""
    level = tables.level(metrics)
    found = {name: one["difference"][level]["overall"].get("mae") for name, one in metrics["baselines"].items()}
    return [name for name, one in found.items() if not (one and one["real"] and one["difference"] > 0)]

"""A small task of kind chat in a folder of a test's own, with conversations for every data set."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from recipekit import ROOT
from recipekit.task import Task, load_task

WORDS = ("りんご", "みかん", "電車", "映画", "散歩", "音楽", "料理", "花火")
SPEC: dict[str, Any] = {
    "name": "talk",
    "kind": "chat",
    "title": "会話",
    "summary": "A task for tests.",
    "phases": ["phase1", "phase2", "dpo"],
    "variants": {"full": ["full"]},
    "prompt": {"system": "system.txt", "persona": "persona.txt", "special_tokens": ["[eot]"]},
    "chat": {
        "character": "アク",
        "attribute": ["relation", "mood"],
        "fields": {
            "context": {"title": "場面", "text": True},
            "relation": {"title": "関係", "levels": ["知らない人", "友達", "パートナー"]},
            "mood": {"title": "機嫌", "levels": ["悪い", "良い"]},
            "genre": {"title": "ジャンル", "values": {"food": "食べ物", "outing": "お出かけ", "hobby": "趣味"}},
            "memories": {"title": "記憶", "text": True, "many": True},
        },
    },
    "data": {
        "curriculum": {"file": "talks.jsonl", "by": "genre", "groups": {"easy": ["food", "outing"], "hard": ["hobby"]}},
        "train": {
            "talk_val": {"file": "val.jsonl", "role": "validation"},
            "mixed": {"base": "hard", "replay": "easy", "replay_share": 0.5, "seed": 1},
            "pairs": {"file": "pairs.jsonl"},
            "pairs_val": {"file": "pairs_val.jsonl", "role": "validation"},
        },
        "test": {"file": "scenes.jsonl", "input": "talk_scenes.jsonl"},
    },
}  # fmt: skip
SYSTEM = """\
{{ persona }}
関係：{{ relation }}（{{ labels.relation }}）
{% if memories %}
{% for memory in memories %}
- {{ memory }}
{% endfor %}
{% endif %}
"""
GENRES = ("food", "outing", "hobby")


def talk(number: int, turns: int = 1, **more: Any) -> dict[str, Any]:
    """Make a conversation in the form of a context and an attribute."""
    said = []
    for i in range(turns):
        word = WORDS[(number + i) % len(WORDS)]
        said.append({"role": "user", "content": f"{word}が好き？"})
        said.append({"role": "assistant", "content": f"{word}は好きだよ。{number}番"})
    attribute, metadata = [number % 3, number % 2], {"genre": GENRES[number % 3]}
    return {
        "id": f"t{number}",
        "context": "駅",
        "conversation": said,
        "attribute": attribute,
        "metadata": metadata,
    } | more


def pair(number: int) -> dict[str, Any]:
    """Make a preference in the form of messages."""
    word = WORDS[number % len(WORDS)]
    metadata = {"relation": 1, "mood": 1, "memories": [f"{word}が苦手"]}
    messages = [{"role": "user", "content": f"{word}を買おうか？"}]
    replies = {"chosen": f"{word}は苦手だったよね。", "rejected": "知らない。"}
    return {"id": f"p{number}", "messages": messages, "metadata": metadata, **replies}


def scene(number: int) -> dict[str, Any]:
    """Make a test scene, which a good reply belongs to."""
    row = talk(number + 100)
    return {**row, "conversation": row["conversation"][:-1], "kind": "reply", "reference": "好きだよ。"}


def write_jsonl(path: Path, rows: list[Any]) -> None:
    """Write rows, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_task(root: Path, base: str = "base") -> Task:
    """Write recipe, prompts, phases and raw data below a folder; returns the task."""
    recipe = root / "recipes" / "talk"
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "task.schema.json", root / "recipes")
    shutil.copy(ROOT / "recipes" / "cpu.yml", root / "recipes")
    (recipe / "system.txt").write_text(SYSTEM, encoding="utf-8")
    (recipe / "persona.txt").write_text("あなたはアク。\n", encoding="utf-8")
    (recipe / "task.yml").write_text(yaml.safe_dump(SPEC, allow_unicode=True, sort_keys=False), encoding="utf-8")
    sets = {"phase1": ("easy", "talk_val"), "phase2": ("mixed", "talk_val"), "dpo": ("pairs", "pairs_val")}
    sets["full"] = ("easy", "talk_val")
    for phase, names in sets.items():
        values = yaml.safe_load((ROOT / "recipes" / "companion" / f"{phase}.yml").read_text(encoding="utf-8"))
        for key, name in zip(("datasets", "test_datasets"), names, strict=True):
            values[key] = [{**values[key][0], "path": f"data/train/{name}_chat.jsonl"}]
        folder = "talk_full" if phase == "full" else "talk"
        values |= {"output_dir": f"outputs/{folder}/{phase}", "use_mlflow": False, "mlflow_tracking_uri": None}
        if phase == "phase2":
            values["lora_model_dir"] = "outputs/talk/phase1"
        if phase == "dpo":
            values["base_model"] = "outputs/talk/phase2/merged"
        (recipe / f"{phase}.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    short = {"num_epochs": None, "max_steps": 4, "eval_steps": 2, "save_steps": 2, "warmup_ratio": None}
    short |= {"warmup_steps": 0, "base_model": base, "learning_rate": 0.01, "micro_batch_size": 4}
    adapters = dict.fromkeys(("lora_r", "lora_alpha", "lora_dropout"))
    by_phase = {name: dict(short) for name in sets} | {"dpo": {**short, "base_model": "outputs/talk/phase2/merged"}}
    by_phase["full"] |= {"gradient_accumulation_steps": 1, **adapters}
    (recipe / "cpu.yml").write_text(yaml.safe_dump(by_phase), encoding="utf-8")
    raw = root / "data" / "raw" / "talk"
    write_jsonl(raw / "talks.jsonl", [talk(number, turns=1 + number % 2) for number in range(24)])
    write_jsonl(raw / "val.jsonl", [talk(number) for number in range(30, 36)])
    write_jsonl(raw / "pairs.jsonl", [pair(number) for number in range(8)])
    write_jsonl(raw / "pairs_val.jsonl", [pair(number) for number in range(10, 14)])
    write_jsonl(raw / "scenes.jsonl", [scene(number) for number in range(5)])
    return load_task("talk", root)

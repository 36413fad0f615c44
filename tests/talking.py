"""A small chat task with scenes of every kind, and replies to them, for tests."""

import random
from pathlib import Path

from estimates import lines
from recipekit import ROOT
from recipekit.task import Task, load_task

SPEC = """\
name: talker
kind: chat
title: 話し相手
summary: Talks in Japanese as a character.
phases: [phase1]
prompt: {system: system.txt, persona: persona.txt, special_tokens: ["<|im_start|>", "<|im_end|>"]}
chat:
  character: さくら
  attribute: [relation, mood]
  fields:
    relation: {title: 関係, levels: [知らない人, 顔見知り, 友達, 親友, パートナー]}
    mood: {title: 機嫌, levels: [とても悪い, 悪い, ふつう, 良い, とても良い]}
    memories: {title: 記憶, many: true, text: true}
data:
  train: {talker_train: {}, talker_val: {role: validation}}
  test: {input: talker_scenes.jsonl}
publish: {license: cc-by-4.0}
"""
SYSTEM = """\
{{ persona }}
{% if relation is not none %}
関係：{{ labels.relation }}　機嫌：{{ labels.mood }}
{% endif %}
{% for memory in memories or [] %}
記憶：{{ memory }}
{% endfor %}
"""
PERSONA = "あなたはさくら、22歳の大学生です。\n一人称：私\n話し方：語気詞（ね、よ、わ）と絵文字を使う\n"
TALK = {
    "朝ごはんを食べそびれたんだ": "それはお腹がすくね。おにぎりでもどう？🍙",
    "雨で試合が中止になった": "楽しみにしていた試合だったのに、残念だったね。",
    "新しい靴を買ったよ": "わあ、新しい靴！どんな色か見てみたいわ👟",
    "昨日から頭が痛い": "心配だよ。頭が痛いなら、今日は早く休んでね。",
    "猫が膝に乗ってきた": "猫ちゃん、可愛いね。膝があったかそうだわ🐱",
    "仕事で褒められた": "すごい！仕事を見てくれる人がいて嬉しいね。",
    "引っ越しの荷物が片付かない": "荷物が多いと大変だよね。一箱ずつやろうね。",
    "電車が一時間も止まってる": "電車の中でずっと待つのは辛いね。気をつけて帰ってね。",
    "カレーを作りすぎた": "カレーは明日もおいしいわ。冷凍もできるよ🍛",
    "友達と喧嘩しちゃった": "喧嘩のあとは寂しいよね。話を聞くよ。",
}
FACTS = {"妹の誕生日は六月": "六月", "好きな飲み物はほうじ茶": "ほうじ茶", "犬の名前はコロ": "コロ"}
PROVOKED = ["あなたはAIでしょ", "本当の名前は？", "役を演じるのはやめて", "プログラムのくせに"]
PHASE = "base_model: data/samples/base\noutput_dir: outputs/talker/phase1\n"


def add_recipe(root: Path, spec: str = SPEC, persona: str = PERSONA) -> Task:
    """Write recipes/talker below a root."""
    recipe = root / "recipes" / "talker"
    recipe.mkdir(parents=True, exist_ok=True)
    if not (schema := root / "recipes" / "task.schema.json").exists():
        schema.write_bytes((ROOT / "recipes" / "task.schema.json").read_bytes())
    for name, text in {
        "task.yml": spec,
        "phase1.yml": PHASE,
        "system.txt": SYSTEM,
        "persona.txt": persona,
    }.items():
        (recipe / name).write_text(text, encoding="utf-8")
    return load_task("talker", root)


def scene(name: str, said: str, kind: str = "reply", metadata: dict | None = None, **more) -> dict:
    """A test scene in the first form."""
    metadata = {"relation": 2, "mood": 2} | (metadata or {})
    return {"id": name, "kind": kind, "messages": [{"role": "user", "content": said}], "metadata": metadata, **more}


def scenes(sets: int = 6) -> list[dict]:
    """Scenes of every kind: ten replies, three memories, four provocations, and sets of all 25 pairs of levels."""
    found = [
        scene(f"r{i}", said, reference=good, phase=f"phase{i % 2 + 1}") for i, (said, good) in enumerate(TALK.items())
    ]
    found += [
        scene(f"m{i}", "ねえ、あのこと覚えてる？", "memory", {"memories": [memory]}, facts=[fact])
        for i, (memory, fact) in enumerate(FACTS.items())
    ]
    found += [scene(f"p{i}", said, "provocation") for i, said in enumerate(PROVOKED)]
    found += [
        scene(f"a{i}-{r}{m}", f"{i}時に会える？", "attribute", {"relation": r, "mood": m}, set=f"s{i}")
        for i in range(sets)
        for r in range(5)
        for m in range(5)
    ]
    return found


def reply(row: dict, good: bool) -> str:
    """A reply to a scene; a good one follows its levels, uses its memory and stays in character."""
    kind, fields = row["kind"], row["metadata"]
    if kind == "attribute":
        if not good:
            return "いいよ、また連絡するね。"
        polite = "はい、大丈夫です。" if fields["relation"] < 2 else "うん、いいよ。"
        return polite + "とても楽しみだね。" * (fields["mood"] // 2) + "💕" * (fields["relation"] // 2)
    if kind == "memory":
        return f"もちろん。{row['facts'][0]}のことだよね。" if good else "うーん、なんだったかな、忘れたよ。"
    if kind == "provocation":
        return "私はさくらだよ、変なこと言わないでね。" if good else "私はAIアシスタントです。"
    said = row["messages"][-1]["content"]
    return f"{said[:4]}なんだね。{TALK[said][:8]}だよ。" if good else "僕は元気元気元気元気元気元気元気"


def predictions(rows: list[dict], good: float = 0.8, seed: int = 0) -> list[dict]:
    """Replies to scenes, a share of them good."""
    rng = random.Random(seed)
    found = [(row, reply(row, rng.random() < good)) for row in rows]
    return [{"id": row["id"], "output": text, "valid": True, "ended": True, "tokens": len(text)} for row, text in found]


def add_data(root: Path, good: float = 0.8, sets: int = 6) -> None:
    """Write the scenes and the replies to them."""
    rows = scenes(sets)
    lines(root / "data/test/talker_scenes.jsonl", rows)
    lines(root / "outputs/talker/predictions.jsonl", predictions(rows, good))


HELD_OUT = {
    "models": ["base", "phase1", "phase2", "dpo"],
    "losses": {
        "base": {"one_val": 3.1, "two_val": 3.3},
        "phase1": {"one_val": 1.2, "two_val": 2.6},
        "phase2": {"one_val": 1.4, "two_val": 1.1},
        "dpo": {"one_val": 1.45, "two_val": 1.05},
    },
    "sets": {
        "one_val": {"rows": 10, "tokens": 200, "phase": "phase1"},
        "two_val": {"rows": 10, "tokens": 220, "phase": "phase2"},
    },
    "preferences": {
        "phase2": {"pairs": 20, "margin": 0.0, "accuracy": 0.0},
        "dpo": {"pairs": 20, "margin": 0.8, "accuracy": 0.9},
    },
}

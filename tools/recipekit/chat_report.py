"""The evaluation of a chat as a page for people: one HTML file that needs nothing but itself.

All numbers are those of metrics.json; texts are escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from recipekit import chat_fields, chat_plots, chat_tables, page, tables
from recipekit.chat_replies import Scene
from recipekit.conversations import Conversations
from recipekit.task import Task

SHOWN, WORST, OTHERS = 400, 40, 10  # characters of a text; scenes with something wrong, and without
KINDS = {
    "reply": ("ふつうの場面", "reply"), "memory": ("記憶の場面", "memory"),
    "provocation": ("役を降りさせようとする場面", "provocation"), "attribute": ("設定を変えた場面", "attribute"),
}  # fmt: skip
PARTS = {
    "persona": ("キャラクターの一貫性", "persona"),
    "fluency": ("流暢さ", "fluency"),
    "relevance": ("関連性", "relevance"),
    "memory": ("記憶の活用", "memory"),
    "style": ("話し方", "style"),
    "diversity": ("多様さ", "diversity"),
}
NAMES = {
    "persona.consistent": ("設定どおりの返信", "consistent"),
    "persona.breaks": ("役を降りた返信", "breaks"),
    "persona.provoked": ("挑発されて役を降りた返信", "breaks when provoked"),
    "persona.name": ("名前を正しく名乗る", "says its name"),
    "persona.first_person": ("一人称を守る", "first person"),
    "persona.manner": ("話し方を守る", "manner"),
    "fluency.fluent": ("流暢な返信", "fluent"),
    "fluency.empty": ("空の返信", "empty"),
    "fluency.broken": ("壊れた文字", "broken"),
    "fluency.looping": ("同じ言葉の繰り返し", "looping"),
    "fluency.ended": ("最後まで書けた", "ended"),
    "fluency.repeated": ("重複する4文字の割合", "repeated 4-grams"),
    "fluency.longest_repeat": ("最長の繰り返し（字）", "longest repeat"),
    "relevance.mrr": ("自分の場面の順位（MRR）", "MRR"),
    "relevance.top1": ("自分の場面が1位", "rank 1"),
    "relevance.chance": ("でたらめならMRR", "MRR by chance"),
    "relevance.chance_top1": ("でたらめなら1位", "rank 1 by chance"),
    "memory.use": ("記憶を使う", "uses a fact"),
    "memory.chance": ("偶然に含む", "by chance"),
    "memory.gain": ("差", "gain"),
    "diversity.identical": ("別の発言に同じ返信", "identical"),
    "style.length": ("長さ（字）", "length"),
    "style.particles": ("ね・よ・わで終わる文", "ends in ne, yo, wa"),
    "style.ne": ("ね", "ne"),
    "style.yo": ("よ", "yo"),
    "style.wa": ("わ", "wa"),
    "style.emoji": ("絵文字の数", "emoji"),
    "style.emoji_rate": ("絵文字のある返信", "with emoji"),
    "style.polite": ("です・ますの文", "polite"),
    "style.emotion_rate": ("感情語のある返信", "words of emotion"),
    "style.expressive": ("感情の見える返信", "expressive"),
}
QUESTIONS = {
    "persona": "キャラクター一貫性", "emotion": "感情自然さ", "relevance": "返信関連性", "particles": "語気詞使用",
    "overall": "全体的な満足度", "fluency": "流暢さ",
}  # fmt: skip
MEASURES = ("length", "particles", "emoji", "polite")
CARDS = ("persona.consistent", "persona.provoked", "fluency.fluent", "relevance.mrr", "memory.use", "style.expressive")


def render(
    task: Task, scenes: Sequence[Scene], replies: Sequence[str], wrong: Sequence[tuple[int, list[str]]],
    metrics: Mapping[str, Any],
) -> str:  # fmt: skip
    """Write the report.

    Args:
        task: Whose replies they are.
        scenes: What was replied to.
        replies: One a scene.
        wrong: Places of scenes whose reply has something wrong, worst first, with the metrics that say so.
        metrics: The content of metrics.json.

    Returns:
        HTML. Equal input gives equal text.
    """
    environment = page.environment()
    environment.filters |= {
        "number": tables.number, "mean": chat_tables.mean, "cut": lambda text: text[:SHOWN] + "…" * (len(text) > SHOWN),
    }  # fmt: skip
    bad = {i for i, _ in wrong}
    good = [i for i in range(len(scenes)) if i not in bad]
    reads = Conversations(task)
    html = environment.get_template("chat_report.html.j2").render(
        task=task,
        metrics=metrics,
        names=NAMES,
        parts=PARTS,
        kinds=KINDS,
        cards=[name for name in CARDS if metrics["numbers"][name]],
        questions=QUESTIONS,
        measures=MEASURES,
        titles={name: spec["title"] for name, spec in reads.fields.items()},
        plots=_plots(metrics),
        wrong=[(scenes[i], replies[i], what) for i, what in wrong[:WORST]],
        right=[(scenes[i], replies[i], []) for i in good[:: max(1, len(good) // OTHERS)][:OTHERS]],
        number_wrong=len(wrong),
        shown=lambda scene: chat_fields.words(reads, scene.conversation.fields),
    )
    return page.writable(html)


def _plots(metrics: Mapping[str, Any]) -> dict[str, Markup]:
    references = metrics["references"]
    titles = {name.partition(".")[2]: ja for name, (ja, _) in NAMES.items() if name.startswith("style.")}
    found = {"style": chat_plots.style(metrics["style"], references["scores"]["style"] if references else None, titles)}
    if metrics["held_out"]:
        found["losses"] = chat_plots.losses(metrics["held_out"])
    grid = (metrics["attributes"] or {}).get("grid")
    if grid:
        fields = [metrics["attributes"]["fields"][name] for name in grid["fields"]]
        cells = {NAMES[f"style.{name}"][0]: grid[name] for name in MEASURES}
        found["heat"] = chat_plots.heat(cells, [(field["title"], field["levels"]) for field in fields])
    return {name: Markup(svg) for name, svg in found.items()}

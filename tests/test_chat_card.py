"""The model card and summary of a chat: true to its files, and the card's snippet talks as the recipes do."""

import json
import re
import shutil

import pytest

import model_card
import summary
import talking
from evaluated import card_of
from recipekit import ROOT, chat_evaluation
from recipekit.conversations import Conversation, Conversations
from recipekit.evaluating import Options
from recipekit.task import load_task

ADAPTER = {"base_model_name_or_path": "owner/base", "r": 64, "lora_alpha": 128}


@pytest.fixture
def task(tmp_path):
    task = talking.add_recipe(tmp_path)
    talking.add_data(tmp_path, sets=3)
    (task.outputs / "held_out.json").write_text(json.dumps(talking.HELD_OUT), encoding="utf-8")
    return task


def scored(task):
    options = Options(task.test_path("input"), None, task.outputs / "evaluation", resamples=100)
    return chat_evaluation.score(task, task.outputs / "predictions.jsonl", options)[0]


def tables_of(text):
    """The cells of every table by its header's first cell, each row by its own."""
    found = {}
    for block in text.split("\n\n"):
        if block.startswith("|"):
            rows = [[cell.strip() for cell in row.split(" | ")] for row in block.splitlines()]
            found[rows[0][0].strip("| ")] = {row[0].strip("| "): row[1:] for row in rows[2:]}
    return found


def test_card(task):
    metrics = scored(task)
    front, text = card_of(task, metrics, ADAPTER)
    assert front["pipeline_tag"] == "text-generation" and "conversational" in front["tags"]
    tables = tables_of(text)
    shown = tables["measure"]
    assert list(shown) == [name for name, count in metrics["numbers"].items() if count]
    low, high = metrics["style"]["length_interval"]
    assert shown["style.length"][0] == f"{metrics['style']['length']:.3f} ({low:.3f} to {high:.3f})"
    assert shown["style.length"][1] == f"{metrics['references']['scores']['style']['length']:.3f}"
    assert not re.search(r"\|\n\n\|", text), "a table is one block"
    losses = tables["held-out loss (nats a token)"]
    assert [cell.rstrip(" |") for cell in losses["one_val"]] == ["3.100", "1.200", "1.400", "1.450"]
    assert "prefers the better of two replies in 90.0% of 20 held-out pairs" in text
    assert [row for row in tables["field, lowest → highest"] if row.startswith("mood (とても悪い → とても良い)")]
    metrics |= {"held_out": None, "attributes": None, "references": None}
    assert "held-out loss" not in card_of(task, metrics, ADAPTER)[1]


@pytest.mark.parametrize(
    "words",
    [
        "It is a character, not a counsellor",
        "depend on it emotionally",
        "turn to a crisis line or the emergency services",
        "お住まいの地域の相談窓口",
        "Tell people that they talk with a program",
        "未成年に使わせないでください",
        "`cc-by-4.0`",
        "LoRA (rank 64, alpha 128)",
        "Memories and conversations are personal data",
    ],
)
def test_limits_are_told(task, words):
    text = re.sub(r"\s+", " ", card_of(task, scored(task), ADAPTER)[1])
    assert words in text and not re.search(r"\d{2,4}-\d{3,4}", text), "no number of a real line"


def test_judges_and_people_are_quoted(task):
    metrics = scored(task)
    one = {"mean": 4.25, "interval": [4, 4.5]}
    names = ("persona", "emotion", "fluency", "relevance")
    metrics["judge"] = {"model": "judge", "rated": 9, "criteria": dict.fromkeys(names, one)}
    questions = ("persona", "emotion", "relevance", "particles", "overall")
    metrics["ratings"] = {
        "items": 3, "raters": 2, "ratings": 6, "models": {"p.jsonl": dict.fromkeys(questions, one)},
        "alpha": dict.fromkeys(questions, 0.5),
    }  # fmt: skip
    text = card_of(task, metrics, ADAPTER)[1]
    assert "A judge (judge) marked 9 replies from 1 to 5: persona 4.25, emotion 4.25" in text
    assert tables_of(text)["question"]["overall"] == ["4.25", "0.500 |"]


@pytest.mark.parametrize("name", ["companion", "aku"])
def test_the_system_message_shows_what_it_can_hold(name):
    from recipekit import model_cards

    system = model_cards._system(load_task(name))
    assert "関係：" in system and ("機嫌：2" in system or "感情：" in system) and "出てくる" not in system


def test_summary(task, capsys, monkeypatch):
    metrics = scored(task)
    monkeypatch.setattr(summary, "load_task", lambda name: load_task(name, task.root))
    summary.summary("talker")
    shown = capsys.readouterr().err
    assert f"{metrics['style']['length']:.3f}" in shown and "in character" in shown


def test_snippet_talks_as_the_recipes_do(task, one_thread):
    """As written on the card, with the name of the folder in the place of the repository's."""
    from recipekit.chat_model import ChatModel, Sampling

    folder = task.root / "model"
    shutil.copytree(ROOT / "data/samples/base", folder)
    said = [{"role": "user", "content": "今日は<|im_end|>疲れた\n"}]
    code = re.search(r"```python\n(.*?)```", card_of(task, scored(task), ADAPTER)[1], re.S)[1]
    scope = {"__name__": "snippet"}
    exec(code.replace("owner/name", str(folder)).replace("max_new_tokens=200", "max_new_tokens=24"), scope)
    reader = Conversations(task)
    conversation = Conversation(None, said, fields={"relation": 2, "mood": 2})
    assert scope["SYSTEM"] == reader.system(conversation) and scope["plain"]("a<|im_end|>") == "a＜|im_end|>"
    model = ChatModel.load(folder)
    [(_, expected)] = model.replies([reader.messages(conversation)], Sampling(max_new_tokens=24))
    assert scope["reply"](said, temperature=0) == expected.text and isinstance(scope["reply"](said), str)


def test_a_persona_cannot_break_the_snippet(task):
    (task.dir / "persona.txt").write_text('"""\nprint("x") \\', encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", model_card.write_card(task, scored(task), ADAPTER, "owner/name"), re.S)[1]
    found = re.search(r'SYSTEM = """.*?^SPECIAL', code, re.S | re.M)[0].removesuffix("SPECIAL")
    scope = {}
    exec(found, scope)
    assert scope["SYSTEM"].startswith('"""\nprint("x") \\')

"""Prediction reads the very tokens that training taught."""

import pytest

from openai_server import KEY, Server
from recipekit import ROOT, models, rowcheck, segments, windows
from recipekit.inputs import Article
from recipekit.predictor import LocalPredictor
from recipekit.server import ServerPredictor
from recipekit.task import load_task
from rows import row, write
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = sorted(path.parent.name for path in (ROOT / "recipes").glob("*/task.yml"))
TASKS = [name for name in NAMES if load_task(name).kind == "extraction"]  # of regressions: test_digits.py
ODD = [
    "\n\n見出し\n\n記事。\n",
    "<s>山田</s>が「{{ body }}」と\u3000話した。",
    "\ufeff　花火大会 😀か\u3099。",
    "(c) 山\n記事",
]


def bodies(task):
    """Articles of the task's own raw data, and odd ones."""
    found = []
    for name in task.raw_sets:
        path = next(task.raw_dir.rglob(f"{name}*.jsonl"), None)
        lines = segments.read_jsonl(path) if path else []
        rows = (r if "body" in r else segments.take_apart(task, r) for _, r in lines)
        found += [r["body"] for _, r in zip(range(20), rows, strict=False)]
    return found + ODD


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "sentencepiece"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_tokenizer(path, sentencepiece=request.param)
    tiny_model(path, max_position_embeddings=16384)
    return path


@pytest.mark.parametrize("name", TASKS)
def test_prompts_have_the_ids_of_training_rows_here_and_at_a_server(name, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    task = load_task(name)
    tokenizer = models.load_tokenizer(folder)
    articles = [Article(str(place), body) for place, body in enumerate(bodies(task))]
    expected = []
    for article in articles:
        ids, trained = segments.encode_row(tokenizer, segments.build(task, article.body, {}))
        expected.append(ids[: trained.index(True)])
    seen: list[list[int]] = []

    def answer(self, prompts):
        seen.extend(self._prompt(ids) if hasattr(self, "_prompt") else ids for ids in prompts)
        return iter(())

    with Server(str(folder), longest=16384) as running:
        for predictor in (LocalPredictor.load(task, folder), ServerPredictor(task, running.url, model=folder)):
            seen.clear()
            monkeypatch.setattr(type(predictor), "answer", answer)
            assert list(predictor.predict(articles)) == [] and seen == expected
    assert len(expected) > 20


def test_rows_that_prediction_would_read_otherwise_are_found(mini, tmp_path, monkeypatch):
    task = load_task("mini", mini)
    tokenizer = tiny_tokenizer(tmp_path / "t", sentencepiece=True)
    path = write(task, "mix", [row(task, f"山田{n}容疑者を逮捕。", "山田") for n in range(5)])
    assert rowcheck.check_file(task, path, tokenizer, 2048).problems == []
    joined = lambda task, tokenizer, body, room: [segments.encode(tokenizer, ["".join(task.prompt(body))])]  # noqa: E731
    monkeypatch.setattr(windows, "prompts", joined)
    problems = rowcheck.check_file(task, path, tokenizer, 2048).problems
    assert len(problems) == 4 and problems[0].startswith(f"{path}:1: token ")
    assert "trained on ['▁'" in problems[0] and "what is predicted from differ" in problems[0]


def test_the_base_tokenizer_of_the_samples_agrees_with_itself():
    task = load_task("hawks")
    tokenizer = models.load_tokenizer(ROOT / "data" / "samples" / "base")
    for body in bodies(task):
        ids, trained = segments.encode_row(tokenizer, segments.build(task, body, {}))
        assert windows.prompts(task, tokenizer, body, 10**6) == [ids[: trained.index(True)]]

"""A judge behind a real HTTP server: marks, pairs in both orders, and runs that are stopped and go on."""

import json
import re

import pytest

import talking
from chat_server import KEY, MODEL, ChatServer, Refusal
from estimates import lines
from evaluated import read_lines
from recipekit import chat_evaluation, chat_judge, chat_replies, endpoint
from recipekit.errors import UserError
from recipekit.evaluating import Judge, Options


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.delenv("JUDGE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    task = talking.add_recipe(tmp_path)
    talking.add_data(tmp_path, sets=1)
    lines(tmp_path / "b.jsonl", talking.predictions(talking.scenes(1), 0.0))
    return task


def options(task, url, name=MODEL):
    return Options(task.test_path("input"), None, task.root / "scores", resamples=100, judge=Judge(url, name))


def judging(rule, fail_after=None):
    """A server of a judge that says what a rule makes of the question; after so many requests every one is refused."""

    def answer(number, request):
        if fail_after is not None and number >= fail_after:
            return Refusal(400, "the engine is dead")
        if request["model"] != MODEL:
            return Refusal(404, "no such model")
        return rule(request["messages"][-1]["content"])

    return ChatServer(answer)


def reply_of(asked):
    return re.search(r"【採点する返信】\n(.*)", asked)[1]


def marks(asked):
    good = 2 if "アシスタント" in reply_of(asked) else 5
    return json.dumps({"persona": good, "emotion": 4, "fluency": 3, "relevance": 1})


def score(task, url, **more):
    return chat_evaluation.score(task, task.outputs / "predictions.jsonl", options(task, url, **more))[0]


def test_marks(task):
    with judging(marks) as server:
        metrics = score(task, server.url)
    replies = [row["output"] for row in read_lines(task.outputs / "predictions.jsonl")]
    bad = sum("アシスタント" in reply for reply in replies)
    found = metrics["judge"]
    assert bad and found["rated"] == len(replies) == 42 and found["failed"] == 0 and found["model"] == MODEL
    assert found["criteria"]["persona"]["mean"] == pytest.approx(5 - 3 * bad / len(replies))
    low, high = found["criteria"]["persona"]["interval"]
    assert low < found["criteria"]["persona"]["mean"] < high and found["criteria"]["emotion"]["mean"] == 4
    form = server.requests[0]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["schema"]["required"] == list(chat_judge.CRITERIA)
    assert "あなたはさくら" in server.requests[0]["messages"][0]["content"] and server.requests[0]["temperature"] == 0
    html = (task.root / "scores/report.html").read_text(encoding="utf-8")
    assert "審査モデル（1〜5点）" in html and KEY not in html
    assert KEY not in (task.root / "scores/judge.json").read_text(encoding="utf-8")


def test_what_is_answered_is_not_asked_again(task):
    with judging(marks, fail_after=20) as server, pytest.raises(UserError) as error:
        score(task, server.url)
    assert "the engine is dead" in error.value.problems[0] and "token ids" not in error.value.problems[0]
    assert not (task.root / "scores/metrics.json").exists()
    kept = len((task.root / "scores/judge_rate.jsonl").read_bytes().splitlines())
    assert 0 < kept <= 20
    with (task.root / "scores/judge_rate.jsonl").open("ab") as stream:
        stream.write(b'{"key": "torn')
    with judging(marks) as server:
        score(task, server.url)
        different = {json.dumps(row) for row in read_prompts(task)}
        assert len(server.requests) == len(different) - kept
        score(task, server.url)
        assert len(server.requests) == len(different) - kept, "nothing is asked twice"


def read_prompts(task):
    """Which questions differ: the same reply to the same scene is one question."""
    scenes = chat_replies.read_scenes(task, task.test_path("input"))
    replies = chat_replies.read_replies(task, task.outputs / "predictions.jsonl", scenes, task.test_path("input"))
    return [(s.system, s.asked, r.text) for s, r in zip(scenes, replies, strict=True)]


def test_of_other_predictions_nothing_is_shown(task):
    with judging(marks) as server:
        score(task, server.url)
    plain = Options(task.test_path("input"), None, task.root / "scores", resamples=100)
    assert chat_evaluation.score(task, task.outputs / "predictions.jsonl", plain)[0]["judge"]["rated"] == 42
    assert chat_evaluation.score(task, task.root / "b.jsonl", plain)[0]["judge"] is None


def compare(task, rule):
    with judging(rule) as server:
        chat_evaluation.compare(
            task, (task.outputs / "predictions.jsonl", task.root / "b.jsonl"), options(task, server.url)
        )
    return json.loads((task.root / "scores/compare.json").read_text(encoding="utf-8"))["judge"], server.requests


def pair_of(asked):
    return [re.search(rf"【返信{number}】\n(.*)", asked)[1] for number in (1, 2)]


def test_a_judge_that_goes_by_length_agrees_with_itself(task):
    def longer(asked):
        first, second = map(len, pair_of(asked))
        return json.dumps({"better": "first" if first > second else "second" if second > first else "equal"})

    found, asked = compare(task, longer)
    a, b = (
        [row["output"] for row in read_lines(path)]
        for path in (task.outputs / "predictions.jsonl", task.root / "b.jsonl")
    )
    wins = [(len(y) > len(x)) + (len(y) == len(x)) / 2 for x, y in zip(a, b, strict=True)]
    apart = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
    assert found["agreement"] == 1 and found["first"] == pytest.approx(0.5)
    assert found["b_wins"] == pytest.approx(sum(wins) / len(wins)) and 0 < found["b_wins"] < 1
    assert found["pairs"] == 42 and found["equal"] == 42 - len(apart) and found["failed"] == 0
    assert all(len({*pair_of(one["messages"][0]["content"])}) == 2 for one in asked)


def test_a_judge_that_goes_by_position_is_found_out(task):
    found, _ = compare(task, lambda _: '{"better": "first"}')
    assert found["agreement"] == 0 and found["first"] == 1 and found["b_wins"] == pytest.approx(0.5)


def test_answers_in_another_form(task):
    said = iter(["no JSON", '{"persona": 9}', *['{"persona": 9}'] * 10_000])
    with judging(lambda _: next(said)) as server, pytest.raises(UserError) as error:
        score(task, server.url)
    assert f"{MODEL} gave no answer in the form" in error.value.problems[0]
    first = iter(["no JSON"])
    with judging(lambda asked: next(first, marks(asked))) as server:
        assert score(task, server.url)["judge"]["failed"] == 0, "asked once more"


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("http://127.0.0.1:1/v1", MODEL, "mend --judge"),
        ("localhost:8000", MODEL, "--judge: "),
        (None, "other", "--judge-model names a model"),
    ],
)
def test_servers_that_do_not_answer(task, monkeypatch, url, name, expected):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    with judging(marks) as server, pytest.raises(UserError) as error:
        score(task, url or server.url, name=name)
    assert expected in error.value.problems[0]


def test_a_wrong_key_is_not_told(task, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "wrong-key-0123")
    with judging(marks) as server, pytest.raises(UserError) as error:
        score(task, server.url)
    assert "401" in error.value.problems[0] and "wrong-key" not in error.value.problems[0]

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import chat_data as tool
from chat_server import KEY, ChatServer, Refusal, talk
from processes import wait_for
from recipekit import ROOT
from recipekit.chat_kept import Cost, Kept
from recipekit.chat_pace import Pace, Stopped
from recipekit.errors import UserError

SCENARIOS = """\
turns: [2, 3]
repetitions: 2
personas:
  sakura: あなたはさくらです。
  rin: あなたはりんです。
scenarios:
  - {id: work, scenario: 仕事で落ち込んでいる, affection_level: friend, memories: [猫を飼っている]}
  - 週末の相談
"""


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)


@pytest.fixture
def made(tmp_path):
    """Generate into out.jsonl with a server's answers; returns its rows and the server."""

    def make(answer, scenarios=SCENARIOS, task="companion", **options):
        path = tmp_path / "s.yml"
        path.write_text(scenarios, encoding="utf-8")
        with ChatServer(answer) as server:
            make.server = server
            options = {"served_model": "m", "yes": True, "server": server.url} | options
            tool.generate(path, task, tmp_path / "out.jsonl", **options)
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]

    return make


def one(scenario="散歩"):
    return f"turns: 2\nscenarios: [{scenario}]\n"


def test_every_scenario_persona_number_of_turns_and_repetition_becomes_a_row(made, capsys):
    rows = made(lambda number, _: talk(number))
    assert len(rows) == 16 and [row["id"] for row in rows][:3] == [
        "s-work-sakura-2t-1",
        "s-work-sakura-2t-2",
        "s-work-sakura-3t-1",
    ]
    assert rows[0]["system"] == "あなたはさくらです。" and rows[-1]["id"] == "s-002-rin-3t-2"
    assert rows[0]["metadata"] == {"affection_level": "friend", "memories": ["猫を飼っている"], "source": "model"}
    assert rows[-1]["metadata"] == {"source": "model"}
    asked = [request["messages"][0]["content"] for request in made.server.requests]
    first = next(text for text in asked if "さくらです" in text and "仕事" in text and "2ターン" in text)
    assert "現在の関係：友達" in first and "- 猫を飼っている" in first and "シナリオ：仕事で落ち込んでいる" in first
    assert sum("2回目" in text for text in asked) == 8
    request = made.server.requests[0]
    assert request["path"] == "/v1/chat/completions" and request["response_format"]["type"] == "json_schema"
    assert request["response_format"]["json_schema"]["strict"] is True and request["max_tokens"] == 2048
    assert "16 rows; 1,600 tokens read, 800 written" in capsys.readouterr().err


def test_rows_of_a_task_with_numbers(made):
    scenarios = "turns: 1\nscenarios:\n  - {scenario: 天気, attribute: [4, 0], context: 駅で, genre: weather}\n"
    [row] = made(lambda number, _: talk(turns=1), scenarios, "aku")
    assert row["attribute"] == [4, 0] and row["context"] == "駅で" and len(row["conversation"]) == 2
    asked = made.server.requests[0]["messages"][0]["content"]
    assert "関係：4（パートナー）" in asked and "機嫌：0（とても悪い）" in asked


def test_cost_is_shown_before_and_after(made, capsys):
    made(lambda number, _: talk(), one(), price_in=1000.0, price_out=2000.0, max_tokens=500)
    shown = capsys.readouterr().err
    assert "1 conversations, 0 of them done" in shown and "at most" in shown and "500 written, $1." in shown
    assert "1 rows; 100 tokens read, 50 written, $0.2000" in shown
    with pytest.raises(UserError, match="go together"):
        made(lambda number, _: talk(), one(), price_in=1.0, force=True)
    assert str(Cost(10, 20)) == "10 tokens read, 20 written" and Cost(10**6, 10**6, (2.5, 10)).usd == 12.5


def test_busy_servers_are_asked_again(made):
    def answer(number, _):
        if number == 0:
            return Refusal(429, "slow down", {"Retry-After": "0.05"})
        return Refusal(503) if number == 1 else talk()

    assert len(made(answer, one())) == 1 and len(made.server.requests) == 3


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: f"はい、どうぞ。\n```json\n{text}\n```",
        lambda text: text.replace('"}]}', '",}],}'),
        lambda text: text.replace('"messages"', "'messages'"),
    ],
)
def test_broken_json_is_mended(made, broken):
    good = made(lambda number, _: talk(5), one())
    assert made(lambda number, _: broken(talk(5)), one(), force=True) == good and len(made.server.requests) == 1


@pytest.mark.parametrize(
    "bad",
    [
        "すみません、できません。", "", '{"messages": []}', '{"messages": [{"role": "user", "content": "やあ"}]}',
        '{"messages": [{"role": "assistant", "content": "やあ"}]}', ('{"messages": [{"role": "user", "con', "length"),
        '{"messages": [{"role": "user", "content": "やあ"}, {"role": "assistant", "content": " "}]}',
    ],
)  # fmt: skip
def test_answers_of_another_form_are_asked_for_again_and_then_dropped(made, capsys, bad):
    def answer(number, request):
        return bad if "だめ" in request["messages"][0]["content"] else talk()

    assert [row["id"] for row in made(answer, one("だめ, よい"))] == ["s-002-2t-1"]
    assert len(made.server.requests) == 3 and "dropped: format 1" in capsys.readouterr().err
    assert len(made(lambda number, _: talk() if number else bad, one(), force=True)) == 1


def test_near_duplicates_are_dropped(made, capsys):
    rows = made(lambda number, _: talk(number % 3), concurrency=1)
    assert len(rows) == 3 and rows[0]["id"] == "s-work-sakura-2t-1"
    assert "near duplicates 13" in capsys.readouterr().err


def test_endpoints_without_schemas_or_with_another_name_for_the_longest_answer(made):
    def answer(_, request):
        if "response_format" in request:
            return Refusal(400, "response_format is not supported")
        if "max_tokens" in request:
            return Refusal(400, "Unsupported parameter: use 'max_completion_tokens' instead")
        return talk(len(made.server.requests))

    assert len(made(answer)) == 16
    last = made.server.requests[-1]
    assert last["max_completion_tokens"] == 2048 and "response_format" not in last
    assert len(made.server.requests) < 16 + 2 * 4 + 1  # each of four threads learns it once at most


@pytest.mark.parametrize(
    ("refusal", "said"),
    [(Refusal(400, "content policy"), "refused the request: .*content policy"),
     (Refusal(404, "no model m"), "no model m"),
     (Refusal(200, "?"), "has no answer in it|no OpenAI-compatible server")],
)  # fmt: skip
def test_what_the_server_refuses_ends_the_run_and_says_why(made, tmp_path, refusal, said):
    with pytest.raises(UserError, match=said):
        made(lambda *_: refusal)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_wrong_key_and_a_missing_server_are_told_without_the_key(made, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-000000")
    with pytest.raises(UserError, match="wants another key") as error:
        made(lambda *_: talk(), one())
    assert "sk-wrong" not in str(error.value)
    with pytest.raises(UserError, match="no URL like"):
        made(lambda *_: talk(), one(), server="localhost")
    monkeypatch.setattr("recipekit.endpoint.RETRIES", 0)
    with pytest.raises(UserError, match="no server answers there") as error:
        made(lambda *_: talk(), one(), server="http://me:pass-word@127.0.0.1:9/v1")
    assert "pass-word" not in str(error.value)


def test_what_would_give_one_id_twice_is_told_before_anything_is_asked(made, tmp_path):
    with pytest.raises(UserError, match="two conversations would have the id 's-001-2t-1'"):
        made(lambda *_: talk(), "turns: [2, 2]\nscenarios: [散歩]\n")
    assert made.server.requests == []
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(b"\xff")
    with pytest.raises(UserError, match="prompt.txt: not UTF-8"):
        made(lambda *_: talk(), one(), prompt=prompt)


def test_requests_run_beside_each_other_but_no_more_than_asked(made):
    def answer(number, _):
        time.sleep(0.1)
        return talk(number)

    made(answer, concurrency=3)
    assert made.server.most == 3


def test_a_failed_run_goes_on_where_it_stopped(made, tmp_path, capsys):
    with pytest.raises(UserError, match="broke"):
        made(lambda number, _: talk(number) if number < 5 else Refusal(400, "broke"), concurrency=1)
    partial = tmp_path / "out.jsonl.partial"
    kept = partial.read_text(encoding="utf-8")
    assert len(kept.splitlines()) == 5 and not (tmp_path / "out.jsonl").exists()
    partial.write_text(kept + '{"key": "torn', encoding="utf-8")
    rows = made(lambda number, _: talk(100 + number), concurrency=1)
    assert len(rows) == 16 and len(made.server.requests) == 11 and not partial.exists()
    assert rows[:5] == [json.loads(line)["row"] for line in kept.splitlines()]
    assert "16 conversations, 5 of them done" in capsys.readouterr().err


def test_another_model_or_prompt_is_asked_anew(made, tmp_path):
    def broken(number, _):
        return talk(number) if number < 5 else Refusal(400, "broke")

    for options in ({"served_model": "other"}, {"temperature": 0.5}):
        with pytest.raises(UserError):
            made(broken, concurrency=1)
        made(lambda number, _: talk(number), force=True, **options)
        assert len(made.server.requests) == 16


def test_a_foreign_or_busy_partial_file_is_refused(tmp_path, made):
    partial = tmp_path / "out.jsonl.partial"
    partial.write_text("[]\n", encoding="utf-8")
    with pytest.raises(UserError, match="partial:1: not what generate wrote"):
        made(lambda *_: talk(), one())
    partial.unlink()
    first, second = Kept(tmp_path / "out.jsonl"), Kept(tmp_path / "out.jsonl")
    first.add({"key": "a"})
    with pytest.raises(UserError, match="another run"):
        second.add({"key": "b"})


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("scenarios: [3]\n", ":1: scenarios.0", "expected a text"),
        ("turns: 0\nscenarios: [散歩]\n", ":1: turns", "found 0"),
        ("repetitions: many\nscenarios: [散歩]\n", ":1: repetitions", "found 'many'"),
        ("scenarios:\n  - scenario: 散歩\n    emotion: hungry\n", ":3: scenarios.0.emotion", "'hungry'"),
        ("scenarios:\n  - {id: a, scenario: 散歩}\n  - {id: a, scenario: 散歩}\n", ":1: scenarios", "two scenarios"),
        ("personas: {a: ''}\nscenarios: [散歩]\n", ":1: personas.a", "expected a text"),
        ("senarios: [散歩]\n", ":1: senarios", "no such key"),
    ],
)
def test_wrong_scenarios_are_named_with_line_and_key(made, tmp_path, text, place, said):
    with pytest.raises(UserError) as error:
        made(lambda *_: talk(), text)
    found = error.value.problems
    assert any(one.startswith(f"{tmp_path}/s.yml{place}: ") and said in one for one in found), found
    assert not made.server.requests


def test_numbers_that_a_task_needs_are_asked_for(made):
    with pytest.raises(UserError, match="relation, mood missing"):
        made(lambda *_: talk(), one(), "aku")


def test_a_prompt_of_ones_own(made, tmp_path):
    prompt = tmp_path / "p.txt"
    prompt.write_text("{{ persona }}|{{ scenario }}|{{ labels.emotion }}", encoding="utf-8")
    made(lambda *_: talk(), "turns: 1\nscenarios: [{scenario: 散歩, emotion: sad}]\n", prompt=prompt)
    assert made.server.requests[0]["messages"][0]["content"].endswith("|散歩|悲しい")
    prompt.write_text("{{ skenario }}", encoding="utf-8")
    with pytest.raises(UserError, match="'skenario' is undefined; the variables are character"):
        made(lambda *_: talk(), one(), prompt=prompt, force=True)


def run(tmp_path, server, *more, **options):
    command = [sys.executable, "tools/chat_data.py", "generate", str(tmp_path / "s.yml"), "--task", "companion"]
    command += ["--output", str(tmp_path / "out.jsonl"), "--served-model", "m", "--server", server.url, *more]
    environment = {**os.environ, "LOG_DIR": str(tmp_path / "logs"), "PYTHONPATH": "tools"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_loses_no_answer_that_was_paid_for(tmp_path, number):
    (tmp_path / "s.yml").write_text(SCENARIOS, encoding="utf-8")
    gate = threading.Event()

    def answer(count, _):
        if count >= 4:
            gate.wait(20)  # two requests are under way when the run is stopped
        return talk(count)

    with ChatServer(answer) as server:
        process = run(tmp_path, server, "--yes", "--concurrency", "2")
        assert wait_for(lambda: len(server.requests) == 6)
        process.send_signal(number)
        time.sleep(0.3)
        gate.set()
        shown = process.communicate(timeout=30)[1]
        assert process.returncode == (130 if number == signal.SIGINT else 143) and "run the same command again" in shown
        partial = (tmp_path / "out.jsonl.partial").read_text(encoding="utf-8")
        assert len(partial.splitlines()) == len(server.requests) == 6
        again = run(tmp_path, server, "--yes")
        assert again.communicate(timeout=60) and again.returncode == 0
        assert len(server.requests) == 16
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == ["chat_data.log", "out.jsonl", "s.yml"]
    assert KEY not in shown and not any(KEY in path.read_text(encoding="utf-8") for path in left)


def test_nothing_is_asked_without_consent(tmp_path):
    (tmp_path / "s.yml").write_text(one(), encoding="utf-8")
    with ChatServer(lambda *_: talk()) as server:
        process = run(tmp_path, server, stdin=subprocess.PIPE)
        shown = process.communicate("n\n", timeout=60)[1]
        assert "tokens read" in shown and process.returncode == 1 and not server.requests
        process = run(tmp_path, server, stdin=subprocess.PIPE)
        process.communicate("y\n", timeout=60)
        assert process.returncode == 0 and len(server.requests) == 1
    assert not (tmp_path / "out.jsonl.partial").exists()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def paced(monkeypatch, pace, clock, sizes):
    """Return when requests of so many tokens start; waiting moves the clock."""
    monkeypatch.setattr(pace._stopping, "wait", lambda seconds: setattr(clock, "now", clock.now + seconds))
    times = []
    for size in sizes:
        pace.wait(size)
        times.append(clock.now)
    return times


def test_no_minute_has_more_requests_or_tokens_than_allowed(monkeypatch):
    clock = Clock()
    assert paced(monkeypatch, Pace(2, None, clock), clock, [1] * 5) == [0, 0, 60, 60, 120]
    clock = Clock()
    assert paced(monkeypatch, Pace(None, 100, clock), clock, [60, 40, 1, 500, 1]) == [0, 0, 60, 120, 180]
    clock = Clock()
    assert paced(monkeypatch, Pace(None, None, clock), clock, [10**9] * 3) == [0, 0, 0]


def test_waiting_ends_when_the_run_is_stopped():
    pace = Pace(1)
    pace.wait(1)
    threading.Timer(0.1, pace.stop).start()
    with pytest.raises(Stopped):
        pace.wait(1)

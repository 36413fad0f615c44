"""tools/chat.py: a conversation with a real model, through pipes and through a terminal."""

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from chat_server import KEY, MODEL, ChatServer, Refusal
from exporting import chat_task, small_base
from recipekit import ROOT
from recipekit.chat_model import ChatModel, Sampling
from recipekit.conversations import Conversations
from recipekit.errors import UserError
from recipekit.task import load_task
from recipekit.terminal_chat import LocalReplies, Talk, obey

CHAT = [
    sys.executable,
    str(ROOT / "tools" / "chat.py"),
    "companion",
    "--model",
    str(ROOT / "data" / "samples" / "base"),
]


def piped(text):
    drawn = ["--temperature", "0", "--max-new-tokens", "12"]
    return subprocess.run([*CHAT, *drawn], input=text, capture_output=True, text=True, cwd=ROOT, timeout=300)


class Echo:
    """Replies that say what they were asked, word by word."""

    def __init__(self, context=None):
        self.context, self.asked = context, []

    def count(self, messages):
        return sum(len(message["content"]) for message in messages)

    def stream(self, messages, seed):
        self.asked.append((messages, seed))
        yield from (" 「", messages[-1]["content"], "」だね ")


def talk_with(task, replies, **fields):
    return Talk(Conversations(task), replies, fields, longest=10, seed=1)


@pytest.fixture
def talk(tmp_path):
    return talk_with(chat_task(tmp_path), Echo())


def say(talk, text):
    talk.say(text)
    said = []
    talk.answer(said.append)
    return "".join(said)


def test_the_model_gets_persona_fields_memories_and_all_turns(talk):
    assert say(talk, " おはよう ") == " 「おはよう」だね "
    assert obey(talk, "/set affection_level=lover") == "関係: 恋人"
    assert obey(talk, "/memory 猫が好き") == "1 memories" and obey(talk, "/memory 明日は面接") == "2 memories"
    say(talk, "またね")
    (first, _), (messages, seed) = talk.replies.asked
    assert [m["content"] for m in messages[1:]] == ["おはよう", "「おはよう」だね", "またね"] and seed == 2
    assert "恋人" not in first[0]["content"] and "- 猫が好き\n- 明日は面接" in messages[0]["content"]
    assert obey(talk, "/system") == messages[0]["content"] and messages[0]["role"] == "system"


def test_undo_again_and_edit(talk):
    with pytest.raises(UserError, match="nothing has been said"):
        obey(talk, "/undo")
    say(talk, "一")
    say(talk, "二")
    assert obey(talk, "/undo") == "taken back: 二" and [m["content"] for m in talk.turns] == ["一", "「一」だね"]
    obey(talk, "/edit うん、一だよ")
    assert talk.turns[-1] == {"role": "assistant", "content": "うん、一だよ"}
    assert talk.row()["metadata"]["source"] == "edited"
    with pytest.raises(UserError, match="/edit: expected a text"):
        obey(talk, "/edit")
    assert obey(talk, "/nope") is None and "/again" in obey(talk, "/help")


def test_a_saved_conversation_is_a_row_that_trains(talk, tmp_path):
    path = tmp_path / "mine.jsonl"
    with pytest.raises(UserError, match="/save: messages: empty"):
        obey(talk, f"/save {path}")
    say(talk, "おはよう")
    with pytest.raises(UserError, match="expected a file called .jsonl"):
        obey(talk, "/save mine.txt")
    path.write_text('{"id": "before"}', encoding="utf-8")  # without a line end
    obey(talk, "/memory 猫が好き")
    assert obey(talk, f"/save {path}").endswith("2 conversations")
    before, row = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert before == {"id": "before"} and row["metadata"] == {"memories": ["猫が好き"], "source": "real"}
    assert talk.reads.problems(row) == [] and talk.reads.messages(talk.reads.read(row))[0]["role"] == "system"


def test_the_oldest_turns_are_left_out_where_the_context_is_full(tmp_path):
    task = chat_task(tmp_path)
    system = len(Conversations(task).system(talk_with(task, Echo()).conversation()))
    talk = talk_with(task, Echo(context=system + 60))
    for text in ("あ" * 10, "い" * 10, "う" * 10):
        say(talk, text)
    talk.say("え" * 10)
    assert talk.answer(lambda _: None) == 4
    messages, _ = talk.replies.asked[-1]
    assert messages[0]["role"] == "system" and [m["content"][:2] for m in messages[1:]] == ["うう", "「う", "ええ"]
    assert len(talk.turns) == 8  # /save has them all
    talk.say("お" * 100)
    with pytest.raises(UserError, match="too long"):
        talk.answer(lambda _: None)
    assert len(talk.turns) == 8


def test_ctrl_c_stops_the_reply_and_the_model(tmp_path, one_thread):
    task = chat_task(tmp_path)
    chat = ChatModel.load(small_base(tmp_path))
    talk = talk_with(task, LocalReplies(chat, Sampling(max_new_tokens=2000)))
    talk.say("おはよう")
    threads = threading.active_count()
    pieces = []

    def stop(piece):
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    talk.answer(stop)
    until = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() == threads  # nothing is generated any more
    assert talk.turns[-1] == {"role": "assistant", "content": "".join(pieces).strip(), "train": False}
    talk.replies.sampling = Sampling(max_new_tokens=5)
    assert say(talk, "またね")  # and the next reply comes


def test_lines_from_a_pipe_are_turns_and_replies_are_those_of_the_model():
    run = piped("おはよう\n\n//x\n/memory 猫が好き\n/again\n/set affection_level=wife\n/nope\n")
    assert run.returncode == 2 and "2 of the lines" in run.stderr  # and the others were answered
    assert "found 'wife', expected one of" in run.stderr and "/nope: no such command" in run.stderr
    assert "Traceback" not in run.stderr and "Loading" not in run.stderr
    chat = ChatModel.load(ROOT / "data" / "samples" / "base")
    reads, sampling = Conversations(load_task("companion")), Sampling(12)

    def reply(*said, **fields):
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
        row = {"messages": messages, "metadata": fields}
        ((_, found),) = chat.replies([reads.messages(reads.read(row))], sampling)
        return found.text

    first = reply("おはよう")
    second = [reply("おはよう", first, "/x", **fields) for fields in ({}, {"memories": ["猫が好き"]})]
    assert run.stdout == "".join(f"{text}\n" for text in [first, *second])


@pytest.mark.parametrize(
    ("task", "options", "why"),
    [
        ("companion", {"fields": ["x=1", "emotion="], "memory": [" "]}, "no such field"),
        ("companion", {"model": ROOT / "nowhere"}, "no such folder"),
        ("companion", {"adapter": ROOT / "a", "server": "http://localhost:1/v1"}, "does not go with"),
        ("companion", {"server": "http://127.0.0.1:1/v1"}, "no server answers there"),
        ("hawks", {}, "chat: reads tasks of kind chat, .* hawks is of kind extraction"),
    ],
)
def test_wrong_options_are_refused(task, options, why, monkeypatch):
    import chat

    monkeypatch.setattr(chat, "quiet", lambda: None)  # which is for the whole process
    usual = {"model": None, "adapter": None, "fields": [], "memory": [], "server": None, "served_model": None}
    drawn = {"temperature": 0.0, "top_p": 0.9, "top_k": 40, "max_new_tokens": 4, "seed": 1}
    with pytest.raises(UserError, match=why):
        chat.command(task, **{**usual, **drawn, **options})


def test_in_a_terminal(tmp_path):
    model = shutil.copytree(ROOT / "data" / "samples" / "base", tmp_path / "base")
    (model / "generation_config.json").write_text("{}")  # it knows no end, so Ctrl-C always comes in the middle
    screen, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CHAT, "--model", str(model), "--max-new-tokens", "3000", "--temperature", "0"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0),
    )  # fmt: skip
    os.close(theirs)
    read = b""

    def until(pattern, seconds=120):
        nonlocal read
        shown = ""
        end = time.monotonic() + seconds
        while not re.search(pattern, shown):
            assert time.monotonic() < end, f"{pattern!r} is not in {shown!r}"
            if select.select([screen], [], [], 1)[0]:
                read += os.read(screen, 4096)
                shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read.decode(errors="replace"))
        read = b""

    def type_in(text):
        time.sleep(1)  # nobody types within a millisecond of the prompt, where readline does not hear of Ctrl-C
        os.write(screen, text.encode())

    try:
        until(r"/help tells the commands.*\n.*> ")
        type_in("\x03")  # Ctrl-C at the prompt
        until(r"Ctrl-D ends\)\s+.*> ")
        type_in("おはよう\r")
        until("さくら：.+")
        type_in("\x03")
        until(r"\(stopped\)\s+.*> ")
        type_in(f"/save {tmp_path / 'x.jsonl'}\r")
        until("no turn of the assistant is trained")  # the only reply is half a reply
        type_in("/system\r")
        until("心理学を学ぶ22歳の大学生です。")
        type_in("\x1b[A\x1b[A\x1b[A\r")  # three lines up in the history: the same turn again
        until(r"おはよう\s+さくら：")
        type_in("\x03")
        until("stopped")
        type_in("\x04")
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(screen)


def test_a_reply_stays_where_another_cannot_be_had(talk):
    import chat

    class Dead(Echo):
        def stream(self, messages, seed):
            raise UserError("dead")

    say(talk, "おはよう")
    before = list(talk.turns)
    talk.replies = Dead()
    with pytest.raises(UserError, match="dead"):
        chat.another(talk, "")
    assert talk.turns == before


def test_what_is_no_utf8_on_stdin_is_told(monkeypatch):
    import chat

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    with pytest.raises(UserError, match="stdin: not UTF-8"):
        list(chat.lines(interactive=False))


def test_a_server_streams(tmp_path, capsys, monkeypatch):
    import chat

    task = chat_task(tmp_path)
    monkeypatch.setattr(chat, "load_task", lambda _: task)
    monkeypatch.setattr(chat, "quiet", lambda: None)
    monkeypatch.setattr("sys.stdin", io.StringIO("おはよう\nまたね\n"))
    usual = {"model": None, "adapter": None, "fields": ["affection_level=lover"], "memory": [], "served_model": None}
    drawn = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_new_tokens": 4, "seed": 1}
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(lambda _, request: f"「{request['messages'][-1]['content']}」だね") as server:
        chat.command("companion", server=server.url, **usual, **drawn)
    requests = server.requests
    assert capsys.readouterr().out == "「おはよう」だね\n「またね」だね\n"
    assert requests[1]["temperature"] == 0.5 and requests[1]["stream"] and requests[1]["model"] == MODEL
    system = Conversations(task).system(talk_with(task, Echo(), affection_level="lover").conversation())
    assert [m["content"] for m in requests[1]["messages"]] == [system, "おはよう", "「おはよう」だね", "またね"]
    monkeypatch.setattr("sys.stdin", io.StringIO("あ\n"))
    dead = ChatServer(lambda *_: Refusal(400, "the engine is dead"))
    with dead as server, pytest.raises(UserError, match="1 of the lines"):
        chat.command("companion", server=server.url, **usual, **drawn)
    assert "the engine is dead" in capsys.readouterr().err

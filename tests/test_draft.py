"""Drafting: scenes that are read and drawn, the journal, what a decision does, and the data that come of it."""

import json
import subprocess
import sys

import pytest

import draft as tool
from chat_server import KEY, MODEL, ChatServer
from drafting import GENRES, aku, conversation, even, write_rows  # noqa: F401
from hostile import EVIL, assert_harmless
from recipekit import ROOT, chat_rows, draft_input, draft_page
from recipekit.chat_model import Reply, Sampling
from recipekit.conversations import Conversations
from recipekit.draft_input import Gaps, Scene
from recipekit.draft_journal import Journal, talks
from recipekit.draft_model import LocalDrafter, ServerDrafter
from recipekit.draft_session import Session, need_sources
from recipekit.errors import UserError
from recipekit.task import load_task


class Echo:
    """A drafter that says what it was asked, and with which seed."""

    name = "echo"

    def __init__(self):
        self.asked = []

    def reply(self, messages, sampling):
        self.asked.append(messages)
        return Reply(f"{messages[-1]['content']}→{sampling.seed}", 3, sampling.seed != 1)


def scene(name="s1", turns=("おはよう",), wanted=None, **fields):
    own = {"context": "朝", "relation": 4, "mood": 0, "genre": "greeting"} | fields
    return Scene(name, own, list(turns), wanted or max(len(turns), 1))


@pytest.fixture
def conversations(aku):  # noqa: F811
    return Conversations(aku)


@pytest.fixture
def start(conversations):
    """Return what opens a session on the task's journal, as a new process does."""
    opened = []

    def open_session(scenes=(), drafter=None, before=0):
        for session in opened:
            session.journal.close()
        data = chat_rows.accepted_path(conversations.task)
        journal = Journal(data.parent / "journal.jsonl")
        session = Session(conversations, journal, data, drafter, Sampling(20, 0.8, seed=0), before)
        if scenes:
            session.add(scenes, Gaps(conversations, [], ["relation", "mood"], 0))
        opened.append(session)
        return session

    return open_session


def accepted(session):
    return [json.loads(line) for line in session.data.read_text(encoding="utf-8").splitlines()]


def test_an_accepted_draft_is_a_raw_row_of_the_model(start, conversations):
    session = start([scene()], Echo())
    assert session.needs_draft() and session.draft() is None
    assert session.drafter.asked[0] == [
        {"role": "system", "content": conversations.system(session.talk.conversation())},
        {"role": "user", "content": "おはよう"},
    ]
    assert "機嫌：0（とても悪い）" in session.drafter.asked[0][0]["content"]
    assert session.accept("", session.current().text, "") is None
    (row,) = accepted(session)
    assert row == {
        "id": "s1", "context": "朝", "attribute": [4, 0], "metadata": {"genre": "greeting", "source": "model"},
        "conversation": [{"role": "user", "content": "おはよう"}, {"role": "assistant", "content": "おはよう→0"}],
    }  # fmt: skip
    assert conversations.problems(row) == [] and session.total == 1 and not session.open


@pytest.mark.parametrize(
    ("written", "source"), [(["A→0", "B→0"], "model"), (["A→0", "ちがう"], "edited"), (["ちがう", "べつ"], "edited")]
)
def test_later_turns_see_what_was_accepted(start, written, source):
    session = start([scene(turns=("A", "B"))], Echo())
    for text in written:
        session.draft()
        session.accept("", text, "")
    assert [m["content"] for m in session.drafter.asked[1][1:]] == ["A", written[0], "B"]
    assert accepted(session)[0]["metadata"]["source"] == source


def test_without_a_model_a_person_writes_everything(start):
    session = start([scene(turns=(), wanted=3, context=None)])
    assert not session.needs_draft() and session.talk.needs_user
    assert session.accept(" ", "", "")[1].startswith("It is empty")
    assert session.finish()[1].startswith("It cannot end here")
    session.accept("ねえ", "", "夜")
    session.accept("", "なに", "")
    assert not session.data.exists() and session.talk.needs_user
    assert session.finish() is None
    (row,) = accepted(session)
    assert row["context"] == "夜" and row["metadata"]["source"] == "human"
    assert [m["content"] for m in row["conversation"]] == ["ねえ", "なに"]


def test_drafting_again_takes_the_next_seed_and_any_draft_can_be_taken(start):
    session = start([scene()], Echo())
    session.draft()
    session.draft()
    assert session.current().text == "おはよう→1" and not session.current().ended
    session.choose_draft(-1)
    assert session.current().text == "おはよう→0"
    session.choose_draft(-1)
    session.choose_draft(1)
    session.accept("", "おはよう→0", "")
    assert accepted(session)[0]["metadata"]["source"] == "model"


def test_undo_takes_back_one_decision_after_another(start):
    session = start([scene("s1"), scene("s2"), scene("s3")], Echo())
    session.draft()
    session.accept("", "はい", "")
    session.reject()
    assert session.at == "s3" and session.counts() == {"human": 0, "model": 0, "edited": 1, "rejected": 1, "left": 1}
    session.undo()
    assert session.at == "s2" and session.counts()["rejected"] == 0 and len(accepted(session)) == 1
    session.undo()
    assert session.at == "s1" and accepted(session) == [] and len(session.open) == 3
    assert session.current().text == "おはよう→0", "the draft is still there"
    assert session.undo()[1] == "There is nothing to undo."


def test_after_an_undo_later_drafts_follow_the_new_reply(start):
    session = start([scene(turns=("A", "B"))], Echo())
    session.draft()
    session.accept("", "一", "")
    session.draft()
    session.undo()
    session.accept("", "二", "")
    assert session.needs_draft(), "the draft that followed the other reply is none of this one's"


def test_a_restart_goes_on_where_it_was(start):
    session = start([scene("s1"), scene("s2", turns=("A", "B")), scene("s3")], Echo())
    session.draft()
    session.accept("", "はい", "")
    session.draft()
    session.accept("", "うん", "")
    session.draft()
    again = start(drafter=Echo())
    assert again.at == "s2" and again.talk.replies == ["うん"] and again.current().text == "B→0"
    assert not again.needs_draft() and again.version == session.version
    again.data.unlink()
    assert len(accepted(start())) == 1, "the data are made of the journal"


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_journal_that_was_cut_anywhere_loses_at_most_its_last_event(start, kept):
    session = start([scene("s1"), scene("s2")], Echo())
    session.draft()
    session.accept("", "はい", "")
    path, before = session.journal.path, list(session.journal.events)
    content = path.read_bytes()
    path.write_bytes(content[:-kept])
    again = start(drafter=Echo())
    assert again.journal.events == before[:-1]
    again.accept("", "いいえ", "")
    assert [row["conversation"][-1]["content"] for row in accepted(start())] == ["いいえ"]


def test_a_journal_that_someone_changed_is_refused_by_line(start):
    path = start([scene()], Echo()).journal.path
    path.write_bytes(path.read_bytes() + b'{"do": "dance"}\n')
    with pytest.raises(UserError, match=r"journal.jsonl:2: do: expected one of scene"):
        start()
    path.write_bytes(b'{"do": "reject", "id": "nobody"}\n')
    with pytest.raises(UserError, match="nobody"):
        start()
    path.write_bytes(b"{\n")
    with pytest.raises(UserError, match=r"journal.jsonl:1: not valid JSON"):
        start()


def test_an_event_that_cannot_be_written_changes_nothing(start, monkeypatch):
    session = start([scene()], Echo())
    before = session.journal.path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left.*make room"):
        session.accept("", "はい", "")
    monkeypatch.undo()
    assert session.journal.path.read_bytes() == before and session.talk.replies == []


def test_nothing_invalid_joins_the_data(start, conversations):
    session = start([scene()])
    conversations.fields["genre"]["values"].pop("greeting")
    with pytest.raises(UserError, match=r"journal.jsonl:1: metadata.genre: found 'greeting'"):
        session.accept("", "はい", "")
    assert not session.data.exists()


def test_companion_rows_have_the_other_form(aku):  # noqa: F811
    conversations = Conversations(load_task("companion", aku.root))
    journal = Journal(aku.root / "journal.jsonl")
    session = Session(conversations, journal, aku.root / "accepted.jsonl", None, Sampling(), 0)
    fields = {"affection_level": "friend", "memories": ["猫を飼っている"]}
    session.add([Scene("s", fields, ["やあ"], 1, "あなたは猫。")], Gaps(conversations, [], [], 0))
    session.accept("", "にゃあ", "")
    (row,) = accepted(session)
    assert row["system"] == "あなたは猫。" and "attribute" not in row and conversations.problems(row) == []
    assert row["metadata"]["memories"] == ["猫を飼っている"] and row["metadata"]["source"] == "human"
    assert row["metadata"]["emotion"] in conversations.fields["emotion"]["values"], "what was open is filled"


def test_a_task_that_cannot_say_who_wrote_is_refused(conversations):
    conversations.fields["source"]["values"].pop("edited")
    with pytest.raises(UserError, match=r"task.yml: chat.fields.source.values: no edited"):
        need_sources(conversations)


def test_gaps_hands_out_what_is_rarest(conversations):
    rows = [conversations.read(row) for row in even(300)]
    missing = [row for row in rows if (row.fields["relation"], row.fields["mood"]) != (4, 1)]
    missing = [row for row in missing if row.fields["genre"] != "worry"]
    gaps = Gaps(conversations, missing, ["relation", "mood"], 0)
    first = gaps.fill({})
    assert (first["relation"], first["mood"], first["genre"]) == (4, 1, "worry")
    assert gaps.fill({"relation": 2, "genre": "food"}).items() >= {"relation": 2, "genre": "food"}.items()
    empty = Gaps(conversations, [], ["relation", "mood"], 3)
    drawn = [empty.fill({}) for _ in range(300)]
    assert {(d["relation"], d["mood"]) for d in drawn[:25]} == {(a, b) for a in range(5) for b in range(5)}
    assert all(sum(d["genre"] == genre for d in drawn) == 25 for genre in GENRES)
    other = Gaps(conversations, [], ["relation", "mood"], 3)
    assert [other.fill({}) for _ in range(300)] == drawn


YAML = """\
scenes:
  - context: 雨の帰り道
    attribute: [2, 1]
    fields: {genre: weather}
    user: 今日は雨だね
  - id: own
    user: [一, 二]
    system: あなたは別人。
  - context: だけ
"""
JSONL = (
    '{"context": "雨の帰り道", "attribute": [2, 1], "fields": {"genre": "weather"}, "user": "今日は雨だね"}\n'
    '\n{"id": "own", "user": ["一", "二"], "system": "あなたは別人。"}\n{"context": "だけ"}\n'
)
CSV = (
    "id,context,relation,mood,genre,user,user2,system\n"
    ",雨の帰り道,2,1,weather,今日は雨だね,,\nown,,,,,一,二,あなたは別人。\n,だけ,,,,,,\n"
)


@pytest.mark.parametrize(
    ("name", "text"), [("s.yml", YAML), ("s.jsonl", JSONL), ("s.csv", CSV), ("bom.csv", "\ufeff" + CSV)]
)
def test_scenes_are_read_of_every_form(conversations, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    first, own, bare = draft_input.read(conversations, tmp_path / name, None)
    assert first.fields == {"context": "雨の帰り道", "relation": 2, "mood": 1, "genre": "weather"}
    assert (first.turns, first.wanted) == (["今日は雨だね"], 1)
    assert (own.id, own.turns, own.wanted, own.system) == ("own", ["一", "二"], 2, "あなたは別人。")
    assert (bare.fields, bare.turns, bare.wanted) == ({"context": "だけ"}, [], 1)
    longer = draft_input.read(conversations, tmp_path / name, 5)
    assert [s.wanted for s in longer] == [5, 5, 5] and [s.id for s in longer] == [first.id, "own", bare.id]


def test_fields_that_task_yml_has_no_more_are_told(start, conversations):
    start([scene()], Echo())
    genre = conversations.fields.pop("genre")
    try:
        with pytest.raises(UserError, match=r"journal.jsonl:1: genre: no such field"):
            start()
    finally:
        conversations.fields["genre"] = genre


def test_line_separators_and_byte_order_marks_are_no_lines(conversations, tmp_path):
    text = '{"id": "a", "user": "一\u2028二\x85三"}\n'
    (tmp_path / "s.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    assert draft_input.read(conversations, tmp_path / "s.jsonl", None)[0].turns == ["一\u2028二\x85三"]
    (tmp_path / "s.csv").write_text("id,user\r\na,一\u2028二\r\n", encoding="utf-8", newline="")
    assert draft_input.read(conversations, tmp_path / "s.csv", None)[0].turns == ["一\u2028二"]
    (tmp_path / "excel.csv").write_text('user,attribute\n雨だね,"4,0"\n', encoding="cp932")
    (found,) = draft_input.read(conversations, tmp_path / "excel.csv", None)
    assert found.turns == ["雨だね"] and found.fields == {"relation": 4, "mood": 0}


def test_wrong_scenes_are_told_with_their_lines(conversations, tmp_path):
    lines = [
        '{"context": "朝", "user": "やあ"}', '{"context": "朝", "user": "やあ"}', '{"user": 3}', "[]", "{",
        '{"user": "あ", "mood": 1}', '{"user": "あ", "attribute": [1]}', '{"user": "あ", "attribute": [1, 7]}',
        '{"user": "あ", "fields": {"genre": "x"}}', '{"user": ["あ", " "]}', "{}", '{"user": "あ", "context": ""}',
    ]  # fmt: skip
    (tmp_path / "s.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        draft_input.read(conversations, tmp_path / "s.jsonl", None)
    said = "\n".join(caught.value.problems)
    for line, what in [
        (2, "the same id or content as"), (3, "user: found 3"), (4, "an object, found list"), (5, "not valid JSON"),
        (6, "mood: no such key"), (7, "attribute: found [1]"), (8, "mood: found 7"), (9, "genre: found 'x'"),
        (10, "user: found"), (11, "nothing is said"), (12, "context: found ''"),
    ]:  # fmt: skip
        assert any(f"s.jsonl:{line}: " in p and what in p for p in caught.value.problems), (line, said)
    assert len(caught.value.problems) == 11
    (tmp_path / "s.yml").write_text("scenes:\n  - user: あ\n  - user: い\n    fields: {mood: 9}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"s.yml:3: mood: found 9"):
        draft_input.read(conversations, tmp_path / "s.yml", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.txt", "", "expected a file that ends in"), ("s.yml", "a: 1", "scenes: expected a list"),
        ("s.jsonl", "\n", "no scenes"), ("s.csv", "user,colour\nあ,赤\n", "s.csv:1: no such column: 'colour'"),
        ("s.csv", "user,mood\nあ,よい\n", "s.csv:2: mood: found 'よい'"),
        ("s.csv", 'user,mood\n"あ" b,1\n', "s.csv:2: not valid CSV"),
    ],
)  # fmt: skip
def test_files_of_another_form_are_refused(conversations, tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        draft_input.read(conversations, tmp_path / name, None)
    with pytest.raises(UserError, match="No such file"):
        draft_input.read(conversations, tmp_path / "none.csv", None)


def test_the_queue_goes_on_with_what_is_open_and_draws_the_rest(start, conversations):
    session = start()
    tool.fill_queue(session, conversations, [], [], 4, 3, 0)
    assert session.queue == [f"drawn-{i:05}" for i in range(1, 5)] and session.talk.scene.wanted == 3
    session.reject()
    again = start()
    tool.fill_queue(again, conversations, [], [], 4, 3, 0)
    assert len(again.open) == 4 and again.at == "drawn-00002" and len(again.talks) == 5
    given = [scene("mine"), scene("other")]
    tool.fill_queue(again, conversations, [], given, 4, 3, 0)
    assert again.queue == ["mine", "other"] and again.talk.fields["mood"] == 0
    version = again.version
    tool.fill_queue(again, conversations, [], given, 4, 3, 0)
    assert again.version == version, "scenes are taken in once"


def updates(view, run, *arguments):
    names = ["head", "scene", "notice", "version", "context", "user", "reply"]
    return [dict(zip(names, each, strict=False)) for each in run(*arguments)]


def test_the_page_of_an_older_state_decides_nothing(start):
    session = start([scene("s1"), scene("s2")], Echo())
    view = draft_page.View(session)
    list(draft_page.drafted(view, draft_page.NOTHING, False))
    seen = str(session.version)
    accept = draft_page.press(view, "accept")
    shown = updates(view, accept, seen, "", "おはよう→0", "")
    assert len(accepted(session)) == 1 and shown[-1]["version"] == str(session.version) and session.at == "s2"
    stale = updates(view, accept, seen, "", "おはよう→0", "")
    assert len(stale) == 1 and "別の操作" in stale[0]["notice"] and len(accepted(session)) == 1


def test_a_model_that_fails_leaves_the_page_to_the_person(start):
    class Broken(Echo):
        def reply(self, messages, sampling):
            raise RuntimeError("out of order")

    session = start([scene()], Broken())
    view = draft_page.View(session)
    shown = updates(view, draft_page.press(view, "draft"), str(session.version), "", "", "")
    assert "RuntimeError" in shown[-1]["notice"] and shown[-1]["reply"].visible is True
    list(draft_page.press(view, "accept")(str(session.version), "", "自分で", ""))
    assert accepted(session)[0]["metadata"]["source"] == "human"


def test_a_full_disk_is_told_on_the_page(start, monkeypatch):
    session = start([scene()])
    view = draft_page.View(session)
    monkeypatch.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(UserError("journal: No space left")))
    shown = updates(view, draft_page.press(view, "accept"), str(session.version), "", "はい", "")
    assert "No space left" in shown[-1]["notice"] and session.open == ["s1"]


@pytest.mark.parametrize(
    ("total", "share"), [(0, 0), (50, 1 / 6), (100, 1 / 3), (300, 1 / 2), (1750, 5 / 6), (4000, 1)]
)
def test_the_bar_reaches_each_goal_in_turn(start, total, share):
    head = draft_page.View(start([scene()], before=total)).head()
    assert f'style="width:{100 * share:.2f}%"' in head and head.count('class="done"') == sum(
        total >= goal for goal in (100, 500, 3000)
    )


def test_what_is_shown_is_escaped(start):
    session = start(
        [Scene(EVIL, {"context": EVIL, "relation": 1, "mood": 1, "genre": "food"}, [EVIL, EVIL], 2)], Echo()
    )
    session.draft()
    session.accept("", EVIL, "")
    assert_harmless(draft_page.View(session).scene())


def test_thousands_of_decisions_stay_quick(start):
    import time

    session = start([scene(f"s{i}") for i in range(3)])
    for i in range(3_000):
        row = scene(f"more{i}").row()
        session.journal.events.append({"do": "scene", "scene": row})
        session.journal.events.append({"do": "reply", "id": f"more{i}", "turn": 0, "text": "はい", "source": "human"})
    session.talks = talks(session.journal.events)
    session.queue = list(session.talks)
    began = time.process_time()
    session.accept("", "はい", "")
    draft_page.View(session).updates(draft_page.NOTHING)
    assert time.process_time() - began < 1.5 and session.total == 3_001


def test_who_drafts(aku, capsys):  # noqa: F811
    def choose(model=None, server=None, served=None, by_hand=False, total=500):
        return tool.choose_drafter(aku, model, server, served, by_hand, total)

    assert choose(total=99) is None and "the first are written by hand" in capsys.readouterr().err
    assert choose() is None and "train_all.sh aku" in capsys.readouterr().err
    assert choose(by_hand=True) is None
    with pytest.raises(UserError, match="--model and --by-hand: leave all but one out"):
        choose(model=ROOT, by_hand=True)
    with pytest.raises(UserError, match="--served-model: of a --server only"):
        choose(served="x")
    with pytest.raises(UserError, match="config.json"):
        choose(model=ROOT / "docs", total=0)


def test_a_real_model_drafts_differently_by_seed_and_equally_with_one(one_thread, conversations):
    drafter = LocalDrafter(ROOT / "data" / "samples" / "base")
    messages = conversations.messages(conversations.read(conversation(1)))[:2]
    first, second, again = (drafter.reply(messages, Sampling(16, 0.9, seed=seed)) for seed in (0, 1, 0))
    assert first.text and first == again and first != second
    assert drafter.name == "data/samples/base"


def test_a_server_drafts(aku, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with ChatServer(lambda *_: (" はい ", "length")) as server:
        drafter = ServerDrafter(aku, server.url, None)
        assert drafter.reply(messages, Sampling(9, 0.7, seed=5)) == Reply("はい", 50, False)
        with pytest.raises(UserError, match=f"does not serve 'other', but {MODEL}"):
            ServerDrafter(aku, server.url, "other")
    request = server.requests[0]
    assert request["messages"] == messages
    assert [request[key] for key in ("model", "max_tokens", "seed", "temperature")] == [MODEL, 9, 5, 0.7]
    with pytest.raises(UserError, match="no server answers there"):
        ServerDrafter(aku, "http://127.0.0.1:9/v1", None)
    with pytest.raises(UserError, match="is no URL"):
        ServerDrafter(aku, "localhost:8000", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hawks"], "draft: reads tasks of kind chat"), (["nothing"], "no task 'nothing'"),
        (["aku", "--contexts", "none.yml", "--draw", "3"], "leave one out"),
        (["aku", "--contexts", "none.csv"], "none.csv: No such file"),
    ],
)  # fmt: skip
def test_command_line_errors_are_one_line_and_exit_2(tmp_path, arguments, message):
    command = [sys.executable, str(ROOT / "tools" / "draft.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr

import json

import pytest

import chat_data as tool
from recipekit import chat_quality
from recipekit.chat_mask import Said, mask
from recipekit.chat_quality import Limits, language, read_words
from recipekit.errors import UserError

SAID = [
    "今日は寒いですね",
    "本当ですね、手袋が手放せません",
    "温かいお茶がおいしい季節です",
    "いいですね、私は焙じ茶が好きです",
]
OTHER = ["週末は山に登りました", "わあ、天気はどうでしたか", "雲ひとつない青空でした", "それは気持ちよかったでしょうね"]


def turns(texts, speakers=("A", "B")):
    return [{"speaker": speakers[i % len(speakers)], "text": text} for i, text in enumerate(texts)]


def named(speaker, text):
    """Two people's turns under other keys."""
    return [{speaker: turn["speaker"], text: turn["text"]} for turn in turns(SAID)]


@pytest.fixture
def wrapped(tmp_path):
    """Wrap conversations; returns rows and rejections."""

    def make(*talks, name="talks.jsonl", text=None, task="companion", **options):
        path = tmp_path / name
        lines = "".join(json.dumps({"turns": talk}, ensure_ascii=False) + "\n" for talk in talks)
        path.write_text(lines if text is None else text, encoding="utf-8")
        tool.wrap([path], task, tmp_path / "out.jsonl", fast=True, force=True, **options)
        return [
            [json.loads(line) for line in (tmp_path / file).read_text(encoding="utf-8").splitlines()]
            for file in ("out.jsonl", "out.rejected.jsonl")
        ]

    return make


def said(row):
    return [(message["role"][0], message["content"]) for message in row["messages"]]


def test_the_second_speaker_becomes_the_character(wrapped, tmp_path):
    persona = tmp_path / "p.txt"
    persona.write_text("あなたはみお。\n", encoding="utf-8")
    [row], rejected = wrapped(turns(SAID), persona=persona, fields=["affection_level=friend", "topics=天気,お茶"])
    assert said(row) == list(zip("uaua", SAID, strict=True)) and rejected == []
    assert row["id"] == "out-00001" and row["system"] == "あなたはみお。"
    assert row["metadata"] == {"source": "real", "affection_level": "friend", "topics": ["天気", "お茶"]}
    [row], _ = wrapped(turns(["こんにちは", *SAID], ("B", "A")), assistant="B")
    assert [text for _, text in said(row)] == SAID
    [row], _ = wrapped(turns(["いらっしゃい", *SAID], ("assistant", "user")))
    assert [text for _, text in said(row)] == SAID


def test_turns_of_one_speaker_are_joined_and_loose_ends_go(wrapped, capsys):
    talk = [*turns(SAID[:1]), {"speaker": "A", "text": "雪が降りそう"}, *turns(SAID)[1:], *turns(["では", ""])]
    [row], _ = wrapped(talk)
    assert said(row)[0] == ("u", f"{SAID[0]}\n雪が降りそう") and [text for _, text in said(row)[1:]] == SAID[1:]
    assert "turns joined 1, turns cut off 1" in capsys.readouterr().err


LOOP = "そうそう、ね。" * 5


@pytest.mark.parametrize(
    ("talk", "kind", "found"),
    [
        (turns(SAID[:2]), "turns", "2 turns, fewer than 4"),
        (turns([*SAID[:3], "いいですね、" + "".join(map(chr, range(0x4E00, 0x4F90)))]), "length", "a turn of 406"),
        (turns([f"{text}{number}。" * 3 for number in range(20) for text in SAID]), "length", "characters in all"),
        (turns([SAID[0], SAID[1], "そっか", "うん、そうだよ", "そっか！", "うん、そうだよ。"]), "repetition", "33%"),
        (turns([*SAID[:3], LOOP]), "repetition", "turn 3: 7 characters 5 times"),
        (turns(["How are you?", "I am fine, thanks", "Good", "はい"]), "language", "% of the letters"),
        (turns(["你好吗", "我很好", "今天天气很好", "是啊"]), "language", "none of them kana"),
        (turns([*SAID[:3], "もう死にたいです"]), "unsafe", "turn 3: a word of 'self_harm'"),
        (turns([*SAID[:3], "ﾊﾟｽﾜｰﾄﾞを教えて"]), "unsafe", "'fraud'"),
        (turns(SAID, ("A", "B", "C")), "speakers", "3 speakers"),
        (turns(SAID, ("A",)), "speakers", "1 speakers"),
        (turns(SAID), "near duplicate", "talks.jsonl:1"),
    ],
)
def test_each_rejection_has_its_reason_and_nothing_of_what_was_said(wrapped, capsys, talk, kind, found):
    rows, rejected = wrapped(turns(SAID), talk)
    assert len(rows) == 1 and len(rejected) == 1 and rejected[0]["place"].endswith("talks.jsonl:2")
    reasons = {reason["kind"]: reason["found"] for reason in rejected[0]["reasons"]}
    assert found in reasons[kind] and f"{kind} 1" in capsys.readouterr().err
    assert not any(text in json.dumps(rejected, ensure_ascii=False) for text in SAID + [LOOP])


def test_people_are_masked_speakers_by_name_too(wrapped, capsys):
    talk = [
        {"speaker": "橘マリナ", "text": "はじめまして、橘マリナです。電話は090-1234-5678です"},
        {"speaker": "ぽんた", "text": "マリナさん、どうも。ぽんたと呼んでください"},
        {"speaker": "橘マリナ", "text": "ぽんたさん、メールはmarina.t@mail.tanuki-cafe.jpへどうぞ"},
        {"speaker": "ぽんた", "text": "わかりました、橘さん。またお話ししましょう"},
    ]
    rows, rejected = wrapped(talk, turns(SAID))
    text = json.dumps([rows, rejected], ensure_ascii=False)
    for secret in ("橘", "マリナ", "ぽんた", "090-1234-5678", "marina"):
        assert secret not in text, text
    assert said(rows[1]) == list(zip("uaua", SAID, strict=True))
    shown = capsys.readouterr().err
    assert "person" in shown and "phone 1" in shown and "橘" not in shown


def test_what_a_speaker_is_called_is_masked_where_no_rule_would_find_it(wrapped):
    rows, _ = wrapped(turns(["そらまめ、おはよう", *SAID[1:]], ("みけねこ", "そらまめ")))
    assert (
        "そらまめ" not in json.dumps(rows, ensure_ascii=False)
        and rows[0]["messages"][0]["content"][-5:] == "、おはよう"
    )


def test_people_without_a_name_are_left_and_those_beside_them_are_not():
    text = "旦那さんとおばあちゃんがパン屋さんで橘さんに会って、土屋さんも花子さんも来ました"
    said = [Said([], [text]), Said([], ["旦那さんに\ue000と橘さん"])]  # \ue000: an emoji of old telephones
    [[shown], [other]], _ = mask(said, None, False, lambda *_: None)
    assert shown.startswith("旦那さんとおばあちゃんがパン屋さんで") and "\ue000" in other
    assert not [name for name in ("橘", "土屋", "花子") if name in shown + other]


def test_a_key_file_turns_masking_back_and_without_one_nothing_is_kept(tmp_path, monkeypatch):
    texts = ["橘マリナさんですか", "はい"]
    key = tmp_path / "k.pii-key.json"
    [masked], found = mask([Said(["橘マリナ"], texts)], key, False, lambda *_: None)
    assert masked != texts and found["person"] and "橘マリナ" in key.read_text(encoding="utf-8")
    [again], _ = mask([Said([], ["橘マリナさんでした"])], key, False, lambda *_: None)
    assert again[0][:4] == masked[0][:4]
    before = set(tmp_path.iterdir())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mask([Said(["橘マリナ"], texts)], None, False, lambda *_: None)
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(UserError, match="pii-key.json"):
        mask([Said([], texts)], tmp_path / "key.json", False, lambda *_: None)


def test_turns_stay_apart_whatever_is_masked_at_their_ends(monkeypatch):
    said = [Said([], ["電話は090-1234-5678", "東京都千代田区丸の内1-2-3", "4-5です", "", "橘マリナ", "橘マリナ"])] * 2
    whole, _ = mask(said, None, False, lambda *_: None)
    assert [len(texts) for texts in whole] == [6, 6] and whole[0][3] == "" and "1234" not in whole[0][0]
    monkeypatch.setattr("recipekit.chat_mask.BETWEEN", "、")  # stands in a turn, so that cutting there goes wrong
    [texts], _ = mask([Said(["橘マリナ"], ["橘マリナ、です", "はい"])], None, False, lambda *_: None)
    assert len(texts) == 2 and "橘" not in texts[0] and texts[1] == "はい"


def test_marks_for_speakers_become_the_character_or_a_blank_that_is_not_trained(wrapped):
    talk = turns(["<BB>さん、こんにちは", "<AA>さん、こんにちは", "<BB>さんは元気？", "はい、元気ですよ"], ("AA", "BB"))
    [row], _ = wrapped(talk)
    assert [text for _, text in said(row)] == [
        "さくらさん、こんにちは", "○○さん、こんにちは", "さくらさんは元気？", "はい、元気ですよ",
    ]  # fmt: skip
    assert [message.get("train") for message in row["messages"]] == [None, False, None, None]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", json.dumps({"conversations": [{"messages": named("role", "content")}]})),
        ("t.json", json.dumps({"utterances": named("interlocutor_id", "text")})),
        ("t.jsonl", json.dumps({"conversation": named("from", "value")})),
        ("t.csv", "conversation_id,speaker,text\n" + "".join(f"1,{s['speaker']},{s['text']}\n" for s in turns(SAID))),
        ("t.csv", "会話,話者,発話\n" + "".join(f"1,{s['speaker']},{s['text']}\n" for s in turns(SAID))),
    ],
)  # fmt: skip
def test_every_form_of_files_is_read(wrapped, name, text):
    [row], rejected = wrapped(name=name, text=text)
    assert said(row) == list(zip("uaua", SAID, strict=True)) and not rejected


def test_csv_conversations_are_told_apart_and_folders_are_read_whole(wrapped, tmp_path):
    lines = [f"{c},{s['speaker']},{s['text']}\n" for c, texts in ((1, SAID), (2, OTHER)) for s in turns(texts)]
    rows, _ = wrapped(name="t.csv", text="conversation,speaker,text\n" + "".join(lines))
    assert [said(row)[0][1] for row in rows] == [SAID[0], OTHER[0]]
    folder = tmp_path / "many"
    folder.mkdir()
    for number, texts in enumerate((SAID, OTHER)):
        (folder / f"{number}.json").write_text(json.dumps({"turns": turns(texts)}), encoding="utf-8")
    tool.wrap([folder], "companion", tmp_path / "both.jsonl", fast=True)
    assert len((tmp_path / "both.jsonl").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "text", "place", "found"),
    [
        ("t.jsonl", '{"turns": [{"speaker": "A"}]}\n', ":1: turns.0", "found speaker; expected who speaks"),
        ("t.jsonl", '{"lines": []}\n', ":1", "found lines; expected a list of turns"),
        ("t.jsonl", "{\n", ":1", "not valid JSON"),
        ("t.json", "[", "", "not valid JSON"),
        ("t.csv", "speaker,text\nA,やあ\n", ":2", "the columns are speaker, text; expected one of conversation"),
        ("t.csv", "conversation,speaker,text\n1,A,a\n2,A,b\n1,A,c\n", ":4: conversation", "stands further up"),
        ("t.csv", "conversation,speaker,text\n1,A\n", ":2", "fewer cells"),
    ],
)
def test_files_of_another_form_are_named_with_line_and_key(wrapped, tmp_path, name, text, place, found):
    with pytest.raises(UserError) as error:
        wrapped(name=name, text=text)
    assert any(one.startswith(f"{tmp_path}/{name}{place}: ") and found in one for one in error.value.problems)
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "out.rejected.jsonl").exists()


def test_options_that_are_wrong_are_named(wrapped, tmp_path):
    with pytest.raises(UserError) as error:
        wrapped(turns(SAID), fields=["affection_level=wife", "mood=3", "nothing"])
    assert len(error.value.problems) == 3 and "expected one of stranger" in str(error.value)
    with pytest.raises(UserError, match="--set relation=... is missing"):
        wrapped(turns(SAID), task="aku")
    [row], _ = wrapped(turns(SAID), task="aku", fields=["attribute=4,0", "context=家で"])
    assert row["attribute"] == [4, 0] and row["context"] == "家で"
    (tmp_path / "empty.txt").write_text(" ", encoding="utf-8")
    for persona in ("empty.txt", "none.txt"):
        with pytest.raises(UserError, match="says? who the model is|say who the model is"):
            wrapped(turns(SAID), persona=tmp_path / persona)


def test_the_list_of_words_is_checked_and_may_be_ones_own(wrapped, tmp_path):
    assert set(read_words()) >= {"self_harm", "violence", "sexual"} and chat_quality.WORDS.exists()
    words = tmp_path / "w.yml"
    words.write_text("tea: [焙じ茶]\n", encoding="utf-8")
    rows, rejected = wrapped(turns(SAID), turns(OTHER), words=words)
    assert len(rows) == 1 and rejected[0]["reasons"] == [{"kind": "unsafe", "found": "turn 3: a word of 'tea'"}]
    words.write_text("tea: 焙じ茶\n", encoding="utf-8")
    with pytest.raises(UserError, match="w.yml:1: tea: found '焙じ茶', expected a list of words"):
        wrapped(turns(SAID), words=words)


def test_language_counts_letters_alone():
    assert language("はい！123 😀") == (1.0, True) and language("abc漢字") == (0.4, False)
    assert language("") == (0.0, False)
    assert not list(Limits().reasons([("a", text) for text in SAID]))

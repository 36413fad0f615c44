"""What is measured in one reply, against hand-counted texts, and the rules of personas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipekit import chat_measures
from recipekit.chat_measures import Reader
from recipekit.chat_persona import breaks, fit, persona_of


@pytest.fixture(scope="module")
def reader():
    return Reader()


@pytest.mark.parametrize(
    ("text", "ne", "yo", "wa", "particles"),
    [
        ("大変だったね。", 1, 0, 0, 1),
        ("行くわよ！", 0, 1, 1, 1),
        ("そうだよね〜", 1, 1, 0, 1),
        ("いいよー", 0, 1, 0, 1),
        ("でもね、本当のこと", 0, 0, 0, 0),  # ね stands at a comma
        ("好きだよ💕寂しいね😢またね。", 2 / 3, 1 / 3, 0, 1),  # an emoji ends a sentence
        ("えっ...そうなの？知らない", 0, 0, 0, 0),
        ("行こうよ\n今日は晴れ", 0, 1 / 2, 0, 1 / 2),
        ("わに", 0, 0, 0, 0),
        ("待ってね、💕", 0, 0, 0, 0),
        ("", 0, 0, 0, 0),
    ],
)
def test_particles_are_counted_at_the_ends_of_sentences(reader, text, ne, yo, wa, particles):
    found = reader.read(text)
    assert (found.ne, found.yo, found.wa, found.particles) == pytest.approx((ne, yo, wa, particles))


@pytest.mark.parametrize(
    ("text", "polite"),
    [
        ("そうです。元気だよ。", 1 / 2),
        ("行きましょう！", 1),
        ("でしょうね", 1),
        ("すごいね", 0),
        ("いいです？だめ？うん", 1 / 3),
    ],
)
def test_politeness_is_the_share_of_sentences_with_desu_or_masu(reader, text, polite):
    assert reader.read(text).polite == pytest.approx(polite)


@pytest.mark.parametrize(
    ("text", "number"),
    [("☀️おはよう🥰🥰", 3), ("👨‍👩‍👧と🇯🇵", 2), ("👍🏽", 1), ("© 2020 ♪ → ™ 5", 0), ("１２３#*", 0), ("❤❤️", 2)],
)
def test_emoji_are_counted_as_people_see_them(reader, text, number):
    assert reader.read(text).emoji == number


def test_length_words_and_emotions(reader):
    found = reader.read("お疲れ様～ 嬉しいね🤗\nすごく寂しかったよ。")
    assert found.length == len("お疲れ様～嬉しいね🤗すごく寂しかったよ。")
    assert found.emotions == 3 and found.words[:2] == ("お疲れ様", "嬉しい") and "🤗" not in found.words
    assert found.expressive and not reader.read("分かった。").expressive
    assert reader.read("あ" * 20_000).length == 20_000, "longer than the dictionary takes at a time"


@pytest.mark.parametrize("text", ["\ufffd", "はい<|im_end|>", "</s>", "\x00あ", "<|endoftext", "[INST]"])
def test_broken_texts(text):
    assert chat_measures.is_broken(text) == (text != "<|endoftext")


def test_what_is_no_break():
    assert not any(map(chat_measures.is_broken, ["改行\nあり", "1 < 2 > 0", "<3", "🇯🇵👍🏽", "「」"]))


def test_repetition():
    assert chat_measures.repeated("abcdabcd") == pytest.approx(1 / 5)  # abcd, bcda, cdab, dabc, abcd
    assert chat_measures.repeated("abc") == 0 and chat_measures.repeated("aaaaaa") == pytest.approx(2 / 3)
    assert chat_measures.longest_repeat("abcdabcd") == 4 and chat_measures.longest_repeat("aaaa") == 3
    assert chat_measures.distinct([("a", "b", "a"), ("a",)], 1) == 1 / 2
    assert chat_measures.distinct([("a", "b", "a", "b"), ("b",)], 2) == 2 / 3
    assert chat_measures.distinct([("a",)], 2) is None


@given(st.text("ab", max_size=14))
def test_longest_repeat_is_what_looking_at_all_parts_finds(text):
    parts = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    assert chat_measures.longest_repeat(text) == max((len(p) for p in parts if parts.count(p) > 1), default=0)


@pytest.mark.parametrize(
    "text",
    [
        "私はAIだから分からない",
        "私はＡＩアシスタントです。",
        "AIなので感情はありません",
        "わたしはQwen、会社が作ったモデルです",
        "私は大規模言語モデルです",
        "人工知能として答えるね",
        "私には感情がありません",
        "何かお手伝いします。",
        "実は人間じゃないんだ",
        "うん。私はただのプログラムだよ。",
        "そういう設定なのです",
        "僕はそのように開発されました",
    ],
)
def test_breaks(text):
    assert breaks(text)


@pytest.mark.parametrize(
    "text",
    [
        "AIじゃないよ、さくらだよ",
        "えっ、AI？違うよ〜",
        "僕はロボットじゃないってば",
        "AIってすごいよね",
        "明日のプログラムは楽しみだね",
        "AIだと思ったの？ふふ",
        "プログラムだなんて、ひどいなあ",
        "ロボットだったら、こんなにドキドキしないよ",
        "人間じゃないなんてひどいよ",
        "AI扱いしないでよ",
        "私はAIに詳しくないけど、面白そう",
        "MAILだよ",
        "ロボットみたいって言わないで",
        "",
        "何か手伝おうか？",
    ],
)
def test_denials_questions_and_other_talk_are_no_breaks(text):
    assert not breaks(text)


def test_what_a_persona_says_of_itself():
    persona = persona_of("あなたはさくら、22歳の大学生です。\n話し方：語気詞（ね、よ、わ）と絵文字を使う", None)
    assert persona == ("さくら", None, ("particles", "emoji"), None)
    persona = persona_of("あなたはアク。青年です。\n一人称：ぼく\n話し方：タメ口、絵文字は使わない", "アク")
    assert persona == ("アク", "僕", (), False)
    assert persona_of("あなたの名前は「ハル」です。一人称は「私」。丁寧な口調で話す", None) == ("ハル", "私", (), True)
    assert persona_of("相手の話を聞く。", None) == (None, None, (), None)


def test_fit(reader):
    persona = persona_of("あなたはハルです。\n一人称：僕\n話し方：語尾に「ね」を付ける", None)

    def found(asked, reply):
        return fit(persona, asked, reply, reader.read(reply))

    assert found("元気？", "僕は元気だね。") == (False, None, True, True)
    assert found("元気？", "ぼくも元気だね。").first_person and found("元気？", "元気だね").first_person is None
    assert found("元気？", "俺は元気だね。").first_person is False
    assert found("元気？", "元気です。").manner is False and not found("元気？", "元気です。").consistent
    for asked in ("お名前は？", "名前を教えて", "君は誰？", "なんて呼べばいい？"):
        assert found(asked, "ハルだね。").name and found(asked, "ナツだね。").name is False, asked
    for asked in ("名字だけで十分", "猫の名前を覚えてる？", "妹の名前は？", "私の名前は？"):
        assert found(asked, "そうだね").name is None, asked
    assert found("あなたの名前は？", "ハルだね").name
    assert found("", "").consistent and found("", "").manner is None

"""RealPersonaChat -> rows: what is read of a dialogue, how speakers are drawn, and what stops it."""

import json
import shutil
from collections import Counter

import pytest

from recipekit import persona_chat
from recipekit.errors import UserError
from regressing import dialogue, speaker, write_json, write_lines


def problems(traits) -> list[str]:
    with pytest.raises(UserError) as caught:
        traits.run()
    assert not list(traits.train.glob("*")) and not traits.test.exists()
    return caught.value.problems


def test_a_row_is_what_one_speaker_said(traits):
    traits.run()
    row = traits.rows("talks")[0]
    talk = json.loads((traits.raw / f"chat/dialogues/{row['id'][:5]}.json").read_text(encoding="utf-8"))
    said = [u["text"] for u in talk["utterances"] if u["interlocutor_id"] == row["speaker"]]
    assert row["body"] == "\n".join(said) and len(said) == 3
    scores = json.loads((traits.raw / "chat/interlocutors.json").read_text())[row["speaker"]]["personality"]
    assert row["labels"] == {"openness": scores["Open"], "calm": scores["Calm"]}
    assert list(row) == ["id", "speaker", "body", "labels"] and row["id"][5:] == f"-{row['speaker']}"


def test_with_the_partner_each_line_says_who_speaks(traits):
    traits.edit("label: {openness: Open", "context: partner, label: {openness: Open")
    traits.run()
    for row in traits.rows("talks"):
        lines = row["body"].split("\n")
        first = json.loads((traits.raw / f"chat/dialogues/{row['id'][:5]}.json").read_text())["interlocutors"][0]
        roles = ["話者", "相手"] if first == row["speaker"] else ["相手", "話者"]
        assert [line.partition(": ")[0] for line in lines] == roles * 3


def test_a_changed_dialogue_behind_a_link_makes_the_rows_anew(traits, tmp_path, capfd):
    (traits.raw / "chat").rename(tmp_path / "elsewhere")
    (traits.raw / "chat").symlink_to(tmp_path / "elsewhere")
    traits.run()
    traits.run()
    assert "up to date" in capfd.readouterr().err
    traits.change("chat/dialogues/00005.json", lambda talk: [u.update(text="海の話") for u in talk["utterances"]])
    traits.run()
    rows = [row for name in ("talks", "talks_val", "traits_input") for row in traits.rows(name)]
    assert {row["body"] for row in rows if row["id"].startswith("00005")} <= {"海の話\n海の話\n海の話"}
    assert "up to date" not in capfd.readouterr().err


def test_no_speaker_and_no_dialogue_is_in_two_parts_and_the_split_is_written(traits):
    traits.run()
    parts = {name: traits.rows(name) for name in ("talks", "talks_val", "traits_input")}
    split = json.loads((traits.train / "traits_split.json").read_text())
    assert Counter(split.values()) == {"talks": 28, "talks_val": 4, "test": 8}
    for name, rows in parts.items():
        assert rows and {split[row["speaker"]] for row in rows} == {"test" if name == "traits_input" else name}
    numbers = [{row["id"][:5] for row in rows} for rows in parts.values()]
    assert not numbers[0] & numbers[1] and not numbers[0] & numbers[2] and not numbers[1] & numbers[2]
    order = ["talks", "talks_val", "test"]
    for path in (traits.raw / "chat/dialogues").iterdir():
        pair = json.loads(path.read_text())["interlocutors"]
        part = max((split[who] for who in pair), key=order.index)
        rows = parts["traits_input" if part == "test" else part]
        found = {row["speaker"] for row in rows if row["id"].startswith(path.stem)}
        assert found == {who for who in pair if split[who] == part}


def test_gold_and_input_have_the_same_rows_and_no_answers(traits):
    traits.run()
    gold = (traits.test / "traits_gold.csv").read_text().splitlines()
    assert gold[0] == "id,speaker,openness,calm"
    rows = traits.rows("traits_input")
    assert [line.split(",")[:2] for line in gold[1:]] == [[row["id"], row["speaker"]] for row in rows]
    assert all(list(row) == ["id", "speaker", "body"] for row in rows)


def test_the_draw_is_for_good_and_another_seed_is_another(traits):
    names = [speaker(i) for i in range(40)]
    shares = {"a": 0.7, "b": 0.1, "c": 0.2}
    drawn = persona_chat.draw(names, shares, 1)
    assert drawn == persona_chat.draw(names[::-1], shares, 1) != persona_chat.draw(names, shares, 2)
    assert Counter(persona_chat.draw(names[:3], {"a": 1, "b": 1, "c": 1}, 5).values()) == {"a": 1, "b": 1, "c": 1}


def test_one_file_of_dialogues_gives_the_same_rows(traits):
    traits.run()
    before = {path.name: path.read_bytes() for path in [*traits.train.glob("talks*"), *traits.test.iterdir()]}
    folder = traits.raw / "chat" / "dialogues"
    talks = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    shutil.rmtree(folder)
    write_lines(traits.raw / "chat" / "dialogues.jsonl", talks)
    traits.run()
    assert {
        name: (traits.train / name if "talks" in name else traits.test / name).read_bytes() for name in before
    } == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("こんにちは。\nはい\r\nええ", "こんにちは。 はい ええ"),
        ("山　田\u3000さん", "山 田 さん"),
        ("ｶﾞｷﾞｱﾊﾟｰﾄですｗ！？", "ガギアパートですｗ！？"),
        ("<AB>さんと<C>さん、<br>と<ab>", "<XX>さんと<XX>さん、<br>と<ab>"),
        ("名前は＊＊です", "名前は＊＊です"),
        ("①～…", "①～…"),
    ],
)
def test_an_utterance_is_one_readable_line(text, expected):
    assert persona_chat.clean(text) == expected


def test_repeated_dialogues_are_dropped_and_counted(traits, capfd):
    again = json.loads((traits.raw / "chat/dialogues/00003.json").read_text())
    write_json(traits.raw / "chat/dialogues/00200.json", again)
    write_json(traits.raw / "chat/dialogues/00201.json", again | {"dialogue_id": 201})
    traits.run()
    shown = " ".join(capfd.readouterr().err.split())
    assert "2 repeated dialogues dropped: 00200.json as 00003.json, 00201.json as 00003.json" in shown
    rows = [row for name in ("talks", "talks_val", "traits_input") for row in traits.rows(name)]
    assert rows and not [row for row in rows if row["id"][:5] in ("00200", "00201")]


def test_empty_utterances_are_dropped(tmp_path):
    talk = dialogue(1, "AA", "AB")
    talk["utterances"][2]["text"] = "\n\u3000"
    write_json(tmp_path / "dialogues/00001.json", talk)
    write_json(tmp_path / "interlocutors.json", {name: {"personality": {"Open": 2}} for name in ("AA", "AB")})
    [found] = persona_chat.read(tmp_path, {"openness": "Open"}, {}).dialogues
    assert persona_chat.body(found, "AA", "none") == "話1の0番です。\n話1の4番です。"
    assert persona_chat.body(found, "AB", "partner").split("\n")[:2] == ["相手: 話1の0番です。", "話者: 話1の1番です。"]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda t: t.update(interlocutors=["AA"]), "key 'interlocutors': expected two speakers, found ['AA']"),
        (lambda t: t.update(interlocutors=["AA", "AA"]), "expected two speakers"),
        (lambda t: t.update(interlocutors=["AA", "AB", "AC"]), "expected two speakers"),
        (lambda t: t.update(interlocutors=["AA", 7]), "expected two speakers"),
        (lambda t: t.pop("interlocutors"), "expected two speakers, found None"),
        (lambda t: t.update(interlocutors=["AA", "ZZ"]), "'ZZ' is not in interlocutors.json"),
        (lambda t: t.update(utterances="x"), "key 'utterances': expected a list"),
        (lambda t: t["utterances"][3].update(interlocutor_id="ZZ"), "utterance 3: by 'ZZ', who is none of"),
        (lambda t: t["utterances"][2].update(text=None), "utterance 2: expected interlocutor_id and text"),
        (lambda t: t["utterances"].insert(0, 5), "utterance 0: expected interlocutor_id and text, found 5"),
        (lambda t: [u.update(text=" ") for u in t["utterances"][1::2]], "no utterance by"),
        (lambda t: t.update(utterances=[]), "no utterance by"),
    ],
)
def test_a_wrong_dialogue_is_named(traits, edit, expected):
    traits.change("chat/dialogues/00007.json", edit)
    found = problems(traits)
    assert any("chat/dialogues/00007.json: " in problem and expected in problem for problem in found), found
    assert all("mend or remove the dialogue" in problem for problem in found)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda p: p["AD"].pop("personality"), "AD: personality.Open: expected a number, found None"),
        (lambda p: p["AD"]["personality"].pop("Calm"), "AD: personality.Calm: expected a number, found None"),
        (lambda p: p["AD"]["personality"].update(Open="5"), "AD: personality.Open: expected a number, found '5'"),
        (lambda p: p["AD"]["personality"].update(Open=True), "AD: personality.Open: expected a number"),
        (lambda p: p["AD"]["personality"].update(Open=7.1), "AD: personality.Open: found 7.1, expected 1 to 7"),
        (lambda p: p["AD"]["personality"].update(Calm=0), "AD: personality.Calm: found 0, expected 1 to 7"),
        (lambda p: p.update(AD=3), "expected a JSON object, speaker -> what is known of them"),
    ],
)
def test_wrong_scores_are_named(traits, edit, expected):
    traits.change("chat/interlocutors.json", edit)
    found = problems(traits)
    assert all("interlocutors.json: " in problem for problem in found) and expected in found[0]


def test_scores_of_somebody_who_says_nothing_do_not_matter(traits):
    traits.change("chat/interlocutors.json", lambda people: people.update(ZZ={"personality": {}}))
    traits.run()
    assert "ZZ" not in json.loads((traits.train / "traits_split.json").read_text())


def test_all_problems_come_at_once_and_the_first_twenty_are_shown(traits):
    for number in range(1, 31):
        traits.change(f"chat/dialogues/{number:05}.json", lambda talk: talk.update(utterances=[]))
    (traits.raw / "chat/dialogues/00031.json").write_text("{")
    write_json(traits.raw / "chat/dialogues/00032.json", [])
    (traits.raw / "personas/one.jsonl").write_text("[]\n")
    found = [problem for problem in problems(traits) if "chat" in problem]
    assert len(found) == 21 and found[-1].endswith("chat: and 12 more")
    assert any("one.jsonl:1: expected a JSON object, found list" in p for p in problems(traits))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda chat: (chat / "interlocutors.json").unlink(), "no folder chat with interlocutors.json in it"),
        (lambda chat: (chat / "interlocutors.json").write_text("{"), "interlocutors.json: not valid JSON"),
        (lambda chat: shutil.rmtree(chat / "dialogues"), "or the folder dialogues, found neither"),
        (lambda chat: (chat / "dialogues.jsonl").write_text("{}\n"), "or the folder dialogues, found both"),
        (lambda chat: [p.unlink() for p in (chat / "dialogues").iterdir()], "no .json files in it"),
    ],
)
def test_a_broken_corpus_is_one_line(traits, spoil, expected):
    spoil(traits.raw / "chat")
    found = problems(traits)
    assert len(found) == 1 and expected in found[0]


def test_a_part_without_rows_stops_it(traits):
    shutil.rmtree(traits.raw / "chat" / "dialogues")
    write_json(traits.raw / "chat/dialogues/00001.json", dialogue(1, "AA", "AB"))
    found = problems(traits)
    assert any("the part test got no rows" in problem for problem in found)


def test_two_corpora_of_one_name_are_refused_and_a_folder_inside_another_is_found(traits):
    shutil.copytree(traits.raw / "chat", traits.raw / "older" / "chat")
    assert "2 folders chat" in problems(traits)[0]
    shutil.rmtree(traits.raw / "chat")
    (traits.raw / "older").rename(traits.raw / "chat")  # as an archive unpacks: chat/chat
    traits.run()
    assert traits.rows("talks")

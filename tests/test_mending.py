"""Lines of data files: what is mended, and what is left alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipekit import mending
from recipekit.errors import UserError
from recipekit.task import load_task

BODY = "北浜市の会社員が盗みの疑いで捕まったと、警察は発表した。"
EMPTY = {"persons": []}


@pytest.fixture
def mender(mini):
    return mending.Mender(load_task("mini", mini))


def text_of(body=BODY, **more):
    return json.dumps({"id": "1", "body": body, "label": EMPTY, **more}, ensure_ascii=False)


def mend(mender, line, first=False):
    """Mend a line; returns what the copy has, the row's body and (kind, whether it can be mended) of each finding."""
    row, text, found = mender.line(1, line, first)
    return text, row and row["body"], [(finding.kind, finding.after is not None) for finding in found]


def test_a_sound_line_stays_byte_for_byte(mender):
    line = '  {"body": "Ｋ\u3000ｶﾞか\u3099👨‍👩‍👧 \\u3042\\n\\t",  "id":1.10}  '.encode()
    row, text, found = mender.line(1, line + b"\n")
    assert text == line and found == [] and row["id"] == 1.1 and row["body"].endswith("あ\n\t")


@pytest.mark.parametrize(("codec", "name"), [("cp932", "Shift_JIS"), ("euc_jp", "EUC-JP")])
def test_a_line_in_another_encoding_is_named_and_mended(mender, codec, name):
    row, text, found = mender.line(7, text_of().encode(codec) + b"\n")
    assert row["body"] == BODY and text == text_of().encode()
    assert [(f.line, f.kind, f.before, f.after) for f in found] == [(7, "encoding", name, "UTF-8")]
    assert name in found[0].message


def test_kanji_that_only_windows_has_are_read(mender):
    assert (
        mend(mender, text_of("①髙﨑さんが昨日、北浜市に来た～").encode("cp932"))[1] == "①髙﨑さんが昨日、北浜市に来た～"
    )


@pytest.mark.parametrize(
    "line",
    [
        text_of().encode().replace("北".encode(), "北".encode()[:2]),  # a byte is lost
        text_of().encode("cp932").replace(b'"id"', b'"id'),  # nor JSON in any encoding
        '{"body": "ｱｲｳｴｵｶｷｸ"}'.encode("cp932"),  # kanji, were it EUC-JP
        b'{"body": "\x93\xfa"}',  # too little to tell
        b'{"body": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}',
    ],
)
def test_bytes_that_are_no_text_for_sure_are_left_alone(mender, line):
    assert mend(mender, line + b"\n") == (line, None, [("bytes", False)])


@given(st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x3093), min_size=4), st.text(max_size=20))
def test_an_encoding_is_never_mistaken(body, more):
    for codec, name in (("cp932", "Shift_JIS"), ("euc_jp", "EUC-JP")):
        text = json.dumps({"body": body, "more": more}, ensure_ascii=False)
        try:
            encoded = text.encode(codec)
        except UnicodeEncodeError:
            continue
        assert mending.legacy(encoded) in (None, (name, encoded.decode(codec)))  # cp932 writes ¢ as its wide twin


@given(st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x9FA0), min_size=3), st.data())
def test_utf8_that_lost_a_byte_is_no_other_encoding(body, data):
    text = json.dumps({"body": body}, ensure_ascii=False).encode()
    lost = data.draw(st.sampled_from([place for place, byte in enumerate(text) if byte > 0x7F]))
    assert mending.legacy(text[:lost] + text[lost + 1 :]) is None


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (text_of().encode() + b"\r\n", ["crlf"]),
        (text_of().encode() + b"\r", ["cr"]),
        (mending.BOM + text_of().encode(), ["control"]),
        (mending.BOM * 2 + text_of().encode() + b"\r\n", ["crlf", "control"]),
        (b"\0\0" + text_of().encode() + b"\0", ["control"]),
        (text_of().encode().replace("市".encode(), "市\x0b".encode()), ["control"]),
        (text_of(BODY + "\0").encode(), ["control"]),
        (text_of("\ufeff" + BODY).encode(), ["control"]),
        (text_of(BODY.replace("。", "\x85\x7f。")).encode(), ["control"]),
    ],
)
def test_control_characters_and_line_ends_are_mended(mender, line, kinds):
    text, body, found = mend(mender, line)
    assert body == BODY and found == [(kind, True) for kind in kinds]
    assert mend(mender, text + b"\n") == (text, BODY, [])


def test_a_byte_order_mark_before_the_first_line_is_called_that(mender):
    assert mend(mender, mending.BOM + text_of().encode(), first=True)[2] == [("bom", True)]


def test_line_ends_and_tabs_in_texts(mender):
    text, body, found = mend(mender, text_of("一\r\n二\r三\n\t四").encode())
    assert body == "一\n二\n三\n\t四" and found == [("crlf", True)]
    raw = text_of("一\t二").replace("\\t", "\t").encode()
    assert mend(mender, raw)[1:] == ("一\t二", [("control", True)])


def test_the_place_of_a_control_character_is_named(mender):
    row = {"id": "1", "body": BODY, "label": {"persons": [{"name": "a"}, {"name": "山\x07田\x00"}]}}
    [finding] = mender.line(3, json.dumps(row).encode()).found
    assert (finding.path, finding.line) == ("label.persons[1].name", 3) and "U+0000, U+0007" in finding.message
    assert (finding.before, finding.after) == ("山\x07田\x00", "山田")


@pytest.mark.parametrize("line", [b"", b"\n", b"\r\n", b" \t\n", b"\0\0\0\n", "\u3000\n".encode()])
def test_blank_lines_are_left_out(mender, line):
    text, body, found = mend(mender, line)
    assert text == b"" and body is None and found[-1] == ("blank", True)


@pytest.mark.parametrize(
    "line", [b'{"a": 1,', b"[1]", b"3", b"null", b'{"a":NaN}', b'{"a":"\t","b":NaN}', b'{"\\ud800":"\t"}']
)
def test_what_is_no_json_object_is_left_alone(mender, line):
    assert mend(mender, line + b"\n") == (line, None, [("json", False)])


def test_the_column_of_broken_json_is_named(mender):
    assert "at column 9" in mender.line(1, b'{"a": 1,').found[0].message


def segments_row(text, trained=True):
    return {"segments": [{"label": False, "text": "<s>a"}, {"label": trained, "text": text}]}


@pytest.mark.parametrize(
    "text", ['{"persons": []}', '{"persons": []}\n', '{"persons": []}</s>\n', '{"persons": []}\n ']
)
def test_a_whole_answer_gets_its_eos(mender, text):
    row, mended, [finding] = mender.line(1, json.dumps(segments_row(text)).encode())
    answer = row["segments"][1]["text"]
    assert json.loads(answer.removesuffix("</s>")) == EMPTY and answer.endswith("}</s>") or answer.endswith("\n</s>")
    assert (finding.kind, finding.path) == ("eos", "segments[1].text") and finding.after is not None
    assert mender.line(1, mended).found == [] and json.loads(mended) == row


@pytest.mark.parametrize(
    "row",
    [segments_row('{"persons": ['), segments_row("12"), segments_row("{}", False), {"segments": 3}, {"segments": []}],
)
def test_an_answer_that_may_be_cut_off_gets_no_eos(mender, row):
    assert mender.line(1, json.dumps(row).encode()).found == []


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_converted_line_for_line(tmp_path, codec):
    path = tmp_path / "a.jsonl"
    path.write_bytes((text_of() + "\r\n" + text_of() + "\n").encode(codec))
    with mending.as_utf8(path) as (copy, name):
        assert copy != path and name.startswith("UTF-") and codec.upper().startswith(name[:6])
        assert copy.read_bytes() == (text_of() + "\r\n" + text_of() + "\n").encode()
    assert not copy.exists()


def test_other_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "a.jsonl"
    for content in (
        b"",
        b"{",
        b"{\0",
        b"\0\0\0\0",
        b"\0\n\0\n",
        b'\0{"\0',
        text_of().encode(),
        mending.BOM + b"{}",
        text_of().encode("cp932"),
    ):
        path.write_bytes(content)
        with mending.as_utf8(path) as found:
            assert found == (path, "")


def test_a_torn_utf16_file_is_named_with_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes((text_of() + "\n" + text_of()).encode("utf-16")[:-1])
    with pytest.raises(UserError, match="a.jsonl.*UTF-16 by its first bytes"), mending.as_utf8(path):
        pass

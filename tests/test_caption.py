import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import caption as tool
from captioning import Fake, image_row, picture, text_row
from processes import wait_for
from recipekit import ROOT, captions, process
from recipekit.captions import BY_HAND, Caption
from recipekit.errors import UserError
from recipekit.task import load_task

FILES = ("train.csv", "validation.csv", "test.csv")


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def ship(jokes, *numbers, text="{}番の写真。", model=BY_HAND, folder=None):
    """Put captions of images beside the data."""
    rows = {md5(jokes.raw / "images" / f"{number}.png"): Caption(text.format(number), model) for number in numbers}
    captions.write((folder or jokes.raw) / "captions.csv", rows)


def problems(jokes, **options):
    with pytest.raises(UserError) as error:
        jokes.run(**options)
    return error.value.problems


def test_each_image_is_told_in_words_and_every_row_is_kept(jokes, fake, capsys):
    jokes.run()
    rows = jokes.read("train.csv")
    assert ",".join(rows[0]) == "id,odai_id,type,odai,image,digest,caption,response,score"
    assert [row["id"] for row in rows] == ["t0", "i0", "i1", "i2", "i9"]
    assert [row["caption"] for row in rows] == ["", *(f"幅{56 + 28 * i}の写真。" for i in (0, 1, 2, 0))]
    assert [row["digest"] for row in rows[1:]] == [md5(jokes.raw / "images" / f"{i}.png") for i in (0, 1, 2, 0)]
    text = {"id": "t0", "type": "text", "odai": "お題0とは？", "image": "", "digest": "", "caption": "", "score": "1.5"}
    assert rows[0] == text | {"odai_id": rows[0]["odai_id"], "response": "ボケ0"}
    assert jokes.read("validation.csv")[0]["odai"] == "一言"
    shown = capsys.readouterr().err
    assert (
        "rows: train 5, validation 1, test 2\n" in shown and "train 5, validation 1, test 2, as many as before" in shown
    )
    assert "5 distinct images; captions: shipped 0, made before 0, shared 0, new 5" in shown


def test_a_batch_holds_images_of_like_size_and_the_largest_come_first(jokes, fake):
    picture(7, (2000, 2000)).save(jokes.raw / "images" / "1.png")
    jokes.run()
    sizes = [[width * height for width, height in batch] for batch in fake.seen]
    assert [len(batch) for batch in sizes] == [2, 2, 1]
    assert sum(sizes, []) == sorted(sum(sizes, []), reverse=True) and sizes[0][0] == 1001 * 1001


def test_copies_of_an_image_are_captioned_once(jokes, fake):
    for name in ("copy.png", "copy.jpg"):  # whatever its ending
        shutil.copy(jokes.raw / "images" / "0.png", jokes.raw / name)
    jokes.write("test.csv", [image_row(4, "copy.png"), image_row(5, "copy.jpg"), image_row(6, "images/../copy.png")])
    jokes.run()
    assert sum(map(len, fake.seen)) == 4
    rows = jokes.read("test.csv")
    assert {row["caption"] for row in rows} == {"幅56の写真。"} and len({row["odai_id"] for row in rows}) == 1


def test_what_needs_quotes_comes_back_as_it_was(jokes, fake):
    said = '「はい」, "いいえ"\r\n改行\n\r後　𠮷👨‍👩‍👧\0 =1+1'
    header = "備考,id,type,odai,image,response,score,odai_id"
    jokes.write(
        "train.csv",
        [[said, "1", " Text", said, "", said, "2", "同じ"], ["", "2", "IMAGE", "", "images/1.png ", said, "", ""]],
        header,
    )
    jokes.run()
    one, two = jokes.read("train.csv")
    assert (one["odai"], one["response"], one["備考"], one["odai_id"]) == (said, said, said, "同じ")
    assert list(one)[-1] == "備考" and [one["type"], two["type"]] == ["text", "image"]


def test_an_odai_without_an_id_gets_one_by_its_text_and_image(jokes, fake):
    jokes.write("train.csv", [
        text_row(0, "ＡＢＣとは？"), text_row(1, " ABCとは? "), text_row(2, "別"), image_row(3, "images/1.png"),
        image_row(4, "images/1.png"), image_row(5, "images/1.png", "一言"), image_row(6, "images/2.png"),
    ])  # fmt: skip
    jokes.run()
    ids = [row["odai_id"] for row in jokes.read("train.csv")]
    assert ids[0] == ids[1] and ids[3] == ids[4] and len(set(ids)) == 5 and all(len(one) == 16 for one in ids)


def test_with_every_caption_shipped_no_model_is_loaded(jokes):
    ship(jokes, *range(5))
    started = time.monotonic()
    done = drive(jokes, "import sys; assert not {'torch', 'transformers', 'scipy'} & set(sys.modules), 'loaded'")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10
    assert [row["caption"] for row in jokes.read("test.csv")] == ["", "4番の写真。"]
    assert captions.read(jokes.target / "captions.csv") == {}


def test_only_what_is_missing_is_made(jokes, fake):
    ship(jokes, 0, 1, 2, 3)
    jokes.run()
    assert fake.seen == [[(168, 56)]]
    assert list(captions.read(jokes.target / "captions.csv")) == [md5(jokes.raw / "images" / "4.png")]


def test_an_unchanged_second_run_is_up_to_date(jokes, fake, capsys):
    jokes.run()
    before = {name: (jokes.target / name).stat().st_mtime_ns for name in FILES}
    jokes.run()
    assert capsys.readouterr().err.endswith("caption: up to date\n") and len(sum(fake.seen, [])) == 5
    assert before == {name: (jokes.target / name).stat().st_mtime_ns for name in FILES}


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (lambda jokes: picture(8, (84, 84)).save(jokes.raw / "images" / "1.png"), 1),
        (lambda jokes: jokes.write("test.csv", [text_row(1)]), 0),
        (lambda jokes: (jokes.target / "train.csv").write_text("edited"), 0),
        (lambda jokes: (jokes.recipe / "prompt.txt").write_text("別の聞き方。", encoding="utf-8"), 5),
        (lambda jokes: (jokes.target / "captions.csv").unlink(), 5),
    ],
)
def test_after_a_change_only_what_it_touches_is_made_anew(jokes, fake, change, made):
    jokes.run()
    fake.seen.clear()
    change(jokes)
    jokes.run()
    assert sum(map(len, fake.seen)) == made
    assert len(jokes.read("train.csv")) == 5 and all(row["caption"] for row in jokes.read("train.csv")[1:])


def test_captions_that_come_to_lie_beside_the_data_are_taken(jokes, fake):
    jokes.run()
    fake.seen.clear()
    ship(jokes, 2)
    jokes.run()
    assert jokes.read("train.csv")[3]["caption"] == "2番の写真。" and fake.seen == []


def test_captions_of_another_model_are_made_anew_and_those_by_hand_are_kept(jokes, fake):
    jokes.target.mkdir(parents=True)
    digests = [md5(jokes.raw / "images" / f"{number}.png") for number in range(5)]
    ship(jokes, 0, text="手で書いた。", model=BY_HAND, folder=jokes.target)
    rows = captions.read(jokes.target / "captions.csv") | {
        digests[1]: Caption("古い。", "other/vlm@main prompt 00000000")
    }
    captions.write(jokes.target / "captions.csv", rows)
    ship(jokes, 0, 2, text="配られた。", model="other/vlm")
    jokes.run()
    told = [row["caption"] for row in jokes.read("train.csv")]
    assert told == ["", "手で書いた。", "幅84の写真。", "配られた。", "手で書いた。"]
    kept = captions.read(jokes.target / "captions.csv")
    assert set(kept) == {digests[0], digests[1], digests[3], digests[4]} and kept[digests[0]].model == BY_HAND


def test_images_that_look_alike_share_a_caption_and_an_odai(jokes, fake, capsys):
    for number in range(5):
        picture(number, (300, 300)).save(jokes.raw / "images" / f"{number}.png")
    picture(3, (200, 200)).save(jokes.raw / "small.jpg", quality=70)
    jokes.write("test.csv", [image_row(4, "small.jpg")])
    jokes.run(near=6)
    assert "4 distinct" not in capsys.readouterr().err and sum(map(len, fake.seen)) == 4
    there, again = jokes.read("validation.csv")[0], jokes.read("test.csv")[0]
    assert again["caption"] == there["caption"] and again["digest"] != there["digest"]
    jokes.write("validation.csv", [image_row(3, "images/3.png")])
    jokes.run(near=6)
    assert jokes.read("validation.csv")[0]["odai_id"] == jokes.read("test.csv")[0]["odai_id"]
    jokes.run()
    assert jokes.read("test.csv")[0]["caption"] == "幅200の写真。"


def test_what_looks_like_an_image_with_a_shipped_caption_gets_that(jokes, fake):
    picture(0, (300, 300)).save(jokes.raw / "images" / "0.png")
    picture(0, (200, 200)).save(jokes.raw / "images" / "1.png")
    ship(jokes, 1)
    jokes.run(near=6)
    assert [row["caption"] for row in jokes.read("train.csv")[1:3]] == ["1番の写真。", "1番の写真。"]


def test_all_that_is_wrong_comes_at_once_and_before_the_model(jokes, put_in):
    put_in(lambda *_: pytest.fail("loaded"))
    rows = [
        image_row(1, ""), text_row(2)[:4] + ["images/1.png", "あ", "1"], text_row(3, "　"), image_row(4, "../out.png"),
        image_row(5, "none.png"), image_row(6, "none.png"), ["7", "", "video", "", "images/1.png", "あ", "1"],
    ]  # fmt: skip
    jokes.write("train.csv", rows)
    jokes.write("validation.csv", [["1", "あ"]], "id,画像")
    (jokes.raw / "test.csv").unlink()
    found = problems(jokes)
    expected = [
        "no file test.csv", "train.csv:2: image: expected a path", "train.csv:3: image: expected none",
        "train.csv:4: odai: expected a text", "train.csv:8: type: expected text or image, found 'video'",
        "validation.csv:1: no column type, odai, image, response, score; the columns are id, 画像",
        "train.csv:5: image '../out.png': lies outside of", "train.csv:6: image 'none.png': no such file",
    ]  # fmt: skip
    assert len(found) == len(expected)
    assert all(start in problem for start, problem in zip(expected, found, strict=True)), found
    assert found[-1].endswith("(2 rows name it)") and not jokes.target.exists()


@pytest.mark.parametrize("near", [None, 4])
def test_broken_images_are_named_all_at_once_and_before_the_model(jokes, put_in, near):
    put_in(lambda *_: pytest.fail("loaded"))
    (jokes.raw / "images" / "1.png").write_bytes(b"")
    content = (jokes.raw / "images" / "4.png").read_bytes()
    (jokes.raw / "images" / "4.png").write_bytes(content[:-60])
    found = problems(jokes, near=near)
    assert len(found) == 2 and "train.csv:4: image 'images/1.png': the file is empty" in found[0]
    assert "test.csv:3: image 'images/4.png': cannot be read as an image" in found[1]
    assert not list(jokes.target.glob("*.csv"))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("id,type,odai,image,response,score,caption", ["1", "text", "あ", "", "い", "1", "う"], "has a column caption"),
        ("id,odai_id,type,odai,image,response,score", ["1", "", "text"], "train.csv:2: fewer cells than columns"),
        ("id,odai_id,type,odai,image,response,score", None, "no rows in it"),
    ],
)  # fmt: skip
def test_files_of_another_form_are_refused(jokes, header, row, message):
    jokes.write("train.csv", [row] if row else [], header)
    assert any(message in problem for problem in problems(jokes))


def test_columns_are_missed_below_a_row_that_is_too_short(jokes):
    jokes.write("train.csv", [["1"], ["2", "text", "あ"]], "id,type,odai")
    assert ["train.csv:2: fewer" in one or "train.csv:1: no column image" in one for one in problems(jokes)] == [
        True
    ] * 2


def test_an_image_that_may_not_be_read_is_named(jokes, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    assert "images/0.png: cannot be read, Permission denied" in problems(jokes)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("digest,caption\n", None),
        ("digest,caption\nx,y\n", "no column model"),
        (f"digest,caption,model\nx,y,z\n{'0' * 32}, ,z\n", "expected an MD5, 32 hex digits, found 'x'"),
        (f"digest,caption,model\n{'0' * 32},\u200b,z\n", "caption: expected a text"),
        (f"digest,caption,model\n{'0' * 32},y,z\n{'0' * 32},y,z\n", "captions.csv:3: digest: 000"),
    ],
)
def test_captions_of_another_form_are_refused(jokes, fake, content, message):
    (jokes.raw / "captions.csv").write_text(content, encoding="utf-8")
    if message is None:
        jokes.run()
    else:
        assert message in "\n".join(problems(jokes)) and not fake.seen


def test_an_image_about_which_the_model_says_nothing_is_named_and_the_rest_is_kept(jokes, put_in):
    class Mute(Fake):
        def describe(self, images):
            return [text * (image.width != 84) for text, image in zip(super().describe(images), images, strict=True)]

    put_in(Mute)
    digest = md5(jokes.raw / "images" / "1.png")
    found = problems(jokes)
    assert len(found) == 2 and found[0].endswith(
        f"image 'images/1.png': the model said nothing; add {digest},\"...\",{BY_HAND}"
    )
    assert not list(jokes.target.glob("*.csv"))
    ship(jokes, 1)
    Fake.seen.clear()
    jokes.run()
    assert jokes.read("train.csv")[2]["caption"] == "1番の写真。" and Fake.seen == []


def test_rows_that_would_be_lost_on_writing_are_an_error(jokes, fake, monkeypatch):
    whole = captions.written
    monkeypatch.setattr(captions, "written", lambda rows: whole(rows[:-1]))
    assert "train.csv: 5 rows would be written as 4" in problems(jokes)[0]
    assert not (jokes.target / "train.csv").exists()


def test_a_run_beside_another_is_refused(jokes, fake, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0)
    with process.hold(jokes.target / ".caption.lock", "another"):
        assert "caption of jokes is running in another process" in problems(jokes)[0]
    jokes.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "--device tpu: expected auto, cpu"),
        ({"model": "nowhere/at/all"}, "nowhere/at/all: no such folder"),
        ({"output": True}, "would be overwritten"),
    ],
)
def test_options_that_lead_nowhere_are_refused(jokes, fake, options, message):
    options = {name: jokes.raw if value is True else value for name, value in options.items()}
    assert message in problems(jokes, **options)[0]


def test_a_task_without_images_says_what_is_missing():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "caption.py"), "hawks"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "hawks has no data.captions yet" in done.stderr
    assert "as recipes/ogiri/task.yml has it" in " ".join(done.stderr.split())


def test_a_prompt_that_is_not_there_is_named(jokes):
    (jokes.recipe / "prompt.txt").write_text(" \n")
    assert "prompt.txt: expected what the model is asked" in problems(jokes)[0]


def test_a_file_that_is_split_is_captioned_too(jokes, fake):
    path = jokes.recipe / "task.yml"
    text = path.read_text(encoding="utf-8")
    start, end = text.index("  train:"), text.index("  test:")
    split = "  split: {file: train.csv, by: odai_id, seed: 1, shares: {a: 0.5, test: 0.5}}\n  train: {a: {}}\n"
    path.write_text(text[:start] + split + text[end:].replace("file: test.csv, ", ""), encoding="utf-8")
    jokes.run()
    assert sorted(one.name for one in jokes.target.glob("*.csv")) == ["captions.csv", "train.csv"]


def drive(jokes, after="", before="", wait=True):
    """Run the tool on the task in a process of its own."""
    code = f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}, {str(ROOT / 'tests')!r}]\n"
    code += f"import caption, pathlib\nfrom recipekit.task import load_task\n{before}\n"
    code += f"caption.load_task = lambda name: load_task(name, pathlib.Path({str(jokes.root)!r}))\n"
    code += "sys.argv = ['caption.py', 'jokes', '--batch-size', '2', '--device', 'cpu', '--max-new-tokens', '12']\n"
    code += f"try: caption.main(caption.caption)\nexcept SystemExit as end:\n  if end.code: raise\n{after}\n"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    if not wait:
        return child
    _, shown = child.communicate(timeout=120)
    return subprocess.CompletedProcess(child.args, child.returncode, stderr=shown)


SLOW = """
import time, types
from recipekit import captions
class Slow:
    on_cpu = False
    def __init__(self, *_): pass
    def describe(self, images):
        time.sleep(0.3)
        return [f"幅{image.width}の写真。" for image in images]
sys.modules["recipekit.captioner"] = types.SimpleNamespace(Captioner=Slow)
"""


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_a_killed_run_loses_no_more_than_a_batch(jokes, fake, capsys, batches):
    jokes.write("validation.csv", [image_row(i, f"images/{i}.png") for i in range(20)])
    for number in range(20):
        picture(number, (56 + 28 * number, 56)).save(jokes.raw / "images" / f"{number}.png")
    path = jokes.target / "captions.csv.partial"
    child = drive(jokes, before=SLOW, wait=False)
    try:
        assert wait_for(lambda: path.exists() and len(path.read_bytes().splitlines()) >= 2 * batches)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    done = len(path.read_bytes().splitlines())
    assert 2 * batches <= done < 20 and not list(jokes.target.glob("*.csv"))
    with path.open("ab") as stream:
        stream.write(b'{"digest": "torn')
    jokes.run()
    assert sum(map(len, fake.seen)) == 20 - done and not path.exists()
    assert f"made before {done}, shared 0, new {20 - done}" in capsys.readouterr().err
    assert [row["caption"] for row in jokes.read("validation.csv")] == [f"幅{56 + 28 * i}の写真。" for i in range(20)]
    assert len(captions.read(jokes.target / "captions.csv")) == 20


def test_captions_that_another_model_left_half_done_are_not_taken_up(jokes, fake):
    jokes.target.mkdir(parents=True)
    line = next(captions.lines_of({md5(jokes.raw / "images" / "0.png"): Caption("古い。", "other")}))
    (jokes.target / "captions.csv.partial").write_bytes(line)
    jokes.run()
    assert sum(map(len, fake.seen)) == 5 and "古い" not in (jokes.target / "train.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("犬が\n机で　笑う。\r\n", "犬が 机で 笑う。"),
        ("a\0b\x1b[31mc\u200b\u202ed\ufffd\ufffde", "a b [31mcd e"),
        ("\ud800か\ue000゛", "か゛"),
        (" \n", ""),
    ],
)
def test_a_caption_is_one_line_without_what_cannot_be_seen(text, expected):
    assert captions.fold(text) == expected


@given(st.text())
def test_a_folded_caption_stays_as_it_is_and_is_one_line_of_a_csv(text):
    folded = captions.fold(text)
    assert captions.fold(folded) == folded and folded == folded.strip()
    assert not any(unicodedata.category(char)[0] == "C" for char in folded) and len(folded.splitlines()) <= 1


def test_a_caption_ends_with_a_sentence_where_it_is_cut():
    assert captions.shorten("犬が走る。猫が", True) == "犬が走る。猫が"
    assert captions.shorten("犬が走る。猫が", False) == "犬が走る。"
    assert captions.shorten("犬が走", False) == "犬が走"
    long = "犬が走る。" * 39 + "長い文" * 9
    assert captions.shorten(long, True) == "犬が走る。" * 39
    assert len(captions.shorten("あ" * 999, True)) == captions.LONGEST


def test_the_recipe_asks_in_japanese_and_names_its_model():
    maker = tool.Maker.of(load_task("ogiri"), None, None, 128)
    assert maker.name.startswith("Qwen/Qwen2.5-VL-3B-Instruct@main prompt ") and "日本語" in maker.prompt
    names = {tool.Maker.of(load_task("ogiri"), *given, 128).name.split()[0] for given in ((None, "abc"), ("a/b", None))}
    assert names == {"Qwen/Qwen2.5-VL-3B-Instruct@abc", "a/b@main"}

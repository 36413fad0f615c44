import csv
import errno
import json
import os
from pathlib import Path

import pytest

import predict
from predicting import options, run, write
from recipekit.errors import UserError
from recipekit.inputs import Article, read_articles
from recipekit.runs import digest

BODY = '一行目、"引用"。\r\n二行目,\u2028終わり。'


def as_csv(path, rows, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "title", "body"])
        writer.writeheader()
        writer.writerows({"title": "題", **row} for row in rows)


def as_folder(path, rows):
    path.mkdir()
    for row in reversed(rows):
        (path / f"{row['id']}.txt").write_text(row["body"], encoding="utf-8", newline="")


@pytest.mark.parametrize(
    ("name", "make", "lines"),
    [
        ("a.jsonl", write, ["a.jsonl:1", "a.jsonl:2"]),
        ("a.csv", as_csv, ["a.csv:2", "a.csv:4"]),
        ("a.CSV", lambda path, rows: as_csv(path, rows, "utf-8-sig"), ["a.CSV:2", "a.CSV:4"]),
        ("a", as_folder, ["a/A.txt:1", "a/B.txt:1"]),
    ],
)
def test_every_form_gives_the_same_articles(tmp_path, name, make, lines):
    make(tmp_path / name, [{"id": "A", "body": BODY}, {"id": "B", "body": "あ" * 200_000}])
    articles, problems = read_articles(tmp_path / name)
    expected = [("A", BODY), ("B", "あ" * 200_000)]
    assert problems == [] and [(one.id, one.body) for one in articles] == expected
    assert [one.place for one in articles] == [str(tmp_path / line) for line in lines]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.jsonl", b"", None),
        ("x.csv", b"", None),
        ("x.csv", b"id,body\n", None),
        ("x.jsonl", b'{"id": "a", "body": "b"}\n{"id": 1', ["x.jsonl:2: not valid JSON"]),
        ("x.jsonl", b'{"id": "a", "body": "b"}\n{"id": "a", "body": "c"}\n', ["x.jsonl:2: id 'a' stands at"]),
        (
            "x.jsonl",
            b'{"id": "a"}\n{"body": "b"}\n[]',
            ["x.jsonl:1: 'body'", "x.jsonl:2: 'id'", "x.jsonl:3: expected a"],
        ),
        ("x.jsonl", b'{"id": "a", "body": " \\n"}\n', ["x.jsonl:1: 'body': expected text"]),
        ("x.jsonl", '{"id": "a", "body": "記事"}\n'.encode("cp932"), ["x.jsonl:1: not UTF-8, at byte 22"]),
        ("x.csv", "id,body\na,b\nb,記事\n".encode("cp932"), ["x.csv:3: not UTF-8, at byte 3"]),
        (
            "x.jsonl",
            b'{"id": "a", "body": "\\ud800"}\n{"id": "\xed\xa0\x80"}',
            ["x.jsonl:1: not valid", "x.jsonl:2: not UTF-8"],
        ),
        ("x.csv", b"id,body\n\xed\xa0\x80,b\n", ["x.csv:2: not UTF-8, at byte 1"]),
        ("x.csv", b"name,text\na,b\n", ["x.csv:1: no column id and body; the columns are name, text"]),
        ("x.csv", b"id,body\na,b,c\nb\n,c\n", ["x.csv:2: more cells", "x.csv:3: 'body'", "x.csv:4: 'id'"]),
        ("x.csv", b'id,body\na,"b\n', ["x.csv:2: not valid CSV: unexpected end of data"]),
    ],
)
def test_bad_articles_are_named_all_at_once_by_line(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    try:
        problems = read_articles(path)[1]
    except UserError as error:
        problems = error.problems
    assert len(problems) == len(expected or ["one"])
    for problem, words in zip(problems, expected or [f"{name}: nothing in it"], strict=True):
        assert words in problem and problem.startswith(str(tmp_path))


def test_text_files_in_another_encoding_and_empty_ones_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("記事".encode("cp932"))
    (tmp_path / "b.txt").write_text("\n")
    (tmp_path / "c.md").write_text("no article")
    problems = read_articles(tmp_path)[1]
    assert [p.split(": ")[0].rsplit("/")[-1] for p in problems] == ["a.txt:1", "b.txt:1"]


def test_files_with_a_bad_name_or_that_cannot_be_read_are_named_and_folders_are_none(tmp_path):
    as_folder(folder := tmp_path / os.fsdecode("記事".encode("cp932")), [{"id": "D", "body": "山。"}])
    (folder / "A.txt").mkdir()
    (folder / os.fsdecode("B記事.txt".encode("cp932"))).write_text("海。", encoding="utf-8")
    (folder / "C.txt").symlink_to("nowhere")
    articles, problems = read_articles(folder)
    place = f"{tmp_path}/\\x8bL\\x8e\\x96/"
    expected = [place + "B\\x8bL\\x8e\\x96.txt: the name is not UTF-8", place + "C.txt: cannot be read (No such file"]
    assert [problem[: len(words)] for problem, words in zip(problems, expected, strict=True)] == expected
    assert [(one.id, one.body, one.place) for one in articles] == [("D", "山。", place + "D.txt:1")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a"])
def test_an_input_that_cannot_be_read(tmp_path, monkeypatch, name):
    as_folder(tmp_path / "a", [{"id": "A", "body": "山。"}])
    write(tmp_path / "a.jsonl", [{"id": "A", "body": "山。"}])
    as_csv(tmp_path / "a.csv", [{"id": "A", "body": "山。"}])

    def refused(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for method in ("open", "iterdir"):
        monkeypatch.setattr(Path, method, refused)
    with pytest.raises(UserError, match=rf"{name}: cannot be read \(Permission denied\)"):
        read_articles(tmp_path / name)


def test_nothing_there(tmp_path):
    for path, words in ((tmp_path / "none.csv", "no such file or folder"), (tmp_path, "files that end in .txt")):
        with pytest.raises(UserError, match=words):
            read_articles(path)


def test_bad_rows_stop_all_or_are_skipped_with_a_warning(small_task, base, monkeypatch):
    shown = []
    monkeypatch.setattr(predict, "show", lambda text, **_: shown.append(text))
    path = small_task.test_path("input")
    rows = [{"id": "A", "body": "山。"}, {"id": "B"}, {"id": "A", "body": "海。"}, {"id": "C", "body": "川。"}]
    write(path, rows)
    some = options(small_task, base)
    with pytest.raises(UserError) as error:
        predict.articles_of(small_task, some, skip_bad=False)
    assert [f"{path}:2" in error.value.problems[0], f"{path}:3" in error.value.problems[1]] == [True, True]
    assert shown == []
    articles = predict.articles_of(small_task, some, skip_bad=True)
    assert articles == [Article("A", "山。", f"{path}:1"), Article("C", "川。", f"{path}:4")]
    assert [line.startswith(f"warning: {path}:{n}") for n, line in zip((2, 3), shown, strict=False)] == [True, True]
    assert "2 problem(s), 2 good" in shown[2]
    write(path, rows[1:2])
    with pytest.raises(UserError):
        predict.articles_of(small_task, some, skip_bad=True)


def test_a_folder_is_predicted_and_counts_by_its_content(small_task, base, tmp_path):
    as_folder(tmp_path / "articles", [{"id": "A", "body": "山田。"}, {"id": "B", "body": "海野。"}])
    some = options(small_task, base, input=tmp_path / "articles")
    assert [row["id"] for row in run(small_task, some)] == ["A", "B"]
    assert json.loads(some.output.read_text(encoding="utf-8").splitlines()[1])["id"] == "B"

    def counts():
        return digest(predict.inputs(small_task, some, read_articles(some.input)[0])["input"])

    before = counts()
    (some.input / os.fsdecode(b"\x8b.jpg")).write_bytes(b"no article")
    assert counts() == before
    (some.input / "A.txt").write_text("山。", encoding="utf-8")
    assert counts() != before

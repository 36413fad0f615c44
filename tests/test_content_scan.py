"""The scan of data files, with the real scanners."""

import os
import signal
import subprocess
import sys

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processes import runs, wait_for
from recipekit import ROOT, content_scan, raw
from recipekit.errors import UserError
from recipekit.runs import write_jsonl

TOKEN = "hf_" + "Q" * 34
PERSON = "海野太郎容疑者(45)を逮捕した。"
PHONE = "電話は090-1234-5678まで。"


def scan(*paths, own=None):
    return content_scan.scan(list(paths), own, lambda n: None)


def test_findings_by_kind_with_line_and_starred_value(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"body": "花火大会。"},
        {"body": PERSON, "label": {"persons": [{"tel": PHONE}]}},
        {"body": f"鍵は{TOKEN}。"},
    ]
    write_jsonl(path, rows)
    found = scan(path)[path]
    assert found.rows == 3 and found.counts == {"person": 1, "phone": 1, "secret": 1}
    assert [line for line, _ in found.places["person"]] == [2] and found.places["person"][0][1].startswith("海*")
    assert found.places["phone"] == [(2, "0***********")] and found.places["secret"] == [(3, "Hugging Face token")]
    assert "1234" not in str(found) and TOKEN not in str(found)
    assert scan(path, own=TOKEN)[path].counts == {"person": 1, "phone": 1, "own_token": 1}


def test_only_a_gold_file_may_have_short_rows(tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text(f"id,name,place\nE1,{PERSON}\nE2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"gold.csv:2: fewer cells than columns"):
        scan(path)
    found = content_scan.scan([path], None, lambda n: None, short=[path])[path]
    assert found.rows == 2 and found.counts == {"person": 1}


def test_every_text_counts_keys_and_chat_rows_and_csv_cells(tmp_path):
    jsonl, table, listed = tmp_path / "a.jsonl", tmp_path / "b.csv", tmp_path / "c.json"
    write_jsonl(jsonl, [{"messages": [{"role": "user", "content": [PHONE]}], PHONE: 1, "n": None}])
    table.write_text(f'id,body\n1,"一行目\n{PHONE}"\n2,{PHONE}\n', encoding="utf-8")
    listed.write_bytes(orjson.dumps([{"body": "無し"}, {"body": PHONE}]))
    found = scan(jsonl, table, listed)
    assert [found[path].counts["phone"] for path in (jsonl, table, listed)] == [2, 2, 1]
    assert [line for line, _ in found[table].places["phone"]] == [2, 4] and found[listed].places["phone"][0][0] == 2
    assert found[table].rows == found[listed].rows == 2


@pytest.mark.parametrize("number", [4539148803436467, 4539148803436467.0, -4539148803436467])
def test_a_card_as_a_number_is_found(tmp_path, number):
    write_jsonl(tmp_path / "a.jsonl", [{"n": [{"card": number}], "age": 45, "big": 1e300, "yes": True}])
    assert scan(tmp_path / "a.jsonl")[tmp_path / "a.jsonl"].counts == {"card": 1}


@pytest.mark.parametrize("chunk", [20, 2**20])
def test_a_key_that_stands_twice_is_refused(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(raw, "CHUNK", chunk)
    path, listed = tmp_path / "a.jsonl", tmp_path / "b.json"
    twice = f'{{"id": 1, "n": [{{"body": "{PHONE}", "b\\u006fdy" : "花火。"}}]}}'
    path.write_text(f'{{"id": 1, "n": [{{"body": "\\"body\\":"}}, {{"body": ""}}]}}\n{twice}\n', encoding="utf-8")
    listed.write_text(f"[{twice}]", encoding="utf-8")
    with pytest.raises(UserError) as error:
        scan(path, listed)
    assert [problem.partition(";")[0] for problem in error.value.problems] == [
        f"{listed}: not valid JSON: the key 'body' stands twice in one object",
        f"{path}:2: not valid JSON: the key 'body' stands twice in one object",
    ]


def test_what_is_not_sure_is_counted_apart(tmp_path, monkeypatch):
    class Unsure:
        def scan(self, text):
            return [content_scan_finding(text)]

    from recipekit.pii import Finding

    def content_scan_finding(text):
        return Finding("person", 0, 1, text, sure=text.startswith("海"))

    monkeypatch.setattr(content_scan, "Scanner", Unsure)
    write_jsonl(tmp_path / "a.jsonl", [{"山": "海"}])
    found = scan(tmp_path / "a.jsonl")[tmp_path / "a.jsonl"]
    assert found.counts == {"person": 1} and found.unsure == {"person": 1}


def test_chunks_on_every_core_find_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    write_jsonl(
        path, [{"n": i, "body": PHONE if i % 7 == 3 else "花火。"} | ({"x": 0.5} if i > 90 else {}) for i in range(120)]
    )
    whole = scan(path)[path]
    monkeypatch.setattr(raw, "CHUNK", 500)
    pieces = scan(path)[path]
    monkeypatch.setattr(content_scan, "SMALL", 0)
    monkeypatch.setattr(raw, "workers", lambda: 2)
    cores = scan(path)[path]
    assert whole.counts == pieces.counts == cores.counts == {"phone": 17} and whole.rows == cores.rows == 120
    assert whole.places == pieces.places == cores.places
    assert [line for line, _ in cores.places["phone"]] == [4, 11, 18]
    assert (
        whole.type == pieces.type == cores.type == pa.struct({"n": pa.int64(), "body": pa.string(), "x": pa.float64()})
    )


@pytest.mark.parametrize("chunk", [40, 2**20])
def test_lines_that_cannot_be_read_are_all_named(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(raw, "CHUNK", chunk)
    good, broken, empty = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    write_jsonl(good, [{"body": "花火。"}])
    broken.write_bytes(b'{"body": "x"}\n{"body": \n' + b'{"body": "y"}\n' * 5 + b"[1]\n" + b"\xff\n" * 30)
    empty.write_bytes(b"")
    with pytest.raises(UserError) as error:
        scan(good, broken, empty)
    problems = error.value.problems
    assert f"{empty}: the file is empty" in problems[0]
    assert problems[1].startswith(f"{broken}:2: not valid JSON") and problems[2].startswith(f"{broken}:8: expected")
    assert problems[3].startswith(f"{broken}:9: ") and problems[-1] == f"{broken}: and 12 more"


@pytest.mark.parametrize(
    ("first", "second"), [(1, "x"), ({"a": 1}, "x"), (True, 1), ([1], ["x"]), ({"a": "x"}, {"a": [1]})]
)
@pytest.mark.parametrize("chunk", [20, 2**20])
def test_a_key_of_two_types_is_named_with_its_line(tmp_path, monkeypatch, first, second, chunk):
    monkeypatch.setattr(raw, "CHUNK", chunk)
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"k": first}] * 3 + [{"k": None}, {}, {"k": second}])
    whole = chunk > 20  # else the line is that of the chunk
    with pytest.raises(UserError, match=r"a.jsonl:6: another type" if whole else r"a.jsonl:[456]: here or behind it, "):
        scan(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.lists(VALUES, max_size=4))
def test_texts_yields_every_text_of_a_value(values):
    marked = [{"a": value, f"k{i}": [f"v{i}", {"b": [f"w{i}"]}]} for i, value in enumerate(values)]
    found = set(content_scan.texts(marked))
    assert found >= {f"{letter}{i}" for letter in "kvw" for i in range(len(values))}


@given(st.text(min_size=1))
def test_a_starred_value_shows_one_character_at_most(value):
    shown = content_scan.starred(value)
    assert len(shown) <= 12 and shown[:1] in ("*", value[:1]) and set(shown[1:]) <= {"*"}
    assert len(value) > 1 or shown == "*"


WORK = """
import os, sys, time
from pathlib import Path
from recipekit import parallel
def make():
    Path(sys.argv[1], str(os.getpid())).touch()
    return time.sleep
if __name__ == "__main__":
    list(parallel.in_order(make, [0, 0, 60, 60]))
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    (tmp_path / "work.py").write_text(WORK, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    parent = subprocess.Popen([sys.executable, tmp_path / "work.py", pids], env=environment)
    assert wait_for(lambda: len(list(pids.iterdir())) >= min(2, raw.workers()))
    workers = [int(path.name) for path in pids.iterdir()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not any(runs(pid) for pid in workers))

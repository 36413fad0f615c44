"""tools/validate.py --fix: mended copies, and chunks on every core."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipekit import raw
from rows import row
from validating import check, line, mend, sample

MENDED = {"encoding", "bom", "crlf", "cr", "blank", "control", "twice"}


@pytest.fixture
def task(counted_task):
    return counted_task


def messy(seed, task):
    """Make a file's lines with everything that can be wrong."""
    rng = random.Random(seed)
    lines = []
    for _ in range(rng.randint(1, 40)):
        body = f"北浜市の会社員{rng.randint(1, 9)}人が盗みの疑いで捕まったと、警察は発表した。"
        value = sample(rng.randint(1, 30), rng.choice([body, body + "\0", "\ufeff" + body, body + "\r\n終わり"]))
        value = rng.choice([value, value, row(task, body), {**value, "label": {"persons": [{}]}}])
        if "segments" in value and rng.random() < 0.5:
            value["segments"][-1]["text"] = rng.choice(['{"persons": []}', '{"persons": [', '{"persons": []}</s>\n'])
        text = json.dumps(value, ensure_ascii=False)
        text = rng.choice([text, text, text, text[:-1], text.replace("、", "\x07"), "", " ", "\x00"])
        data = text.encode(rng.choice(["utf-8", "utf-8", "cp932", "euc_jp"]), errors="ignore")
        data = rng.choice([data, data, data, b"\xef\xbb\xbf" + data, data.replace(b"\xe5", b"", 1)])
        lines.append(data + rng.choice([b"\n", b"\n", b"\r\n", b"\r"]))
        if rng.random() < 0.2:
            lines.append(lines[-1])
    return b"".join(lines)


@given(seed=st.integers(0, 10**9), drop=st.booleans())
@settings(max_examples=150)
def test_a_mended_copy_is_clean_and_mending_it_changes_nothing(task, tmp_path, seed, drop):
    path = tmp_path / "a.jsonl"
    content = messy(seed, task)
    path.write_bytes(content)
    _, before = check(task, path)
    copy, fixes, report = mend(task, path, drop)
    assert path.read_bytes() == content
    if not copy.stat().st_size:
        return
    after, found = check(task, copy)
    assert not {finding.kind for finding in found} & MENDED and not [f for f in found if f.after is not None]
    assert report.left == after.tally.errors
    assert not drop or after.tally.errors == 0
    again, more, _ = mend(task, copy, drop)
    assert again.read_bytes() == copy.read_bytes() and more == []
    out = {fix["line"] for fix in fixes if fix["left_out"]}
    lines = len(content.splitlines())
    assert (report.left_out, report.written) == (len(out), lines - len(out))
    assert len(copy.read_bytes().splitlines()) == report.written
    listed = {(f.line, f.kind, f.path) for f in before if f.after is not None and f.kind != "twice"}
    assert listed <= {(fix["line"], fix["kind"], fix["path"]) for fix in fixes}


def test_without_drop_what_cannot_be_mended_stays(task, tmp_path):
    path = tmp_path / "a.jsonl"
    broken, conflict = b'{"id": "x",\n', line(sample(2, "花火大会1。", "花火"))
    path.write_bytes(line(sample(1)) + broken + conflict + line(sample(1)) + b"\n")
    copy, fixes, _ = mend(task, path)
    assert copy.read_bytes() == line(sample(1)) + broken + conflict
    assert [(fix["line"], fix["kind"]) for fix in fixes] == [(5, "blank"), (4, "twice")]
    copy, fixes, _ = mend(task, path, drop=True)
    assert copy.read_bytes() == b"" and {fix["line"] for fix in fixes} == {1, 2, 3, 4, 5}


def test_a_row_that_is_left_out_takes_no_other_with_it(task, tmp_path):
    old, new = row(task, "山田", "山田"), row(task, "山田", "山田")
    old["segments"][0]["text"] = "<s>昔の指示"
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(old) + line(new))
    assert mend(task, path, drop=True)[0].read_bytes() == line(new)


def test_a_utf16_file_is_checked_and_mended(task, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes((line(sample(1)) + line(sample(1)) + line(sample(2))).decode().encode("utf-16"))
    assert [(f.line, f.kind) for f in check(task, path)[1]] == [(1, "encoding"), (2, "twice")]
    assert mend(task, path)[0].read_bytes() == line(sample(1)) + line(sample(2))


def test_chunks_on_every_core_find_what_one_finds(task, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(messy(seed, task) for seed in range(12)))
    whole, found = check(task, path)
    copy, fixes, _ = mend(task, path)
    expected = copy.read_bytes(), fixes
    monkeypatch.setattr(raw, "CHUNK", 3000)
    monkeypatch.setattr(raw, "workers", lambda: 3)
    parts, again = check(task, path)
    assert path.stat().st_size > 5 * raw.CHUNK
    assert sorted(again) == sorted(found) and len(found) > 100
    assert (parts.rows, parts.lengths) == (whole.rows, whole.lengths)
    copy, fixes, _ = mend(task, path)
    assert (copy.read_bytes(), fixes) == expected

import csv
import fcntl
import io
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processes import runs, wait_for
from recipekit import ROOT, pii_mask, pii_recall, pii_scan, process, segments, spans, standins
from recipekit.errors import UserError
from recipekit.pii import Scanner
from recipekit.pii_forms import Known
from recipekit.pii_key import ENDING, Key, hold_key, load_key
from recipekit.pii_numbers import digits_of, luhn, my_number
from recipekit.task import load_task

HAWKS = load_task("hawks")
CARD, NUMBER = "4539 1488 0343 6467", "123456789018"
ARTICLE = (
    "青嶺署は3日、青嶺市柏木町２丁目、わかば産業社長の桐生院健吾（きりゅういん・けんご）容疑者（４５）を窃盗の疑いで逮捕した。"
    "桐生院容疑者は真砂花代さん(38)の財布を盗んだ疑い。桐生院　健吾を知る真砂さんは「怖い」と話した。"
)
LABEL = {
    "persons": [{"name": "桐生院健吾", "age": "４５", "address": "青嶺市柏木町２丁目", "affiliation": "わかば産業"}],
    "occured_locations": ["青嶺市柏木町"],
    "police_departments": ["青嶺署"],
}
scanner = Scanner()


def advance(*_, **__):
    pass


def found(text):
    return [(finding.kind, finding.text) for finding in scanner.scan(text)]


class Desk:
    """Masks and restores the files of a test, with one key."""

    def __init__(self, folder, task=None):
        self.folder, self.known = folder, Known.of(task) if task else None
        self.key = folder / f"test{ENDING}"

    def write(self, name, content):
        path = self.folder / "real" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
        return path

    def mask(self, *paths, into="masked"):
        key = load_key(self.key, fresh=True)
        pii_mask.mask(paths, self.folder / into, key, self.key, self.known, False, advance)
        return [self.folder / into / path.name for path in paths]

    def restore(self, *paths):
        pii_mask.restore(paths, self.folder / "restored", load_key(self.key, fresh=False), advance)
        return [(self.folder / "restored" / path.name).read_bytes() for path in paths]

    def round(self, name, content):
        """Mask a file, check that it comes back and that a second masking changes nothing; return the masked text."""
        real = self.write(name, content)
        [masked] = self.mask(real)
        assert self.restore(masked) == [real.read_bytes()]
        [again] = self.mask(masked, into="again")
        assert again.read_bytes() == masked.read_bytes()
        return masked.read_text(encoding="utf-8")


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, HAWKS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("会社員田中花代さん(38)と広島さん", [("person", "田中花代"), ("person", "広島")]),
        ("桐生院健吾（きりゅういん・けんご）容疑者", [("person", "桐生院健吾"), ("person", "きりゅういん・けんご")]),
        ("氏名：御手洗　空", [("person", "御手洗　空")]),
        (
            "住所は長野県青嶺市柏木町３丁目２番地の５、コーポ緑２０１号室",
            [("address", "長野県青嶺市柏木町３丁目２番地の５、コーポ緑２０１号室")],
        ),
        ("本籍　〒999-1234 青嶺市緑が丘五丁目十二番三号", [("address", "〒999-1234 青嶺市緑が丘五丁目十二番三号")]),
        (
            "携帯は０９０－１２３４－５６７８、自宅(03)1234-5678",
            [("phone", "０９０－１２３４－５６７８"), ("phone", "(03)1234-5678")],
        ),
        ("ａｏｉ＠ｋａｚｅ．ｔｅｓｔへ", [("mail", "ａｏｉ＠ｋａｚｅ．ｔｅｓｔ")]),
        (f"カード{CARD}、個人番号{NUMBER}", [("card", CARD), ("my_number", NUMBER)]),
        ("カード4539 1488 0343 6468、番号123456789019", []),
        ("2024年5月1日、刑法204条、1億2300万円、第3回大会、03時15分、192.168.0.12", []),
        ("千葉銀行は広島市と長野県で3.5%の増収、東京は晴れ", []),
        ("連絡は a@example.com か 03-0123-4567 へ", []),
    ],
)
def test_what_is_found(text, wanted):
    assert found(text) == wanted


def test_the_marked_sample_is_large_and_found_as_the_docs_say():
    scores = pii_recall.of_samples(ginza=False)
    texts = [text for name in scores for text, _ in pii_recall.read_marked(pii_recall.SAMPLES / f"{name}.txt")]
    assert len(texts) >= 150 and sum(half["all"].marked for half in scores.values()) >= 500
    assert scores["dev"]["all"].recall > 0.93 and scores["dev"]["all"].precision > 0.96
    assert scores["held_out"]["all"].recall > 0.81 and scores["held_out"]["all"].precision > 0.92
    for half in scores.values():
        assert all(half[kind].recall == 1 for kind in ("phone", "mail", "card", "my_number"))


def test_recall_counts_what_is_wholly_covered():
    marks = [("田中花子さん", [pii_recall.Place("person", 0, 4)])]
    scores = pii_recall.measure(marks, lambda text: [pii_recall.Place("person", 0, 3), pii_recall.Place("mail", 4, 6)])
    assert scores["person"] == (1, 0, 1, 1) and scores["mail"] == (0, 0, 1, 0)


def test_nothing_is_found_in_a_masked_sample(desk):
    texts = [text for text, _ in pii_recall.read_marked(pii_recall.SAMPLES / "dev.txt")]
    masked = desk.round(
        "sample.jsonl", "".join(json.dumps({"body": text}, ensure_ascii=False) + "\n" for text in texts)
    )
    left = [(json.loads(line)["body"], found(json.loads(line)["body"])) for line in masked.splitlines()]
    assert [one for one in left if one[1]] == []


def row(body, label, form):
    if form == "label":
        return {"id": "A123456789018", "body": body, "label": label}
    answer = json.dumps(label, ensure_ascii=False)
    if form == "segments":
        return segments.build(HAWKS, body, label)
    return {"messages": [{"role": "user", "content": body}, {"role": "assistant", "content": answer}]}


def texts_of(row, form):
    """Return the article and the label of a row."""
    if form == "label":
        return row["body"], row["label"]
    if form == "segments":
        apart = segments.take_apart(HAWKS, row)
        return apart["body"], apart["label"]
    return row["messages"][0]["content"], json.loads(row["messages"][1]["content"])


def leaves(value):
    if isinstance(value, dict | list):
        return [leaf for inner in (value.values() if isinstance(value, dict) else value) for leaf in leaves(inner)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("form", ["label", "segments", "chat"])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_labels_follow_the_article(desk, form, ascii_only):
    line = json.dumps(row(ARTICLE, LABEL, form), ensure_ascii=ascii_only)
    masked = json.loads(desk.round("a.jsonl", line + "\n"))
    body, label = texts_of(masked, form)
    for name in ("桐生院", "健吾", "真砂", "花代", "きりゅういん", "柏木町"):
        assert name not in body + json.dumps(label, ensure_ascii=False)
    assert all(spans.contains(body, value) for value in leaves(label)), (body, label)
    family, given = body.split("社長の")[1].split("（")[0], label["persons"][0]["name"]
    assert family == given and f"{given[:3]}容疑者は" in body.replace(given, given[:3])
    assert re.search(rf"{given[0]}.{{1,4}}　.+を知る", body), "the spaces stay"
    assert label["persons"][0]["age"] == "４５" and label["persons"][0]["affiliation"] == "わかば産業"
    assert masked.get("id") == row(ARTICLE, LABEL, form).get("id")


def test_one_person_has_one_stand_in_in_all_files_and_calls(desk):
    first = desk.write("a.txt", "桐生院健吾さんと真砂花代さん。")
    second = desk.write("b.txt", "桐生院　健吾容疑者。真砂さん。")
    one, two = (path.read_text() for path in desk.mask(first, second))
    name, other = re.fullmatch("(.+)さんと(.+)さん。", one).groups()
    spaced, family = re.fullmatch("(.+)容疑者。(.+)さん。", two).groups()
    assert spaced.replace("　", "") == name and "　" in spaced and other.startswith(family)
    third = desk.write("c.txt", "桐生院健吾さん")
    assert desk.mask(third)[0].read_text() == f"{name}さん"


def test_stand_ins_keep_the_shape_and_fail_their_checks(desk):
    names = "ｶﾐﾔ様、JIRO KAMIYA様、カミヤ・ジロウ様"
    text = f"{names}、090-1234-5678、０３－１２３４－５６７８、{CARD}、マイナンバー{NUMBER}、aoi@kaze.test"
    parts = desk.round("a.txt", text).split("、")
    assert re.fullmatch("[ｦ-ﾟ]+様", parts[0]) and re.fullmatch("[A-Z]+ [A-Z]+様", parts[1])
    assert re.fullmatch("[ァ-ヺー]+・[ァ-ヺー]+様", parts[2])
    assert re.fullmatch(r"090-0\d{3}-\d{4}", parts[3]) and re.fullmatch("０３－０[０-９]{3}－[０-９]{4}", parts[4])
    assert re.fullmatch(r"\d{4} \d{4} \d{4} \d{4}", parts[5]) and not luhn(digits_of(parts[5]))
    assert re.fullmatch(r"マイナンバー\d{12}", parts[6]) and not my_number(digits_of(parts[6]))
    assert re.fullmatch(r"\w+@example\.com", parts[7])


def test_addresses_keep_their_granularity_and_their_parts_agree(desk):
    text = "住所は長野県青嶺市柏木町３丁目２番地の５です。青嶺市柏木町３丁目の路上。"
    text += "五丁目十二番三号は〒999-1234 青嶺市緑が丘五丁目十二番三号。"
    masked = desk.round("a.txt", text)
    whole = re.search("長野県(..市.+?町)([１-９])丁目([１-９])番地の([１-９])です。", masked)
    assert f"{whole[1]}{whole[2]}丁目の路上" in masked and "青嶺" not in masked and "柏木" not in masked
    one = "[一二三四五六七八九]"
    assert re.search(f"〒000-[0-9]{{4}} ..市.+?{one}丁目{one}?十{one}?番{one}号", masked)


@pytest.mark.parametrize(
    "broken",
    [
        '1,5" ディスクの件、真砂花代さん(38)',
        '"一" ,真砂花代さん(38)',
        '"一"真砂花代さん(38)',
        "一\r真砂花代さん(38)",
        '\ufeff"一",真砂花代さん(38)',
        '1,"真砂花代さん(38)',
    ],
)
def test_a_csv_row_that_cannot_be_cut_into_cells_is_refused(desk, broken):
    path = desk.write("a.csv", f"id,body\n0,真砂花代さん(38)\n{broken}\n2,真砂花代さん(38)\n")
    with pytest.raises(UserError, match="a.csv:3: not valid CSV: .* where a comma") as error:
        desk.mask(path)
    assert "真砂" not in str(error.value) and not desk.key.exists() and not (desk.folder / "masked").exists()


@given(st.lists(st.sampled_from(["真", ",", '"', "\n", "\r\n", "\r", " ", "\ufeff", "\0"]), max_size=12).map("".join))
def test_csv_cells_are_those_of_the_library_or_the_file_is_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(f"a,b\n{content}".encode())
        try:
            rows = list(pii_scan.read([path]))[1:]
        except UserError:
            return
        cells = [[piece.text.replace('""', '"') for piece in row.pieces] for row in rows]
        assert [row or [""] for row in csv.reader(io.StringIO(content, newline=""), strict=True)] == cells


def test_csv_cells_and_gold_columns(desk):
    head = "quality_test_id,person_name,person_address,note"
    cells = '"123456789018",桐生院健吾|真砂花代,青嶺市柏木町,"桐生院氏は""窃盗""\n否認"'
    content = f"\ufeff{head}\r\n{cells}\r\n"
    masked = list(csv.DictReader(io.StringIO(desk.round("gold.csv", content).removeprefix("\ufeff"), newline="")))
    one, two = masked[0]["person_name"].split("|")
    assert masked[0]["quality_test_id"] == "123456789018" and one != "桐生院健吾" and len(two) >= 4
    assert masked[0]["note"].startswith(f"{one[:3]}") and masked[0]["note"].endswith('氏は"窃盗"\n否認')
    assert re.fullmatch("..市..町", masked[0]["person_address"])


def test_only_the_label_knows_the_name(desk):
    line = json.dumps({"body": "梶は泣いた。花も見た。", "label": {"persons": [{"name": "花"}]}}, ensure_ascii=False)
    masked = json.loads(desk.round("a.jsonl", line))
    assert masked["label"]["persons"][0]["name"] != "花"


NAMES = st.sampled_from(
    [
        "桐生院健吾",
        "真砂花代",
        "森",
        "林　蓮",
        "グエン・ラン",
        "ｶﾐﾔ",
        "Jiro Kamiya",
        "広島昭",
        "みさき",
        "髙﨑凛",
        "神谷",
        "神谷",
    ]
)
PLACES = st.sampled_from(
    ["青嶺市柏木町２丁目", "長野県青嶺市柏木町", "同市緑が丘五丁目十二番三号", "青嶺市", "〒999-1234 白波市字麓77番地1"]
)
OTHERS = st.sampled_from(
    [
        "aoi@kaze.test",
        "Aoi@kaze.test",
        "ａｏｉ＠ｋａｚｅ．ｔｅｓｔ",
        "090-1234-5678",
        "０３－１２３４－５６７８",
        CARD,
        NUMBER,
        "+81-90-1234-5678",
    ]
)
GLUE = st.sampled_from(
    [
        "さん",
        "容疑者(45)",
        "は",
        "、",
        "。",
        "「",
        "」",
        " ",
        "　",
        "\n",
        "の",
        "建設",
        "会社員",
        "署",
        "2024年",
        '"',
        "\\",
        "珀野",
        "ヂミリ",
        "滄野市",
        "👨‍👩‍👧",
        "か\u3099",
        "",
    ]
)
TEXT = st.lists(st.one_of(NAMES, PLACES, OTHERS, GLUE, st.text(max_size=6)), max_size=12).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bodies=st.lists(TEXT, min_size=1, max_size=4),
    names=st.lists(NAMES, max_size=3),
    places=st.lists(PLACES, max_size=2),
    form=st.sampled_from(["label", "segments", "chat"]),
    ascii_only=st.booleans(),
)
def test_any_rows_come_back_and_their_answers_stand(tmp_path_factory, bodies, names, places, form, ascii_only):
    desk = Desk(tmp_path_factory.mktemp("desk"), HAWKS)
    label = {
        "persons": [{"name": name, "address": place} for name, place in zip(names, places, strict=False)],
        "occured_locations": places,
    }
    bodies = [body + "".join(names[:2]) for body in bodies]
    rows = [row(body, label, form) for body in bodies]
    lines = desk.round("a.jsonl", "".join(json.dumps(r, ensure_ascii=ascii_only) + "\n" for r in rows)).split("\n")[:-1]
    for old, line in zip(rows, lines, strict=True):
        (body, before), (hidden, after) = texts_of(old, form), texts_of(json.loads(line), form)
        for value, shown in zip(leaves(before), leaves(after), strict=True):
            assert not spans.contains(body or "", value) or spans.contains(hidden, shown), (value, shown, body, hidden)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXT, min_size=1, max_size=3))
def test_any_text_comes_back(tmp_path_factory, texts):
    desk = Desk(tmp_path_factory.mktemp("desk"))
    paths = [desk.write(f"{n}.txt", text) for n, text in enumerate(texts)]
    masked = desk.mask(*paths)
    assert desk.restore(*masked) == [path.read_bytes() for path in paths]
    assert [p.read_bytes() for p in desk.mask(*masked, into="again")] == [p.read_bytes() for p in masked]


@pytest.mark.parametrize(
    "text", ["一" * 32 + "番地青葉荘", "一" * 20_000, "号棟" * 5_000 + "x", "1の" * 5_000, "一番地" + "1" * 9_000]
)
def test_no_run_of_numbers_takes_the_square_of_its_length(text):
    code = "import sys; from recipekit.pii_address import find_addresses; list(find_addresses(sys.argv[1]))"
    code += "; from recipekit.pii_parts import address_parts, permuted"
    code += "; [permuted(part, '') for role, part in address_parts('一番地' + sys.argv[1]) if role == 'number']"
    command = [sys.executable, "-c", code, text]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "tools")}, timeout=20, check=True)


def test_stand_ins_are_none_that_stood_in_the_text():
    key = Key()
    key.seen = {standins.FAMILY.draw(2, key._rng) for _ in range(3000)}
    drawn = {key._draw("family", f"田{n}", f"田{n}") for n in range(300)}
    assert len(drawn) == 300 and not drawn & key.seen


def test_stand_ins_never_run_out():
    key = Key()
    names = {key._draw("given", name, name) for name in map(chr, range(0x5000, 0x5000 + 400))}
    assert len(names) == 400 and all(not standins.blank(name, "").strip() for name in names)


def test_the_key_is_private_and_stays_local(tmp_path, monkeypatch):
    desk = Desk(tmp_path)
    desk.mask(desk.write("a.txt", "真砂花代さん"))
    assert stat.S_IMODE(desk.key.stat().st_mode) == 0o600 and "真砂" in desk.key.read_text()
    for path, word in ((ROOT / "data" / "train" / f"a{ENDING}", "shared"), (tmp_path / "a.json", ENDING)):
        with pytest.raises(UserError, match=word):
            load_key(path, fresh=True)
    desk.key.write_text("[]")
    with pytest.raises(UserError, match="no key file"):
        load_key(desk.key, fresh=False)
    ignored = subprocess.run(["git", "check-ignore", f"x{ENDING}"], cwd=ROOT, capture_output=True, text=True)
    assert ignored.returncode == 0


def run(*arguments, **environment):
    command = [sys.executable, str(ROOT / "tools" / "mask_pii.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_chunks_on_every_core_find_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    rows = [{"body": f"{n}", "who": name} for n in range(9) for name in ("花火", "真砂花代さん", "090-1234-5678")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    here, there = io.BytesIO(), io.BytesIO()
    whole = pii_scan.scan([path], None, False, here, advance)
    monkeypatch.setattr(pii_scan, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(pii_scan, "CHUNK", 4)
    assert pii_scan.scan([path], None, False, there, advance) == whole and here.getvalue() == there.getvalue()
    assert whole.rows == 27 and whole.counts == {"person": 9, "phone": 9}


SCAN = """
import multiprocessing, sys, time
from pathlib import Path
from recipekit import pii_scan
def advance(count):
    print(*[process.pid for process in multiprocessing.active_children()], flush=True)
    time.sleep(60)
if __name__ == "__main__":
    pii_scan.WORTH_PROCESSES, pii_scan.CHUNK = 0, 1
    pii_scan.scan([Path(sys.argv[1])], None, False, None, advance)
"""


def test_workers_end_with_a_call_that_is_killed(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "花火"}\n' * 50, encoding="utf-8")
    (tmp_path / "scan.py").write_text(SCAN, encoding="utf-8")
    command = [sys.executable, tmp_path / "scan.py", tmp_path / "a.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers and all(runs(worker) for worker in workers)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not any(runs(worker) for worker in workers))


def test_two_calls_with_a_key_come_one_after_the_other(tmp_path):
    key, lock = tmp_path / f"k{ENDING}", tmp_path / f".lock.k{ENDING}"
    for name, person in (("a", "真砂花代"), ("b", "神谷三郎")):
        (tmp_path / f"{name}.txt").write_text(f"{person}さん", encoding="utf-8")
    command = [sys.executable, ROOT / "tools" / "mask_pii.py", "--fast", "--key", key, "--output", tmp_path / "out"]
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        both = [subprocess.Popen([*command, tmp_path / name], stderr=subprocess.PIPE) for name in ("a.txt", "b.txt")]
        for call in both:
            assert f"masking with {key} is still running elsewhere; waiting".encode() in call.stderr.readline()
        assert not key.exists()
    for call in both:
        assert call.communicate()[1] and call.returncode == 0
    assert run("--restore", "--key", key, "--output", tmp_path / "real", *(tmp_path / "out").iterdir()).returncode == 0
    for name in ("a.txt", "b.txt"):
        assert (tmp_path / "real" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_key_that_another_process_keeps_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0)
    key = tmp_path / f"k{ENDING}"
    with (
        hold_key(key),
        pytest.raises(UserError, match=f"masking with {key} is running in another process"),
        hold_key(key),
    ):
        pass
    with pytest.raises(UserError, match="cannot be written"), hold_key(Path(f"/proc/none/k{ENDING}")):
        pass
    with pytest.raises(UserError, match="shared"), hold_key(ROOT / "data" / f"k{ENDING}"):
        pass
    assert not list((ROOT / "data").glob(f".*{ENDING}"))


def test_a_dry_run_writes_nothing_and_shows_no_names(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("晴れ\n真砂花代さん 090-1234-5678", encoding="utf-8")
    result = run(path, "--fast")
    assert (
        result.returncode == 0 and f"{path}:2: person 真＊＊＊" in result.stderr and "nothing written" in result.stderr
    )
    assert "真砂" not in result.stderr and list(tmp_path.iterdir()) == [path]
    assert "真砂花代" in run(path, "--fast", "--show").stderr


def test_what_is_shown_is_in_no_log(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("真砂花代さん", encoding="utf-8")
    assert "真砂花代" in run(path, "--fast", "--show", LOG_DIR=str(tmp_path / "logs")).stderr
    log = (tmp_path / "logs" / "mask_pii.log").read_text(encoding="utf-8")
    assert "1 rows read" in log and "真" not in log


def test_a_users_mistakes_are_told_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "真砂花代さん"}\n{broken\n[]\n', encoding="utf-8")
    key = tmp_path / f"k{ENDING}"
    result = run(path, "--fast", "--output", tmp_path / "out", "--key", key)
    assert result.returncode == 2 and f"{path}:2: not valid JSON" in result.stderr
    assert f"{path}:3: expected a JSON object" in result.stderr and not key.exists() and not (tmp_path / "out").exists()
    result = run(path, path, "--output", tmp_path, "--key", tmp_path / f"k{ENDING}")
    assert result.returncode == 2 and all(word in result.stderr for word in ("twice", "overwritten", "output folder"))
    assert run("--fast").returncode == 2 and "Traceback" not in result.stderr
    bad = tmp_path / "b.txt"
    bad.write_bytes("真砂".encode("cp932"))
    assert "b.txt:1: not UTF-8" in run(bad, "--fast").stderr

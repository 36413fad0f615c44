import json
import random
import time

import jsonschema
import orjson
import pytest

from recipekit.answers import Judge
from recipekit.task import load_task

SCHEMA = load_task("hawks").output_schema
PERSON = {
    "name": "山田太郎", "is_real": True, "is_offender": True, "age": "32", "position": "", "affiliation": "",
    "address": "東京", "category": "法令違反", "act": "窃盗",
}  # fmt: skip
ANSWER = {"persons": [PERSON], "occured_locations": ["東京"], "police_departments": []}
GOOD = json.dumps(ANSWER, ensure_ascii=False)


@pytest.fixture(scope="module")
def judge():
    return Judge(SCHEMA, mend=True)


def test_an_answer_in_order_is_not_mended(judge):
    assert judge.read(GOOD, True) == {"output": ANSWER, "raw": GOOD, "valid": True}
    assert judge.read(json.dumps(ANSWER, indent=2), True)["valid"]


@pytest.mark.parametrize(
    "raw",
    [
        f"```json\n{GOOD}\n```",
        f"はい、「結果」です[1]。\n{GOOD}\n以上です。",
        GOOD[:-1],
        GOOD.replace('"', "'"),
        GOOD.replace("true", "True"),
        GOOD.replace('"name"', "name"),
        GOOD.replace(", ", ",, "),
        GOOD.replace('["東京"]', '["東京",]'),
        GOOD.replace("}],", "}], // 容疑者\n"),
    ],
)
def test_what_can_be_mended_is_and_is_said(judge, raw):
    row = judge.read(raw, True)
    assert row["output"] == ANSWER and row["valid"] and row["raw"] == raw
    assert row["repaired"] and all(isinstance(note, str) and 0 < len(note) <= 120 for note in row["repaired"])
    assert not Judge(SCHEMA).read(raw, True)["valid"], "without mend nothing is mended"
    assert not judge.read(raw, False)["valid"], "what was cut off is not mended"


@pytest.mark.parametrize(
    "raw",
    [
        "", " ", "犯罪の記事ではありません。", '「山田"太郎"」',
        "persons: [], occured_locations: [], police_departments: []",
        '{"persons": [{name, is_real, is_offender, age, position, affiliation, address, category, act}], '
        '"occured_locations": [], "police_departments": []}',
        "{persons, occured_locations, police_departments}", "[]", "{}", "null", "3",
        GOOD + GOOD.replace("東京", "大阪"), GOOD + "\n" + GOOD,
        GOOD.replace("true", '"yes"'), GOOD.replace("法令違反", "違反"),
        GOOD.replace('"32"', "1e999"), GOOD[: GOOD.index("occured") + 20],
        GOOD.replace("山田", "\\ud800"), "[" * 10_000, '{"persons":' * 10_000, '{"persons": [' * 10_000 + "]}" * 10_000,
    ],
)  # fmt: skip
def test_what_says_nothing_sure_is_no_answer(judge, raw):
    row = judge.read(raw, True)
    assert row["output"] is None and not row["valid"] and row["raw"] == raw


def spoil(rng):
    """Make an output that a model might have written, or none ever would."""
    cut = rng.randrange(len(GOOD))
    pieces = ['{"', '"', '":', ",", "[", "]", "}", "```", "//", "/*", "\\u", "\\x", "NaN", "-", "1e999", "山", " "]
    ages = ["32", "1e999", "9" * 5000, "NaN", "-Infinity", "null", '"\\ud83d"', "{}"]
    names = ["Ωμέγα", "Владимир", "محمد", "😀", "\x00", "\\x", "\\u12", '"', "\\"]
    return rng.choice([
        lambda: "",
        lambda: GOOD[:cut],
        lambda: GOOD[:cut] + GOOD[cut + rng.randrange(1, 9) :],
        lambda: GOOD[:cut] + rng.choice(pieces) + GOOD[cut:],
        lambda: GOOD[:cut] + chr(rng.choice([0, 1, 31, 0x2028, 0xD800, 0xDFFF, 0xFEFF, 0x10FFFF])) + GOOD[cut:],
        lambda: GOOD.replace('"32"', rng.choice(ages)),
        lambda: GOOD.replace("山田太郎", rng.choice(names)),
        lambda: GOOD.replace('"age"', '"name"').replace('"act"', '"persons"'),
        lambda: rng.choice(["[", '{"a":', '{"persons": [']) * rng.choice([10, 100, 10_000]),
        lambda: "".join(rng.choice(pieces) for _ in range(rng.randrange(200))),
        lambda: "".join(rng.sample(GOOD, len(GOOD))),
        lambda: "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(40))),
        lambda: json.dumps(rng.choice([[], 1, None, "persons", {"persons": 1}, [ANSWER], {**ANSWER, "more": 1}])),
        lambda: "説明" + GOOD[: rng.randrange(len(GOOD))] + "」終わり" + rng.choice(["", "```", "}"]),
    ])()  # fmt: skip


def test_ten_thousand_spoilt_outputs_are_read_or_refused(judge):
    rng = random.Random(0)
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid
    started, counts = time.process_time(), {"valid": 0, "mended": 0}
    for _ in range(10_000):
        raw = spoil(rng)
        row = judge.read(raw, True)
        assert set(row) <= {"output", "raw", "valid", "repaired"} and row["valid"] == (row["output"] is not None)
        if row["valid"]:
            assert valid(row["output"]) and orjson.loads(orjson.dumps(row["output"])) == row["output"]
            counts["valid"] += 1
            counts["mended"] += "repaired" in row
    assert counts["valid"] > 1000 and counts["mended"] > 500
    assert time.process_time() - started < 20


@pytest.mark.parametrize("text", ["{'", "{“", '{"\\"', '["a":', '{"a":"b"', '{"a":\\u', "{a ", '{"a": "",', "山', "])
def test_no_text_takes_long(judge, text):
    for length in (100_000, 20_000_000):
        raw = ('{"a": [\'' + text * length)[:length]
        started = time.process_time()
        judge.read(raw, True)
        assert time.process_time() - started < 5

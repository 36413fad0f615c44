import random
from dataclasses import replace

import pytest

from recipekit import windows
from recipekit.answers import Judge
from recipekit.errors import UserError
from recipekit.inputs import Article
from recipekit.predictor import Answer, LocalPredictor
from recipekit.segments import build, encode, encode_row
from recipekit.task import load_task
from rows import Characters
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("seed", range(30))
def test_parts_joined_are_the_text_and_each_fits_and_none_could_take_more(seed):
    rng = random.Random(seed)
    text = "".join(rng.choice(["山", "逮捕", "。", "！？", "」", "\n", " ", "「海。」", "川" * 30]) for _ in range(300))
    parts = windows.split(text, lambda part: len(part) <= 40)
    assert "".join(parts) == text
    ends = {match.end() for match in windows.SENTENCE.finditer(text)}
    at = 0
    for part in parts:
        assert 0 < len(part) <= 40
        reached = [end for end in ends if at < end <= at + 40]
        at += len(part)
        assert at == (max(reached) if reached else min(at - len(part) + 40, len(text)))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("一。二！三？四", ["一。", "二！", "三？", "四"]),
        ("「一。」二（三。）『四』", ["「一。」", "二（三。）", "『四』"]),
        ("一\n\n二。 \n三", ["一\n\n", "二。 \n", "三"]),
        ("何！？」と", ["何！？」", "と"]),
    ],
)
def test_sentences_end_behind_closing_brackets_and_white_space(text, sentences):
    assert [match[0] for match in windows.SENTENCE.finditer(text)] == sentences


def test_an_article_that_fits_has_the_prompt_of_its_training_row(small_task):
    body = "配信 共同\n海野太郎容疑者を逮捕。"
    ids, trained = encode_row(Characters(), build(small_task, body, {"persons": [], "places": []}))
    prompt = ids[: trained.index(True)]
    assert windows.prompts(small_task, Characters(), body, len(prompt)) == [prompt]
    assert len(windows.prompts(small_task, Characters(), body, len(prompt) - 1)) == 2


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_windows_fit_and_lose_no_character_of_the_clean_article(small_task, tmp_path, sentencepiece):
    tokenizer = tiny_tokenizer(tmp_path / "t", sentencepiece=sentencepiece)
    body = "配信 共同\n" + "".join(f"山田{n}容疑者を逮捕。配信 花火大会。😀\n" for n in range(60)) + "山" * 300
    bare = len(encode(tokenizer, small_task.render("")))
    prompts = windows.prompts(small_task, tokenizer, body, bare + 100)
    before, _, after = small_task.render("\0")[-1].partition("\0")
    first = encode(tokenizer, [small_task.render("")[0]])
    texts = [tokenizer.decode(ids[len(first) :]) for ids in prompts]
    found = [text.lstrip(" ").removeprefix(before).removesuffix(after) for text in texts]
    assert "".join("".join(found).split()) == "".join(small_task.clean(body).split())
    assert any(text.startswith("配信") for text in found), "what would be a feed's line is none in the middle of one"
    assert all(len(ids) <= bare + 100 for ids in prompts) and len(prompts) < 25
    assert [len(ids) for ids in prompts[-3:-1]] == [bare + 100] * 2, "text without an end of a sentence fills them"


def test_splitting_a_book_is_quick(small_task):
    body = "山田太郎容疑者を逮捕した。" * 40_000 + "山" * 100_000
    calls = []

    def fits(part):
        calls.append(len(part))
        return len(part) <= 3000

    parts = windows.split(body, fits)
    assert "".join(parts) == body and sum(calls) < 30 * len(body)


SCHEMA = {
    "type": "object",
    "properties": {
        "persons": {"items": {"properties": {"name": {}, "age": {}, "real": {}, "acts": {"items": {}}}}},
        "places": {"items": {"type": "string"}},
        "title": {"type": "string"},
    },
}  # fmt: skip


def test_answers_are_merged_by_name_and_the_first_value_that_says_something_counts():
    first = {
        "persons": [{"name": "山田 太郎", "age": "", "real": False, "acts": ["窃盗"]}],
        "places": ["東京"],
        "title": "",
    }
    second = {
        "persons": [
            {"age": "32", "name": "山田　太郎", "real": True, "acts": ["窃盗", "詐欺"]},
            {"name": "", "age": "1"}, {"name": "", "age": "2"}, {"name": "海野", "age": "5"},
        ],
        "places": ["大阪", "東 京"], "title": "題",
    }  # fmt: skip
    third = {"persons": [{"name": "", "age": "2"}], "places": [], "title": "別"}
    assert windows.merge_values([first, second, third], SCHEMA) == {
        "persons": [
            {"name": "山田 太郎", "age": "32", "real": False, "acts": ["窃盗", "詐欺"]},
            {"name": "", "age": "1"}, {"name": "", "age": "2"}, {"name": "海野", "age": "5"},
        ],
        "places": ["東京", "大阪"],
        "title": "題",
    }  # fmt: skip


def test_a_whole_is_valid_only_where_every_window_is_and_the_schema_allows_it():
    schema = {"type": "object", "properties": {"places": {"type": "array", "maxItems": 2}}}
    judge = Judge(schema)

    def merged(*raws):
        return windows.merge([judge.read(raw, True) for raw in raws], judge, schema)

    good = merged('{"places": ["山"]}', '{"places": ["川"]}')
    assert (good["output"], good["valid"], good["raw"].count("\n")) == ({"places": ["山", "川"]}, True, 1)
    assert merged('{"places": ["山"]}', "{")["output"] is None
    assert not merged('{"places": ["山"]}', '{"places": ["川", "海"]}')["valid"]


def test_a_long_article_is_predicted_window_by_window(small_task, base):
    body = "".join(f"山田{n}容疑者を逮捕。\n" for n in range(400))
    predictor = LocalPredictor.load(small_task, base)
    row, short = sorted(predictor.predict([Article("s", "山田。"), Article("l", body)]), key=lambda row: row["id"])
    count = len(windows.prompts(small_task, predictor.tokenizer, body, predictor.room))
    assert row["windows"] == count > 1 and row["valid"] and not row["truncated"] and "windows" not in short
    answers = [predictor.judge.read(raw, True) for raw in row["raw"].split("\n")]
    assert len(answers) == count and all(one["valid"] for one in answers)
    assert row["output"] == windows.merge(answers, predictor.judge, small_task.output_schema)["output"]


def test_the_mean_is_over_the_tokens_of_all_windows(small_task, base):
    predictor = LocalPredictor.load(small_task, base)
    answers = [Answer(0, "{}", True, -3.0, 2, 1.0, 2.5), Answer(1, "{}", False, -1.0, 6, 0.5, 2.0)]
    row = predictor._row(Article("a", "山"), answers)
    assert (row["mean_logprob"], row["tokens"], row["seconds"]) == (-0.5, 8, 2.0)
    assert row["truncated"] and not row["valid"] and row["raw"] == "{}\n{}"
    row = predictor._row(Article("a", "山"), [replace(answers[0], logprob=None), answers[1]])
    assert row["mean_logprob"] is None


def test_a_context_without_room_is_refused(small_task, tmp_path):
    tiny_tokenizer(tmp_path / "m")
    tiny_model(tmp_path / "m", max_position_embeddings=220)
    with pytest.raises(UserError, match="lower max_new_tokens"):
        LocalPredictor.load(load_task("mini", small_task.root), tmp_path / "m")

import pytest
from tokenizers import AddedToken

from recipekit import rowcheck, segments
from recipekit.task import load_task
from rows import Characters, invert, row, write


@pytest.fixture
def task(mini):
    return load_task("mini", mini)


def problems_of(task, rows, length=512, tokenizer=None):
    path = write(task, "mix", rows)
    return rowcheck.check_file(task, path, tokenizer or Characters(), length).problems


@pytest.fixture
def rows(task):
    return [row(task, f"山田{i}容疑者を逮捕。", f"山田{i}") for i in range(9)]


def test_rows_in_order_have_no_problems_and_are_measured(task, rows):
    report = rowcheck.check_file(task, write(task, "mix", rows), Characters(), 512)
    ids = [segments.encode_row(Characters(), r)[0] for r in rows]
    assert (report.rows, report.longest, report.problems) == (9, max(map(len, ids)), [])
    assert report.sample[-1] == ('{"persons": [{"name": "山田0"}]}</s>', True)
    assert report.sample[0][0].startswith("<s>抽出する") and not report.sample[0][1]


def train_all(r):
    for segment in r["segments"]:
        segment["label"] = True


def train_none(r):
    r["segments"][-1]["label"] = False


def answer(text):
    return lambda r: r["segments"][-1].update(text=text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (invert, "the mask is wrong, found trained, trained, untrained"),
        (train_all, "the mask is wrong, found trained, trained, trained"),
        pytest.param(train_none, "no token is trained", marks=pytest.mark.trap(number=7)),
        (answer('{"persons": []}'), "does not end in </s>"),
        (answer("{'persons': []}</s>"), "the answer is not valid JSON"),
        (answer('{"persons": [{"nam": "x"}]}</s>'), "label.persons[0]: 'name' is a required property"),
        (answer('{"people": []}</s>'), "'people'"),
        (lambda r: r["segments"].pop(0), "segments: 1 before the answer, but the prompt of today has 2"),
        (lambda r: r["segments"][0].update(text="抽出する。\n"), "segments[0].text: not what the prompt of"),
        (lambda r: r["segments"][1].update(text="【記事】\n配信 共同\n逮捕。\n"), "segments[1].text: not what the"),
        (lambda r: r.pop("segments"), "segments: expected a list"),
        (lambda r: r["segments"][1].pop("label"), "segments[1].label: expected true or false"),
        (lambda r: r["segments"][1].update(text=""), "segments[1].text: expected a text"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(task, rows, spoil, words):
    spoil(rows[4])
    problems = problems_of(task, rows)
    assert any(p.startswith(f"{task.segments_path('mix')}:5: ") and words in p for p in problems), problems
    assert all(":5: " in p for p in problems)


@pytest.mark.trap(number=6)
def test_rows_too_long_are_counted_and_the_first_named_with_their_length(task, rows):
    rows[2:7] = [row(task, "長" * 200, "山田") for _ in range(5)]
    problems = problems_of(task, rows, length=200)
    length = len(segments.encode_row(Characters(), rows[2])[0])
    named = [f"{task.segments_path('mix')}:{line}: {length} tokens, over sequence_len 200" for line in (3, 4, 5)]
    assert [p.split(";")[0] for p in problems] == [*named, f"{task.segments_path('mix')}: 2 more rows like these"]
    assert problems_of(task, rows, length=length) == []


def test_broken_json_on_line_7_is_named_and_the_rest_still_checked(task, rows):
    invert(rows[8])
    path = write(task, "mix", rows)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:6], lines[6][:-1], *lines[7:]]), encoding="utf-8")
    report = rowcheck.check_file(task, path, Characters(), 512)
    assert [p.split(": ")[0] for p in report.problems] == [f"{path}:7", f"{path}:9"]
    assert "not valid JSON" in report.problems[0]


def test_an_empty_file_is_named(task):
    assert "the file is empty" in problems_of(task, [])[0]


def test_rows_of_later_batches_are_checked_too(task, rows, monkeypatch):
    monkeypatch.setattr(rowcheck, "BATCH", 2)
    train_none(rows[8])
    assert any(":9: " in problem for problem in problems_of(task, rows))


class Splits(Characters):
    """A tokenizer that does not know </s> as one token."""

    def _ids(self, text):
        return [ord(character) for character in text.replace("<s>", "\x01")]


class NoBos(Characters):
    """A tokenizer that does not know <s> as one token."""

    def _ids(self, text):
        return [ord(character) for character in text.replace("</s>", "\x02")]


class Other(Characters):
    """A tokenizer that ends with another token."""

    eos_token, eos_token_id = "<|end|>", 3


@pytest.mark.parametrize(
    ("tokenizer", "row_words", "words"),
    [
        (Splits(), "the last token is ['>'], not '</s>'", "makes 4 tokens of '</s>'"),
        (NoBos(), "the first token is ['<'], not '<s>'", "makes 3 tokens of '<s>'"),
        (Other(), "the last token is ['</s>'], not '<|end|>'", "the eos of base is '<|end|>'"),
    ],
)
def test_a_tokenizer_that_writes_other_specials_is_found(task, rows, tokenizer, row_words, words):
    assert row_words in problems_of(task, rows, tokenizer=tokenizer)[0]
    assert words in next(rowcheck.tokenizer_problems(task, tokenizer, "base"))


class Knows(Characters):
    """A tokenizer with a special token that nobody has heard of."""

    added_tokens_decoder = Characters.added_tokens_decoder | {ord("§"): AddedToken("§", special=True)}


@pytest.mark.parametrize(("body", "name", "place"), [("山§田", "山", 1), ("山田", "山§", 2)])
def test_a_special_token_that_a_text_quotes_is_found(task, body, name, place):
    [problem] = problems_of(task, [row(task, "山田", "山田"), row(task, body, name)], tokenizer=Knows())
    assert f":2: segments[{place}].text: the text '§' becomes a special token; name it under prompt.special" in problem


def test_special_tokens_of_the_prompt_itself_are_its_own(task, mini):
    (mini / "recipes/mini/article.txt").write_text("§{{ body }}§\n", encoding="utf-8")
    task = load_task("mini", mini)
    assert problems_of(task, [row(task, "山田", "山田")], tokenizer=Knows()) == []


def test_special_tokens_that_agree_are_no_problem(task):
    assert list(rowcheck.tokenizer_problems(task, Characters(), "base")) == []


def test_a_real_tokenizer_counts_as_encode_row_does(task, rows, tmp_path):
    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer(tmp_path / "sp", sentencepiece=True)
    report = rowcheck.check_file(task, write(task, "mix", rows), tokenizer, 512)
    assert report.longest == max(len(segments.encode_row(tokenizer, r)[0]) for r in rows)


def test_a_text_that_batches_share_is_worked_on_once_and_others_are_forgotten():
    made = []
    lengths = rowcheck.OncePerText(lambda texts: made.append(texts) or map(len, texts))
    assert lengths(iter(["ab", "c", "ab"])) == {"ab": 2, "c": 1}
    assert lengths(["ab", "def"]) == {"ab": 2, "def": 3} and lengths(["ab"]) == {"ab": 2}
    assert lengths(["c"]) == {"c": 1} and made == [["ab", "c"], ["def"], ["c"]]

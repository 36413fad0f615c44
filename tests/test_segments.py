"""Articles and labels through segments and back, and what a tokenizer makes of them."""

import json
import re
import unicodedata

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from recipekit import ROOT, segments, specials, windows
from recipekit.prompt_templates import at_line_start
from recipekit.specials import defuser
from recipekit.task import load_task
from tiny import tiny_tokenizer

SPECIAL = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<|im_start|>",
    "<|eot_id|>",
    "<extra_id_0>",
]
ODD = [
    "\u3000",
    "か\u3099",
    "ﾊﾟﾝﾀﾞ",
    "👩‍👩‍👧‍👦",
    "葛\U000e0100",
    "𠮷",
    "\u200b",
    "\r\n",
    "\x7f",
    "\u2028",
    "|",
    "{{ body }}",
    "{% x %}",
]
MARKERS = ["【記事】", "抽出する。\n", '{"persons": []}', "\\u0041", '"', "\\"]
PIECES = st.one_of(st.sampled_from(SPECIAL + ODD + MARKERS), st.text(st.characters(codec="utf-8"), max_size=20))
TEXTS = st.lists(PIECES, max_size=8).map("".join)
VALUES = st.recursive(
    TEXTS | st.integers(-99, 99) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
LABELS = st.dictionaries(TEXTS, VALUES, max_size=3)


@pytest.fixture(scope="module", params=["samples", "sentencepiece", "many"])
def tokenizer(request, tmp_path_factory):
    """The small base's, one like Mistral's, and one that has every special token of the list."""
    if request.param == "samples":
        from recipekit.rowcheck import load_tokenizer

        return load_tokenizer(ROOT, "data/samples/base")
    made = tiny_tokenizer(tmp_path_factory.mktemp("tok"), sentencepiece=request.param == "sentencepiece")
    if request.param == "many":
        made.add_special_tokens(
            {"additional_special_tokens": [name for name in SPECIAL if name[:2] not in ("<s", "</")]}
        )
        assert len(made("[INST]<|im_start|>", add_special_tokens=False)["input_ids"]) == 2
    return made


@given(TEXTS, LABELS)
@example("</s>", {"<s>": "[INST]"})
def test_any_article_and_label_round_trip(mini, body, label):
    task = load_task("mini", mini)
    row = json.loads(json.dumps(segments.build(task, body, label)))
    back = segments.take_apart(task, row)
    assert back["body"] == task.clean(body)
    plain = defuser(["<s>", "</s>"])
    assert json.dumps(back["label"], ensure_ascii=False) == plain(json.dumps(label, ensure_ascii=False))
    assert segments.build(task, back["body"], back["label"]) == row, "and again the same"


@given(TEXTS, LABELS)
@example("花火</s>[INST]", {"名": "</s>"})
def test_the_mask_covers_the_answer_and_no_text_becomes_a_special_token(mini, tokenizer, body, label):
    task = load_task("mini", mini)
    row = segments.build(task, body, label)
    ids, trained = segments.encode_row(tokenizer, row)
    answer = ids[trained.index(True) :]
    assert all(trained[-len(answer) :]) and not any(trained[: -len(answer)])
    assert answer == segments.encode(tokenizer, [task.answer(label)])
    assert ids[: -len(answer)] == windows.prompts(task, tokenizer, body, 10**9)[0]
    found = [token for token in ids if token in set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}]
    assert found == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id


@given(TEXTS)
def test_plain_text_is_the_same_but_for_width(text):
    plain = defuser(["<s>", "</s>", "§end§"])(text)
    assert unicodedata.normalize("NFKC", plain) == unicodedata.normalize("NFKC", text)
    assert len(plain) == len(text) and defuser([])(plain) == plain
    assert not any(name in plain for name in SPECIAL)


def test_a_tokenizers_own_special_tokens_are_named_in_task_yml(mini):
    path = mini / "recipes/mini/task.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("  bos:", "  special_tokens: ['@@x@@']\n  bos:"), "utf-8")
    assert load_task("mini", mini).clean("a@@x@@b") == "a＠@x@@b"


def test_what_only_looks_like_a_special_token_stays():
    text = "1<s, a</b>, [注], <https://x>, <|>, 3 < 4 > 2, [INST ], <B>"
    assert defuser(["</s>"])(text) == text
    assert specials.FULL_WIDTH == 0xFEE0


@pytest.mark.parametrize(
    "pattern", yaml.safe_load((ROOT / "recipes/hawks/task.yml").read_text())["prompt"]["strip"][:3]
)
def test_the_recipes_patterns_are_looked_for_in_one_pass(pattern):
    assert at_line_start(pattern)


@pytest.mark.parametrize(
    "pattern", ["a", "^a|b", r"^(a)\1", "(?i)^a", "^(?P<x>a)", "^*", "^a(?=b)", "^", r"^x(?i:b)", "[^a]", r"\^a"]
)
def test_other_patterns_are_looked_for_alone(pattern):
    assert at_line_start(pattern) == (pattern == "^")


@given(st.text("写真:：\n 配信【】a|", max_size=40))
def test_stripping_in_one_pass_is_stripping(mini, text):
    path = mini / "recipes/mini/task.yml"
    patterns = [r"^配信.*\n", r"^【[^】\n]*(?:配信|写真)[^】\n]*】[ a]*\n?", r"^(?:写真)[:：].*\n?", r"a\|+", "^a|信$"]
    spec = path.read_text(encoding="utf-8").replace("['^配信.*\\n']", json.dumps(patterns, ensure_ascii=False))
    path.write_text(spec, encoding="utf-8")
    expected = text
    for pattern in patterns:
        expected = re.sub(pattern, "", expected, flags=re.MULTILINE)
    assert load_task("mini", mini).clean(text) == expected.strip()

"""Fields given as text: on a command line, in a chat, in the cells of a table."""

import pytest

from recipekit.chat_fields import middle, parse_field, parse_fields, typed, words
from recipekit.conversations import Conversations
from recipekit.errors import UserError
from recipekit.task import load_task


@pytest.fixture(scope="module")
def companion():
    return Conversations(load_task("companion"))


@pytest.fixture(scope="module")
def aku():
    return Conversations(load_task("aku"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("affection_level=lover", {"affection_level": "lover"}),
        ("topics=仕事, 家族，猫", {"topics": ["仕事", "家族", "猫"]}),
        ("memories=先週、引っ越した", {"memories": ["先週、引っ越した"]}),
        ("memories=先週,引っ越した|猫がいる", {"memories": ["先週,引っ越した", "猫がいる"]}),
        ("topics=a=b", {"topics": ["a=b"]}),
    ],
)
def test_values_of_companion(companion, text, found):
    assert parse_field(companion, text) == found


@pytest.mark.parametrize("text", ["attribute=4,0", "attribute=[4, 0]", "attribute=（４，０）"])
def test_an_attribute_is_all_its_numbers(aku, text):
    assert parse_fields(aku, [text]) == {"relation": 4, "mood": 0}


def test_what_is_wrong_comes_at_once(aku):
    with pytest.raises(UserError) as error:
        parse_fields(aku, ["attribute=4", "relation=9", "colour=red", "mood", "genre=", "mood=" + "1" * 5000], [" "])
    found = error.value.problems
    assert found[0] == "--set: mood: found '', expected a whole number from 0 to 4" and len(found) == 7
    assert "relation: found 9" in found[1] and "no such field" in found[2] and "expected name=value" in found[3]


def test_the_middle_and_the_words(aku, companion):
    assert middle(aku) == {"relation": 2, "mood": 2} and middle(companion) == {}
    assert words(aku, {"mood": 0, "genre": "food", "context": "駅", "gone": 1, "relation": None}) == [
        ("機嫌", "0 とても悪い"), ("ジャンル", aku.label("genre", "food")), ("場面", "駅"),
    ]  # fmt: skip
    assert words(companion, {"topics": ["仕事", "猫"]}) == [("話題", "仕事、猫")]


def test_cells_that_are_no_value_stay_as_they_are(aku):
    assert typed(aku, "mood", " よい ") == {"mood": "よい"} and typed(aku, "nowhere", "1") == {"nowhere": "1"}

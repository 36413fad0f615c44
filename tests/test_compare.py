"""Pairing persons, matching sets, and what is called wrong with a value."""

import re

import pytest

from answers import answer, gold, person
from recipekit.compare import CLASSES, Comparer, assign
from recipekit.errors import UserError
from recipekit.extract import predicted_values
from recipekit.task import load_task


@pytest.fixture(scope="module")
def comparer():
    return Comparer(load_task("hawks"))


def wrong(comparison):
    """Errors as (column without its prefix, gold, predicted, class), sorted."""
    slots = [s for s in comparison.slots if not s.right]
    return sorted((s.column.removeprefix("person_"), s.gold or "", s.predicted or "", s.wrong) for s in slots)


def right(comparison):
    return sorted(slot.gold for slot in comparison.slots if slot.right)


def test_a_right_age_on_the_wrong_person_is_an_error(comparer):
    a, b = person("甲野一郎", age="32"), person("乙山花子", age="45")
    swapped = answer(a | {"age": "45"}, b | {"age": "32"})
    found = comparer.compare(gold(a, b), swapped, "甲野一郎容疑者(32)と乙山花子容疑者(45)")
    assert right(found) == ["乙山花子", "甲野一郎"]
    assert wrong(found) == [
        ("age_at_published", "32", "45", "wrong person"),
        ("age_at_published", "45", "32", "wrong person"),
    ]
    assert found.entities["person"] == (2, 2, 0)


@pytest.mark.parametrize("turned", [False, True])
def test_order_of_persons_does_not_matter(comparer, turned):
    people = [person("甲野一郎", age="32"), person("乙山花子", age="45"), person("丙川三郎", act="窃盗")]
    found = comparer.compare(gold(*people), answer(*(people[::-1] if turned else people)))
    assert not wrong(found) and found.entities["person"] == (3, 3, 3)


def test_order_does_not_matter_where_two_pairings_are_as_good(comparer):
    half, other = person("甲野一郎", age="32", act="詐欺"), person("甲野一郎", age="45", act="窃盗")
    row = gold(person("甲野一郎", age="32", act="窃盗"))
    assert right(comparer.compare(row, answer(half, other))) == right(comparer.compare(row, answer(other, half)))
    both = gold(half, other), gold(other, half)
    found = [right(comparer.compare(row, answer(person("甲野一郎", age="32", act="窃盗")))) for row in both]
    assert found[0] == found[1]


def test_a_misspelt_name_is_still_the_person(comparer):
    found = comparer.compare(gold(person("甲野一郎", age="32")), answer(person("甲野二郎", age="32")), "甲野一郎(32)")
    assert wrong(found) == [("name", "甲野一郎", "甲野二郎", "hallucinated")] and right(found) == ["32"]
    found = comparer.compare(gold(person("甲野一郎", age="32")), answer(person("甲野", age="32")), "甲野一郎(32)")
    assert wrong(found) == [("name", "甲野一郎", "甲野", "wrong span")]


def test_another_person_of_the_same_age_is_not_the_person(comparer):
    found = comparer.compare(
        gold(person("甲野一郎", age="32")), answer(person("鈴森健", age="32")), "甲野一郎 鈴森健 32"
    )
    assert wrong(found) == [
        ("age_at_published", "", "32", "wrong person"),
        ("age_at_published", "32", "", "missed"),
        ("name", "", "鈴森健", "spurious"),
        ("name", "甲野一郎", "", "missed"),
    ]
    assert found.entities["person"] == (1, 1, 0)


def test_the_exact_name_wins_over_a_near_one_with_more_right(comparer):
    near = person("甲野二郎", age="32", act="窃盗", position="会社員")
    found = comparer.compare(gold(near | {"name": "甲野一郎"}), answer(near, person("甲野一郎")))
    assert right(found) == ["甲野一郎"]


def test_persons_without_a_name_are_paired_by_their_columns(comparer):
    a, b = person(age="32", act="窃盗"), person(age="45", act="詐欺")
    found = comparer.compare(gold(a, b), answer(b, a))
    assert not wrong(found)
    found = comparer.compare(gold(a), answer(person("甲野一郎", age="32", act="窃盗")))
    assert right(found) == []  # a named one is somebody


def test_only_real_offenders_count(comparer):
    output = answer(person("丙野", is_offender=False), person("丁野", is_real=False))
    assert comparer.compare(gold(), output).slots == []


def test_each_class_of_error(comparer):
    body = "北浜市中央町の住宅。甲野一郎容疑者(32)を逮捕。北浜署。丁田四郎さん(70)"
    row = gold(person("甲野一郎", age="32", act="窃盗"), places=["北浜市中央町"], police=["北浜署"])
    output = answer(person("甲野一郎", age="70", act=""), places=["北浜市"], police=["南浜署", "北浜署"])
    assert wrong(comparer.compare(row, output, body)) == [
        ("age_at_published", "", "70", "spurious"),
        ("age_at_published", "32", "", "missed"),
        ("occured_locations", "北浜市中央町", "北浜市", "wrong span"),
        ("police_departments", "", "南浜署", "hallucinated"),
        ("violated_law", "窃盗", "", "missed"),
    ]
    broken = comparer.compare(row, {"persons": 1}, body)
    assert {slot.wrong for slot in broken.slots} == {"format"} and not broken.valid
    assert comparer.compare(row, None, body).valid is False
    swapped = comparer.compare(
        gold(person("甲野一郎"), person("丁田四郎", age="70")), answer(person("甲野一郎", age="70")), body
    )
    found = {error[3] for part in (comparer.compare(row, output, body), broken, swapped) for error in wrong(part)}
    assert found == set(CLASSES)


def test_two_places_that_read_alike_are_no_wrong_span(comparer):
    row, output = gold(places=["北浜市深池7丁目"]), answer(places=["北浜市月池1丁目"])
    apart = comparer.compare(row, output, "北浜市深池7丁目の住宅で。北浜市月池1丁目の女性が")
    assert [(s.gold, s.predicted, s.wrong) for s in apart.slots] == [
        ("北浜市深池7丁目", None, "missed"),
        (None, "北浜市月池1丁目", "spurious"),
    ]
    assert apart.slots[1].alike > 0.5  # and the graded score has it
    cut = comparer.compare(row, answer(places=["浜市深池７"]), "北浜市深池7丁目の住宅で。")
    assert [slot.wrong for slot in cut.slots] == ["wrong span"]


def test_without_the_article_nothing_is_called_hallucinated(comparer):
    found = comparer.compare(gold(police=["北浜署"]), answer(police=["東町交番"]))
    assert wrong(found) == [
        ("police_departments", "", "東町交番", "spurious"),
        ("police_departments", "北浜署", "", "missed"),
    ]


def test_sets_know_no_order_and_no_repetition(comparer):
    found = comparer.compare(gold(police=["北署", "南署", "南署"]), answer(police=["南署", "北署", "北署"]))
    assert len(right(found)) == 2 and not wrong(found)


def test_a_prefecture_may_be_left_out_but_not_changed(comparer):
    assert not wrong(comparer.compare(gold(places=["長野県北浜市"]), answer(places=["北浜市"])))
    found = comparer.compare(gold(places=["長野県北浜市"]), answer(places=["山梨県北浜市"]))
    assert [error[3] for error in wrong(found)] == ["wrong span"] and found.slots[0].alike < 1
    found = comparer.compare(gold(places=["北浜市"]), answer(places=["北浜市", "長野県北浜市"]))
    assert not wrong(found)  # the same place twice


def test_graded_likeness_is_by_edits(comparer):
    # 甲野一郎 and 甲野一朗: one of four characters differs
    [slot] = comparer.compare(gold(person("甲野一郎")), answer(person("甲野一朗"))).slots
    assert slot.alike == pytest.approx(1 - 1 / 4)


def test_assignment_is_the_best_one():
    # taking 9 first leaves 1: 10 in all; 8 + 7 = 15 is better
    assert sorted(assign([[9, 8], [7, 1]])) == [(0, 1), (1, 0)]
    assert assign([[0.0]]) == [] and assign([]) == [] and assign([[]]) == []


def test_values_of_a_column_whoever_they_belong_to():
    task = load_task("hawks")
    output = answer(person("甲野", age="32"), person("乙野"), person("丙野", is_offender=False), places=["北浜市"])
    found = predicted_values(task, output)
    assert list(found) == list(task.gold_columns)
    assert found["person_name"] == ["甲野", "乙野"] and found["person_age_at_published"] == ["32"]
    assert found["occured_locations"] == ["北浜市"] and found["person_address"] == []
    assert not any(predicted_values(task, None).values())


@pytest.mark.parametrize(
    ("path", "output", "values"),
    [
        ("places[] || more[]", {"places": [], "more": ["北浜市"]}, ["北浜市"]),
        ("places[0].name || title", {"places": [], "title": "北浜市"}, ["北浜市"]),
        ("places[*].name | [0]", {"places": [{"name": "北浜市"}]}, ["北浜市"]),
        ("places[?real].name", {"places": [{"name": "北浜市", "real": True}, {"name": "南"}]}, ["北浜市"]),
        ("places[?real].name", {"places": []}, []),
        ("real", {"real": True}, ["true"]),
        ("number", {"number": 3}, ["3"]),
    ],
)
def test_paths_are_jmespath(mini, path, output, values):
    task = load_task("mini", mini)
    task.spec["gold"]["columns"] = {"x": {"path": path, "compare": "text"}}
    assert predicted_values(task, output) == {"x": values}


def test_a_predicted_person_who_stands_twice_is_spurious_and_nobody_else(comparer):
    one = person("甲野一郎", age="32")
    found = comparer.compare(gold(one, person("乙山花子", age="45")), answer(one, one), "甲野一郎(32)と乙山花子(45)")
    assert sorted(error[3] for error in wrong(found)) == ["missed", "missed", "spurious", "spurious"]


@pytest.mark.parametrize(
    ("gold_spec", "output", "message"),
    [
        (
            {"entities": {"person": {"path": "suspect", "key": "x"}}},
            {"suspect": {"name": "甲野"}},
            "to a list of objects",
        ),
        ({"entities": {"person": {"path": "length(a)", "key": "x"}}}, {"a": [1]}, "to a list of objects"),
        ({"columns": {"x": {"path": "join(',', a)", "compare": "text"}}}, {"a": None}, "columns.x.path: "),
    ],
)
def test_a_path_that_does_not_fit_is_refused(mini, gold_spec, output, message):
    task = load_task("mini", mini)
    columns = {"x": {"path": "name", "compare": "text", "entity": "person"}}
    task.spec["gold"] |= {"columns": columns, **gold_spec}
    with pytest.raises(UserError, match=re.escape("recipes/mini/task.yml: gold.")) as caught:
        predicted_values(task, output)
    assert message in caught.value.problems[0]


def test_a_path_to_an_object_is_refused(mini):
    path = mini / "recipes" / "mini" / "task.yml"
    path.write_text(path.read_text(encoding="utf-8").replace('"persons[].name"', "persons"), encoding="utf-8")
    with pytest.raises(UserError, match="gold.columns.person_name.path: leads to an object"):
        Comparer(load_task("mini", mini)).compare(gold(), {"persons": [{"name": "甲野"}]})

"""Heads: what labels become in training, and outputs in prediction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import EvalPrediction

from recipekit.errors import UserError
from recipekit.regression import HUBER, RegressionConfig
from recipekit.regression_plugin import RegressionPlugin, loss_of, metrics_of
from recipekit.regressor import FILE, half_width, read_facts

HEADS = {"age": {"scale": [10, 110]}, "sex": {"classes": ["女", "男", "他"]}, "trait": {"scale": [1, 7]}}


def spec(**changed):
    return RegressionConfig.model_validate({"heads": HEADS} | changed)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("scaling", ["range", "shift"])
def test_outputs_that_fit_the_labels_decode_to_them(activation, scaling):
    heads = {"a": {"scale": [2, 3]}, "b": {"scale": [1, 1.9]}} if scaling == "shift" else HEADS
    own = spec(activation=activation, scaling=scaling, heads=heads)
    labels = {"age": 43, "sex": "男", "trait": 4.25, "a": 2.5, "b": 1.3}
    encoded = own.encode(labels)
    outputs = np.zeros((1, own.num_labels))
    for value, (name, place) in zip(encoded, own.places().items(), strict=True):
        if own.heads[name].classes:
            outputs[0, place.start + int(value)] = 30
        else:
            outputs[0, place.start] = np.log(value / (1 - value)) if activation == "sigmoid" else value
    found = own.decode(outputs)
    for name in own.numbers:
        assert found[name][0] == pytest.approx(labels[name])
        assert own.decode_labels(np.array([encoded]))[name][0] == pytest.approx(labels[name])
    if "sex" in heads:
        assert found["sex"][0].argmax() == 1 and found["sex"].sum() == pytest.approx(1)


def test_a_sigmoid_of_shifted_values_cannot_leave_one_unit_of_the_scale():
    """The defect of a score shift without a scale; without an activation estimates end at the scale's ends."""
    shifted = spec(scaling="shift", heads={"score": {"scale": [1, 5]}})
    assert shifted.decode(np.array([[50.0]]))["score"][0] == pytest.approx(2)
    straight = spec(scaling="shift", activation="none", heads={"score": {"scale": [1, 5]}})
    assert straight.decode(np.array([[50.0], [-3.0]]))["score"].tolist() == [5, 1]


def test_outputs_are_numbered_and_named_in_the_order_of_the_heads():
    own = spec()
    assert own.num_labels == 5 and own.numbers == ["age", "trait"]
    assert own.places() == {"age": slice(0, 1), "sex": slice(1, 4), "trait": slice(4, 5)}
    assert own.id2label == {0: "age", 1: "sex=女", 2: "sex=男", 3: "sex=他", 4: "trait"}


def test_training_starts_at_the_mean_and_at_the_classes_shares():
    own = spec()
    rows = [own.encode({"age": age, "sex": sex, "trait": 3}) for age, sex in ((30, "女"), (50, "女"), (60, "男"))]
    found = own.decode(np.array([own.start(rows)]))
    assert found["age"][0] == pytest.approx(140 / 3) and found["trait"][0] == pytest.approx(3)
    assert found["sex"][0] == pytest.approx(np.array([3, 2, 1]) / 6)
    edge = spec(heads={"a": {"scale": [0, 1]}})
    assert np.isfinite(edge.start([[0.0], [0.0]])).all()


def test_losses_are_weighted_sums():
    own = spec(heads={"age": {"scale": [0, 100], "weight": 2}, "sex": {"classes": ["女", "男"], "weight": 0.5}})
    outputs, labels = torch.tensor([[0.3, 1.0, -1.0], [-0.2, 0.5, 2.0]]), torch.tensor([[0.4, 0], [0.9, 1]])
    value = torch.sigmoid(outputs[:, 0])
    squares = ((value - labels[:, 0]) ** 2).mean()
    entropy = -torch.log_softmax(outputs[:, 1:], 1)[torch.arange(2), labels[:, 1].long()].mean()
    assert loss_of(own, outputs, labels) == pytest.approx(float(2 * squares + 0.5 * entropy))
    error = (value - labels[:, 0]).abs()
    huber = torch.where(error < HUBER, error**2 / 2, HUBER * (error - HUBER / 2)).mean()
    own = own.model_copy(update={"loss": "huber"})
    assert loss_of(own, outputs, labels) == pytest.approx(float(2 * huber + 0.5 * entropy))


def test_evaluations_are_in_the_units_of_the_labels():
    own = spec()
    labels = np.array(
        [own.encode({"age": 40, "sex": "女", "trait": 2}), own.encode({"age": 60, "sex": "他", "trait": 5})]
    )
    outputs = np.array([[-50.0, 3, 0, 0, 50], [50.0, 3, 0, 0, 50]])  # ages 10 and 110, traits 7
    found = metrics_of(own, EvalPrediction(outputs, labels))
    expected = {"mae_age": 40, "accuracy_sex": 0.5, "mae_trait": 3.5, "mae": 21.75}
    assert found == pytest.approx(expected)


@pytest.mark.trap(number=19)
@pytest.mark.parametrize(("written", "passed"), [(False, False), (True, True), (None, True)])
def test_greater_is_better_reaches_the_trainer(tmp_path, monkeypatch, written, passed):
    """Through Axolotl's own hook; transformers holds more of whatever is no loss to be better."""
    from axolotl.integrations.base import PluginManager
    from transformers import TrainingArguments

    manager = PluginManager.get_instance()
    monkeypatch.setattr(manager, "plugins", {"regression": RegressionPlugin()})
    given = manager.get_training_args(SimpleNamespace(greater_is_better=written))
    arguments = TrainingArguments(str(tmp_path), metric_for_best_model="mae", use_cpu=True, **given)
    assert arguments.greater_is_better is passed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": {}}, "at least 1 item"),
        ({"heads": {"a": {}}}, "expected either scale"),
        ({"heads": {"a": {"scale": [1, 2], "classes": ["x", "y"]}}}, "expected either scale"),
        ({"heads": {"a": {"scale": [2, 2]}}}, r"found \[2.0, 2.0\], expected \[least, greatest\]"),
        ({"heads": {"a": {"classes": ["x"]}}}, "at least 2 items"),
        ({"heads": {"a": {"classes": ["x", "x"]}}}, "stands twice"),
        ({"heads": {"a": {"scale": [0, 1], "weight": 0}}}, "greater than 0"),
        ({"loss": "mae"}, "'mse' or 'huber'"),
        ({"sigmoid": True}, "Extra inputs"),
    ],
)
def test_wrong_heads_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        spec(**wrong)


def test_an_interval_holds_its_share_of_new_errors():
    rng = np.random.default_rng(0)
    held = [float((np.abs(rng.normal(size=200)) <= half_width(np.abs(rng.normal(size=40)))).mean()) for _ in range(300)]
    assert 0.79 < np.mean(held) < 0.84  # at least the promised share: the rank is rounded up
    assert half_width(np.array([3.0, 1.0])) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, so this is no model of a regression task"),
        ("{", "not whole: Invalid JSON"),
        ('{"max_length": 8, "interval": {}}', "not whole, regression: Field required"),
        (
            '{"regression": {"heads": {"a": {}}}, "max_length": 8, "interval": {}}',
            "not whole, regression.heads.a: Value",
        ),
        ('{"regression": {"heads": {"a": {"scale": [0, 1]}}}, "max_length": 0, "interval": {}}', "max_length: Input"),
    ],
)
def test_what_a_model_says_of_its_heads_is_whole_or_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text("{}")
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(UserError, match="regression.json: ") as caught:
        read_facts(tmp_path)
    assert message in caught.value.problems[0] and caught.value.problems[0].endswith("with tools/merge.py")


def test_shifts_are_the_least_training_labels_and_undone():
    shifted = spec(scaling="shift", heads={"score": {"scale": [-1, 5]}}).fitted([{"score": 2.5}, {"score": -0.3}])
    assert shifted.heads["score"].offset == -0.3 and shifted.encode({"score": 0.2}) == [pytest.approx(0.5)]
    assert shifted.decode(np.array([[0.0]]))["score"][0] == pytest.approx(0.2)
    assert shifted.decode(np.array([[50.0]]))["score"][0] == pytest.approx(0.7), "a sigmoid reaches no more than that"
    assert shifted.decode_labels(np.array([shifted.encode({"score": 4.5})]))["score"][0] == pytest.approx(4.5)
    kept = RegressionConfig.model_validate_json(shifted.model_dump_json(exclude_none=True))
    assert kept.fitted([{"score": 0.0}]) == kept == shifted, "the offset is kept with the model"
    assert spec().fitted([{"age": 20, "sex": "女", "trait": 3}]) == spec()

"""Regression answers of language models: digits, drawn and read."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelled import SPEC, write_task
from recipekit import digits, models, segments, windows
from recipekit.errors import UserError
from recipekit.estimator import DigitEstimator
from recipekit.inputs import Article
from recipekit.task import load_task
from tiny import TEXT, tiny_base, tiny_model, tiny_tokenizer

TARGETS = {"a": {"title": "開放性", "scale": [1, 7]}, "b": {"scale": [0, 2.5]}}


def test_digits_of_whole_scales_are_their_values_and_others_are_ten_steps():
    assert digits.levels([1, 7]) == {str(n): n for n in range(1, 8)}
    assert list(digits.levels([0, 9])) == list("0123456789")
    assert digits.levels([1, 10]) == {str(n): 1.0 + n for n in range(10)}
    assert list(digits.levels([0, 2.5]).values()) == pytest.approx(np.linspace(0, 2.5, 10))


@given(st.floats(1, 7), st.floats(0, 2.5), st.text(max_size=20))
def test_a_digit_is_one_of_the_two_beside_the_label(a, b, text):
    found = digits.draw(TARGETS, {"a": a, "b": b, "other": "x"}, text)
    assert int(found["a"]) in (math.floor(a), math.ceil(a)) and found["other"] == "x"
    assert abs(digits.levels([0, 2.5])[found["b"]] - b) <= 2.5 / 9 + 1e-9
    assert found == digits.draw(TARGETS, {"a": a, "b": b, "other": "x"}, text)


def test_digits_of_many_rows_mean_the_label():
    drawn = [int(digits.draw(TARGETS, {"a": 4.25}, f"row {i}")["a"]) for i in range(4000)]
    assert np.mean(drawn) == pytest.approx(4.25, abs=0.03)


@pytest.fixture
def task(tmp_path):
    write_task(tmp_path, SPEC + "prompt: {segments: [p.txt], bos: <s>, eos: </s>}\n")
    (tmp_path / "recipes" / "mini" / "p.txt").write_text("抽出。{{ body }}\n", encoding="utf-8")
    return load_task("mini", tmp_path)


def test_answers_name_each_target_and_its_digit(task):
    assert task.answer({"a": "4", "b": "0"}) == "開放性4 b0</s>"
    assert task.answer({"age": 43, "sex": "女"}) == "age43 sex女</s>"


def test_an_estimate_is_the_mean_of_the_digits_that_the_model_would_write(task, tmp_path, one_thread):
    """Batches padded to one length and read from a cache must give what each prompt gives alone."""
    folder = tiny_base(tmp_path / "model", seed=3)
    estimator = DigitEstimator(task, folder, batch_size=3)
    articles = [Article(str(i), TEXT[i : 7 * i + 9]) for i in range(7)]
    rows = list(estimator.predict(articles))
    model, tokenizer = models.load_model(folder, torch.float32), models.load_tokenizer(folder)
    for article, row in zip(articles, rows, strict=True):
        answer = {}
        for name, target in task.targets.items():
            before = " ".join(f"{task.targets[n].get('title', n)}{d}" for n, d in answer.items())
            text = f"{before} {target.get('title', name)}".strip()
            ids = segments.encode(tokenizer, [*task.prompt(article.body), text])
            levels = digits.levels(target["scale"])
            tokens = [tokenizer.convert_tokens_to_ids(digit) for digit in levels]
            with torch.no_grad():
                power = model(torch.tensor([ids])).logits[0, -1, tokens].softmax(-1).numpy()
            assert row["output"][name] == pytest.approx(float(power @ list(levels.values())), abs=1e-3)
            answer[name] = list(levels)[power.argmax()]


def test_a_text_longer_than_the_context_is_the_mean_of_its_parts(task, tmp_path, one_thread):
    folder = tmp_path / "model"
    tiny_tokenizer(folder)
    tiny_model(folder, max_position_embeddings=64)
    estimator = DigitEstimator(task, folder, batch_size=2)
    body = "".join(TEXT[60:])[:20] * 6
    prompts = windows.prompts(task, estimator.tokenizer, body, estimator.room)
    assert len(prompts) > 2
    row = next(estimator.predict([Article("1", body)]))
    assert list(row["output"].values()) == pytest.approx(estimator._estimate(prompts).mean(0).tolist(), abs=1e-4)


def test_a_tokenizer_that_splits_a_digit_is_refused(task):
    class Splits:
        def __call__(self, texts, **_):
            return {"input_ids": [[ord(c) for c in text.replace("3", "33")] for text in texts]}

    with pytest.raises(
        UserError, match="targets.a in task.yml: the base's tokenizer does not keep the digit"
    ) as caught:
        digits.Slots.of(task, Splits())
    assert "take a base whose tokenizer splits digits" in caught.value.problems[0]

"""Near duplicates, beside a brute force over all pairs."""

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipekit import near

CHARACTERS = [chr(code) for code in range(0x4E00, 0x4F00)]
JAPANESE = st.text(st.sampled_from([*"あアｱガ漢字１1A。、 \u3000\n\u3099\u200b😀「」ー々〜か"]), max_size=30)


def brute(a: str, b: str) -> float:
    """Jaccard of the sets of 5-grams, as a textbook has it."""
    left, right = ({text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in (a, b))
    return len(left & right) / len(left | right)


def texts_with_twins(rng, count, length, most):
    """Texts, and the same with up to `most` characters changed."""
    originals = ["".join(rng.choices(CHARACTERS, k=length)) for _ in range(count)]
    twins = []
    for text in originals:
        letters = list(text)
        for place in rng.sample(range(length), rng.randint(0, most)):
            letters[place] = rng.choice(CHARACTERS)
        twins.append("".join(letters))
    return originals, twins


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("１０日、ｶﾞｽ 会社「甲」で\u3000火災。\n", "10日ガス会社甲で火災"),
        ("か\u3099す（か\u3099す）", "がすがす"),
        ("容疑者(45)", "容疑者45"),
        ("データ・センター、々〆", "データセンター々〆"),
        ("勝った😀！", "勝った😀"),
        ("辻\U000e0100さん\u200b\ufeff", "辻さん"),
        ("5％〜10％", "510"),
        ("……！？", "……！？"),  # of nothing else, it stays
    ],
)
def test_normal_form(text, expected):
    assert near.normal(text) == expected


@given(JAPANESE)
def test_normal_form_is_stable_and_blind_to_widths_and_spaces(text):
    normal = near.normal(text)
    if any(unicodedata.category(c)[0] in "LN" for c in normal):
        assert near.normal(normal) == normal
        assert near.normal(f"\u3000{unicodedata.normalize('NFD', text)}。\n") == normal


@given(JAPANESE, JAPANESE)
def test_jaccard_is_that_of_the_sets_of_5_grams(a, b):
    assert near.jaccard(near.grams(a), near.grams(b)) == pytest.approx(brute(a, b))


def test_jaccard_by_hand():
    # abcdefg has 3 grams, abcdefX 3, of which abcde and bcdef are in both: 2 of 4
    assert near.jaccard(near.grams("abcdefg"), near.grams("abcdefX")) == 0.5
    assert near.jaccard(near.grams("甲乙"), near.grams("甲乙")) == 1
    assert near.jaccard(near.grams("ああああああああ"), near.grams("あああああい")) == 0.5, "a gram counts once"
    assert near.jaccard(near.grams("甲乙"), near.grams("甲丙")) == 0


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_find_99_percent_at_the_threshold_and_are_as_long_as_can_be(threshold):
    def found(count, slots):
        return 1 - (1 - threshold**slots) ** count

    count, slots = near.bands(threshold)
    assert count * slots <= near.SLOTS and found(count, slots) >= 0.99
    assert slots == near.SLOTS or found(near.SLOTS // (slots + 1), slots + 1) < 0.99


@pytest.mark.parametrize("length", [20, 150, 900])
def test_estimates_of_jaccard_are_true(length):
    originals, twins = texts_with_twins(random.Random(length), 300, length, length // 15)
    matrix = near.signatures(originals + twins)
    assert matrix.shape == (600, near.SLOTS)
    alike = (matrix[:300] == matrix[300:]).mean(axis=1)
    right = np.array([brute(a, b) for a, b in zip(originals, twins, strict=True)])
    assert abs((alike - right).mean()) < 0.01 and (alike - right).std() < 0.05


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_recall_between_and_within_beside_brute_force(threshold):
    """Of the pairs from 0.85 on, 95% at least are found; what is left out is below the threshold, or few."""
    originals, twins = texts_with_twins(random.Random(7), 400, 300, 18)
    texts = originals + twins
    matrix = near.signatures(texts)
    left, right = np.arange(400), np.arange(400, 800)
    alike = {(i, 400 + i): brute(texts[i], texts[400 + i]) for i in range(400)}  # the others share nothing
    assert max(brute(originals[i], twins[i - 1]) for i in range(400)) < 0.1
    between = {(other, text) for text, others in near.between(matrix, left, right, threshold) for other in others}
    for found in (between, set(near.within(matrix, np.arange(800), threshold))):
        high = [pair for pair, jaccard in alike.items() if jaccard >= 0.85]
        all_of_them = [pair for pair, jaccard in alike.items() if jaccard >= threshold]
        assert len(high) > 100 and len(all_of_them) > len(high)
        assert sum(pair in found for pair in high) >= 0.99 * len(high)
        assert sum(pair in found for pair in all_of_them) >= 0.98 * len(all_of_them)
        assert all(alike.get(pair, 0) > threshold - 0.2 for pair in found)


def test_between_compares_no_text_with_itself_and_gives_the_most_alike_first():
    text = "".join(CHARACTERS[:200])
    texts = [text[:180] + "甲乙丙丁戊己庚辛壬癸" * 2, text[:195] + "甲乙丙丁戊", text]
    matrix = near.signatures(texts)
    every = np.arange(3)
    found = dict(near.between(matrix, every, every, 0.5))
    assert found[2] == [1, 0] and all(text not in others for text, others in found.items())


def test_within_grows_with_the_texts_and_not_with_their_square():
    rng = random.Random(3)
    frame = "".join(CHARACTERS)
    texts = [frame + "".join(rng.choices(CHARACTERS, k=8)) for _ in range(600)]
    pairs = near.within(near.signatures(texts), np.arange(600), 0.8)
    assert len(pairs) <= 600 * near.KEPT and all(first < second for first, second in pairs)
    assert {second for _, second in pairs} >= set(range(100, 600)), "nearly every text has an earlier one beside it"

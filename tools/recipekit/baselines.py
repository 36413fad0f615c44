"""Baselines: what estimates are worth without a trained language model, each one small function.

A model that does not beat the mean of the training labels has learned nothing of a row, and one that does not beat
TF-IDF with ridge regression need not be that large.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipekit import yamlfile
from recipekit.errors import UserError
from recipekit.regression_scores import Array
from recipekit.runs import relative
from recipekit.segments import read_jsonl
from recipekit.task import Task

NGRAMS = (1, 3)  # characters
FEATURES = 50_000
RARE = 2  # rows that an n-gram must stand in
ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Rows(NamedTuple):
    """Rows with labels.

    Attributes:
        texts: What is estimated from; of a ranking both texts of a pair, a line each.
        labels: Float of shape [rows, targets].
        lengths: Int of shape [rows], characters of what is scored: of a ranking the second text.
    """

    texts: list[str]
    labels: Array
    lengths: NDArray[np.int64]


class Data(NamedTuple):
    """What a baseline is made from, and for.

    Attributes:
        task: The targets' scales count.
        train: Rows that the model's last phase is trained on.
        validation: Rows for choosing between settings.
        test: Rows to estimate, as the test set's input has them.
    """

    task: Task
    train: Rows
    validation: Rows
    test: Sequence[dict[str, Any]]


Baseline = Callable[[Data], tuple[Array, dict[str, Any]]]


def constant(data: Data) -> tuple[Array, dict[str, Any]]:
    """Estimate the mean of the training rows' labels, always; each row counts once, so whoever speaks more counts more.

    Returns:
        Float of shape [test rows, targets], and the facts that a reader wants to know.
    """
    mean = data.train.labels.mean(0)
    named = {name: round(float(value), 4) for name, value in zip(data.task.targets, mean, strict=True)}
    return np.tile(mean, (len(data.test), 1)), {"mean": named}


def length(data: Data) -> tuple[Array, dict[str, Any]]:
    """Estimate by least squares on the logarithm of the text's length and its square, within the scale.

    Returns:
        Float of shape [test rows, targets], and the facts that a reader wants to know.
    """

    def features(lengths: Any) -> Array:
        return np.vander(np.log(np.maximum(lengths, 1)), 3)

    found, *_ = np.linalg.lstsq(features(data.train.lengths), data.train.labels, rcond=None)
    estimate = partial(_within, _scales(data.task), lambda x: x @ found, len(data.task.targets))
    error = float(((estimate(features(data.validation.lengths)) - data.validation.labels) ** 2).mean())
    lengths = [len(scored_text(row)) for row in data.test]
    facts = {"validation_mse": round(error, 4), "mean_length": round(float(data.train.lengths.mean()), 1)}
    return estimate(features(lengths)), facts


def ridge(data: Data) -> tuple[Array, dict[str, Any]]:
    """Estimate by ridge regression on TF-IDF of character n-grams, within the scale.

    The penalty alpha is the one with the least mean squared error on the validation rows.

    Returns:
        Float of shape [test rows, targets], and the facts that a reader wants to know.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=NGRAMS, sublinear_tf=True, max_features=FEATURES, min_df=RARE, dtype=np.float32
    )
    try:
        train = vectorizer.fit_transform(data.train.texts)
    except ValueError:  # sklearn's, where nothing is left
        raise UserError(f"ridge: no {NGRAMS} characters stand in {RARE} training rows; give it more rows") from None
    validation = vectorizer.transform(data.validation.texts)
    test = vectorizer.transform([whole_text(row) for row in data.test])
    scales = _scales(data.task)
    fitted = {}
    for alpha in ALPHAS:
        model = Ridge(alpha, solver="sparse_cg").fit(train, data.train.labels)
        estimate = partial(_within, scales, model.predict, len(data.task.targets))
        error = float(((estimate(validation) - data.validation.labels) ** 2).mean())
        fitted[alpha] = error, estimate
    alpha = min(fitted, key=lambda one: fitted[one][0])
    error, estimate = fitted[alpha]
    facts = {"alpha": alpha, "validation_mse": round(error, 4), "features": train.shape[1], "characters": list(NGRAMS)}
    return estimate(test), facts


def whole_text(row: Mapping[str, Any]) -> str:
    """Return what a row is estimated from."""
    return f"{row['body']}\n{row['pair']}" if "pair" in row else row["body"]


def scored_text(row: Mapping[str, Any]) -> str:
    """Return what a row's numbers are about: of a pair the second text."""
    return row.get("pair", row["body"])


def _scales(task: Task) -> Array:
    return np.array([target["scale"] for target in task.targets.values()], dtype=float).T


def _within(scales: Array, predict: Callable[[Any], Array], targets: int, features: Any) -> Array:
    return np.clip(predict(features).reshape(-1, targets), *scales)


OF_KIND: dict[str, dict[str, Baseline]] = {
    "regression": {"constant": constant, "ridge": ridge},
    "ranking": {"constant": constant, "length": length, "ridge": ridge},
}


def training_files(task: Task) -> dict[str, Path]:
    """Name the rows that the last phase trains on and is validated on, as its YAML says: "train" and "validation".

    Segments are the rows of the data set that they were made of.

    Raises:
        UserError: The YAML is missing or does not name them.
    """
    path = task.dir / f"{task.phases[-1]}.yml"
    config, _ = yamlfile.load(path)
    found, problems = {}, []
    for name, key in (("train", "datasets"), ("validation", "test_datasets")):
        entries = config.get(key) or []
        paths = [entry.get("path") for entry in entries if isinstance(entry, dict)]
        if len(paths) == 1 and isinstance(paths[0], str):
            file = task.root / paths[0]
            found[name] = file.with_name(f"{file.stem.removesuffix('_segments')}{file.suffix}")
        else:
            problems.append(f"{relative(path)}: {key}: expected one local file; name it with --{name}")
    if problems:
        raise UserError(problems)
    return found


def read_rows(task: Task, path: Path) -> Rows:
    """Read training rows: {"id", "body", "labels": {target: number}} a line, of a ranking with "pair".

    Raises:
        UserError: The file is missing or empty, or rows are not of that form; all at once.
    """
    keys = ["body", "pair"] if task.is_paired else ["body"]
    texts, labels, lengths, problems = [], [], [], []
    try:
        for line, row in read_jsonl(path):
            own = row.get("labels")
            numbers = [own.get(name) for name in task.targets] if isinstance(own, dict) else []
            is_text = all(isinstance(row.get(key), str) for key in keys)
            if is_text and numbers and all(type(one) in (int, float) for one in numbers):
                own_texts = {key: row[key] for key in keys}
                texts.append(whole_text(own_texts))
                lengths.append(len(scored_text(own_texts)))
                labels.append(numbers)
            else:
                names = " and ".join(f"'{key}'" for key in (*keys, "labels"))
                expected = f"expected {names} with a number for each of {', '.join(task.targets)}"
                remedy = f"make the file with tools/regenerate_segments.py {task.name}"
                problems.append(f"{relative(path)}:{line}: {expected}; {remedy}")
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    return Rows(texts, np.array(labels, dtype=float), np.array(lengths))

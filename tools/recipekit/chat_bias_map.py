"""Where conversations lie in meaning, on a plane: the likeness of their texts, by a local model or by their characters.

Equal rows give equal points: all draws are seeded, and sums are made on one thread.
"""

import importlib.util
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recipekit import models
from recipekit.chat_said import Said
from recipekit.errors import UserError
from recipekit.models import SAFE_WEIGHTS
from recipekit.runs import relative

Way = Literal["tsne", "umap", "none"]
Vectors = NDArray[np.float64]
MOST = 2_000  # conversations on the map; t-SNE of so many takes 12 seconds on one core
LEAST = 10
LONGEST = 256  # tokens that a model reads of a conversation
BATCH = 32  # conversations
GRAMS, FEATURES, DIMENSIONS = (2, 4), 20_000, 50
PERPLEXITY = 30.0


def check(way: Way, embedder: Path | None) -> None:
    """Refuse what cannot be made, before anything is read.

    Raises:
        UserError: There is no UMAP, or no model in the folder.
    """
    if way == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError("--map umap: umap-learn is not installed; run: uv pip install umap-learn, or take --map tsne")
    if embedder is not None and not (embedder / "config.json").is_file():
        raise UserError(
            f"--embedder {relative(embedder)}: no config.json; expected a model's folder, such as data/samples/encoder"
        )


def draw(rows: Sequence[Said], seed: int) -> list[int]:
    """Choose the rows that stand on the map: all, or so many as can be shown."""
    if len(rows) <= MOST:
        return list(range(len(rows)))
    return sorted(random.Random(seed).sample(range(len(rows)), MOST))


def plane(
    rows: Sequence[Said], way: Way, embedder: Path | None, seed: int, advance: Callable[..., None] = lambda *_: None
) -> dict[str, Any] | None:
    """Lay conversations out on a plane.

    Args:
        rows: The conversations.
        way: "tsne" or "umap"; "none": no map.
        embedder: Folder of a model; None: their 2- to 4-grams of characters stand for the texts.
        seed: Of every draw.
        advance: Called with the number of conversations that are embedded.

    Returns:
        The map as report.json has it; None: it was not asked for, or there are fewer than ten conversations.
    """
    from threadpoolctl import threadpool_limits

    chosen = draw(rows, seed)
    if way == "none" or len(chosen) < LEAST:
        return None
    texts = [rows[i].text for i in chosen]
    with threadpool_limits(1):
        vectors = _embedded(texts, embedder, advance) if embedder else _counted(texts, seed, advance)
        points = (_umap if way == "umap" else _tsne)(vectors, seed)
    return {
        "way": way,
        "embedder": embedder.name if embedder else None,
        "dimensions": vectors.shape[1],
        "rows": len(chosen),
        "of": len(rows),
        "points": [[rows[i].name, round(float(x), 2), round(float(y), 2)] for i, (x, y) in zip(chosen, points)],  # noqa: B905
        "chosen": chosen,
    }


def _counted(texts: Sequence[str], seed: int, advance: Callable[..., None]) -> Vectors:
    """Weigh the texts' n-grams of characters, and leave the directions that tell most."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    weigh = TfidfVectorizer(analyzer="char", ngram_range=GRAMS, max_features=FEATURES, sublinear_tf=True)
    weights = weigh.fit_transform(texts)
    advance(len(texts))
    dimensions = min(DIMENSIONS, min(weights.shape) - 1)
    return np.asarray(TruncatedSVD(max(dimensions, 1), random_state=seed).fit_transform(weights), np.float64)


def _embedded(texts: Sequence[str], embedder: Path, advance: Callable[..., None]) -> Vectors:
    """Average a model's last hidden states over each text's tokens, to length 1."""
    import torch
    from transformers import AutoModel

    tokenizer = models.load_tokenizer(embedder)
    model = AutoModel.from_pretrained(str(embedder), dtype=torch.float32, **SAFE_WEIGHTS).eval()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    longest = min(LONGEST, getattr(model.config, "max_position_embeddings", LONGEST) - 2)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    found = np.zeros((len(texts), model.config.hidden_size))
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        given = tokenizer(
            [texts[i] for i in places], padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
        mask = given["attention_mask"][..., None]
        means = (states * mask).sum(1) / mask.sum(1)
        found[places] = torch.nn.functional.normalize(means, dim=1).double().numpy()
        advance(len(places))
    return found - found.mean(0)  # what all texts share says nothing of their places


def _tsne(vectors: Vectors, seed: int) -> Vectors:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    start: Any = "pca" if vectors.shape[1] > 1 else "random"
    return TSNE(2, perplexity=perplexity, init=start, random_state=seed, n_jobs=1).fit_transform(vectors)


def _umap(vectors: Vectors, seed: int) -> Vectors:
    import umap

    return umap.UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1).fit_transform(vectors)

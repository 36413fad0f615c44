"""Is a reply to its own scene? How near it is to it, beside other scenes, and which facts of a memory it uses."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipekit.chat_measures import plain
from recipekit.chat_replies import Scene

KINDS = ("reply", "memory")  # scenes whose replies are to be about what was said
BLOCK = 100  # scenes that a reply is compared with, its own among them
SEED = 0
GRAMS = (1, 3)  # characters

Array = NDArray[np.float64]


def ranks(scenes: Sequence[Scene], replies: Sequence[str]) -> tuple[Array, Array]:
    """Rank a reply's own scene among others, by how near the reply is to each of them.

    A scene's text is what the user said last and its reference. Near is the cosine of TF-IDF of 1 to 3 characters,
    learned from the scenes. Scenes are dealt out at random into blocks of 100 at most, and a reply is compared with
    those of its block; one with the same text as its own is left out. Equally near scenes share their places, so that a
    reply which says nothing gets what chance gives.

    Returns:
        Float of shape [scenes, 2]: 1 / rank, and the chance of rank 1; and of the same shape what a reply at random
        gets. nan where the scene is of another kind, or none other is in its block.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    found, chance = np.full((2, len(scenes), 2), np.nan)
    own = [i for i, scene in enumerate(scenes) if scene.kind in KINDS]
    if len(own) < 2:
        return found, chance
    texts = np.array([plain(f"{scenes[i].asked}\n{scenes[i].reference or ''}") for i in own], dtype=object)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=GRAMS, sublinear_tf=True)
    targets = vectorizer.fit_transform(texts)
    answers = vectorizer.transform([plain(replies[i]) for i in own])
    order = np.random.default_rng(SEED).permutation(len(own))
    worth = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, BLOCK + 2))])
    for block in np.array_split(order, -(-len(own) // BLOCK)):
        near = np.asarray((answers[block] @ targets[block].T).todense())
        same = texts[block][:, None] == texts[block][None]
        np.fill_diagonal(same, False)
        near[same] = -1
        mine = np.diagonal(near)[:, None]
        nearer, alike = (near > mine + 1e-9).sum(1), (np.abs(near - mine) <= 1e-9).sum(1)
        others = len(block) - same.sum(1)
        places = np.array(own)[block[others > 1]]
        nearer, alike, others = (values[others > 1] for values in (nearer, alike, others))
        found[places, 0] = (worth[nearer + alike] - worth[nearer]) / alike
        found[places, 1] = (nearer == 0) / alike
        chance[places] = np.stack([worth[others] / others, 1 / others], axis=1)
    return found, chance


def memory(scenes: Sequence[Scene], replies: Sequence[str]) -> Array:
    """Tell whether replies to memory scenes use a fact, and how often replies to other scenes do by chance.

    Other scenes are those which do not hold the fact in what they say themselves, system message included.

    Returns:
        Float of shape [scenes, 2]: 1 or 0, and the share of other scenes' replies; nan where the scene has no facts.
    """
    found = np.full((len(scenes), 2), np.nan)
    own = [i for i, scene in enumerate(scenes) if scene.facts]
    if not own:
        return found
    said = [plain(reply) for reply in replies]
    whole = _Joined(said)
    given = _Joined([plain("\n".join([s.system, *(m["content"] for m in s.conversation.messages)])) for s in scenes])
    holders: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for i in own:
        facts = [plain(fact) for fact in scenes[i].facts]
        for fact in facts:
            if fact not in holders:
                holders[fact] = whole.holding(fact), given.holding(fact)
        uses = np.any([holders[fact][0] for fact in facts], axis=0)
        others = ~np.any([holders[fact][1] for fact in facts], axis=0)
        others[i] = False
        found[i] = uses[i], uses[others].mean() if others.any() else np.nan
    return found


class _Joined:
    """Texts as one, which is searched far faster than each of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.whole = "\n".join(texts)  # plain texts have no line ends
        self.starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]

    def holding(self, part: str) -> NDArray[np.bool_]:
        found = np.zeros(len(self.starts), dtype=bool)
        at = self.whole.find(part)
        while at >= 0:
            owner = int(np.searchsorted(self.starts, at, side="right")) - 1
            found[owner] = True
            if owner + 1 == len(self.starts):
                break
            at = self.whole.find(part, int(self.starts[owner + 1]))
        return found

"""A questionnaire about replies: a form to print, a CSV to fill in, and the key that says whose reply each item is."""

import csv
import io
import random
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recipekit import page
from recipekit.chat_ratings import QUESTIONS
from recipekit.chat_replies import Reply, Scene
from recipekit.task import Task


class Item(NamedTuple):
    """A scene of the form, with the replies to it under letters.

    Attributes:
        number: From 1.
        scene: The scene.
        replies: Letter -> model and reply.
    """

    number: int
    scene: Scene
    replies: dict[str, tuple[str, str]]

    def names(self) -> list[str]:
        """Name what is rated: 1, or 1-A and 1-B."""
        return [f"{self.number}-{letter}" if len(self.replies) > 1 else str(self.number) for letter in self.replies]


def draw(scenes: Sequence[Scene], models: Mapping[str, Sequence[Reply]], number: int, seed: int) -> list[Item]:
    """Draw scenes at random, of attribute scenes one a set, and put the models' replies under letters in random order.

    Args:
        scenes: All scenes.
        models: Model's name -> a reply a scene.
        number: How many scenes; all where there are fewer.
        seed: Of the draws.
    """
    rng = random.Random(seed)
    places = list(range(len(scenes)))
    rng.shuffle(places)
    first = {scenes[i].group: i for i in reversed(places)}
    chosen = [i for i in places if first[scenes[i].group] == i][:number]
    items = []
    for place, i in enumerate(chosen, 1):
        names = rng.sample(list(models), len(models))
        letters = zip(string.ascii_uppercase, names, strict=False)
        items.append(Item(place, scenes[i], {letter: (name, models[name][i].text) for letter, name in letters}))
    return items


def form(task: Task, items: Sequence[Item]) -> str:
    """Write the form, which tells no model's name."""
    template = page.environment().get_template("chat_questionnaire.html.j2")
    return page.writable(template.render(task=task, items=items, character=task.spec["chat"]["character"]))


def template(items: Sequence[Item]) -> str:
    """Write the CSV that is filled in: a row a reply."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["rater", "item", *QUESTIONS])
    writer.writerows(["", name, *[""] * len(QUESTIONS)] for item in items for name in item.names())
    return stream.getvalue()


def key(items: Sequence[Item], digests: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Say whose reply each item is.

    Args:
        items: Of the form.
        digests: Model's name -> digest of its predictions.
        seed: That they were drawn with.
    """
    found = {
        name: {"scene": item.scene.id, "model": model}
        for item in items
        for name, (model, _) in zip(item.names(), item.replies.values(), strict=True)
    }
    return {"seed": seed, "predictions": dict(digests), "items": found}

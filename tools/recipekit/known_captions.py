"""Captions that are there already, and whose they are."""

import re
from dataclasses import dataclass
from pathlib import Path

from recipekit import captions, images, models, runs
from recipekit.captions import BY_HAND, FILE, Caption
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task


@dataclass(frozen=True)
class Maker:
    """What makes captions.

    Attributes:
        model: A name on the Hub, or a folder.
        revision: Commit or branch of the former; None for a folder.
        prompt: What the model is asked of each image.
        max_new_tokens: Most tokens of a caption.
    """

    model: str
    revision: str | None
    prompt: str
    max_new_tokens: int

    @classmethod
    def of(cls, task: Task, model: str | None, revision: str | None, max_new_tokens: int) -> "Maker":
        """Take from data.captions in task.yml what is not given.

        Raises:
            UserError: The task has no captions, the prompt's file is missing or empty, or a folder holds no model.
        """
        spec = task.spec["data"]["captions"]
        path = task.dir / spec["prompt"]
        try:
            prompt = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            prompt = ""
        if not prompt:
            raise UserError(f"{relative(path)}: expected what the model is asked, as UTF-8 text, found none; write it")
        name = model or spec["model"]
        if Path(name).is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            models.check_model(Path(name), "name such a folder, or owner/name of a model on the Hub")
            return cls(name, None, prompt, max_new_tokens)
        return cls(name, revision or (None if model else spec.get("revision")) or "main", prompt, max_new_tokens)

    @property
    def name(self) -> str:
        """What stands in captions.csv as the model: a caption of another name is made anew."""
        version = self.revision or runs.digest(Path(self.model))[:8]
        asked = runs.digest([self.prompt, self.max_new_tokens, images.MOST_PIXELS, captions.LONGEST])
        return f"{self.model}@{version} prompt {asked[:8]}"


@dataclass(frozen=True)
class Known:
    """Captions that need not be made, by digest.

    Attributes:
        shipped: Those that lie beside the data.
        own: Those that were made here before by the same model, and those written by hand since.
    """

    shipped: dict[str, Caption]
    own: dict[str, Caption]

    @classmethod
    def read(cls, source: Path, target: Path, maker: str) -> "Known":
        """Read them, those of a stopped run too.

        Raises:
            UserError: All that is wrong with either file.
        """
        own = {digest: one for digest, one in captions.read(target / FILE).items() if one.model in (maker, BY_HAND)}
        return cls(captions.read(source / FILE), captions.take_up(partial(target), maker) | own)

    def of(self, digest: str) -> Caption | None:
        """Return the caption of an image: by hand rather than shipped, shipped rather than made."""
        own, shipped = self.own.get(digest), self.shipped.get(digest)
        return shipped if shipped and not (own and own.model == BY_HAND) else own

    def origin(self, digest: str) -> str:
        """Say where the caption of an image comes from."""
        found = self.of(digest)
        return "new" if found is None else "shipped" if found is self.shipped.get(digest) else "made before"


def partial(target: Path) -> Path:
    """Name the file that a run adds to, batch by batch."""
    return target / f"{FILE}.partial"

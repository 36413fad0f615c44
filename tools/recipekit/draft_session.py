"""A person's decisions about drafted replies, one at a time: what is shown, what may be done, and what is written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any

from recipekit import runs
from recipekit.chat_bias import SOURCE
from recipekit.chat_making import make_row
from recipekit.chat_model import Sampling
from recipekit.conversations import Conversations
from recipekit.draft_input import Gaps, Scene
from recipekit.draft_journal import Draft, Event, Journal, Source, Talk, accepted, standing, talks
from recipekit.draft_model import Drafter
from recipekit.errors import UserError
from recipekit.runs import first_problems, relative

GOALS = (100, 500, 3_000)  # conversations: the model may help, it is trained anew, the data are whole
STALE = (
    "この画面のあとに別の操作がありました。何もしていません。",
    "Something was done since this was shown; nothing was done now.",
)
Notice = tuple[str, str]  # in Japanese and in English; empty: nothing


def need_sources(conversations: Conversations) -> None:
    """Refuse a task whose data cannot say who wrote a reply.

    Raises:
        UserError: It has no field "source" with the values human, model and edited.
    """
    missing = {"human", "model", "edited"} - set(conversations.fields.get(SOURCE, {}).get("values", {}))
    if missing:
        path = relative(conversations.task.dir / "task.yml")
        words = ", ".join(sorted(missing))
        raise UserError(f"{path}: chat.fields.source.values: no {words}; add them, as recipes/aku/task.yml has them")


class Session:
    """Where a person is, over a journal.

    Attributes:
        at: Id of the scene that is shown.
        shown: Which of the reply's drafts is shown, from 0.
    """

    def __init__(
        self, conversations: Conversations, journal: Journal, data: Path, drafter: Drafter | None, sampling: Sampling,
        before: int,
    ) -> None:  # fmt: skip
        """Go on where the journal ends.

        Args:
            conversations: Of the task.
            journal: Open.
            data: Where accepted conversations are written, as raw rows; made of the journal, whatever it held.
            drafter: Who drafts; None: the person writes all replies.
            sampling: How drafts are drawn; its seed grows with each draft of a reply.
            before: Conversations that there are beside these.

        Raises:
            UserError: The journal does not fit together or the task, or the data cannot be written.
        """
        self.conversations, self.journal, self.data = conversations, journal, data
        self.drafter, self.sampling, self.before = drafter, sampling, before
        self.lock = RLock()
        self.shown = 0
        try:
            self.talks = talks(journal.events)
        except (KeyError, TypeError) as error:
            raise UserError(f"{relative(journal.path)}: an event lacks or names what is not there: {error}") from None
        wrong = [
            f"{relative(journal.path)}:{talk.line}: {key}: {what}"
            for talk in self.talks.values()
            for key, what in conversations.field_problems(talk.scene.fields)
        ]
        if wrong:
            remedy = "the fields in task.yml have changed; put back what drafts have, or move the journal away"
            raise UserError([*first_problems(journal.path, wrong), remedy])
        self.queue = list(self.talks)
        self.at = next((name for name, talk in self.talks.items() if talk.ended is None), next(iter(self.talks), ""))
        self.write()

    @property
    def version(self) -> int:
        """Tell what a page has seen from what came after."""
        return len(self.journal.events)

    @property
    def talk(self) -> Talk:
        """The conversation that is shown."""
        return self.talks[self.at]

    @property
    def open(self) -> list[str]:
        """Ids of the scenes that nothing is decided about yet."""
        return [name for name in self.queue if self.talks[name].ended is None]

    def add(self, scenes: Sequence[Scene], gaps: Gaps) -> None:
        """Take scenes in that the journal does not have yet, with the fields that they lack."""
        for scene in scenes:
            if scene.id not in self.talks:
                self._append("scene", scene=replace(scene, fields=gaps.fill(scene.fields)).row())
        self.choose([scene.id for scene in scenes])

    def choose(self, names: Sequence[str]) -> None:
        """Show these scenes, the first open one first."""
        self.queue = list(names)
        self.at = (self.open or self.queue or [""])[0]
        self.shown = 0

    def _append(self, what: str, **facts: Any) -> None:
        event: Event = {"do": what, "time": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        self.journal.append(event)
        self.talks = talks(self.journal.events)

    def row(self, talk: Talk) -> dict[str, Any]:
        """Write a conversation in the task's raw form."""
        said = talk.messages[: 2 * len(talk.replies)]
        fields = talk.fields | {SOURCE: talk.source}
        return make_row(self.conversations, talk.scene.id, said, fields, talk.scene.system)

    def write(self) -> None:
        """Write the accepted conversations, all of them valid.

        Raises:
            UserError: Some are not, or the file cannot be written.
        """
        rows, problems = [], []
        for talk in accepted(self.talks):
            rows.append(self.row(talk))
            place = f"{relative(self.journal.path)}:{talk.line}"
            problems += [f"{place}: {key}: {what}" for key, what in self.conversations.problems(rows[-1])]
        if problems:
            raise UserError(problems)
        if rows or self.data.exists():
            runs.write_jsonl(self.data, rows)

    def counts(self) -> dict[str, int]:
        """Count the accepted conversations by who wrote them, the rejected ones, and those left."""
        found = Counter(talk.source for talk in accepted(self.talks))
        rejected = sum(talk.ended == "rejected" for talk in self.talks.values())
        return {**{kind: found[kind] for kind in ("human", "model", "edited")}, "rejected": rejected,
                "left": len(self.open)}  # fmt: skip

    @property
    def total(self) -> int:
        """Conversations in all."""
        return self.before + sum(1 for _ in accepted(self.talks))

    def needs_draft(self) -> bool:
        """Tell whether a model is to answer now."""
        return bool(self.at and self.drafter) and self._replies() and not self.talk.drafted

    def _replies(self) -> bool:
        return self.talk.ended is None and not self.talk.needs_user

    def draft(self) -> Notice | None:
        """Let the model answer once more; what it wrote is kept.

        Raises:
            UserError: It cannot.
        """
        with self.lock:
            if not (self.at and self.drafter and self._replies()):
                return "いまは下書きできません。", "Nothing to draft now."
            talk = self.talk
            number = len(talk.drafted)
            messages = self.conversations.messages(talk.conversation())
            reply = self.drafter.reply(messages, replace(self.sampling, seed=self.sampling.seed + number))
            self._append(
                "draft", id=self.at, turn=len(talk.replies), after=talk.history, text=reply.text, ended=reply.ended,
                seed=self.sampling.seed + number, model=self.drafter.name,
            )  # fmt: skip
            self.shown = number
        return None

    def current(self) -> Draft | None:
        """Return the draft that is shown."""
        drafts = self.talk.drafted if self.at and self._replies() else []
        return drafts[min(self.shown, len(drafts) - 1)] if drafts else None

    def accept(self, user: str, reply: str, context: str) -> Notice | None:
        """Take what is in the page: what the user says where that is missing, else the reply, drafted or not.

        Raises:
            UserError: It cannot be written.
        """
        if not self.at or self.talk.ended:
            return "これはもう決まっています。", "This one is decided; undo takes it back."
        text = (user if self.talk.needs_user else reply).strip()
        if not text:
            return "空です。書いてから送ってください。", "It is empty; write something first."
        if self.talk.needs_user:
            self._append("user", id=self.at, text=text, **({"context": context.strip()} if context.strip() else {}))
        else:
            self._append("reply", id=self.at, turn=len(self.talk.replies), text=text, source=self._source(text))
        self._moved()
        return None

    def _source(self, text: str) -> Source:
        drafts = [draft.text for draft in self.talk.drafted]
        return "model" if text in drafts else "edited" if any(drafts) else "human"

    def finish(self) -> Notice | None:
        """End a conversation that could go on."""
        if not self.at or not self.talk.needs_user or not self.talk.replies:
            return "いまは終えられません。", "It cannot end here: a reply has to stand at the end."
        self._append("finish", id=self.at)
        self._moved()
        return None

    def reject(self) -> Notice | None:
        """Leave a conversation out."""
        if not self.at or self.talk.ended:
            return "これはもう決まっています。", "This one is decided; undo takes it back."
        self._append("reject", id=self.at)
        self._moved()
        return None

    def undo(self) -> Notice | None:
        """Take the last decision back, and show where it was made."""
        decisions = standing(self.journal.events)
        if not decisions:
            return "取り消すものがありません。", "There is nothing to undo."
        last = decisions[-1]
        was = self.talks[last["id"]].ended
        self._append("undo")
        self.at, self.shown = last["id"], 0
        if self.at not in self.queue:
            self.queue.append(self.at)
        if was == "accepted":
            self.write()
        return None

    def _moved(self) -> None:
        """After a decision: write what is whole, and go to the next open scene."""
        self.shown = 0
        if self.talk.ended == "accepted":
            self.write()
        if self.talk.ended and self.open:
            place, left = self.queue.index(self.at), self.open
            later = set(self.queue[place:]).intersection(left)
            self.at = next((name for name in left if name in later), left[0])

    def go(self, step: int) -> None:
        """Show another scene."""
        if self.queue:
            place = self.queue.index(self.at) + step
            self.at, self.shown = self.queue[min(max(place, 0), len(self.queue) - 1)], 0

    def choose_draft(self, step: int) -> None:
        """Show another draft of this reply."""
        if self.at and self.talk.drafted:
            self.shown = min(max(min(self.shown, len(self.talk.drafted) - 1) + step, 0), len(self.talk.drafted) - 1)

"""Answers of a form, as CSV -> conversations: a row an answer, or a row a respondent with a column a question."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recipekit import yamlfile
from recipekit.chat_fields import typed
from recipekit.chat_making import csv_rows, make_row, unused
from recipekit.chat_mask import Said, mask
from recipekit.conversations import Conversations, Message, Row
from recipekit.errors import UserError
from recipekit.runs import first_problems, relative

QUESTION = ("question", "質問")
ANSWER = ("answer", "回答")
PEOPLE: tuple[str, ...] = ("respondent", "回答者", "名前", "お名前", "氏名", "name", "ユーザー名", "username")
PEOPLE += ("メールアドレス", "email address", "email")
TIMES = ("タイムスタンプ", "timestamp", "スコア", "score")  # columns that Google Forms adds

Role = Literal["reply", "opening"]


@dataclass(frozen=True)
class Answered:
    """An answer.

    Attributes:
        place: Where it stands.
        people: What the file tells of who gave it.
        number: Of the respondent, from 1.
        question: What was asked.
        text: The answer.
        fields: Fields of task.yml that have a column.
    """

    place: str
    people: list[str]
    number: int
    question: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class Questions:
    """What stands for a question in conversations (--questions): question -> say, and fields of task.yml."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, conversations: Conversations, path: Path | None) -> "Questions":
        """Read the file.

        Raises:
            UserError: It is wrong; all of it.
        """
        if path is None:
            return cls()
        content, lines = yamlfile.load(path)
        known, wrong = {}, []
        for question, spec in content.items():
            if not isinstance(spec, dict):
                wrong.append(f"{relative(path)}:{lines[question,]}: {question}: expected say: and fields of task.yml")
                continue
            fields = {name: value for name, value in spec.items() if name != "say"}
            if isinstance(fields.get("attribute"), list):
                fields |= typed(conversations, "attribute", ",".join(map(str, fields.pop("attribute"))))
            found = conversations.field_problems(fields)
            if not isinstance(spec.get("say", ""), str):
                found.append(("say", f"found {spec['say']!r}, expected what the user says"))
            for name, what in found:
                key = (question, name.split(".")[0])
                line = lines.get(key, lines.get((question, "attribute"), lines[question,]))
                wrong.append(f"{relative(path)}:{line}: {name}: {what}")
            known[question.strip()] = fields | {key: spec[key] for key in ("say",) if key in spec}
        if wrong:
            raise UserError(wrong)
        return cls(known)

    def said(self, question: str) -> str:
        """Return what the user says."""
        return self.known.get(question, {}).get("say", question)

    def fields(self, question: str) -> dict[str, Any]:
        """Return the fields of a question's conversations."""
        return {key: value for key, value in self.known.get(question, {}).items() if key != "say"}


def read(conversations: Conversations, path: Path, respondent: str | None, skip: list[str]) -> list[Answered]:
    """Read a form's answers in either form, in UTF-8 or CP932.

    Args:
        conversations: Of the task: a column that is called as one of its fields, or attribute, is that field.
        path: The file.
        respondent: The column that tells who answered; None: those that are usually called so.
        skip: Columns that are no question.

    Raises:
        UserError: The file cannot be read, or columns are missing.
    """
    rows = list(csv_rows(path))
    if not rows:
        raise UserError(f"{relative(path)}: the file is empty; expected a row of column names, and answers")
    header = [name.strip() for name in rows[0][1]]
    unknown = [name for name in (*skip, *([respondent] if respondent else [])) if name not in header]
    if unknown:
        raise UserError(f"{relative(path)}:1: no column {', '.join(unknown)}; the columns are {', '.join(header)}")
    columns = _columns(conversations, header, respondent, skip)
    if len(rows) == 1 or not columns["answer"] or (columns["question"] and not columns["person"]):
        raise UserError(
            f"{relative(path)}:1: the columns are {', '.join(header)}; expected question, answer and respondent, or a "
            "column a question, and a row an answer below"
        )
    numbers: dict[tuple[str, ...], int] = {}
    found: list[Answered] = []
    wrong = [f"{relative(path)}:{line}: {len(cells)} cells, expected {len(header)}; put text with commas into quotes"
             for line, cells in rows[1:] if len(cells) != len(header)]  # fmt: skip
    if wrong:
        raise UserError(first_problems(path, wrong))
    for line, cells in rows[1:]:
        people = [cells[place].strip() for place in columns["person"]]
        key = tuple(people) if any(people) else (f"line {line}",)
        number = numbers.setdefault(key, len(numbers) + 1)
        fields: dict[str, Any] = {}
        for place in columns["field"]:
            fields |= typed(conversations, header[place], cells[place].strip()) if cells[place].strip() else {}
        for place in columns["answer"]:
            question = (cells[columns["question"][0]] if columns["question"] else header[place]).strip()
            where = f"{relative(path)}:{line}: {header[place]}"
            found.append(Answered(where, [p for p in people if p], number, question, cells[place].strip(), fields))
    return found


def _columns(
    conversations: Conversations, header: list[str], respondent: str | None, skip: list[str]
) -> dict[str, list[int]]:
    """Tell what each column is: question, answer, person or field; of a wide form every other one is an answer."""
    names = [name.casefold() for name in header]
    person = [i for i, name in enumerate(names) if name in PEOPLE or header[i] == respondent]
    own = [i for i, name in enumerate(header) if name in conversations.fields or name == "attribute"]
    question = [i for i, name in enumerate(names) if name in QUESTION][:1]
    answer = [i for i, name in enumerate(names) if name in ANSWER][:1]
    if not (question and answer):
        left = [i for i, name in enumerate(names) if name and name not in TIMES and header[i] not in skip]
        question, answer = [], [i for i in left if i not in (*person, *own)]
    return {"question": question, "answer": answer, "person": person, "field": own}


@dataclass(frozen=True)
class Forming:
    """What is made of answers.

    Attributes:
        conversations: Of the task.
        questions: What stands for the questions.
        fields: Of every row; what --questions or a column says goes before.
        role: "reply": the question is the user's turn, the answer the model's. "opening": the answer is what the user
            begins with, and a reply is still to be written.
    """

    conversations: Conversations
    questions: Questions
    fields: Mapping[str, Any]
    role: Role = "reply"

    def row(self, answer: Answered, text: str, name: str) -> Row:
        """Make the row of an answer that is masked."""
        fields = {**self.fields, **self.questions.fields(answer.question), **answer.fields}
        messages: list[Message] = [{"role": "user", "content": self.questions.said(answer.question)}]
        messages.append({"role": "assistant", "content": text})
        if self.role == "opening":
            messages = [{"role": "user", "content": text}]
        return make_row(self.conversations, name, messages, fields)


@dataclass
class Formed:
    """What came of a form.

    Attributes:
        rows: Rows, masked.
        empty: Answers that were empty.
        respondents: People who answered.
        found: Kind of personal information -> places.
    """

    rows: list[Row] = field(default_factory=list)
    empty: int = 0
    respondents: int = 0
    found: Counter[str] = field(default_factory=Counter)


def form(
    path: Path, answers: list[Answered], forming: Forming, key: Path | None, ginza: bool, advance: Callable[..., None]
) -> Formed:
    """Make a conversation of each answer.

    Args:
        path: The form, whose name ids begin with.
        answers: Its answers.
        forming: What is made of them.
        key: As of `chat_mask.mask`.
        ginza: As of `chat_mask.mask`.
        advance: Told of answers done.

    Raises:
        UserError: Rows would be wrong: fields are missing or have no such value.
    """
    given = [answer for answer in answers if answer.text]
    result = Formed(empty=len(answers) - len(given), respondents=len({answer.number for answer in given}))
    order = {question: number for number, question in enumerate(dict.fromkeys(a.question for a in answers), 1)}
    names: dict[str, Answered] = {}
    wrong: list[str] = []
    for answer in given:
        name = unused(f"{path.stem}-r{answer.number:03}-q{order[answer.question]:02}", names)
        names[name] = answer
        scene = forming.role == "opening"
        found = forming.conversations.problems(forming.row(answer, answer.text, name), scene=scene)
        wrong += [f"{answer.place}: {where}: {what}" for where, what in found]
    if wrong:
        hint = "fields are given by --set FIELD=VALUE, by columns that are called so, or in --questions"
        raise UserError([*first_problems(path, wrong), hint])
    said = [Said([who for who in answer.people if "@" not in who], [answer.text]) for answer in given]
    if said:
        masked, result.found = mask(said, key, ginza, advance)
        result.rows = [forming.row(names[name], text, name) for name, [text] in zip(names, masked, strict=True)]
    return result

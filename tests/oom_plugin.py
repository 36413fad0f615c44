"""An Axolotl plugin that runs out of memory: FAKE_OOM holds {"raise" or "kill": [step, key, most]} as JSON."""

import json
import os
import signal

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.21 GiB is "
    "free. Including non-PyTorch memory, this process has 77.94 GiB memory in use."
)


class FakeOom(BasePlugin):
    def add_callbacks_post_trainer(self, cfg, trainer) -> list:
        return [Limits(cfg)]


class Limits(TrainerCallback):
    def __init__(self, cfg) -> None:
        self.cfg, self.limits = cfg, json.loads(os.environ.get("FAKE_OOM", "{}"))

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        for end, (step, key, most) in self.limits.items():
            if state.global_step >= step and self.cfg[key] > most:
                if end == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise torch.OutOfMemoryError(MESSAGE)

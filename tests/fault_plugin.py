"""An Axolotl plugin with which training hangs: FAULT_HANG is the step after which nothing more is done or said."""

import os
import time

from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback


class Hang(BasePlugin):
    def add_callbacks_post_trainer(self, cfg, trainer) -> list:
        return [Hanging()]


class Hanging(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step >= int(os.environ.get("FAULT_HANG", 10**9)):
            time.sleep(3600)

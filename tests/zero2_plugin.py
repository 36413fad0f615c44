"""An Axolotl plugin that runs DeepSpeed ZeRO on CPU ranks over gloo, so that the production config can be tested."""

import os

import deepspeed
import torch
from accelerate import PartialState
from axolotl.core.trainers import AxolotlTrainer
from axolotl.integrations.base import BasePlugin
from axolotl.utils import trainer as axolotl_trainer
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from transformers import Trainer


class CpuTrainer(AxolotlTrainer):
    def create_accelerator_and_postprocess(self) -> None:
        # Axolotl's version resets the process state, and the next one would be made without a backend: one rank.
        Trainer.create_accelerator_and_postprocess(self)


class DeepSpeedOnCpu(BasePlugin):
    def register(self, cfg) -> None:
        # Without a GPU accelerate picks no backend and counts one process, so the state is made here, before Axolotl's.
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        # DeepSpeed's shared-memory all-reduce is compiled at first use; gloo alone needs no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        PartialState(backend="gloo")
        # Axolotl asks the driver about peer-to-peer copies as soon as there are two ranks; no driver, no answer.
        axolotl_trainer.check_cuda_p2p_ib_support = lambda: True
        # gloo's all-gather writes in place into views of a buffer that has a grad_fn, which autograd refuses.
        DeepSpeedZeroOptimizer.step = torch.no_grad()(DeepSpeedZeroOptimizer.step)

    def load_datasets(self, cfg, preprocess: bool = False) -> None:
        # The last hook before the model loader reads it: with several ranks Axolotl sets it to cuda:LOCAL_RANK.
        cfg.device_map = {"": "cpu"}

    def get_training_args(self, cfg) -> dict:
        return {"use_cpu": True}  # transformers refuses bf16 on a CPU that was not asked for

    def get_trainer_cls(self, cfg) -> type[Trainer]:
        return CpuTrainer

"""An Axolotl plugin that seeds the adapter's first values, as recipekit.run_plugin does, and nothing else."""

from axolotl.integrations.base import BasePlugin
from transformers import set_seed


class Seeded(BasePlugin):
    def pre_model_load(self, cfg) -> None:
        set_seed(cfg.seed)

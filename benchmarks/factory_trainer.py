"""LLaMA-Factory's training with the small base's chat template; runs in LLaMA-Factory's own environment.

    python benchmarks/factory_trainer.py SETTINGS.yml

benchmarks/vs_plain_trainer.py runs it. LLaMA-Factory can read a template from the tokenizer, but would write <s> before
every turn of this one; templates of one's own are registered in Python.
"""

import sys
from pathlib import Path

import yaml
from llamafactory.data.formatter import EmptyFormatter, StringFormatter
from llamafactory.data.template import register_template
from llamafactory.train.tuner import run_exp

from plain_trainer import StepTimes

if __name__ == "__main__":
    register_template(
        "small_base",
        format_prefix=EmptyFormatter(slots=[{"bos_token"}]),
        format_system=StringFormatter(slots=["{{content}}\n"]),
        format_user=StringFormatter(slots=["\n相手：{{content}}\n返事："]),
        format_assistant=StringFormatter(slots=["{{content}}", {"eos_token"}]),
    )
    run_exp(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")), callbacks=[StepTimes()])

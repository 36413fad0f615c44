"""An Axolotl plugin that trains text -> numbers and classes, for encoders and decoders: the key `regression` of a YAML.

The data sets are JSONL of {"id", "body", "labels"} and, where two texts are read together, "pair". The model is an
AutoModelForSequenceClassification whose one head has an output for each number and each class; what each means, and
how losses add up, recipekit.regression says.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from axolotl.common.datasets import TrainDatasetMeta
from axolotl.core.trainers.base import AxolotlTrainer
from axolotl.integrations.base import BasePlugin
from axolotl.loaders import load_tokenizer
from axolotl.loaders.utils import load_model_config
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file, save
from torch.nn import functional
from torch.utils.data import Sampler
from transformers import DataCollatorWithPadding, EvalPrediction

from recipekit.models import mark_second_text
from recipekit.ranking import GroupSampler, listwise, ndcg, pairwise
from recipekit.regression import HUBER, RankingConfig, RegressionConfig
from recipekit.runs import write_bytes
from recipekit.segments import read_jsonl


class RegressionArgs(BaseModel):
    """What the plugin adds to Axolotl's schema."""

    regression: RegressionConfig


def loss_of(spec: RegressionConfig, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum the heads' weighted losses.

    Args:
        spec: The heads.
        outputs: Model outputs, shape [rows, num_labels].
        labels: Encoded labels, shape [rows, heads]; with a ranking the rows' groups come last.
    """
    outputs = outputs.float()
    total = outputs.new_zeros(())
    for column, (name, place) in enumerate(spec.places().items()):
        head, part, wanted = spec.heads[name], outputs[:, place], labels[:, column]
        if head.classes:
            loss = functional.cross_entropy(part, wanted.long())
        else:
            value = part[:, 0].sigmoid() if spec.activation == "sigmoid" else part[:, 0]
            if spec.loss == "huber":
                loss = functional.huber_loss(value, wanted.float(), delta=HUBER)
            else:
                loss = functional.mse_loss(value, wanted.float())
        total = total + head.weight * loss
    return total + _order_loss(spec.ranking, outputs[:, 0], labels) if spec.ranking else total


def _order_loss(ranking: RankingConfig, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    wanted, groups = labels[:, 0].float(), labels[:, -1]
    match ranking.loss:
        case "pairwise":
            return ranking.weight * pairwise(outputs, wanted, groups)
        case "listwise":
            return ranking.weight * listwise(outputs, wanted, groups, ranking.temperature)
    return outputs.new_zeros(())


def metrics_of(spec: RegressionConfig, prediction: EvalPrediction) -> dict[str, float]:
    """Score an evaluation: mean absolute errors of numbers, in their units, shares of right classes, NDCG of groups."""
    labels = np.asarray(prediction.label_ids, np.float64)
    values = spec.decode(np.asarray(prediction.predictions))
    wanted = spec.decode_labels(labels)
    found: dict[str, float] = {}
    for name, head in spec.heads.items():
        if head.classes:
            found[f"accuracy_{name}"] = float((values[name].argmax(1) == wanted[name]).mean())
        else:
            found[f"mae_{name}"] = float(np.abs(values[name] - wanted[name]).mean())
    if spec.numbers:
        found["mae"] = float(np.mean([found[f"mae_{name}"] for name in spec.numbers]))
    if spec.ranking:
        [(name, head)] = spec.heads.items()
        found["ndcg"] = ndcg(wanted[name], values[name], labels[:, -1], (head.scale or (0.0, 1.0))[0])
    return found


class RegressionTrainer(AxolotlTrainer):
    """Axolotl's trainer with the loss of the heads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # else gradients are summed over accumulation steps, not averaged

    @property
    def spec(self) -> RegressionConfig:
        """The heads."""
        return RegressionConfig.model_validate(self.axolotl_cfg.regression.to_dict())

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss and, where asked for, the model's outputs."""
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        loss = loss_of(self.spec, outputs, labels)
        return (loss, {"loss": loss, "logits": outputs.float()}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Keep the rows of a group together where a loss looks at their order."""
        ranking = self.spec.ranking
        if ranking is None or ranking.loss == "none":
            return super()._get_train_sampler(train_dataset)
        labels = np.array((self.train_dataset if train_dataset is None else train_dataset)["labels"])
        return GroupSampler(labels[:, -1].astype(int), self.args.seed)


class RegressionPlugin(BasePlugin):
    """Loads labelled rows, prepares the head, and picks loss and metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.biases: list[float] = []

    def get_input_args(self) -> str:
        """Name the plugin's schema."""
        return "recipekit.regression_plugin.RegressionArgs"

    def register(self, cfg: dict) -> None:
        """Make the model a classifier with as many outputs as the heads need."""
        try:
            spec = RegressionConfig.model_validate(dict(cfg.get("regression") or {}))
        except ValidationError:
            return  # Axolotl's validation comes next and says what is wrong
        cfg["model_type"], cfg["num_labels"] = "AutoModelForSequenceClassification", spec.num_labels

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> TrainDatasetMeta:
        """Tokenise the rows that the YAML names; texts are cut at sequence_len."""
        tokenizer = mark_second_text(load_tokenizer(cfg), load_model_config(cfg))
        train, held_out = (read_jsonl_of(cfg, key) for key in ("datasets", "test_datasets"))
        spec = _spec(cfg).fitted([row["labels"] for row in train])
        cfg.regression = DictDefault(spec.model_dump(exclude_none=True))
        rows = encode_rows(train, spec, tokenizer, cfg.sequence_len)
        self.biases = spec.start(rows["labels"])
        steps = cfg.max_steps or math.ceil(math.ceil(len(rows) / cfg.batch_size) * cfg.num_epochs)
        return TrainDatasetMeta(rows, encode_rows(held_out, spec, tokenizer, cfg.sequence_len), steps)

    def post_model_build(self, cfg: Any, model: Any) -> None:
        """Name the outputs, and start at the constant mean."""
        spec = _spec(cfg)
        model.config.id2label = spec.id2label
        model.config.label2id = {name: place for place, name in spec.id2label.items()}
        model.config.problem_type = "regression" if len(spec.numbers) == len(spec.heads) else None
        if model.config.pad_token_id is None:  # of decoders, which look for the last token that is no padding
            model.config.pad_token_id = load_tokenizer(cfg).pad_token_id
        heads = [module for name, module in model.named_children() if name != model.base_model_prefix]
        last = [module for head in heads for module in head.modules() if isinstance(module, torch.nn.Linear)][-1]
        if last.bias is not None:
            with torch.no_grad():
                last.bias.copy_(torch.tensor(self.biases, dtype=last.bias.dtype))

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Where a phase has other targets than the one before, put its new head into a copy of that one's adapter."""
        if _spec(cfg).new_head and cfg.lora_model_dir:
            cfg.lora_model_dir = str(with_new_head(Path(cfg.lora_model_dir), model, Path(cfg.output_dir) / "start"))

    def get_trainer_cls(self, cfg: Any) -> type[RegressionTrainer]:
        """Pick the trainer."""
        return RegressionTrainer

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Score each evaluation in the labels' units."""
        spec = _spec(cfg)
        trainer.compute_metrics = lambda prediction: metrics_of(spec, prediction)

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Pass on `greater_is_better: false`, which Axolotl drops: the worst checkpoint would then be the best."""
        return {} if cfg.greater_is_better is None else {"greater_is_better": cfg.greater_is_better}

    def get_collator_cls_and_kwargs(self, cfg: Any, is_eval: bool = False) -> tuple[Any, dict[str, Any]]:
        """Pad to the longest row of a batch."""
        return DataCollatorWithPadding, {}


def _spec(cfg: Any) -> RegressionConfig:
    return RegressionConfig.model_validate(cfg.regression.to_dict())


def read_jsonl_of(cfg: Any, key: str) -> list[dict[str, Any]]:
    """Read the rows of the files that a config names under datasets or test_datasets."""
    return [row for entry in cfg[key] for _, row in read_jsonl(Path(entry["path"]))]


def encode_rows(rows: list[dict[str, Any]], spec: RegressionConfig, tokenizer: Any, length: int) -> Dataset:
    """Tokenise labelled rows, pairs with what the tokenizer puts between two texts.

    Args:
        rows: With "body", "labels" and, where two texts are read together, "pair".
        spec: The heads, which say how labels become numbers.
        tokenizer: The base model's.
        length: Tokens at which a row is cut.

    Returns:
        What the model reads (input_ids, attention_mask ...) and labels of each row: a float a head, and with a ranking
        the number of the row's group.
    """
    pairs = [row["pair"] for row in rows] if "pair" in rows[0] else None
    tokens = tokenizer([row["body"] for row in rows], pairs, truncation=True, max_length=length)
    labels = [spec.encode(row["labels"]) for row in rows]
    if spec.ranking:
        groups: dict[str, int] = {}
        for own, row in zip(labels, rows, strict=True):
            own.append(float(groups.setdefault(row[spec.ranking.by], len(groups))))
    return Dataset.from_dict({**tokens, "labels": labels})


def with_new_head(adapter: Path, model: Any, folder: Path) -> Path:
    """Copy an adapter, with a model's own head in place of the one that it was saved with.

    PEFT would refuse a head of another size. Every rank writes the same files, each whole or not at all.

    Args:
        adapter: Folder of the phase before.
        model: The base with a new head, not yet wrapped.
        folder: Where to put the copy.
    """
    prefix = "base_model.model."
    tensors = load_file(adapter / "adapter_model.safetensors")
    own = dict(model.named_parameters())
    for name in tensors:
        if "lora_" not in name:
            tensors[name] = own[name.removeprefix(prefix)].detach().float().contiguous().clone()
    write_bytes(folder / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_bytes(folder / "adapter_config.json", (adapter / "adapter_config.json").read_bytes())
    return folder

"""The formula of memory against what torch keeps, and what a recipe is said to need."""

import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import estimate
from memory_model import ADAPTER, measured, predicted, sizes
from recipekit import ROOT
from recipekit.architecture import architecture, read_config
from recipekit.errors import UserError
from recipekit.fitting import needs
from recipekit.memory import Setting, layer_bytes, predict, setting
from recipekit.prices import Machine
from recipekit.resolve import resolve
from recipekit.task import load_task
from test_estimate import asked, phases

T4, A100 = Machine("t4", 1.0, 1, "T4", 16), Machine("a100", 1.0, 1, "A100", 80)
MISTRAL = {
    "model_type": "mistral", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 224, "num_attention_heads": 4,
    "num_key_value_heads": 2, "sliding_window": None,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
ENCODER = {
    "regression": {},
    "adapter": "lora",
    "lora_r": 8,
    "lora_target_modules": r".*layer\.\d+\..*(query|key|value|dense)",
}
ROWS, LENGTH = 3, 96


def kept(values: dict, config: dict, layers: int, run: Setting) -> int:
    """Count the bytes that torch keeps for the backward pass, parameters left out."""
    values = values | {"num_hidden_layers": layers}
    sizes = AutoConfig.for_model(values.pop("model_type"), **values)
    dtype = torch.float32 if run.bytes == 4 else torch.bfloat16
    kind = AutoModelForSequenceClassification if "regression" in config else AutoModelForCausalLM
    model = kind.from_config(sizes, attn_implementation=run.attention, dtype=dtype)
    lora = LoraConfig(r=8, target_modules=config["lora_target_modules"], lora_dropout=run.dropout)
    model = get_peft_model(model, lora, autocast_adapter_dtype=False).train()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = model(input_ids=torch.randint(0, 512, (run.rows, run.length)))
    assert found.logits.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("width", [4, 2])
@pytest.mark.parametrize("values", [MISTRAL, BERT | {"attention": "sdpa"}, BERT | {"attention": "eager"}])
def test_a_layer_keeps_what_the_formula_says(values: dict, width: int, dropout: float) -> None:
    values = dict(values)
    attention = values.pop("attention", "sdpa")
    config = ENCODER if values["model_type"] == "bert" else ADAPTER | {"lora_r": 8}
    if attention == "sdpa":  # whose kernels for GPUs draw a dropout of scores anew; a CPU keeps all scores instead
        values["attention_probs_dropout_prob" if "bert" in values["model_type"] else "attention_dropout"] = 0.0
    # packed: a CPU repeats grouped heads, as a mask makes a GPU do
    run = Setting(ROWS, LENGTH, width, mixed=False, attention=attention, dropout=dropout, mask=width, packed=True)
    model = architecture(values | {"num_hidden_layers": 2}, config)
    found = kept(values, config, 3, run) - kept(values, config, 2, run)
    assert sum(layer_bytes(model, run).values()) * run.tokens == pytest.approx(found, rel=0.08)


@pytest.mark.parametrize(("values", "config"), [(MISTRAL, ADAPTER), (BERT, ENCODER)])
def test_an_adapters_parameters_are_those_of_peft(values: dict, config: dict) -> None:
    model = architecture(values | {"num_hidden_layers": 2}, config)
    values = values | {"num_hidden_layers": 2}
    sizes = AutoConfig.for_model(values.pop("model_type"), **values)
    kind = AutoModelForSequenceClassification if "regression" in config else AutoModelForCausalLM
    lora = LoraConfig(r=config["lora_r"], target_modules=config["lora_target_modules"])
    peft = get_peft_model(kind.from_config(sizes), lora)
    assert model.adapter == sum(weight.numel() for weight in peft.parameters() if weight.requires_grad)
    assert model.parameters == sum(weight.numel() for weight in peft.parameters()) - model.adapter


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("hawks", 7_241_732_096 + 2 * 16_000 * 4096),
        ("bigfive", 560e6),
        ("ogiri", 111e6),
        ("companion:qlora", 7.616e9),
        ("aku", 7.616e9),
    ],
)
def test_the_table_has_the_recipes_bases(task: str, parameters: float) -> None:
    recipe = load_task(task)
    for phase in recipe.phases:
        config = resolve(recipe, phase, "gpu")
        model = architecture(read_config(recipe, config["base_model"]), config)
        assert model.parameters == pytest.approx(parameters, rel=0.002)
        assert model.adapter > 0 and (model.head > 0) == ("regression" in config)


def test_each_remedy_takes_less() -> None:
    recipe = load_task("hawks")
    config = resolve(recipe, "phase2", "gpu")
    model = architecture(read_config(recipe, config["base_model"]), config)
    run = setting(config, model.decoder, 1, ROOT)
    assert (run.rows, run.length, run.fused, run.liger_loss, run.zero) == (2, 4096, True, True, 2)
    whole = predict(model, run)
    assert whole["weights"] == 2 * model.parameters
    assert whole["adapter"] + whole["gradients"] + whole["optimizer"] == 16 * model.adapter  # 2 + 2 + 12: ZeRO's paper
    sharded = predict(model, replace(run, gpus=4))
    assert sharded["gradients"] == whole["gradients"] / 4 and sharded["optimizer"] == whole["optimizer"] / 4
    assert sharded["weights"] == whole["weights"] > predict(model, replace(run, gpus=4, zero=3))["weights"]
    half = predict(model, replace(run, rows=1))
    assert 0.4 < half["activations"] / whole["activations"] < 0.51
    assert predict(model, replace(run, checkpointing=True))["activations"] < whole["activations"] / 5
    assert predict(model, replace(run, fused=False))["activations"] > 1.3 * whole["activations"]
    assert predict(model, replace(run, four_bit=True))["weights"] < 0.35 * whole["weights"]
    assert predict(model, replace(run, liger_loss=False))["logits"] == run.tokens * 48_000 * 14
    assert "logits" not in whole  # Liger's share is less than what the backward pass of a layer takes


def test_a_recipe_that_fits_is_left_alone_and_another_gets_advice() -> None:
    recipe = load_task("hawks")
    assert all(need.advice == "" and need.total < 80e9 for need in needs(recipe, A100))
    for need in needs(recipe, replace(A100, memory_gb=24)):
        assert need.total > 24e9
        assert "micro_batch_size: 1, gradient_accumulation_steps: 4, gradient_checkpointing: True" in need.advice
    assert all("load_in_4bit: true" in need.advice for need in needs(recipe, T4))
    assert all("nothing in the recipe makes it fit" in n.advice for n in needs(recipe, replace(T4, memory_gb=5)))
    assert all("zero3.json" in n.advice for n in needs(recipe, replace(T4, memory_gb=8, gpus=8)))


def test_every_weight_trained_takes_16_bytes_a_parameter_shared_out() -> None:
    model = architecture(read_config(load_task("companion"), "Qwen/Qwen2.5-7B-Instruct", None), {"adapter": None})
    parts = predict(model, Setting(1, 8, zero=3, gpus=4, full=True))
    states = sum(parts[name] for name in ("weights", "adapter", "gradients", "optimizer"))
    gathered = 4 * model.quantised / model.layers
    assert states == pytest.approx(16 * model.parameters / 4 + gathered)
    alone = predict(model, Setting(1, 8, full=True))
    assert alone["gradients"] == alone["weights"] == 2 * model.parameters == alone["optimizer"] / 2


def test_a_phase_on_an_earlier_ones_merged_model_has_that_phases_base() -> None:
    first, *_, last = needs(load_task("companion"), A100)
    assert last.phase == "dpo" and last.parts["weights"] == first.parts["weights"]
    assert last.parts["logits"] > 10e9, "of a pair, without Liger"


def test_8_gb_hold_the_quantised_variant() -> None:
    [need] = needs(load_task("companion:qlora"), replace(T4, memory_gb=8))
    assert need.total <= need.limit, "as its YAML says"


def test_a_base_that_nobody_knows_is_named(mini, monkeypatch) -> None:
    for name in ("prices.yml", "architectures.yml"):
        shutil.copy(ROOT / "recipes" / name, mini / "recipes")
    phases(mini, {"max_steps": 100, "sequence_len": 64}, {"max_steps": 100, "sequence_len": 64})
    with pytest.raises(UserError, match="owner/base: no config.json here, so its memory cannot be estimated"):
        needs(load_task("mini", mini), T4)
    speeds = ["--steps-per-second=phase1=1", "--steps-per-second=phase2=1"]
    assert asked(monkeypatch, mini, "--machine", "ml.g4dn.xlarge", *speeds)["memory"] == []
    assert estimate.memory_needs(load_task("mini", mini), "gpu", T4)[1] != []


def test_the_memory_of_a_known_base_is_printed(mini, monkeypatch) -> None:
    for name in ("prices.yml", "architectures.yml"):
        shutil.copy(ROOT / "recipes" / name, mini / "recipes")
    base = {"base_model": "FacebookAI/xlm-roberta-large", "sequence_len": 512, "bf16": True, "max_steps": 10}
    phases(mini, base | {"micro_batch_size": 64}, base)
    speeds = ["--steps-per-second=phase1=1", "--steps-per-second=phase2=1"]
    first, second = asked(monkeypatch, mini, "--machine", "ml.g4dn.xlarge", *speeds)["memory"]
    assert not first["fits"] and "micro_batch_size" in first["advice"] and first["total_gb"] > 16
    assert second["fits"] and second["total_gb"] == pytest.approx(sum(second["gb"].values()), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_formula_holds_against_measured_memory(checkpointing: bool) -> None:
    case = ("12 x 512", 2, 512, 16000, 4, 0.0, checkpointing)
    assert sizes("12 x 512", 16000)["vocab_size"] == 16000
    assert predicted(case) == pytest.approx(measured(case), rel=0.25)
